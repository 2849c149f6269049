// What only both sides together show: direction, versions, tools, encodings, extensions, roles, and a schema made
// beforehand.
#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <optional>
#include <set>

#include "engine/adoption.hpp"
#include "engine/check/sections.hpp"
#include "engine/outside/large_objects.hpp"
#include "engine/schema/pg_tools.hpp"
#include "engine/schema/roles.hpp"

namespace walferry::check {
namespace {

std::string end_text(const DatabaseIdentity& end) {
  return fmt::format("database {} (oid {}) of system {}", end.database, end.database_oid, end.system_identifier);
}

bool has_slot(End& end, const std::string& slot) {
  return end.number("SELECT count(*) FROM pg_catalog.pg_replication_slots WHERE slot_name = " +
                    pg::quote_literal(slot)) > 0;
}

void check_direction(End& source, End& target, const CheckOptions& options, Findings& findings) {
  const std::string id = "pair.direction";
  if (options.pinned) {
    const PinnedEnds& pinned = *options.pinned;
    const bool source_same = pinned.source.same_database(source.identity);
    const bool target_same = pinned.target.same_database(target.identity);
    // An adopted physical copy bears the source's identity: the slot is on the source alone.
    const bool one_identity = source.identity.same_database(target.identity);
    const bool other_way = one_identity && has_slot(target, options.slot) && !has_slot(source, options.slot);
    if (one_identity && same_server(source.session, target.session)) {
      return findings.fail(id, {.title = "source and target are the same database",
                                .detail = end_text(source.identity) + "; it is the same running server",
                                .remedy = "correct --source or --target"});
    }
    if (source_same && target_same && !other_way)
      return findings.pass(id, "both ends are those that the state directory belongs to");
    if (other_way || (pinned.source.same_database(target.identity) && pinned.target.same_database(source.identity))) {
      return findings.fail(
          id, {.title = "source and target are swapped",
               .detail = "the state directory says that this source is the target of the migration, and the "
                         "other way round; going on would overwrite the source",
               .remedy = "exchange --source and --target"});
    }
    return findings.fail(
        id, {.title = fmt::format("{} not what the state directory belongs to", !source_same && !target_same
                                                                                    ? "both ends are"
                                                                                : !source_same ? "the source is"
                                                                                               : "the target is"),
             .detail = fmt::format("pinned: source {}, target {}; now: source {}, target {}", end_text(pinned.source),
                                   end_text(pinned.target), end_text(source.identity), end_text(target.identity)),
             .remedy = "correct --source and --target, or use another --state-dir for another migration"});
  }
  if (source.identity.same_database(target.identity)) {
    const bool same = same_server(source.session, target.session);
    if (!same && options.adopt)
      return findings.pass(id, "the target is a physical copy of the source, on a server of its own");
    return findings.fail(
        id, {.title = "source and target are the same database",
             .detail = fmt::format("{}; {}", end_text(source.identity),
                                   same ? "it is the same running server"
                                        : "they are different servers, so one is a physical copy of the other "
                                          "(a standby, or restored from a base backup)"),
             .remedy = same ? "name another server or database with --target"
                            : "take a promoted copy over with --adopt (`walferry run --adopt` says how), or create the "
                              "target with initdb and let walferry copy the data"});
  }
  if (source.identity.system_identifier == target.identity.system_identifier) {
    return findings.warn(id,
                         {.title = "source and target are databases of one cluster",
                          .detail = "that works, but shares disk, memory and slots, and moves nothing to another major",
                          .remedy = "check that --target names the server that you mean"});
  }
  findings.pass(id, "source and target are different clusters");
}

void check_versions(const End& source, const End& target, Findings& findings) {
  const std::string id = "pair.versions";
  if (target.major() >= source.major()) {
    return findings.pass(id, fmt::format("from PostgreSQL {} to {}", source.major(), target.major()));
  }
  findings.warn(id,
                {.title = fmt::format("the target is older: from PostgreSQL {} to {}", source.major(), target.major()),
                 .detail = "a schema that uses what the older server does not know cannot be created there",
                 .remedy = "try the schema first: walferry run --until copied against a scratch target"});
}

void check_tools(const End& source, const End& target, const CheckOptions& options, Findings& findings) {
  const std::string id = "pair.pg_dump";
  if (options.no_schema) return;
  const std::optional<schema::PgTools> tools =
      schema::find_pg_tools(options.pg_bin_dir, {.source = source.major(), .target = target.major()});
  const int wanted = std::max(source.major(), target.major());
  if (!tools) {
    return findings.fail(
        id, {.title = fmt::format("no pg_dump and pg_restore of PostgreSQL {} or newer", source.major()),
             .detail = "pg_dump refuses a server that is newer than itself; found: " +
                       schema::describe_pg_tools(schema::list_pg_tools(options.pg_bin_dir)),
             .remedy = fmt::format("apt-get install postgresql-client-{}   (apt.postgresql.org), or name their folder: "
                                   "--pg-bin-dir /usr/lib/postgresql/{}/bin, or bring the schema yourself: --no-schema",
                                   wanted, wanted)});
  }
  const std::string found = fmt::format("pg_dump {} serves ({})", tools->major, tools->dump.string());
  if (tools->major <= target.major()) return findings.pass(id, found);
  findings.warn(id,
                {.title = found + ", but is newer than the target",
                 .detail = "it may write settings or clauses that the older server does not know",
                 .remedy = fmt::format("install postgresql-client-{} and name its folder with --pg-bin-dir", wanted)});
}

void check_encoding(const End& source, const End& target, Findings& findings) {
  const std::string id = "pair.encoding";
  const std::string& from = source.identity.encoding;
  const std::string& to = target.identity.encoding;
  const std::string create = fmt::format("CREATE DATABASE ... TEMPLATE template0 ENCODING '{}';", from);
  if (from == to && from != "SQL_ASCII") return findings.pass(id, fmt::format("both ends are encoded in {}", from));
  if (from == "SQL_ASCII" || to == "SQL_ASCII") {
    return findings.warn(
        id, {.title = fmt::format("an end is encoded in SQL_ASCII (source {}, target {})", from, to),
             .detail = "such a database stores bytes of any encoding; those that are not valid in the other end's "
                       "encoding stop the migration at the row that holds them",
             .remedy = from == to ? "nothing if both ends are to stay so" : create});
  }
  findings.warn(
      id, {.title = fmt::format("encodings differ: source {}, target {}", from, to),
           .detail = "text is converted; a character that the target's encoding lacks stops the migration at its row",
           .remedy = to == "UTF8" ? "nothing: every character exists in UTF8" : create});
}

std::string locale_of(End& end) {
  std::string sql = "SELECT 'collate ' || datcollate || ', ctype ' || datctype";
  if (end.major() >= 15) {
    sql += " || ', provider ' || CASE datlocprovider WHEN 'c' THEN 'libc' WHEN 'i' THEN 'icu' ELSE 'builtin' END";
    sql += fmt::format(" || coalesce(', locale ' || {}, '')", end.major() >= 17 ? "datlocale" : "daticulocale");
    sql += " || coalesce(', version ' || datcollversion, '')";
  } else {
    sql += " || ', provider libc'";
  }
  return end.texts(sql + " FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()").at(0);
}

void check_locale(End& source, End& target, Findings& findings) {
  const std::string id = "pair.locale";
  const std::string from = locale_of(source);
  const std::string to = locale_of(target);
  if (from == to) return findings.pass(id, "both ends have the same locale: " + from);
  // Before 15 a database did not record its collation's version; that alone is no difference.
  const std::string to_without_version = to.substr(0, to.find(", version "));
  if (source.major() < 15 && from == to_without_version) {
    return findings.pass(id, "both ends have the same locale: " + from,
                         "the source records no collation version to compare");
  }
  findings.warn(
      id,
      {.title = "locales differ",
       .detail = fmt::format("source: {}\ntarget: {}\nindexes are built anew and are right; ORDER BY, ranges of text "
                             "partitions and CHECKs that compare text may come out otherwise",
                             from, to),
       .remedy =
           "if the order matters: CREATE DATABASE ... TEMPLATE template0 with the source's LC_COLLATE, LC_CTYPE and "
           "LOCALE_PROVIDER"});
}

void check_extensions(End& source, End& target, const CheckOptions& options, Findings& findings) {
  const std::string id = "pair.extensions";
  const pg::Result wanted = source.session.exec(
      "SELECT extname, extversion FROM pg_catalog.pg_extension WHERE extname <> 'plpgsql' ORDER BY 1");
  std::map<std::string, std::pair<std::string, std::string>> offered;  // default version, installed version
  const pg::Result available = target.session.exec(
      "SELECT name, coalesce(default_version, ''), coalesce(installed_version, '') FROM "
      "pg_catalog.pg_available_extensions");
  for (int row = 0; row < available.rows(); ++row) {
    offered[available.str(row, 0)] = {available.str(row, 1), available.str(row, 2)};
  }
  bool all_good = true;
  for (int row = 0; row < wanted.rows(); ++row) {
    const std::string name = wanted.str(row, 0);
    const std::string version = wanted.str(row, 1);
    const auto offer = offered.find(name);
    if (offer == offered.end()) {
      all_good = false;
      findings.fail(id,
                    {.title = fmt::format("extension {} is not available on the target", name),
                     .detail = fmt::format("the source has version {}; the target server has no files of it", version),
                     .remedy = fmt::format(
                         "install its package for PostgreSQL {} on the target's host, or DROP EXTENSION {}; on the "
                         "source if nothing uses it",
                         target.major(), pg::quote_name(name))});
      continue;
    }
    const auto& [default_version, installed] = offer->second;
    if (options.no_schema && installed.empty()) {
      all_good = false;
      findings.fail(id, {.title = fmt::format("extension {} is not installed on the target", name),
                         .detail = "with --no-schema walferry creates nothing",
                         .remedy = fmt::format("CREATE EXTENSION {};", pg::quote_name(name))});
    } else if (const std::string& there = installed.empty() ? default_version : installed; there != version) {
      all_good = false;
      findings.warn(
          id, {.title = fmt::format("extension {} is {} on the source and {} on the target", name, version, there),
               .detail = "values travel as text; a changed text form or a dropped function of it would show",
               .remedy = fmt::format("if it matters: ALTER EXTENSION {} UPDATE TO '<version>'; on one of the sides",
                                     pg::quote_name(name))});
    }
  }
  if (!all_good) return;
  if (wanted.rows() == 0) return findings.pass(id, "the source uses no extensions");
  findings.pass(id, counted(static_cast<std::size_t>(wanted.rows()), "extension", "extensions") +
                        " of the source, of the same version on the target");
}

void check_roles(End& source, End& target, const CheckOptions& options, Findings& findings) {
  const std::string id = "pair.roles";
  if (!options.owners) return findings.pass(id, "no role is needed: everything will belong to " + target.role);
  const std::vector<std::string> missing = schema::missing_roles(source.session, target.session);
  const bool may_create =
      target.superuser ||
      target.session.exec("SELECT rolcreaterole FROM pg_catalog.pg_roles WHERE rolname = current_user").flag(0, 0);
  if (!missing.empty()) {
    std::vector<std::string> remedies;
    for (const std::string& role : missing)
      remedies.push_back(fmt::format("CREATE ROLE {} LOGIN PASSWORD '...';", pg::quote_name(role)));
    const bool created = may_create && !options.no_schema;
    findings.add(
        created || options.no_schema ? Severity::Warn : Severity::Fail, id,
        {.title = counted(missing.size(), "role is", "roles are") + " missing on the target: " + listed(missing),
         .detail = created ? "they own objects or have rights on the source; walferry creates them without a password"
                           : "they own objects or have rights on the source",
         .remedy =
             (created ? "set their passwords on the target before cutover: \\password <role>, or create them now:\n"
                      : "on the target:\n") +
             listed(remedies, 40, "\n")});
  } else {
    findings.pass(id, "every role that owns or uses something exists on the target");
  }
  if (target.superuser || options.no_schema || !options.owners) return;
  // Giving an object to its owner needs membership in that role, from 16 on one that lets it be taken on. Who may grant
  // the role to himself does so (schema::create_missing_roles).
  const std::string_view is_member =
      target.session.server_version() >= 160'000
          ? "pg_catalog.pg_has_role(current_user, oid, 'SET') AND pg_catalog.pg_has_role(current_user, oid, 'USAGE') "
            "OR pg_catalog.pg_has_role(current_user, oid, 'MEMBER WITH ADMIN OPTION')"
          : "pg_catalog.pg_has_role(current_user, oid, 'MEMBER')";
  std::vector<std::string> lacking;
  std::vector<std::string> remedies;
  for (const std::string& role : schema::needed_roles(source.session)) {
    const pg::Result row = target.session.exec(fmt::format(
        "SELECT {}, rolsuper FROM pg_catalog.pg_roles WHERE rolname = {}", is_member, pg::quote_literal(role)));
    if (row.rows() == 0 || row.flag(0, 0)) continue;
    lacking.push_back(role);
    // Membership in a superuser's role is no remedy to propose.
    remedies.push_back(row.flag(0, 1)
                           ? fmt::format("connect as a superuser, or give what {} owns to another role", role)
                           : fmt::format("GRANT {} TO {};", pg::quote_name(role), pg::quote_name(target.role)));
  }
  if (lacking.empty()) return;
  findings.warn("pair.owners", {.title = fmt::format("{} is not a member of {}", target.role, listed(lacking)),
                                .detail = "ALTER ... OWNER TO them would be refused when the schema is created",
                                .remedy = "on the target:\n" + listed(remedies, 40, "\n")});
}

void check_tablespaces(End& source, End& target, const CheckOptions& options, Findings& findings) {
  if (options.no_schema) return;
  const std::vector<std::string> used = source.texts(fmt::format(
      "SELECT DISTINCT s.spcname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_tablespace s ON s.oid = c.reltablespace "
      "JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE {} ORDER BY 1",
      user_schema_condition("n")));
  const std::vector<std::string> there = target.texts(
      "SELECT spcname FROM pg_catalog.pg_tablespace WHERE pg_catalog.has_tablespace_privilege(oid, 'CREATE')");
  std::vector<std::string> missing;
  for (const std::string& name : used) {
    if (std::find(there.begin(), there.end(), name) == there.end()) missing.push_back(name);
  }
  if (missing.empty()) return;
  findings.warn(
      "pair.tablespaces",
      {.title = "tablespaces that are missing on the target, or that our role may not use: " + listed(missing),
       .detail = "tables or indexes of the source lie in them; on the target they come to lie in the "
                 "database's own tablespace",
       .remedy = "if that is not meant, before the migration begins: CREATE TABLESPACE <name> LOCATION "
                 "'<directory>'; GRANT CREATE ON TABLESPACE <name> TO <our role>; on the target"});
}

void check_partitions(const End& source, const End& target, Findings& findings) {
  const std::set<QualifiedName> as_one = partitioned_differently(source.catalog, target.catalog);
  if (as_one.empty()) return;
  std::vector<std::string> names;
  for (const QualifiedName& root : as_one) names.push_back(root.text());
  findings.warn("pair.partitions",
                {.title = counted(as_one.size(), "table is", "tables are") +
                          " partitioned differently on the target, or by the hash of an enum, or of a text whose "
                          "encoding differs",
                 .detail = "all partitioned tables are then published and copied as a whole "
                           "(publish_via_partition_root), by one connection each: " +
                           listed(names, 40),
                 .remedy = "nothing; each partitioned table of the source needs a primary key of its own"});
}

// With --no-schema: what the source has must be there under the same names.
void check_schema_made_beforehand(const End& source, const End& target, Findings& findings) {
  const std::string id = "pair.tables";
  std::vector<std::string> missing;
  std::vector<std::string> columns;
  std::vector<std::string> types;
  std::vector<std::string> generated;
  const std::set<QualifiedName> as_one = partitioned_differently(source.catalog, target.catalog);
  for (const Table& table : source.catalog.tables) {
    if (table.partition && as_one.contains(table.root)) continue;
    const Table* counterpart = target.catalog.find(table.name);
    if (counterpart == nullptr) {
      missing.push_back(table.name.text());
      continue;
    }
    for (const Column& column : table.columns) {
      const auto same = std::ranges::find(counterpart->columns, column.name, &Column::name);
      const std::string name = table.name.text() + "." + column.name;
      if (same == counterpart->columns.end()) {
        columns.push_back(name);
        continue;
      }
      if (same->type_name != column.type_name)
        types.push_back(fmt::format("{} ({} / {})", name, column.type_name, same->type_name));
      if (same->generated != column.generated) generated.push_back(name);
    }
  }
  if (!missing.empty() || !columns.empty()) {
    findings.fail(
        id, {.title = fmt::format("the target lacks {} and {}", counted(missing.size(), "table", "tables"),
                                  counted(columns.size(), "column", "columns")),
             .detail = fmt::format("{}{}{}", missing.empty() ? "" : "tables: " + listed(missing, 40),
                                   !missing.empty() && !columns.empty() ? "\n" : "",
                                   columns.empty() ? "" : "columns: " + listed(columns, 40)),
             .remedy = "create them as they are on the source (pg_dump --schema-only), or leave --no-schema out"});
  }
  if (!generated.empty()) {
    findings.fail(id, {.title = counted(generated.size(), "column is", "columns are") + " generated on one end only",
                       .detail = "the source sends no values of its generated columns, and the target takes none for "
                                 "its own: " +
                                 listed(generated, 40),
                       .remedy = "make the target's column as the source's is: GENERATED ALWAYS AS (...), before 18 "
                                 "STORED; or an ordinary one"});
  }
  if (!types.empty()) {
    findings.warn(
        "pair.types",
        {.title = counted(types.size(), "column has", "columns have") + " another type on the target",
         .detail = "values travel as text and must fit (source / target): " + listed(types, 40),
         .remedy = "ALTER TABLE <table> ALTER COLUMN <column> TYPE <the source's type>; if that was not meant"});
  }
  if (missing.empty() && columns.empty() && types.empty() && generated.empty())
    findings.pass(id, "the target has every table and column of the source");
}

// With the schema still to be created: a name that is taken would stop it half-way.
void check_name_collisions(const End& source, const End& target, const CheckOptions& options, Findings& findings) {
  if (options.pinned) return;
  std::vector<std::string> taken;
  for (const Table& table : source.catalog.tables) {
    if (target.catalog.find(table.name) != nullptr) taken.push_back(table.name.text());
  }
  if (taken.empty()) return;
  findings.fail("pair.names",
                {.title = counted(taken.size(), "table exists", "tables exist") + " on both sides already",
                 .detail = "creating the schema would stop at the first one: " + listed(taken, 40),
                 .remedy = "if the schema was restored beforehand: --no-schema; else drop them on the target or "
                           "create an empty database"});
}

// Objects that no other right than a superuser's creates.
void check_superuser_objects(End& source, End& target, const CheckOptions& options, Findings& findings) {
  const std::string id = "pair.superuser_objects";
  if (target.superuser || options.no_schema) return;
  constexpr std::string_view not_of_an_extension =
      "NOT EXISTS (SELECT FROM pg_catalog.pg_depend e WHERE e.classid = {}::pg_catalog.regclass AND e.objid = o.oid "
      "AND "
      "e.deptype = 'e')";
  const auto own = [&](std::string_view catalog) {
    return fmt::format(not_of_an_extension, pg::quote_literal(catalog));
  };
  const std::string user_schema = user_schema_condition("n");
  std::vector<std::string> found = source.texts(fmt::format(
      "SELECT 'foreign data wrapper ' || pg_catalog.quote_ident(o.fdwname) FROM pg_catalog.pg_foreign_data_wrapper o "
      "WHERE {} UNION ALL SELECT 'function ' || o.oid::pg_catalog.regprocedure::text FROM pg_catalog.pg_proc o JOIN "
      "pg_catalog.pg_language l ON l.oid = o.prolang AND NOT l.lanpltrusted JOIN pg_catalog.pg_namespace n ON n.oid = "
      "o.pronamespace WHERE {} AND {} UNION ALL SELECT 'type ' || pg_catalog.format('%I.%I', n.nspname, o.typname) "
      "FROM "
      "pg_catalog.pg_type o JOIN pg_catalog.pg_namespace n ON n.oid = o.typnamespace WHERE o.typtype = 'b' AND "
      "o.typcategory <> 'A' AND {} AND {} ORDER BY 1",
      own("pg_catalog.pg_foreign_data_wrapper"), user_schema, own("pg_catalog.pg_proc"), user_schema,
      own("pg_catalog.pg_type")));
  for (const std::string& name : source.texts("SELECT extname FROM pg_catalog.pg_extension ORDER BY 1")) {
    const pg::Result row =
        target.session.exec(fmt::format("SELECT bool_and(v.superuser AND NOT v.trusted), bool_or(v.installed) FROM "
                                        "pg_catalog.pg_available_extension_versions v WHERE v.name = {}",
                                        pg::quote_literal(name)));
    if (row.flag(0, 0) && !row.flag(0, 1)) found.push_back("extension " + name);
  }
  if (found.empty()) {
    findings.pass(id, "nothing in the schema needs a superuser on the target");
  } else {
    findings.fail(id,
                  {.title = counted(found.size(), "object", "objects") + " can be created by a superuser only",
                   .detail = fmt::format("{} is none: {}", target.role, listed(found, 40)),
                   .remedy = "let an administrator create extensions on the target beforehand (they are then left as "
                             "they are); for the others connect to the target as a superuser, or bring the schema "
                             "yourself: --no-schema"});
  }
  const std::vector<std::string> events =
      source.texts(fmt::format("SELECT pg_catalog.quote_ident(o.evtname) FROM pg_catalog.pg_event_trigger o WHERE {} "
                               "AND o.evtfoid NOT IN (SELECT p.oid FROM pg_catalog.pg_proc p WHERE p.pronamespace = "
                               "pg_catalog.to_regnamespace('walferry')) ORDER BY 1",
                               own("pg_catalog.pg_event_trigger")));
  if (events.empty()) return;
  findings.warn("pair.event_triggers",
                {.title = counted(events.size(), "event trigger is", "event triggers are") + " left out",
                 .detail = "only a superuser may create them on the target: " + listed(events, 40),
                 .remedy = "let an administrator create them after the cutover"});
}

// Large objects keep their ids, which are numbers that another database may have given away as well.
void check_large_objects(End& source, End& target, const CheckOptions& options, Findings& findings) {
  const std::string id = "pair.large_objects";
  if (options.pinned || options.adopt) return;
  const outside::LargeObjects there = outside::count_large_objects(target.session);
  if (there.objects == 0) return findings.pass(id, "the target holds no large objects");
  const std::vector<std::string> common = outside::common_large_objects(source.session, target.session);
  if (!common.empty()) {
    return findings.fail(
        id, {.title = counted(common.size(), "large object has", "large objects have") + " the same id on both sides",
             .detail = "walferry overwrites none that is not its own: " + listed(common),
             .remedy = "SELECT lo_unlink(<id>); on the target for those it does not need"});
  }
  findings.add(options.allow_nonempty_target ? Severity::Warn : Severity::Fail, id,
               {.title = fmt::format("the target holds {} large objects", there.objects),
                .detail = "objects of the target's own stay, and would be a difference to the source",
                .remedy = "create an empty database for the target, or say --allow-nonempty-target if that is meant"});
}

}  // namespace

void check_pair(End& source, End& target, const CheckOptions& options, Findings& findings) {
  findings.ask("pair.direction", [&] { check_direction(source, target, options, findings); });
  check_versions(source, target, findings);
  findings.ask("pair.pg_dump", [&] { check_tools(source, target, options, findings); });
  check_encoding(source, target, findings);
  findings.ask("pair.locale", [&] { check_locale(source, target, findings); });
  findings.ask("pair.extensions", [&] { check_extensions(source, target, options, findings); });
  findings.ask("pair.roles", [&] { check_roles(source, target, options, findings); });
  findings.ask("pair.tablespaces", [&] { check_tablespaces(source, target, options, findings); });
  findings.ask("pair.superuser_objects", [&] { check_superuser_objects(source, target, options, findings); });
  findings.ask("pair.large_objects", [&] { check_large_objects(source, target, options, findings); });
  check_partitions(source, target, findings);
  if (options.no_schema) {
    check_schema_made_beforehand(source, target, findings);
  } else {
    check_name_collisions(source, target, options, findings);
  }
}

}  // namespace walferry::check
