#include "engine/apply/target_tables.hpp"

#include <fmt/format.h>

#include "engine/cutover/fence_name.hpp"

namespace walferry::apply {
namespace {

// The operator `o` of schema `n`: an empty search_path finds none of an extension's.
constexpr std::string_view operator_text =
    "CASE WHEN n.nspname = 'pg_catalog' THEN o.oprname::pg_catalog.text "
    "ELSE pg_catalog.format('OPERATOR(%I.%s)', n.nspname, o.oprname) END";

// The tables of `relations` (a query of one oid column) and all partitioned tables they belong to: changes to a parent
// reach its partitions.
std::string with_parents(std::string_view relations) {
  return fmt::format(
      "SELECT r.oid FROM ({0}) r(oid) UNION SELECT a.relid::pg_catalog.oid FROM ({0}) r(oid) "
      "CROSS JOIN LATERAL pg_catalog.pg_partition_ancestors(r.oid::pg_catalog.regclass) a",
      relations);
}

}  // namespace

TargetTables read_target_tables(pg::Session& session) {
  TargetTables target;
  target.catalog = read_catalog(session, Sizes::LeaveOut);

  const pg::Result of_extensions = session.exec(fmt::format(
      "SELECT n.nspname, c.relname FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_class c ON c.oid = d.objid JOIN "
      "pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE d.classid = "
      "'pg_catalog.pg_class'::pg_catalog.regclass AND d.deptype = 'e' AND c.relkind IN ('r', 'p') AND {}",
      user_schema_condition("n")));
  for (int row = 0; row < of_extensions.rows(); ++row)
    target.of_extensions.insert({of_extensions.str(row, 0), of_extensions.str(row, 1)});

  // A fence does nothing but to let us pass, or not.
  const pg::Result fires = session.exec(with_parents(
      fmt::format("SELECT tgrelid FROM pg_catalog.pg_trigger WHERE tgenabled IN ('A', 'R') AND tgname NOT IN ('{}', "
                  "'{}') UNION ALL SELECT ev_class FROM pg_catalog.pg_rewrite WHERE ev_enabled IN ('A', 'R') AND "
                  "rulename <> '_RETURN'",
                  cutover::fence_trigger, cutover::fence_row_trigger)));
  for (int row = 0; row < fires.rows(); ++row) target.tables[Oid{fires.u32(row, 0)}].fires = true;

  const pg::Result in_order = session.exec(with_parents(
      "SELECT indrelid FROM pg_catalog.pg_index WHERE indisexclusion OR (indisunique AND NOT indimmediate)"));
  for (int row = 0; row < in_order.rows(); ++row) target.tables[Oid{in_order.u32(row, 0)}].in_order = true;

  const pg::Result referrers = session.exec(
      "SELECT DISTINCT k.confrelid, k.conrelid, CASE WHEN c.relispartition THEN "
      "pg_catalog.pg_partition_root(c.oid)::pg_catalog.oid ELSE c.oid END, "
      "c.relkind = 'r' AND c.relpersistence = 'p' FROM pg_catalog.pg_constraint k "
      "JOIN pg_catalog.pg_class c ON c.oid = k.conrelid WHERE k.contype = 'f' AND k.confrelid <> k.conrelid");
  for (int row = 0; row < referrers.rows(); ++row) {
    target.tables[Oid{referrers.u32(row, 0)}].referrers.push_back({.table = Oid{referrers.u32(row, 1)},
                                                                   .root = Oid{referrers.u32(row, 2)},
                                                                   .keeps_rows = referrers.flag(row, 3)});
  }

  // bool, integers, text, oid, varchar, date, timestamps, uuid: the text of equal values is the same.
  const pg::Result only_key = session.exec(R"(
SELECT i.indrelid, a.attname
FROM pg_catalog.pg_index i
JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid
     AND a.attnum = ANY ((i.indkey::pg_catalog.int2[])[0:i.indnkeyatts - 1])
WHERE i.indisunique AND i.indisvalid AND i.indexprs IS NULL AND i.indpred IS NULL
  AND a.atttypid = ANY ('{16,20,21,23,25,26,1043,1082,1114,1184,2950}'::pg_catalog.oid[])
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_index j WHERE j.indrelid = i.indrelid AND j.indexrelid <> i.indexrelid
                  AND (j.indisunique OR j.indisexclusion))
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_collation c
                  WHERE c.oid = ANY (i.indcollation::pg_catalog.oid[]) AND NOT c.collisdeterministic))");
  for (int row = 0; row < only_key.rows(); ++row)
    target.tables[Oid{only_key.u32(row, 0)}].only_key.insert(only_key.str(row, 1));

  // Strategy 3 of a btree (403) is equality. Of several unique indexes on a column that of the row's identity counts:
  // it comes last.
  const pg::Result equality = session.exec(fmt::format(R"(
SELECT i.indrelid, a.attname, {}
FROM pg_catalog.pg_index i
JOIN pg_catalog.pg_class t ON t.oid = i.indrelid
CROSS JOIN LATERAL ROWS FROM (pg_catalog.unnest(i.indkey::pg_catalog.int2[]),
                              pg_catalog.unnest(i.indclass::pg_catalog.oid[])) AS k(attnum, class)
JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
JOIN pg_catalog.pg_opclass c ON c.oid = k.class AND c.opcmethod = 403
JOIN pg_catalog.pg_amop m ON m.amopfamily = c.opcfamily AND m.amopstrategy = 3 AND m.amoplefttype = c.opcintype
     AND m.amoprighttype = c.opcintype
JOIN pg_catalog.pg_operator o ON o.oid = m.amopopr
JOIN pg_catalog.pg_namespace n ON n.oid = o.oprnamespace
WHERE i.indisunique AND i.indisvalid
ORDER BY t.relreplident = 'i' AND i.indisreplident, i.indisprimary)",
                                                       operator_text));
  for (int row = 0; row < equality.rows(); ++row)
    target.tables[Oid{equality.u32(row, 0)}].equality[equality.str(row, 1)] = equality.str(row, 2);

  // A domain is read as its base, for a cast to it would cut what is too long, and compared by the base's operator.
  // Where text has a cast function to the type, that would be called instead of the input function; those to xml and
  // name do the same as it.
  const pg::Result types = session.exec(fmt::format(R"(
WITH RECURSIVE bases(type, base) AS (
  SELECT DISTINCT a.atttypid, a.atttypid
  FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid
  WHERE c.relkind IN ('r', 'p') AND a.attnum > 0 AND NOT a.attisdropped
  UNION
  SELECT b.type, t.typbasetype FROM bases b JOIN pg_catalog.pg_type t ON t.oid = b.base WHERE t.typtype = 'd'),
equal AS (
  SELECT DISTINCT ON (b.type) b.type, {} AS operator
  FROM bases b
  JOIN pg_catalog.pg_opclass c ON c.opcintype = b.base AND c.opcdefault AND c.opcmethod IN (403, 405)
  JOIN pg_catalog.pg_amop m ON m.amopfamily = c.opcfamily AND m.amoplefttype = b.base AND m.amoprighttype = b.base
       AND m.amopstrategy = CASE c.opcmethod WHEN 403 THEN 3 ELSE 1 END
  JOIN pg_catalog.pg_operator o ON o.oid = m.amopopr
  JOIN pg_catalog.pg_namespace n ON n.oid = o.oprnamespace
  ORDER BY b.type, c.opcmethod)
SELECT t.oid, (SELECT pg_catalog.format('%I.%I', n.nspname, base.typname)
               FROM bases b JOIN pg_catalog.pg_type base ON base.oid = b.base AND base.typtype <> 'd'
               JOIN pg_catalog.pg_namespace n ON n.oid = base.typnamespace
               WHERE b.type = t.oid),
       NOT EXISTS (SELECT FROM bases b JOIN pg_catalog.pg_cast k ON k.casttarget = b.base
                   WHERE b.type = t.oid AND k.castsource = 'pg_catalog.text'::pg_catalog.regtype AND k.castmethod = 'f'
                     AND k.casttarget NOT IN ('pg_catalog.xml'::pg_catalog.regtype,
                                              'pg_catalog.name'::pg_catalog.regtype)),
       coalesce(e.operator, '='),
       NOT EXISTS (SELECT FROM bases b JOIN pg_catalog.pg_type base ON base.oid = b.base
                   WHERE b.type = t.oid AND base.typarray = 0)
FROM pg_catalog.pg_type t
LEFT JOIN equal e ON e.type = t.oid
WHERE t.oid IN (SELECT type FROM bases))",
                                                    operator_text));
  for (int row = 0; row < types.rows(); ++row)
    target.types[Oid{types.u32(row, 0)}] = {types.str(row, 1), types.flag(row, 2), types.str(row, 3),
                                            types.flag(row, 4)};
  return target;
}

}  // namespace walferry::apply
