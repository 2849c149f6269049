// Further connections to the target that write a part of each large group beside the apply's own connection (lane 0):
// every row always through the same lane, chosen by its key.
//
// Owns these connections, each with a position of its own, and the plan of which tables are split. Invariants (G1): a
// lane commits its part with the group's end as its position when the outcome of every change of the group is known,
// and before lane 0 commits; so lane 0 stands lowest, and a lane that stands beyond it after a crash holds its part of
// what lies between: holds(). The plan is in the journal before a group relies on it, and changes only while lane 0 has
// on disk what any lane has. What depends on more than its own row (a table with a second unique index, a truncation, a
// key that moves to another lane, a schema change) is not split. Used by Applier, whose coroutine drives it, and by
// EarlyTransaction, which has connections of its own and writes and commits by the same plan.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <set>
#include <stdexcept>
#include <vector>

#include "engine/apply/attachment.hpp"
#include "engine/apply/change_writer.hpp"
#include "engine/async.hpp"
#include "engine/store/lane_plan.hpp"

namespace walferry::apply {

// The group under way must be written by lane 0 alone.
class CannotSplit : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

struct LaneOptions {
  unsigned wanted = 1;                                           // with lane 0
  store::LanePlan plan = {};                                     // of the last run
  std::function<void(const store::LanePlan&)> record_plan = {};  // blocking, on disk when it returns
};

class Lanes {
 public:
  // `make_writer`: of a lane, as the applier's own.
  Lanes(asio::any_io_executor executor, asio::thread_pool& pool, AttachmentOptions attachment, LaneOptions options,
        const std::function<std::unique_ptr<ChangeWriter>()>& make_writer);

  // After lane 0, which stands at `position` on disk: takes the lanes' positions, of the last run's lanes too. A lane
  // that nothing depends on yet and that cannot be attached is done without.
  Awaitable<void> connect(Lsn position, const TargetTables& tables, bool replica_role);
  void let_go();
  // A group that was split failed: for a while groups are written by lane 0.
  void rest();
  [[nodiscard]] bool resting() const { return std::chrono::steady_clock::now() < resting_until_; }

  // The transaction's change of this row is on the target already.
  [[nodiscard]] bool holds(const SourceTransaction& transaction, const pgoutput::Message& message,
                           TableMap& tables) const;

  // Some lane holds changes of transactions behind `position`, where lane 0 stands.
  [[nodiscard]] bool ahead_of(Lsn position) const { return position < furthest_; }
  // Whether a group that begins at `position` may be split; lane 0 has everything before `durable` on disk.
  [[nodiscard]] bool may_split(Lsn position, Lsn durable);
  // A group that was split is committed.
  void committed(Lsn end_lsn) { furthest_ = std::max(furthest_, end_lsn); }
  // The lane of a change in a group that is split. Throws CannotSplit.
  [[nodiscard]] unsigned lane_of(const SourceTransaction& transaction, const pgoutput::Message& message,
                                 TableMap& tables) const;
  // A relation was described to lane 0, which knows it as `own`.
  Awaitable<void> describe(const SourceTransaction& transaction, const pgoutput::RelationView& relation, Bytes message,
                           const MappedTable& own);
  // The next plan can be asked for a table described so.
  void note_described(RelationId relation, const MappedTable& table);

  [[nodiscard]] const std::vector<std::unique_ptr<ChangeWriter>>& writers() const { return writers_; }
  // That can write, with lane 0.
  [[nodiscard]] unsigned attached() const { return attached_; }
  // Of lane 1 and on, while it can write.
  [[nodiscard]] ChangeWriter& writer(unsigned lane) const { return *writers_[lane - 1]; }
  [[nodiscard]] Progress progress(unsigned lane) const { return {attachment_.migration, lane}; }
  // Of the group under way.
  [[nodiscard]] std::size_t bytes() const;
  [[nodiscard]] std::vector<ChangeWriter*> begun() const;

 private:
  Awaitable<bool> connect_lane(unsigned lane, const TargetTables& tables);
  void plan(store::LanePlan plan);
  [[nodiscard]] bool is_planned(RelationId relation) const { return plan_.tables.contains(relation); }
  [[nodiscard]] unsigned lane_of_row(RelationId relation, const MappedTable& table,
                                     const pgoutput::TupleView& row) const;
  // Of a change to a planned table.
  [[nodiscard]] unsigned lane_of_change(const MappedTable& table, const pgoutput::Message& message) const;

  asio::any_io_executor executor_;
  asio::thread_pool& pool_;
  AttachmentOptions attachment_;
  LaneOptions options_;
  store::LanePlan plan_;
  std::vector<std::unique_ptr<ChangeWriter>> writers_;  // of lane 1 and on
  unsigned attached_ = 1;
  std::vector<Lsn> positions_;       // by lane, as connect() found them; of lane 0 nothing
  Lsn furthest_;                     // of all lanes but lane 0
  std::set<RelationId> splittable_;  // as they were described last
  Deadline resting_until_{};
  Deadline next_plan_{};
};

}  // namespace walferry::apply
