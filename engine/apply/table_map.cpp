#include "engine/apply/table_map.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>

namespace walferry::apply {
namespace {

using pg::quote_literal;
using pg::quote_name;

constexpr Lsn never{~std::uint64_t{0}};  // a copy LSN that no transaction commits after

// The condition that finds one row by the columns `old_columns`, whose parameters begin at `first_parameter`.
std::string row_condition(const MappedTable& table, const std::vector<std::uint16_t>& old_columns,
                          std::size_t first_parameter) {
  std::string condition;
  for (std::size_t i = 0; i < old_columns.size(); ++i) {
    const MappedColumn& column = table.columns[old_columns[i]];
    if (!condition.empty()) condition += " AND ";
    const std::size_t parameter = first_parameter + i;
    if (!table.full_identity) {
      condition += fmt::format("{} {} ${}", quote_name(column.name), column.equality, parameter);
    } else if (column.comparable) {
      condition += fmt::format("{} IS NOT DISTINCT FROM ${}", quote_name(column.name), parameter);
    } else {
      condition += fmt::format("{}::pg_catalog.text IS NOT DISTINCT FROM ${}::pg_catalog.text", quote_name(column.name),
                               parameter);
    }
  }
  if (!table.full_identity) return condition;
  // Identity FULL: of several equal rows exactly one is meant.
  if (condition.empty()) condition = "true";
  // A ctid names a row of one heap; among partitions it takes the tableoid as well.
  if (table.partitioned) {
    return fmt::format("(tableoid, ctid) = (SELECT tableoid, ctid FROM {} WHERE {} LIMIT 1)", table.reference(),
                       condition);
  }
  return fmt::format("ctid = (SELECT ctid FROM {} WHERE {} LIMIT 1)", table.reference(), condition);
}

// The value of parameter `number` for one row of a set.
std::string from_set(const MappedColumn& column, std::size_t number) {
  return column.element == BinaryType::Text ? fmt::format("v.c{}::{}", number, column.type)
                                            : fmt::format("v.c{}", number);
}

// The parameters of a set, side by side: "(SELECT pg_catalog.unnest($1::pg_catalog.int8[]), ...) AS v(c1, ...)". So
// written no row waits in a tuplestore, as with FROM unnest(...).
std::string set_of(const MappedTable& table, const Statement& statement) {
  std::string arrays;
  std::string names;
  std::size_t number = 0;
  for (const auto* columns : {&statement.new_columns, &statement.old_columns}) {
    for (const std::uint16_t i : *columns) {
      if (++number > 1) {
        arrays += ", ";
        names += ", ";
      }
      arrays += fmt::format("pg_catalog.unnest(${}::pg_catalog.{}[])", number, name_of(table.columns[i].element));
      names += fmt::format("c{}", number);
    }
  }
  return fmt::format("(SELECT {}) AS v({})", arrays, names);
}

// The condition that joins a set with the table by its key, whose parameters come last.
std::string set_condition(const MappedTable& table, const Statement& statement) {
  std::string condition;
  std::size_t number = statement.new_columns.size();
  for (const std::uint16_t i : statement.old_columns) {
    const MappedColumn& column = table.columns[i];
    if (!condition.empty()) condition += " AND ";
    condition += fmt::format("t.{} {} {}", quote_name(column.name), column.equality, from_set(column, ++number));
  }
  return condition;
}

// The integers of both ends have the same text; of other types it must be the very one, or its text is another.
BinaryType element_of(Oid source, Oid target) {
  const BinaryType element = binary_type_of(static_cast<std::uint32_t>(target));
  const bool integer = element == BinaryType::Int2 || element == BinaryType::Int4 || element == BinaryType::Int8;
  return integer || source == target ? element : BinaryType::Text;
}

// Whose binary form is its text.
bool is_text(Oid type) {
  constexpr std::array<Oid, 4> types{Oid{25}, Oid{114}, Oid{1042}, Oid{1043}};  // text, json, bpchar, varchar
  return std::ranges::count(types, type) > 0;
}

std::vector<std::uint16_t> identifying_columns(const MappedTable& table) {
  std::vector<std::uint16_t> columns;
  for (std::uint16_t i = 0; i < table.columns.size(); ++i) {
    if (table.full_identity || table.columns[i].key) columns.push_back(i);
  }
  return columns;
}

// A type that changed while the stream runs must be the same on the target: another could take the new values and round
// or cut them. Only built-in types have the same number on both ends.
void refuse_changed_type(const store::SourceTypes& before, const pgoutput::RelationView& relation,
                         const pgoutput::ColumnView& column, const Column& target) {
  constexpr Oid first_user_type{16'384};
  const auto described = before.tables.find(relation.id);
  if (described == before.tables.end()) return;
  const auto old = described->second.find(column.name);
  if (old == described->second.end()) return;
  if (old->second == store::ColumnType{.type = column.type, .modifier = column.type_modifier}) return;
  if (column.type >= first_user_type && target.type >= first_user_type) return;
  if (column.type == target.type && column.type_modifier == target.type_modifier) return;
  throw Error{
      {ErrorKind::Divergence, Side::Target},
      fmt::format("column {} of {} has another type on the source since this transaction and is still {} on the "
                  "target. Remedy: make the same change on the target; walferry then goes on by itself",
                  column.name, fmt::format("{}.{}", relation.schema, relation.name), target.type_name)};
}

// The statement made to divide by zero unless it meets one row: an error ends the pipeline before the commit.
Statement guarded(const Statement& plain, std::string name) {
  const bool reads = plain.sql.starts_with("SELECT");
  Statement statement;
  statement.name = std::move(name);
  statement.sql = fmt::format("WITH met AS ({}{}) SELECT 1 / (pg_catalog.count(*) = 1)::pg_catalog.int4 FROM met",
                              plain.sql, reads ? "" : " RETURNING 1");
  statement.new_columns = plain.new_columns;
  statement.old_columns = plain.old_columns;
  return statement;
}

bool has_types_of(const MappedTable& table, const Table& target) {
  return std::ranges::all_of(table.columns, [&](const MappedColumn& column) {
    const auto same = std::ranges::find(target.columns, column.name, &Column::name);
    return same != target.columns.end() && same->type == column.target_type;
  });
}

}  // namespace

bool TableMap::knows(const pgoutput::RelationView& relation, Bytes message) const {
  const auto known = tables_.find(static_cast<std::uint32_t>(relation.id));
  return known != tables_.end() && known->second.table && std::ranges::equal(known->second.message, message);
}

bool TableMap::describe(const pgoutput::RelationView& relation, Bytes message) {
  if (knows(relation, message)) return true;
  const QualifiedName name{relation.schema.empty() ? "pg_catalog" : std::string{relation.schema},
                           std::string{relation.name}};
  // An ordinary table of the source with the name of an extension's does count.
  const bool left_out = target_.leaves_out(name) && !is_copied(relation.id, name);
  const Table nothing{};
  const Table* target = left_out ? &nothing : target_.catalog.find(name);
  if (target == nullptr) return false;
  auto table = std::make_unique<MappedTable>();
  table->name = name;
  table->target = target->oid;
  table->partitioned = target->kind == 'p';
  table->copy_lsn = copy_lsn_of(relation.id, name);
  if (left_out || ignored_.contains(relation.id)) table->copy_lsn = never;
  for (const pgoutput::ColumnView& column : relation.columns) {
    if (left_out) break;
    const auto same = std::ranges::find(target->columns, column.name, &Column::name);
    if (same == target->columns.end()) return false;
    if (same->generated) {
      throw Error{
          {ErrorKind::Divergence, Side::Target},
          fmt::format(
              "column {} of {} is generated on the target but an ordinary column on the source. Remedy: make the "
              "target's column ordinary",
              column.name, name.text())};
    }
    refuse_changed_type(types_->types, relation, column, *same);
    table->columns.push_back({.name = std::string{column.name},
                              .key = column.key,
                              .comparable = same->comparable,
                              .source_type = column.type,
                              .source_modifier = column.type_modifier});
  }
  if (homes_ && !left_out && !ignored_.contains(relation.id)) homes_->settle(relation.id, *target, target_.catalog);
  table->whole_old_rows = relation.identity == pgoutput::ReplicaIdentity::Full;
  if (table->whole_old_rows) {
    // The whole old row comes along. Where the target has a key it serves, found by index; else all columns do.
    const auto in_key = [&](const MappedColumn& column) {
      return std::ranges::count(target->identity_columns, column.name) > 0;
    };
    const auto keys = static_cast<std::size_t>(std::ranges::count_if(table->columns, in_key));
    table->full_identity = target->identity_columns.empty() || keys != target->identity_columns.size();
    for (MappedColumn& column : table->columns) column.key = !table->full_identity && in_key(column);
  }
  match_types(*table, *target);
  judge(*table, *target);
  build_statements(*table);
  Known& known = tables_[static_cast<std::uint32_t>(relation.id)];
  known.message.assign(message.begin(), message.end());
  if (known.table) {
    table->distrusted_until = known.table->distrusted_until;
    replaced_.push_back(std::move(known.table));
  }
  known.table = std::move(table);
  note_types(relation);
  return true;
}

bool TableMap::is_copied(RelationId relation, const QualifiedName& name) const {
  return copied_relations_.empty() ? copied_.contains(name) : copied_relations_.contains(relation);
}

Lsn TableMap::copy_lsn_of(RelationId relation, const QualifiedName& name) const {
  if (!copied_relations_.empty()) {
    const auto found = copied_relations_.find(relation);
    return found == copied_relations_.end() ? Lsn{} : found->second;
  }
  const auto found = copied_.find(name);
  return found == copied_.end() ? Lsn{} : found->second;
}

void TableMap::note_types(const pgoutput::RelationView& relation) {
  store::ColumnTypes now;
  for (const pgoutput::ColumnView& column : relation.columns)
    now.insert_or_assign(std::string{column.name},
                         store::ColumnType{.type = column.type, .modifier = column.type_modifier});
  const auto [known, added] = types_->types.tables.try_emplace(relation.id, now);
  if (added || known->second == now) return;
  // The stream leaves out columns that are generated.
  const bool changed = !std::ranges::includes(known->second, now);
  known->second = std::move(now);
  if (changed && types_->record) types_->record(relation.id, known->second);
}

MappedTable& TableMap::find(RelationId relation) {
  const auto found = tables_.find(static_cast<std::uint32_t>(relation));
  if (found == tables_.end() || !found->second.table) {
    throw Error{
        {ErrorKind::Protocol, Side::Source},
        fmt::format("a change names relation {}, which was not described", static_cast<std::uint32_t>(relation))};
  }
  return *found->second.table;
}

void TableMap::ignore(RelationId relation) {
  ignored_.insert(relation);
  const auto known = tables_.find(static_cast<std::uint32_t>(relation));
  if (known != tables_.end() && known->second.table) known->second.table->copy_lsn = never;
}

void TableMap::distrust(const QualifiedName& name, std::chrono::steady_clock::time_point until) {
  for (auto& [id, known] : tables_) {
    if (known.table && known.table->name == name) known.table->distrusted_until = until;
  }
}

void TableMap::forget_changes() {
  for (auto& [id, known] : tables_) {
    if (known.table) known.table->changes->clear();
  }
}

void TableMap::forget_prepared() {
  for (auto& [id, known] : tables_) {
    if (!known.table) continue;
    known.table->insert.prepared = false;
    known.table->copied_types.prepared = false;
    known.table->remove.prepared = false;
    known.table->guarded_remove.prepared = false;
    known.table->set_remove.prepared = false;
    for (auto* updates : {&known.table->updates, &known.table->guarded_updates, &known.table->set_updates}) {
      for (auto& [shape, statement] : *updates) statement.prepared = false;
    }
  }
}

std::string TableMap::next_name(std::string_view prefix) {
  return fmt::format("{}{}", prefix, next_statement_++);
}

void TableMap::set_target(TargetTables target) {
  target_ = std::move(target);
  for (auto& [id, known] : tables_) {
    if (!known.table) continue;
    const Table* table = target_.catalog.find(known.table->name);
    if (table == nullptr) continue;
    known.table->target = table->oid;
    if (homes_ && homes_->differs(RelationId{id}, table->oid)) known.message.clear();  // to be described anew
    judge(*known.table, *table);
    if (known.table->copy_binary && !has_types_of(*known.table, *table)) {
      known.table->copy_binary = false;
      build_copy(*known.table);
    }
  }
}

bool TableMap::truncates(std::span<const MappedTable* const> tables, std::span<const RelationId> listed) const {
  const auto is_among = [&](Oid table) {
    return std::ranges::any_of(tables, [&](const MappedTable* each) { return each->target == table; });
  };
  bool in_the_way = false;
  const auto does_not_count = [&](Oid table) {
    return std::ranges::any_of(listed, [&](RelationId relation) {
      const auto known = tables_.find(static_cast<std::uint32_t>(relation));
      return known != tables_.end() && known->second.table && known->second.table->target == table;
    });
  };
  for (const MappedTable* table : tables) {
    const auto traits = target_.tables.find(table->target);
    if (traits == target_.tables.end()) continue;
    for (const Referrer& referrer : traits->second.referrers) {
      if (is_among(referrer.table) || is_among(referrer.root)) continue;
      if (referrer.keeps_rows && !does_not_count(referrer.table)) return true;  // the server says so
      in_the_way = true;
    }
  }
  return !in_the_way;
}

void TableMap::judge(MappedTable& table, const Table& target) const {
  table.order = MappedTable::Order::Free;
  table.splits = false;
  const auto traits = target_.tables.find(target.oid);
  if (traits == target_.tables.end()) return;
  if (traits->second.in_order) table.order = MappedTable::Order::InTable;
  if (traits->second.fires) table.order = MappedTable::Order::Everywhere;
  std::set<std::string> key;
  for (const MappedColumn& column : table.columns) {
    if (column.key) key.insert(column.name);
  }
  table.splits = table.order == MappedTable::Order::Free && !table.whole_old_rows && !table.partitioned &&
                 table.set_key && !key.empty() && traits->second.only_key == key;
}

void TableMap::match_types(MappedTable& table, const Table& target) const {
  const auto traits = target_.tables.find(target.oid);
  std::vector<std::uint16_t> key;
  table.set_key = true;
  table.copy_binary = true;
  for (std::uint16_t i = 0; i < table.columns.size(); ++i) {
    MappedColumn& column = table.columns[i];
    const auto same = std::ranges::find(target.columns, column.name, &Column::name);
    if (const auto type = target_.types.find(same->type); type != target_.types.end()) {
      if (type->second.reads_text) column.type = type->second.name;
      column.equality = type->second.equality;
      column.has_array = type->second.has_array;
    }
    column.target_type = same->type;
    column.element = element_of(column.source_type, same->type);
    table.copy_binary = table.copy_binary && (column.element != BinaryType::Text || is_text(same->type));
    if (traits != target_.tables.end()) {
      const auto equality = traits->second.equality.find(column.name);
      if (equality != traits->second.equality.end()) column.equality = equality->second;
    }
    if (!column.key || table.full_identity) continue;
    key.push_back(i);
    table.set_key = table.set_key && !column.type.empty();
  }
  const auto ordinary = std::ranges::count_if(target.columns, [](const Column& column) { return !column.generated; });
  table.changes.emplace(std::move(key), static_cast<std::size_t>(ordinary) == table.columns.size());
}

// The target's types can change while nobody tells us, and what is made for one can be read as another: COPY takes a
// lock that keeps them as they are until the commit, and behind it they are compared.
void TableMap::build_copy(MappedTable& table) {
  std::string columns;
  std::string types;
  for (const MappedColumn& column : table.columns) {
    const std::string_view comma = columns.empty() ? "" : ", ";
    columns += fmt::format("{}{}", comma, quote_name(column.name));
    types += fmt::format("{}({}::pg_catalog.name, {}::pg_catalog.oid)", comma, quote_literal(column.name),
                         static_cast<std::uint32_t>(column.target_type));
  }
  table.copy_sql = fmt::format("COPY {} ({}) FROM STDIN{}", table.name.quoted(), columns,
                               table.copy_binary ? " WITH (FORMAT binary)" : "");
  if (!table.copy_binary) return;
  table.copied_types.name = next_name("t");
  table.copied_types.sql = fmt::format(
      "SELECT 1 / (pg_catalog.count(*) = {})::pg_catalog.int4 FROM pg_catalog.pg_attribute WHERE attrelid = "
      "pg_catalog.to_regclass({}) AND (attname, atttypid) IN ({})",
      table.columns.size(), quote_literal(table.name.quoted()), types);
}

void TableMap::build_statements(MappedTable& table) {
  std::string columns;
  std::string values;
  for (std::uint16_t i = 0; i < table.columns.size(); ++i) {
    if (i > 0) {
      columns += ", ";
      values += ", ";
    }
    columns += quote_name(table.columns[i].name);
    values += fmt::format("${}", i + 1);
    table.insert.new_columns.push_back(i);
  }
  table.insert.name = next_name("i");
  // OVERRIDING SYSTEM VALUE: identity columns GENERATED ALWAYS take the source's value.
  table.insert.sql = columns.empty() ? fmt::format("INSERT INTO {} DEFAULT VALUES", table.name.quoted())
                                     : fmt::format("INSERT INTO {} ({}) OVERRIDING SYSTEM VALUE VALUES ({})",
                                                   table.name.quoted(), columns, values);
  build_copy(table);
  table.remove.name = next_name("d");
  table.remove.old_columns = identifying_columns(table);
  table.remove.sql =
      fmt::format("DELETE FROM {} WHERE {}", table.reference(), row_condition(table, table.remove.old_columns, 1));
}

std::string shape_of(const RowView& row) {
  std::string shape;
  shape.reserve(row.column_count() + 1U);
  row.for_each([&](std::uint16_t, const pgoutput::FieldView& field) {
    shape += field.kind == pgoutput::FieldKind::UnchangedToast ? '0' : '1';
  });
  return shape;
}

Statement& TableMap::update_statement(MappedTable& table, const pgoutput::UpdateView& update) {
  std::string shape = shape_of(update.row);
  if (shape.size() != table.columns.size()) {
    throw Error{{ErrorKind::Protocol, Side::Source},
                fmt::format("an update of {} does not fit its description", table.name.text())};
  }
  if (update.old) shape += 'o';
  return update_statement(table, shape);
}

Statement& TableMap::update_statement(MappedTable& table, const std::string& shape) {
  const auto found = table.updates.find(shape);
  if (found != table.updates.end()) return found->second;
  const bool with_old = shape.size() > table.columns.size();

  Statement statement;
  statement.name = next_name("u");
  std::string assignments;
  for (std::uint16_t i = 0; i < table.columns.size(); ++i) {
    if (shape[i] == '0') continue;                    // unchanged TOAST keeps the target's value
    if (table.columns[i].key && !with_old) continue;  // the key did not change; naming it would cost index work
    statement.new_columns.push_back(i);
    if (!assignments.empty()) assignments += ", ";
    assignments += fmt::format("{} = ${}", quote_name(table.columns[i].name), statement.new_columns.size());
  }
  statement.old_columns = identifying_columns(table);
  const std::string condition = row_condition(table, statement.old_columns, statement.new_columns.size() + 1);
  // An update that changes nothing but proves that the row is there.
  statement.sql = assignments.empty()
                      ? fmt::format("SELECT 1 FROM {} WHERE {}", table.reference(), condition)
                      : fmt::format("UPDATE {} SET {} WHERE {}", table.reference(), assignments, condition);
  return table.updates.emplace(shape, std::move(statement)).first->second;
}

Statement& TableMap::guarded_update_statement(MappedTable& table, const std::string& shape) {
  const auto found = table.guarded_updates.find(shape);
  if (found != table.guarded_updates.end()) return found->second;
  return table.guarded_updates.emplace(shape, guarded(update_statement(table, shape), next_name("v"))).first->second;
}

Statement& TableMap::guarded_remove_statement(MappedTable& table) {
  if (table.guarded_remove.sql.empty()) table.guarded_remove = guarded(table.remove, next_name("e"));
  return table.guarded_remove;
}

Statement* TableMap::set_update_statement(MappedTable& table, const std::string& shape) {
  const auto found = table.set_updates.find(shape);
  if (found != table.set_updates.end()) return found->second.sql.empty() ? nullptr : &found->second;
  Statement& statement = table.set_updates[shape];  // without a text: it cannot travel
  if (!table.set_key) return nullptr;
  std::string assignments;
  for (std::uint16_t i = 0; i < table.columns.size(); ++i) {
    const MappedColumn& column = table.columns[i];
    if (shape[i] == '0' || column.key) continue;
    if (column.type.empty()) return nullptr;
    statement.new_columns.push_back(i);
    if (!assignments.empty()) assignments += ", ";
    assignments += fmt::format("{} = {}", quote_name(column.name), from_set(column, statement.new_columns.size()));
  }
  if (assignments.empty()) return nullptr;  // it only proves that the rows are there
  statement.name = next_name("U");
  statement.old_columns = identifying_columns(table);
  statement.sql = fmt::format("UPDATE {} AS t SET {} FROM {} WHERE {}", table.reference(), assignments,
                              set_of(table, statement), set_condition(table, statement));
  return &statement;
}

Statement& TableMap::set_remove_statement(MappedTable& table) {
  Statement& statement = table.set_remove;
  if (!statement.sql.empty()) return statement;
  statement.name = next_name("D");
  statement.old_columns = identifying_columns(table);
  const MappedColumn& key = table.columns[statement.old_columns.front()];
  if (statement.old_columns.size() == 1 && key.has_array && !table.partitioned) {
    // One scan of the index instead of one for each row. Of a partitioned table it would be one of each partition.
    const std::string cast = key.element == BinaryType::Text ? fmt::format("::{}[]", key.type) : "";
    statement.sql = fmt::format("DELETE FROM {} WHERE {} {} ANY ($1::pg_catalog.{}[]{})", table.reference(),
                                quote_name(key.name), key.equality, name_of(key.element), cast);
    return statement;
  }
  statement.sql = fmt::format("DELETE FROM {} AS t USING {} WHERE {}", table.reference(), set_of(table, statement),
                              set_condition(table, statement));
  return statement;
}

}  // namespace walferry::apply
