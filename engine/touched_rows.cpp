#include "engine/touched_rows.hpp"

#include <algorithm>
#include <cstring>

namespace walferry {
namespace {

// Above them it is the whole table that is hashed again: as text in a statement keys cost more than rows read in order.
constexpr std::size_t keys_per_table_max = 50'000;
constexpr std::size_t key_bytes_max = std::size_t{64} << 20U;  // of all tables

}  // namespace

std::vector<std::vector<std::string>> TouchedTable::key_values() const {
  std::vector<std::vector<std::string>> columns(key_columns_.size());
  for (std::vector<std::string>& column : columns) column.reserve(keys_.size());
  for (const std::string& key : keys_) {
    std::size_t at = 0;
    for (std::vector<std::string>& column : columns) {
      std::size_t length = 0;
      std::memcpy(&length, key.data() + at, sizeof length);
      column.emplace_back(key, at + sizeof length, length);
      at += sizeof length + length;
    }
  }
  return columns;
}

void TouchedRows::touch(const QualifiedName& table, std::span<const std::string_view> columns,
                        std::span<const std::string_view> values) {
  TouchedTable& touched = tables_[table];
  if (touched.whole_) return;
  if (touched.keys_.empty()) touched.key_columns_.assign(columns.begin(), columns.end());
  if (columns.empty() || !std::ranges::equal(touched.key_columns_, columns)) {
    give_up_keys(touched);
    return;
  }
  encoded_.clear();
  for (const std::string_view value : values) {
    const std::size_t length = value.size();
    encoded_.append(reinterpret_cast<const char*>(&length), sizeof length);
    encoded_ += value;
  }
  if (!touched.keys_.insert(encoded_).second) return;
  key_bytes_ += encoded_.size();
  if (touched.keys_.size() > keys_per_table_max || key_bytes_ > key_bytes_max) give_up_keys(touched);
}

void TouchedRows::touch_whole(const QualifiedName& table) {
  give_up_keys(tables_[table]);
}

void TouchedRows::give_up_keys(TouchedTable& table) {
  for (const std::string& key : table.keys_) key_bytes_ -= key.size();
  table.keys_.clear();
  table.whole_ = true;
}

const TouchedTable* TouchedRows::find(const QualifiedName& table) const {
  const auto found = tables_.find(table);
  return found == tables_.end() ? nullptr : &found->second;
}

std::size_t TouchedRows::rows() const {
  std::size_t rows = 0;
  for (const auto& [name, table] : tables_) rows += table.rows();
  return rows;
}

}  // namespace walferry
