#include "engine/ddl/join.hpp"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <set>

#include "engine/ddl/recopy.hpp"
#include "engine/full_identity.hpp"

namespace walferry::ddl {
namespace {

// The application's statements queue behind a lock that is waited for.
pg::Session open(const pg::ConnInfo& info) {
  return pg::Session::open(
      info, {.application_name = "walferry schema", .settings = {"lock_timeout=300ms", "statement_timeout=60s"}});
}

// Tables that hold rows and are not in the publication; `ours`: and can be put there by our role.
std::set<RelationId> unpublished(pg::Session& source, const JoinOptions& options, bool ours) {
  const pg::Result rows = source.exec(fmt::format(
      "SELECT c.oid FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace "
      "WHERE c.relkind = 'r' AND c.relpersistence = 'p' AND {} AND NOT (c.relispartition AND {}) "
      "AND (NOT {} OR pg_catalog.pg_has_role(current_user, c.relowner, 'USAGE')) AND NOT EXISTS "
      "(SELECT 1 FROM pg_catalog.pg_publication_rel r JOIN pg_catalog.pg_publication p ON p.oid = r.prpubid "
      "WHERE r.prrelid = c.oid AND p.pubname = {})",
      user_schema_condition("n"), options.via_root, ours, pg::quote_literal(options.publication)));
  std::set<RelationId> found;
  for (int row = 0; row < rows.rows(); ++row) found.insert(RelationId{rows.u32(row, 0)});
  return found;
}

bool can_be_published(const Table& table, const JoinOptions& options) {
  return table.has_usable_identity() || (options.full_identities && table.full_identity_serves);
}

bool is_empty(pg::Session& session, const QualifiedName& table) {
  return session.exec(fmt::format("SELECT NOT EXISTS (SELECT 1 FROM ONLY {})", table.quoted())).flag(0, 0);
}

}  // namespace

void mark_joining(const JoinOptions& options, store::Journal& journal) {
  pg::Session source = open(options.source);
  std::set<RelationId> candidates = unpublished(source, options, true);
  for (const auto& [id, mark] : journal.tables_to_copy_again()) candidates.erase(id);
  if (candidates.empty()) return;
  const Lsn seen_at = source.exec("SELECT pg_catalog.pg_current_wal_insert_lsn()").lsn(0, 0);
  Catalog on_source = read_catalog(source);
  keep_selected(on_source, source, options.selection);
  pg::Session target = open(options.target);
  const Catalog on_target = read_catalog(target);
  for (const Table& table : on_source.tables) {
    if (!candidates.contains(table.relation()) || !can_be_published(table, options)) continue;
    // What the target holds there already is not walferry's to replace.
    if (!same_columns(&table, on_target.find(table.name)) || !is_empty(target, table.name)) continue;
    spdlog::info("{} came while the migration was under way: it joins by a copy of its own", table.name.text());
    journal.record_copy_again(table.relation(), {.table = table.name, .not_before = seen_at});
  }
}

bool publish_marked(const JoinOptions& options, RelationId id, store::Journal& journal) {
  pg::Session source = open(options.source);
  if (!unpublished(source, options, false).contains(id)) return true;
  const Catalog catalog = read_catalog(source);
  const auto table = std::ranges::find(catalog.tables, id, &Table::relation);
  if (table == catalog.tables.end() || !can_be_published(*table, options)) return false;
  // Either way whoever writes to it has ended, and nobody begins: for the moment of this transaction.
  const std::string lock = table->has_usable_identity()
                               ? fmt::format("LOCK TABLE ONLY {} IN SHARE ROW EXCLUSIVE MODE", table->name.quoted())
                               : record_full_identity(source, *table, journal);
  try {
    source.exec(fmt::format("BEGIN; {}; ALTER PUBLICATION {} ADD TABLE ONLY {}; COMMIT", lock,
                            pg::quote_name(options.publication), table->name.quoted()));
  } catch (const Error& error) {
    const bool passes = error.sqlstate() == "55P03" || error.sqlstate() == "42P01";  // locked; gone meanwhile
    if (!passes) throw;
    spdlog::info("{} cannot join yet: {}", table->name.text(), error.what());
    return false;
  }
  return true;
}

}  // namespace walferry::ddl
