// Writes the changes of source transactions through one connection to the target, inside one target transaction at a
// time: gathered per table and written as what they come to, or one by one in source order where their order is of
// account.
//
// Owns the connection and what was gathered. Invariants: a change never overtakes one that it must stand behind;
// nothing is committed before the outcome of every statement is known; between attach() and detach() the target's
// tables are known by the stream's last description. Changes whose net form is refused throw NetChangesRefused, and the
// caller writes their transaction again with `one_by_one`. Used by Applier and Lanes for the stream in commit order,
// and by EarlyTransaction.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "engine/apply/pipeline.hpp"
#include "engine/apply/progress.hpp"
#include "engine/apply/row_writer.hpp"
#include "engine/apply/set_writer.hpp"
#include "engine/apply/source_transaction.hpp"
#include "engine/apply/table_map.hpp"
#include "engine/async.hpp"
#include "engine/pg/connection.hpp"
#include "engine/status.hpp"
#include "engine/touched_rows.hpp"

namespace walferry::apply {

// The commit of a transaction in progress must be known before one of its changes can be applied.
class NeedsCommit : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

class ChangeWriter {
 public:
  // What became of a message: no change of rows; taken; a change that only goes in behind what was gathered.
  enum class Taken : std::uint8_t { No, Yes, Behind };

  // `gathered_bytes_max`: so much is gathered before it is written.
  ChangeWriter(asio::thread_pool& pool, std::size_t gathered_bytes_max, ApplyCounters& counts);

  // Takes an idle connection, enters pipeline mode and prepares what it needs; `replica_role`: triggers and foreign
  // keys are off there.
  Awaitable<void> attach(std::unique_ptr<pg::Connection> connection, TargetTables tables, Progress progress,
                         bool replica_role);
  // Drops the connection and everything that was on its way; the server rolls back.
  void detach();
  [[nodiscard]] bool attached() const { return connection_ != nullptr; }

  // What keeps the messages alive that are taken from now on: a block, or a chunk.
  void read_from(std::shared_ptr<const void> owner) { owner_ = std::move(owner); }
  // Insert, Update, Delete and Truncate of `transaction`.
  [[nodiscard]] Taken take(const SourceTransaction& transaction, const pgoutput::Message& message, Bytes payload);
  // After Taken::Behind: writes what stands before the change, then the change.
  Awaitable<void> write_behind(const SourceTransaction& transaction, const pgoutput::Message& message, Bytes payload);
  // Enough was taken that relieve() must be awaited, so that memory stays bounded whatever the size of a transaction.
  [[nodiscard]] bool needs_relief() const;
  Awaitable<void> relieve();
  // Of that, enough was gathered.
  [[nodiscard]] bool must_write() const;
  // A Relation message. Throws Stop when the target has no such table or column.
  Awaitable<void> describe(const SourceTransaction& transaction, const pgoutput::RelationView& relation, Bytes message);

  // Begins the target transaction unless it has begun.
  void begin();
  [[nodiscard]] bool begun() const { return begun_; }
  [[nodiscard]] Deadline begun_at() const { return begun_at_; }
  // Of the changes taken since begin().
  [[nodiscard]] std::size_t bytes() const { return bytes_; }
  // From the next begin() on: no statement waits longer than some seconds for a lock.
  void limit_lock_waits(bool limited) { lock_waits_limited_ = limited; }
  // Writes what was gathered, inside the open transaction.
  Awaitable<void> write_gathered();
  // The same, and reads the outcome of every change whose row count can be wrong.
  Awaitable<void> complete();
  // The same, and every other outcome: what is left is the commit.
  Awaitable<void> settle();
  // Commits with the position `end_lsn`; the target then holds it (G1).
  Awaitable<void> commit(Lsn end_lsn);

  // One statement of walferry's own, and its outcome.
  Awaitable<void> run(std::string sql);

  // What was gathered for the table was refused: its changes are written one by one for a while.
  void distrust(const QualifiedName& table);
  // Names in `touched` whatever is changed from now on; nullptr ends that.
  void record(std::shared_ptr<TouchedRows> touched) { touched_ = std::move(touched); }
  void touch_everything();

  // To the target and back, as it was when attached.
  [[nodiscard]] std::chrono::steady_clock::duration round_trip() const { return round_trip_; }
  // From now on so much is gathered before it is written.
  void gather(std::size_t bytes) { gathered_bytes_max_ = bytes; }

  [[nodiscard]] bool replica_role() const { return replica_role_; }
  [[nodiscard]] TableMap& tables() { return tables_; }
  [[nodiscard]] Pipeline& pipeline() { return pipeline_; }
  [[nodiscard]] pg::Connection& connection() { return *connection_; }

 private:
  [[nodiscard]] Taken take_truncate(const SourceTransaction& transaction, const pgoutput::TruncateView& truncate,
                                    Bytes payload);
  // The table of a change that counts; nullptr: it does not.
  [[nodiscard]] MappedTable* table_of(const SourceTransaction& transaction, RelationId relation,
                                      const std::optional<Xid>& stream_xid);
  [[nodiscard]] bool folds(const SourceTransaction& transaction, MappedTable& table);
  [[nodiscard]] bool goes_behind(const MappedTable& table) const;
  void keep(MappedTable& table, bool first, Bytes payload);
  void touch(const MappedTable& table, const pgoutput::TupleView& tuple);
  void write_row(const SourceTransaction& transaction, MappedTable& table, const pgoutput::Message& message,
                 Bytes payload);
  void write_truncate(const SourceTransaction& transaction, const pgoutput::TruncateView& truncate, Bytes payload);
  [[nodiscard]] ChangeOrigin origin(const SourceTransaction& transaction, Bytes payload) const;
  [[nodiscard]] bool map(const SourceTransaction& transaction, const pgoutput::RelationView& relation, Bytes message);

  asio::thread_pool& pool_;
  std::size_t gathered_bytes_max_;
  ApplyCounters& counts_;
  std::unique_ptr<pg::Connection> connection_;
  std::chrono::steady_clock::duration round_trip_{};
  bool replica_role_ = false;  // without it foreign keys and triggers fire, and every change keeps its place
  TableMap tables_;
  Pipeline pipeline_;
  RowWriter rows_{pipeline_, tables_};
  SetWriter sets_{pipeline_, tables_, rows_};
  bool begun_ = false;
  Deadline begun_at_{};
  bool lock_waits_limited_ = false;
  std::size_t bytes_ = 0;
  std::shared_ptr<const void> owner_;

  // Gathered and not yet written: the tables, and what keeps the messages alive that their changes point into.
  std::vector<MappedTable*> gathered_;
  std::vector<std::shared_ptr<const void>> gathered_from_;
  std::size_t gathered_bytes_ = 0;

  std::shared_ptr<TouchedRows> touched_;
};

// Insert, Update, Delete or Truncate.
[[nodiscard]] bool is_change(Bytes payload);

// Of several that have gathered about as much: at the same time.
Awaitable<void> write_together(asio::any_io_executor executor, std::vector<ChangeWriter*> writers);
Awaitable<void> settle_together(asio::any_io_executor executor, std::vector<ChangeWriter*> writers);

// The transaction cannot be applied at all.
[[nodiscard]] StopPoint stop_at(const SourceTransaction& transaction, std::string error);

}  // namespace walferry::apply
