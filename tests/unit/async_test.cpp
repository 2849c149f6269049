#include "engine/async.hpp"

#include <doctest/doctest.h>

#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/system/system_error.hpp>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>

using namespace walferry;
using namespace std::chrono_literals;

namespace {

using Clock = std::chrono::steady_clock;

// How a wait ended.
enum class Outcome { Pending, Notified, TimedOut, Cancelled };

Awaitable<void> wait_for_event(Event& event, Outcome& outcome) {
  co_await event.wait();
  outcome = Outcome::Notified;
}

Awaitable<void> wait_for_event_until(Event& event, Deadline deadline, Outcome& outcome) {
  const bool notified = co_await event.wait_until(deadline);
  outcome = notified ? Outcome::Notified : Outcome::TimedOut;
}

// One io thread with an event that nobody has notified yet.
struct Io {
  asio::io_context context;
  Event event{context.get_executor()};

  // Starts a wait; `outcome` is set when it ends.
  void wait(Outcome& outcome) { asio::co_spawn(context, wait_for_event(event, outcome), asio::detached); }
  void wait_until(Deadline deadline, Outcome& outcome) {
    asio::co_spawn(context, wait_for_event_until(event, deadline, outcome), asio::detached);
  }
  // Everything that can happen without waiting.
  void settle() {
    context.restart();
    context.poll();
  }
  void run() {
    context.restart();
    context.run();
  }
};

}  // namespace

TEST_CASE("a waiter goes on when it is notified, not before") {
  Io io;
  Outcome outcome = Outcome::Pending;
  io.wait(outcome);
  io.settle();
  CHECK(outcome == Outcome::Pending);
  io.event.notify();
  io.settle();
  CHECK(outcome == Outcome::Notified);
}

TEST_CASE("a notification with nobody waiting is remembered for one wait") {
  Io io;
  io.event.notify();
  io.event.notify();
  Outcome first = Outcome::Pending;
  io.wait(first);
  io.settle();
  CHECK(first == Outcome::Notified);
  Outcome second = Outcome::Pending;
  io.wait(second);
  io.settle();
  CHECK(second == Outcome::Pending);
  io.event.notify();
  io.settle();
  CHECK(second == Outcome::Notified);
}

TEST_CASE("a wait ends at its deadline when nothing came") {
  Io io;
  Outcome outcome = Outcome::Pending;
  const Deadline deadline = Clock::now() + 20ms;
  io.wait_until(deadline, outcome);
  io.run();
  CHECK(outcome == Outcome::TimedOut);
  CHECK(Clock::now() >= deadline);
}

TEST_CASE("a notification before the deadline ends the wait at once") {
  Io io;
  Outcome outcome = Outcome::Pending;
  io.wait_until(Clock::now() + 1h, outcome);
  io.settle();
  io.event.notify();
  io.settle();
  CHECK(outcome == Outcome::Notified);
}

TEST_CASE("a notification that meets the deadline is not lost") {
  Io io;
  Outcome outcome = Outcome::Pending;
  const auto deadline = Clock::now() + 1ms;
  io.wait_until(deadline, outcome);
  io.settle();
  while (Clock::now() <= deadline) std::this_thread::yield();
  io.event.notify();
  io.settle();
  CHECK(outcome == Outcome::Notified);
}

TEST_CASE("a wait that timed out can be followed by another") {
  Io io;
  Outcome first = Outcome::Pending;
  io.wait_until(Clock::now() - 1s, first);
  io.run();
  CHECK(first == Outcome::TimedOut);
  Outcome second = Outcome::Pending;
  io.wait(second);
  io.settle();
  CHECK(second == Outcome::Pending);
  io.event.notify();
  io.settle();
  CHECK(second == Outcome::Notified);
}

TEST_CASE("a cancelled wait throws and leaves a later notification to the next one") {
  Io io;
  asio::cancellation_signal stop;
  Outcome outcome = Outcome::Pending;
  std::exception_ptr failure;
  auto finished = [&failure](std::exception_ptr error) { failure = error; };
  asio::co_spawn(io.context, wait_for_event(io.event, outcome), asio::bind_cancellation_slot(stop.slot(), finished));
  io.settle();
  stop.emit(asio::cancellation_type::terminal);
  io.settle();
  CHECK(outcome == Outcome::Pending);
  REQUIRE(failure != nullptr);
  CHECK_THROWS_AS(std::rethrow_exception(failure), boost::system::system_error);
  io.event.notify();
  Outcome next = Outcome::Pending;
  io.wait(next);
  io.settle();
  CHECK(next == Outcome::Notified);
}

namespace {

Awaitable<void> ask_pool(asio::thread_pool& pool, std::function<std::string()> work, std::string& answer,
                         std::thread::id& woke_on) {
  answer = co_await run_blocking<std::string>(pool, std::move(work));
  woke_on = std::this_thread::get_id();
}

}  // namespace

TEST_CASE("blocking work runs on the pool and its result comes back to the io thread") {
  Io io;
  asio::thread_pool pool{1};
  std::string answer;
  std::thread::id worked_on;
  std::thread::id woke_on;
  std::function<std::string()> work = [&worked_on] {
    worked_on = std::this_thread::get_id();
    return std::string(100, 'x');
  };
  asio::co_spawn(io.context, ask_pool(pool, std::move(work), answer, woke_on), asio::detached);
  io.run();
  CHECK(answer == std::string(100, 'x'));
  CHECK(woke_on == std::this_thread::get_id());
  CHECK(worked_on != std::this_thread::get_id());
}

TEST_CASE("a failure on the pool is thrown where it was waited for") {
  Io io;
  asio::thread_pool pool{1};
  std::string answer;
  std::thread::id woke_on;
  std::exception_ptr failure;
  std::function<std::string()> work = []() -> std::string { throw std::runtime_error("the disk is full"); };
  auto finished = [&failure](std::exception_ptr error) { failure = error; };
  asio::co_spawn(io.context, ask_pool(pool, std::move(work), answer, woke_on), finished);
  io.run();
  REQUIRE(failure != nullptr);
  CHECK_THROWS_WITH(std::rethrow_exception(failure), "the disk is full");
}

namespace {

Awaitable<void> count_after(Event& event, int& count) {
  co_await event.wait();
  ++count;
}

Awaitable<void> fail_at_once() {
  throw std::runtime_error{"refused"};
  co_return;
}

// How together() ended.
Awaitable<void> run_together(asio::any_io_executor executor, std::vector<Awaitable<void>> works, std::string& outcome) {
  try {
    co_await together(executor, std::move(works));
    outcome = "done";
  } catch (const std::exception& error) {
    outcome = is_cancellation(std::current_exception()) ? "cancelled" : error.what();
  }
}

}  // namespace

TEST_CASE("works run together, and the first failure is told when the last of them has ended") {
  Io io;
  Event second{io.context.get_executor()};
  int count = 0;
  std::string outcome;
  std::vector<Awaitable<void>> works;
  works.push_back(count_after(io.event, count));
  works.push_back(count_after(second, count));
  SUBCASE("all succeed") {
    asio::co_spawn(io.context, run_together(io.context.get_executor(), std::move(works), outcome), asio::detached);
    io.event.notify();
    io.settle();
    CHECK(count == 1);
    CHECK(outcome.empty());
    second.notify();
    io.settle();
    CHECK(count == 2);
    CHECK(outcome == "done");
  }
  SUBCASE("one fails") {
    works.push_back(fail_at_once());
    asio::co_spawn(io.context, run_together(io.context.get_executor(), std::move(works), outcome), asio::detached);
    io.event.notify();
    io.settle();
    CHECK(outcome.empty());
    second.notify();
    io.settle();
    CHECK(count == 2);
    CHECK(outcome == "refused");
  }
  SUBCASE("cancelled") {
    asio::cancellation_signal cancel;
    asio::co_spawn(io.context, run_together(io.context.get_executor(), std::move(works), outcome),
                   asio::bind_cancellation_slot(cancel.slot(), asio::detached));
    io.settle();
    cancel.emit(asio::cancellation_type::all);
    io.settle();
    CHECK(count == 0);
    CHECK(outcome == "cancelled");
  }
}
