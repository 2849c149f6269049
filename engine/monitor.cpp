#include "engine/monitor.hpp"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>

#include "engine/cutover/fence_name.hpp"
#include "engine/progress_line.hpp"

namespace walferry {
namespace {

using std::chrono::duration;
using std::chrono::seconds;
using Clock = std::chrono::steady_clock;

constexpr auto patience = seconds{20};  // beyond the statement's own limit: then nobody is there
constexpr auto short_window = seconds{10};
constexpr auto long_window = seconds{120};
constexpr std::size_t unread_max = 4'096;
// The end of the WAL may be part of a record that nobody has flushed yet and no commit stands behind; on an idle source
// for as long as until the next look of its background writer, 15 s.
constexpr std::uint64_t record_max_bytes = 512U << 10U;
constexpr auto unflushed_max = seconds{20};
constexpr auto awaiting_min = std::chrono::milliseconds{1'500};
constexpr auto awake_max = seconds{5};
constexpr std::string_view standbys_awaited =
    "the source sends nothing before the standbys of its synchronized_standby_slots have it: is one of them down?";

}  // namespace

Monitor::Monitor(asio::any_io_executor executor, asio::thread_pool& pool, MonitorOptions options,
                 const stream::Position& position, Status& status)
    : executor_(std::move(executor)),
      pool_(pool),
      options_(std::move(options)),
      position_(position),
      status_(status),
      woken_(executor_) {}

Awaitable<void> Monitor::run(std::function<void()> on_tick) {
  for (;;) {
    std::optional<Error> failure;
    try {
      co_await look();
      failed_before_ = false;
    } catch (const Error& error) {
      failure = error;
    }
    if (failure) {
      connection_.reset();
      if (!failed_before_) spdlog::warn("the source cannot be asked about its slot: {}", failure->what());
      failed_before_ = true;
    }
    take_sample();
    refresh();
    on_tick();
    co_await woken_.wait_until(Clock::now() + options_.interval);
  }
}

Awaitable<void> Monitor::look() {
  if (!connection_) {
    std::function<pg::Session()> open = [source = options_.source] {
      return pg::Session::open(source, {.application_name = "walferry monitor", .settings = {"statement_timeout=10s"}});
    };
    pg::Session session = co_await run_blocking<pg::Session>(pool_, std::move(open));
    connection_ = std::make_unique<pg::Connection>(executor_, std::move(session));
  }
  const Deadline asked = Clock::now();
  const pg::Result row = co_await connection_->exec_until(
      fmt::format(
          "SELECT w.lsn, s.slot_name, s.active, s.restart_lsn, s.confirmed_flush_lsn, "
          "pg_catalog.pg_wal_lsn_diff(w.lsn, s.restart_lsn)::int8, coalesce(s.wal_status, ''), s.safe_wal_size, "
          "a.wait_event IS NOT DISTINCT FROM 'WaitForStandbyConfirmation', pg_catalog.to_regproc({1}) IS NOT NULL "
          "FROM (SELECT CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_receive_lsn() "
          "ELSE pg_catalog.pg_current_wal_lsn() END AS lsn) w "
          "LEFT JOIN pg_catalog.pg_replication_slots s ON s.slot_name = {0} "
          "LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = s.active_pid",
          pg::quote_literal(options_.slot), pg::quote_literal(cutover::fence_function(options_.slot))),
      Clock::now() + patience);
  look_for_fence(row.flag(0, 9));
  if (!row.is_null(0, 0)) {
    status_.source_lsn = std::max(status_.source_lsn, row.lsn(0, 0));
    note_written(row.lsn(0, 0), asked);
  }
  if (row.is_null(0, 1)) {
    status_.slot.reset();
    awaiting_.reset();
    if (status_.activity == standbys_awaited) status_.activity.clear();
    co_return;
  }
  SlotStatus slot;
  slot.name = row.str(0, 1);
  slot.active = row.flag(0, 2);
  if (!row.is_null(0, 3)) slot.restart_lsn = row.lsn(0, 3);
  if (!row.is_null(0, 4)) slot.confirmed_flush_lsn = row.lsn(0, 4);
  if (!row.is_null(0, 5)) slot.retained_wal_bytes = row.i64(0, 5);
  slot.wal_status = row.str(0, 6);
  if (!row.is_null(0, 7)) slot.safe_wal_size = row.i64(0, 7);
  slot.awaits_standbys = stands_still(row.flag(0, 8));
  if (slot.awaits_standbys && status_.activity.empty()) status_.activity = standbys_awaited;
  if (!slot.awaits_standbys && status_.activity == standbys_awaited) status_.activity.clear();
  status_.slot = std::move(slot);
}

// A standby that is promoted may lack it. Twice: the first answer may be from before the switch.
void Monitor::look_for_fence(bool stands) {
  const bool missed = status_.phase == Phase::Switched && !stands;
  if (missed && fence_missed_ == 1) {
    status_.last_error = LastError{
        "source: the write fence is gone, and the server can be written to: was it failed over, or the fence removed? "
        "Remedy: keep applications away from it; ALTER DATABASE ... SET default_transaction_read_only = on there, or "
        "stop it",
        std::chrono::system_clock::now()};
    spdlog::error("{}", status_.last_error->text);
  }
  fence_missed_ = missed ? fence_missed_ + 1 : 0;
}

// A standby that is a little behind is waited for all the time, one that is down for ever. Even then the walsender
// wakes up now and then, and a look may meet it so.
bool Monitor::stands_still(bool awaits_standbys) {
  const Deadline now = Clock::now();
  if (awaiting_ && awaiting_->received != position_.received) awaiting_.reset();
  if (awaits_standbys) {
    if (!awaiting_) awaiting_ = {.received = position_.received, .since = now};
    awaiting_->seen = now;
  }
  if (awaiting_ && now - awaiting_->seen > awake_max) awaiting_.reset();
  return awaiting_ && now - awaiting_->since > awaiting_min;
}

void Monitor::note_written(Lsn lsn, Deadline asked) {
  if (!unread_.empty() && lsn < unread_.back().lsn) unread_.clear();  // another server, failed over to
  if (unread_.size() < unread_max) unread_.push_back({.at = asked, .lsn = lsn});
}

// By the source's clock for what has been received, which is taken to run on while the source is silent; for what has
// not been received, since when it is known to be there. A walsender that reads much WAL to find little to send is
// behind, too. At least that much.
double Monitor::lag_seconds() {
  const Deadline now = Clock::now();
  double lag = 0;
  if (position_.applied < position_.received) {
    const auto behind_us = position_.source_time.microseconds - position_.applied_time.microseconds;
    // Before this process has applied anything: since it began.
    lag = position_.applied_time != PgTime{}
              ? static_cast<double>(behind_us) / 1e6 + duration<double>(now - position_.heard_at).count()
              : duration<double>(now - began_).count();
  }
  // Before there is a stream nothing is awaited, and behind the switch nothing any more.
  if (!position_.received || status_.phase >= Phase::Switched) unread_.clear();
  const Lsn read = std::max(position_.received, position_.source_wal_end);
  while (!unread_.empty() && unread_.front().lsn <= read) unread_.pop_front();
  const auto awaited = std::ranges::find_if(unread_, [&](const Written& written) {
    return written.lsn.value - read.value > record_max_bytes || now - written.at > unflushed_max;
  });
  if (awaited != unread_.end()) lag = std::max(lag, duration<double>(now - awaited->at).count());
  return std::max(lag, 0.0);
}

void Monitor::take_sample() {
  const ApplyCounters& apply = status_.apply;
  samples_.push_back({.at = Clock::now(),
                      .copied_bytes = copy_totals(status_).bytes_copied,
                      .changes = apply.inserts + apply.updates + apply.deletes + apply.truncates});
  while (samples_.size() > 2 && samples_.back().at - samples_.front().at > long_window) samples_.pop_front();
}

void Monitor::refresh() {
  status_.received_lsn = position_.received;
  status_.applied_lsn = position_.applied;
  status_.confirmed_lsn = position_.confirmed;
  // What was applied has been written, though the source may not have been asked since.
  status_.source_lsn = std::max({status_.source_lsn, position_.source_wal_end, position_.applied});
  status_.lag_bytes =
      position_.applied ? static_cast<std::int64_t>(status_.source_lsn.value - position_.applied.value) : 0;
  status_.lag_seconds = lag_seconds();
  if (samples_.size() < 2) return;
  const Sample& last = samples_.back();
  const auto rates_over = [&](Clock::duration window, double& bytes, double& changes) {
    const auto first =
        std::ranges::find_if(samples_, [&](const Sample& sample) { return last.at - sample.at <= window; });
    const double elapsed = duration<double>(last.at - first->at).count();
    if (elapsed <= 0) return;
    bytes = static_cast<double>(last.copied_bytes - first->copied_bytes) / elapsed;
    changes = static_cast<double>(last.changes - first->changes) / elapsed;
  };
  rates_over(short_window, status_.copy_bytes_per_second, status_.apply_changes_per_second);
  rates_over(long_window, status_.copy_bytes_per_second_long, status_.apply_changes_per_second_long);
  const CopyTotals totals = copy_totals(status_);
  status_.eta_seconds.reset();
  if (status_.phase == Phase::Copy && totals.fraction_done >= 0.01 && status_.copy_bytes_per_second_long > 0) {
    // What a byte of a table weighs as it is copied is known from those of this run.
    const auto done =
        static_cast<double>(totals.bytes_total) * totals.fraction_done - static_cast<double>(totals.bytes_before);
    const auto copied = static_cast<double>(totals.bytes_copied - totals.bytes_before);
    const double rest = static_cast<double>(totals.bytes_total) * (1 - totals.fraction_done);
    if (done > 0) status_.eta_seconds = rest * copied / done / status_.copy_bytes_per_second_long;
  }
}

}  // namespace walferry
