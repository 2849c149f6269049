#include "engine/setup.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <string>

#include "tests/unit/state_dir.hpp"

using namespace walferry;

TEST_CASE("the default slot is named after the database") {
  CHECK(default_slot_name("shop") == "walferry_shop");
  CHECK(default_slot_name("shop_2") == "walferry_shop_2");
  CHECK(default_slot_name("") == "walferry_");
}

TEST_CASE("whatever the database is called, the default slot is a name that PostgreSQL takes") {
  CHECK(default_slot_name("My-Shop 2.0") == "walferry_my_shop_2_0");
  for (const std::string& database :
       {std::string{"größe"}, std::string(63, 'x'), std::string{"\"'; --\n"}, std::string(63, '\xFF')}) {
    CAPTURE(database);
    const std::string name = default_slot_name(database);
    CHECK(name.starts_with("walferry_"));
    CHECK(name.size() <= 63);
    CHECK(
        std::ranges::all_of(name, [](char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_'; }));
  }
}

TEST_CASE("recorded publications are read one a line") {
  const test::StateDir dir;
  store::Database database = store::Database::open(dir.path(), store::Access::ReadWrite);
  store::Journal journal{database};
  CHECK(recorded_publications(journal).empty());
  journal.put(store::journal_keys::publications, "one");
  CHECK(recorded_publications(journal) == std::vector<std::string>{"one"});
  journal.put(store::journal_keys::publications, "one\ntwo, three\n");
  CHECK(recorded_publications(journal) == std::vector<std::string>{"one", "two, three"});
}

TEST_CASE("--adopt holds from the first run on") {
  const test::StateDir dir;
  store::Database database = store::Database::open(dir.path(), store::Access::ReadWrite);
  store::Journal journal{database};
  CHECK(settled_adoption(journal, Lsn{0x10}) == Lsn{0x10});
  CHECK(settled_adoption(journal, Lsn{}) == Lsn{});
  CHECK_FALSE(settled_adoption(journal, {}));
  journal.put(store::journal_keys::adopted, "0/10");
  journal.put(store::journal_keys::migration, "m");
  CHECK(settled_adoption(journal, {}) == Lsn{0x10});
  CHECK(settled_adoption(journal, Lsn{}) == Lsn{0x10});
  CHECK(settled_adoption(journal, Lsn{0x10}) == Lsn{0x10});
  CHECK_THROWS_AS(static_cast<void>(settled_adoption(journal, Lsn{0x18})), Error);
  journal.erase(store::journal_keys::adopted);
  CHECK_FALSE(settled_adoption(journal, {}));
  CHECK_THROWS_AS(static_cast<void>(settled_adoption(journal, Lsn{0x10})), Error);
  CHECK_THROWS_AS(static_cast<void>(settled_adoption(journal, Lsn{})), Error);
}
