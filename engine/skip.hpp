// Where the apply stands still, and what a person has told walferry to leave out (G3). Plain data.
//
// A StopPoint names exactly one thing: a source transaction by its commit LSN, or a schema change by the LSN of its own
// message in the stream. Only that thing can be skipped, by naming its LSN. Kept by store::Skips, shown by status and
// by the cutover's report.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

#include "protocol/lsn.hpp"

namespace walferry {

struct StopPoint {
  enum class What : std::uint8_t { Transaction, Ddl };

  What what = What::Transaction;
  Lsn lsn;         // what `walferry skip --lsn` must name
  Lsn commit_lsn;  // of the transaction it belongs to
  Xid xid{};
  std::string error;
};

struct Skip {
  StopPoint point;
  std::string reason;
  std::chrono::system_clock::time_point at{};
};

[[nodiscard]] std::string_view to_string(StopPoint::What what);  // "transaction", "ddl"

}  // namespace walferry
