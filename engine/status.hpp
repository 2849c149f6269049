// What the migration says of itself: one value that the io thread keeps up to date and that /status, /metrics, the
// progress lines and `walferry status` all show.
//
// Status is plain data, owned by Migration and touched on the io thread only; CopyProgress is the exception: copy
// threads count into its atomics. Every LSN is the end of a complete source transaction or a keepalive position.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/catalog.hpp"
#include "engine/skip.hpp"
#include "protocol/lsn.hpp"

namespace walferry {

// The life of a migration, in order; kept in the journal under these names.
enum class Phase { Init, Schema, Copy, PostData, CatchUp, Follow, Cutover, Switched, Finished, Aborted };

[[nodiscard]] std::string_view to_string(Phase phase);  // "init", "schema", "copy", "post-data", "catch-up", ...
[[nodiscard]] std::optional<Phase> parse_phase(std::string_view text);

enum class TableState { Pending, Copying, Copied, Indexing, Ready };

[[nodiscard]] std::string_view to_string(TableState state);

// Counters of one table's copy; written by copy threads, read by the io thread.
struct CopyCounters {
  std::atomic<std::int64_t> bytes{0};
  std::atomic<std::int64_t> rows{0};
};

struct TableStatus {
  QualifiedName name;
  TableState state = TableState::Pending;
  std::int64_t bytes_total = 0;  // heap and TOAST on the source: an estimate of what the copy moves
  double rows_estimate = -1;
  std::shared_ptr<CopyCounters> copied = std::make_shared<CopyCounters>();  // shared with the copy thread that counts
  std::optional<std::chrono::steady_clock::time_point> copying_since = {};
};

// How fast a table is being copied, since that began.
struct CopyRate {
  double bytes_per_second = 0;
  std::optional<double> eta_seconds = {};  // by bytes_total; nothing when that is reached already
};
// nullopt: it is not being copied, or nothing can be said yet.
[[nodiscard]] std::optional<CopyRate> copy_rate(const TableStatus& table, std::chrono::steady_clock::time_point now);

// The slot as pg_replication_slots shows it.
struct SlotStatus {
  std::string name;
  bool active = false;
  Lsn restart_lsn;
  Lsn confirmed_flush_lsn;
  std::int64_t retained_wal_bytes = 0;        // current WAL position minus restart_lsn
  std::string wal_status;                     // reserved, extended, unreserved, lost
  std::optional<std::int64_t> safe_wal_size;  // bytes until the slot is lost, where a limit is set
  bool awaits_standbys = false;  // the source sends nothing before those of synchronized_standby_slots have it
};

struct ApplyCounters {
  std::uint64_t inserts = 0;
  std::uint64_t updates = 0;
  std::uint64_t deletes = 0;
  std::uint64_t truncates = 0;
  std::uint64_t source_transactions = 0;
  std::uint64_t target_transactions = 0;
  std::uint64_t early_transactions = 0;  // of the source's: written while they were in progress there
  std::uint64_t split_transactions = 0;  // of the target's: written by several lanes
  std::uint64_t received_bytes = 0;
};

struct LastError {
  std::string text;
  std::chrono::system_clock::time_point at{};
};

// A schema change on the source that the target does not have.
struct DdlFinding {
  std::string object;  // "column public.t.c"
  std::string change;  // "added", "dropped", "changed"
  std::string remedy;
};

struct DdlStatus {
  std::string policy;    // stop, apply or warn
  bool trigger = false;  // the stream tells of schema changes
  std::uint64_t applied = 0;
  std::uint64_t passed = 0;  // passed over: on the target already, skipped, or the policy is to warn
  std::vector<DdlFinding> findings;
};

struct Status {
  Phase phase = Phase::Init;
  bool running = true;             // false: read from a state directory at rest
  std::string activity;            // one sentence: what it does just now, or why it waits
  std::vector<std::string> waits;  // sentences: which of our sessions waits for which lock, and who holds that
  std::string migration;           // the slot's name
  std::string way_back_of;         // the migration that it leads back; empty for one that leads back none
  std::string source;              // redacted
  std::string target;              // redacted
  std::chrono::system_clock::time_point started_at{};

  Lsn source_lsn;     // pg_current_wal_lsn() of the source when last asked, or the newest WAL end the walsender named
  Lsn received_lsn;   // everything before it has been received
  Lsn spooled_lsn;    // everything before it is safe in the spool on disk; zero while nothing is spooled
  Lsn applied_lsn;    // everything before it has been applied on the target
  Lsn confirmed_lsn;  // told to the source as flushed
  std::int64_t lag_bytes = 0;  // source_lsn minus applied_lsn
  double lag_seconds = 0;      // by the source's clock: newest known time minus commit time of what was applied last

  std::int64_t spool_bytes = 0;  // on disk
  std::int64_t queue_bytes = 0;  // in memory
  bool source_connected = false;
  bool target_connected = false;
  bool apply_stopped = false;  // a change could not be applied (G3); last_error says which

  std::vector<TableStatus> tables;
  double copy_bytes_per_second = 0;       // over the last 10 s
  double copy_bytes_per_second_long = 0;  // over the last 120 s
  double apply_changes_per_second = 0;
  double apply_changes_per_second_long = 0;
  std::optional<double> eta_seconds;  // of the copy, after 1 % of it

  ApplyCounters apply;
  DdlStatus ddl;
  std::optional<SlotStatus> slot;
  std::optional<LastError> last_error;
  std::optional<StopPoint> stop;  // where the apply stands still, when that is one transaction or schema change
  std::vector<Skip> skips;        // what a person told walferry to leave out, oldest first
};

}  // namespace walferry
