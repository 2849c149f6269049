#include "engine/touched_rows.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <set>

namespace walferry {
namespace {

using Row = std::vector<std::string_view>;

const QualifiedName table{"public", "t"};

std::set<std::vector<std::string>> keys_of(const TouchedTable& touched) {
  const auto columns = touched.key_values();
  std::set<std::vector<std::string>> keys;
  for (std::size_t row = 0; row < touched.rows(); ++row) {
    std::vector<std::string> key;
    for (const auto& column : columns) key.push_back(column[row]);
    keys.insert(key);
  }
  return keys;
}

TEST_CASE("a row touched twice is one row") {
  TouchedRows touched;
  touched.touch(table, Row{"id"}, Row{"7"});
  touched.touch(table, Row{"id"}, Row{"7"});
  touched.touch(table, Row{"id"}, Row{"8"});
  REQUIRE(touched.find(table) != nullptr);
  CHECK(touched.rows() == 2);
  CHECK(keys_of(*touched.find(table)) == std::set<std::vector<std::string>>{{"7"}, {"8"}});
  CHECK(touched.find({"public", "other"}) == nullptr);
}

TEST_CASE("values of several key columns do not run into each other") {
  TouchedRows touched;
  touched.touch(table, Row{"a", "b"}, Row{"x", "yz"});
  touched.touch(table, Row{"a", "b"}, Row{"xy", "z"});
  touched.touch(table, Row{"a", "b"}, Row{"", ""});
  CHECK(keys_of(*touched.find(table)) == std::set<std::vector<std::string>>{{"x", "yz"}, {"xy", "z"}, {"", ""}});
}

TEST_CASE("a table is named whole when its keys do not say everything") {
  TouchedRows touched;
  touched.touch(table, Row{"id"}, Row{"1"});
  SUBCASE("TRUNCATE") {
    touched.touch_whole(table);
  }
  SUBCASE("another key") {
    touched.touch(table, Row{"code"}, Row{"1"});
  }
  SUBCASE("no key") {
    touched.touch(table, Row{}, Row{});
  }
  SUBCASE("more keys than are kept") {
    for (int id = 0; id < 60'000; ++id) touched.touch(table, Row{"id"}, Row{std::to_string(id)});
  }
  CHECK(touched.find(table)->whole());
  CHECK(touched.rows() == 0);
  touched.touch(table, Row{"id"}, Row{"2"});
  CHECK(touched.find(table)->whole());
  CHECK(touched.find(table)->rows() == 0);
}

}  // namespace
}  // namespace walferry
