#include "engine/schema/roles.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "engine/catalog.hpp"
#include "engine/schema/transaction.hpp"

namespace walferry::schema {
namespace {

struct Role {
  std::string name;
  bool superuser = false;
  bool inherit = true;
  bool create_role = false;
  bool create_database = false;
  bool can_login = false;
  bool replication = false;
  bool bypass_row_security = false;
  std::string connection_limit;
  std::optional<std::string> valid_until;
  bool has_settings = false;
};

// What the role that we are on the target may hand on.
struct OwnRights {
  bool superuser = false;
  bool create_database = false;
  bool bypass_row_security = false;
};

std::string list_of_literals(const std::vector<std::string>& names) {
  std::string list;
  for (const std::string& name : names) {
    if (!list.empty()) list += ", ";
    list += pg::quote_literal(name);
  }
  return list.empty() ? "NULL" : list;
}

std::vector<std::string> first_column(const pg::Result& result) {
  std::vector<std::string> values;
  for (int row = 0; row < result.rows(); ++row) values.push_back(result.str(row, 0));
  return values;
}

std::vector<Role> read_roles(pg::Session& source, const std::vector<std::string>& names) {
  const pg::Result rows = source.exec(fmt::format(
      "SELECT rolname, rolsuper, rolinherit, rolcreaterole, rolcreatedb, rolcanlogin, rolreplication, rolbypassrls, "
      "rolconnlimit, "
      "rolvaliduntil, EXISTS (SELECT FROM pg_catalog.pg_db_role_setting s WHERE s.setrole = r.oid AND s.setdatabase = "
      "0) "
      "FROM pg_catalog.pg_roles r WHERE rolname IN ({}) ORDER BY rolname COLLATE \"C\"",
      list_of_literals(names)));
  std::vector<Role> roles;
  for (int row = 0; row < rows.rows(); ++row) {
    Role role;
    role.name = rows.str(row, 0);
    role.superuser = rows.flag(row, 1);
    role.inherit = rows.flag(row, 2);
    role.create_role = rows.flag(row, 3);
    role.create_database = rows.flag(row, 4);
    role.can_login = rows.flag(row, 5);
    role.replication = rows.flag(row, 6);
    role.bypass_row_security = rows.flag(row, 7);
    role.connection_limit = rows.str(row, 8);
    role.valid_until = rows.maybe(row, 9);
    role.has_settings = rows.flag(row, 10);
    roles.push_back(std::move(role));
  }
  return roles;
}

OwnRights read_own_rights(pg::Session& target) {
  const pg::Result row = target.exec(
      "SELECT rolsuper, rolsuper OR rolcreatedb, rolsuper OR rolbypassrls FROM pg_catalog.pg_roles "
      "WHERE rolname = current_user");
  return {.superuser = row.flag(0, 0), .create_database = row.flag(0, 1), .bypass_row_security = row.flag(0, 2)};
}

std::string create_statement(const Role& role, const OwnRights& rights) {
  std::string sql = "CREATE ROLE " + pg::quote_name(role.name);
  sql += role.can_login ? " LOGIN" : " NOLOGIN";
  sql += role.inherit ? " INHERIT" : " NOINHERIT";
  if (role.create_role) sql += " CREATEROLE";
  if (role.create_database && rights.create_database) sql += " CREATEDB";
  if (role.bypass_row_security && rights.bypass_row_security) sql += " BYPASSRLS";
  sql += " CONNECTION LIMIT " + role.connection_limit;
  if (role.valid_until) sql += " VALID UNTIL " + pg::quote_literal(*role.valid_until);
  return sql;
}

std::vector<std::string> remarks_on(const Role& role, const OwnRights& rights) {
  const std::string quoted = pg::quote_name(role.name);
  std::vector<std::string> remarks;
  if (role.can_login) {
    remarks.push_back(
        fmt::format("role {} was created without a password: ALTER ROLE {} PASSWORD '...' on the target, or "
                    "\\password in psql",
                    quoted, quoted));
  }
  const auto not_carried = [&](std::string_view attribute, std::string_view why) {
    remarks.push_back(fmt::format("role {} was created without {} ({}): ALTER ROLE {} {} on the target if it needs it",
                                  quoted, attribute, why, quoted, attribute));
  };
  if (role.superuser) not_carried("SUPERUSER", "never carried");
  if (role.replication) not_carried("REPLICATION", "never carried");
  if (role.create_database && !rights.create_database)
    not_carried("CREATEDB", "our role on the target may not grant it");
  if (role.bypass_row_security && !rights.bypass_row_security) {
    not_carried("BYPASSRLS", "our role on the target may not grant it");
  }
  if (role.has_settings) {
    remarks.push_back(
        fmt::format("role {} has settings for every database on the source (ALTER ROLE ... SET) that were not "
                    "carried: set them on the target",
                    quoted));
  }
  return remarks;
}

// Memberships between needed roles, and of the groups between them, where at least one end has just been created. From
// 16 on each says whether its rights are inherited and whether the role may be taken on.
// What an older target cannot say is not granted: it would be more. Returned, a sentence each.
std::vector<std::string> grant_memberships(pg::Session& source, pg::Session& target,
                                           const std::vector<std::string>& needed,
                                           const std::vector<std::string>& created) {
  constexpr int options_from = 160'000;
  const bool has_options = source.server_version() >= options_from;
  const std::string created_list = list_of_literals(created);
  const pg::Result rows = source.exec(
      fmt::format("SELECT g.rolname, m.rolname, bool_or(a.admin_option), {2} FROM pg_catalog.pg_auth_members a "
                  "JOIN pg_catalog.pg_roles g ON g.oid = a.roleid JOIN pg_catalog.pg_roles m ON m.oid = a.member "
                  "WHERE m.rolname IN ({0}) AND (g.rolname IN ({0}) OR g.rolname LIKE 'pg\\_%') "
                  "AND (g.rolname IN ({1}) OR m.rolname IN ({1})) GROUP BY 1, 2 ORDER BY 1, 2",
                  list_of_literals(needed), created_list,
                  has_options ? "bool_or(a.inherit_option), bool_or(a.set_option)" : "true, true"));
  std::vector<std::string> left;
  for (int row = 0; row < rows.rows(); ++row) {
    const std::string group = pg::quote_name(rows.text(row, 0));
    const std::string member = pg::quote_name(rows.text(row, 1));
    const bool exists =
        target.exec("SELECT FROM pg_catalog.pg_roles WHERE rolname = " + pg::quote_literal(rows.text(row, 0))).rows() >
        0;
    if (!exists) continue;  // a predefined role of another major
    std::string with = rows.flag(row, 2) ? " WITH ADMIN OPTION" : "";
    if (has_options && target.server_version() >= options_from) {
      const auto word = [&](int column) { return rows.flag(row, column) ? "TRUE" : "FALSE"; };
      with = fmt::format(" WITH ADMIN {}, INHERIT {}, SET {}", word(2), word(3), word(4));
    } else if (!rows.flag(row, 3) || !rows.flag(row, 4)) {
      left.push_back(
          fmt::format("{} is not a member of {} on the target, whose version knows no membership without "
                      "INHERIT or SET: GRANT it there if that is meant",
                      member, group));
      continue;
    }
    target.exec("SAVEPOINT membership");
    try {
      target.exec(fmt::format("GRANT {} TO {}{}", group, member, with));
    } catch (const Error& error) {
      if (error.sqlstate() != "42501" && error.sqlstate() != "0LP01") throw;
      target.exec("ROLLBACK TO SAVEPOINT membership");
      left.push_back(fmt::format("{} was not made a member of {}: {}", member, group, error.what()));
    }
    target.exec("RELEASE SAVEPOINT membership");
  }
  return left;
}

std::string grant_to_ourselves(pg::Session& target, const std::string& role) {
  return fmt::format("GRANT {} TO CURRENT_USER{}", pg::quote_name(role),
                     target.server_version() >= 160'000 ? " WITH INHERIT TRUE, SET TRUE" : "");
}

// From 16 on whoever creates a role may administer it, which is not yet to own things in its name.
void take_granted_roles(pg::Session& target, const std::vector<std::string>& needed) {
  if (target.server_version() < 160'000) return;
  const std::vector<std::string> roles = first_column(target.exec(
      fmt::format("SELECT rolname FROM pg_catalog.pg_roles WHERE rolname IN ({}) AND rolname <> current_user AND "
                  "pg_catalog.pg_has_role(current_user, oid, 'MEMBER WITH ADMIN OPTION') AND NOT "
                  "(pg_catalog.pg_has_role(current_user, oid, 'SET') AND pg_catalog.pg_has_role(current_user, oid, "
                  "'USAGE'))",
                  list_of_literals(needed))));
  for (const std::string& role : roles) target.exec(grant_to_ourselves(target, role));
}

}  // namespace

std::vector<std::string> needed_roles(pg::Session& source) {
  // The bootstrap superuser is pinned and so in no pg_shdepend row: it counts when it owns something of a user's.
  // A group that lies between two of them passes rights on.
  return first_column(
      source.exec(fmt::format(R"(
WITH RECURSIVE here AS (
  SELECT oid, datdba FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()),
needed AS (
SELECT r.oid FROM pg_catalog.pg_roles r
WHERE r.rolname NOT LIKE 'pg\_%' AND (
  r.oid IN (SELECT d.refobjid FROM pg_catalog.pg_shdepend d, here
            WHERE d.refclassid = 'pg_catalog.pg_authid'::pg_catalog.regclass
              AND (d.dbid = here.oid OR (d.dbid = 0 AND d.classid = 'pg_catalog.pg_database'::pg_catalog.regclass
                                         AND d.objid = here.oid)))
  OR r.oid = (SELECT datdba FROM here)
  OR (r.oid = 10 AND (
    EXISTS (SELECT FROM pg_catalog.pg_namespace n WHERE n.nspowner = r.oid AND {0})
    OR EXISTS (SELECT FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
               WHERE c.relowner = r.oid AND {0})
    OR EXISTS (SELECT FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
               WHERE p.proowner = r.oid AND {0})
    OR EXISTS (SELECT FROM pg_catalog.pg_type t JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace
               WHERE t.typowner = r.oid AND {0}))))),
above(oid) AS (
  SELECT oid FROM needed
  UNION SELECT m.roleid FROM pg_catalog.pg_auth_members m JOIN above ON m.member = above.oid{1}),
below(oid) AS (
  SELECT oid FROM needed
  UNION SELECT m.member FROM pg_catalog.pg_auth_members m JOIN below ON m.roleid = below.oid{1})
SELECT r.rolname FROM pg_catalog.pg_roles r
WHERE r.oid IN (SELECT oid FROM needed)
   OR (r.rolname NOT LIKE 'pg\_%' AND r.oid IN (SELECT oid FROM above) AND r.oid IN (SELECT oid FROM below))
ORDER BY r.rolname COLLATE "C")",
                              user_schema_condition("n"),
                              source.server_version() >= 160'000 ? " WHERE m.inherit_option OR m.set_option" : "")));
}

std::vector<std::string> missing_roles(pg::Session& source, pg::Session& target) {
  std::vector<std::string> names = needed_roles(source);
  const std::vector<std::string> there = first_column(
      target.exec("SELECT rolname FROM pg_catalog.pg_roles WHERE rolname IN (" + list_of_literals(names) + ")"));
  const std::set<std::string> known{there.begin(), there.end()};
  std::erase_if(names, [&known](const std::string& name) { return known.contains(name); });
  return names;
}

std::vector<CreatedRole> create_missing_roles(pg::Session& source, pg::Session& target) {
  const std::vector<std::string> missing = missing_roles(source, target);
  std::vector<CreatedRole> created;
  try {
    const OwnRights rights = read_own_rights(target);
    if (!rights.superuser) take_granted_roles(target, needed_roles(source));
    if (missing.empty()) return created;
    Transaction transaction{target};
    for (const Role& role : read_roles(source, missing)) {
      target.exec(create_statement(role, rights));
      // To give objects to the role we must be a member of it; a superuser need not.
      if (!rights.superuser) target.exec(grant_to_ourselves(target, role.name));
      created.push_back({role.name, remarks_on(role, rights)});
    }
    for (std::string& left : grant_memberships(source, target, needed_roles(source), missing))
      created.back().remarks.push_back(std::move(left));
    transaction.commit();
  } catch (const Error& error) {
    if (error.sqlstate() != "42501") throw error.during("creating the roles of the source on the target");
    throw Error{
        {error.kind(), error.side(), error.sqlstate()},
        fmt::format(
            "creating the roles of the source on the target: {}. Remedy: connect as a role with CREATEROLE, create "
            "them by hand ({}), or leave owners and grants out",
            error.what(), fmt::join(missing, ", "))};
  }
  return created;
}

}  // namespace walferry::schema
