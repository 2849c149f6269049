// Copies one table while the stream runs: again, because what a schema change gave to its rows on the source cannot be
// computed on the target, or for the first time, because it is new (join.hpp).
//
// Under a fresh snapshot (of a temporary slot) of LSN X; from then on the table ignores what committed before X, as
// after the first copy. The apply must be at rest and must have ignored the table since the change. Blocking; called by
// Migration.
#pragma once

#include <chrono>
#include <functional>
#include <optional>
#include <vector>

#include "engine/catalog.hpp"
#include "engine/pg/conninfo.hpp"
#include "engine/store/journal.hpp"
#include "engine/timeline.hpp"

namespace walferry::ddl {

struct RecopyRequest {
  pg::ConnInfo source;
  pg::ConnInfo target;
  std::string client_encoding;
  std::string slot;  // of the migration
  QualifiedName table;
  RelationId id{};
  // For the transactions that are open on the source, and that its view has to wait for. Throws Error{Timeout} then.
  std::chrono::steady_clock::time_point deadline;
  // Throws unless a view of this LSN on a server with this history is part of what the stream comes from; asked before
  // anything is written and again before it is committed.
  std::function<void(const TimelineHistory&, Lsn)> require_followed;
};

struct CopiedAgain {
  Lsn lsn;
  TimelineHistory history;  // of the server that was read
  Table table;              // as the source had it then
};

// nullopt when another change is on its way: the two ends do not have the same columns yet, or the table was rewritten
// again after the snapshot, to which it then looks empty. Throws Error{Sql} where a row does not go in.
[[nodiscard]] std::optional<CopiedAgain> copy_again(const RecopyRequest& request);

// Whether a copy can carry the rows of one to the other; false without both.
[[nodiscard]] bool same_columns(const Table* source, const Table* target);

// Of the tables that wait to be copied again:
struct Waiting {
  store::TablesToCopyAgain ready;      // the same columns on both ends
  store::TablesToCopyAgain gone;       // nothing is left of them to wait for
  store::TablesToCopyAgain to_record;  // they have another name by now, or another table has theirs
};
// `via_root`: partitioned tables are carried by their root, and a partition of the target need not hold what the
// source's of that name does; it is never ready.
[[nodiscard]] Waiting look_at_waiting(const pg::ConnInfo& source, const pg::ConnInfo& target,
                                      const store::TablesToCopyAgain& tables, Lsn applied, bool via_root);

}  // namespace walferry::ddl
