// What the source holds: rights on it, row identity, and objects that the change stream does not carry.
#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "engine/check/sections.hpp"
#include "engine/cutover/fence_name.hpp"
#include "engine/outside/database_settings.hpp"
#include "engine/outside/large_objects.hpp"
#include "engine/outside/left_out.hpp"
#include "engine/setup.hpp"

namespace walferry::check {
namespace {

// FROM and WHERE of user relations that belong to no extension; `c` and `n` are the aliases.
std::string from_relations(std::string_view kinds) {
  return fmt::format(
      " FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace "
      "WHERE c.relkind IN ({}) AND c.relpersistence <> 't' AND {} AND {} ",
      kinds, user_schema_condition("n"), no_extension_condition("c"));
}

// And of these, the tables that are selected; what is left out concerns nobody.
std::string and_selected(const End& source, const CheckOptions& options) {
  if (options.selection.empty()) return "";
  std::string oids;
  for (const Table& table : source.catalog.tables)
    oids += fmt::format("{}{}", oids.empty() ? "" : ",", static_cast<std::uint32_t>(table.oid));
  return fmt::format("AND c.oid = ANY ('{{{}}}'::pg_catalog.oid[]) ", oids);
}

constexpr std::string_view quoted_relation = "pg_catalog.format('%I.%I', n.nspname, c.relname)";

void check_select(End& source, const CheckOptions& options, Findings& findings) {
  const std::string id = "source.select";
  // pg_dump locks every table, selected or not.
  const std::string wanted = from_relations("'r', 'p', 'S'") + (options.no_schema ? and_selected(source, options) : "");
  const std::string role = pg::quote_name(source.role);
  const std::vector<std::string> schemas =
      source.texts("SELECT DISTINCT pg_catalog.quote_ident(n.nspname)" + wanted +
                   "AND NOT pg_catalog.has_schema_privilege(n.oid, 'USAGE') ORDER BY 1");
  const std::vector<std::string> relations =
      source.texts(fmt::format("SELECT {}", quoted_relation) + wanted +
                   "AND NOT pg_catalog.has_table_privilege(c.oid, 'SELECT') ORDER BY 1");
  if (schemas.empty() && relations.empty()) {
    return findings.pass(id, "the role can read every table and sequence");
  }
  std::vector<std::string> remedies;
  for (const std::string& schema : schemas)
    remedies.push_back(fmt::format("GRANT USAGE ON SCHEMA {} TO {};", schema, role));
  for (const std::string& name : relations) remedies.push_back(fmt::format("GRANT SELECT ON {} TO {};", name, role));
  std::string remedy = listed(remedies, 60, "\n");
  if (source.major() >= 14) remedy = fmt::format("GRANT pg_read_all_data TO {};\nor one by one:\n{}", role, remedy);
  std::string detail = "the copy would fail with permission denied, while the stream carries their changes unasked.";
  if (!schemas.empty()) detail += "\nno USAGE on schemas: " + listed(schemas);
  if (!relations.empty()) detail += "\nno SELECT on: " + listed(relations, 40);
  findings.fail(id,
                {.title = fmt::format("the role cannot read {} and {}", counted(schemas.size(), "schema", "schemas"),
                                      counted(relations.size(), "table or sequence", "tables and sequences")),
                 .detail = detail,
                 .remedy = remedy});
}

void check_row_security(End& source, const CheckOptions& options, Findings& findings) {
  const std::string id = "source.row_security";
  const std::vector<std::string> hidden =
      source.texts(fmt::format("SELECT {}", quoted_relation) + from_relations("'r', 'p'") +
                   and_selected(source, options) + "AND pg_catalog.row_security_active(c.oid) ORDER BY 1");
  if (hidden.empty()) return findings.pass(id, "no row security policy hides rows from the role");
  findings.fail(
      id, {.title = "row security would hide rows of " + counted(hidden.size(), "table", "tables"),
           .detail = "walferry reads with row_security=off, so that such a table fails and is never copied in part: " +
                     listed(hidden, 40),
           .remedy = fmt::format("ALTER ROLE {} BYPASSRLS;", pg::quote_name(source.role))});
}

void check_existing_publications(End& source, const CheckOptions& options, Findings& findings) {
  if (const auto filtered = filtered_tables(source.session, options.publications); !filtered.empty()) {
    findings.fail("source.row_filter",
                  {.title = fmt::format("the publications carry only some rows or columns of {}",
                                        counted(filtered.size(), "table", "tables")),
                   .detail = "changes of the others would not arrive, and nothing would tell: " + listed(filtered, 40),
                   .remedy = "ALTER PUBLICATION ... SET TABLE ...; without WHERE and without a list of columns"});
  }
  if (const auto generated = tables_with_generated_columns_published(source.session, options.publications);
      !generated.empty()) {
    findings.fail(
        "source.row_filter",
        {.title = fmt::format("the publications carry generated columns of {}",
                              counted(generated.size(), "table", "tables")),
         .detail = "the target computes them itself and takes no values for them: " + listed(generated, 40),
         .remedy = "ALTER PUBLICATION ... SET (publish_generated_columns = none); and without such columns in "
                   "a list of columns"});
  }
  for (const std::string& name : options.publications) {
    const std::string id = "source.publication";
    const pg::Result row = source.session.exec(
        "SELECT pubinsert AND pubupdate AND pubdelete AND pubtruncate FROM pg_catalog.pg_publication WHERE pubname = " +
        pg::quote_literal(name));
    if (row.rows() == 0) {
      findings.fail(
          id, {.title = fmt::format("publication {} does not exist", name),
               .detail = "it was named by --publication",
               .remedy = "create it, correct the name, or leave --publication out and let walferry make its own"});
      continue;
    }
    const std::vector<std::string> absent =
        source.texts(fmt::format("SELECT {}", quoted_relation) + from_relations("'r'") +
                     fmt::format("AND c.relpersistence = 'p' AND NOT EXISTS (SELECT 1 FROM "
                                 "pg_catalog.pg_publication_tables p WHERE p.pubname = "
                                 "ANY (ARRAY[{}]) AND p.schemaname = n.nspname AND p.tablename = c.relname) ORDER BY 1",
                                 [&options] {
                                   std::vector<std::string> literals;
                                   for (const std::string& each : options.publications)
                                     literals.push_back(pg::quote_literal(each));
                                   return listed(literals, literals.size());
                                 }()));
    if (!row.flag(0, 0)) {
      findings.fail(id,
                    {.title = fmt::format("publication {} leaves out some kinds of changes", name),
                     .detail = "inserts, updates, deletes and truncates are all needed, or the ends drift apart",
                     .remedy = fmt::format("ALTER PUBLICATION {} SET (publish = 'insert, update, delete, truncate');",
                                           pg::quote_name(name))});
    } else if (!absent.empty()) {
      findings.warn(
          id, {.title = fmt::format("the publications leave out {}", counted(absent.size(), "table", "tables")),
               .detail = "their changes would not arrive: " + listed(absent, 40),
               .remedy =
                   fmt::format("ALTER PUBLICATION {} ADD TABLE ...; for those that are wanted", pg::quote_name(name))});
    } else {
      findings.pass(id, fmt::format("publication {} carries every table and every kind of change", name));
    }
  }
}

void check_publication_right(End& source, const CheckOptions& options, Findings& findings) {
  if (!options.publications.empty()) return check_existing_publications(source, options, findings);
  const std::string id = "source.publication";
  const bool exists = source.number("SELECT count(*) FROM pg_catalog.pg_publication WHERE pubname = " +
                                    pg::quote_literal(options.publication)) > 0;
  if (exists && !options.pinned) {
    findings.warn(
        id, {.title = fmt::format("a publication named {} exists already", options.publication),
             .detail = "it may be a remainder of an earlier migration, or belong to another one",
             .remedy = fmt::format("if nobody uses it: DROP PUBLICATION {};", pg::quote_name(options.publication))});
  }
  if (source.superuser) return findings.pass(id, "the role may create the publication");
  const bool may_create =
      source.number("SELECT pg_catalog.has_database_privilege(pg_catalog.current_database(), 'CREATE')::int") == 1;
  const std::vector<std::string> foreign = source.texts(
      fmt::format("SELECT {}", quoted_relation) + from_relations("'r', 'p'") + and_selected(source, options) +
      "AND c.relpersistence = 'p' AND NOT pg_catalog.pg_has_role(current_user, c.relowner, 'USAGE') ORDER BY 1");
  // Membership in a superuser's role is no remedy to propose.
  const std::vector<std::string> owners = source.texts(
      "SELECT DISTINCT pg_catalog.quote_ident(o.rolname) FROM pg_catalog.pg_roles o WHERE NOT o.rolsuper AND o.oid IN "
      "(SELECT "
      "c.relowner" +
      from_relations("'r', 'p'") + and_selected(source, options) +
      "AND c.relpersistence = 'p' AND NOT pg_catalog.pg_has_role(current_user, c.relowner, 'USAGE')) ORDER BY 1");
  if (may_create && foreign.empty()) return findings.pass(id, "the role may create the publication");
  const std::string role = pg::quote_name(source.role);
  std::string remedy;
  if (!may_create) {
    remedy = fmt::format("GRANT CREATE ON DATABASE {} TO {};\n", pg::quote_name(source.identity.database), role);
  }
  for (const std::string& owner : owners) remedy += fmt::format("GRANT {} TO {};\n", owner, role);
  remedy += "or let an administrator create a publication for these tables and name it with --publication";
  findings.fail(id, {.title = "the role may not publish every table",
                     .detail = fmt::format("a publication needs CREATE on the database{} and ownership of its tables{}",
                                           may_create ? "" : " (missing)",
                                           foreign.empty() ? "" : "; owned by others: " + listed(foreign, 40)),
                     .remedy = remedy});
}

// Rights without which a migration works, and what each costs.
void check_lesser_rights(End& source, Findings& findings) {
  if (source.superuser) return;
  const std::string role = pg::quote_name(source.role);
  const std::string database = pg::quote_name(source.identity.database);
  const pg::Result row = source.session.exec(
      "SELECT pg_catalog.pg_has_role(current_user, 'pg_read_all_stats', 'USAGE'), pg_catalog.pg_has_role(current_user, "
      "(SELECT datdba FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()), 'USAGE'), "
      "pg_catalog.has_database_privilege(pg_catalog.current_database(), 'CREATE')");
  if (!row.flag(0, 0)) {
    findings.warn("source.activity",
                  {.title = "the role does not see what other roles' sessions do",
                   .detail = "whom the slot or the write stop waits for cannot be named, and the cutover's guard does "
                             "not see their long transactions",
                   .remedy = fmt::format("GRANT pg_read_all_stats TO {};", role)});
  }
  if (!row.flag(0, 1)) {
    findings.warn(
        "source.database_owner",
        {.title = "the role may not act for the database's owner",
         .detail = "after the switch triggers on every table refuse writes, but new sessions are not read-only "
                   "from the start: nextval(), DDL and new tables are not refused on the old source",
         .remedy = fmt::format("ALTER DATABASE {} OWNER TO {}; or GRANT <owner> TO {};", database, role, role)});
  }
  const bool may_set_deadlock_timeout =
      source.major() >= 15 &&
      source.number("SELECT pg_catalog.has_parameter_privilege('deadlock_timeout', 'SET')::int") == 1;
  if (!may_set_deadlock_timeout) {
    findings.warn(
        "source.deadlock_timeout",
        {.title = "the role may not set deadlock_timeout",
         .detail = "where the write stop and an application's transaction wait for each other, the server's own "
                   "deadlock_timeout decides which of the two is ended",
         .remedy = source.major() >= 15 ? fmt::format("GRANT SET ON PARAMETER deadlock_timeout TO {};", role)
                                        : std::string{"nothing; a superuser only before 15"}});
  }
  const std::vector<std::string> foreign =
      source.texts(fmt::format("SELECT {}", quoted_relation) + from_relations("'r', 'p'") +
                   "AND NOT pg_catalog.pg_has_role(current_user, c.relowner, 'USAGE') ORDER BY 1");
  if (foreign.empty() && row.flag(0, 2))
    return findings.pass("source.write_stop", "the role may stop writes to every table");
  findings.warn(
      "source.write_stop",
      {.title = "the role may not stop writes at the cutover",
       .detail = fmt::format("without it everything works but the cutover, which is refused{}{}",
                             row.flag(0, 2) ? "" : "; CREATE on the database is missing",
                             foreign.empty() ? "" : "; tables of others: " + listed(foreign, 40)),
       .remedy = fmt::format("GRANT CREATE ON DATABASE {} TO {}; GRANT <each owner> TO {};", database, role, role)});
}

// A unique index that could serve as replica identity, by table: immediate, valid, not partial, plain not-null columns.
std::map<Oid, std::string> candidate_indexes(End& source) {
  const pg::Result rows = source.session.exec(R"(
SELECT DISTINCT ON (i.indrelid) i.indrelid, pg_catalog.quote_ident(x.relname)
FROM pg_catalog.pg_index i
JOIN pg_catalog.pg_class x ON x.oid = i.indexrelid
WHERE i.indisunique AND i.indimmediate AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL
  AND NOT EXISTS (SELECT 1 FROM pg_catalog.pg_attribute a
                  WHERE a.attrelid = i.indrelid AND a.attnum = ANY ((i.indkey::int2[])[0:i.indnkeyatts - 1])
                    AND (NOT a.attnotnull OR a.attgenerated <> ''))
ORDER BY i.indrelid, i.indnkeyatts, x.relname)");
  std::map<Oid, std::string> candidates;
  for (int row = 0; row < rows.rows(); ++row) candidates.emplace(Oid{rows.u32(row, 0)}, rows.str(row, 1));
  return candidates;
}

std::string why_unusable(const Table& table) {
  if (table.replica_identity == 'f') return "identity FULL with a generated column, which 18 does not allow";
  if (table.replica_identity == 'n') return "replica identity NOTHING";
  if (table.replica_identity == 'i') return "its replica identity index is dropped, invalid or on a generated column";
  if (table.deferrable_primary_key) return "its primary key is deferrable";
  if (table.has_primary_key) return "its primary key is invalid or holds a generated column";
  return "no primary key";
}

std::string identity_remedy(const Table& table, const std::map<Oid, std::string>& candidates) {
  const std::string name = table.name.quoted();
  if (const auto candidate = candidates.find(table.oid); candidate != candidates.end()) {
    return fmt::format("ALTER TABLE {} REPLICA IDENTITY USING INDEX {};", name, candidate->second);
  }
  if (!table.full_identity_serves) return fmt::format("ALTER TABLE {} ADD PRIMARY KEY (...);", name);
  // A second primary key cannot be added beside one that does not serve.
  if (table.has_primary_key) return fmt::format("ALTER TABLE {} REPLICA IDENTITY FULL;", name);
  return fmt::format("ALTER TABLE {0} ADD PRIMARY KEY (...);   or   ALTER TABLE {0} REPLICA IDENTITY FULL;", name);
}

void check_replica_identity(End& source, const CheckOptions& options, Findings& findings) {
  const std::string id = "source.replica_identity";
  const std::map<Oid, std::string> candidates = candidate_indexes(source);
  std::vector<std::string> without;
  std::vector<std::string> remedies;
  std::vector<std::string> full;
  bool full_serves_all = true;
  for (const Table& table : source.catalog.tables) {
    if (!table.holds_rows() || table.persistence != 'p') continue;
    if (table.replica_identity == 'f') full.push_back(table.name.text());
    if (table.has_usable_identity()) continue;
    without.push_back(fmt::format("{} ({})", table.name.text(), why_unusable(table)));
    remedies.push_back(identity_remedy(table, candidates));
    full_serves_all = full_serves_all && table.full_identity_serves;
  }
  if (!full.empty()) {
    findings.warn("source.identity_full",
                  {.title = counted(full.size(), "table has", "tables have") + " replica identity FULL",
                   .detail = "each update and delete is found by comparing whole rows, slowly, and one by one: " +
                             listed(full, 40),
                   .remedy = "ALTER TABLE <table> REPLICA IDENTITY DEFAULT; where there is a primary key"});
  }
  if (without.empty()) return findings.pass(id, "every table's rows can be identified");
  const std::string which = listed(without, 60, "\n");
  if (options.adopt) {
    return findings.fail(
        id, {.title = counted(without.size(), "table has", "tables have") + " no usable replica identity",
             .detail = "with --adopt it must be there before slot and publication are made, so that all that followed "
                       "names its rows:\n" +
                       which,
             .remedy = listed(remedies, 60, "\n") +
                       "\nand then publication, slot and data anew, as `walferry run --adopt` says"});
  }
  if (options.replica_identity_full && full_serves_all) {
    return findings.warn(id, {.title = counted(without.size(), "table gets", "tables get") +
                                       " REPLICA IDENTITY FULL for the migration's time",
                              .detail = "asked for by --replica-identity-full: a short ACCESS EXCLUSIVE lock each, "
                                        "more WAL for updates and deletes, "
                                        "slower apply:\n" +
                                        which,
                              .remedy = "better where it is possible:\n" + listed(remedies, 60, "\n")});
  }
  findings.fail(
      id,
      {.title = counted(without.size(), "table has", "tables have") + " no usable replica identity",
       .detail = "publishing them would make the application's own UPDATE and DELETE fail (\"does not have a replica "
                 "identity and publishes updates\"); so walferry never puts them silently under FOR ALL TABLES:\n" +
                 which,
       .remedy = listed(remedies, 60, "\n") + (full_serves_all
                                                   ? "\nor run with --replica-identity-full: it is put back at the "
                                                     "end, and costs nothing where rows are only inserted"
                                                   : "")});
}

void check_deferrable_keys(End& source, Findings& findings) {
  const std::string id = "source.deferrable_keys";
  const std::vector<std::string> found = source.texts(fmt::format(R"(
SELECT pg_catalog.format('%I on %I.%I', k.conname, n.nspname, c.relname)
FROM pg_catalog.pg_constraint k
JOIN pg_catalog.pg_class c ON c.oid = k.conrelid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE k.contype IN ('p', 'u', 'x') AND k.condeferrable AND {} ORDER BY 1)",
                                                                  user_schema_condition("n")));
  if (found.empty()) return findings.pass(id, "no primary, unique or exclusion constraint is deferrable");
  findings.warn(
      id,
      {.title = counted(found.size(), "key is", "keys are") + " deferrable",
       .detail = "a deferrable primary key identifies no row for the stream, and a target that applies changes with "
                 "triggers off does not enforce deferrable keys: " +
                 listed(found, 40),
       .remedy = "nothing to do for unique and exclusion constraints: `walferry verify` compares what they guard. A "
                 "deferrable primary key is dealt with under source.replica_identity"});
}

void check_triggers_and_rules(End& source, Findings& findings) {
  const std::vector<std::string> triggers = source.texts(fmt::format(R"(
SELECT pg_catalog.format('%I on %I.%I (%s)', g.tgname, n.nspname, c.relname,
                         CASE g.tgenabled WHEN 'A' THEN 'ALWAYS' ELSE 'REPLICA' END)
FROM pg_catalog.pg_trigger g
JOIN pg_catalog.pg_class c ON c.oid = g.tgrelid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE NOT g.tgisinternal AND g.tgenabled IN ('A', 'R') AND {} ORDER BY 1)",
                                                                     user_schema_condition("n")));
  if (triggers.empty()) {
    findings.pass("source.triggers", "no trigger is ENABLE ALWAYS or ENABLE REPLICA");
  } else {
    findings.warn(
        "source.triggers",
        {.title = counted(triggers.size(), "trigger fires", "triggers fire") + " for replicated changes as well",
         .detail = "their effects arrive through the stream already; firing again on the target doubles them: " +
                   listed(triggers, 40),
         .remedy = "nothing: walferry disables them on the target until cutover; see that they are back afterwards"});
  }
  const std::vector<std::string> rules = source.texts(fmt::format(R"(
SELECT pg_catalog.format('%I on %I.%I', r.rulename, n.nspname, c.relname)
FROM pg_catalog.pg_rewrite r
JOIN pg_catalog.pg_class c ON c.oid = r.ev_class
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND r.ev_type <> '1' AND r.ev_enabled IN ('A', 'R') AND {} ORDER BY 1)",
                                                                  user_schema_condition("n")));
  if (!rules.empty()) {
    findings.warn(
        "source.rules",
        {.title = counted(rules.size(), "rule rewrites", "rules rewrite") + " replicated changes as well",
         .detail = "ENABLE ALWAYS or ENABLE REPLICA: " + listed(rules, 40),
         .remedy = "nothing: walferry disables them on the target until cutover; see that they are back afterwards"});
  }
  const std::vector<std::string> events = source.texts(
      "SELECT pg_catalog.quote_ident(e.evtname) || ' on ' || e.evtevent FROM pg_catalog.pg_event_trigger e WHERE "
      "e.evtenabled <> 'D' AND e.evtfoid NOT IN (SELECT p.oid FROM pg_catalog.pg_proc p WHERE p.pronamespace = "
      "pg_catalog.to_regnamespace('walferry')) "
      "AND NOT EXISTS (SELECT 1 FROM pg_catalog.pg_depend d WHERE d.classid = "
      "'pg_catalog.pg_event_trigger'::pg_catalog.regclass "
      "AND d.objid = e.oid AND d.deptype = 'e') ORDER BY 1");
  if (!events.empty()) {
    findings.warn(
        "source.event_triggers",
        {.title = counted(events.size(), "event trigger is", "event triggers are") + " enabled",
         .detail = "they are created on the target with the schema and need a superuser there; ENABLE ALWAYS ones fire "
                   "during the migration: " +
                   listed(events),
         .remedy = "check that each may run on the target, or there: ALTER EVENT TRIGGER <name> DISABLE;"});
  }
}

// An earlier migration's, which keeps forgotten applications from writing to a place that was left.
void check_fence(End& source, const CheckOptions& options, Findings& findings) {
  const std::string id = "source.fence";
  if (options.pinned) return;
  const std::vector<std::string> fenced = source.texts(
      fmt::format("SELECT {}", quoted_relation) + from_relations("'r', 'p'") + and_selected(source, options) +
      "AND EXISTS (SELECT 1 FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_proc p ON p.oid = t.tgfoid WHERE "
      "t.tgrelid = c.oid AND p.pronamespace = (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = 'walferry')) "
      "ORDER BY 1");
  const bool same_name = source.number(fmt::format("SELECT (pg_catalog.to_regproc({}) IS NOT NULL)::pg_catalog.int4",
                                                   pg::quote_literal(cutover::fence_function(options.slot)))) > 0;
  if (fenced.empty() && !same_name) return findings.pass(id, "no earlier migration has closed its tables");
  findings.fail(
      id,
      {.title = fenced.empty()
                    ? fmt::format("the write fence of an earlier migration named {} stands", options.slot)
                    : counted(fenced.size(), "table was", "tables were") + " closed by an earlier migration's "
                                                                           "cutover",
       .detail = fenced.empty()
                     ? "this one's could not be told from it"
                     : "the database was moved away from here, unless it has come back since: " + listed(fenced),
       .remedy = std::string{fenced.empty() ? "choose another name with --slot, or, i" : "I"} +
                 "f nothing may keep writers off here any more, lift the fence: `walferry finish --lift-fence` with "
                 "that migration's --state-dir"});
}

struct Notice {
  std::string id;
  std::string sql;
  std::string one;
  std::string many;
  std::string detail;
  std::string remedy;
};

// What the stream does not carry and the cutover brings over while nobody writes.
void check_outside_stream(End& source, Findings& findings) {
  const std::string relation = fmt::format("SELECT {}", quoted_relation);
  const std::int64_t unlogged_bytes = source.number("SELECT coalesce(sum(pg_catalog.pg_table_size(c.oid)), 0)::bigint" +
                                                    from_relations("'r'") + "AND c.relpersistence = 'u'");
  const std::vector<Notice> notices{
      {"source.unlogged_tables", relation + from_relations("'r'") + "AND c.relpersistence = 'u' ORDER BY 1",
       "unlogged table", "unlogged tables",
       fmt::format("their changes are not in the WAL; the cutover copies them ({}) anew while writes are stopped",
                   bytes_text(unlogged_bytes)),
       "nothing, or where the stop must be shorter: TRUNCATE what is not needed, or ALTER TABLE <table> SET LOGGED;"},
      {"source.materialized_views", relation + from_relations("'m'") + "AND c.relispopulated ORDER BY 1",
       "materialized view", "materialized views",
       "the cutover refreshes them on the target from the target's own tables, each after those it reads, while writes "
       "are stopped",
       "nothing, or where that takes too long: walferry cutover --refresh-first"},
      {"source.extension_tables",
       "SELECT x.extname || ': ' || (t.relation)::pg_catalog.regclass::text FROM pg_catalog.pg_extension x, "
       "pg_catalog.unnest(x.extconfig) AS "
       "t(relation) WHERE x.extname <> 'plpgsql' AND EXISTS (SELECT 1 FROM pg_catalog.pg_class c WHERE c.oid = "
       "t.relation AND (c.relkind = 'S' OR (c.relkind = 'r' AND pg_catalog.pg_relation_size(c.oid) > 0))) ORDER BY 1",
       "configuration table of an extension", "configuration tables of extensions",
       "the cutover copies the rows that are the users' while writes are stopped; before it the target lacks them. Our "
       "role must be able to write to those tables there",
       "nothing; jobs in them (pg_cron and its like) begin to run on the target at the cutover"},
      {"source.oid_columns",
       fmt::format(
           "SELECT pg_catalog.format('%I.%I.%I (%s)', n.nspname, c.relname, a.attname, "
           "pg_catalog.format_type(a.atttypid, "
           "NULL)) FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid JOIN "
           "pg_catalog.pg_namespace n ON n.oid = c.relnamespace JOIN pg_catalog.pg_type t ON t.oid = a.atttypid WHERE "
           "c.relkind IN ('r', 'p') AND c.relpersistence <> 't' AND a.attnum > 0 AND NOT a.attisdropped AND "
           "(t.typname IN ('oid', 'lo') OR (t.typname LIKE 'reg%' AND t.typnamespace = "
           "'pg_catalog'::pg_catalog.regnamespace)) "
           "AND {} ORDER BY 1",
           user_schema_condition("n")),
       "column holds an object id", "columns hold object ids",
       "oid and lo values are copied as numbers: right for large objects, which keep their ids, and wrong for anything "
       "else; reg* values are carried by name and need that object",
       "check what the application does with them"}};
  for (const Notice& notice : notices) {
    findings.ask(notice.id, [&] {
      const std::vector<std::string> names = source.texts(notice.sql);
      if (names.empty()) return findings.pass(notice.id, "no " + notice.many);
      findings.warn(notice.id, {.title = counted(names.size(), notice.one, notice.many),
                                .detail = notice.detail + ": " + listed(names, 40),
                                .remedy = notice.remedy});
    });
  }
}

// What stays behind; the cutover's report names the same.
void check_left_out(End& source, const CheckOptions& options, Findings& findings) {
  for (const outside::LeftOut& left : outside::find_left_out(source.session, options.slot)) {
    if (left.names.empty()) {
      findings.pass(left.id, "no " + left.many);
    } else {
      findings.warn(left.id, {.title = counted(left.names.size(), left.one, left.many),
                              .detail = left.detail + ": " + listed(left.names, 40),
                              .remedy = left.remedy});
    }
  }
}

void check_database_settings(End& source, Findings& findings) {
  std::vector<std::string> names;
  for (const outside::DatabaseSetting& setting : outside::read_database_settings(source.session))
    names.push_back(setting.text());
  const std::string id = "source.database_settings";
  if (names.empty()) return findings.pass(id, "no settings of ALTER DATABASE ... SET");
  findings.pass(id, counted(names.size(), "setting", "settings") + " of ALTER DATABASE ... SET",
                "the cutover sets them on the target's database, where our role may: " + listed(names, 40));
}

void check_large_objects(End& source, Findings& findings) {
  const std::string id = "source.large_objects";
  const outside::LargeObjects objects = outside::count_large_objects(source.session);
  if (objects.objects == 0) return findings.pass(id, "no large objects");
  findings.warn(
      id,
      {.title = fmt::format("{} large objects, {}", objects.objects, bytes_text(objects.bytes)),
       .detail = fmt::format(
           "logical decoding never carries them: they are copied with their ids after the tables, compared again in "
           "the cutover while writes are stopped, which reads all of them on both sides twice, and those that "
           "changed are written again{}{}",
           source.superuser ? ""
                            : ". Writes to them cannot be stopped, which only a superuser may do: let nobody write "
                              "large objects during the cutover",
           outside::may_read_pages(source.session)
               ? ""
               : ". Our role may not read pg_largeobject: each is read by itself, needs SELECT on it, and may have 1 "
                 "GB at most"),
       .remedy = "walferry cutover --dry-run measures what they add to the write stop; store them in bytea columns "
                 "where that is too long"});
}

void check_size(End& source, const CheckOptions& options, Findings& findings) {
  std::int64_t bytes = 0;
  std::size_t tables = 0;
  const Table* largest = nullptr;
  for (const Table& table : source.catalog.tables) {
    if (!table.holds_rows()) continue;
    ++tables;
    bytes += table.bytes;
    if (largest == nullptr || table.bytes > largest->bytes) largest = &table;
  }
  const std::int64_t index_bytes = source.number("SELECT coalesce(sum(pg_catalog.pg_indexes_size(c.oid)), 0)::bigint" +
                                                 from_relations("'r'") + and_selected(source, options));
  findings.pass(
      "source.size",
      fmt::format("{} with {} and {} of indexes are to be moved", counted(tables, "table", "tables"), bytes_text(bytes),
                  bytes_text(index_bytes)),
      fmt::format(
          "{}the room on the target's disk cannot be asked over SQL: provide at least {}",
          largest == nullptr ? "" : fmt::format("largest: {} ({}); ", largest->name.text(), bytes_text(largest->bytes)),
          bytes_text((bytes + index_bytes) * 3 / 2)));
  constexpr std::uint32_t pg_class = 1259;
  const LeftOutObjects left_out = objects_left_out(source.session, options.selection);
  const auto sequences = std::ranges::count_if(source.catalog.sequences, [&](const Sequence& sequence) {
    return !left_out.ids.contains({pg_class, static_cast<std::uint32_t>(sequence.oid)});
  });
  findings.pass("source.sequences", counted(static_cast<std::size_t>(sequences), "sequence is", "sequences are") +
                                        " set to the source's values at cutover");
}

}  // namespace

void check_source_tables(End& source, const CheckOptions& options, Findings& findings) {
  findings.ask("source.select", [&] { check_select(source, options, findings); });
  findings.ask("source.row_security", [&] { check_row_security(source, options, findings); });
  if (!options.adopt || options.pinned)
    findings.ask("source.publication", [&] { check_publication_right(source, options, findings); });
  findings.ask("source.lesser_rights", [&] { check_lesser_rights(source, findings); });
  findings.ask("source.fence", [&] { check_fence(source, options, findings); });
  findings.ask("source.replica_identity", [&] { check_replica_identity(source, options, findings); });
  findings.ask("source.deferrable_keys", [&] { check_deferrable_keys(source, findings); });
  findings.ask("source.triggers", [&] { check_triggers_and_rules(source, findings); });
  findings.ask("source.outside_stream", [&] { check_outside_stream(source, findings); });
  findings.ask("source.left_out", [&] { check_left_out(source, options, findings); });
  findings.ask("source.database_settings", [&] { check_database_settings(source, findings); });
  findings.ask("source.large_objects", [&] { check_large_objects(source, findings); });
  findings.ask("source.size", [&] { check_size(source, options, findings); });
}

}  // namespace walferry::check
