// Applies the spool to the target: blocks -> changes -> pipelined statements -> one target transaction per group ->
// position.
//
// Owns the apply connection. A group is one or more whole source transactions, committed together with the end LSN of
// the last one (G1). While there is a backlog groups grow; with none each transaction is committed at once. Every
// statement's outcome is read and its row count checked: a change that does not meet exactly one row stops the stream
// (G3). On any failure the connection is dropped, the server rolls the open group back, and the next attempt begins
// where the target says it stands. Started by Migration when the copy is complete.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/apply/progress.hpp"
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

namespace walferry::apply {

struct ApplierOptions {
  pg::ConnInfo target;
  std::string migration;
  std::string client_encoding;
  std::string system_identifier;  // the target must still be this cluster (G4)
  std::map<QualifiedName, Lsn> copied;
  // Stop (return from run) once every transaction that ended at or before this LSN is applied; zero: never.
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
  // The target's position moved on disk: the source may be told.
  void on_durable(std::function<void()> callback) { on_durable_ = std::move(callback); }

 private:
  enum class Operation : std::uint8_t { Control, Advance, Insert, Update, Delete, Truncate };

  // What is to come back for a statement that was sent, in the order of sending.
  struct Expected {
    Operation operation = Operation::Control;
    const MappedTable* table = nullptr;
    Bytes payload = {};  // for the error text; kept alive by:
    std::shared_ptr<const void> owner = {};
    bool in_stream = false;
    Xid xid{};
    Lsn final_lsn = {};
  };

  // The source transaction whose changes are being read.
  struct SourceTransaction {
    Xid xid{};
    Lsn final_lsn = {};
    bool skipped = false;   // the target holds it already
    bool left_out = false;  // a person said so (`walferry skip`)
    bool streamed = false;
    bool tail = false;                          // its beginning was released: the target holds it
    const std::vector<Xid>* aborted = nullptr;  // sorted; of a streamed one

    [[nodiscard]] bool counts() const { return !skipped && !left_out; }
  };

  struct Group {
    bool open = false;             // BEGIN has been sent
    bool ddl = false;              // holds a schema change: it ends with this source transaction
    bool counted = false;          // holds updates or deletes, whose row counts decide whether it may be committed
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
  Awaitable<void> describe(const pgoutput::RelationView& relation, Bytes message);
  Awaitable<void> describe_deferred(const pgoutput::Message& message);
  // A message of the event trigger on the source (applier_ddl.cpp).
  Awaitable<void> pass_ddl(const pgoutput::LogicalMessageView& note);
  Awaitable<ddl::Outcome> settle_ddl(const ddl::Command& command);
  Awaitable<void> execute_ddl(const ddl::Command& command);
  [[noreturn]] void stop_at(const ddl::Command& command, const std::string& why) const;
  [[nodiscard]] bool stand_still(const Error& failure, const std::optional<StopPoint>& point);
  Awaitable<void> end_transaction(Lsn end_lsn, PgTime commit_time);
  Awaitable<void> commit_group();
  Awaitable<void> throttle();
  Awaitable<void> settle();
  Awaitable<void> check_durable();
  Awaitable<void> rest();
  [[nodiscard]] bool apply_change(const pgoutput::Message& message, Bytes payload);
  void apply_insert(const pgoutput::InsertView& insert, Bytes payload);
  void apply_update(const pgoutput::UpdateView& update, Bytes payload);
  void apply_delete(const pgoutput::DeleteView& remove, Bytes payload);
  void apply_truncate(const pgoutput::TruncateView& truncate, Bytes payload);
  void begin_after_rewind(const pgoutput::Message& message);
  void begin_transaction(Xid xid, Lsn final_lsn);
  void open_group();
  void bind(const pgoutput::TupleView& tuple, const std::vector<std::uint16_t>& columns, const MappedTable& table);
  void send(Statement& statement, Operation operation, const MappedTable& table, Bytes payload);
  void send_control(const std::string& prepared_name);
  void accept_result(pg::ResultPtr result);
  [[noreturn]] void fail(const Expected& expected, const Error& cause) const;
  [[nodiscard]] bool map(const pgoutput::RelationView& relation, Bytes message);
  [[nodiscard]] StopPoint stop_here(std::string error) const;
  [[nodiscard]] std::string key_text(const Expected& expected) const;
  [[nodiscard]] bool wanted(const MappedTable& table) const { return transaction_->final_lsn >= table.copy_lsn; }
  [[nodiscard]] bool reached_until() const { return options_.until && position_.applied >= options_.until; }
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
  std::deque<Expected> expected_;
  std::optional<SourceTransaction> transaction_;
  Group group_;
  Lsn committed_;  // end LSN of the last group that this connection committed, or the target's position
  Deadline next_durable_check_{};
  std::size_t unflushed_bytes_ = 0;
  bool stopping_ = false;
  Lsn isolated_;          // the transaction that stopped the apply: those before it are committed first
  std::string reported_;  // the stop that was logged last
  bool rewound_ = false;  // nothing has been read since the spool was rewound

  // What the message in hand belongs to.
  std::shared_ptr<const store::Block> block_;
  std::shared_ptr<const std::string> chunk_;  // of a streamed transaction; null outside

  // Parameters of the statement being sent: NUL-ended copies in one arena, since libpq takes text that way.
  std::string arena_;
  std::vector<std::size_t> offsets_;
  std::vector<const char*> values_;

  std::function<void(const Marker&)> on_marker_;
  std::function<void()> on_durable_;
};

}  // namespace walferry::apply
