// The few coroutine tools of the io thread: Event, wait with a deadline, and blocking work on a pool.
//
// Everything here is used from the io thread; only run_blocking() crosses to a pool thread and back. Coroutine rules:
// style.md.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/associated_executor.hpp>
#include <boost/asio/async_result.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/thread_pool.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <chrono>
#include <exception>
#include <functional>
#include <memory>
#include <type_traits>
#include <utility>
#include <vector>

namespace walferry {

namespace asio = boost::asio;

template <typename T>
using Awaitable = asio::awaitable<T>;

using Deadline = std::chrono::steady_clock::time_point;

// Wakes whoever waits. A notify() with nobody waiting is remembered for the next wait.
class Event {
 public:
  explicit Event(const asio::any_io_executor& executor) : timer_(executor, Deadline::max()) {}

  void notify() {
    notified_ = true;
    timer_.cancel();
  }
  // Returns when notified; throws operation_aborted when the coroutine is cancelled.
  Awaitable<void> wait();
  // The same; false when `deadline` came first.
  Awaitable<bool> wait_until(Deadline deadline);

 private:
  asio::steady_timer timer_;
  bool notified_ = false;
};

// Runs all of them at the same time and returns when the last has ended. Rethrows the first failure. Cancelled, it
// cancels them and still waits for their ends: what they refer to may go when it returns.
Awaitable<void> together(asio::any_io_executor executor, std::vector<Awaitable<void>> works);

// The failure of a coroutine that was cancelled, rather than of what it did.
[[nodiscard]] bool is_cancellation(const std::exception_ptr& failure);

// Runs `work` on the pool; the coroutine goes on, on its own executor, with its result or exception. Not cancellable:
// the work itself must watch its stop token.
template <typename T>
Awaitable<T> run_blocking(asio::thread_pool& pool, std::function<T()> work) {
  using Stored = std::conditional_t<std::is_void_v<T>, bool, T>;
  auto initiate = [&pool](auto handler, std::function<T()> task) {
    auto executor = asio::get_associated_executor(handler);
    auto guard = asio::make_work_guard(executor);
    // A shared holder, because the handler is move-only and post() may copy on this path.
    auto held = std::make_shared<decltype(handler)>(std::move(handler));
    asio::post(pool, [held, guard, executor, task = std::move(task)]() mutable {
      std::exception_ptr failure;
      auto result = std::make_shared<std::unique_ptr<Stored>>();
      try {
        if constexpr (std::is_void_v<T>) {
          task();
        } else {
          *result = std::make_unique<Stored>(task());
        }
      } catch (...) {
        failure = std::current_exception();  // rethrown in the coroutine
      }
      task = nullptr;
      asio::post(executor, [held, failure, result]() mutable {
        auto complete = std::move(*held);
        if constexpr (std::is_void_v<T>) {
          std::move(complete)(failure);
        } else {
          std::move(complete)(failure, std::move(*result));
        }
      });
    });
  };
  if constexpr (std::is_void_v<T>) {
    co_await asio::async_initiate<const asio::use_awaitable_t<>, void(std::exception_ptr)>(
        initiate, asio::use_awaitable, std::move(work));
  } else {
    std::unique_ptr<T> result =
        co_await asio::async_initiate<const asio::use_awaitable_t<>, void(std::exception_ptr, std::unique_ptr<T>)>(
            initiate, asio::use_awaitable, std::move(work));
    co_return std::move(*result);
  }
}

}  // namespace walferry
