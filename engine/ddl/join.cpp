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

// A member was renamed and its name given to another: what is recorded under the name is the member's.
bool name_is_taken(const QualifiedName& name, const Catalog& source, const store::Journal& journal) {
  const auto copied = journal.copied_tables();
  if (!copied.contains(name)) return false;
  const std::set<RelationId> members = journal.copied_ids();
  return std::ranges::any_of(source.tables, [&](const Table& table) {
    return members.contains(table.relation()) && !copied.contains(table.name);
  });
}

// What the target holds there already is not walferry's to replace.
bool target_is_ready(pg::Session& target, const Catalog& on_target, const Table& table) {
  const Table* counterpart = on_target.find(table.name);
  return same_columns(&table, counterpart) && counterpart->holds_rows() && is_empty(target, table.name);
}

// Under the lock: the table is what it was taken for, and its rows can be told apart.
bool is_still(pg::Session& source, const Table& table) {
  return source
      .exec(fmt::format(
          "SELECT EXISTS (SELECT 1 FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace "
          "WHERE c.oid = {} AND n.nspname = {} AND c.relname = {} AND c.relkind = 'r' AND c.relpersistence = 'p' AND "
          "(c.relreplident = 'f' OR EXISTS (SELECT 1 FROM pg_catalog.pg_index i WHERE i.indrelid = c.oid AND "
          "i.indimmediate AND i.indisvalid AND ((c.relreplident = 'd' AND i.indisprimary) OR "
          "(c.relreplident = 'i' AND i.indisreplident)) AND NOT EXISTS (SELECT 1 FROM pg_catalog.pg_attribute g WHERE "
          "g.attrelid = i.indrelid AND g.attgenerated <> '' AND g.attnum = ANY (i.indkey::pg_catalog.int2[])))))",
          static_cast<std::uint32_t>(table.oid), pg::quote_literal(table.name.schema),
          pg::quote_literal(table.name.name)))
      .flag(0, 0);
}

}  // namespace

void mark_joining(const JoinOptions& options, store::Journal& journal) {
  pg::Session source = open(options.source);
  std::set<RelationId> candidates = unpublished(source, options, true);
  for (const auto& [id, mark] : journal.tables_to_copy_again()) candidates.erase(id);
  if (candidates.empty()) return;
  Catalog on_source = read_catalog(source);
  keep_selected(on_source, source, options.selection);
  const Lsn seen_at = source.exec("SELECT pg_catalog.pg_current_wal_insert_lsn()").lsn(0, 0);
  pg::Session target = open(options.target);
  const Catalog on_target = read_catalog(target);
  for (const Table& table : on_source.tables) {
    if (!candidates.contains(table.relation()) || !can_be_published(table, options)) continue;
    try {
      if (name_is_taken(table.name, on_source, journal) || !target_is_ready(target, on_target, table)) continue;
    } catch (const Error& error) {
      if (error.kind() != ErrorKind::Sql) throw;
      spdlog::debug("{} cannot be looked at: {}", table.name.text(), error.what());
      continue;
    }
    spdlog::info("{} came while the migration was under way: it joins by a copy of its own", table.name.text());
    journal.record_copy_again(table.relation(), {.table = table.name, .not_before = seen_at});
  }
}

bool publish_marked(const JoinOptions& options, RelationId id, store::Journal& journal) {
  pg::Session source = open(options.source);
  if (!unpublished(source, options, false).contains(id)) return true;
  const Catalog catalog = read_catalog(source);
  const auto table = std::ranges::find(catalog.tables, id, &Table::relation);
  pg::Session target = open(options.target);
  if (table == catalog.tables.end() || !can_be_published(*table, options) ||
      !target_is_ready(target, read_catalog(target), *table)) {
    return false;
  }
  // Identity and publication are committed together: what an attempt that failed has recorded is not so.
  const std::string recorded = std::string{store::journal_keys::identity_full} + table->name.quoted();
  if (!journal.copied_ids().contains(id)) journal.erase(recorded);
  try {
    // Either way whoever writes to it has ended, and nobody begins: for the moment of this transaction.
    source.exec("BEGIN; " + (table->has_usable_identity()
                                 ? fmt::format("LOCK TABLE ONLY {} IN SHARE ROW EXCLUSIVE MODE", table->name.quoted())
                                 : record_full_identity(source, *table, journal)));
    if (!is_still(source, *table)) {
      if (!table->has_usable_identity()) journal.erase(recorded);
      return false;
    }
    source.exec(fmt::format("ALTER PUBLICATION {} ADD TABLE ONLY {}", pg::quote_name(options.publication),
                            table->name.quoted()));
  } catch (const Error&) {
    if (!table->has_usable_identity()) journal.erase(recorded);
    throw;
  }
  source.exec("COMMIT");
  return true;
}

}  // namespace walferry::ddl
