#include "engine/catalog.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <map>

namespace walferry {
namespace {

std::vector<Table> read_tables(pg::Session& session, Sizes sizes) {
  // The identity index is the primary key's (default) or the one named by REPLICA IDENTITY USING INDEX; it serves only
  // while it is immediate (not deferrable) and valid, as the server itself demands (RelationGetReplicaIndex).
  const pg::Result rows =
      session.exec(fmt::format(R"(
SELECT c.oid, n.nspname, c.relname, c.relkind, c.relpersistence, c.relispartition, c.relhassubclass, c.relreplident,
       coalesce(pk.indisprimary, false), coalesce(NOT pk.indimmediate, false),
       CASE WHEN {0} AND c.relkind = 'r' THEN coalesce(pg_catalog.pg_relation_size(c.oid), 0)
              / pg_catalog.current_setting('block_size')::int ELSE 0 END,
       CASE WHEN {0} AND c.relkind = 'r' THEN coalesce(pg_catalog.pg_table_size(c.oid), 0) ELSE 0 END,
       c.reltuples, m.nspname, r.relname,
       c.relkind = 'p' AND EXISTS (
         SELECT FROM pg_catalog.pg_partitioned_table p
         JOIN pg_catalog.pg_opclass o ON o.oid = ANY (p.partclass::pg_catalog.oid[])
         WHERE p.partrelid = c.oid AND p.partstrat = 'h' AND o.opcintype = 'pg_catalog.anyenum'::pg_catalog.regtype),
       c.relkind = 'p' AND EXISTS (
         SELECT FROM pg_catalog.pg_partitioned_table p
         JOIN pg_catalog.pg_opclass o ON o.oid = ANY (p.partclass::pg_catalog.oid[])
         WHERE p.partrelid = c.oid AND p.partstrat = 'h' AND o.opcintype IN (19, 25, 1042))
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_catalog.pg_index pk ON pk.indrelid = c.oid AND pk.indisprimary
LEFT JOIN pg_catalog.pg_class r ON c.relispartition AND r.oid = pg_catalog.pg_partition_root(c.oid)
LEFT JOIN pg_catalog.pg_namespace m ON m.oid = r.relnamespace
WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't' AND {1} AND {2})",
                               sizes == Sizes::Read, user_schema_condition("n"), no_extension_condition("c")));
  std::vector<Table> tables;
  tables.reserve(static_cast<std::size_t>(rows.rows()));
  for (int row = 0; row < rows.rows(); ++row) {
    Table table;
    table.oid = Oid{rows.u32(row, 0)};
    table.name = {rows.str(row, 1), rows.str(row, 2)};
    table.kind = rows.text(row, 3).front();
    table.persistence = rows.text(row, 4).front();
    table.partition = rows.flag(row, 5);
    table.inherits = rows.flag(row, 6);
    table.replica_identity = rows.text(row, 7).front();
    table.has_primary_key = rows.flag(row, 8);
    table.deferrable_primary_key = rows.flag(row, 9);
    table.pages = rows.i64(row, 10);
    table.bytes = rows.i64(row, 11);
    table.rows_estimate = rows.number(row, 12);
    if (table.partition) table.root = {rows.str(row, 13), rows.str(row, 14)};
    table.hashes_oids = rows.flag(row, 15);
    table.hashes_text = rows.flag(row, 16);
    tables.push_back(std::move(table));
  }
  // Sorted here and not by the server, whose "C" order is that of its own encoding: find() compares UTF-8.
  std::ranges::sort(tables, {}, &Table::name);
  return tables;
}

void read_columns(pg::Session& session, std::map<Oid, Table*>& by_oid) {
  // A type is comparable when equal values of it are the same value, so that one of several rows can be told by it: 1.0
  // and 1.00, 0 and -0, a month and 30 days are equal, but not the same. Domains stand for their base, arrays for their
  // element, ranges for their bounds, composites for their attributes. What extensions bring is not comparable: its
  // operators are not found without a search path, and what they take for equal is not known.
  const pg::Result rows = session.exec(fmt::format(R"(
WITH RECURSIVE attributes AS (
  SELECT a.attrelid, a.attnum, a.attname, a.atttypid, a.atttypmod, a.attnotnull, a.attgenerated, a.attidentity,
         a.attcollation
  FROM pg_catalog.pg_attribute a
  JOIN pg_catalog.pg_class c ON c.oid = a.attrelid
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't' AND a.attnum > 0 AND NOT a.attisdropped AND {} AND {}),
parts(whole, part) AS (
  SELECT DISTINCT atttypid, atttypid FROM attributes
  UNION
  SELECT p.whole, s.part
  FROM parts p
  JOIN pg_catalog.pg_type t ON t.oid = p.part
  CROSS JOIN LATERAL (
    SELECT t.typbasetype AS part WHERE t.typtype = 'd'
    UNION ALL SELECT t.typelem WHERE t.typtype = 'b' AND t.typcategory = 'A' AND t.typelem <> 0
    UNION ALL SELECT r.rngsubtype FROM pg_catalog.pg_range r WHERE r.rngtypid = t.oid
    UNION ALL SELECT f.atttypid FROM pg_catalog.pg_attribute f
              WHERE t.typtype = 'c' AND f.attrelid = t.typrelid AND f.attnum > 0 AND NOT f.attisdropped) s),
incomparable AS (
  SELECT DISTINCT p.whole
  FROM parts p
  JOIN pg_catalog.pg_type t ON t.oid = p.part
  WHERE t.typtype NOT IN ('d', 'e', 'c', 'r') AND NOT (t.typcategory = 'A' AND t.typelem <> 0)
    AND NOT (t.typnamespace = 'pg_catalog'::pg_catalog.regnamespace AND t.typname = ANY (
      '{{bool,char,name,int2,int4,int8,text,varchar,bpchar,bytea,date,time,timetz,timestamp,timestamptz,uuid,bit,varbit,'
      'inet,cidr,macaddr,macaddr8,money,oid,xid8,pg_lsn,regclass,regtype,regproc,regprocedure,regrole,regnamespace}}')))
SELECT a.attrelid, a.attname, a.atttypid, pg_catalog.format_type(a.atttypid, a.atttypmod), a.attnotnull,
       a.attgenerated <> '', a.attidentity,
       NOT EXISTS (SELECT 1 FROM incomparable i WHERE i.whole = a.atttypid)
         AND NOT EXISTS (SELECT 1 FROM pg_catalog.pg_collation k WHERE k.oid = a.attcollation
                           AND NOT k.collisdeterministic),
       a.atttypmod
FROM attributes a
ORDER BY a.attrelid, a.attnum)",
                                                   user_schema_condition("n"), no_extension_condition("c")));
  for (int row = 0; row < rows.rows(); ++row) {
    const auto table = by_oid.find(Oid{rows.u32(row, 0)});
    if (table == by_oid.end()) continue;  // created between the two queries of a READ COMMITTED session
    Column column;
    column.name = rows.str(row, 1);
    column.type = Oid{rows.u32(row, 2)};
    column.type_name = rows.str(row, 3);
    column.not_null = rows.flag(row, 4);
    column.generated = rows.flag(row, 5);
    column.identity = rows.text(row, 6).empty() ? ' ' : rows.text(row, 6).front();
    column.comparable = rows.flag(row, 7);
    column.type_modifier = static_cast<std::int32_t>(rows.i64(row, 8));
    if (column.generated && session.server_version() >= 180000) table->second->full_identity_serves = false;
    table->second->columns.push_back(std::move(column));
  }
}

void read_identity_columns(pg::Session& session, std::map<Oid, Table*>& by_oid) {
  // A key that holds a generated column identifies nothing: pgoutput leaves such columns out of the tuples, and 18
  // refuses the update itself.
  const pg::Result rows = session.exec(fmt::format(R"(
SELECT i.indrelid, a.attname
FROM pg_catalog.pg_index i
JOIN pg_catalog.pg_class c ON c.oid = i.indrelid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
CROSS JOIN LATERAL pg_catalog.unnest(i.indkey::int2[]) WITH ORDINALITY AS k(attnum, position)
JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
WHERE c.relkind IN ('r', 'p') AND i.indimmediate AND i.indisvalid AND k.position <= i.indnkeyatts
  AND ((c.relreplident IN ('d', 'f') AND i.indisprimary) OR (c.relreplident = 'i' AND i.indisreplident))
  AND NOT EXISTS (SELECT 1 FROM pg_catalog.pg_attribute g
                  WHERE g.attrelid = i.indrelid AND g.attgenerated <> ''
                    AND g.attnum = ANY ((i.indkey::int2[])[0:i.indnkeyatts - 1])) AND {}
ORDER BY i.indrelid, k.position)",
                                                   user_schema_condition("n")));
  for (int row = 0; row < rows.rows(); ++row) {
    const auto table = by_oid.find(Oid{rows.u32(row, 0)});
    if (table != by_oid.end()) table->second->identity_columns.push_back(rows.str(row, 1));
  }
}

std::string read_encoding(pg::Session& session) {
  return session.exec("SHOW server_encoding").str(0, 0);
}

std::set<QualifiedName> roots_of(const Catalog& catalog, bool Table::*trait) {
  std::set<QualifiedName> roots;
  for (const Table& table : catalog.tables) {
    const QualifiedName& top = table.partition ? table.root : table.name;
    if (table.*trait && catalog.find(top) != nullptr) roots.insert(top);
  }
  return roots;
}

}  // namespace

const Table* Catalog::find(const QualifiedName& name) const {
  const auto found =
      std::lower_bound(tables.begin(), tables.end(), name,
                       [](const Table& table, const QualifiedName& wanted) { return table.name < wanted; });
  return found != tables.end() && found->name == name ? &*found : nullptr;
}

std::set<QualifiedName> hashed_by_oids(const Catalog& catalog) {
  return roots_of(catalog, &Table::hashes_oids);
}

std::set<QualifiedName> partitioned_differently(const Catalog& source, const Catalog& target) {
  const auto leaves = [](const Catalog& catalog) {
    std::map<QualifiedName, std::set<QualifiedName>> by_root;
    for (const Table& table : catalog.tables) {
      if (table.kind == 'p' && !table.partition) by_root[table.name];
      if (table.partition && table.holds_rows()) by_root[table.root].insert(table.name);
    }
    return by_root;
  };
  std::map<QualifiedName, std::set<QualifiedName>> there = leaves(target);
  std::set<QualifiedName> roots;
  for (const auto& [root, partitions] : leaves(source)) {
    if (target.find(root) != nullptr && partitions != there[root]) roots.insert(root);
  }
  roots.merge(hashed_by_oids(source));
  if (source.encoding != target.encoding) roots.merge(roots_of(source, &Table::hashes_text));
  return roots;
}

std::string user_schema_condition(std::string_view namespace_alias) {
  return fmt::format(
      "({0}.nspname <> 'information_schema' AND {0}.nspname <> 'walferry' AND {0}.nspname NOT LIKE 'pg\\_%')",
      namespace_alias);
}

std::string no_extension_condition(std::string_view class_alias) {
  return fmt::format(
      "NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass "
      "AND d.objid = {}.oid AND d.deptype = 'e')",
      class_alias);
}

DatabaseIdentity read_identity(pg::Session& session) {
  const pg::Result row = session.exec(R"(
SELECT s.system_identifier, d.oid, d.datname, (SELECT timeline_id FROM pg_catalog.pg_control_checkpoint()),
       pg_catalog.pg_encoding_to_char(d.encoding), pg_catalog.pg_is_in_recovery()
FROM pg_catalog.pg_control_system() s, pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database())");
  DatabaseIdentity identity;
  identity.system_identifier = row.str(0, 0);
  identity.database_oid = row.u32(0, 1);
  identity.database = row.str(0, 2);
  identity.timeline = row.u32(0, 3);
  identity.encoding = row.str(0, 4);
  identity.in_recovery = row.flag(0, 5);
  identity.server_version = session.server_version();
  return identity;
}

Catalog read_catalog(pg::Session& session, Sizes sizes) {
  Catalog catalog;
  catalog.tables = read_tables(session, sizes);
  std::map<Oid, Table*> by_oid;
  for (Table& table : catalog.tables) by_oid.emplace(table.oid, &table);
  read_columns(session, by_oid);
  read_identity_columns(session, by_oid);
  catalog.sequences = read_sequences(session);
  catalog.encoding = read_encoding(session);
  return catalog;
}

Catalog read_table_list(pg::Session& session) {
  Catalog catalog;
  catalog.tables = read_tables(session, Sizes::LeaveOut);
  catalog.encoding = read_encoding(session);
  return catalog;
}

std::vector<Sequence> read_sequences(pg::Session& session) {
  const pg::Result rows = session.exec(fmt::format(R"(
SELECT c.oid, n.nspname, c.relname, pg_catalog.format_type(s.seqtypid, NULL), s.seqstart, s.seqincrement, s.seqmin, s.seqmax,
       s.seqcache, s.seqcycle
FROM pg_catalog.pg_sequence s
JOIN pg_catalog.pg_class c ON c.oid = s.seqrelid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relpersistence <> 't' AND {} AND {})",
                                                   user_schema_condition("n"), no_extension_condition("c")));
  std::vector<Sequence> sequences;
  for (int row = 0; row < rows.rows(); ++row) {
    Sequence sequence;
    sequence.oid = Oid{rows.u32(row, 0)};
    sequence.name = {rows.str(row, 1), rows.str(row, 2)};
    sequence.type_name = rows.str(row, 3);
    sequence.start = rows.i64(row, 4);
    sequence.increment = rows.i64(row, 5);
    sequence.minimum = rows.i64(row, 6);
    sequence.maximum = rows.i64(row, 7);
    sequence.cache = rows.i64(row, 8);
    sequence.cycle = rows.flag(row, 9);
    sequences.push_back(std::move(sequence));
  }
  std::ranges::sort(sequences, {}, &Sequence::name);
  return sequences;
}

std::string common_encoding(const DatabaseIdentity& source, const DatabaseIdentity& target) {
  return source.encoding == target.encoding ? source.encoding : "UTF8";
}

}  // namespace walferry
