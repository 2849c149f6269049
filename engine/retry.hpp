// The one way of waiting after a failure: a growing pause for what may pass by itself, a throw for what may not.
//
// Used by Receiver, Applier and Migration for their connections; each owns one.
#pragma once

#include <string>

#include "engine/async.hpp"
#include "engine/error.hpp"

namespace walferry {

class Retry {
 public:
  Retry(const asio::any_io_executor& executor, std::string what) : timer_(executor), what_(std::move(what)) {}

  // Throws `error` unless it is transient; otherwise logs it and waits 0.1 s, then twice as long each time, at most 5
  // s.
  Awaitable<void> after(Error error);
  void reset() { pause_ = first_pause; }

 private:
  static constexpr std::chrono::milliseconds first_pause{100};
  static constexpr std::chrono::milliseconds longest_pause{5'000};

  asio::steady_timer timer_;
  std::string what_;
  std::chrono::milliseconds pause_ = first_pause;
};

}  // namespace walferry
