#include "engine/apply/change_writer.hpp"

#include <fmt/format.h>

#include <array>

#include "engine/apply/stop.hpp"

namespace walferry::apply {
namespace {

using std::chrono::seconds;
using Clock = std::chrono::steady_clock;

constexpr std::size_t gathered_from_max = 64;    // blocks or chunks
constexpr auto distrust_interval = seconds{60};  // a table whose net changes were refused is written row by row
constexpr int round_trip_samples = 3;

}  // namespace

StopPoint stop_at(const SourceTransaction& transaction, std::string error) {
  return {.what = StopPoint::What::Transaction,
          .lsn = transaction.final_lsn,
          .commit_lsn = transaction.final_lsn,
          .xid = transaction.xid,
          .error = std::move(error)};
}

bool is_change(Bytes payload) {
  return !payload.empty() &&
         std::string_view{"IUDT"}.find(static_cast<char>(payload.front())) != std::string_view::npos;
}

Awaitable<void> write_together(asio::any_io_executor executor, std::vector<ChangeWriter*> writers) {
  std::vector<Awaitable<void>> writes;
  for (ChangeWriter* writer : writers) writes.push_back(writer->write_gathered());
  co_await together(executor, std::move(writes));
}

Awaitable<void> settle_together(asio::any_io_executor executor, std::vector<ChangeWriter*> writers) {
  std::vector<Awaitable<void>> outcomes;
  for (ChangeWriter* writer : writers) outcomes.push_back(writer->settle());
  co_await together(executor, std::move(outcomes));
}

ChangeWriter::ChangeWriter(asio::thread_pool& pool, std::size_t gathered_bytes_max, ApplyCounters& counts)
    : pool_(pool), gathered_bytes_max_(gathered_bytes_max), counts_(counts) {}

Awaitable<void> ChangeWriter::attach(std::unique_ptr<pg::Connection> connection, TargetTables tables, Progress progress,
                                     bool replica_role) {
  connection_ = std::move(connection);
  replica_role_ = replica_role;
  tables_.set_target(std::move(tables));
  tables_.forget_prepared();
  connection_->enter_pipeline();
  pipeline_.attach(*connection_, !replica_role_);
  for (const auto& [name, sql] : {std::pair<std::string, std::string>{"begin", "BEGIN"},
                                  {"commit", "COMMIT"},
                                  {"limit", "SET LOCAL lock_timeout = '5s'"},
                                  {"advance", progress.advance_sql()}}) {
    pipeline_.prepare(name, sql);
  }
  co_await pipeline_.settle();
  // The best of some: one alone may have waited for a processor.
  round_trip_ = Clock::duration::max();
  for (int sample = 0; sample < round_trip_samples; ++sample) {
    const auto asked = Clock::now();
    co_await pipeline_.settle();
    round_trip_ = std::min(round_trip_, Clock::now() - asked);
  }
}

void ChangeWriter::detach() {
  pipeline_.detach();
  connection_.reset();
  begun_ = false;
  bytes_ = 0;
  tables_.forget_changes();
  gathered_.clear();
  gathered_from_.clear();
  gathered_bytes_ = 0;
  tables_.forget_replaced();
  owner_.reset();
}

void ChangeWriter::begin() {
  if (begun_) return;
  begun_ = true;
  begun_at_ = Clock::now();
  bytes_ = 0;
  pipeline_.send_control("begin");
  if (lock_waits_limited_) pipeline_.send_control("limit");
}

Awaitable<void> ChangeWriter::run(std::string sql) {
  pipeline_.send_sql(sql, {});
  co_await pipeline_.settle();
}

void ChangeWriter::touch_everything() {
  if (touched_) touched_->touch_everything();
}

Awaitable<void> ChangeWriter::complete() {
  co_await write_gathered();
  // A change that met no row is no error to the server: nothing is committed before all counts are known.
  if (pipeline_.counts_open()) co_await pipeline_.settle();
}

Awaitable<void> ChangeWriter::settle() {
  co_await write_gathered();
  co_await pipeline_.settle();
}

Awaitable<void> ChangeWriter::commit(Lsn end_lsn) {
  co_await complete();
  const std::string lsn = end_lsn.to_string();
  const std::array<const char*, 1> parameters{lsn.c_str()};
  pipeline_.send_control("advance", parameters, Operation::Advance);
  pipeline_.send_control("commit");
  co_await pipeline_.settle();
  tables_.forget_replaced();
  begun_ = false;
}

void ChangeWriter::distrust(const QualifiedName& name) {
  tables_.distrust(name, Clock::now() + distrust_interval);
}

MappedTable* ChangeWriter::table_of(const SourceTransaction& transaction, RelationId relation,
                                    const std::optional<Xid>& stream_xid) {
  if (!transaction.counts() || transaction.is_aborted(stream_xid)) return nullptr;
  MappedTable& table = tables_.find(relation);
  if (transaction.in_progress) {
    if (table.order != MappedTable::Order::Free) throw NeedsCommit{"the order of changes is of account there"};
    if (transaction.final_lsn < table.copy_lsn) throw NeedsCommit{"the copy may hold the transaction already"};
  }
  return transaction.final_lsn >= table.copy_lsn ? &table : nullptr;
}

// Whether changes to the table may be gathered, to be written as what they come to.
bool ChangeWriter::folds(const SourceTransaction& transaction, MappedTable& table) {
  if (!replica_role_ || transaction.one_by_one || table.order != MappedTable::Order::Free) return false;
  if (table.distrusted_until == Deadline{}) return true;
  if (Clock::now() < table.distrusted_until) return false;
  table.distrusted_until = {};
  return true;
}

// Whether something gathered must be written before a change to the table is.
bool ChangeWriter::goes_behind(const MappedTable& table) const {
  return !table.changes->empty() || (table.order == MappedTable::Order::Everywhere && !gathered_.empty());
}

ChangeWriter::Taken ChangeWriter::take(const SourceTransaction& transaction, const pgoutput::Message& message,
                                       Bytes payload) {
  MappedTable* table = nullptr;
  bool first = false;
  bool folded = false;
  if (const auto* insert = std::get_if<pgoutput::InsertView>(&message)) {
    table = table_of(transaction, insert->relation, insert->stream_xid);
    if (table == nullptr) return Taken::Yes;
    ++counts_.inserts;
    expect_described(*table, insert->row.column_count());
    if (touched_) touch(*table, insert->row);
    begin();
    first = table->changes->empty();
    folded = folds(transaction, *table) && table->changes->insert(insert->row);
  } else if (const auto* update = std::get_if<pgoutput::UpdateView>(&message)) {
    table = table_of(transaction, update->relation, update->stream_xid);
    if (table == nullptr) return Taken::Yes;
    ++counts_.updates;
    expect_described(*table, update->row.column_count());
    if (touched_) touch(*table, update->row);
    if (touched_ && update->old) touch(*table, update->old->tuple);
    begin();
    first = table->changes->empty();
    folded = folds(transaction, *table) && table->changes->update(*update);
  } else if (const auto* remove = std::get_if<pgoutput::DeleteView>(&message)) {
    table = table_of(transaction, remove->relation, remove->stream_xid);
    if (table == nullptr) return Taken::Yes;
    ++counts_.deletes;
    expect_described(*table, remove->old.tuple.column_count());
    if (touched_) touch(*table, remove->old.tuple);
    begin();
    first = table->changes->empty();
    folded = folds(transaction, *table) && table->changes->remove(remove->old.tuple);
  } else if (const auto* truncate = std::get_if<pgoutput::TruncateView>(&message)) {
    return take_truncate(transaction, *truncate, payload);
  } else {
    return Taken::No;
  }
  bytes_ += payload.size();
  if (folded) {
    keep(*table, first, payload);
  } else if (goes_behind(*table)) {
    return Taken::Behind;
  } else {
    write_row(transaction, *table, message, payload);
  }
  return Taken::Yes;
}

// Keeps the message of a change that was gathered. Nothing may fail between the gathering and this: a table with
// changes that is not listed here would never be written.
void ChangeWriter::keep(MappedTable& table, bool first, Bytes payload) {
  if (first) gathered_.push_back(&table);
  if (gathered_from_.empty() || gathered_from_.back() != owner_) gathered_from_.push_back(owner_);
  gathered_bytes_ += payload.size() + sizeof(NetChanges::Row);
}

Awaitable<void> ChangeWriter::write_behind(const SourceTransaction& transaction, const pgoutput::Message& message,
                                           Bytes payload) {
  if (const auto* truncate = std::get_if<pgoutput::TruncateView>(&message)) {
    co_await write_gathered();
    write_truncate(transaction, *truncate, payload);
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
  write_row(transaction, table, message, payload);
  if (pipeline_.full()) co_await pipeline_.throttle();
}

// For a proof under way: this row must be compared again.
void ChangeWriter::touch(const MappedTable& table, const pgoutput::TupleView& tuple) {
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

void ChangeWriter::write_row(const SourceTransaction& transaction, MappedTable& table, const pgoutput::Message& message,
                             Bytes payload) {
  ChangeOrigin from = origin(transaction, payload);
  if (const auto* insert = std::get_if<pgoutput::InsertView>(&message)) rows_.insert(table, *insert, std::move(from));
  if (const auto* update = std::get_if<pgoutput::UpdateView>(&message)) rows_.update(table, *update, std::move(from));
  if (const auto* remove = std::get_if<pgoutput::DeleteView>(&message)) rows_.remove(table, *remove, std::move(from));
}

ChangeWriter::Taken ChangeWriter::take_truncate(const SourceTransaction& transaction,
                                                const pgoutput::TruncateView& truncate, Bytes payload) {
  if (!transaction.counts() || transaction.is_aborted(truncate.stream_xid)) return Taken::Yes;
  ++counts_.truncates;
  if (!gathered_.empty()) return Taken::Behind;
  write_truncate(transaction, truncate, payload);
  return Taken::Yes;
}

void ChangeWriter::write_truncate(const SourceTransaction& transaction, const pgoutput::TruncateView& truncate,
                                  Bytes payload) {
  std::vector<const MappedTable*> tables;
  for (const RelationId relation : truncate.relations) {
    const MappedTable* table = table_of(transaction, relation, truncate.stream_xid);
    if (table == nullptr) continue;
    if (touched_) touched_->touch_whole(table->name);
    tables.push_back(table);
  }
  if (tables.empty()) return;
  begin();
  rows_.truncate(tables, truncate, origin(transaction, payload));
}

ChangeOrigin ChangeWriter::origin(const SourceTransaction& transaction, Bytes payload) const {
  return {.payload = payload,
          .owner = owner_,
          .in_stream = transaction.streamed,
          .xid = transaction.xid,
          .final_lsn = transaction.final_lsn};
}

Awaitable<void> ChangeWriter::write_gathered() {
  if (!gathered_.empty()) co_await sets_.write(gathered_);
  gathered_.clear();
  gathered_from_.clear();
  gathered_bytes_ = 0;
}

// Few changes can hold many messages that do not count.
bool ChangeWriter::must_write() const {
  return gathered_bytes_ >= gathered_bytes_max_ || gathered_from_.size() >= gathered_from_max;
}

bool ChangeWriter::needs_relief() const {
  return must_write() || pipeline_.full();
}

Awaitable<void> ChangeWriter::relieve() {
  if (must_write()) co_await write_gathered();
  if (pipeline_.full()) co_await pipeline_.throttle();
}

Awaitable<void> ChangeWriter::describe(const SourceTransaction& transaction, const pgoutput::RelationView& relation,
                                       Bytes message) {
  std::vector<std::byte> plain;
  if (relation.stream_xid) {
    // Compared without its xid, which differs in every transaction.
    plain.assign(message.begin(), message.begin() + 1);
    plain.insert(plain.end(), message.begin() + 5, message.end());
    message = plain;
  }
  if (tables_.knows(relation, message)) co_return;
  co_await write_gathered();  // by the description that it came with
  if (map(transaction, relation, message)) co_return;
  // The table or a column is new: another look at the target before anything is said.
  co_await pipeline_.settle();
  std::function<TargetTables(pg::Session&)> read = read_target_tables;
  TargetTables target = co_await connection_->lend<TargetTables>(pool_, std::move(read));
  const QualifiedName name{std::string{relation.schema}, std::string{relation.name}};
  const Table* table = target.catalog.find(name);
  std::string missing;
  for (const pgoutput::ColumnView& column : relation.columns) {
    if (table != nullptr && std::ranges::count(table->columns, column.name, &Column::name) > 0) continue;
    if (!missing.empty()) missing += ", ";
    missing += column.name;
  }
  if (table == nullptr || !missing.empty()) {
    throw Stop{
        Side::Target,
        stop_at(transaction,
                fmt::format("{} was changed on the source before transaction {} (commit LSN {}): the target has "
                            "no {}. Nothing of this transaction was applied. Remedy: make the same change on "
                            "the target; walferry then goes on by itself",
                            name.text(), static_cast<std::uint32_t>(transaction.xid), transaction.final_lsn.to_string(),
                            table == nullptr ? "such table" : "column " + missing))};
  }
  tables_.set_target(std::move(target));
  if (!map(transaction, relation, message)) {
    throw Stop{Side::Target,
               stop_at(transaction, fmt::format("{} cannot be matched with a table of the target", name.text()))};
  }
}

bool ChangeWriter::map(const SourceTransaction& transaction, const pgoutput::RelationView& relation, Bytes message) {
  try {
    return tables_.describe(relation, message);
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::Divergence) throw;
    throw Stop{error.side(), stop_at(transaction, error.what())};
  }
}

}  // namespace walferry::apply
