#include "engine/copy/table_copy.hpp"

#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "engine/copy/index_builder.hpp"

using namespace walferry;
using copy::binary_is_safe;
using copy::cut_into_parts;
using copy::PageRange;
using copy::splits_tables;
using copy::workers_of_build;

namespace {

using walferry::Oid;  // not libpq's

constexpr int version_14 = 140'000;
constexpr std::int64_t many_pages = 1'000'000;

constexpr Oid int4{23};
constexpr Oid text{25};
constexpr Oid regclass{2205};
constexpr Oid regclass_array{2210};
constexpr Oid aclitem{1033};
constexpr Oid txid_snapshot{2970};
constexpr Oid enum_of_the_user{16'384};

Column column(const std::string& name, Oid type) {
  Column made;
  made.name = name;
  made.type = type;
  return made;
}

Column generated(const std::string& name, Oid type) {
  Column made = column(name, type);
  made.generated = true;
  return made;
}

Table table(std::vector<Column> columns) {
  Table made;
  made.name = {"public", "t"};
  made.columns = std::move(columns);
  return made;
}

bool is_whole(const std::vector<PageRange>& parts) {
  return parts.size() == 1 && parts[0].begin == 0 && parts[0].end == 0;
}

}  // namespace

TEST_CASE("the parts of a table cover every page once, and pages added later too") {
  for (const std::int64_t pages :
       {std::int64_t{0}, std::int64_t{1}, std::int64_t{16'383}, std::int64_t{16'384}, std::int64_t{16'385},
        std::int64_t{100'003}, many_pages, std::int64_t{4'294'967'294}}) {
    for (const int jobs : {1, 2, 3, 7, 64}) {
      CAPTURE(pages);
      CAPTURE(jobs);
      const std::vector<PageRange> parts = cut_into_parts(pages, jobs, version_14);
      REQUIRE_FALSE(parts.empty());
      CHECK(parts.front().begin == 0);
      CHECK(parts.back().end == 0);
      for (std::size_t i = 0; i + 1 < parts.size(); ++i) {
        CHECK(parts[i].end > parts[i].begin);
        CHECK(parts[i + 1].begin == parts[i].end);
      }
      if (parts.size() > 1) CHECK(parts.back().begin < pages);
    }
  }
}

TEST_CASE("a large table is cut into more parts than jobs, so that none waits long for the last one") {
  CHECK(cut_into_parts(many_pages, 2, version_14).size() > 2);
  CHECK(cut_into_parts(many_pages, 8, version_14).size() > 8);
}

TEST_CASE("a small table, a single job or a server without ctid range scans make one part") {
  CHECK(is_whole(cut_into_parts(100, 8, version_14)));
  CHECK(is_whole(cut_into_parts(0, 8, version_14)));
  CHECK(is_whole(cut_into_parts(many_pages, 1, version_14)));
  CHECK(is_whole(cut_into_parts(many_pages, 8, 130'014)));
}

TEST_CASE("one connection writes a table where the target shares few processors with us, or when that is asked for") {
  using copy::SplitTables;
  CHECK_FALSE(splits_tables(SplitTables::Auto, true, 2));
  CHECK_FALSE(splits_tables(SplitTables::Auto, true, 3));
  CHECK(splits_tables(SplitTables::Auto, true, 4));
  CHECK(splits_tables(SplitTables::Auto, false, 2));
  CHECK(splits_tables(SplitTables::Yes, true, 2));
  CHECK_FALSE(splits_tables(SplitTables::No, false, 64));
}

TEST_CASE("index builds that go on at once share the processors, and one alone has them all") {
  CHECK(workers_of_build(2, 2, 1) == 1);
  CHECK(workers_of_build(2, 2, 2) == 0);
  CHECK(workers_of_build(2, 2, 3) == 0);
  CHECK(workers_of_build(2, 8, 2) == 2);
  CHECK(workers_of_build(4, 8, 2) == 3);
  CHECK(workers_of_build(0, 8, 1) == 0);
  CHECK(workers_of_build(2, 0, 2) == 2);
}

TEST_CASE("built-in types that are the same on both ends travel in binary, in whatever order the columns stand") {
  CHECK(binary_is_safe(table({column("a", int4), column("b", text)}), table({column("b", text), column("a", int4)})));
}

TEST_CASE("a type that differs, that is the user's own or that holds object ids travels as text") {
  CHECK_FALSE(binary_is_safe(table({column("a", int4)}), table({column("a", text)})));
  for (const walferry::Oid type : {regclass, regclass_array, aclitem, txid_snapshot, enum_of_the_user}) {
    CAPTURE(static_cast<std::uint32_t>(type));
    CHECK_FALSE(
        binary_is_safe(table({column("a", int4), column("b", type)}), table({column("a", int4), column("b", type)})));
  }
}

TEST_CASE("a column that the target lacks is no reason to send binary") {
  CHECK_FALSE(binary_is_safe(table({column("a", int4), column("b", text)}), table({column("a", int4)})));
}

TEST_CASE("generated columns are not copied and do not count") {
  CHECK(binary_is_safe(table({column("a", int4), generated("b", enum_of_the_user)}), table({column("a", int4)})));
}

TEST_CASE("a table without columns to copy travels as text") {
  CHECK_FALSE(binary_is_safe(table({}), table({})));
}
