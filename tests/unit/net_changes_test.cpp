#include "engine/apply/net_changes.hpp"

#include <doctest/doctest.h>

#include <deque>
#include <map>
#include <string>

using namespace walferry;
using apply::NetChanges;

namespace {

// Rows are written as "1|text|~": fields between bars, ~ is unchanged TOAST, an empty field NULL.
class Changes {
 public:
  explicit Changes(std::vector<std::uint16_t> key = {0}, bool whole = true) : net(std::move(key), whole) {}

  bool insert(const std::string& row) { return net.insert(tuple(row)); }
  bool update(const std::string& row) {
    return net.update({.stream_xid = {}, .relation = {}, .old = {}, .row = tuple(row)});
  }
  bool update(const std::string& old, const std::string& row) {
    const pgoutput::OldTupleView before{.kind = pgoutput::OldTupleKind::Key, .tuple = tuple(old)};
    return net.update({.stream_xid = {}, .relation = {}, .old = before, .row = tuple(row)});
  }
  bool remove(const std::string& old) { return net.remove(tuple(old)); }

  // "-key" for a row that goes, "+row" for one that is inserted, "=row" for one that is updated; by key.
  std::string result() const {
    std::map<std::string, std::string> sorted;
    for (const NetChanges::Row& row : net.rows()) {
      std::string key;
      net.for_each_key_field(
          row, [&](std::uint16_t, std::string_view field) { key += (key.empty() ? "" : "|") + std::string{field}; });
      std::string text;
      if (row.removed) text += "-" + key + " ";
      if (row.state != NetChanges::State::Gone)
        text += (row.state == NetChanges::State::Inserted ? "+" : "=") + written(row.fields) + " ";
      sorted[key] += text;
    }
    std::string all;
    for (const auto& [key, text] : sorted) all += text;
    if (!all.empty()) all.pop_back();
    return all;
  }

  NetChanges net;

 private:
  static std::string written(const apply::RowView& row) {
    std::string text;
    row.for_each([&](std::uint16_t column, const pgoutput::FieldView& field) {
      if (column > 0) text += '|';
      text += field.kind == pgoutput::FieldKind::UnchangedToast ? "~" : std::string{as_text(field.value)};
    });
    return text;
  }

  pgoutput::TupleView tuple(const std::string& row) {
    std::vector<std::byte>& bytes = kept_.emplace_back();
    Writer out{bytes};
    std::uint16_t count = 0;
    std::string_view rest = row;
    for (bool more = true; more; ++count) {
      const std::size_t bar = rest.find('|');
      const std::string_view field = rest.substr(0, bar);
      more = bar != std::string_view::npos;
      if (more) rest.remove_prefix(bar + 1);
      if (field == "~" || field.empty()) {
        out.u8(field.empty() ? 'n' : 'u');
        continue;
      }
      out.u8('t');
      out.u32(static_cast<std::uint32_t>(field.size()));
      out.bytes(as_bytes(field));
    }
    return {count, bytes};
  }

  std::deque<std::vector<std::byte>> kept_;
};

}  // namespace

TEST_CASE("changes to one key fold") {
  Changes changes;
  SUBCASE("insert and update are an insert of the last values") {
    CHECK(changes.insert("1|a|b"));
    CHECK(changes.update("1|c|~"));
    CHECK(changes.result() == "+1|c|b");
  }
  SUBCASE("insert and delete are nothing, as often as they come") {
    for (int i = 0; i < 3; ++i) {
      CHECK(changes.insert("1|a|b"));
      CHECK(changes.remove("1||"));
    }
    CHECK(changes.result().empty());
  }
  SUBCASE("updates keep the last value of each column that came") {
    CHECK(changes.update("1|a|~"));
    CHECK(changes.result() == "=1|a|~");
    CHECK(changes.update("1|~|b"));
    CHECK_FALSE(changes.net.rows().front().partial);
    CHECK(changes.update("1|c|~"));
    CHECK(changes.result() == "=1|c|b");
  }
  SUBCASE("a NULL is a value") {
    CHECK(changes.update("1|a|b"));
    CHECK(changes.update("1||~"));
    CHECK(changes.result() == "=1||b");
  }
  SUBCASE("update and delete are a delete") {
    CHECK(changes.update("1|a|b"));
    CHECK(changes.remove("1||"));
    CHECK(changes.result() == "-1");
  }
  SUBCASE("delete and insert stay both: columns of the target alone begin anew") {
    CHECK(changes.remove("1||"));
    CHECK(changes.insert("1|a|b"));
    CHECK(changes.update("1|c|~"));
    CHECK(changes.result() == "-1 +1|c|b");
    CHECK(changes.remove("1||"));
    CHECK(changes.result() == "-1");
  }
}

TEST_CASE("a changed key is a delete here and an insert there") {
  Changes changes;
  SUBCASE("through a chain only the first key goes") {
    CHECK(changes.update("1||", "2|a|b"));
    CHECK(changes.update("2||", "3|a|~"));
    CHECK(changes.result() == "-1 +3|a|b");
  }
  SUBCASE("a row of this group leaves nothing behind") {
    CHECK(changes.insert("1|a|b"));
    CHECK(changes.update("1||", "2|~|~"));
    CHECK(changes.result() == "+2|a|b");
  }
  SUBCASE("two keys change places through a third") {
    CHECK(changes.update("1||", "0|one|x"));
    CHECK(changes.update("2||", "1|two|x"));
    CHECK(changes.update("0||", "2|one|x"));
    CHECK(changes.result() == "-1 +1|two|x -2 +2|one|x");
  }
  SUBCASE("an old tuple with the same key changes nothing") {
    CHECK(changes.update("1||", "1|a|b"));
    CHECK(changes.result() == "=1|a|b");
  }
  SUBCASE("with a value that did not come it cannot be") {
    CHECK_FALSE(changes.update("1||", "2|a|~"));
    CHECK(changes.update("1|~|b"));
    CHECK_FALSE(changes.update("1||", "2|~|c"));
    CHECK(changes.result() == "=1|~|b");
  }
}

TEST_CASE("where the target has further columns, a row it holds does not move") {
  Changes changes{{0}, false};
  CHECK_FALSE(changes.update("1||", "2|a|b"));
  CHECK(changes.insert("3|a|b"));
  CHECK(changes.update("3||", "4|a|b"));
  CHECK(changes.result() == "+4|a|b");
}

TEST_CASE("what the source cannot have done is not folded") {
  Changes changes;
  CHECK(changes.insert("1|a|b"));
  CHECK_FALSE(changes.insert("1|a|b"));
  CHECK(changes.remove("1||"));
  CHECK_FALSE(changes.remove("1||"));
  CHECK_FALSE(changes.update("1|a|b"));
  CHECK_FALSE(changes.update("1||", "2|a|b"));
  CHECK_FALSE(changes.update("|a|b"));
  CHECK_FALSE(changes.insert("5|~|b"));
}

TEST_CASE("a key of several columns is told apart by all of them") {
  Changes changes{{0, 2}};
  CHECK(changes.update("1|a|23"));
  CHECK(changes.update("12|a|3"));
  CHECK(changes.update("1|b|23"));
  CHECK(changes.remove("12||3"));
  CHECK(changes.update("1||23", "4|c|23"));
  CHECK(changes.result() == "-12|3 -1|23 +4|c|23");
}

TEST_CASE("without a key inserts keep their order and nothing else is taken") {
  Changes changes{{}};
  CHECK(changes.insert("1|a"));
  CHECK(changes.insert("1|a"));
  CHECK_FALSE(changes.update("1|a", "2|b"));
  CHECK_FALSE(changes.remove("1|a"));
  CHECK(changes.net.rows().size() == 2);
}

TEST_CASE("many keys are found again, and after clear() none") {
  Changes changes;
  for (int i = 0; i < 5'000; ++i) CHECK(changes.insert(std::to_string(i) + "|a"));
  for (int i = 0; i < 5'000; i += 2) CHECK(changes.remove(std::to_string(i) + "|"));
  CHECK_FALSE(changes.insert("1|a"));
  changes.net.clear();
  CHECK(changes.net.empty());
  CHECK(changes.insert("1|a"));
  CHECK(changes.result() == "+1|a");
}
