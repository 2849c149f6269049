// What a run of changes to one table comes to: for each key at most one row that goes and one that is there afterwards.
//
//   insert + update = insert      update + update = update      delete + insert = delete, then insert
//   insert + delete = nothing     update + delete = delete      a changed key   = delete, then insert elsewhere
//
// Keys are compared by their bytes: a change of bytes alone is reported by the source as a change of the key. A table
// without a key only takes inserts, in their order. Rows are views into the messages they came in; whoever adds a
// change keeps its message alive until clear(). Filled by Applier, written by SetWriter.
#pragma once

#include <cstdint>
#include <memory_resource>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "protocol/pgoutput.hpp"

namespace walferry::apply {

// The fields of a row, as they came or as merged from several changes.
class RowView {
 public:
  RowView() = default;
  RowView(const pgoutput::TupleView& tuple) : tuple_(tuple), column_count_(tuple.column_count()) {}  // NOLINT: a view
  explicit RowView(std::span<const pgoutput::FieldView> fields)
      : fields_(fields.data()), column_count_(static_cast<std::uint16_t>(fields.size())) {}

  [[nodiscard]] std::uint16_t column_count() const { return column_count_; }

  // Calls visit(column, field) for each column in order.
  template <typename Visit>
  void for_each(Visit&& visit) const {
    std::uint16_t column = 0;
    if (fields_ != nullptr) {
      for (; column < column_count_; ++column) visit(column, fields_[column]);
      return;
    }
    for (const pgoutput::FieldView field : tuple_) visit(column++, field);
  }

 private:
  pgoutput::TupleView tuple_;
  const pgoutput::FieldView* fields_ = nullptr;
  std::uint16_t column_count_ = 0;
};

class NetChanges {
 public:
  enum class State : std::uint8_t { Gone, Inserted, Updated };

  struct Row {
    std::string_view key;  // the key's one field, or several, each behind its length (for_each_key_field)
    std::uint32_t hash = 0;
    State state = State::Gone;
    bool removed = false;  // the target holds a row under this key that goes first; never with Updated
    bool partial = false;  // some fields are UnchangedToast: the target's value stays
    RowView fields;        // unless Gone
  };

  // `key`: the columns that identify a row, ascending; none: only inserts are taken. `rows_are_whole`: the target's
  // table has no further columns whose values a row would lose if it were deleted and inserted again.
  NetChanges(std::vector<std::uint16_t> key, bool rows_are_whole);

  // False: the change does not fold, nothing was taken. The caller writes what is here and then the change by itself.
  [[nodiscard]] bool insert(const pgoutput::TupleView& row);
  [[nodiscard]] bool update(const pgoutput::UpdateView& update);
  [[nodiscard]] bool remove(const pgoutput::TupleView& old);

  [[nodiscard]] bool empty() const { return rows_.empty(); }
  [[nodiscard]] const std::vector<Row>& rows() const { return rows_; }
  void clear();

  template <typename Visit>
  void for_each_key_field(const Row& row, Visit&& visit) const {
    if (key_.size() == 1) {
      visit(key_.front(), row.key);
      return;
    }
    std::string_view rest = row.key;
    for (const std::uint16_t column : key_) {
      const auto length = wire::load<std::uint32_t>(as_bytes(rest).data());
      visit(column, rest.substr(sizeof length, length));
      rest.remove_prefix(sizeof length + length);
    }
  }

 private:
  struct Found {
    std::string_view key;
    std::uint32_t hash = 0;
  };
  // The key of a row; nullopt when a part of it did not come. `partial` is set when another field did not.
  [[nodiscard]] std::optional<Found> key_of(const pgoutput::TupleView& tuple, bool* partial);
  [[nodiscard]] Row* find(const Found& key);
  Row& add(const Found& key);
  void grow();
  // `older` with the fields of `newer` that came.
  [[nodiscard]] RowView merged(const RowView& older, const RowView& newer, bool& partial);
  [[nodiscard]] bool move(const Found& from, const Found& to, const pgoutput::TupleView& fields, bool partial);

  std::vector<std::uint16_t> key_;
  bool rows_are_whole_;
  std::vector<Row> rows_;
  std::vector<std::uint32_t> slots_;  // open addressing: number of the row plus one; a power of two
  std::vector<std::byte> scratch_;
  std::pmr::monotonic_buffer_resource arena_;  // keys of several columns, merged fields
};

}  // namespace walferry::apply
