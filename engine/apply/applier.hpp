// Applies the spool to the target: blocks -> changes -> net changes -> sets -> one target transaction per group ->
// position.
//
// Owns the position on the target and the order of commits; the writing itself is ChangeWriter's. A group is one or
// more whole source transactions, committed together with the end LSN of the last one (G1). While there is a backlog
// groups grow; with none each transaction is committed at once. Changes are written as what they come to where that is
// safe; where the net changes are refused, their transactions are written again, one by one in source order. A
// transaction that is streamed while in progress is written ahead (EarlyTransaction) when nothing else is to do; it,
// and a group while there is a backlog, can be written by several connections (Lanes). A change that does not meet
// exactly one row stops the stream before anything of its group is committed (G3). On any failure the connection is
// dropped, the server rolls the open group back, and the next attempt begins where the target says it stands. Started
// by Migration when the copy is complete.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/apply/attachment.hpp"
#include "engine/apply/change_writer.hpp"
#include "engine/apply/early_transaction.hpp"
#include "engine/apply/lanes.hpp"
#include "engine/apply/progress.hpp"
#include "engine/apply/source_transaction.hpp"
#include "engine/apply/stop.hpp"
#include "engine/async.hpp"
#include "engine/ddl/command.hpp"
#include "engine/ddl/policy.hpp"
#include "engine/retry.hpp"
#include "engine/status.hpp"
#include "engine/store/skips.hpp"
#include "engine/store/spool.hpp"
#include "engine/stream/position.hpp"
#include "engine/touched_rows.hpp"

namespace walferry::apply {

struct HomeOptions {
  Homes known = {};  // of the last run
  std::map<QualifiedName, RelationId> copied = {};
  std::function<void(const Homes&)> record = {};  // blocking, on disk when it returns
};

struct ApplierOptions {
  pg::ConnInfo target;
  std::string migration;
  std::string client_encoding;
  std::string system_identifier;  // the target must still be this cluster (G4)
  std::map<QualifiedName, Lsn> copied;
  store::TablesToCopyAgain to_copy_again = {};  // whose changes do not count
  // Stop (return from run) once every transaction that committed before this LSN is applied, and no other; zero: never.
  Lsn until;
  // Schema changes of the source.
  ddl::OnDdl on_ddl = ddl::OnDdl::Stop;
  bool via_root = false;  // partitioned tables are carried by the table at the top
  std::string ddl_secret = {};
  // Blocking, in the open transaction of a session of the apply: runs it; whether the target has it already; makes
  // harmless what a person's change brought.
  std::function<void(pg::Session&, const ddl::Command&)> execute = {};
  std::function<bool(pg::Session&, const ddl::Command&)> target_has = {};
  std::function<void(pg::Session&)> relax = {};
  std::function<void(const ddl::Command&, ddl::Outcome)> on_command = {};  // it is settled
  HomeOptions homes = {};
  KnownTypes source_types = {};
  LaneOptions lanes = {};
  // Throw the first divergence instead of waiting for a person to repair it.
  bool target_closed = false;  // to everybody else: the old source of a way back
  bool give_up_on_divergence = false;
};

// A logical message that walferry itself wrote on the source, seen at its place in the stream and committed on the
// target.
struct Marker {
  std::string content;
  Lsn end_lsn;
};

class Applier {
 public:
  Applier(asio::any_io_executor executor, asio::thread_pool& pool, ApplierOptions options, store::Spool& spool,
          store::Skips& skips, stream::Position& position, Status& status);

  // Until cancelled, stopped, or `until` is reached.
  Awaitable<void> run();
  // Ends run() at the next commit boundary.
  void stop();
  // Ends a blocking step on the target: a cancelled run() would wait for it.
  void interrupt();
  // There is more in the spool, or the position of the stream moved.
  void wake() { wake_.notify(); }
  // Something that it stands still for may have been mended.
  void try_again() {
    mended_.notify();
    wake_.notify();
  }
  void on_marker(std::function<void(const Marker&)> callback) { on_marker_ = std::move(callback); }
  // Names in `touched` whatever is changed from now on; nullptr ends that.
  void record(std::shared_ptr<TouchedRows> touched);
  // It stands still, until a person has acted.
  void on_stop(std::function<void()> callback) { on_stop_ = std::move(callback); }
  // The target's position moved on disk: the source may be told.
  void on_durable(std::function<void()> callback) { on_durable_ = std::move(callback); }

 private:
  using Taken = ChangeWriter::Taken;

  struct Group {
    bool ddl = false;              // holds a schema change: it ends with this source transaction
    bool split = false;            // written by all lanes
    std::size_t transactions = 0;  // whole source transactions in it
    Lsn end_lsn;
    PgTime commit_time;
    std::vector<std::string> markers;
  };

  struct Applied {
    Taken taken = Taken::No;
    ChangeWriter* writer = nullptr;

    [[nodiscard]] bool complete() const {
      return taken == Taken::No || (taken == Taken::Yes && !writer->needs_relief());
    }
  };

  Awaitable<void> apply();
  Awaitable<void> connect();
  Awaitable<void> apply_block();
  Awaitable<void> apply_streamed();
  // A message of transaction_; what is left to do with a change is complete_change()'s, which is rarely needed.
  [[nodiscard]] Applied apply_change(const pgoutput::Message& message, Bytes payload);
  Awaitable<void> complete_change(Applied applied, const pgoutput::Message& message, Bytes payload);
  void begin_group(const pgoutput::Message& first);
  Awaitable<void> apply_control(const pgoutput::Message& message, Bytes payload);
  Awaitable<void> describe_deferred(const pgoutput::Message& message);
  // A message of the event trigger on the source (applier_ddl.cpp).
  Awaitable<void> pass_ddl(const pgoutput::LogicalMessageView& note);
  Awaitable<ddl::Outcome> settle_ddl(const ddl::Command& command);
  Awaitable<void> execute_ddl(const ddl::Command& command);
  Awaitable<void> fill_added_columns(const ddl::Command& command);
  struct Answer {
    bool there = false;
    std::string failure;  // of the source: it could not be compared
  };
  Awaitable<Answer> ask_target(const ddl::Command& command);
  Awaitable<void> change_target(std::function<void(pg::Session&)> change);
  Awaitable<void> settle_group();
  void stop_at_partition(const ddl::Command& command);
  [[noreturn]] void stop_at(const ddl::Command& command, const std::string& why) const;
  [[nodiscard]] bool stand_still(const Error& failure, const std::optional<StopPoint>& point);
  Awaitable<void> end_transaction(Lsn end_lsn, PgTime commit_time);
  Awaitable<void> describe(const pgoutput::RelationView& relation, Bytes payload);
  Awaitable<void> commit_group();
  Awaitable<void> commit_split_group();
  // Of every connection.
  [[nodiscard]] std::vector<ChangeWriter*> all_writers();
  // Of the group under way.
  [[nodiscard]] std::vector<ChangeWriter*> group_writers();
  // Reads `owner`'s messages from now on.
  void read_from(std::shared_ptr<const void> owner);
  Awaitable<void> commit_early(const store::StreamedCommit& commit);
  void note_committed();
  Awaitable<void> check_durable();
  Awaitable<void> tidy_positions();
  Awaitable<void> rest();
  Awaitable<void> await_more(Deadline deadline);
  void note_work();
  void begin_after_rewind(const pgoutput::Message& message);
  void begin_transaction(Xid xid, Lsn final_lsn);
  void refuse_net_changes(const NetChangesRefused& refused);
  void refuse_split(const std::exception& cause);
  void let_go();
  [[nodiscard]] std::unique_ptr<ChangeWriter> make_writer() const;
  [[nodiscard]] AttachmentOptions attachment_options() const;
  [[nodiscard]] bool may_apply_early();
  [[nodiscard]] bool group_is_full() const;
  [[nodiscard]] bool backlog() const { return spool_.has_next() || position_.source_behind; }
  [[nodiscard]] bool reached_until() const {
    return options_.until && (until_passed_ || position_.applied >= options_.until);
  }
  [[nodiscard]] bool is_behind_until(Lsn commit_lsn) const { return options_.until && commit_lsn >= options_.until; }
  [[nodiscard]] bool at_boundary() const { return !transaction_; }

  asio::any_io_executor executor_;
  asio::thread_pool& pool_;
  ApplierOptions options_;
  store::Spool& spool_;
  store::Skips& skips_;
  stream::Position& position_;
  Status& status_;
  Event wake_;
  Event mended_;  // apart from that: there is always more in the spool
  std::shared_ptr<TableHomes> homes_;
  ChangeWriter writer_;
  Lanes lanes_;
  EarlyTransaction early_;
  // Descriptions that came in transactions whose changes do not count, and are wanted only if a later one uses them:
  // the target may be past the shape that they describe.
  std::map<RelationId, std::vector<std::byte>> deferred_;
  Progress progress_;
  std::uint64_t tidied_at_ = 0;  // of the target transactions
  ddl::Reader ddl_;
  Lsn ddl_failed_;  // message LSN of the command that the target refused
  std::optional<SourceTransaction> transaction_;
  Group group_;
  std::chrono::steady_clock::duration group_age_max_{};  // while there is a backlog
  std::size_t wire_factor_ = 1;  // by which the other bounds of a group grow with the round trip

  Lsn one_by_one_until_;  // transactions before it are written as they came: their net changes were refused

  Lsn committed_;  // end LSN of the last group that this connection committed, or the target's position
  Deadline next_durable_check_{};
  Deadline at_work_since_;
  Lsn isolated_;          // the transaction that stopped the apply: those before it are committed first
  std::string reported_;  // the stop that was logged last
  bool stopping_ = false;
  bool until_passed_ = false;  // the next transaction in the spool committed at or behind `until`
  bool rewound_ = false;       // nothing has been read since the spool was rewound

  std::shared_ptr<const store::Block> block_;  // the message in hand belongs to it

  std::function<void(const Marker&)> on_marker_;
  std::function<void()> on_stop_;
  std::function<void()> on_durable_;
};

}  // namespace walferry::apply
