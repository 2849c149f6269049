#include "engine/async.hpp"

#include <boost/asio/multiple_exceptions.hpp>
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

bool is_cancellation(const std::exception_ptr& failure) {
  if (!failure) return false;
  try {
    std::rethrow_exception(failure);
  } catch (const boost::system::system_error& error) {
    return error.code() == asio::error::operation_aborted;
  } catch (const asio::multiple_exceptions& both) {
    return is_cancellation(both.first_exception());  // of `a || b`, both of which were cancelled
  } catch (const std::exception&) {
    return false;
  }
}

}  // namespace walferry
