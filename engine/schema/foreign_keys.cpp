#include "engine/schema/foreign_keys.hpp"

#include <fmt/format.h>

namespace walferry::schema {

std::vector<ForeignKey> read_foreign_keys(pg::Session& target) {
  const pg::Result rows = target.exec(fmt::format(R"(
SELECT n.nspname, c.relname, k.conname,
       pg_catalog.format('ALTER TABLE %s%I.%I ADD CONSTRAINT %I %s;', CASE c.relkind WHEN 'p' THEN '' ELSE 'ONLY ' END,
                         n.nspname, c.relname, k.conname, pg_catalog.pg_get_constraintdef(k.oid))
       || coalesce(pg_catalog.format(' COMMENT ON CONSTRAINT %I ON %I.%I IS ', k.conname, n.nspname, c.relname)
                   || pg_catalog.quote_literal(pg_catalog.obj_description(k.oid, 'pg_constraint')) || ';', '')
FROM pg_catalog.pg_constraint k
JOIN pg_catalog.pg_class c ON c.oid = k.conrelid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE k.contype = 'f' AND k.conparentid = 0 AND {} AND NOT EXISTS (
  SELECT FROM pg_catalog.pg_depend e WHERE e.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND e.objid = c.oid
    AND e.deptype = 'e')
ORDER BY 1, 2, 3)",
                                                  user_schema_condition("n")));
  std::vector<ForeignKey> keys;
  for (int row = 0; row < rows.rows(); ++row)
    keys.push_back({{rows.str(row, 0), rows.str(row, 1)}, rows.str(row, 2), rows.str(row, 3)});
  return keys;
}

void drop_foreign_key(pg::Session& target, const ForeignKey& key) {
  target.exec(fmt::format("ALTER TABLE {} DROP CONSTRAINT IF EXISTS {}", key.table.quoted(), pg::quote_name(key.name)));
}

}  // namespace walferry::schema
