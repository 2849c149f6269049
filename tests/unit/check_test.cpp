#include <doctest/doctest.h>

#include <boost/json.hpp>

#include "engine/check/finding.hpp"
#include "engine/check/sections.hpp"
#include "engine/check/standby_names.hpp"

using namespace walferry;

TEST_CASE("the names of synchronous standbys are read in every form of the setting") {
  using Names = std::vector<std::string>;
  CHECK(parse_synchronous_standby_names("").empty());
  CHECK(parse_synchronous_standby_names("  ").empty());
  CHECK(parse_synchronous_standby_names("a, b") == Names{"a", "b"});
  CHECK(parse_synchronous_standby_names("*") == Names{"*"});
  CHECK(parse_synchronous_standby_names("2 (a,b , c)") == Names{"a", "b", "c"});
  CHECK(parse_synchronous_standby_names("FIRST 1 (s1, *)") == Names{"s1", "*"});
  CHECK(parse_synchronous_standby_names("any 2(s1)") == Names{"s1"});
  CHECK(parse_synchronous_standby_names(R"("a b", "say ""x""", first)") == Names{"a b", "say \"x\"", "first"});
  CHECK(parse_synchronous_standby_names(R"(ANY 1 ("odd(name",b))") == Names{"odd(name", "b"});
  CHECK(parse_synchronous_standby_names(R"("unfinished)") == Names{"unfinished"});
}

TEST_CASE("a walsender counts by name in any case, or by the star") {
  CHECK(is_synchronous_standby("ANY 1 (a, Walferry)", "walferry"));
  CHECK(is_synchronous_standby("*", "walferry"));
  CHECK(is_synchronous_standby("\"walferry\"", "walferry"));
  CHECK_FALSE(is_synchronous_standby("walferry2, a", "walferry"));
  CHECK_FALSE(is_synchronous_standby("FIRST 1 (a)", "first"));
  CHECK_FALSE(is_synchronous_standby("", "walferry"));
}

TEST_CASE("findings are printed with their remedy below and the verdict last") {
  const std::vector<Finding> findings{{Severity::Pass, "source.version", "PostgreSQL 14"},
                                      {Severity::Warn, "source.a", "odd", "seen", "do this"},
                                      {Severity::Fail, "source.b", "bad", "why\nmore", "first;\nsecond;"}};
  CHECK(render_text(findings, false) ==
        "PASS  source.version: PostgreSQL 14\n"
        "WARN  source.a: odd\n"
        "        seen\n"
        "        Remedy: do this\n"
        "FAIL  source.b: bad\n"
        "        why\n"
        "        more\n"
        "        Remedy: first;\n"
        "                second;\n"
        "verdict: FAIL (1 FAIL, 1 WARN, 1 PASS): a migration would be refused; follow the remedies of the FAIL lines "
        "and check "
        "again\n");
}

TEST_CASE("colour goes around the severity alone") {
  const std::string text = render_text({{Severity::Fail, "x", "y"}}, true);
  CHECK(text.find("\033[1;31mFAIL\033[0m  x: y\n") == 0);
  CHECK(render_text({{Severity::Pass, "x", "y"}}, false).find('\033') == std::string::npos);
}

TEST_CASE("the exit code tells an unreachable side from a refusal") {
  CHECK(exit_code({}) == 0);
  CHECK(exit_code({{Severity::Pass, "source.connection", ""}, {Severity::Warn, "a", ""}}) == 0);
  CHECK(exit_code({{Severity::Fail, "a", ""}}) == 2);
  CHECK(exit_code({{Severity::Fail, "a", ""}, {Severity::Fail, "source.connection", ""}}) == 5);
  CHECK(exit_code({{Severity::Fail, "target.connection", ""}}) == 6);
  CHECK(exit_code({{Severity::Fail, "target.connection", ""}, {Severity::Fail, "source.connection", ""}}) == 5);
}

TEST_CASE("the JSON form carries counts, exit code and every finding") {
  const boost::json::value json = boost::json::parse(
      render_json({{Severity::Fail, "a", "title \"quoted\"", "d", "r"}, {Severity::Pass, "b", "t"}}));
  CHECK_FALSE(json.at("ok").as_bool());
  CHECK(json.at("exit_code").as_int64() == 2);
  CHECK(json.at("findings").at(0).at("severity").as_string() == "FAIL");
  CHECK(json.at("findings").at(0).at("title").as_string() == "title \"quoted\"");
  CHECK(json.at("findings").at(1).at("remedy").as_string().empty());
}

TEST_CASE("long lists are cut and say by how much") {
  const std::vector<std::string> names{"a", "b", "c"};
  CHECK(listed(names) == "a, b, c");
  CHECK(listed(names, 2) == "a, b and 1 more");
  CHECK(listed(names, 2, "\n") == "a\nb\n-- and 1 more");
  CHECK(listed({}).empty());
  CHECK(check::counted(1, "table", "tables") == "1 table");
  CHECK(check::counted(0, "table", "tables") == "0 tables");
  CHECK(check::bytes_text(512) == "512 bytes");
  CHECK(check::bytes_text(5 << 20) == "5.0 MB");
}

TEST_CASE("a question that the server refuses is a warning, a lost connection is not") {
  check::Findings findings;
  findings.ask("source.x", [] { throw Error{{ErrorKind::Sql, Side::Source, "42501"}, "permission denied"}; });
  CHECK_THROWS_AS(findings.ask("source.y", [] { throw Error{{ErrorKind::Connection, Side::Source}, "gone"}; }), Error);
  const std::vector<Finding> list = std::move(findings).take();
  REQUIRE(list.size() == 1);
  CHECK(list[0].severity == Severity::Warn);
  CHECK(list[0].id == "source.x");
  CHECK_FALSE(list[0].remedy.empty());
}
