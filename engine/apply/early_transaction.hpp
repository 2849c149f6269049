// One streamed transaction, written to the target while it is still in progress on the source, so that at its commit
// little is left to do.
//
// Owns a connection with an open target transaction, and one more for each further lane (Lanes): where its plan says
// so, each row goes in through the connection of its lane. Invariants: a chunk is written only when the target holds
// everything that was received before it (Applier sees to that), so no row is met that an earlier commit still has to
// change; nothing is committed here before the source's commit has been received, and then with its position (G1), lane
// 0 last; while it has begun no group is split and the plan stays; at the first sign of trouble - a subtransaction that
// is rolled back, a refused change, a description that the target does not fit, a transaction that rests - the target
// transactions are rolled back, and the whole is applied at its commit, from the spool. So it only ever saves time.
// Used by Applier, whose coroutine drives it.
#pragma once

#include <exception>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string_view>
#include <vector>

#include "engine/apply/attachment.hpp"
#include "engine/apply/change_writer.hpp"
#include "engine/apply/lanes.hpp"
#include "engine/apply/progress.hpp"
#include "engine/apply/source_transaction.hpp"
#include "engine/async.hpp"
#include "engine/store/spool.hpp"
#include "engine/stream/position.hpp"

namespace walferry::apply {

class EarlyTransaction {
 public:
  // `lanes_wanted`: connections, of which each gets a writer from `make_writer`.
  EarlyTransaction(asio::any_io_executor executor, asio::thread_pool& pool, AttachmentOptions options, Lanes& lanes,
                   unsigned lanes_wanted, const std::function<std::unique_ptr<ChangeWriter>()>& make_writer,
                   store::Spool& spool, const stream::Position& position);

  // More of a transaction in progress has arrived than was written, or nothing more has for a while.
  [[nodiscard]] bool ready() const;
  // Takes the next chunk, or writes what was gathered of those before. Only while no target transaction of the applier
  // is open, and all it received is committed.
  Awaitable<void> apply_next();
  // Rolls back what can no longer become a commit.
  void look_after();

  // Locks may be held on the target.
  [[nodiscard]] bool begun() const { return !begun_writers().empty(); }
  [[nodiscard]] bool holds(store::StreamId stream) const { return stream_ == stream; }
  // The commit has been received: writes what is left and reads every outcome. False: it was rolled back.
  Awaitable<bool> complete(const store::StreamedCommit& commit);
  // Then commits with the position, which `owner` owns and gets back. Returns whether it was written by several lanes.
  Awaitable<bool> commit(ChangeWriter& owner, const Progress& progress, const store::StreamedCommit& commit);

  // Rolls back; this transaction will not be tried again.
  void abandon(std::string_view why);
  // And drops the connection: the apply begins again, or the target's tables change.
  void let_go();
  // As abandon(), as soon as its coroutine is not inside.
  void abandon_soon() { unwanted_ = stream_.has_value(); }
  [[nodiscard]] const std::vector<std::unique_ptr<ChangeWriter>>& writers() const { return writers_; }

 private:
  [[nodiscard]] std::optional<store::Arriving> next() const;
  [[nodiscard]] bool gathering_rests() const;
  [[nodiscard]] std::vector<ChangeWriter*> begun_writers() const;
  Awaitable<void> connect_lanes();
  Awaitable<void> connect_lane(unsigned lane);
  [[nodiscard]] unsigned attached() const;
  [[nodiscard]] bool may_split(const pgoutput::Message& first) const;
  // After a failure. Throws it on where it is none of the transaction's.
  void give_up(const std::exception_ptr& failure);
  void detach();
  [[nodiscard]] ChangeWriter& writer_of(const pgoutput::Message& change);
  Awaitable<void> write_chunk(std::uint64_t chunk);
  Awaitable<void> write_control(const pgoutput::Message& message, Bytes payload);

  asio::any_io_executor executor_;
  asio::thread_pool& pool_;
  AttachmentOptions options_;
  Lanes& lanes_;
  store::Spool& spool_;
  const stream::Position& position_;
  std::vector<std::unique_ptr<ChangeWriter>> writers_;  // by lane
  TargetTables tables_;                                 // with lanes: as lane 0 found them
  std::optional<store::StreamId> stream_;
  SourceTransaction transaction_;
  std::optional<bool> split_;  // among the lanes; decided at the first change
  std::uint64_t chunks_ = 0;   // taken
  bool unsettled_ = false;     // and their outcomes are not known
  Deadline written_at_{};
  bool unwanted_ = false;
  std::set<store::StreamId> refused_;  // still arriving, and given up
};

}  // namespace walferry::apply
