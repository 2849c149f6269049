#include "cli/cutover_view.hpp"

#include <doctest/doctest.h>

#include <string>

#include "engine/error.hpp"

using namespace walferry;

namespace {

std::string report(const std::string& result, const std::string& rest) {
  return R"({"result": ")" + result +
         R"(", "writes_stopped_ms": 166.6, "compared_at": "0/5AB2050", "touched_rows": 1234)" + rest + "}";
}

const std::string equal_tables = R"(, "tables": [
  {"name": "public.t", "rows_source": 1000000, "rows_target": 1000000, "hash_source": "aa11", "hash_target": "aa11",
   "equal": true, "note": ""},
  {"name": "shop.\"Order\"", "rows_source": 7, "rows_target": 7, "hash_source": "bb22", "hash_target": "bb22",
   "equal": true, "note": ""}],
  "sequences": [{"name": "public.s", "source": null, "target": null, "equal": true, "note": ""}])";

}  // namespace

TEST_CASE("a report has each table with its rows and hash, each step with its milliseconds and LSN") {
  const std::string text = render_cutover(
      report("switched", equal_tables + R"(, "steps": [{"name": "drain to marker", "ms": 3.44, "lsn": "0/5BF3EE8"}])"));
  CHECK(text ==
        "tables at 0/5AB2050: rows and 128-bit hash, on both ends\n"
        "  public.t           1,000,000  aa11\n"
        "  shop.\"Order\"               7  bb22\n"
        "\n"
        "SWITCHED: writes were stopped for 167 ms; the target serves, the source refuses writes\n"
        "  drain to marker                    3.4 ms  applied 0/5BF3EE8\n"
        "compared: 2 tables with 1,000,007 rows, by count and 128-bit hash, and 1 sequences\n"
        "          everything at 0/5AB2050, and again in the write stop the 1,234 rows touched since\n");
}

TEST_CASE("what differs has both hashes, and is named again behind the verdict") {
  const std::string text = render_cutover(report("rolled-back", R"(, "error": "1 table differs", "tables": [
    {"name": "public.t", "rows_source": 2, "rows_target": 1, "hash_source": "aa11", "hash_target": "",
     "equal": false, "note": "no such column"}],
    "sequences": [{"name": "public.s", "source": null, "target": null, "equal": false, "note": "7 / 9"}])"));
  CHECK(text.find("2  aa11 / -\n") != std::string::npos);
  const std::size_t verdict = text.find("ROLLED BACK: ");
  CHECK(text.find("  DIFFERS  public.t: 2 rows on the source, 1 on the target  no such column\n") > verdict);
  CHECK(text.find("  DIFFERS  sequence public.s  7 / 9\n") > verdict);
}

TEST_CASE("nothing was compared: nothing is said of it") {
  const std::string text =
      render_cutover(report("refused", R"(, "error": "the lag is 3 s", "tables": [], "sequences": [],
    "blockers": ["the lag is 3 s"])"));
  CHECK(text ==
        "REFUSED: the lag is 3 s\n"
        "  in the way: the lag is 3 s\n");
}

TEST_CASE("another version's answer is refused with the remedy") {
  CHECK_THROWS_WITH_AS(static_cast<void>(render_cutover("<html>")), doctest::Contains("Remedy"), Error);
}
