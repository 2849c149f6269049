#include "engine/outside/materialized_views.hpp"

#include <fmt/format.h>

#include <set>

namespace walferry::outside {

std::vector<QualifiedName> views_to_refresh(pg::Session& source, pg::Session& target) {
  std::set<QualifiedName> filled;
  const pg::Result of_source = source.exec(fmt::format(
      "SELECT n.nspname, c.relname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace "
      "WHERE c.relkind = 'm' AND c.relispopulated AND {}",
      user_schema_condition("n")));
  for (int row = 0; row < of_source.rows(); ++row) filled.insert({of_source.str(row, 0), of_source.str(row, 1)});
  // Whoever needs a view needs all that the view needs as well, so it needs more of them.
  const pg::Result of_target = target.exec(fmt::format(R"(
WITH RECURSIVE reads(reader, relation) AS (
  SELECT DISTINCT r.ev_class, d.refobjid
  FROM pg_catalog.pg_rewrite r
  JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass AND d.objid = r.oid
    AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjid <> r.ev_class
  JOIN pg_catalog.pg_class v ON v.oid = r.ev_class AND v.relkind IN ('v', 'm')),
reaches(reader, relation) AS (
  SELECT reader, relation FROM reads
  UNION
  SELECT a.reader, b.relation FROM reaches a JOIN reads b ON b.reader = a.relation)
SELECT n.nspname, c.relname
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'm' AND {}
ORDER BY (SELECT count(*) FROM reaches a JOIN pg_catalog.pg_class m ON m.oid = a.relation AND m.relkind = 'm'
          WHERE a.reader = c.oid), c.oid)",
                                                       user_schema_condition("n")));
  std::vector<QualifiedName> views;
  for (int row = 0; row < of_target.rows(); ++row) {
    QualifiedName name{of_target.str(row, 0), of_target.str(row, 1)};
    if (filled.contains(name)) views.push_back(std::move(name));
  }
  return views;
}

void refresh_materialized_views(pg::Session& target, const std::vector<QualifiedName>& views) {
  for (const QualifiedName& view : views) {
    try {
      target.exec("REFRESH MATERIALIZED VIEW " + view.quoted());
    } catch (const Error& error) {
      throw error.during("refreshing materialized view " + view.text());
    }
  }
}

}  // namespace walferry::outside
