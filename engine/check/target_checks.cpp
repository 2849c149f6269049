// The target's server, role and contents.
#include <fmt/format.h>

#include <algorithm>

#include "engine/apply/progress.hpp"
#include "engine/check/sections.hpp"
#include "engine/outside/database_settings.hpp"

namespace walferry::check {
namespace {

void check_version(const End& target, Findings& findings) {
  const std::string id = "target.version";
  if (target.major() >= 13) return findings.pass(id, fmt::format("PostgreSQL {}", target.major()));
  findings.fail(id, {.title = fmt::format("PostgreSQL {} is too old, 13 is the oldest target", target.major()),
                     .detail = "walferry is tried on 13 to 18",
                     .remedy = "install a newer server for the target"});
}

void check_writable(End& target, Findings& findings) {
  const std::string id = "target.recovery";
  if (!target.identity.in_recovery) return findings.pass(id, "it is a primary");
  findings.fail(id, {.title = "it is a standby, which cannot be written to",
                     .detail = "behind Patroni or HAProxy this is what a connection to the wrong member looks like",
                     .remedy = "name the primary, or all members with target_session_attrs=read-write"});
}

void check_create_rights(End& target, const CheckOptions& options, Findings& findings) {
  const std::string id = "target.create";
  const pg::Result row = target.session.exec(R"(
SELECT pg_catalog.has_database_privilege(pg_catalog.current_database(), 'CREATE'),
       coalesce((SELECT pg_catalog.has_schema_privilege(oid, 'CREATE') FROM pg_catalog.pg_namespace WHERE nspname = 'public'), true))");
  std::string remedy;
  if (!row.flag(0, 0)) {
    remedy = fmt::format("GRANT CREATE ON DATABASE {} TO {};", pg::quote_name(target.identity.database),
                         pg::quote_name(target.role));
  }
  if (!row.flag(0, 1) && !options.no_schema) {
    remedy +=
        fmt::format("{}GRANT CREATE ON SCHEMA public TO {};", remedy.empty() ? "" : "\n", pg::quote_name(target.role));
  }
  if (remedy.empty()) return findings.pass(id, "the role may create objects");
  findings.fail(
      id,
      {.title = "the role may not create objects",
       .detail = "schemas, and walferry's own, need CREATE on the database; tables in public need it on that schema",
       .remedy = remedy});
}

void check_replication_role(End& target, Findings& findings) {
  const std::string id = "target.session_replication_role";
  // Tried and taken back: managed services allow it in ways that no catalog shows.
  target.session.exec("BEGIN READ ONLY");
  try {
    target.session.exec("SET LOCAL session_replication_role = replica");
    target.session.exec("ROLLBACK");
    findings.pass(id, "triggers and foreign keys can be kept from firing for replicated changes");
  } catch (const Error& error) {
    if (error.kind() == ErrorKind::Connection) throw;
    target.session.exec("ROLLBACK");
    findings.warn(
        id,
        {.title = "the role may not set session_replication_role",
         .detail =
             "triggers and rules would act on changes that the source has acted on already, and foreign keys with "
             "them: walferry disables the former and makes the latter only in the cutover, while writes are "
             "stopped, which takes as long as checking every row. Deferrable keys are checked at each commit. Our "
             "role must own the tables",
         .remedy =
             target.major() >= 15
                 ? fmt::format("GRANT SET ON PARAMETER session_replication_role TO {};", pg::quote_name(target.role))
                 : std::string{"connect to the target as a superuser (the right can be granted from 15 on)"}});
  }
}

// Without the right to silence triggers they must be ours to disable.
void check_ownership(End& target, const CheckOptions& options, Findings& findings) {
  if (!options.no_schema) return;  // what walferry makes is its role's own, or of roles that it is a member of
  const std::string id = "target.ownership";
  const std::vector<std::string> foreign = target.texts(fmt::format(
      "SELECT pg_catalog.format('%I.%I', n.nspname, c.relname) FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace "
      "n ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't' AND {} AND {} AND NOT "
      "pg_catalog.pg_has_role(current_user, c.relowner, 'USAGE') ORDER BY 1",
      user_schema_condition("n"), no_extension_condition("c")));
  if (foreign.empty()) return findings.pass(id, "every table on the target is the role's own, or its groups'");
  findings.fail(id, {.title = counted(foreign.size(), "table of the target belongs", "tables of the target belong") +
                              " to a role that ours is no member of",
                     .detail = "it cannot be emptied, and its triggers and foreign keys cannot be kept from acting on "
                               "replicated changes: " +
                               listed(foreign, 40),
                     .remedy = fmt::format("GRANT <owner> TO {}; on the target", pg::quote_name(target.role))});
}

void check_position(End& target, const CheckOptions& options, Findings& findings) {
  const std::string id = "target.position";
  const std::string table = apply::Progress::table_of(options.slot);
  const std::int64_t closed = target.number(
      "SELECT count(*) FROM pg_catalog.pg_namespace n WHERE n.nspname = 'walferry' AND NOT "
      "(pg_catalog.has_schema_privilege(n.oid, 'USAGE') AND pg_catalog.has_schema_privilege(n.oid, 'CREATE'))");
  if (closed > 0) {
    return findings.fail(
        id, {.title = "schema walferry on the target belongs to a role that has not opened it to ours",
             .detail = fmt::format("{} is to be made in it, for the position of the apply", table),
             .remedy = fmt::format("GRANT USAGE, CREATE ON SCHEMA walferry TO {};", pg::quote_name(target.role))});
  }
  const bool exists = target.number("SELECT (pg_catalog.to_regclass(" + pg::quote_literal(table) +
                                    ") IS NOT NULL)::pg_catalog.int4") > 0;
  if (options.pinned && !exists) {
    return findings.warn(id, {.title = fmt::format("{} is not there", table),
                              .detail = "it keeps the position of this migration, unless that has ended",
                              .remedy = "if the target was restored or replaced: `walferry abort`, then begin anew"});
  }
  if (options.pinned) return findings.pass(id, fmt::format("{} keeps the position of this migration", table));
  if (!exists) return findings.pass(id, fmt::format("{} is free for the position of this migration", table));
  findings.fail(id, {.title = fmt::format("{} exists already on the target", table),
                     .detail = "it belongs to another migration, or is a remainder of one: its position would be taken "
                               "for ours",
                     .remedy = fmt::format(
                         "name that migration's --state-dir, choose another --slot, or\nDROP TABLE {};", table)});
}

void check_empty(End& target, const CheckOptions& options, Findings& findings) {
  const std::string id = "target.empty";
  if (options.adopt && !options.pinned) return;  // check_adopted_target looks at what is there
  const std::vector<std::string> filled = tables_with_rows(target);
  if (options.pinned) {
    return findings.pass(
        id, fmt::format("{} with rows: the target of this migration", counted(filled.size(), "table", "tables")));
  }
  if (!filled.empty()) {
    return findings.add(
        options.allow_nonempty_target ? Severity::Warn : Severity::Fail, id,
        {.title = counted(filled.size(), "table of the target holds", "tables of the target hold") + " rows",
         .detail = "rows of the target's own would mix with those of the source: " + listed(filled, 40),
         .remedy = options.allow_nonempty_target
                       ? "allowed by --allow-nonempty-target: be sure that the copied tables are empty"
                       : "create an empty database for the target, or say --allow-nonempty-target if that is meant"});
  }
  if (options.no_schema) return findings.pass(id, "no table of the target holds rows");
  const std::vector<std::string> objects = target.texts(fmt::format(R"(
SELECT pg_catalog.format('%I.%I', n.nspname, o.name)
FROM (SELECT c.relnamespace AS namespace, c.relname AS name, 'pg_catalog.pg_class'::pg_catalog.regclass AS class, c.oid
        FROM pg_catalog.pg_class c WHERE c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f') AND c.relpersistence <> 't'
      UNION ALL
      SELECT p.pronamespace, p.proname, 'pg_catalog.pg_proc'::pg_catalog.regclass, p.oid FROM pg_catalog.pg_proc p
      UNION ALL
      SELECT t.typnamespace, t.typname, 'pg_catalog.pg_type'::pg_catalog.regclass, t.oid
        FROM pg_catalog.pg_type t WHERE t.typtype IN ('e', 'd', 'r')) o
JOIN pg_catalog.pg_namespace n ON n.oid = o.namespace
WHERE {} AND NOT EXISTS (SELECT 1 FROM pg_catalog.pg_depend x WHERE x.classid = o.class AND x.objid = o.oid AND x.deptype = 'e')
ORDER BY 1)",
                                                                    user_schema_condition("n")));
  if (objects.empty()) return findings.pass(id, "the target is empty");
  findings.add(
      options.allow_nonempty_target ? Severity::Warn : Severity::Fail, id,
      {.title = counted(objects.size(), "object exists", "objects exist") + " on the target already",
       .detail = "none holds rows; creating the schema stops at the first name that is taken: " + listed(objects),
       .remedy = "if this is the source's schema, restored beforehand: --no-schema; else create an empty database"});
}

void check_remains(End& target, const CheckOptions& options, Findings& findings) {
  if (options.pinned) return;
  if (target.number("SELECT count(*) FROM pg_catalog.pg_namespace WHERE nspname = 'walferry'") == 0) return;
  findings.warn("target.remains", {.title = "schema walferry exists on the target",
                                   .detail = "another migration is under way, or a remainder of one",
                                   .remedy = "if no migration uses this database: DROP SCHEMA walferry CASCADE;"});
}

// As a database that was moved away from is. Walferry's own sessions write all the same.
void check_read_only(End& target, Findings& findings) {
  const std::string id = "target.read_only";
  if (!outside::begins_read_only(target.session)) return findings.pass(id, "sessions do not begin read-only there");
  findings.warn(id, {.title = "default_transaction_read_only is on for the target's database",
                     .detail = "applications that come after the cutover could not write; the cutover is not begun "
                               "while it is so",
                     .remedy = fmt::format("ALTER DATABASE {} RESET default_transaction_read_only; on the target",
                                           pg::quote_name(target.identity.database))});
}

void check_wal_level(End& target, Findings& findings) {
  const std::string id = "target.wal_level";
  const std::string level = target.setting("wal_level");
  if (level == "logical" || (target.major() >= 19 && level == "replica")) {
    return findings.pass(id, fmt::format("wal_level is {}: other servers can replicate from it", level));
  }
  findings.warn(
      id, {.title = fmt::format("wal_level is {}", level),
           .detail = "enough for the migration; replication out of the target after cutover, such as back to the old "
                     "server, needs logical",
           .remedy =
               "ALTER SYSTEM SET wal_level = logical;\nthen restart the target server, now rather than after cutover"});
}

}  // namespace

std::vector<std::string> tables_with_rows(End& target) {
  constexpr std::size_t batch_max = 100;
  std::vector<const Table*> candidates;
  for (const Table& table : target.catalog.tables) {
    if (table.holds_rows() && table.pages > 0) candidates.push_back(&table);
  }
  std::vector<std::string> found;
  for (std::size_t begin = 0; begin < candidates.size(); begin += batch_max) {
    const std::size_t end = std::min(begin + batch_max, candidates.size());
    std::string sql;
    for (std::size_t i = begin; i < end; ++i) {
      sql += fmt::format("{}SELECT {} WHERE EXISTS (SELECT 1 FROM ONLY {})", i == begin ? "" : " UNION ALL ",
                         pg::quote_literal(candidates[i]->name.text()), candidates[i]->name.quoted());
    }
    try {
      const std::vector<std::string> names = target.texts(sql);
      found.insert(found.end(), names.begin(), names.end());
    } catch (const Error& error) {
      if (error.kind() == ErrorKind::Connection) throw;
      for (std::size_t i = begin; i < end; ++i) found.push_back(candidates[i]->name.text());
    }
  }
  return found;
}

void check_target(End& target, const CheckOptions& options, Findings& findings) {
  check_version(target, findings);
  check_writable(target, findings);
  check_direct_connection(target, findings);
  check_free_connections(target, 2 * options.jobs + 3 + 2 * options.apply_lanes, findings);
  findings.ask("target.create", [&] { check_create_rights(target, options, findings); });
  findings.ask("target.session_replication_role", [&] { check_replication_role(target, findings); });
  findings.ask("target.ownership", [&] { check_ownership(target, options, findings); });
  findings.ask("target.position", [&] { check_position(target, options, findings); });
  findings.ask("target.empty", [&] { check_empty(target, options, findings); });
  findings.ask("target.remains", [&] { check_remains(target, options, findings); });
  findings.ask("target.read_only", [&] { check_read_only(target, findings); });
  findings.ask("target.wal_level", [&] { check_wal_level(target, findings); });
}

}  // namespace walferry::check
