#include "engine/apply/table_homes.hpp"

#include <doctest/doctest.h>

#include <optional>

#include "engine/error.hpp"

using namespace walferry;
using apply::Homes;
using apply::TableHomes;

namespace {

constexpr RelationId first{101};
constexpr RelationId second{102};

Table table(const std::string& name, std::uint32_t oid) {
  Table made;
  made.name = {"public", name};
  made.oid = walferry::Oid{oid};
  return made;
}

// Sorted by name, as a catalog is.
const Catalog target{.tables = {table("a", 1), table("b", 2)}, .sequences = {}};
const Table& a = target.tables[0];
const Table& b = target.tables[1];

}  // namespace

TEST_CASE("a table keeps its own, whatever becomes of its name") {
  std::optional<Homes> recorded;
  TableHomes homes{{}, [&](const Homes& all) { recorded = all; }};
  homes.begin({{a.name, first}, {{"public", "not there"}, RelationId{103}}}, target);
  CHECK(recorded == Homes{{first, a.oid}});
  homes.settle(second, b, target);
  CHECK(recorded == Homes{{first, a.oid}, {second, b.oid}});
  recorded.reset();
  homes.settle(first, a, target);
  CHECK_FALSE(recorded);
  CHECK_THROWS_AS(homes.settle(first, b, target), Error);
  CHECK_THROWS_AS(homes.settle(second, a, target), Error);
  // The target followed.
  const Catalog renamed{.tables = {table("a", 2), table("b", 1)}, .sequences = {}};
  homes.settle(first, renamed.tables[1], renamed);
  homes.settle(second, renamed.tables[0], renamed);
  CHECK_FALSE(recorded);
}

TEST_CASE("a table that was made anew on the target takes the place of the one that is gone") {
  TableHomes homes{{{first, a.oid}}, {}};
  const Catalog anew{.tables = {table("a", 7), table("b", 2)}, .sequences = {}};
  homes.settle(first, anew.tables[0], anew);
  homes.settle(first, anew.tables[0], anew);
}

TEST_CASE("what earlier runs knew is not asked of the names again") {
  TableHomes homes{{{first, b.oid}}, {}};
  homes.begin({{a.name, first}}, target);
  homes.settle(first, b, target);
  CHECK_THROWS_AS(homes.settle(first, a, target), Error);
}

TEST_CASE("a new table under the name of one whose rows are there waits for a table of its own") {
  TableHomes homes{{}, {}};
  homes.begin({{a.name, first}}, target);
  CHECK_THROWS_AS(homes.settle(second, a, target), Error);
  const Catalog followed{.tables = {table("a", 3), table("a_old", 1)}, .sequences = {}};
  homes.settle(second, followed.tables[0], followed);
  homes.settle(first, followed.tables[1], followed);
}

TEST_CASE("what was described and never copied keeps nobody out") {
  TableHomes homes{{}, {}};
  homes.begin({}, target);
  homes.settle(first, a, target);
  homes.settle(second, a, target);
}
