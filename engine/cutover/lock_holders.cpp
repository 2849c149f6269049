#include "engine/cutover/lock_holders.hpp"

#include <fmt/format.h>

namespace walferry::cutover {
namespace {

// What conflicts with SHARE ROW EXCLUSIVE.
constexpr std::string_view conflicting_modes =
    "('RowExclusiveLock', 'ShareUpdateExclusiveLock', 'ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', "
    "'AccessExclusiveLock')";

// A statement such as CREATE INDEX CONCURRENTLY or VACUUM keeps its lock over several transactions, so there the
// statement's age counts; a procedure that commits now and then lets go of the locks of rows each time.
std::vector<std::string> holders_among(pg::Session& source, const std::vector<QualifiedName>& tables, bool writers) {
  std::vector<std::string> schemas;
  std::vector<std::string> names;
  for (const QualifiedName& table : tables) {
    schemas.push_back(table.schema);
    names.push_back(table.name);
  }
  const pg::Result rows = source.exec(fmt::format(
      R"(WITH held AS MATERIALIZED (
  SELECT l.pid, min(pg_catalog.format('%I.%I', n.nspname, c.relname)) AS a_table,
         bool_or(l.mode <> 'RowExclusiveLock') AS for_the_statement
  FROM pg_catalog.pg_locks l
  JOIN pg_catalog.pg_class c ON c.oid = l.relation AND c.relkind IN ('r', 'p') AND c.relpersistence <> 't'
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  JOIN unnest({}::pg_catalog.text[], {}::pg_catalog.text[]) AS wanted (schema, name)
       ON wanted.schema = n.nspname AND wanted.name = c.relname
  WHERE l.locktype = 'relation' AND l.granted AND l.mode IN {}
    AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
  GROUP BY l.pid)
SELECT a.pid, coalesce(a.usename, a.backend_type, '?'), pg_catalog.date_trunc('second', pg_catalog.now() - s.since),
       coalesce(h.a_table, ''), a.backend_xid IS NOT NULL,
       CASE WHEN a.query ~* 'password' THEN '' ELSE
         pg_catalog.left(pg_catalog.regexp_replace(coalesce(a.query, ''), '\s+', ' ', 'g'), 60) END, a.state = 'active'
FROM pg_catalog.pg_stat_activity a
LEFT JOIN held h USING (pid)
CROSS JOIN LATERAL (SELECT CASE WHEN h.for_the_statement AND a.state = 'active'
                                THEN least(a.xact_start, a.query_start) ELSE a.xact_start END AS since) s
WHERE a.datname = pg_catalog.current_database() AND a.pid <> pg_catalog.pg_backend_pid()
  AND ({} AND a.backend_xid IS NOT NULL OR h.pid IS NOT NULL) AND s.since < pg_catalog.now() - '10 seconds'::pg_catalog.interval
  AND (a.backend_type <> 'autovacuum worker' OR a.query LIKE '%(to prevent wraparound)')
ORDER BY s.since LIMIT 5)",
      pg::quote_literal(pg::array_literal(schemas)), pg::quote_literal(pg::array_literal(names)), conflicting_modes,
      writers));
  std::vector<std::string> holders;
  for (int row = 0; row < rows.rows(); ++row) {
    const std::string doing = rows.flag(row, 6) && !rows.text(row, 5).empty() ? ", " + rows.str(row, 5) : std::string{};
    holders.push_back(
        rows.flag(row, 4)
            ? fmt::format("pid {} ({}{}) has had a writing transaction open for {}: end it first", rows.text(row, 0),
                          rows.text(row, 1), doing, rows.text(row, 2))
            : fmt::format("pid {} ({}{}) has held a lock on {} for {}, for which writers would have to wait: end it, "
                          "or wait until it has",
                          rows.text(row, 0), rows.text(row, 1), doing, rows.text(row, 3), rows.text(row, 2)));
  }
  return holders;
}

}  // namespace

std::string describe_holders(pg::Session& source) {
  const pg::Result rows = source.exec(fmt::format(
      "SELECT DISTINCT a.pid, coalesce(a.usename, '?'), coalesce(a.application_name, ''), coalesce(a.state, ''), "
      "pg_catalog.date_trunc('second', pg_catalog.now() - a.xact_start) "
      "FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_stat_activity a USING (pid) "
      "WHERE l.locktype = 'relation' AND l.granted AND l.pid <> pg_catalog.pg_backend_pid() "
      "AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()) "
      "AND l.mode IN {} ORDER BY 5 DESC LIMIT 5",
      conflicting_modes));
  std::string text;
  for (int row = 0; row < rows.rows(); ++row) {
    text += fmt::format("{}pid {} ({}{}, {}, open for {})", text.empty() ? "locks are held by " : "; ",
                        rows.text(row, 0), rows.text(row, 1), rows.text(row, 2).empty() ? "" : " " + rows.str(row, 2),
                        rows.text(row, 3), rows.text(row, 4));
  }
  return text;
}

std::vector<std::string> long_holders(pg::Session& source, const std::vector<QualifiedName>& tables) {
  return holders_among(source, tables, false);
}

std::vector<std::string> long_holders_and_writers(pg::Session& source, const std::vector<QualifiedName>& tables) {
  return holders_among(source, tables, true);
}

}  // namespace walferry::cutover
