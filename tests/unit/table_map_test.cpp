#include "engine/apply/table_map.hpp"

#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "engine/error.hpp"
#include "tests/fuzz/pgoutput_encode.hpp"

using namespace walferry;
using apply::MappedTable;
using apply::Statement;
using apply::TableMap;

namespace {

using walferry::Oid;  // not libpq's

using Numbers = std::vector<std::uint16_t>;

constexpr RelationId table_id{16'394};

Column target_column(const std::string& name) {
  Column column;
  column.name = name;
  column.type = Oid{25};
  return column;
}

// public.t on the target, with these columns; nothing identifies its rows.
Table target_table(const std::vector<std::string>& columns) {
  Table table;
  table.name = {"public", "t"};
  for (const std::string& column : columns) table.columns.push_back(target_column(column));
  return table;
}

// public.t in the stream; a column that begins with '*' is in the replica identity.
pgoutput::RelationView described(const std::vector<std::string_view>& columns,
                                 pgoutput::ReplicaIdentity identity = pgoutput::ReplicaIdentity::Default) {
  pgoutput::RelationView relation;
  relation.id = table_id;
  relation.schema = "public";
  relation.name = "t";
  relation.identity = identity;
  for (const std::string_view column : columns) {
    const bool key = column.starts_with('*');
    relation.columns.push_back({.key = key, .name = column.substr(key ? 1 : 0), .type = Oid{25}, .type_modifier = -1});
  }
  return relation;
}

// With identity FULL every column is marked as key on the wire.
pgoutput::RelationView described_full(const std::vector<std::string_view>& columns) {
  pgoutput::RelationView relation = described(columns, pgoutput::ReplicaIdentity::Full);
  for (pgoutput::ColumnView& column : relation.columns) column.key = true;
  return relation;
}

// The statements for a relation of the stream on a target that holds `tables`.
class Mapping {
 public:
  explicit Mapping(std::vector<Table> tables) { holds(std::move(tables)); }

  void holds(std::vector<Table> tables) { map.set_target({.catalog = {.tables = std::move(tables), .sequences = {}}}); }
  bool describe(const pgoutput::RelationView& relation) { return map.describe(relation, test::encode(relation)); }
  MappedTable& table() { return map.find(table_id); }

  // `row`: 't' or 'n' for a column that is sent, 'u' for unchanged TOAST.
  Statement& update(std::string_view row, bool with_old = false) {
    fields_.clear();
    for (const char kind : row) {
      fields_.push_back(static_cast<std::byte>(kind));
      if (kind == 't') fields_.insert(fields_.end(), 4, std::byte{0});
    }
    const pgoutput::TupleView tuple{static_cast<std::uint16_t>(row.size()), fields_};
    pgoutput::UpdateView change{.stream_xid = {}, .relation = table_id, .old = {}, .row = tuple};
    if (with_old) change.old = pgoutput::OldTupleView{.kind = pgoutput::OldTupleKind::Key, .tuple = tuple};
    return map.update_statement(table(), change);
  }

  TableMap map;

 private:
  std::vector<std::byte> fields_;
};

}  // namespace

TEST_CASE("a row is inserted by column names, identity columns included") {
  Mapping mapping{{target_table({"body", "id"})}};
  REQUIRE(mapping.describe(described({"*id", "body"})));
  const Statement& insert = mapping.table().insert;
  CHECK(insert.sql == R"(INSERT INTO "public"."t" ("id", "body") OVERRIDING SYSTEM VALUE VALUES ($1, $2))");
  CHECK(insert.new_columns == Numbers{0, 1});
  CHECK(insert.old_columns.empty());
}

TEST_CASE("a row is deleted by its key alone") {
  Mapping mapping{{target_table({"a", "b", "c"})}};
  REQUIRE(mapping.describe(described({"*a", "b", "*c"})));
  const Statement& remove = mapping.table().remove;
  CHECK(remove.sql == R"(DELETE FROM ONLY "public"."t" WHERE "a" = $1 AND "c" = $2)");
  CHECK(remove.new_columns.empty());
  CHECK(remove.old_columns == Numbers{0, 2});
}

TEST_CASE("a key is compared by the operator of its index, without one by that of its type") {
  Table target = target_table({"by_index", "by_type", "plain"});
  target.oid = walferry::Oid{20'000};
  target.columns[0].type = target.columns[1].type = walferry::Oid{30'000};
  Mapping mapping{{}};
  apply::TargetTables known{.catalog = {.tables = {target}, .sequences = {}}};
  known.tables[target.oid].equality = {{"by_index", "="}};
  known.types[walferry::Oid{30'000}] = {.name = "ext.path", .reads_text = true, .equality = "OPERATOR(ext.=)"};
  known.types[walferry::Oid{25}] = {.name = "pg_catalog.text", .reads_text = true};
  mapping.map.set_target(known);
  REQUIRE(mapping.describe(described({"*by_index", "*by_type", "*plain"})));
  CHECK(mapping.table().remove.sql ==
        R"(DELETE FROM ONLY "public"."t" WHERE "by_index" = $1 AND "by_type" OPERATOR(ext.=) $2 AND "plain" = $3)");
  CHECK(mapping.map.set_remove_statement(mapping.table())
            .sql.ends_with(R"(WHERE t."by_index" = v.c1::ext.path AND t."by_type" OPERATOR(ext.=) v.c2::ext.path AND )"
                           R"(t."plain" = v.c3::pg_catalog.text)"));
}

TEST_CASE("names are quoted whatever they hold") {
  Table odd = target_table({"select", "a\"b", "Größe; --"});
  odd.name = {"My \"schema\"", "t.1"};
  Mapping mapping{{odd}};
  pgoutput::RelationView relation = described({"*select", "a\"b", "Größe; --"});
  relation.schema = odd.name.schema;
  relation.name = odd.name.name;
  REQUIRE(mapping.describe(relation));
  CHECK(
      mapping.table().insert.sql ==
      R"(INSERT INTO "My ""schema"""."t.1" ("select", "a""b", "Größe; --") OVERRIDING SYSTEM VALUE VALUES ($1, $2, $3))");
  CHECK(mapping.table().remove.sql == R"(DELETE FROM ONLY "My ""schema"""."t.1" WHERE "select" = $1)");
  CHECK(mapping.update("ttt").sql ==
        R"(UPDATE ONLY "My ""schema"""."t.1" SET "a""b" = $1, "Größe; --" = $2 WHERE "select" = $3)");
}

TEST_CASE("an update without an old tuple leaves the key alone") {
  Mapping mapping{{target_table({"id", "body", "m"})}};
  REQUIRE(mapping.describe(described({"*id", "body", "m"})));
  const Statement& update = mapping.update("ttn");
  CHECK(update.sql == R"(UPDATE ONLY "public"."t" SET "body" = $1, "m" = $2 WHERE "id" = $3)");
  CHECK(update.new_columns == Numbers{1, 2});
  CHECK(update.old_columns == Numbers{0});
}

TEST_CASE("an update of the key sets it and finds the row by the old one") {
  Mapping mapping{{target_table({"id", "body"})}};
  REQUIRE(mapping.describe(described({"*id", "body"})));
  const Statement& update = mapping.update("tt", true);
  CHECK(update.sql == R"(UPDATE ONLY "public"."t" SET "id" = $1, "body" = $2 WHERE "id" = $3)");
  CHECK(update.new_columns == Numbers{0, 1});
  CHECK(update.old_columns == Numbers{0});
}

TEST_CASE("an update with unchanged toast leaves the column alone") {
  Mapping mapping{{target_table({"id", "body", "m"})}};
  REQUIRE(mapping.describe(described({"*id", "body", "m"})));
  const Statement& update = mapping.update("tut");
  CHECK(update.sql == R"(UPDATE ONLY "public"."t" SET "m" = $1 WHERE "id" = $2)");
  CHECK(update.new_columns == Numbers{2});
}

TEST_CASE("an update that changes nothing still proves that the row is there") {
  Mapping mapping{{target_table({"id", "body"})}};
  REQUIRE(mapping.describe(described({"*id", "body"})));
  const Statement& update = mapping.update("tu");
  CHECK(update.sql == R"(SELECT 1 FROM ONLY "public"."t" WHERE "id" = $1)");
  CHECK(update.new_columns.empty());
  CHECK(update.old_columns == Numbers{0});
}

TEST_CASE("updates of one shape share a statement, others have their own name") {
  Mapping mapping{{target_table({"id", "body"})}};
  REQUIRE(mapping.describe(described({"*id", "body"})));
  const Statement& whole = mapping.update("tt");
  CHECK(&mapping.update("tn") == &whole);
  const Statement& toasted = mapping.update("tu");
  const Statement& rekeyed = mapping.update("tt", true);
  CHECK(&toasted != &whole);
  CHECK(&rekeyed != &whole);
  CHECK(whole.name != toasted.name);
  CHECK(whole.name != rekeyed.name);
  CHECK(toasted.name != rekeyed.name);
  CHECK(mapping.table().insert.name != mapping.table().remove.name);
}

TEST_CASE("an update that does not fit the description is refused") {
  Mapping mapping{{target_table({"id", "body"})}};
  REQUIRE(mapping.describe(described({"*id", "body"})));
  CHECK_THROWS_AS(mapping.update("t"), Error);
  CHECK_THROWS_AS(mapping.update("ttt"), Error);
}

TEST_CASE("identity FULL finds rows by the key where the target has one") {
  Table target = target_table({"id", "body"});
  target.identity_columns = {"id"};
  Mapping mapping{{target}};
  REQUIRE(mapping.describe(described_full({"body", "id"})));
  CHECK_FALSE(mapping.table().full_identity);
  CHECK(mapping.table().remove.sql == R"(DELETE FROM ONLY "public"."t" WHERE "id" = $1)");
  CHECK(mapping.table().remove.old_columns == Numbers{1});
  const Statement& update = mapping.update("tt", true);
  CHECK(update.sql == R"(UPDATE ONLY "public"."t" SET "body" = $1, "id" = $2 WHERE "id" = $3)");
  CHECK(update.old_columns == Numbers{1});
}

TEST_CASE("identity FULL without a key on the target changes one of several equal rows") {
  Mapping mapping{{target_table({"a", "b"})}};
  REQUIRE(mapping.describe(described_full({"a", "b"})));
  CHECK(mapping.table().full_identity);
  CHECK(mapping.table().remove.sql ==
        R"(DELETE FROM ONLY "public"."t" WHERE ctid = (SELECT ctid FROM ONLY "public"."t" )"
        R"(WHERE "a" IS NOT DISTINCT FROM $1 AND "b" IS NOT DISTINCT FROM $2 LIMIT 1))");
  CHECK(mapping.table().remove.old_columns == Numbers{0, 1});
  const Statement& update = mapping.update("tu", true);
  CHECK(update.sql == R"(UPDATE ONLY "public"."t" SET "a" = $1 WHERE ctid = (SELECT ctid FROM ONLY "public"."t" )"
                      R"(WHERE "a" IS NOT DISTINCT FROM $2 AND "b" IS NOT DISTINCT FROM $3 LIMIT 1))");
  CHECK(update.new_columns == Numbers{0});
  CHECK(update.old_columns == Numbers{0, 1});
}

TEST_CASE("identity FULL does not rely on a key of which the stream carries only a part") {
  Table target = target_table({"a", "b"});
  target.identity_columns = {"a", "b"};
  Mapping mapping{{target}};
  REQUIRE(mapping.describe(described_full({"a"})));
  CHECK(mapping.table().full_identity);
}

TEST_CASE("columns whose type has no equality are compared as text") {
  Table target = target_table({"id", "doc"});
  target.columns[1].comparable = false;
  Mapping mapping{{target}};
  REQUIRE(mapping.describe(described_full({"id", "doc"})));
  CHECK(
      mapping.table().remove.sql ==
      R"(DELETE FROM ONLY "public"."t" WHERE ctid = (SELECT ctid FROM ONLY "public"."t" WHERE "id" IS NOT DISTINCT FROM $1 )"
      R"(AND "doc"::pg_catalog.text IS NOT DISTINCT FROM $2::pg_catalog.text LIMIT 1))");
}

TEST_CASE("a table without columns takes rows and gives one back") {
  Mapping mapping{{target_table({})}};
  REQUIRE(mapping.describe(described_full({})));
  CHECK(mapping.table().insert.sql == R"(INSERT INTO "public"."t" DEFAULT VALUES)");
  CHECK(mapping.table().insert.new_columns.empty());
  CHECK(mapping.table().remove.sql ==
        R"(DELETE FROM ONLY "public"."t" WHERE ctid = (SELECT ctid FROM ONLY "public"."t" WHERE true LIMIT 1))");
}

TEST_CASE("on a partitioned target statements reach the partitions") {
  Table target = target_table({"id", "body"});
  target.kind = 'p';
  Mapping mapping{{target}};
  REQUIRE(mapping.describe(described({"*id", "body"})));
  CHECK(mapping.table().remove.sql == R"(DELETE FROM "public"."t" WHERE "id" = $1)");
  CHECK(mapping.update("tt").sql == R"(UPDATE "public"."t" SET "body" = $1 WHERE "id" = $2)");
}

TEST_CASE("on a partitioned target without a key one row is changed, not one in each partition") {
  // A ctid is unique in a partition only: rows of two partitions can share it.
  Table target = target_table({"a"});
  target.kind = 'p';
  Mapping mapping{{target}};
  REQUIRE(mapping.describe(described_full({"a"})));
  for (const std::string& sql : {mapping.table().remove.sql, mapping.update("t", true).sql}) {
    CAPTURE(sql);
    CHECK(sql.find("ONLY") == std::string::npos);
    CHECK(sql.find("tableoid") != std::string::npos);
  }
}

TEST_CASE("a table or a column that the target lacks asks for a fresh catalog") {
  Mapping mapping{{}};
  const auto relation = described({"*id", "body"});
  CHECK_FALSE(mapping.describe(relation));
  CHECK_THROWS_AS(mapping.table(), Error);
  mapping.holds({target_table({"id"})});
  CHECK_FALSE(mapping.describe(relation));
  CHECK_THROWS_AS(mapping.table(), Error);
  mapping.holds({target_table({"id", "body"})});
  CHECK(mapping.describe(relation));
  CHECK(mapping.table().columns.size() == 2);
}

TEST_CASE("a column more on the target is left to its default") {
  Mapping mapping{{target_table({"id", "added", "body"})}};
  REQUIRE(mapping.describe(described({"*id", "body"})));
  CHECK(mapping.table().insert.sql ==
        R"(INSERT INTO "public"."t" ("id", "body") OVERRIDING SYSTEM VALUE VALUES ($1, $2))");
}

TEST_CASE("a column that the target generates itself is refused by name") {
  Table target = target_table({"id", "total"});
  target.columns[1].generated = true;
  Mapping mapping{{target}};
  try {
    static_cast<void>(mapping.describe(described({"*id", "total"})));
    FAIL("a generated column was accepted");
  } catch (const Error& error) {
    CHECK(error.kind() == ErrorKind::Divergence);
    CHECK(error.side() == Side::Target);
    CHECK(std::string{error.what()}.find("column total of public.t is generated on the target") == 0);
  }
  CHECK(mapping.describe(described({"*id"})));
}

TEST_CASE("a relation of pg_catalog is named without a schema on the wire") {
  Table catalog_table = target_table({"a"});
  catalog_table.name.schema = "pg_catalog";
  Mapping mapping{{catalog_table}};
  pgoutput::RelationView relation = described({"*a"});
  relation.schema = "";
  REQUIRE(mapping.describe(relation));
  CHECK(mapping.table().name.text() == "pg_catalog.t");
}

TEST_CASE("a relation described again unchanged keeps its prepared statements, a changed one gets new ones") {
  Mapping mapping{{target_table({"id", "body"})}};
  REQUIRE(mapping.describe(described({"*id"})));
  mapping.table().insert.prepared = true;
  const std::string name = mapping.table().insert.name;
  REQUIRE(mapping.describe(described({"*id"})));
  CHECK(mapping.table().insert.prepared);
  REQUIRE(mapping.describe(described({"*id", "body"})));
  CHECK_FALSE(mapping.table().insert.prepared);
  CHECK(mapping.table().insert.name != name);
  CHECK(mapping.table().insert.new_columns == Numbers{0, 1});
}

TEST_CASE("on a new connection nothing is prepared") {
  Mapping mapping{{target_table({"id", "body"})}};
  REQUIRE(mapping.describe(described({"*id", "body"})));
  mapping.table().insert.prepared = true;
  mapping.table().remove.prepared = true;
  mapping.update("tt").prepared = true;
  mapping.map.forget_prepared();
  CHECK_FALSE(mapping.table().insert.prepared);
  CHECK_FALSE(mapping.table().remove.prepared);
  CHECK_FALSE(mapping.update("tt").prepared);
}

TEST_CASE("a copied table knows its copy LSN, another one has none") {
  Mapping mapping{{target_table({"id"})}};
  mapping.map.set_copied({{{"public", "t"}, Lsn{500}}, {{"public", "u"}, Lsn{600}}}, {});
  REQUIRE(mapping.describe(described({"*id"})));
  CHECK(mapping.table().copy_lsn == Lsn{500});
  Mapping uncopied{{target_table({"id"})}};
  REQUIRE(uncopied.describe(described({"*id"})));
  CHECK(uncopied.table().copy_lsn == Lsn{});
}

TEST_CASE("a copy LSN is of the table that was copied, not of its name") {
  const RelationId same = described({"*id"}).id;
  const RelationId before{static_cast<std::uint32_t>(same) + 1};
  const std::map<QualifiedName, Lsn> copied{{{"public", "t"}, Lsn{500}}};
  Mapping replaced{{target_table({"id"})}};
  replaced.map.set_copied(copied, {{{"public", "t"}, before}});
  REQUIRE(replaced.describe(described({"*id"})));
  CHECK(replaced.table().copy_lsn == Lsn{});
  // Whoever copied it under another name.
  Mapping renamed{{target_table({"id"})}};
  renamed.map.set_copied({{{"public", "was"}, Lsn{700}}}, {{{"public", "was"}, same}});
  REQUIRE(renamed.describe(described({"*id"})));
  CHECK(renamed.table().copy_lsn == Lsn{700});
}

TEST_CASE("a change of a relation that was not described is refused") {
  Mapping mapping{{target_table({"id"})}};
  CHECK_THROWS_AS(mapping.table(), Error);
}
