#include "engine/ddl/inventory.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "engine/catalog.hpp"
#include "engine/cutover/fence_name.hpp"

namespace walferry::ddl {
namespace {

// {0}: user schemas, as a condition on n. {1}, {2}: the fence's triggers. An object of an extension belongs to the
// extension's entry.
constexpr std::string_view listing = R"sql(
WITH schemas AS (SELECT n.oid, n.nspname FROM pg_catalog.pg_namespace n WHERE {0}),
members AS (SELECT d.classid, d.objid FROM pg_catalog.pg_depend d WHERE d.deptype = 'e'),
relations AS (
  SELECT c.*, s.nspname, pg_catalog.format('%I.%I', s.nspname, c.relname) AS identity
  FROM pg_catalog.pg_class c JOIN schemas s ON s.oid = c.relnamespace
  WHERE c.relpersistence <> 't' AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S', 'c')
    AND NOT EXISTS (SELECT 1 FROM members m WHERE m.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND m.objid = c.oid)),
types AS (
  SELECT t.*, pg_catalog.format('%I.%I', s.nspname, t.typname) AS identity
  FROM pg_catalog.pg_type t JOIN schemas s ON s.oid = t.typnamespace
  WHERE t.typtype IN ('e', 'd', 'r')
    AND NOT EXISTS (SELECT 1 FROM members m WHERE m.classid = 'pg_catalog.pg_type'::pg_catalog.regclass AND m.objid = t.oid))
SELECT kind || ' ' || identity AS object, owner, definition FROM (
  SELECT CASE relkind WHEN 'v' THEN 'view' WHEN 'm' THEN 'materialized view' WHEN 'f' THEN 'foreign table'
                      WHEN 'S' THEN 'sequence' WHEN 'c' THEN 'type' ELSE 'table' END AS kind,
         r.identity, r.identity AS owner,
         pg_catalog.concat_ws(' ', relkind::text, relpersistence::text,
           CASE WHEN relrowsecurity THEN 'row security' END, CASE WHEN relforcerowsecurity THEN 'forced' END,
           pg_catalog.array_to_string(reloptions, ','),
           CASE WHEN relispartition THEN pg_catalog.pg_get_expr(relpartbound, r.oid) END,
           CASE WHEN relkind = 'p' THEN pg_catalog.pg_get_partkeydef(r.oid) END,
           CASE WHEN relkind IN ('v', 'm') THEN pg_catalog.pg_get_viewdef(r.oid) END,
           (SELECT 'of ' || pg_catalog.string_agg(i.inhparent::pg_catalog.regclass::text, ',' ORDER BY i.inhseqno)
              FROM pg_catalog.pg_inherits i WHERE i.inhrelid = r.oid),
           (SELECT pg_catalog.concat_ws(' ', pg_catalog.format_type(q.seqtypid, NULL), 'start', q.seqstart, 'by',
                                        q.seqincrement, 'from', q.seqmin, 'to', q.seqmax, 'cache', q.seqcache, q.seqcycle::text)
              FROM pg_catalog.pg_sequence q WHERE q.seqrelid = r.oid)) AS definition
  FROM relations r
UNION ALL
  SELECT 'column', r.identity || '.' || pg_catalog.quote_ident(a.attname), r.identity,
         pg_catalog.concat_ws(' ', pg_catalog.format_type(a.atttypid, a.atttypmod),
           CASE WHEN a.attcollation <> t.typcollation THEN 'COLLATE ' || a.attcollation::pg_catalog.regcollation::text END,
           CASE WHEN a.attnotnull THEN 'NOT NULL' END, 
           -- From 17 on it is the partitions' too.
           CASE WHEN a.attidentity <> '' AND NOT r.relispartition THEN 'GENERATED AS IDENTITY' END,
           CASE WHEN a.attgenerated <> '' THEN 'GENERATED ALWAYS AS (' || pg_catalog.pg_get_expr(d.adbin, d.adrelid) || ')'
                WHEN d.adbin IS NOT NULL THEN 'DEFAULT ' || pg_catalog.pg_get_expr(d.adbin, d.adrelid) END)
  FROM relations r
  JOIN pg_catalog.pg_attribute a ON a.attrelid = r.oid AND a.attnum > 0 AND NOT a.attisdropped
  JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
  LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
  WHERE r.relkind IN ('r', 'p', 'f', 'c')
UNION ALL
  SELECT 'constraint', pg_catalog.quote_ident(k.conname) || ' on ' || r.identity, r.identity,
         pg_catalog.pg_get_constraintdef(k.oid)
  FROM pg_catalog.pg_constraint k JOIN relations r ON r.oid = k.conrelid
  WHERE k.contype NOT IN ('t', 'n') AND k.conparentid = 0
UNION ALL
  SELECT 'index', pg_catalog.format('%I.%I', r.nspname, x.relname), r.identity,
         pg_catalog.pg_get_indexdef(i.indexrelid) || CASE WHEN i.indisvalid THEN '' ELSE ' (invalid)' END
  FROM pg_catalog.pg_index i JOIN relations r ON r.oid = i.indrelid JOIN pg_catalog.pg_class x ON x.oid = i.indexrelid
UNION ALL
  SELECT 'trigger', pg_catalog.quote_ident(g.tgname) || ' on ' || r.identity, r.identity, pg_catalog.pg_get_triggerdef(g.oid)
  FROM pg_catalog.pg_trigger g JOIN relations r ON r.oid = g.tgrelid
  WHERE NOT g.tgisinternal AND g.tgparentid = 0 AND g.tgname NOT IN ('{1}', '{2}')
UNION ALL
  SELECT 'rule', pg_catalog.quote_ident(u.rulename) || ' on ' || r.identity, r.identity, pg_catalog.pg_get_ruledef(u.oid)
  FROM pg_catalog.pg_rewrite u JOIN relations r ON r.oid = u.ev_class WHERE u.rulename <> '_RETURN'
UNION ALL
  SELECT 'policy', pg_catalog.quote_ident(o.polname) || ' on ' || r.identity, r.identity,
         pg_catalog.concat_ws(' ', o.polcmd::text, o.polpermissive::text, pg_catalog.pg_get_expr(o.polqual, o.polrelid),
           'check', pg_catalog.pg_get_expr(o.polwithcheck, o.polrelid))
  FROM pg_catalog.pg_policy o JOIN relations r ON r.oid = o.polrelid
UNION ALL
  SELECT CASE t.typtype WHEN 'd' THEN 'domain' ELSE 'type' END, t.identity, t.identity,
         pg_catalog.concat_ws(' ',
           (SELECT 'ENUM (' || pg_catalog.string_agg(pg_catalog.quote_literal(e.enumlabel), ', ' ORDER BY e.enumsortorder) || ')'
              FROM pg_catalog.pg_enum e WHERE e.enumtypid = t.oid),
           CASE WHEN t.typtype = 'd' THEN pg_catalog.format_type(t.typbasetype, t.typtypmod) END,
           CASE WHEN t.typtype = 'd' AND t.typnotnull THEN 'NOT NULL' END, 'DEFAULT ' || t.typdefault,
           (SELECT pg_catalog.string_agg(pg_catalog.pg_get_constraintdef(k.oid), ' ' ORDER BY k.conname)
              FROM pg_catalog.pg_constraint k WHERE k.contypid = t.oid AND k.contype <> 'n'),
           (SELECT 'RANGE ' || pg_catalog.format_type(g.rngsubtype, NULL) FROM pg_catalog.pg_range g WHERE g.rngtypid = t.oid))
  FROM types t
UNION ALL
  SELECT CASE p.prokind WHEN 'p' THEN 'procedure' WHEN 'a' THEN 'aggregate' ELSE 'function' END,
         pg_catalog.format('%I.%I(%s)', s.nspname, p.proname, pg_catalog.pg_get_function_identity_arguments(p.oid)),
         pg_catalog.format('%I.%I(%s)', s.nspname, p.proname, pg_catalog.pg_get_function_identity_arguments(p.oid)),
         CASE WHEN p.prokind IN ('f', 'p') THEN pg_catalog.pg_get_functiondef(p.oid) ELSE '' END
  FROM pg_catalog.pg_proc p JOIN schemas s ON s.oid = p.pronamespace
  WHERE NOT EXISTS (SELECT 1 FROM members m WHERE m.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND m.objid = p.oid)
UNION ALL
  SELECT 'statistics', pg_catalog.format('%I.%I', s.nspname, x.stxname), r.identity, pg_catalog.pg_get_statisticsobjdef(x.oid)
  FROM pg_catalog.pg_statistic_ext x JOIN schemas s ON s.oid = x.stxnamespace JOIN relations r ON r.oid = x.stxrelid
UNION ALL
  SELECT 'schema', pg_catalog.quote_ident(s.nspname), pg_catalog.quote_ident(s.nspname), '' FROM schemas s
UNION ALL
  SELECT 'extension', pg_catalog.quote_ident(x.extname), pg_catalog.quote_ident(x.extname), '' FROM pg_catalog.pg_extension x
) entries)sql";

// An object and what it is part of and how it is defined, NUL after each.
void append(std::string& text, std::string_view field) {
  text += field;
  text += '\0';
}

std::string listing_sql() {
  return fmt::format(listing, user_schema_condition("n"), cutover::fence_trigger, cutover::fence_row_trigger);
}

}  // namespace

Inventory read_inventory(pg::Session& session) {
  const pg::Result rows = session.exec(listing_sql());
  Inventory inventory;
  for (int row = 0; row < rows.rows(); ++row) {
    inventory.insert_or_assign(rows.str(row, 0), Entry{.owner = rows.str(row, 1), .definition = rows.str(row, 2)});
  }
  return inventory;
}

std::string read_digest(pg::Session& session) {
  return session
      .exec(fmt::format("SELECT coalesce(pg_catalog.encode(pg_catalog.sha256(pg_catalog.convert_to("
                        "pg_catalog.string_agg(pg_catalog.concat_ws('|', object, owner, definition), '/' ORDER BY "
                        "object COLLATE \"C\"), pg_catalog.getdatabaseencoding())), 'hex'), '') FROM ({}) AS listing",
                        listing_sql()))
      .str(0, 0);
}

std::vector<Difference> differences(const Inventory& before, const Inventory& now) {
  std::vector<Difference> found;
  for (const auto& [object, entry] : now) {
    const auto old = before.find(object);
    if (old == before.end()) {
      found.push_back({.object = object, .owner = entry.owner, .change = "added", .definition = entry.definition});
    } else if (old->second != entry) {
      found.push_back({.object = object, .owner = entry.owner, .change = "changed", .definition = entry.definition});
    }
  }
  for (const auto& [object, entry] : before) {
    if (now.contains(object)) continue;
    found.push_back({.object = object, .owner = entry.owner, .change = "dropped", .definition = entry.definition});
  }
  return found;
}

std::string encode(const Inventory& inventory) {
  std::string text;
  for (const auto& [object, entry] : inventory) {
    append(text, object);
    append(text, entry.owner);
    append(text, entry.definition);
  }
  return text;
}

Inventory decode_inventory(std::string_view text) {
  Inventory inventory;
  const auto take = [&text] {
    const std::size_t end = std::min(text.find('\0'), text.size());
    std::string field{text.substr(0, end)};
    text.remove_prefix(std::min(end + 1, text.size()));
    return field;
  };
  while (!text.empty()) {
    std::string object = take();
    std::string owner = take();
    std::string definition = take();
    inventory.insert_or_assign(std::move(object),
                               Entry{.owner = std::move(owner), .definition = std::move(definition)});
  }
  return inventory;
}

}  // namespace walferry::ddl
