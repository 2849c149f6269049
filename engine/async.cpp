#include "engine/async.hpp"

#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/co_spawn.hpp>
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

namespace {

// What together() waits for; shared with the handlers of its works.
struct Open {
  explicit Open(const asio::any_io_executor& executor) : ended(executor) {}

  std::size_t count = 0;
  Event ended;
  std::exception_ptr failure;
};

}  // namespace

Awaitable<void> together(asio::any_io_executor executor, std::vector<Awaitable<void>> works) {
  const auto open = std::make_shared<Open>(executor);
  open->count = works.size();
  std::vector<std::unique_ptr<asio::cancellation_signal>> cancels;
  for (Awaitable<void>& work : works) {
    auto& cancel = cancels.emplace_back(std::make_unique<asio::cancellation_signal>());
    auto ended = [open](const std::exception_ptr& failure) {
      if (failure && !open->failure) open->failure = failure;
      --open->count;
      open->ended.notify();
    };
    asio::co_spawn(executor, std::move(work), asio::bind_cancellation_slot(cancel->slot(), std::move(ended)));
  }
  bool cancelled = false;
  while (open->count > 0) {
    std::exception_ptr failure;
    try {
      co_await open->ended.wait();
    } catch (...) {
      failure = std::current_exception();
    }
    if (!failure) continue;
    cancelled = true;
    for (const auto& cancel : cancels) cancel->emit(asio::cancellation_type::all);
    co_await asio::this_coro::reset_cancellation_state();
  }
  if (cancelled) throw boost::system::system_error{asio::error::operation_aborted};
  if (open->failure) std::rethrow_exception(open->failure);
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
