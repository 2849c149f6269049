#include "engine/apply/progress.hpp"

#include <fmt/format.h>

#include "engine/schema/transaction.hpp"

namespace walferry::apply {
namespace {

using pg::quote_literal;

constexpr std::size_t identifier_max = 63;  // NAMEDATALEN - 1

// Of the two keys that a lock can have.
std::string lock_keys(const Progress& progress) {
  return fmt::format("pg_catalog.hashtext({}), {}", quote_literal("walferry " + progress.name), progress.lane);
}

// A commit that is on the target's disk when it returns, whatever the session and the server say.
constexpr std::string_view flushed = "SET LOCAL synchronous_commit = local; ";

// A session that nobody ended can still hold the table.
constexpr std::string_view waits_limited = "SET LOCAL lock_timeout = '10s'; ";

}  // namespace

// A slot's name needs no quotes.
std::string Progress::table_of(const std::string& name) {
  return "walferry." + ("progress_" + name).substr(0, identifier_max);
}

void Progress::prepare(pg::Session& target, const std::string& name, Lsn start) {
  const std::string table = table_of(name);
  // A table that exists was left by a run that died right here: nothing has been applied yet, and the slot is a new
  // one. Autovacuum would find nothing to do.
  const std::string make = exists(target, name)
                               ? fmt::format("TRUNCATE {}; ", table)
                               : fmt::format(
                                     "CREATE SCHEMA IF NOT EXISTS walferry; CREATE TABLE {} (lane "
                                     "pg_catalog.int4 NOT NULL, lsn pg_catalog.pg_lsn NOT NULL) USING heap WITH "
                                     "(autovacuum_enabled = off); ",
                                     table);
  target.exec(
      fmt::format("BEGIN; {}{}INSERT INTO {} VALUES (0, '{}'); COMMIT", flushed, make, table, start.to_string()));
}

bool Progress::exists(pg::Session& target, const std::string& name) {
  return target.exec(fmt::format("SELECT pg_catalog.to_regclass({}) IS NOT NULL", quote_literal(table_of(name))))
      .flag(0, 0);
}

Progress Progress::of(pg::Session& target, const std::string& name) {
  if (exists(target, name)) return {name};
  throw Error{
      {ErrorKind::Refused, Side::Target},
      fmt::format("the target knows nothing of migration {}: its table {} is gone. Nothing was changed. Remedy: if the "
                  "target was restored or replaced, abort and begin anew",
                  name, table_of(name))};
}

void Progress::drop(pg::Session& target, const std::string& name) {
  target.exec(fmt::format("BEGIN; {}DROP TABLE IF EXISTS {}; COMMIT", waits_limited, table_of(name)));
}

void Progress::tidy(pg::Session& target, const std::string& name) {
  const std::string table = table_of(name);
  try {
    // The lock must not outlive us for long, whatever becomes of the network.
    target.exec(fmt::format(
        "BEGIN; SET LOCAL idle_in_transaction_session_timeout = '10s'; LOCK TABLE {} IN ACCESS EXCLUSIVE MODE NOWAIT",
        table));
  } catch (const Error& error) {
    if (error.sqlstate() != "55P03") throw;
    target.exec("ROLLBACK");
    return;
  }
  const pg::Result highest = target.exec(fmt::format("SELECT lane, pg_catalog.max(lsn) FROM {} GROUP BY 1", table));
  std::string rows;
  for (int row = 0; row < highest.rows(); ++row)
    rows += fmt::format("{}({}, '{}')", row == 0 ? "" : ", ", highest.str(row, 0), highest.str(row, 1));
  target.exec(rows.empty()
                  ? "ROLLBACK"
                  : fmt::format("{}TRUNCATE {}; INSERT INTO {} VALUES {}; COMMIT", flushed, table, table, rows));
}

Lsn Progress::read(pg::Session& target) const {
  const std::string table = table_of(name);
  schema::Transaction transaction{target};
  target.exec(fmt::format("{}{}", flushed, waits_limited));
  const pg::Result result = target.exec(fmt::format(
      "INSERT INTO {0} SELECT {1}, pg_catalog.max(lsn) FROM {0} WHERE lane = {1} HAVING pg_catalog.count(*) "
      "> 0 RETURNING lsn",
      table, lane));
  if (result.rows() == 0 && lane == 0) {
    throw Error{{ErrorKind::Refused, Side::Target},
                fmt::format("{} on the target is empty: somebody removed the position of migration {}. Nothing was "
                            "changed. Remedy: abort and begin anew",
                            table, name)};
  }
  const Lsn position = result.rows() == 0 ? Lsn{} : result.lsn(0, 0);
  transaction.commit();
  return position;
}

std::string Progress::take_sql() const {
  return fmt::format("SELECT pg_catalog.pg_advisory_lock({})", lock_keys(*this));
}

std::string Progress::release_sql() const {
  return fmt::format("SELECT pg_catalog.pg_advisory_unlock({})", lock_keys(*this));
}

std::string Progress::advance_sql() const {
  return fmt::format("INSERT INTO {} VALUES ({}, $1::pg_catalog.pg_lsn)", table_of(name), lane);
}

// A transaction that writes nothing would flush nothing.
std::string Progress::flush_sql() const {
  return fmt::format(
      "INSERT INTO {} SELECT {}, $1::pg_catalog.pg_lsn FROM pg_catalog.set_config('synchronous_commit', 'local', true)",
      table_of(name), lane);
}

}  // namespace walferry::apply
