#include "engine/cutover/schema_state.hpp"

#include <fmt/format.h>

#include <set>

namespace walferry::cutover {

SchemaState SchemaState::read(pg::Session& source) {
  SchemaState state;
  state.files_ = read_files(source);
  state.inventory_ = ddl::read_inventory(source);
  return state;
}

SchemaState::Files SchemaState::read_files(pg::Session& source) {
  const pg::Result rows = source.exec(fmt::format(
      "SELECT c.oid, n.nspname, c.relname, pg_catalog.format('%I.%I', n.nspname, c.relname), c.relfilenode, m.nspname, "
      "r.relname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace "
      "LEFT JOIN pg_catalog.pg_class r ON c.relispartition AND r.oid = pg_catalog.pg_partition_root(c.oid) "
      "LEFT JOIN pg_catalog.pg_namespace m ON m.oid = r.relnamespace "
      "WHERE c.relkind = 'r' AND c.relpersistence = 'p' AND {}",
      user_schema_condition("n")));
  Files files;
  for (int row = 0; row < rows.rows(); ++row) {
    TableFile file;
    file.table.name = {rows.str(row, 1), rows.str(row, 2)};
    file.identity = rows.str(row, 3);
    file.file = rows.u32(row, 4);
    if (!rows.is_null(row, 6)) file.table.root = QualifiedName{rows.str(row, 5), rows.str(row, 6)};
    files.emplace(RelationId{rows.u32(row, 0)}, std::move(file));
  }
  return files;
}

std::vector<ChangedTable> SchemaState::changed_files(const Files& later) const {
  std::vector<ChangedTable> changed;
  for (const auto& [id, table] : later) {
    const auto before = files_.find(id);
    if (before == files_.end() || before->second.file != table.file) changed.push_back(table.table);
  }
  return changed;
}

std::vector<ChangedTable> SchemaState::changed_files(pg::Session& source) const {
  return changed_files(read_files(source));
}

std::vector<ChangedTable> SchemaState::changed(const SchemaState& later) const {
  std::vector<ChangedTable> changed = changed_files(later.files_);
  std::set<std::string> owners;
  for (const ddl::Difference& difference : ddl::differences(inventory_, later.inventory_))
    owners.insert(difference.owner);
  for (const auto& [id, table] : later.files_) {
    if (owners.contains(table.identity)) changed.push_back(table.table);
  }
  return changed;
}

}  // namespace walferry::cutover
