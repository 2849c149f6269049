#include "engine/apply/row_writer.hpp"

#include <fmt/format.h>

namespace walferry::apply {

void expect_described(const MappedTable& table, std::uint16_t column_count) {
  if (column_count == table.columns.size()) return;
  throw Error{{ErrorKind::Protocol, Side::Source},
              fmt::format("a row of {} does not fit its description", table.name.text())};
}

void RowWriter::insert(MappedTable& table, const pgoutput::InsertView& insert, ChangeOrigin origin) {
  begin();
  bind(table, insert.row, table.insert.new_columns);
  send(table.insert, {.operation = Operation::Insert, .table = &table, .origin = std::move(origin)});
}

void RowWriter::update(MappedTable& table, const pgoutput::UpdateView& update, ChangeOrigin origin) {
  Statement& statement = tables_.update_statement(table, update);
  begin();
  bind(table, update.row, statement.new_columns);
  bind(table, update.old ? update.old->tuple : update.row, statement.old_columns);
  send(statement, {.operation = Operation::Update, .table = &table, .origin = std::move(origin)});
}

void RowWriter::remove(MappedTable& table, const pgoutput::DeleteView& remove, ChangeOrigin origin) {
  begin();
  bind(table, remove.old.tuple, table.remove.old_columns);
  send(table.remove, {.operation = Operation::Delete, .table = &table, .origin = std::move(origin)});
}

void RowWriter::truncate(std::span<const MappedTable* const> tables, const pgoutput::TruncateView& truncate,
                         ChangeOrigin origin) {
  if (!tables_.truncates(tables, truncate.relations)) {
    for (const MappedTable* table : tables) {
      pipeline_.send_sql(fmt::format("DELETE FROM {}", table->reference()),
                         {.operation = Operation::Truncate, .table = table, .origin = origin});
    }
    return;
  }
  std::string names;
  for (const MappedTable* table : tables) {
    if (!names.empty()) names += ", ";
    names += table->reference();
  }
  // One statement for all: the message lists what CASCADE reached, so RESTRICT cannot be in the way.
  pipeline_.send_sql(fmt::format("TRUNCATE {}{}", names, truncate.restart_identity ? " RESTART IDENTITY" : ""),
                     {.operation = Operation::Truncate, .table = tables.front(), .origin = std::move(origin)});
}

void RowWriter::insert_net(MappedTable& table, const NetChanges::Row& row) {
  begin();
  bind(table, row.fields, table.insert.new_columns);
  send(table.insert, {.operation = Operation::Insert, .table = &table, .net = true});
}

void RowWriter::update_net(MappedTable& table, const NetChanges::Row& row) {
  Statement& statement = tables_.guarded_update_statement(table, shape_of(row.fields));
  begin();
  bind(table, row.fields, statement.new_columns);
  bind_key(table, row);
  send(statement, {.operation = Operation::Update, .table = &table, .net = true, .guarded = true});
}

void RowWriter::remove_net(MappedTable& table, const NetChanges::Row& row) {
  Statement& statement = tables_.guarded_remove_statement(table);
  begin();
  bind_key(table, row);
  send(statement, {.operation = Operation::Delete, .table = &table, .net = true, .guarded = true});
}

void RowWriter::begin() {
  arena_.clear();
  offsets_.clear();
}

void RowWriter::append(std::string_view text) {
  offsets_.push_back(arena_.size());
  arena_ += text;
  arena_ += '\0';
}

// Appends the parameters for `columns`, which are in ascending order.
void RowWriter::bind(const MappedTable& table, const RowView& row, const std::vector<std::uint16_t>& columns) {
  expect_described(table, row.column_count());
  auto wanted = columns.begin();
  row.for_each([&](std::uint16_t column, const pgoutput::FieldView& field) {
    if (wanted == columns.end() || column != *wanted) return;
    ++wanted;
    switch (field.kind) {
      case pgoutput::FieldKind::Null:
        offsets_.push_back(std::string::npos);
        break;
      case pgoutput::FieldKind::Text:
        append(as_text(field.value));
        break;
      case pgoutput::FieldKind::UnchangedToast:
      case pgoutput::FieldKind::Binary:
        throw Error{
            {ErrorKind::Protocol, Side::Source},
            fmt::format("{}: column {} came without a usable value", table.name.text(), table.columns[column].name)};
    }
  });
}

void RowWriter::bind_key(const MappedTable& table, const NetChanges::Row& row) {
  table.changes->for_each_key_field(row, [&](std::uint16_t, std::string_view value) { append(value); });
}

void RowWriter::send(Statement& statement, Expected expected) {
  values_.clear();
  for (const std::size_t offset : offsets_)
    values_.push_back(offset == std::string::npos ? nullptr : arena_.data() + offset);
  pipeline_.send(statement, values_, arena_.size(), std::move(expected));
}

}  // namespace walferry::apply
