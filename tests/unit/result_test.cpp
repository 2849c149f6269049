#include "engine/pg/result.hpp"

#include <doctest/doctest.h>

#include <limits>
#include <optional>
#include <string>
#include <vector>

using namespace walferry;
using pg::quote_literal;
using pg::quote_name;

namespace {

// One row, as a server would have returned it.
pg::Result row_of(const std::vector<std::optional<std::string>>& values) {
  pg::ResultPtr result{PQmakeEmptyPGresult(nullptr, PGRES_TUPLES_OK)};
  std::vector<PGresAttDesc> columns(values.size());
  std::string name = "column";
  for (PGresAttDesc& column : columns)
    column = {
        .name = name.data(), .tableid = 0, .columnid = 0, .format = 0, .typid = 25, .typlen = -1, .atttypmod = -1};
  REQUIRE(PQsetResultAttrs(result.get(), static_cast<int>(columns.size()), columns.data()) == 1);
  for (std::size_t i = 0; i < values.size(); ++i) {
    std::string value = values[i].value_or("");
    const int length = values[i] ? static_cast<int>(value.size()) : -1;
    REQUIRE(PQsetvalue(result.get(), 0, static_cast<int>(i), value.data(), length) == 1);
  }
  return pg::Result{std::move(result)};
}

TEST_CASE("an array's text form keeps every character") {
  CHECK(pg::array_literal({}) == "{}");
  CHECK(pg::array_literal({"a", "", "NULL", "b c"}) == R"({"a","","NULL","b c"})");
  CHECK(pg::array_literal({R"(q"uote)", R"(back\slash)", "com,ma{}"}) == R"({"q\"uote","back\\slash","com,ma{}"})");
}

}  // namespace

TEST_CASE("names are always quoted and their quotes doubled") {
  CHECK(quote_name("t") == R"("t")");
  CHECK(quote_name("Select") == R"("Select")");
  CHECK(quote_name("a\"b\"") == R"("a""b""")");
  CHECK(quote_name("back\\slash 'n' dot.") == R"("back\slash 'n' dot.")");
  CHECK(quote_name("größe") == R"("größe")");
  CHECK(quote_name("a.b", "c\"d") == R"("a.b"."c""d")");
}

TEST_CASE(
    "literals double their quotes; a backslash forces the form that means the same whatever the server's setting") {
  CHECK(quote_literal("") == "''");
  CHECK(quote_literal("it's") == "'it''s'");
  CHECK(quote_literal("\"name\"") == "'\"name\"'");
  CHECK(quote_literal("a\\b") == R"( E'a\\b')");
  CHECK(quote_literal("\\'; DROP TABLE t; --") == R"( E'\\''; DROP TABLE t; --')");
  CHECK(quote_literal("line\nline") == "'line\nline'");
}

TEST_CASE("fields are read as what they are") {
  const pg::Result row =
      row_of({"-9223372036854775808", "4294967295", "1.5e3", "16/B374D848", "t", "f", "text", "", std::nullopt});
  CHECK(row.rows() == 1);
  CHECK(row.columns() == 9);
  CHECK(row.i64(0, 0) == std::numeric_limits<std::int64_t>::min());
  CHECK(row.u32(0, 1) == 4'294'967'295);
  CHECK(row.number(0, 2) == doctest::Approx(1'500));
  CHECK(row.lsn(0, 3) == Lsn{0x16B374D848});
  CHECK(row.flag(0, 4));
  CHECK_FALSE(row.flag(0, 5));
  CHECK(row.maybe(0, 6) == "text");
  CHECK(row.maybe(0, 7) == "");
  CHECK_FALSE(row.is_null(0, 7));
  CHECK_FALSE(row.maybe(0, 8).has_value());
}

TEST_CASE("what is no number of that kind is refused, not rounded") {
  const pg::Result row = row_of({"", "12x", "4294967296", "-1", "9223372036854775808", "0/", std::nullopt});
  for (const int column : {0, 1, 5, 6}) {
    CAPTURE(column);
    CHECK_THROWS_AS(static_cast<void>(row.i64(0, column)), Error);
    CHECK_THROWS_AS(static_cast<void>(row.u32(0, column)), Error);
    CHECK_THROWS_AS(static_cast<void>(row.number(0, column)), Error);
    CHECK_THROWS_AS(static_cast<void>(row.lsn(0, column)), Error);
  }
  CHECK_THROWS_AS(static_cast<void>(row.u32(0, 2)), Error);
  CHECK_THROWS_AS(static_cast<void>(row.u32(0, 3)), Error);
  CHECK_THROWS_AS(static_cast<void>(row.i64(0, 4)), Error);
}

TEST_CASE("a result that holds nothing has no rows and affected none") {
  const pg::Result nothing;
  CHECK(nothing.rows() == 0);
  CHECK(nothing.columns() == 0);
  CHECK(nothing.affected() == 0);
}
