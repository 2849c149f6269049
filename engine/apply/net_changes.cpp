#include "engine/apply/net_changes.hpp"

#include <algorithm>
#include <functional>

namespace walferry::apply {
namespace {

using pgoutput::FieldKind;
using pgoutput::FieldView;

constexpr std::size_t slots_min = 64;

std::uint32_t hash_of(std::string_view key) {
  const std::size_t hash = std::hash<std::string_view>{}(key);
  return static_cast<std::uint32_t>(hash ^ (hash >> 32U));
}

}  // namespace

NetChanges::NetChanges(std::vector<std::uint16_t> key, bool rows_are_whole)
    : key_(std::move(key)), rows_are_whole_(rows_are_whole) {}

void NetChanges::clear() {
  rows_.clear();
  std::ranges::fill(slots_, 0U);
  arena_.release();
}

std::optional<NetChanges::Found> NetChanges::key_of(const pgoutput::TupleView& tuple, bool* partial) {
  auto wanted = key_.begin();
  std::string_view key;
  scratch_.clear();
  std::uint16_t column = 0;
  for (const FieldView field : tuple) {
    if (wanted != key_.end() && column == *wanted) {
      if (field.kind != FieldKind::Text) return std::nullopt;
      ++wanted;
      key = as_text(field.value);
      if (key_.size() == 1) {
        if (partial == nullptr) break;
      } else {
        Writer out{scratch_};
        out.u32(static_cast<std::uint32_t>(field.value.size()));
        out.bytes(field.value);
      }
    } else if (partial != nullptr && field.kind == FieldKind::UnchangedToast) {
      *partial = true;
    }
    ++column;
  }
  if (wanted != key_.end()) return std::nullopt;
  if (key_.size() > 1) {
    auto* copy = static_cast<std::byte*>(arena_.allocate(scratch_.size(), 1));
    std::ranges::copy(scratch_, copy);
    key = as_text({copy, scratch_.size()});
  }
  return Found{key, hash_of(key)};
}

NetChanges::Row* NetChanges::find(const Found& key) {
  if (slots_.empty()) return nullptr;
  const std::size_t mask = slots_.size() - 1;
  for (std::size_t at = key.hash & mask; slots_[at] != 0; at = (at + 1) & mask) {
    Row& row = rows_[slots_[at] - 1];
    if (row.hash == key.hash && row.key == key.key) return &row;
  }
  return nullptr;
}

NetChanges::Row& NetChanges::add(const Found& key) {
  if ((rows_.size() + 1) * 2 > slots_.size()) grow();
  Row row;
  row.key = key.key;
  row.hash = key.hash;
  rows_.push_back(row);
  const std::size_t mask = slots_.size() - 1;
  std::size_t at = key.hash & mask;
  while (slots_[at] != 0) at = (at + 1) & mask;
  slots_[at] = static_cast<std::uint32_t>(rows_.size());
  return rows_.back();
}

void NetChanges::grow() {
  slots_.assign(std::max(slots_min, slots_.size() * 2), 0);
  const std::size_t mask = slots_.size() - 1;
  for (std::size_t row = 0; row < rows_.size(); ++row) {
    std::size_t at = rows_[row].hash & mask;
    while (slots_[at] != 0) at = (at + 1) & mask;
    slots_[at] = static_cast<std::uint32_t>(row + 1);
  }
}

bool NetChanges::insert(const pgoutput::TupleView& tuple) {
  if (key_.empty()) {
    Row row;
    row.state = State::Inserted;
    row.fields = tuple;
    rows_.push_back(row);
    return true;
  }
  bool partial = false;
  const std::optional<Found> key = key_of(tuple, &partial);
  if (!key || partial) return false;
  Row* row = find(*key);
  if (row == nullptr) {
    row = &add(*key);
  } else if (row->state != State::Gone) {
    return false;  // twice the same key: the target is to say what is wrong
  }
  row->state = State::Inserted;
  row->partial = false;
  row->fields = tuple;
  return true;
}

bool NetChanges::update(const pgoutput::UpdateView& update) {
  if (key_.empty()) return false;
  bool partial = false;
  const std::optional<Found> to = key_of(update.row, &partial);
  if (!to) return false;
  if (update.old) {
    const std::optional<Found> from = key_of(update.old->tuple, nullptr);
    if (!from) return false;
    if (from->key != to->key) return move(*from, *to, update.row, partial);
  }
  Row* row = find(*to);
  if (row == nullptr) {
    row = &add(*to);
    row->state = State::Updated;
    row->partial = partial;
    row->fields = update.row;
    return true;
  }
  if (row->state == State::Gone) return false;
  if (partial) {
    row->fields = merged(row->fields, update.row, row->partial);
  } else {
    row->fields = update.row;
    row->partial = false;
  }
  return true;
}

// The row leaves one key and appears under another. As delete and insert it can do so where everything of it is at
// hand, but not with values that only the target has.
bool NetChanges::move(const Found& from, const Found& to, const pgoutput::TupleView& fields, bool partial) {
  const Row* old = find(from);
  const Row* there = find(to);
  if (there != nullptr && there->state != State::Gone) return false;
  if (old != nullptr && old->state == State::Gone) return false;
  if (!rows_are_whole_ && (old == nullptr || old->state == State::Updated)) return false;
  RowView whole = fields;
  if (partial) {
    bool still_partial = true;
    if (old == nullptr || old->partial) return false;
    whole = merged(old->fields, fields, still_partial);
    if (still_partial) return false;
  }
  if (old == nullptr) {
    add(from).removed = true;
  } else {
    Row& row = rows_[static_cast<std::size_t>(old - rows_.data())];
    row.removed = row.removed || row.state == State::Updated;
    row.state = State::Gone;
  }
  Row* row = find(to);
  if (row == nullptr) row = &add(to);
  row->state = State::Inserted;
  row->partial = false;
  row->fields = whole;
  return true;
}

bool NetChanges::remove(const pgoutput::TupleView& old) {
  if (key_.empty()) return false;
  const std::optional<Found> key = key_of(old, nullptr);
  if (!key) return false;
  Row* row = find(*key);
  if (row == nullptr) {
    row = &add(*key);
    row->removed = true;
    return true;
  }
  if (row->state == State::Gone) return false;
  row->removed = row->removed || row->state == State::Updated;
  row->state = State::Gone;
  return true;
}

RowView NetChanges::merged(const RowView& older, const RowView& newer, bool& partial) {
  const std::size_t count = newer.column_count();
  auto* fields = static_cast<FieldView*>(arena_.allocate(count * sizeof(FieldView), alignof(FieldView)));
  std::uninitialized_fill_n(fields, count, FieldView{FieldKind::UnchangedToast, {}});
  older.for_each([&](std::uint16_t column, const FieldView& field) {
    if (column < count) fields[column] = field;
  });
  newer.for_each([&](std::uint16_t column, const FieldView& field) {
    if (field.kind != FieldKind::UnchangedToast) fields[column] = field;
  });
  const std::span<const FieldView> all{fields, count};
  partial = std::ranges::any_of(all, [](const FieldView& field) { return field.kind == FieldKind::UnchangedToast; });
  return RowView{all};
}

}  // namespace walferry::apply
