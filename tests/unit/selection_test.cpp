#include "engine/selection.hpp"

#include <doctest/doctest.h>

using namespace walferry;

TEST_CASE("a pattern is one of psql: folded, with wildcards, quotes and a schema before the dot") {
  CHECK(parse_table_pattern("Item").name == "^(item)$");
  CHECK(parse_table_pattern("Item").schema.empty());
  CHECK(parse_table_pattern("app.*").schema == "^(app)$");
  CHECK(parse_table_pattern("app.*").name == "^(.*)$");
  CHECK(parse_table_pattern("a?p.it[em]+").schema == "^(a.p)$");
  CHECK(parse_table_pattern("a?p.it[em]+").name == "^(it[em]+)$");
  CHECK(parse_table_pattern("\"A.b\".\"x\"\"*\"").schema == "^(A\\.b)$");
  CHECK(parse_table_pattern("\"A.b\".\"x\"\"*\"").name == "^(x\"\\*)$");
  CHECK(parse_table_pattern("cost$").name == "^(cost\\$)$");
  CHECK(parse_table_pattern("a|b").name == "^(a|b)$");
  CHECK_THROWS_AS((void)parse_table_pattern("a.b.c"), Error);
  CHECK_THROWS_AS((void)parse_table_pattern(""), Error);
}

TEST_CASE("rules survive the journal, and a file of rules may have comments and bare patterns") {
  SelectionRules rules;
  rules.add("# mine\n\n  include table app.*\nexclude table app.x \r\n\"Odd one\"\ninclude schema s\nexclude schema t");
  CHECK(rules.include_tables == std::vector<std::string>{"app.*", "\"Odd one\""});
  CHECK(rules.exclude_tables == std::vector<std::string>{"app.x"});
  CHECK(rules.include_schemas == std::vector<std::string>{"s"});
  CHECK(rules.exclude_schemas == std::vector<std::string>{"t"});
  SelectionRules again;
  again.add(rules.text());
  CHECK(again == rules);
  CHECK_FALSE(rules.empty());
  CHECK(SelectionRules{}.empty());
  CHECK(SelectionRules{}.text().empty());
  CHECK_THROWS_AS(again.add("exclude extension x"), Error);
}

TEST_CASE("rules of which some would have no effect are refused") {
  CHECK_THROWS_AS((SelectionRules{.include_tables = {"a"}, .include_schemas = {"b"}}.require_sensible()), Error);
  CHECK_THROWS_AS((SelectionRules{.include_tables = {"a"}, .exclude_schemas = {"b"}}.require_sensible()), Error);
  CHECK_NOTHROW((SelectionRules{.include_tables = {"a"}, .exclude_tables = {"b"}}.require_sensible()));
  CHECK_NOTHROW((SelectionRules{.include_schemas = {"a"}, .exclude_schemas = {"b"}}.require_sensible()));
}
