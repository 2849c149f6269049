#include "engine/apply/applier.hpp"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>

#include "engine/apply/attachment.hpp"
#include "engine/ddl/trigger.hpp"

namespace walferry::apply {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using Clock = std::chrono::steady_clock;

// Bounds of a group while there is a backlog.
constexpr std::size_t group_transactions_max = 10'000;
constexpr std::size_t group_bytes_max = std::size_t{8} << 20U;
constexpr auto group_age_max = milliseconds{50};
// Of what is gathered before it is written: a large transaction goes in piece by piece.
constexpr std::size_t gathered_bytes_max = std::size_t{8} << 20U;

constexpr auto durable_interval = seconds{1};
constexpr auto repair_interval = seconds{5};     // between attempts while a divergence waits for a person
constexpr auto distrust_interval = seconds{60};  // a table whose net changes were refused is written row by row

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
    } catch (const NetChangesRefused& refused) {
      refuse_net_changes(refused);
    }
    let_go();
    // Stopped, arrived, the source's connection broke a transaction off, or net changes were refused.
    if (!failure) continue;
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

// What the net changes came from is applied once more, one by one: if that fails too, it says at which change.
void Applier::refuse_net_changes(const NetChangesRefused& refused) {
  spdlog::info("changes to {} are applied one by one: together they were refused: {}", refused.table().text(),
               refused.what());
  one_by_one_until_ = std::max(one_by_one_until_, group_.end_lsn);
  if (transaction_) one_by_one_until_ = std::max(one_by_one_until_, Lsn{transaction_->final_lsn.value + 1});
  for (MappedTable* table : gathered_) {
    if (table->name == refused.table()) table->distrusted_until = Clock::now() + distrust_interval;
  }
}

// Everything of the connection and of what was on its way.
void Applier::let_go() {
  pipeline_.detach();
  connection_.reset();
  transaction_.reset();
  group_ = {};
  for (MappedTable* table : gathered_) table->changes->clear();
  gathered_.clear();
  gathered_from_.clear();
  gathered_bytes_ = 0;
  deferred_.clear();
  tables_.forget_replaced();
  block_.reset();
  chunk_.reset();
  position_.apply_idle = false;
  status_.target_connected = false;
}

Awaitable<void> Applier::connect() {
  const auto options = std::make_shared<const AttachmentOptions>(
      AttachmentOptions{options_.target, options_.migration, options_.client_encoding, options_.system_identifier});
  std::function<Attachment()> open = [options] { return attach(*options); };
  Attachment attached = co_await run_blocking<Attachment>(pool_, std::move(open));
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
  replica_role_ = attached.replica_role;
  tables_.set_target(std::move(attached.tables));
  tables_.forget_prepared();
  connection_ = std::make_unique<pg::Connection>(executor_, std::move(attached.session));
  connection_->enter_pipeline();
  pipeline_.attach(*connection_, !replica_role_);
  for (const auto& [name, sql] : {std::pair<std::string, std::string>{"begin", "BEGIN"},
                                  {"commit", "COMMIT"},
                                  {"advance", progress_.advance_sql()},
                                  {"durable", progress_.durable_sql()}}) {
    pipeline_.prepare(name, sql);
  }
  co_await pipeline_.settle();
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
      if (group_.open && (stopping_ || !backlog() || group_is_full())) co_await commit_group();
      if (stopping_ || reached_until()) co_return;
    } else if (stopping_) {
      co_return;  // inside a large transaction: the server rolls back, the next run applies it whole
    }
    if (Clock::now() >= next_durable_check_ && at_boundary()) {
      if (group_.open) co_await commit_group();
      co_await check_durable();
    }
    block_ = spool_.next();
    if (!block_ && at_boundary() && group_.open) {
      co_await wake_.wait_until(group_.begun_at + group_age_max);  // the source is behind: there is more to come
      continue;
    }
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
    co_await asio::post(executor_, asio::use_awaitable);  // the others' turn: gathering waits for nothing
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
    const Taken taken = take(message, payload);
    if (taken == Taken::Yes) {
      if (gathered_bytes_ >= gathered_bytes_max || pipeline_.full()) co_await relieve();
      continue;
    }
    if (taken == Taken::Behind) {
      co_await apply_behind(message, payload);
      continue;
    }
    const auto* begin = std::get_if<pgoutput::Begin>(&message);
    if (begin != nullptr && is_behind_until(begin->final_lsn)) {
      if (group_.open) co_await commit_group();
      until_passed_ = true;
      co_return;
    }
    if (begin != nullptr && group_.open && (payload.data() >= last_commit_end || begin->final_lsn == isolated_)) {
      // A transaction whose end is not here yet, or that cannot be applied, must not hold back those before it.
      co_await commit_group();
    }
    co_await apply_control(message, payload);
    if (!at_boundary() || !group_.open) continue;
    // After a schema change at once: a new enum value can be used only by the transactions that follow.
    if ((rest.data() >= last_commit_end && !backlog()) || group_is_full() || group_.ddl) co_await commit_group();
  }
}

bool Applier::group_is_full() const {
  return group_.transactions >= group_transactions_max || group_.bytes >= group_bytes_max ||
         Clock::now() - group_.begun_at >= group_age_max;
}

// A transaction that was streamed while in progress stands in the spool as chunks, and becomes a group of its own.
Awaitable<void> Applier::apply_streamed() {
  rewound_ = false;
  if (group_.open) co_await commit_group();
  const store::StreamedCommit& commit = block_->streamed;
  if (is_behind_until(commit.commit_lsn)) {
    until_passed_ = true;
    co_return;
  }
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
      const Taken taken = take(message, payload);
      if (taken == Taken::No) co_await apply_control(message, payload);
      if (taken == Taken::Behind) co_await apply_behind(message, payload);
      if (gathered_bytes_ >= gathered_bytes_max || pipeline_.full()) co_await relieve();
    }
    if (stopping_) co_return;  // in the middle: rolled back with the connection, applied whole by the next run
  }
  chunk_.reset();
  co_await end_transaction(commit.end_lsn, commit.commit_time);
  if (group_.open) co_await commit_group();
}

bool Applier::counts(const std::optional<Xid>& stream_xid) const {
  if (!transaction_) throw ProtocolError{"a change outside a transaction"};
  if (!transaction_->counts()) return false;
  return !stream_xid || !std::ranges::binary_search(*transaction_->aborted, *stream_xid);
}

MappedTable* Applier::table_of(RelationId relation, const std::optional<Xid>& stream_xid) {
  if (!counts(stream_xid)) return nullptr;
  MappedTable& table = tables_.find(relation);
  return wanted(table) ? &table : nullptr;
}

// Whether changes to the table may be gathered, to be written as what they come to.
bool Applier::folds(MappedTable& table) {
  if (!replica_role_ || transaction_->one_by_one || table.order != MappedTable::Order::Free) return false;
  if (table.distrusted_until == Deadline{}) return true;
  if (Clock::now() < table.distrusted_until) return false;
  table.distrusted_until = {};
  return true;
}

// Whether something gathered must be written before a change to the table is.
bool Applier::goes_behind(const MappedTable& table) const {
  return !table.changes->empty() || (table.order == MappedTable::Order::Everywhere && !gathered_.empty());
}

// Insert, Update, Delete and Truncate.
Applier::Taken Applier::take(const pgoutput::Message& message, Bytes payload) {
  MappedTable* table = nullptr;
  bool first = false;
  bool folded = false;
  if (const auto* insert = std::get_if<pgoutput::InsertView>(&message)) {
    table = table_of(insert->relation, insert->stream_xid);
    if (table == nullptr) return Taken::Yes;
    ++status_.apply.inserts;
    expect_described(*table, insert->row.column_count());
    if (touched_) touch(*table, insert->row);
    first = table->changes->empty();
    folded = folds(*table) && table->changes->insert(insert->row);
  } else if (const auto* update = std::get_if<pgoutput::UpdateView>(&message)) {
    table = table_of(update->relation, update->stream_xid);
    if (table == nullptr) return Taken::Yes;
    ++status_.apply.updates;
    expect_described(*table, update->row.column_count());
    if (touched_) touch(*table, update->row);
    if (touched_ && update->old) touch(*table, update->old->tuple);
    first = table->changes->empty();
    folded = folds(*table) && table->changes->update(*update);
  } else if (const auto* remove = std::get_if<pgoutput::DeleteView>(&message)) {
    table = table_of(remove->relation, remove->stream_xid);
    if (table == nullptr) return Taken::Yes;
    ++status_.apply.deletes;
    expect_described(*table, remove->old.tuple.column_count());
    if (touched_) touch(*table, remove->old.tuple);
    first = table->changes->empty();
    folded = folds(*table) && table->changes->remove(remove->old.tuple);
  } else if (const auto* truncate = std::get_if<pgoutput::TruncateView>(&message)) {
    return take_truncate(*truncate, payload);
  } else {
    return Taken::No;
  }
  open_group();
  group_.bytes += payload.size();
  if (folded) {
    keep(*table, first, payload);
  } else if (goes_behind(*table)) {
    return Taken::Behind;
  } else {
    write_row(*table, message, payload);
  }
  return Taken::Yes;
}

// Keeps the message of a change that was gathered.
void Applier::keep(MappedTable& table, bool first, Bytes payload) {
  if (first) gathered_.push_back(&table);
  const void* const owner = chunk_ ? static_cast<const void*>(chunk_.get()) : block_.get();
  if (gathered_from_.empty() || gathered_from_.back().get() != owner) gathered_from_.push_back(origin(payload).owner);
  gathered_bytes_ += payload.size();
}

// A change that must not overtake what was gathered.
Awaitable<void> Applier::apply_behind(const pgoutput::Message& message, Bytes payload) {
  if (const auto* truncate = std::get_if<pgoutput::TruncateView>(&message)) {
    co_await write_gathered();
    write_truncate(*truncate, payload);
    co_return;
  }
  RelationId relation{};
  if (const auto* insert = std::get_if<pgoutput::InsertView>(&message)) relation = insert->relation;
  if (const auto* update = std::get_if<pgoutput::UpdateView>(&message)) relation = update->relation;
  if (const auto* remove = std::get_if<pgoutput::DeleteView>(&message)) relation = remove->relation;
  MappedTable& table = tables_.find(relation);
  if (table.order == MappedTable::Order::Everywhere) {
    co_await write_gathered();
  } else {
    std::vector<MappedTable*> one{&table};
    co_await sets_.write(std::move(one));
    std::erase(gathered_, &table);
  }
  write_row(table, message, payload);
  if (pipeline_.full()) co_await pipeline_.throttle();
}

// For a proof under way: this row must be compared again.
void Applier::touch(const MappedTable& table, const pgoutput::TupleView& tuple) {
  if (table.full_identity) {
    touched_->touch_whole(table.name);
    return;
  }
  std::vector<std::string_view> columns;
  std::vector<std::string_view> values;
  auto column = table.columns.begin();
  for (const pgoutput::FieldView field : tuple) {
    if (column->key && field.kind != pgoutput::FieldKind::Text) {
      touched_->touch_whole(table.name);
      return;
    }
    if (column->key) {
      columns.push_back(column->name);
      values.push_back(as_text(field.value));
    }
    ++column;
  }
  touched_->touch(table.name, columns, values);
}

void Applier::write_row(MappedTable& table, const pgoutput::Message& message, Bytes payload) {
  if (const auto* insert = std::get_if<pgoutput::InsertView>(&message)) rows_.insert(table, *insert, origin(payload));
  if (const auto* update = std::get_if<pgoutput::UpdateView>(&message)) rows_.update(table, *update, origin(payload));
  if (const auto* remove = std::get_if<pgoutput::DeleteView>(&message)) rows_.remove(table, *remove, origin(payload));
}

Applier::Taken Applier::take_truncate(const pgoutput::TruncateView& truncate, Bytes payload) {
  if (!counts(truncate.stream_xid)) return Taken::Yes;
  ++status_.apply.truncates;
  if (!gathered_.empty()) return Taken::Behind;
  write_truncate(truncate, payload);
  return Taken::Yes;
}

void Applier::write_truncate(const pgoutput::TruncateView& truncate, Bytes payload) {
  std::vector<const MappedTable*> tables;
  for (const RelationId relation : truncate.relations) {
    const MappedTable& table = tables_.find(relation);
    if (!wanted(table)) continue;
    if (touched_) touched_->touch_whole(table.name);
    tables.push_back(&table);
  }
  if (tables.empty()) return;
  open_group();
  rows_.truncate(tables, truncate.restart_identity, origin(payload));
}

ChangeOrigin Applier::origin(Bytes payload) const {
  return {.payload = payload,
          .owner = chunk_ ? std::shared_ptr<const void>{chunk_} : std::shared_ptr<const void>{block_},
          .in_stream = transaction_->streamed,
          .xid = transaction_->xid,
          .final_lsn = transaction_->final_lsn};
}

// Writes what was gathered, inside the open group.
Awaitable<void> Applier::write_gathered() {
  if (gathered_.empty()) co_return;
  co_await sets_.write(gathered_);
  gathered_.clear();
  gathered_from_.clear();
  gathered_bytes_ = 0;
}

// Enough is at hand: hands it on, so that memory stays bounded whatever the size of a transaction.
Awaitable<void> Applier::relieve() {
  if (gathered_bytes_ >= gathered_bytes_max) co_await write_gathered();
  if (pipeline_.full()) co_await pipeline_.throttle();
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
                                   .left_out = !skipped && skips_.contains(StopPoint::What::Transaction, final_lsn),
                                   .one_by_one = final_lsn < one_by_one_until_};
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
  pipeline_.send_control("begin");
}

Awaitable<void> Applier::commit_group() {
  co_await write_gathered();
  // A change that met no row is no error to the server: nothing is committed before all counts are known.
  if (pipeline_.counts_open()) co_await pipeline_.settle();
  const std::string lsn = group_.end_lsn.to_string();
  const std::string time = std::to_string(group_.commit_time.microseconds);
  const std::array<const char*, 2> parameters{lsn.c_str(), time.c_str()};
  pipeline_.send_control("advance", parameters, Operation::Advance);
  pipeline_.send_control("commit");
  co_await pipeline_.settle();
  tables_.forget_replaced();

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
  const std::string answer = co_await pipeline_.ask("durable");
  const Lsn durable = Lsn::parse(answer).value_or(Lsn{});
  position_.target_durable = std::max(position_.target_durable, durable);
  spool_.release(position_.target_durable);
  if (on_durable_) on_durable_();
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
  if (tables_.knows(relation, message)) co_return;
  co_await write_gathered();  // by the description that it came with
  if (map(relation, message)) co_return;
  // The table or a column is new: another look at the target before anything is said.
  const auto options = std::make_shared<const ApplierOptions>(options_);
  std::function<TargetTables()> read = [options] {
    pg::Session session = pg::Session::open(options->target, {.client_encoding = options->client_encoding});
    return read_target_tables(session);
  };
  TargetTables target = co_await run_blocking<TargetTables>(pool_, std::move(read));
  const QualifiedName name{std::string{relation.schema}, std::string{relation.name}};
  const Table* table = target.catalog.find(name);
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
  tables_.set_target(std::move(target));
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

}  // namespace walferry::apply
