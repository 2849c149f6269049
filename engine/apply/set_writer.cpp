#include "engine/apply/set_writer.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
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

// An array in binary form: dimensions, whether NULLs occur, element type, length, lower bound; then the elements, each
// behind its length (-1: NULL).
constexpr std::size_t array_header_bytes = 20;
constexpr std::uint32_t null_length = 0xFFFF'FFFF;

void append_array_header(std::vector<std::byte>& array, SetElement element) {
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

template <typename Integer>
void append_integer(std::vector<std::byte>& array, std::string_view text, const MappedTable& table) {
  Integer value = 0;
  const auto [end, failure] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (failure != std::errc{} || end != text.data() + text.size())
    throw NetChangesRefused{table.name, "the source's column is no integer of the target's size"};
  Writer out{array};
  out.u32(sizeof(Integer));
  out.bytes(wire::store(static_cast<std::make_unsigned_t<Integer>>(value)));
}

void append_element(std::vector<std::byte>& array, SetElement element, std::string_view text,
                    const MappedTable& table) {
  switch (element) {
    case SetElement::Int2:
      return append_integer<std::int16_t>(array, text, table);
    case SetElement::Int4:
      return append_integer<std::int32_t>(array, text, table);
    case SetElement::Int8:
      return append_integer<std::int64_t>(array, text, table);
    case SetElement::Text:
      break;
  }
  Writer out{array};
  out.u32(static_cast<std::uint32_t>(text.size()));
  out.bytes(as_bytes(text));
}

[[noreturn]] void refuse_field(const MappedTable& table, std::uint16_t column) {
  throw Error{{ErrorKind::Protocol, Side::Source},
              fmt::format("{}: column {} came without a usable value", table.name.text(), table.columns[column].name)};
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
  for (const auto& [shape, rows] : partial) {
    Statement* set = rows.size() >= set_rows_min ? tables_.set_update_statement(table, shape) : nullptr;
    if (set != nullptr) {
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
      for (; at != rows.end() && buffer.size() < copy_buffer_bytes; ++at) {
        if (is_inserted(*at)) append_copy_row(table, at->fields, fields, buffer);
      }
      return at != rows.end();
    };
    co_await pipeline_.copy(table, count, std::move(next));
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
      std::vector<std::byte>& array = arrays_[parameter];
      if (field.kind == pgoutput::FieldKind::Null) {
        Writer{array}.u32(null_length);
      } else if (field.kind == pgoutput::FieldKind::Text) {
        append_element(array, table.columns[column].element, as_text(field.value), table);
      } else {
        refuse_field(table, column);
      }
      bytes += sizeof null_length + field.value.size();
      ++parameter;
    });
  }
  table.changes->for_each_key_field(row, [&](std::uint16_t column, std::string_view value) {
    append_element(arrays_[parameter], table.columns[column].element, value, table);
    bytes += sizeof null_length + value.size();
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
