#include "engine/progress_line.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <string_view>

namespace walferry {
namespace {

std::string rates(double recent, double longer, std::string (*format)(double)) {
  return fmt::format("{}/s (10 s) {}/s (2 min)", format(recent), format(longer));
}

std::string stream_positions(const Status& status) {
  return fmt::format("received {}, spool {}", status.received_lsn.to_string(),
                     human_bytes(static_cast<double>(status.spool_bytes)));
}

std::string copy_line(const Status& status) {
  const CopyTotals totals = copy_totals(status);
  const std::string eta = status.eta_seconds ? human_duration(*status.eta_seconds) : "unknown";
  return fmt::format(
      "copy {:.1f} % {} of {}, {} rows, {}, ETA {}, {}/{} tables; {}", std::floor(totals.fraction_done * 1000) / 10,
      human_bytes(static_cast<double>(totals.bytes_copied)), human_bytes(static_cast<double>(totals.bytes_total)),
      human_count(static_cast<double>(totals.rows_copied)),
      rates(status.copy_bytes_per_second, status.copy_bytes_per_second_long, human_bytes), eta, totals.tables_copied,
      totals.tables_total, stream_positions(status));
}

std::string post_data_line(const Status& status) {
  const auto ready = std::count_if(status.tables.begin(), status.tables.end(),
                                   [](const TableStatus& table) { return table.state == TableState::Ready; });
  return fmt::format("post-data {}/{} tables ready; {}", ready, status.tables.size(), stream_positions(status));
}

std::string apply_line(const Status& status) {
  const std::string lag = fmt::format("{} lag {} {:.1f} s, applied {}", to_string(status.phase),
                                      human_bytes(static_cast<double>(status.lag_bytes)), status.lag_seconds,
                                      status.applied_lsn.to_string());
  if (status.phase == Phase::Follow) {
    return fmt::format("{}, {} changes/s", lag, human_count(status.apply_changes_per_second));
  }
  return fmt::format("{}, {} changes/s (10 s) {} changes/s (2 min), {}", lag,
                     human_count(status.apply_changes_per_second), human_count(status.apply_changes_per_second_long),
                     stream_positions(status));
}

}  // namespace

CopyTotals copy_totals(const Status& status) {
  CopyTotals totals;
  std::int64_t bytes_done = 0;
  for (const TableStatus& table : status.tables) {
    const std::int64_t copied = table.copied->bytes.load(std::memory_order_relaxed);
    const bool complete = table.state >= TableState::Copied;
    totals.bytes_total += table.bytes_total;
    if (complete && copied == 0) totals.bytes_before += table.bytes_total;
    totals.bytes_copied += complete && copied == 0 ? table.bytes_total : copied;
    totals.rows_copied += table.copied->rows.load(std::memory_order_relaxed);
    totals.tables_total += 1;
    if (complete) totals.tables_copied += 1;
    bytes_done += complete ? table.bytes_total : std::clamp<std::int64_t>(copied, 0, table.bytes_total);
  }
  if (totals.tables_copied == totals.tables_total) {
    totals.fraction_done = totals.tables_total > 0 ? 1 : 0;
  } else if (totals.bytes_total > 0) {
    totals.fraction_done = static_cast<double>(bytes_done) / static_cast<double>(totals.bytes_total);
  } else {
    totals.fraction_done = static_cast<double>(totals.tables_copied) / static_cast<double>(totals.tables_total);
  }
  return totals;
}

std::string progress_line(const Status& status) {
  std::string line;
  bool says_activity = false;
  switch (status.phase) {
    case Phase::Copy:
      line = copy_line(status);
      break;
    case Phase::PostData:
      line = post_data_line(status);
      break;
    case Phase::CatchUp:
    case Phase::Follow:
      line = apply_line(status);
      break;
    case Phase::Init:
    case Phase::Schema:
    case Phase::Cutover:
    case Phase::Switched:
    case Phase::Finished:
    case Phase::Aborted:
      line = to_string(status.phase);
      if (!status.activity.empty()) line += " " + status.activity;
      says_activity = true;
      break;
  }
  const bool over = status.phase >= Phase::Switched;
  if (status.apply_stopped) {
    line += "; apply stopped";
    if (status.last_error) line += ": " + status.last_error->text;
  } else if (!over && status.phase > Phase::Init && (!status.source_connected || !status.target_connected)) {
    line += !status.source_connected ? "; source not connected" : "; target not connected";
    if (!says_activity && !status.activity.empty()) line += ": " + status.activity;
  }
  for (const std::string& wait : status.waits) line += "; " + wait;
  // One line is the promise, and server messages have several.
  std::replace(line.begin(), line.end(), '\n', ' ');
  return line;
}

std::string human_bytes(double bytes) {
  static constexpr std::array<std::string_view, 7> units{"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  if (!std::isfinite(bytes)) return "unknown";
  if (bytes < 0) return "-" + human_bytes(-bytes);
  std::size_t unit = 0;
  // 1023.5 would be printed as 1024: it belongs to the next unit.
  while (unit + 1 < units.size() && bytes >= 1023.5) {
    bytes /= 1024;
    ++unit;
  }
  const int decimals = unit > 0 && bytes < 9.95 ? 1 : 0;
  return fmt::format("{:.{}f} {}", bytes, decimals, units[unit]);
}

std::string human_count(double count) {
  if (!std::isfinite(count)) return "unknown";
  if (count < 0) return "-" + human_count(-count);
  if (count < 9.95 && count != std::floor(count)) return fmt::format("{:.1f}", count);
  if (count < 9'999.5) return grouped(std::llround(count));
  if (count < 999'950) return fmt::format("{:.1f}k", count / 1e3);
  if (count < 999'950'000) return fmt::format("{:.1f}M", count / 1e6);
  return fmt::format("{:.1f}G", count / 1e9);
}

std::string grouped(std::int64_t number) {
  std::string text = fmt::format("{}", number);
  const std::size_t first_digit = number < 0 ? 1 : 0;
  for (std::size_t end = text.size(); end > first_digit + 3;) {
    end -= 3;
    text.insert(end, ",");
  }
  return text;
}

std::string human_duration(double seconds) {
  if (!std::isfinite(seconds)) return "unknown";
  if (seconds < 0) return "-" + human_duration(-seconds);
  if (seconds < 9.95) return fmt::format("{:.1f} s", seconds);
  if (seconds >= 1e15) return "unknown";
  const auto whole = static_cast<std::int64_t>(std::llround(seconds));
  if (whole < 60) return fmt::format("{} s", whole);
  if (whole < 3'600) return fmt::format("{} min {} s", whole / 60, whole % 60);
  if (whole < 86'400) return fmt::format("{} h {} min", whole / 3'600, whole / 60 % 60);
  return fmt::format("{} d {} h", whole / 86'400, whole / 3'600 % 24);
}

}  // namespace walferry
