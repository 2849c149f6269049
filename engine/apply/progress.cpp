#include "engine/apply/progress.hpp"

#include <fmt/format.h>

namespace walferry::apply {
namespace {

using pg::quote_literal;

constexpr std::string_view row_table = "walferry.progress";

bool origin_functions_granted(pg::Session& target) {
  return target
      .exec(
          "SELECT pg_catalog.bool_and(pg_catalog.has_function_privilege(p.oid, 'EXECUTE')) FROM pg_catalog.pg_proc p "
          "WHERE p.pronamespace = 'pg_catalog'::pg_catalog.regnamespace AND p.proname IN "
          "('pg_replication_origin_create', "
          "'pg_replication_origin_advance', 'pg_replication_origin_session_setup', "
          "'pg_replication_origin_session_reset', "
          "'pg_replication_origin_xact_setup', "
          "'pg_replication_origin_progress', 'pg_replication_origin_session_progress', 'pg_replication_origin_drop')")
      .flag(0, 0);
}

bool row_exists(pg::Session& target, const std::string& name) {
  if (!target.exec("SELECT pg_catalog.to_regclass('walferry.progress') IS NOT NULL").flag(0, 0)) return false;
  return target
      .exec(fmt::format("SELECT EXISTS (SELECT 1 FROM {} WHERE migration = {})", row_table, quote_literal(name)))
      .flag(0, 0);
}

// Of the names of its lanes' origins; a slot's name holds no space.
std::string lane_prefix(const std::string& name) {
  return name + " lane ";
}

}  // namespace

std::optional<Progress> Progress::find(pg::Session& target, const std::string& name) {
  const bool origin =
      target
          .exec(fmt::format("SELECT EXISTS (SELECT 1 FROM pg_catalog.pg_replication_origin WHERE roname = {})",
                            quote_literal(name)))
          .flag(0, 0);
  if (origin) return Progress{ProgressKind::Origin, name};
  if (row_exists(target, name)) return Progress{ProgressKind::Row, name};
  return std::nullopt;
}

Progress Progress::of(pg::Session& target, const std::string& name) {
  if (auto found = find(target, name)) return *std::move(found);
  throw Error{
      {ErrorKind::Refused, Side::Target},
      fmt::format("the target knows nothing of migration {}: its replication origin is gone. Nothing was changed. "
                  "Remedy: if the target was restored or replaced, abort and begin anew",
                  name)};
}

Progress Progress::prepare(pg::Session& target, const std::string& name, Lsn start) {
  if (const auto found = find(target, name)) {
    // Left by a run that died right here: nothing has been applied yet, and the slot is a new one.
    target.exec(found->kind == ProgressKind::Origin
                    ? fmt::format("SELECT pg_catalog.pg_replication_origin_advance({}, '{}')", quote_literal(name),
                                  start.to_string())
                    : fmt::format("UPDATE {} SET lsn = '{}' WHERE migration = {}", row_table, start.to_string(),
                                  quote_literal(name)));
    return *found;
  }
  if (origin_functions_granted(target)) {
    try {
      // One transaction, so that an origin without a position is never seen.
      target.exec(
          fmt::format("BEGIN; SELECT pg_catalog.pg_replication_origin_create({0}); "
                      "SELECT pg_catalog.pg_replication_origin_advance({0}, '{1}'); COMMIT",
                      quote_literal(name), start.to_string()));
      return {ProgressKind::Origin, name};
    } catch (const Error& error) {
      // Before 14 the privilege is there for everybody and the function still wants a superuser.
      if (error.sqlstate() != "42501") throw;
      target.exec("ROLLBACK");
    }
  }
  target.exec(
      fmt::format("BEGIN; CREATE SCHEMA IF NOT EXISTS walferry; "
                  "CREATE TABLE IF NOT EXISTS {0} (migration text PRIMARY KEY, lsn pg_catalog.pg_lsn NOT NULL); "
                  "INSERT INTO {0} VALUES ({1}, '{2}'); COMMIT",
                  row_table, quote_literal(name), start.to_string()));
  return {ProgressKind::Row, name};
}

Progress Progress::prepare_lane(pg::Session& target, const std::string& name, unsigned lane) {
  Progress progress{ProgressKind::Origin, fmt::format("{}{}", lane_prefix(name), lane)};
  target.exec(
      fmt::format("SELECT pg_catalog.pg_replication_origin_create({0}) WHERE NOT EXISTS (SELECT 1 FROM "
                  "pg_catalog.pg_replication_origin WHERE roname = {0})",
                  quote_literal(progress.name)));
  return progress;
}

void Progress::drop(pg::Session& target, const std::string& name) {
  // Without the right to the function the statement fails even where there is nothing to drop.
  const auto found = find(target, name);
  if (found && found->kind == ProgressKind::Origin) {
    target.exec(
        fmt::format("SELECT pg_catalog.pg_replication_origin_drop(roname) FROM pg_catalog.pg_replication_origin "
                    "WHERE roname = {} OR pg_catalog.starts_with(roname, {})",
                    quote_literal(name), quote_literal(lane_prefix(name))));
  }
  if (row_exists(target, name)) {
    target.exec(fmt::format("DELETE FROM {} WHERE migration = {}", row_table, quote_literal(name)));
    if (!target.exec(fmt::format("SELECT EXISTS (SELECT 1 FROM {})", row_table)).flag(0, 0)) {
      target.exec(fmt::format("DROP TABLE {}", row_table));
      target.exec("DROP SCHEMA walferry");
    }
  }
}

Lsn Progress::read(pg::Session& target) const {
  const std::string sql =
      kind == ProgressKind::Origin
          ? fmt::format("SELECT pg_catalog.pg_replication_origin_progress({}, true)", quote_literal(name))
          : fmt::format("SELECT lsn FROM {} WHERE migration = {}", row_table, quote_literal(name));
  const pg::Result result = target.exec(sql);
  if (result.rows() == 0 || result.is_null(0, 0)) return Lsn{};
  return result.lsn(0, 0);
}

std::string Progress::settings_sql() const {
  return fmt::format("SET synchronous_commit = {}", lazy_commit() ? "off" : "on");
}

std::string Progress::take_sql() const {
  // The lock does what an origin does by itself: a dead predecessor's backend, perhaps still committing, is waited for.
  return kind == ProgressKind::Row
             ? fmt::format("SELECT pg_catalog.pg_advisory_lock(pg_catalog.hashtext({}))",
                           quote_literal("walferry " + name))
             : fmt::format("SELECT pg_catalog.pg_replication_origin_session_setup({})", quote_literal(name));
}

std::string Progress::release_sql() const {
  return kind == ProgressKind::Row ? fmt::format("SELECT pg_catalog.pg_advisory_unlock(pg_catalog.hashtext({}))",
                                                 quote_literal("walferry " + name))
                                   : "SELECT pg_catalog.pg_replication_origin_session_reset()";
}

std::string Progress::advance_sql() const {
  if (kind == ProgressKind::Row) {
    // The commit time has no place in the row; naming it keeps both forms at two parameters.
    return fmt::format(
        "UPDATE {} SET lsn = $1::pg_catalog.pg_lsn WHERE migration = {} AND lsn < $1::pg_catalog.pg_lsn "
        "AND $2::pg_catalog.int8 IS NOT NULL",
        row_table, quote_literal(name));
  }
  // txid_current() makes sure of a commit record: a transaction without one does not move the origin.
  return "SELECT pg_catalog.pg_replication_origin_xact_setup($1::pg_catalog.pg_lsn, "
         "'2000-01-01 00:00:00+00'::pg_catalog.timestamptz + $2::pg_catalog.int8 * '1 "
         "microsecond'::pg_catalog.interval), "
         "pg_catalog.txid_current()";
}

std::string Progress::durable_sql() const {
  if (kind == ProgressKind::Row)
    return fmt::format("SELECT lsn FROM {} WHERE migration = {}", row_table, quote_literal(name));
  return "SELECT pg_catalog.pg_replication_origin_session_progress(true)";
}

}  // namespace walferry::apply
