#include "engine/cutover/schema_state.hpp"

#include <fmt/format.h>

#include <set>

namespace walferry::cutover {

SchemaState::Published SchemaState::read_published(pg::Session& source, const std::vector<std::string>& publications) {
  std::string sql = fmt::format(
      "WITH p AS (SELECT oid, xmin::text || t::text AS line FROM pg_catalog.pg_publication t WHERE pubname = ANY "
      "({}::text[])) "
      "SELECT 0::pg_catalog.oid, line FROM p UNION ALL SELECT prrelid, r.xmin::text || r::text FROM "
      "pg_catalog.pg_publication_rel r "
      "WHERE prpubid IN (SELECT oid FROM p)",
      pg::quote_literal(pg::array_literal(publications)));
  if (source.server_version() >= 150'000)
    sql +=
        " UNION ALL SELECT 0::pg_catalog.oid, n.xmin::text || n::text FROM pg_catalog.pg_publication_namespace n WHERE "
        "pnpubid IN "
        "(SELECT oid FROM p)";
  const pg::Result rows = source.exec(sql);
  Published published;
  for (int row = 0; row < rows.rows(); ++row) published.emplace(rows.str(row, 1), RelationId{rows.u32(row, 0)});
  return published;
}

SchemaState SchemaState::read(pg::Session& source, std::vector<std::string> publications) {
  SchemaState state;
  state.published_ = read_published(source, publications);
  state.publications_ = std::move(publications);
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
    if (before == files_.end() || before->second.file != table.file || before->second.table.root != table.table.root)
      changed.push_back(table.table);
  }
  // The rows of a partition that is gone, or stands alone now, were its root's.
  for (const auto& [id, before] : files_) {
    const auto found = later.find(id);
    if (before.table.root && (found == later.end() || found->second.table.root != before.table.root))
      changed.push_back({.name = *before.table.root, .root = {}});
  }
  return changed;
}

std::vector<ChangedTable> SchemaState::changed_files(pg::Session& source) const {
  return changed_files(read_files(source));
}

bool SchemaState::still_publishes(pg::Session& source) const {
  const Published later = read_published(source, publications_);
  std::string gone;
  for (const auto& [line, relation] : published_) {
    if (later.contains(line)) continue;
    if (relation == RelationId{}) return false;
    gone += fmt::format("{}{}", gone.empty() ? "" : ",", static_cast<std::uint32_t>(relation));
  }
  // With a table that was dropped its place in the publication went.
  return gone.empty() ||
         source.exec(fmt::format("SELECT 1 FROM pg_catalog.pg_class WHERE oid IN ({})", gone)).rows() == 0;
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
