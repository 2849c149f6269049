// Which rows the stream has touched since a moment: what must be compared again after a comparison of everything that
// was made at that moment.
//
// Filled by Applier as it takes changes, one change a call; read by Verification once nothing is written any more.
// Invariant: a row that was touched is named by its key, before and after, or its whole table is named. Memory is
// bounded: a table with more keys than that is named whole. Not thread-safe: the reader begins when the writer rests.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <unordered_set>
#include <vector>

#include "engine/catalog.hpp"

namespace walferry {

class TouchedTable {
 public:
  [[nodiscard]] bool whole() const { return whole_; }
  [[nodiscard]] std::size_t rows() const { return keys_.size(); }
  [[nodiscard]] const std::vector<std::string>& key_columns() const { return key_columns_; }
  // One list of values a key column, as many values in each as rows().
  [[nodiscard]] std::vector<std::vector<std::string>> key_values() const;

 private:
  friend class TouchedRows;

  std::vector<std::string> key_columns_;
  std::unordered_set<std::string> keys_;  // each value behind its length
  bool whole_ = false;
};

class TouchedRows {
 public:
  // The row with this key was inserted, updated or deleted. `columns` and `values` (text form) stand in the same order.
  // Touching a table by other key columns than before names it whole.
  void touch(const QualifiedName& table, std::span<const std::string_view> columns,
             std::span<const std::string_view> values);
  // TRUNCATE, or a row that has no key.
  void touch_whole(const QualifiedName& table);
  // A schema change: which rows look different now is not known.
  void touch_everything() { everything_ = true; }
  [[nodiscard]] bool everything() const { return everything_; }

  [[nodiscard]] const TouchedTable* find(const QualifiedName& table) const;
  [[nodiscard]] const std::map<QualifiedName, TouchedTable>& tables() const { return tables_; }
  // Keys in all tables that are not named whole.
  [[nodiscard]] std::size_t rows() const;

 private:
  void give_up_keys(TouchedTable& table);

  std::map<QualifiedName, TouchedTable> tables_;
  std::size_t key_bytes_ = 0;
  bool everything_ = false;
  std::string encoded_;
};

}  // namespace walferry
