// The rows of all tables, from a snapshot of the source to the target, by several threads.
//
// Tables are cut into parts (ranges of heap pages) that are dealt from one queue, largest table first. Bytes pass
// through unparsed; binary where every column's type has the same meaning on both servers, text otherwise. A table that
// is one part is truncated and loaded with FREEZE in one transaction; one to which a foreign key of the target leads
// already is emptied by DELETE. Invariant: a table is reported as copied only when every part of it is committed,
// flushed, on the target. Called by Migration on a pool thread; blocks until done.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "engine/catalog.hpp"
#include "engine/status.hpp"

namespace walferry::copy {

struct TableToCopy {
  Table source;                   // as the snapshot sees it
  const Table* target = nullptr;  // its counterpart, by name
  std::shared_ptr<CopyCounters> counters;
  bool referenced = false;  // by another table's foreign key on the target; copy_tables finds out
};

// Whether several connections may write one large table at the same time. Then its rows stand in another order than on
// the source, and its indexes take more to build.
enum class SplitTables { Auto, Yes, No };

struct CopyOptions {
  pg::ConnInfo source;
  pg::ConnInfo target;
  std::string client_encoding = "UTF8";
  std::string snapshot;
  int jobs = 2;
  SplitTables split = SplitTables::Auto;
  // Called from copy threads.
  std::function<void(const Table&)> on_started = {};
  std::function<void(const Table&)> on_copied = {};
};

// Throws the first failure that no retry mends, when every thread has ended. Both ends have one stop token. A table
// that was truncated or rewritten since the snapshot is left out, and Error{snapshot_gone} thrown at the end: it needs
// a new one.
void copy_tables(const CopyOptions& options, std::vector<TableToCopy> tables);

// Exposed for tests: how a table is cut. Half-open page ranges; the last one is open-ended, because pages may have been
// added.
struct PageRange {
  std::int64_t begin = 0;
  std::int64_t end = 0;  // 0: to the end of the table
};
[[nodiscard]] std::vector<PageRange> cut_into_parts(std::int64_t pages, int jobs, int source_version);

// Auto: unless the target's processors are ours, and too few. `processors` of this machine.
[[nodiscard]] bool splits_tables(SplitTables wanted, bool target_is_here, unsigned processors);

// Whether all columns may travel in COPY's binary form between these two tables.
[[nodiscard]] bool binary_is_safe(const Table& source, const Table& target);

}  // namespace walferry::copy
