#include "engine/retry.hpp"

#include <spdlog/spdlog.h>

#include <algorithm>

namespace walferry {

Awaitable<void> Retry::after(Error error) {
  if (!is_transient(error)) throw error;
  spdlog::warn("{} failed and is tried again in {} ms: {}", what_, pause_.count(), error.what());
  timer_.expires_after(pause_);
  pause_ = std::min(pause_ * 2, longest_pause);
  co_await timer_.async_wait(asio::use_awaitable);
}

}  // namespace walferry
