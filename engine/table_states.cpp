#include "engine/table_states.hpp"

namespace walferry {

void TableStates::describe(const std::vector<Table>& tables) {
  const auto copied = journal_.copied_tables();
  for (const Table& table : tables) {
    auto [found, added] = index_.try_emplace(table.name, status_.tables.size());
    if (added) status_.tables.push_back({.name = table.name});
    TableStatus& entry = status_.tables[found->second];
    entry.bytes_total = table.bytes;
    entry.rows_estimate = table.rows_estimate;
    entry.state = copied.contains(table.name) ? TableState::Copied : TableState::Pending;
    if (entry.state == TableState::Pending) {
      entry.copied->bytes = 0;
      entry.copied->rows = 0;
    }
  }
}

void TableStates::advance(const QualifiedName& table, TableState state) {
  const auto found = index_.find(table);
  if (found == index_.end()) return;
  TableStatus& entry = status_.tables[found->second];
  if (entry.state >= state) return;
  entry.state = state;
  if (state == TableState::Copying) entry.copying_since = std::chrono::steady_clock::now();
}

void TableStates::all_ready() {
  for (TableStatus& table : status_.tables) table.state = TableState::Ready;
}

}  // namespace walferry
