#include "engine/apply/set_writer.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "protocol/copy_format.hpp"

namespace walferry::apply {
namespace {

// Below these a set costs more than its rows one by one.
constexpr std::size_t set_rows_min = 8;
constexpr std::size_t copy_rows_min = 32;
// A statement's arrays: libpq moves what it could not send at once, so they must not be large.
constexpr std::size_t set_bytes_max = std::size_t{256} << 10U;
constexpr std::size_t copy_buffer_bytes = std::size_t{64} << 10U;

constexpr std::size_t length_bytes = 4;  // before each value

// An array in binary form: dimensions, whether NULLs occur, element type, length, lower bound; then the elements.
void append_array_header(std::vector<std::byte>& array, BinaryType element) {
  Writer out{array};
  out.u32(1);
  out.u32(1);
  out.u32(static_cast<std::uint32_t>(element));
  out.u32(0);  // the length: set when the array is complete
  out.u32(1);
}

void set_array_length(std::vector<std::byte>& array, std::uint32_t length) {
  const auto bytes = wire::store(length);
  std::ranges::copy(bytes, array.begin() + 12);
}

void append_element(const MappedTable& table, std::uint16_t column, std::string_view text,
                    std::vector<std::byte>& out) {
  const MappedColumn& target = table.columns[column];
  if (append_value(target.element, text, out)) return;
  throw NetChangesRefused{table.name, fmt::format("the source's value of column {} is no {} of the target's",
                                                  target.name, name_of(target.element))};
}

[[noreturn]] void refuse_field(const MappedTable& table, std::uint16_t column) {
  throw Error{{ErrorKind::Protocol, Side::Source},
              fmt::format("{}: column {} came without a usable value", table.name.text(), table.columns[column].name)};
}

// A field in binary, of an array or a COPY.
void append_field(const MappedTable& table, std::uint16_t column, const pgoutput::FieldView& field,
                  std::vector<std::byte>& out) {
  if (field.kind == pgoutput::FieldKind::Null) {
    append_null(out);
  } else if (field.kind == pgoutput::FieldKind::Text) {
    append_element(table, column, as_text(field.value), out);
  } else {
    refuse_field(table, column);
  }
}

// Neighbours in the index, and mostly in the table, one behind the other: numbers in their order, all else in some.
void sort_by_key(std::vector<const NetChanges::Row*>& rows) {
  const auto key_order = [](const NetChanges::Row* one, const NetChanges::Row* other) {
    if (one->key.size() != other->key.size()) return one->key.size() < other->key.size();
    return one->key < other->key;
  };
  if (!std::ranges::is_sorted(rows, key_order)) std::ranges::sort(rows, key_order);
}

// A row as COPY text takes it.
void append_copy_row(const MappedTable& table, const RowView& row, std::vector<copy_format::Field>& fields,
                     std::vector<std::byte>& out) {
  fields.clear();
  row.for_each([&](std::uint16_t column, const pgoutput::FieldView& field) {
    if (field.kind == pgoutput::FieldKind::Null) {
      fields.emplace_back(std::nullopt);
    } else if (field.kind == pgoutput::FieldKind::Text) {
      fields.emplace_back(field.value);
    } else {
      refuse_field(table, column);
    }
  });
  copy_format::append_text_row(fields, out);
}

// The same in binary.
void append_binary_row(const MappedTable& table, const RowView& row, std::vector<std::byte>& out) {
  Writer{out}.u16(row.column_count());
  row.for_each(
      [&](std::uint16_t column, const pgoutput::FieldView& field) { append_field(table, column, field, out); });
}

}  // namespace

Awaitable<void> SetWriter::write(std::vector<MappedTable*> tables) {
  // All that stays in the pipeline first: a COPY has to wait for what was sent before it.
  for (MappedTable* table : tables) {
    co_await write_removed(*table);
    co_await write_updated(*table);
  }
  for (MappedTable* table : tables) {
    co_await write_inserted(*table);
    table->changes->clear();
  }
}

Awaitable<void> SetWriter::write_removed(MappedTable& table) {
  std::vector<const Row*> removed;
  for (const Row& row : table.changes->rows()) {
    if (row.removed) removed.push_back(&row);
  }
  if (removed.size() >= set_rows_min && table.set_key) {
    Statement& statement = tables_.set_remove_statement(table);
    sort_by_key(removed);
    co_await write_set(table, statement, Operation::Delete, removed);
    co_return;
  }
  for (const Row* row : removed) {
    rows_.remove_net(table, *row);
    if (pipeline_.full()) co_await pipeline_.throttle();
  }
}

Awaitable<void> SetWriter::write_updated(MappedTable& table) {
  std::vector<const Row*> whole;
  std::map<std::string, std::vector<const Row*>> partial;  // by the columns that came
  for (const Row& row : table.changes->rows()) {
    if (row.state != NetChanges::State::Updated) continue;
    if (row.partial) {
      partial[shape_of(row.fields)].push_back(&row);
    } else {
      whole.push_back(&row);
    }
  }
  if (!whole.empty()) partial.emplace(std::string(table.columns.size(), '1'), std::move(whole));
  for (auto& [shape, rows] : partial) {
    Statement* set = rows.size() >= set_rows_min ? tables_.set_update_statement(table, shape) : nullptr;
    if (set != nullptr) {
      if (table.splits) sort_by_key(rows);  // else another unique constraint may want the order in which they came
      co_await write_set(table, *set, Operation::Update, rows);
      continue;
    }
    for (const Row* row : rows) {
      rows_.update_net(table, *row);
      if (pipeline_.full()) co_await pipeline_.throttle();
    }
  }
}

Awaitable<void> SetWriter::write_inserted(MappedTable& table) {
  const std::vector<Row>& rows = table.changes->rows();
  const auto is_inserted = [](const Row& row) { return row.state == NetChanges::State::Inserted; };
  const auto count = std::ranges::count_if(rows, is_inserted);
  if (static_cast<std::size_t>(count) >= copy_rows_min && !table.columns.empty()) {
    auto at = rows.begin();
    std::vector<copy_format::Field> fields;
    std::function<bool(std::vector<std::byte>&)> next = [&](std::vector<std::byte>& buffer) {
      if (table.copy_binary && at == rows.begin()) copy_format::append_binary_header(buffer);
      for (; at != rows.end() && buffer.size() < copy_buffer_bytes; ++at) {
        if (!is_inserted(*at)) continue;
        if (table.copy_binary) {
          append_binary_row(table, at->fields, buffer);
        } else {
          append_copy_row(table, at->fields, fields, buffer);
        }
      }
      if (table.copy_binary && at == rows.end()) copy_format::append_binary_trailer(buffer);
      return at != rows.end();
    };
    co_await pipeline_.copy(table, count, std::move(next));
    if (table.copy_binary) {
      pipeline_.send(table.copied_types, {}, 0,
                     {.operation = Operation::Insert, .table = &table, .net = true, .guarded = true});
    }
    co_return;
  }
  for (const Row& row : rows) {
    if (!is_inserted(row)) continue;
    rows_.insert_net(table, row);
    if (pipeline_.full()) co_await pipeline_.throttle();
  }
}

Awaitable<void> SetWriter::write_set(MappedTable& table, Statement& statement, Operation operation,
                                     const std::vector<const Row*>& rows) {
  std::uint32_t count = 0;
  std::size_t bytes = 0;
  for (const Row* row : rows) {
    if (count == 0) begin_arrays(table, statement);
    bytes += append_row(table, statement, *row);
    ++count;
    if (bytes < set_bytes_max) continue;
    send_arrays(table, statement, operation, count);
    count = 0;
    bytes = 0;
    if (pipeline_.full()) co_await pipeline_.throttle();
  }
  if (count == 0) co_return;
  send_arrays(table, statement, operation, count);
  if (pipeline_.full()) co_await pipeline_.throttle();
}

void SetWriter::begin_arrays(const MappedTable& table, const Statement& statement) {
  const std::size_t count = statement.new_columns.size() + statement.old_columns.size();
  if (arrays_.size() < count) arrays_.resize(count);
  std::size_t parameter = 0;
  for (const auto* columns : {&statement.new_columns, &statement.old_columns}) {
    for (const std::uint16_t column : *columns) {
      arrays_[parameter].clear();
      append_array_header(arrays_[parameter], table.columns[column].element);
      ++parameter;
    }
  }
}

std::size_t SetWriter::append_row(const MappedTable& table, const Statement& statement, const Row& row) {
  std::size_t parameter = 0;
  std::size_t bytes = 0;
  if (!statement.new_columns.empty()) {
    row.fields.for_each([&](std::uint16_t column, const pgoutput::FieldView& field) {
      if (parameter == statement.new_columns.size() || column != statement.new_columns[parameter]) return;
      append_field(table, column, field, arrays_[parameter]);
      bytes += length_bytes + field.value.size();
      ++parameter;
    });
  }
  table.changes->for_each_key_field(row, [&](std::uint16_t column, std::string_view value) {
    append_element(table, column, value, arrays_[parameter]);
    bytes += length_bytes + value.size();
    ++parameter;
  });
  return bytes;
}

void SetWriter::send_arrays(MappedTable& table, Statement& statement, Operation operation, std::uint32_t rows) {
  values_.clear();
  const std::size_t count = statement.new_columns.size() + statement.old_columns.size();
  for (std::size_t parameter = 0; parameter < count; ++parameter) {
    set_array_length(arrays_[parameter], rows);
    values_.push_back(as_text(arrays_[parameter]));
  }
  pipeline_.send_binary(statement, values_, {.operation = operation, .table = &table, .rows = rows, .net = true});
}

}  // namespace walferry::apply
