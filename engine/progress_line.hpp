// The migration in one line, for logs and for outputs that are not terminals, and the arithmetic and number formats
// that every view of a Status shares.
//
// Bytes come first and rows second; shares of the whole are clamped here, in the view, while the counters in Status
// stay as they were counted. Pure functions. Called by Migration for its progress lines, by http for /status and by
// cli/status_view.
#pragma once

#include <cstdint>
#include <string>

#include "engine/status.hpp"

namespace walferry {

// Sums over all tables of a Status.
struct CopyTotals {
  std::int64_t bytes_total = 0;
  // As counted: COPY text can be longer or shorter than the heap it came from. Of tables that an earlier run copied,
  // the heap: bytes_before.
  std::int64_t bytes_copied = 0;
  std::int64_t bytes_before = 0;
  std::int64_t rows_copied = 0;
  std::int64_t tables_total = 0;
  std::int64_t tables_copied = 0;
  double fraction_done = 0;  // 0 to 1; a finished table counts whole, whatever its copy weighed
};

[[nodiscard]] CopyTotals copy_totals(const Status& status);

[[nodiscard]] std::string progress_line(const Status& status);

[[nodiscard]] std::string human_bytes(double bytes);       // "0 B", "1.2 GiB", "85 MiB"
[[nodiscard]] std::string human_count(double count);       // "1,234", "12.3k", "12.3M"
[[nodiscard]] std::string grouped(std::int64_t number);    // "1,234,567"
[[nodiscard]] std::string human_duration(double seconds);  // "0.4 s", "18 s", "2 min 5 s", "3 h 12 min", "2 d 4 h"

}  // namespace walferry
