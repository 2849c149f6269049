// Applies the spool to the target: blocks -> changes -> net changes -> sets -> one target transaction per group ->
// position.
//
// Owns the apply connection. A group is one or more whole source transactions, committed together with the end LSN of
// the last one (G1). While there is a backlog groups grow; with none each transaction is committed at once. Changes are
// gathered per table and written as what they come to; where their order is of account, and where the net changes are
// refused, they are written one by one in source order. A change that does not meet exactly one row stops the stream
// before anything of its group is committed (G3). On any failure the connection is dropped, the server rolls the open
// group back, and the next attempt begins where the target says it stands. Started by Migration when the copy is
// complete.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/apply/pipeline.hpp"
#include "engine/apply/progress.hpp"
#include "engine/apply/row_writer.hpp"
#include "engine/apply/set_writer.hpp"
#include "engine/apply/stop.hpp"
#include "engine/apply/table_map.hpp"
#include "engine/async.hpp"
#include "engine/ddl/command.hpp"
#include "engine/ddl/policy.hpp"
#include "engine/pg/connection.hpp"
#include "engine/retry.hpp"
#include "engine/status.hpp"
#include "engine/store/skips.hpp"
#include "engine/store/spool.hpp"
#include "engine/stream/position.hpp"
#include "engine/touched_rows.hpp"

namespace walferry::apply {

struct ApplierOptions {
  pg::ConnInfo target;
  std::string migration;
  std::string client_encoding;
  std::string system_identifier;  // the target must still be this cluster (G4)
  std::map<QualifiedName, Lsn> copied;
  // Stop (return from run) once every transaction that committed before this LSN is applied, and no other; zero: never.
  Lsn until;
  // Schema changes of the source.
  ddl::OnDdl on_ddl = ddl::OnDdl::Stop;
  std::string ddl_secret = {};
  bool owners = true;                                                      // run them as the role that ran them there
  std::function<bool(const ddl::Command&)> target_has = {};                // blocking: it is on the target already
  std::function<void(const ddl::Command&, ddl::Outcome)> on_command = {};  // it is settled
  // Throw the first divergence instead of waiting for a person to repair it.
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
  // There is more in the spool, or the position of the stream moved.
  void wake() { wake_.notify(); }
  void on_marker(std::function<void(const Marker&)> callback) { on_marker_ = std::move(callback); }
  // Names in `touched` whatever is changed from now on; nullptr ends that.
  void record(std::shared_ptr<TouchedRows> touched) { touched_ = std::move(touched); }
  // The target's position moved on disk: the source may be told.
  void on_durable(std::function<void()> callback) { on_durable_ = std::move(callback); }

 private:
  // What became of a message: no change of rows; taken; a change that only goes in behind what was gathered.
  enum class Taken : std::uint8_t { No, Yes, Behind };

  // The source transaction whose changes are being read.
  struct SourceTransaction {
    Xid xid{};
    Lsn final_lsn = {};
    bool skipped = false;   // the target holds it already
    bool left_out = false;  // a person said so (`walferry skip`)
    bool streamed = false;
    bool one_by_one = false;                    // its net changes were refused
    bool tail = false;                          // its beginning was released: the target holds it
    const std::vector<Xid>* aborted = nullptr;  // sorted; of a streamed one

    [[nodiscard]] bool counts() const { return !skipped && !left_out; }
  };

  struct Group {
    bool open = false;             // BEGIN has been sent
    bool ddl = false;              // holds a schema change: it ends with this source transaction
    std::size_t transactions = 0;  // whole source transactions in it
    std::size_t bytes = 0;
    Deadline begun_at{};
    Lsn end_lsn;
    PgTime commit_time;
    std::vector<std::string> markers;
  };

  Awaitable<void> apply();
  Awaitable<void> connect();
  Awaitable<void> apply_block();
  Awaitable<void> apply_streamed();
  Awaitable<void> apply_control(const pgoutput::Message& message, Bytes payload);
  Awaitable<void> apply_behind(const pgoutput::Message& message, Bytes payload);
  Awaitable<void> describe(const pgoutput::RelationView& relation, Bytes message);
  Awaitable<void> describe_deferred(const pgoutput::Message& message);
  // A message of the event trigger on the source (applier_ddl.cpp).
  Awaitable<void> pass_ddl(const pgoutput::LogicalMessageView& note);
  Awaitable<ddl::Outcome> settle_ddl(const ddl::Command& command);
  Awaitable<void> execute_ddl(const ddl::Command& command);
  [[noreturn]] void stop_at(const ddl::Command& command, const std::string& why) const;
  [[nodiscard]] bool stand_still(const Error& failure, const std::optional<StopPoint>& point);
  [[nodiscard]] bool map(const pgoutput::RelationView& relation, Bytes message);
  [[nodiscard]] StopPoint stop_here(std::string error) const;
  Awaitable<void> end_transaction(Lsn end_lsn, PgTime commit_time);
  Awaitable<void> commit_group();
  Awaitable<void> write_gathered();
  Awaitable<void> relieve();
  Awaitable<void> check_durable();
  Awaitable<void> rest();
  [[nodiscard]] Taken take(const pgoutput::Message& message, Bytes payload);
  [[nodiscard]] Taken take_truncate(const pgoutput::TruncateView& truncate, Bytes payload);
  // The table of a change that counts; nullptr: it does not.
  [[nodiscard]] MappedTable* table_of(RelationId relation, const std::optional<Xid>& stream_xid);
  [[nodiscard]] bool counts(const std::optional<Xid>& stream_xid) const;
  [[nodiscard]] bool folds(MappedTable& table);
  [[nodiscard]] bool goes_behind(const MappedTable& table) const;
  void keep(MappedTable& table, bool first, Bytes payload);
  void touch(const MappedTable& table, const pgoutput::TupleView& tuple);
  void write_row(MappedTable& table, const pgoutput::Message& message, Bytes payload);
  void write_truncate(const pgoutput::TruncateView& truncate, Bytes payload);
  [[nodiscard]] ChangeOrigin origin(Bytes payload) const;
  void begin_after_rewind(const pgoutput::Message& message);
  void begin_transaction(Xid xid, Lsn final_lsn);
  void open_group();
  void refuse_net_changes(const NetChangesRefused& refused);
  void let_go();
  [[nodiscard]] bool group_is_full() const;
  [[nodiscard]] bool backlog() const { return spool_.has_next() || position_.source_behind; }
  [[nodiscard]] bool wanted(const MappedTable& table) const { return transaction_->final_lsn >= table.copy_lsn; }
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
  TableMap tables_;
  // Descriptions that came in transactions whose changes do not count, and are wanted only if a later one uses them:
  // the target may be past the shape that they describe.
  std::map<RelationId, std::vector<std::byte>> deferred_;
  Progress progress_;
  ddl::Reader ddl_;
  Lsn ddl_failed_;  // message LSN of the command that the target refused
  std::unique_ptr<pg::Connection> connection_;
  Pipeline pipeline_;
  RowWriter rows_{pipeline_, tables_};
  SetWriter sets_{pipeline_, tables_, rows_};
  std::optional<SourceTransaction> transaction_;
  Group group_;

  // Gathered and not yet written: the tables, and what keeps the messages alive that their changes point into.
  std::vector<MappedTable*> gathered_;
  std::vector<std::shared_ptr<const void>> gathered_from_;
  std::size_t gathered_bytes_ = 0;
  Lsn one_by_one_until_;       // transactions before it are written as they came: their net changes were refused
  bool replica_role_ = false;  // without it foreign keys and triggers fire, and every change keeps its place

  Lsn committed_;  // end LSN of the last group that this connection committed, or the target's position
  Deadline next_durable_check_{};
  Lsn isolated_;          // the transaction that stopped the apply: those before it are committed first
  std::string reported_;  // the stop that was logged last
  bool stopping_ = false;
  bool until_passed_ = false;  // the next transaction in the spool committed at or behind `until`
  bool rewound_ = false;       // nothing has been read since the spool was rewound

  // What the message in hand belongs to.
  std::shared_ptr<const store::Block> block_;
  std::shared_ptr<const std::string> chunk_;  // of a streamed transaction; null outside

  std::shared_ptr<TouchedRows> touched_;
  std::function<void(const Marker&)> on_marker_;
  std::function<void()> on_durable_;
};

}  // namespace walferry::apply
