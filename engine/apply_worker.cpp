#include "engine/apply_worker.hpp"

#include <algorithm>
#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/co_spawn.hpp>

namespace walferry {
namespace {

using std::chrono::milliseconds;
using Clock = std::chrono::steady_clock;

}  // namespace

ApplyWorker::ApplyWorker(asio::any_io_executor executor, asio::thread_pool& pool, store::Spool& spool,
                         store::Skips& skips, stream::Position& position, Status& status, Watch watch)
    : executor_(executor),
      pool_(pool),
      spool_(spool),
      skips_(skips),
      position_(position),
      status_(status),
      watch_(std::move(watch)),
      ended_(executor),
      marker_seen_(executor) {}

void ApplyWorker::start(Lsn until) {
  applier_ =
      std::make_unique<apply::Applier>(executor_, pool_, watch_.options(until), spool_, skips_, position_, status_);
  applier_->record(touched_);
  applier_->on_marker([this](const apply::Marker& marker) {
    last_marker_ = marker.content;
    marker_seen_.notify();
  });
  applier_->on_stop([this] { marker_seen_.notify(); });
  applier_->on_durable(watch_.on_durable);
  spool_.on_append([this] { applier_->wake(); });
  spool_.set_disk_only(false);
  running_ = true;
  asio::co_spawn(executor_, applier_->run(),
                 asio::bind_cancellation_slot(cancel_.slot(), [this](std::exception_ptr failure) {
                   running_ = false;
                   ended_.notify();
                   watch_.on_end(is_cancellation(failure) ? nullptr : failure);
                 }));
}

void ApplyWorker::stop(Deadline patience) {
  if (running_) applier_->stop();
  patience_ = std::min(patience_, patience);
  ended_.notify();
}

Awaitable<void> ApplyWorker::rest(Deadline patience) {
  if (running_) applier_->stop();
  while (running_ && Clock::now() < patience) co_await ended_.wait_until(patience);
  if (running_) {
    applier_->interrupt();
    cancel_.emit(asio::cancellation_type::all);
  }
  while (running_) co_await ended_.wait();
  spool_.on_append({});
  spool_.set_disk_only(true);
}

Awaitable<bool> ApplyWorker::reach(Lsn until, Deadline deadline, std::function<void()> on_start) {
  patience_ = deadline;
  start(until);
  on_start();
  while (running_ && Clock::now() < patience_) co_await ended_.wait_until(patience_);
  const bool reached = !running_;
  co_await rest(Clock::now());
  co_return reached;
}

Awaitable<void> ApplyWorker::attached(Deadline patience) {
  while (running_ && !status_.target_connected && Clock::now() < patience)
    co_await ended_.wait_until(Clock::now() + milliseconds{10});
}

Awaitable<bool> ApplyWorker::await_marker(std::string marker, Deadline deadline) {
  while (last_marker_ != marker) {
    const bool notified = co_await marker_seen_.wait_until(deadline);
    if ((!notified && Clock::now() >= deadline) || status_.apply_stopped) co_return last_marker_ == marker;
  }
  co_return true;
}

void ApplyWorker::record(std::shared_ptr<TouchedRows> touched) {
  touched_ = std::move(touched);
  if (running_) applier_->record(touched_);
}

void ApplyWorker::wake() {
  if (applier_) applier_->try_again();
}

}  // namespace walferry
