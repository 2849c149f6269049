// One streamed transaction, written to the target while it is still in progress on the source, so that at its commit
// little is left to do.
//
// Owns a second connection with an open target transaction. Invariants: a chunk is written only when the target holds
// everything that was received before it (Applier sees to that), so no row is met that an earlier commit still has to
// change; nothing is committed here before the source's commit has been received, and then with its position (G1); at
// the first sign of trouble - a subtransaction that is rolled back, a refused change, a description that the target
// does not fit, a transaction that rests - the target transaction is rolled back, and the whole is applied at its
// commit, from the spool. So it only ever saves time. Used by Applier, whose coroutine drives it.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string_view>

#include "engine/apply/attachment.hpp"
#include "engine/apply/change_writer.hpp"
#include "engine/apply/progress.hpp"
#include "engine/apply/source_transaction.hpp"
#include "engine/async.hpp"
#include "engine/store/spool.hpp"
#include "engine/stream/position.hpp"

namespace walferry::apply {

class EarlyTransaction {
 public:
  EarlyTransaction(asio::any_io_executor executor, asio::thread_pool& pool, AttachmentOptions options,
                   std::function<TargetTables()> read_target, const std::map<QualifiedName, Lsn>& copied,
                   store::Spool& spool, const stream::Position& position, ApplyCounters& counts);

  // More of a transaction in progress has arrived than was written, or nothing more has for a while.
  [[nodiscard]] bool ready() const;
  // Takes the next chunk, or writes what was gathered of those before. Only while no target transaction of the applier
  // is open, and all it received is committed.
  Awaitable<void> apply_next();
  // Rolls back what can no longer become a commit.
  void look_after();

  // Locks may be held on the target.
  [[nodiscard]] bool begun() const { return writer_.begun(); }
  [[nodiscard]] bool holds(store::StreamId stream) const { return stream_ == stream; }
  // The commit has been received: writes what is left and reads every outcome. False: it was rolled back.
  Awaitable<bool> complete(const store::StreamedCommit& commit);
  // Then, when no other session owns the position: commits with it, and gives it back.
  Awaitable<void> commit(const Progress& progress, const store::StreamedCommit& commit);

  // Rolls back; this transaction will not be tried again.
  void abandon(std::string_view why);
  // And drops the connection: the apply begins again, or the target's tables change.
  void let_go();
  // As abandon(), as soon as its coroutine is not inside.
  void abandon_soon() { unwanted_ = stream_.has_value(); }
  // As ChangeWriter's and TableMap's.
  void record(std::shared_ptr<TouchedRows> touched) { writer_.record(std::move(touched)); }
  void share_types(TableMap& tables) { writer_.tables().share_types(tables); }
  void ignore(RelationId table) { writer_.tables().ignore(table); }

 private:
  [[nodiscard]] std::optional<store::Arriving> next() const;
  [[nodiscard]] bool gathering_rests() const;
  Awaitable<void> connect();
  Awaitable<void> write_chunk(std::uint64_t chunk);
  Awaitable<void> write_control(const pgoutput::Message& message, Bytes payload);

  asio::any_io_executor executor_;
  asio::thread_pool& pool_;
  AttachmentOptions options_;
  store::Spool& spool_;
  const stream::Position& position_;
  ChangeWriter writer_;
  std::optional<store::StreamId> stream_;
  SourceTransaction transaction_;
  std::uint64_t chunks_ = 0;  // taken
  bool unsettled_ = false;    // and their outcomes are not known
  Deadline written_at_{};
  bool unwanted_ = false;
  std::set<store::StreamId> refused_;  // still arriving, and given up
};

}  // namespace walferry::apply
