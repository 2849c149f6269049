#include "engine/verify/verify.hpp"

#include <doctest/doctest.h>

#include <boost/json.hpp>

#include "engine/verify/digest.hpp"

using namespace walferry;

namespace {

VerifyReport equal_report() {
  VerifyReport report;
  report.tables.push_back({.name = {"public", "t"},
                           .rows_source = 3,
                           .rows_target = 3,
                           .hash_source = std::string(32, 'a'),
                           .hash_target = std::string(32, 'a'),
                           .equal = true});
  report.sequences.push_back({.name = {"public", "s"},
                              .source = SequenceValue{{"public", "s"}, 7, true},
                              .target = SequenceValue{{"public", "s"}, 7, true},
                              .equal = true});
  report.equal = true;
  return report;
}

VerifyReport different_report() {
  VerifyReport report = equal_report();
  report.tables.push_back({.name = {"public", "u"},
                           .rows_source = 2,
                           .rows_target = 1,
                           .hash_source = std::string(32, 'b'),
                           .hash_target = std::string(32, 'c'),
                           .note = "unlogged"});
  report.sequences.push_back({.name = {"public", "r"}, .source = SequenceValue{{"public", "r"}, 1, false}});
  report.missing_on_target.push_back({"public", "gone"});
  report.equal = false;
  return report;
}

}  // namespace

TEST_CASE("a sum of hashes is reduced modulo 2^64, negative sums as well") {
  CHECK(hash_half("0") == "0000000000000000");
  CHECK(hash_half("255") == "00000000000000ff");
  CHECK(hash_half("-1") == "ffffffffffffffff");
  CHECK(hash_half("18446744073709551615") == "ffffffffffffffff");
  CHECK(hash_half("18446744073709551616") == "0000000000000000");
  CHECK(hash_half("-18446744073709551617") == "ffffffffffffffff");
  CHECK(hash_half("6577984432943809171855") == "97df461b7114118f");
}

TEST_CASE("what is no integer is refused") {
  CHECK_THROWS_AS((void)hash_half(""), Error);
  CHECK_THROWS_AS((void)hash_half("-"), Error);
  CHECK_THROWS_AS((void)hash_half("1.5"), Error);
  CHECK_THROWS_AS((void)hash_half("NaN"), Error);
}

TEST_CASE("columns are hashed in the order of their names") {
  Table table;
  table.columns.emplace_back().name = "b";
  table.columns.emplace_back().name = "A";
  table.columns.emplace_back().name = "a";
  CHECK(digest_columns(table) == std::vector<std::string>{"A", "a", "b"});
}

TEST_CASE(
    "the statement names only the table itself, quotes everything and skips the hash of a table without columns") {
  const std::string sql = digest_query({{{"s", "t\"x"}, {"a", "B"}}, {{"s", "none"}, {}}}, {});
  CHECK(sql ==
        "SELECT 0 AS i, count(*), coalesce(sum(h::bit(64)::bigint), 0), coalesce(sum((h << 64)::bit(64)::bigint), 0) "
        "FROM (SELECT "
        "('x' || pg_catalog.md5(ROW(t.\"a\", t.\"B\")::text))::bit(128) AS h FROM ONLY \"s\".\"t\"\"x\" AS t OFFSET "
        "'0') AS s UNION "
        "ALL SELECT 1 AS i, count(*), 0::numeric, 0::numeric FROM ONLY \"s\".\"none\" AS t ORDER BY i");
}

TEST_CASE("rows that are not those of one table come from a query of their own") {
  const std::string sql = digest_query({{{"s", "t"}, {"a"}, "(SELECT a FROM s.t WHERE a > 0)"}}, {});
  CHECK(sql.find("FROM (SELECT a FROM s.t WHERE a > 0) AS t OFFSET '0'") != std::string::npos);
  CHECK(sql.find("ONLY") == std::string::npos);
}

TEST_CASE("databases of different encodings are compared by the UTF-8 form of their rows") {
  const std::string sql = digest_query({{{"s", "t"}, {"a"}}}, {.as_utf8 = true});
  CHECK(sql.find("pg_catalog.md5(pg_catalog.convert_to(ROW(t.\"a\")::text, 'UTF8'))") != std::string::npos);
}

TEST_CASE("sha256 gives as many digits as md5") {
  const std::string sql = digest_query({{{"s", "t"}, {"a"}}}, {.sha256 = true});
  CHECK(sql.find(
            "pg_catalog.substr(pg_catalog.encode(pg_catalog.sha256(pg_catalog.convert_to(ROW(t.\"a\")::text, 'UTF8')), "
            "'hex'), 1, 32)") != std::string::npos);
}

TEST_CASE("an equal report is one line and exit code 0") {
  const VerifyReport report = equal_report();
  CHECK(render_text(report) == "1 tables with 3 rows and 1 sequences compared in 0.00 s (source / target): equal\n");
  CHECK(exit_code(report) == 0);
}

TEST_CASE("a report of differences names each of them and gives exit code 3") {
  const VerifyReport report = different_report();
  const std::string text = render_text(report);
  CHECK(text.find("DIFFERENT  table public.u: rows 2 / 1, hash bbbb") == 0);
  CHECK(text.find("(unlogged)\n") != std::string::npos);
  CHECK(text.find("MISSING    table public.gone on the target\n") != std::string::npos);
  CHECK(text.find("DIFFERENT  sequence public.r: 1 (not called) / none\n") != std::string::npos);
  CHECK(text.find("public.t") == std::string::npos);
  CHECK(exit_code(report) == 3);
}

TEST_CASE("the JSON form holds every table, equal or not") {
  const boost::json::value json = boost::json::parse(render_json(different_report()));
  CHECK_FALSE(json.at("equal").as_bool());
  CHECK(json.at("tables").as_array().size() == 2);
  CHECK(json.at("tables").at(1).at("rows_target").as_int64() == 1);
  CHECK(json.at("sequences").at(1).at("target").is_null());
  CHECK(json.at("sequences").at(0).at("source").at("is_called").as_bool());
  CHECK(json.at("missing_on_target").at(0).at("name").as_string() == "gone");
}
