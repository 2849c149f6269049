#include "engine/monitor.hpp"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>

#include "engine/progress_line.hpp"

namespace walferry {
namespace {

using std::chrono::duration;
using std::chrono::seconds;
using Clock = std::chrono::steady_clock;

constexpr auto patience = seconds{20};  // beyond the statement's own limit: then nobody is there
constexpr auto short_window = seconds{10};
constexpr auto long_window = seconds{120};
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
  const pg::Result row = co_await connection_->exec_until(
      fmt::format(
          "SELECT w.lsn, s.slot_name, s.active, s.restart_lsn, s.confirmed_flush_lsn, "
          "pg_catalog.pg_wal_lsn_diff(w.lsn, s.restart_lsn)::int8, coalesce(s.wal_status, ''), s.safe_wal_size, "
          "a.wait_event IS NOT DISTINCT FROM 'WaitForStandbyConfirmation' "
          "FROM (SELECT CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_receive_lsn() "
          "ELSE pg_catalog.pg_current_wal_lsn() END AS lsn) w "
          "LEFT JOIN pg_catalog.pg_replication_slots s ON s.slot_name = {} "
          "LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = s.active_pid",
          pg::quote_literal(options_.slot)),
      Clock::now() + patience);
  if (!row.is_null(0, 0)) status_.source_lsn = std::max(status_.source_lsn, row.lsn(0, 0));
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
  // By the source's clock, which is taken to run on while the source is silent.
  const bool behind = position_.applied < position_.received && position_.applied_time != PgTime{};
  const double since_heard = duration<double>(Clock::now() - position_.heard_at).count();
  const auto behind_us = position_.source_time.microseconds - position_.applied_time.microseconds;
  status_.lag_seconds = behind ? std::max(static_cast<double>(behind_us) / 1e6 + since_heard, 0.0) : 0;
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
    const double rest = static_cast<double>(totals.bytes_copied) * (1 - totals.fraction_done) / totals.fraction_done;
    status_.eta_seconds = rest / status_.copy_bytes_per_second_long;
  }
}

}  // namespace walferry
