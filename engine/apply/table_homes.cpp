#include "engine/apply/table_homes.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace walferry::apply {

void TableHomes::begin(const std::map<QualifiedName, RelationId>& copied, const Catalog& target) {
  for (const auto& [name, relation] : copied) copied_.insert(relation);
  if (!homes_.empty()) return;
  for (const auto& [name, relation] : copied) {
    if (const Table* table = target.find(name)) homes_.emplace(relation, table->oid);
  }
  if (!homes_.empty()) record();
}

void TableHomes::settle(RelationId relation, const Table& table, const Catalog& target) {
  const auto known = homes_.find(relation);
  if (known != homes_.end() && known->second == table.oid) return;
  if (known != homes_.end()) {
    // Where its own is gone, somebody made it anew on the target.
    const auto own = std::ranges::find(target.tables, known->second, &Table::oid);
    if (own != target.tables.end()) {
      throw Error{
          {ErrorKind::Divergence, Side::Target},
          fmt::format(
              "the source's {0} is the table that the target has as {1}, and the target's {0} is another one: "
              "names were changed on the source. Remedy: give the target's tables the same names, or drop the one "
              "that was replaced; walferry then goes on by itself",
              table.name.text(), own->name.text())};
    }
  }
  require_free(relation, table);
  homes_.insert_or_assign(relation, table.oid);
  record();
}

void TableHomes::require_free(RelationId relation, const Table& table) const {
  for (const auto& [other, home] : homes_) {
    if (home != table.oid || other == relation || !copied_.contains(other)) continue;
    throw Error{{ErrorKind::Divergence, Side::Target},
                fmt::format("the source's {0} is a new table, and the target's {0} holds the rows of the one that had "
                            "the name before. Remedy: make the same changes on the target; walferry then goes on by "
                            "itself",
                            table.name.text())};
  }
}

}  // namespace walferry::apply
