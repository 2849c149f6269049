#include "engine/async.hpp"

#include <boost/asio/redirect_error.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/system/system_error.hpp>

namespace walferry {

Awaitable<void> Event::wait() {
  co_await wait_until(Deadline::max());
}

Awaitable<bool> Event::wait_until(Deadline deadline) {
  if (!notified_) {
    timer_.expires_at(deadline);
    boost::system::error_code
        ignored;  // cancelled by notify(), or by the coroutine's own cancellation, told apart below
    co_await timer_.async_wait(asio::redirect_error(asio::use_awaitable, ignored));
    const asio::cancellation_state state = co_await asio::this_coro::cancellation_state;
    if (state.cancelled() != asio::cancellation_type::none) {
      throw boost::system::system_error{asio::error::operation_aborted};
    }
  }
  co_return std::exchange(notified_, false);
}

}  // namespace walferry
