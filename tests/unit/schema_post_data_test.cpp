#include <doctest/doctest.h>

#include "engine/schema/post_data.hpp"

using namespace walferry;
using namespace walferry::schema;

namespace {

PostDataItem item_of(std::string sql) {
  ScriptEntry entry;
  entry.sql = std::move(sql);
  return make_item(entry);
}

ScriptEntry entry(int dump_id, std::vector<int> depends_on, std::string sql) {
  ScriptEntry result;
  result.dump_id = dump_id;
  result.depends_on = std::move(depends_on);
  result.sql = std::move(sql);
  return result;
}

std::vector<std::string> names(std::span<const PostDataItem> items) {
  std::vector<std::string> result;
  for (const PostDataItem& item : items) result.push_back(item.name);
  return result;
}

struct Expected {
  std::string sql;
  ItemKind kind;
  std::string schema;
  std::string name;
  std::optional<QualifiedName> table;
};

}  // namespace

TEST_CASE("kind, name and table come from the SQL, whatever the names hold") {
  const QualifiedName odd{"Od.d \"S", "Ta.b \"le\nnew line"};
  const QualifiedName t1{"public", "t1"};
  const std::vector<Expected> cases{
      {"CREATE INDEX \"ix ON \"\"only\"\" (x\" ON \"Od.d \"\"S\".\"Ta.b \"\"le\nnew line\" USING btree (lower(\"on\"), "
       "v) "
       "WHERE (v <> ' ON y.z');",
       ItemKind::Index, "Od.d \"S", "ix ON \"only\" (x", odd},
      {"CREATE UNIQUE INDEX part_u ON ONLY public.part USING btree (id, k, t);", ItemKind::Index, "public", "part_u",
       QualifiedName{"public", "part"}},
      {"ALTER TABLE ONLY public.t1\n    ADD CONSTRAINT \"a.b\" EXCLUDE USING gist (a WITH =, during WITH &&);",
       ItemKind::Constraint, "public", "a.b", t1},
      {"ALTER TABLE public.t1\n    ADD CONSTRAINT a_pos CHECK ((a > 0)) NOT VALID;", ItemKind::CheckConstraint,
       "public", "a_pos", t1},
      {"ALTER TABLE ONLY public.t1\n    ADD CONSTRAINT fk FOREIGN KEY (b) REFERENCES public.t2(id) NOT VALID;",
       ItemKind::ForeignKey, "public", "fk", t1},
      {"ALTER DOMAIN public.posint\n    ADD CONSTRAINT \"lt;1000\" CHECK ((VALUE < 1000)) NOT VALID;",
       ItemKind::DomainConstraint, "public", "lt;1000", QualifiedName{"public", "posint"}},
      {"ALTER INDEX public.part_pkey ATTACH PARTITION public.\"part_2 X_pkey\";", ItemKind::IndexAttach, "public",
       "part_pkey", QualifiedName{"public", "part_2 X_pkey"}},
      {"CREATE STATISTICS \"S\".\"St FROM x\" ON ((a + 1)), b FROM public.t1;", ItemKind::Statistics, "S", "St FROM x",
       t1},
      {"CREATE STATISTICS public.st (dependencies) ON a, b FROM public.t1;\n\n\nALTER STATISTICS public.st SET "
       "STATISTICS 7;",
       ItemKind::Statistics, "public", "st", t1},
      {"CREATE TRIGGER \"tr ON\" BEFORE INSERT OR UPDATE OF a, \"on\" ON public.t1 FOR EACH ROW WHEN ((new.c <> ' ON "
       "x'::text)) "
       "EXECUTE FUNCTION public.tf('arg;');",
       ItemKind::Trigger, "public", "tr ON", t1},
      {"CREATE CONSTRAINT TRIGGER ctr AFTER UPDATE ON public.t1 DEFERRABLE FOR EACH ROW EXECUTE FUNCTION public.tf();",
       ItemKind::Trigger, "public", "ctr", t1},
      {"ALTER TABLE public.t1 ENABLE REPLICA TRIGGER ptr;", ItemKind::TriggerState, "public", "ptr", t1},
      {"CREATE RULE \"ru;le\" AS\n    ON UPDATE TO public.t1\n   WHERE (new.t1 = 5) DO ( INSERT INTO public.log VALUES "
       "(1); );",
       ItemKind::Rule, "public", "ru;le", t1},
      {"CREATE POLICY \"pol ON x\" ON public.t1 AS RESTRICTIVE FOR SELECT TO reader USING (true);", ItemKind::Policy,
       "public", "pol ON x", t1},
      {"ALTER TABLE public.t1 ENABLE ROW LEVEL SECURITY;", ItemKind::RowSecurity, "public", "t1", t1},
      {"CREATE EVENT TRIGGER \"et R\" ON sql_drop\n   EXECUTE FUNCTION public.etf();", ItemKind::EventTrigger, "",
       "et R", std::nullopt},
      {"CREATE OR REPLACE VIEW public.v AS SELECT 1;", ItemKind::View, "public", "v", std::nullopt},
      {"CREATE MATERIALIZED VIEW public.mv AS SELECT 1 WITH NO DATA;", ItemKind::MatviewDefinition, "public", "mv",
       std::nullopt},
      {"REFRESH MATERIALIZED VIEW public.\"Z mv\";", ItemKind::MatviewData, "public", "Z mv", std::nullopt},
      {"CREATE FUNCTION public.f(i integer) RETURNS bigint", ItemKind::Routine, "public", "f", std::nullopt},
  };
  for (const Expected& expected : cases) {
    CAPTURE(expected.sql);
    const PostDataItem item = item_of(expected.sql);
    CHECK(item.kind == expected.kind);
    CHECK(item.schema == expected.schema);
    CHECK(item.name == expected.name);
    CHECK(item.table == expected.table);
  }
  CHECK(item_of("ALTER TABLE public.t1 ENABLE REPLICA TRIGGER ptr;").wanted_state == 'R');
  CHECK(item_of("GRANT SELECT ON TABLE public.mv TO reader;").kind == ItemKind::Other);
}

TEST_CASE("items of copied tables, of other relations, foreign keys and the rest come in their stages") {
  const std::vector<ScriptEntry> entries{
      entry(1, {900}, "ALTER TABLE ONLY public.t ADD CONSTRAINT t_pkey PRIMARY KEY (id);"),
      entry(2, {1}, "COMMENT ON CONSTRAINT t_pkey ON public.t IS 'pk';"),
      entry(3, {901}, "CREATE INDEX p_i ON ONLY public.p USING btree (a);"),
      entry(4, {3, 902}, "CREATE INDEX p1_i ON public.p1 USING btree (a);"),
      entry(5, {900}, "CREATE INDEX t_i ON public.t USING btree (b);\n\nALTER TABLE public.t CLUSTER ON t_i;"),
      entry(6, {4, 3}, "ALTER INDEX public.p_i ATTACH PARTITION public.p1_i;"),
      entry(7, {1}, "CREATE MATERIALIZED VIEW public.mv AS SELECT 1 WITH NO DATA;"),
      entry(8, {7}, "CREATE INDEX mv_i ON public.mv USING btree (a);"),
      entry(9, {1}, "ALTER TABLE ONLY public.u ADD CONSTRAINT fk FOREIGN KEY (a) REFERENCES public.t(id);"),
      entry(10, {9}, "COMMENT ON CONSTRAINT fk ON public.u IS 'fk';"),
      entry(11, {900}, "CREATE TRIGGER tr AFTER INSERT ON public.t FOR EACH ROW EXECUTE FUNCTION public.f();"),
      entry(12, {900}, "ALTER TABLE public.t ADD CONSTRAINT c CHECK ((a > 0)) NOT VALID;"),
  };
  const PostDataPlan plan{entries, {{"public", "t"}, {"public", "p1"}, {"public", "u"}}};

  CHECK(names(plan.table_items({"public", "t"})) == std::vector<std::string>{"t_pkey", "t_i"});
  CHECK(names(plan.table_items({"public", "p1"})) == std::vector<std::string>{"p1_i"});
  CHECK(plan.table_items({"public", "u"}).empty());
  // The key whose index is built with the others, the partitioned parent, what an index sets on its table, the
  // attachment, the check.
  CHECK(names(plan.remaining()) == std::vector<std::string>{"t_pkey", "p_i", "t_i", "p_i", "c"});
  CHECK(plan.remaining()[2].kind == ItemKind::IndexSetting);
  CHECK(names(plan.foreign_keys()) == std::vector<std::string>{"fk"});
  CHECK(names(plan.last()) == std::vector<std::string>{"mv", "mv_i", "tr"});
  CHECK(plan.tables() == std::vector<QualifiedName>{{"public", "p1"}, {"public", "t"}});
  CHECK(plan.size() == 12);

  SUBCASE("a comment is executed with what it belongs to") {
    CHECK(plan.remaining()[0].sql.ends_with("IS 'pk';"));
    CHECK(plan.foreign_keys()[0].sql.ends_with("IS 'fk';"));
  }
  SUBCASE("an index alone stays in its item") {
    CHECK(plan.table_items({"public", "t"})[1].sql == "CREATE INDEX t_i ON public.t USING btree (b);");
    CHECK(plan.remaining()[2].sql == "ALTER TABLE public.t CLUSTER ON t_i;");
  }
}

TEST_CASE("a key is made of an index that was built beside the others, where CREATE INDEX can say what it is") {
  const auto plan_with = [](const std::string& key, const std::string& other) {
    return PostDataPlan{std::vector<ScriptEntry>{entry(1, {}, key), entry(2, {}, other)}, {{"S", "t \"x"}}};
  };
  const QualifiedName table{"S", "t \"x"};
  const std::string other = R"(CREATE INDEX other ON "S"."t ""x" USING btree (b);)";
  const std::string head = R"(ALTER TABLE ONLY "S"."t ""x" ADD CONSTRAINT "the key" )";

  for (const std::string kind : {"PRIMARY KEY", "UNIQUE"}) {
    const PostDataPlan plan = plan_with(head + kind + " (\"a)\", b);\n\nALTER TABLE x CLUSTER ON y;", other);
    REQUIRE(plan.table_items(table).size() == 2);
    CHECK(plan.table_items(table)[0].kind == ItemKind::Index);
    CHECK(plan.table_items(table)[0].name == "the key");
    CHECK(plan.table_items(table)[0].sql == R"-(CREATE UNIQUE INDEX "the key" ON "S"."t ""x" USING btree ("a)", b);)-");
    REQUIRE(plan.remaining().size() == 1);
    CHECK(plan.remaining()[0].kind == ItemKind::Constraint);
    CHECK(plan.remaining()[0].sql == head + kind + " USING INDEX \"the key\";\n\nALTER TABLE x CLUSTER ON y;");
  }
  for (const std::string rest : {"PRIMARY KEY (a) INCLUDE (b);", "UNIQUE NULLS NOT DISTINCT (a);",
                                 "UNIQUE (a) DEFERRABLE;", "PRIMARY KEY (a) WITH (fillfactor='70');",
                                 "PRIMARY KEY (a, b WITHOUT OVERLAPS);", "EXCLUDE USING gist (a WITH =);"}) {
    const PostDataPlan plan = plan_with(head + rest, other);
    CHECK(plan.table_items(table)[0].sql == head + rest);
    CHECK(plan.remaining().empty());
  }
  // Alone it is built as it is.
  const PostDataPlan alone = plan_with(head + "UNIQUE (a);", "CREATE STATISTICS s ON a, b FROM \"S\".\"t \"\"x\";");
  CHECK(alone.table_items(table)[0].sql == head + "UNIQUE (a);");
  CHECK(alone.remaining().empty());
}

TEST_CASE("a plan of nothing is empty") {
  const PostDataPlan plan{{}, {}};
  CHECK(plan.size() == 0);
  CHECK(plan.table_items({"public", "t"}).empty());
}

TEST_CASE("an item names itself for people") {
  CHECK(item_of("CREATE INDEX i ON public.t USING btree (b);").text() == "index public.i on public.t");
  CHECK(item_of("ALTER TABLE public.t1 ENABLE ROW LEVEL SECURITY;").text() == "row security public.t1");
  CHECK(item_of("ALTER INDEX s.p ATTACH PARTITION s.c;").text() == "index attachment s.p of s.c");
}
