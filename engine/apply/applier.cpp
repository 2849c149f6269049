#include "engine/apply/applier.hpp"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>

#include "engine/ddl/trigger.hpp"

namespace walferry::apply {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using Clock = std::chrono::steady_clock;

// Bounds of a group while there is a backlog.
constexpr std::size_t group_transactions_max = 1'000;
constexpr std::size_t group_bytes_max = std::size_t{4} << 20U;
constexpr auto group_age_max = milliseconds{50};

// Bounds of what is in flight on the apply connection: libpq's buffers must not grow with the backlog.
constexpr std::size_t in_flight_statements_max = 2'048;
constexpr std::size_t unflushed_bytes_max = std::size_t{64} << 10U;

constexpr auto durable_interval = seconds{1};
constexpr auto repair_interval = seconds{5};  // between attempts while a divergence waits for a person

struct Attached {
  pg::Session session;
  Progress progress;
  Lsn position;
  Catalog catalog;
};

// Everything that a new apply connection needs, asked in blocking calls on a pool thread.
Attached attach(const ApplierOptions& options) {
  const std::string application_name = "walferry apply " + options.migration;
  pg::Session session =
      pg::Session::open(options.target, {.application_name = application_name,
                                         .client_encoding = options.client_encoding,
                                         .settings = {"plan_cache_mode=force_generic_plan", "enable_seqscan=off"}});
  const DatabaseIdentity identity = read_identity(session);
  if (identity.system_identifier != options.system_identifier) {
    throw Error{
        {ErrorKind::Refused, Side::Target},
        fmt::format("the target is now another cluster (system identifier {}, pinned {}). Nothing was written to it. "
                    "Remedy: correct --target, or abort this migration and begin anew",
                    identity.system_identifier, options.system_identifier)};
  }
  // A dead predecessor's backend may still hold the origin; the state directory's lock says that nobody else is alive.
  session.exec(
      fmt::format("SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity "
                  "WHERE application_name = {} AND pid <> pg_catalog.pg_backend_pid()",
                  pg::quote_literal(application_name.substr(0, 63))));
  Progress progress = Progress::of(session, options.migration);
  Catalog catalog = read_catalog(session);
  try {
    session.exec("SET session_replication_role = replica");
  } catch (const Error& error) {
    if (error.sqlstate() != "42501") throw;
    // Without the right, triggers and foreign keys fire on the target; check has said what that costs.
    spdlog::warn("the target role may not set session_replication_role: triggers and foreign keys fire during apply");
  }
  session.exec(progress.attach_sql());
  // Read last: from here on nobody else can move it.
  const Lsn position = progress.read(session);
  return {std::move(session), std::move(progress), position, std::move(catalog)};
}

}  // namespace

Applier::Applier(asio::any_io_executor executor, asio::thread_pool& pool, ApplierOptions options, store::Spool& spool,
                 store::Skips& skips, stream::Position& position, Status& status)
    : executor_(executor),
      pool_(pool),
      options_(std::move(options)),
      spool_(spool),
      skips_(skips),
      position_(position),
      status_(status),
      wake_(executor) {
  tables_.set_copied(options_.copied);
  ddl_.set_secret(options_.ddl_secret);
}

void Applier::stop() {
  stopping_ = true;
  wake_.notify();
}

Awaitable<void> Applier::run() {
  Retry retry{executor_, "the apply to the target"};
  while (!stopping_ && !reached_until()) {
    std::optional<Error> failure;
    std::optional<StopPoint> point;
    try {
      co_await apply();
    } catch (const Stop& stop) {
      failure = stop;
      point = stop.point();
    } catch (const Error& error) {
      failure = error;
    } catch (const ProtocolError& error) {
      failure = Error{{ErrorKind::Protocol, Side::Source},
                      fmt::format("the source's stream cannot be understood: {}", error.what())};
    }
    connection_.reset();
    expected_.clear();
    transaction_.reset();
    group_ = {};
    block_.reset();
    chunk_.reset();
    deferred_.clear();
    position_.apply_idle = false;
    status_.target_connected = false;
    if (!failure) continue;  // stopped, arrived, or the source's connection broke a transaction off
    if (failure->kind() != ErrorKind::Divergence) {
      status_.last_error = LastError{failure->what(), std::chrono::system_clock::now()};
      co_await retry.after(*failure);
      continue;
    }
    if (!stand_still(*failure, point)) continue;
    if (options_.give_up_on_divergence) throw *failure;
    co_await wake_.wait_until(Clock::now() + repair_interval);
  }
}

// G3: the stream stands still at this point, the receiver goes on spooling, and a repair on the target is noticed.
// False: what stands before it in the same group is applied first.
bool Applier::stand_still(const Error& failure, const std::optional<StopPoint>& point) {
  const Lsn isolated = point ? point->commit_lsn : Lsn{};
  if (isolated && isolated_ != isolated) {
    isolated_ = isolated;
    return false;
  }
  status_.last_error = LastError{failure.what(), std::chrono::system_clock::now()};
  status_.apply_stopped = true;
  status_.stop = point;
  if (point) skips_.record_stop(*point);
  if (reported_ != failure.what()) spdlog::error("apply stopped: {}", failure.what());
  reported_ = failure.what();
  return true;
}

Awaitable<void> Applier::connect() {
  const auto options = std::make_shared<const ApplierOptions>(options_);
  std::function<Attached()> open = [options] { return attach(*options); };
  Attached attached = co_await run_blocking<Attached>(pool_, std::move(open));
  if (attached.position < position_.target_durable) {
    throw Error{
        {ErrorKind::Refused, Side::Target},
        fmt::format(
            "the target stands at {}, but it had reported {} as durable: it lost transactions, as after a fail-over "
            "to an asynchronous standby. Nothing was applied. Remedy: abort and begin anew",
            attached.position.to_string(), position_.target_durable.to_string())};
  }
  progress_ = attached.progress;
  committed_ = attached.position;
  position_.target_durable = attached.position;
  position_.applied = attached.position;
  tables_.set_catalog(std::move(attached.catalog));
  tables_.forget_prepared();
  connection_ = std::make_unique<pg::Connection>(executor_, std::move(attached.session));
  connection_->enter_pipeline();
  for (const auto& [name, sql] : {std::pair<std::string, std::string>{"begin", "BEGIN"},
                                  {"commit", "COMMIT"},
                                  {"advance", progress_.advance_sql()},
                                  {"durable", progress_.durable_sql()}}) {
    connection_->send_prepare(name, sql);
    expected_.push_back({});
  }
  co_await settle();
  spool_.rewind();
  rewound_ = true;
  status_.target_connected = true;
  spdlog::info("applying to the target from {}", committed_.to_string());
}

Awaitable<void> Applier::apply() {
  co_await connect();
  for (;;) {
    if (spool_.take_broken_off())
      co_return;  // the source sends the unfinished transaction again: begin at the last commit
    if (at_boundary()) {
      if (group_.open && (stopping_ || !spool_.has_next())) co_await commit_group();
      if (stopping_ || reached_until()) co_return;
    } else if (stopping_) {
      co_return;  // inside a large transaction: the server rolls back, the next run applies it whole
    }
    if (Clock::now() >= next_durable_check_ && at_boundary()) {
      if (group_.open) co_await commit_group();
      co_await check_durable();
    }
    block_ = spool_.next();
    if (!block_) {
      co_await rest();
      continue;
    }
    position_.apply_idle = false;
    if (block_->kind == store::Block::Kind::StreamedCommit) {
      co_await apply_streamed();
    } else {
      co_await apply_block();
    }
    block_.reset();
  }
}

// Nothing to read: the target holds everything that was received, unless a transaction is still arriving.
Awaitable<void> Applier::rest() {
  if (at_boundary()) {
    position_.apply_idle = true;
    position_.applied = std::max(position_.applied, position_.idle_end);
    if (!spool_.has_next()) position_.applied_time = std::max(position_.applied_time, position_.source_time);
    if (reached_until()) co_return;
  }
  co_await wake_.wait_until(std::max(next_durable_check_, Clock::now() + milliseconds{10}));
}

Awaitable<void> Applier::apply_block() {
  Bytes rest = block_->messages;
  const std::byte* const last_commit_end = block_->messages.data() + block_->complete_bytes;
  while (!rest.empty()) {
    const Bytes payload = store::take_message(rest);
    const pgoutput::Message message = pgoutput::decode(payload, {});
    if (rewound_ && std::get_if<pgoutput::RelationView>(&message) == nullptr) begin_after_rewind(message);
    if (!deferred_.empty()) co_await describe_deferred(message);
    if (apply_change(message, payload)) {
      if (expected_.size() >= in_flight_statements_max || unflushed_bytes_ >= unflushed_bytes_max) co_await throttle();
      continue;
    }
    if (const auto* begin = std::get_if<pgoutput::Begin>(&message); begin != nullptr && group_.open) {
      // A transaction whose end is not here yet, or that cannot be applied, must not hold back those before it.
      if (payload.data() >= last_commit_end || begin->final_lsn == isolated_) co_await commit_group();
    }
    co_await apply_control(message, payload);
    if (!at_boundary() || !group_.open) continue;
    const bool backlog = rest.data() < last_commit_end || spool_.has_next();
    const bool full = group_.transactions >= group_transactions_max || group_.bytes >= group_bytes_max ||
                      Clock::now() - group_.begun_at >= group_age_max;
    // A new enum value can be used only by the transactions that follow.
    if (!backlog || full || group_.ddl) co_await commit_group();
  }
}

// A transaction that was streamed while in progress stands in the spool as chunks, and becomes a group of its own.
Awaitable<void> Applier::apply_streamed() {
  rewound_ = false;
  if (group_.open) co_await commit_group();
  const store::StreamedCommit& commit = block_->streamed;
  std::vector<Xid> aborted = commit.aborted;
  std::ranges::sort(aborted);
  begin_transaction(commit.xid, commit.commit_lsn);
  transaction_->streamed = true;
  transaction_->aborted = &aborted;
  for (std::uint64_t chunk = 0; chunk < commit.chunks && transaction_->counts(); ++chunk) {
    chunk_ = std::make_shared<const std::string>(spool_.stream_chunk(commit.stream, chunk));
    Bytes rest = as_bytes(*chunk_);
    while (!rest.empty()) {
      const Bytes payload = store::take_message(rest);
      const pgoutput::Message message = pgoutput::decode(payload, {.in_stream = true});
      if (!deferred_.empty()) co_await describe_deferred(message);
      if (apply_change(message, payload)) {
        if (expected_.size() >= in_flight_statements_max || unflushed_bytes_ >= unflushed_bytes_max)
          co_await throttle();
      } else {
        co_await apply_control(message, payload);
      }
    }
    if (stopping_) co_return;  // in the middle: rolled back with the connection, applied whole by the next run
  }
  chunk_.reset();
  co_await end_transaction(commit.end_lsn, commit.commit_time);
  if (group_.open) co_await commit_group();
}

// Insert, Update, Delete and Truncate: true when the message was one of them.
bool Applier::apply_change(const pgoutput::Message& message, Bytes payload) {
  const auto counts = [&](const std::optional<Xid>& subxid) {
    if (!transaction_) throw ProtocolError{"a change outside a transaction"};
    if (!transaction_->counts()) return false;
    return !subxid || !std::ranges::binary_search(*transaction_->aborted, *subxid);
  };
  if (const auto* insert = std::get_if<pgoutput::InsertView>(&message)) {
    if (counts(insert->stream_xid)) apply_insert(*insert, payload);
  } else if (const auto* update = std::get_if<pgoutput::UpdateView>(&message)) {
    if (counts(update->stream_xid)) apply_update(*update, payload);
  } else if (const auto* remove = std::get_if<pgoutput::DeleteView>(&message)) {
    if (counts(remove->stream_xid)) apply_delete(*remove, payload);
  } else if (const auto* truncate = std::get_if<pgoutput::TruncateView>(&message)) {
    if (counts(truncate->stream_xid)) apply_truncate(*truncate, payload);
  } else {
    return false;
  }
  return true;
}

Awaitable<void> Applier::apply_control(const pgoutput::Message& message, Bytes payload) {
  if (const auto* begin = std::get_if<pgoutput::Begin>(&message)) {
    begin_transaction(begin->xid, begin->final_lsn);
  } else if (const auto* commit = std::get_if<pgoutput::Commit>(&message)) {
    co_await end_transaction(commit->end_lsn, commit->commit_time);
  } else if (const auto* relation = std::get_if<pgoutput::RelationView>(&message)) {
    const bool aborted =
        relation->stream_xid && std::ranges::binary_search(*transaction_->aborted, *relation->stream_xid);
    // A rolled-back subtransaction's description is not valid outside it; the source described the relation anew.
    if (aborted) co_return;
    if (transaction_ && transaction_->counts()) {
      deferred_.erase(relation->id);
      co_await describe(*relation, payload);
    } else {
      deferred_[relation->id].assign(payload.begin(), payload.end());
    }
  } else if (const auto* note = std::get_if<pgoutput::LogicalMessageView>(&message)) {
    // Other programs' messages change no rows.
    const bool aborted = note->stream_xid && transaction_ && transaction_->aborted != nullptr &&
                         std::ranges::binary_search(*transaction_->aborted, *note->stream_xid);
    if (!aborted && transaction_ && transaction_->counts() && note->prefix == ddl::message_prefix)
      co_await pass_ddl(*note);
    if (note->prefix == "walferry" && transaction_ && !transaction_->skipped)
      group_.markers.emplace_back(as_text(note->content));
  }
}

// The oldest retained block may begin inside a transaction whose first blocks were released, because the target holds
// it.
void Applier::begin_after_rewind(const pgoutput::Message& message) {
  rewound_ = false;
  if (std::get_if<pgoutput::Begin>(&message) == nullptr)
    transaction_ = SourceTransaction{.skipped = true, .tail = true};
}

void Applier::begin_transaction(Xid xid, Lsn final_lsn) {
  if (transaction_) throw ProtocolError{"Begin inside a transaction"};
  ddl_.reset();
  const bool skipped = final_lsn < committed_;
  transaction_ = SourceTransaction{.xid = xid,
                                   .final_lsn = final_lsn,
                                   .skipped = skipped,
                                   .left_out = !skipped && skips_.contains(StopPoint::What::Transaction, final_lsn)};
  if (transaction_->left_out) {
    spdlog::warn("transaction {} (commit LSN {}) is left out, as a person said", static_cast<std::uint32_t>(xid),
                 final_lsn.to_string());
  }
}

Awaitable<void> Applier::end_transaction(Lsn end_lsn, PgTime commit_time) {
  if (!transaction_) throw ProtocolError{"Commit outside a transaction"};
  const bool skipped = transaction_->skipped;
  if (transaction_->tail && end_lsn > committed_)
    throw ProtocolError{"the spool begins inside a transaction that is not applied"};
  transaction_.reset();
  if (skipped) co_return;
  group_.end_lsn = end_lsn;
  group_.commit_time = commit_time;
  ++group_.transactions;
  // A transaction without rows for the target (skipped tables, messages only) still moves the position.
  open_group();
}

void Applier::open_group() {
  if (group_.open) return;
  group_.open = true;
  group_.begun_at = Clock::now();
  send_control("begin");
}

Awaitable<void> Applier::commit_group() {
  // An update that meets no row is no error to the server: its count must be seen before COMMIT is sent.
  if (group_.counted) co_await settle();
  const std::string lsn = group_.end_lsn.to_string();
  const std::string time = std::to_string(group_.commit_time.microseconds);
  const std::array<const char*, 2> parameters{lsn.c_str(), time.c_str()};
  connection_->send_prepared("advance", parameters);
  expected_.push_back({.operation = Operation::Advance});
  send_control("commit");
  co_await settle();

  const Group done = std::exchange(group_, {});
  committed_ = done.end_lsn;
  position_.applied = std::max(position_.applied, done.end_lsn);
  position_.applied_time = std::max(position_.applied_time, done.commit_time);
  status_.apply.source_transactions += done.transactions;
  ++status_.apply.target_transactions;
  if (status_.apply_stopped) {
    status_.apply_stopped = false;
    status_.stop.reset();
    skips_.clear_stop();
    reported_.clear();
    spdlog::info("apply goes on: what had stopped it is behind it");
  } else if (skips_.stop() && skips_.stop()->commit_lsn < committed_) {
    skips_.clear_stop();  // of an earlier run
  }
  if (!progress_.lazy_commit()) {
    position_.target_durable = committed_;
    spool_.release(committed_);
  }
  for (const std::string& content : done.markers) {
    if (on_marker_) on_marker_({.content = content, .end_lsn = done.end_lsn});
  }
}

Awaitable<void> Applier::check_durable() {
  next_durable_check_ = Clock::now() + durable_interval;
  if (committed_ <= position_.target_durable) co_return;
  connection_->send_prepared("durable", {});
  connection_->send_sync();
  Lsn durable;
  for (;;) {
    const pg::ResultPtr result = co_await connection_->next_result();
    const ExecStatusType status = PQresultStatus(result.get());
    if (status == PGRES_PIPELINE_SYNC) break;
    if (status != PGRES_TUPLES_OK) throw pg::error_of(result.get(), Side::Target);
    durable = Lsn::parse(PQgetvalue(result.get(), 0, 0)).value_or(Lsn{});
  }
  position_.target_durable = std::max(position_.target_durable, durable);
  spool_.release(position_.target_durable);
  if (on_durable_) on_durable_();
}

// Ends the unit and reads every outcome up to its end.
Awaitable<void> Applier::settle() {
  connection_->send_sync();
  for (;;) {
    pg::ResultPtr result = co_await connection_->next_result();
    if (PQresultStatus(result.get()) == PGRES_PIPELINE_SYNC) break;
    accept_result(std::move(result));
  }
  unflushed_bytes_ = 0;
  tables_.forget_replaced();
}

// Hands what is queued to the server and takes the outcomes that are there, so that neither grows without bound.
Awaitable<void> Applier::throttle() {
  connection_->send_flush_request();
  co_await connection_->flush();
  unflushed_bytes_ = 0;
  connection_->consume_input();
  while (!expected_.empty()) {
    pg::ResultPtr result = connection_->take_result();
    if (!result) break;
    accept_result(std::move(result));
  }
  while (expected_.size() > in_flight_statements_max / 2) {
    pg::ResultPtr result = co_await connection_->next_result();
    accept_result(std::move(result));
  }
}

// A change of a transaction that counts is about to be applied: what it needs of the descriptions put aside.
Awaitable<void> Applier::describe_deferred(const pgoutput::Message& message) {
  if (!transaction_ || !transaction_->counts()) co_return;
  std::vector<RelationId> needed;
  if (const auto* insert = std::get_if<pgoutput::InsertView>(&message)) {
    needed = {insert->relation};
  } else if (const auto* update = std::get_if<pgoutput::UpdateView>(&message)) {
    needed = {update->relation};
  } else if (const auto* remove = std::get_if<pgoutput::DeleteView>(&message)) {
    needed = {remove->relation};
  } else if (const auto* truncate = std::get_if<pgoutput::TruncateView>(&message)) {
    needed.assign(truncate->relations.begin(), truncate->relations.end());
  }
  for (const RelationId id : needed) {
    const auto found = deferred_.find(id);
    if (found == deferred_.end()) continue;
    const std::vector<std::byte> description = std::move(found->second);
    deferred_.erase(found);
    const pgoutput::Message relation = pgoutput::decode(description, {});
    co_await describe(std::get<pgoutput::RelationView>(relation), description);
  }
}

Awaitable<void> Applier::describe(const pgoutput::RelationView& relation, Bytes message) {
  std::vector<std::byte> plain;
  if (relation.stream_xid) {
    // Compared without its xid, which differs in every transaction.
    plain.assign(message.begin(), message.begin() + 1);
    plain.insert(plain.end(), message.begin() + 5, message.end());
    message = plain;
  }
  if (map(relation, message)) co_return;
  // The table or a column is new: another look at the target before anything is said.
  const auto options = std::make_shared<const ApplierOptions>(options_);
  std::function<Catalog()> read = [options] {
    pg::Session session = pg::Session::open(options->target, {.client_encoding = options->client_encoding});
    return read_catalog(session);
  };
  Catalog catalog = co_await run_blocking<Catalog>(pool_, std::move(read));
  const QualifiedName name{std::string{relation.schema}, std::string{relation.name}};
  const Table* table = catalog.find(name);
  std::string missing;
  for (const pgoutput::ColumnView& column : relation.columns) {
    if (table != nullptr && std::ranges::count(table->columns, column.name, &Column::name) > 0) continue;
    if (!missing.empty()) missing += ", ";
    missing += column.name;
  }
  if (table == nullptr || !missing.empty()) {
    throw Stop{Side::Target,
               stop_here(fmt::format(
                   "{} was changed on the source before transaction {} (commit LSN {}): the target has "
                   "no {}. Nothing of this transaction was applied. Remedy: make the same change on "
                   "the target; walferry then goes on by itself",
                   name.text(), static_cast<std::uint32_t>(transaction_->xid), transaction_->final_lsn.to_string(),
                   table == nullptr ? "such table" : "column " + missing))};
  }
  tables_.set_catalog(std::move(catalog));
  if (!map(relation, message)) {
    throw Stop{Side::Target, stop_here(fmt::format("{} cannot be matched with a table of the target", name.text()))};
  }
}

bool Applier::map(const pgoutput::RelationView& relation, Bytes message) {
  try {
    return tables_.describe(relation, message);
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::Divergence) throw;
    throw Stop{error.side(), stop_here(error.what())};
  }
}

// The transaction being read cannot be applied.
StopPoint Applier::stop_here(std::string error) const {
  return {.what = StopPoint::What::Transaction,
          .lsn = transaction_->final_lsn,
          .commit_lsn = transaction_->final_lsn,
          .xid = transaction_->xid,
          .error = std::move(error)};
}

void Applier::apply_insert(const pgoutput::InsertView& insert, Bytes payload) {
  MappedTable& table = tables_.find(insert.relation);
  if (!wanted(table)) return;
  arena_.clear();
  offsets_.clear();
  bind(insert.row, table.insert.new_columns, table);
  send(table.insert, Operation::Insert, table, payload);
  ++status_.apply.inserts;
}

void Applier::apply_update(const pgoutput::UpdateView& update, Bytes payload) {
  MappedTable& table = tables_.find(update.relation);
  if (!wanted(table)) return;
  Statement& statement = tables_.update_statement(table, update);
  arena_.clear();
  offsets_.clear();
  bind(update.row, statement.new_columns, table);
  bind(update.old ? update.old->tuple : update.row, statement.old_columns, table);
  send(statement, Operation::Update, table, payload);
  ++status_.apply.updates;
}

void Applier::apply_delete(const pgoutput::DeleteView& remove, Bytes payload) {
  MappedTable& table = tables_.find(remove.relation);
  if (!wanted(table)) return;
  arena_.clear();
  offsets_.clear();
  bind(remove.old.tuple, table.remove.old_columns, table);
  send(table.remove, Operation::Delete, table, payload);
  ++status_.apply.deletes;
}

void Applier::apply_truncate(const pgoutput::TruncateView& truncate, Bytes payload) {
  std::string names;
  const MappedTable* first = nullptr;
  for (const RelationId relation : truncate.relations) {
    const MappedTable& table = tables_.find(relation);
    if (!wanted(table)) continue;
    if (first == nullptr) first = &table;
    if (!names.empty()) names += ", ";
    names += table.reference();
  }
  if (first == nullptr) return;
  open_group();
  // One statement for all: the message lists what CASCADE reached, so RESTRICT cannot be in the way.
  connection_->send_statement(
      fmt::format("TRUNCATE {}{}", names, truncate.restart_identity ? " RESTART IDENTITY" : ""));
  expected_.push_back({.operation = Operation::Truncate,
                       .table = first,
                       .payload = payload,
                       .owner = chunk_ ? std::shared_ptr<const void>{chunk_} : std::shared_ptr<const void>{block_},
                       .in_stream = transaction_->streamed,
                       .xid = transaction_->xid,
                       .final_lsn = transaction_->final_lsn});
  ++status_.apply.truncates;
}

// Appends the parameters for `columns`, which are in ascending order, as NUL-ended text.
void Applier::bind(const pgoutput::TupleView& tuple, const std::vector<std::uint16_t>& columns,
                   const MappedTable& table) {
  if (tuple.column_count() != table.columns.size()) {
    throw Error{{ErrorKind::Protocol, Side::Source},
                fmt::format("a row of {} does not fit its description", table.name.text())};
  }
  auto wanted_column = columns.begin();
  std::uint16_t index = 0;
  for (const pgoutput::FieldView field : tuple) {
    if (wanted_column == columns.end()) break;
    if (index++ != *wanted_column) continue;
    ++wanted_column;
    switch (field.kind) {
      case pgoutput::FieldKind::Null:
        offsets_.push_back(std::string::npos);
        break;
      case pgoutput::FieldKind::Text:
        offsets_.push_back(arena_.size());
        arena_ += as_text(field.value);
        arena_ += '\0';
        break;
      case pgoutput::FieldKind::UnchangedToast:
      case pgoutput::FieldKind::Binary:
        throw Error{{ErrorKind::Protocol, Side::Source},
                    fmt::format("{}: column {} came without a usable value", table.name.text(),
                                table.columns[index - 1U].name)};
    }
  }
}

void Applier::send(Statement& statement, Operation operation, const MappedTable& table, Bytes payload) {
  open_group();
  if (!statement.prepared) {
    connection_->send_prepare(statement.name, statement.sql);
    expected_.push_back({.operation = Operation::Control,
                         .table = &table,
                         .owner = nullptr,
                         .xid = transaction_->xid,
                         .final_lsn = transaction_->final_lsn});
    statement.prepared = true;
  }
  values_.clear();
  for (const std::size_t offset : offsets_)
    values_.push_back(offset == std::string::npos ? nullptr : arena_.data() + offset);
  connection_->send_prepared(statement.name, values_);
  expected_.push_back({.operation = operation,
                       .table = &table,
                       .payload = payload,
                       .owner = chunk_ ? std::shared_ptr<const void>{chunk_} : std::shared_ptr<const void>{block_},
                       .in_stream = transaction_->streamed,
                       .xid = transaction_->xid,
                       .final_lsn = transaction_->final_lsn});
  group_.counted = group_.counted || operation == Operation::Update || operation == Operation::Delete;
  unflushed_bytes_ += arena_.size() + 64;
  group_.bytes += arena_.size() + 64;
}

void Applier::send_control(const std::string& prepared_name) {
  connection_->send_prepared(prepared_name, {});
  expected_.push_back({});
}

void Applier::accept_result(pg::ResultPtr result) {
  const Expected expected = std::move(expected_.front());
  expected_.pop_front();
  const ExecStatusType status = PQresultStatus(result.get());
  if (status != PGRES_COMMAND_OK && status != PGRES_TUPLES_OK) fail(expected, pg::error_of(result.get(), Side::Target));
  if (expected.operation == Operation::Control || expected.operation == Operation::Truncate) return;
  const std::int64_t rows = pg::Result{std::move(result)}.affected();
  if (rows == 1) return;
  if (expected.operation == Operation::Advance) {
    throw Error{{ErrorKind::Divergence, Side::Target}, "the position on the target was moved by somebody else"};
  }
  fail(expected, Error{{ErrorKind::Divergence, Side::Target},
                       rows == 0 ? "the target has no such row" : fmt::format("{} rows of the target fit it", rows)});
}

void Applier::fail(const Expected& expected, const Error& cause) const {
  // What passes by itself is retried as it is; what does not is a divergence at exactly this change.
  if (is_transient(cause)) throw cause;
  static constexpr std::array<std::string_view, 6> names{
      "a statement of walferry's own", "moving the position", "insert into", "update of", "delete from", "truncate of"};
  const std::string_view doing = names[static_cast<std::size_t>(expected.operation)];
  if (expected.operation == Operation::Control || expected.operation == Operation::Advance) {
    const std::string text = fmt::format(
        "{}{} failed: {}", doing, expected.table == nullptr ? "" : " for " + expected.table->name.text(), cause.what());
    if (!expected.final_lsn) throw Error{{ErrorKind::Divergence, Side::Target, cause.sqlstate()}, text};
    throw Stop{Side::Target,
               {.what = StopPoint::What::Transaction,
                .lsn = expected.final_lsn,
                .commit_lsn = expected.final_lsn,
                .xid = expected.xid,
                .error = text},
               cause.sqlstate()};
  }
  throw Stop{
      Side::Target,
      {.what = StopPoint::What::Transaction,
       .lsn = expected.final_lsn,
       .commit_lsn = expected.final_lsn,
       .xid = expected.xid,
       .error = fmt::format(
           "{} {}{} of transaction {} (commit LSN {}) cannot be applied: {}. Nothing of this transaction was applied "
           "and nothing is lost. Remedy: make the target's row what the source's was before this change; walferry "
           "then goes on by itself. Only if the whole transaction may be left out: `walferry skip --lsn {} --reason "
           "...`",
           doing, expected.table->name.text(), key_text(expected), static_cast<std::uint32_t>(expected.xid),
           expected.final_lsn.to_string(), cause.what(), expected.final_lsn.to_string())},
      cause.sqlstate()};
}

// " (id)=(42)": the key of the change, decoded again from its message.
std::string Applier::key_text(const Expected& expected) const {
  if (expected.payload.empty()) return {};
  const pgoutput::Message message = pgoutput::decode(expected.payload, {.in_stream = expected.in_stream});
  pgoutput::TupleView tuple;
  if (const auto* insert = std::get_if<pgoutput::InsertView>(&message)) {
    tuple = insert->row;
  } else if (const auto* update = std::get_if<pgoutput::UpdateView>(&message)) {
    tuple = update->old ? update->old->tuple : update->row;
  } else if (const auto* remove = std::get_if<pgoutput::DeleteView>(&message)) {
    tuple = remove->old.tuple;
  } else {
    return {};
  }
  std::string names;
  std::string values;
  std::size_t index = 0;
  for (const pgoutput::FieldView field : tuple) {
    const MappedColumn& column = expected.table->columns[index++];
    if (!column.key) continue;
    if (!names.empty()) {
      names += ", ";
      values += ", ";
    }
    names += column.name;
    values += field.kind == pgoutput::FieldKind::Null ? std::string_view{"NULL"} : as_text(field.value).substr(0, 200);
  }
  return names.empty() ? std::string{} : fmt::format(" ({})=({})", names, values);
}

}  // namespace walferry::apply
