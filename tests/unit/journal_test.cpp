#include "engine/store/journal.hpp"

#include <doctest/doctest.h>

#include <array>
#include <string>

#include "engine/error.hpp"
#include "tests/unit/state_dir.hpp"

using namespace walferry;
using namespace walferry::store;
using test::StateDir;

namespace {

DatabaseIdentity source_identity() {
  DatabaseIdentity identity;
  identity.system_identifier = "7301234567890123456";
  identity.database_oid = 4'000'000'000;
  identity.database = "shop \"odd\"";
  identity.timeline = 3;
  identity.server_version = 140'023;
  identity.encoding = "UTF8";
  return identity;
}

// A journal, and the journal that the next run finds after this process was killed.
struct Kept {
  StateDir dir;
  Database database = Database::open(dir.path(), Access::ReadWrite);
  Journal journal{database};
};
struct Found {
  explicit Found(const Kept& kept) : dir(kept.dir.copied()) {}
  StateDir dir;
  Database database = Database::open(dir.path(), Access::ReadWrite);
  Journal journal{database};
};

}  // namespace

TEST_CASE("a migration begins in the first phase, and every phase survives a kill") {
  Kept kept;
  CHECK(kept.journal.phase() == Phase::Init);
  for (const Phase phase : {Phase::Schema, Phase::Copy, Phase::PostData, Phase::CatchUp, Phase::Follow, Phase::Cutover,
                            Phase::Switched, Phase::Finished, Phase::Aborted, Phase::Init}) {
    CAPTURE(to_string(phase));
    kept.journal.set_phase(phase);
    CHECK(Found{kept}.journal.phase() == phase);
  }
}

TEST_CASE("the phase of a newer walferry is refused, not guessed") {
  Kept kept;
  kept.journal.put("phase", "hovering");
  try {
    static_cast<void>(kept.journal.phase());
    FAIL("an unknown phase was accepted");
  } catch (const Error& error) {
    CHECK(error.kind() == ErrorKind::State);
    CHECK(std::string{error.what()}.find("\"hovering\"") != std::string::npos);
  }
}

TEST_CASE("a named value is absent, kept, replaced and forgotten") {
  Kept kept;
  CHECK_FALSE(kept.journal.get(journal_keys::slot_lsn).has_value());
  kept.journal.put(journal_keys::slot_lsn, "0/1");
  kept.journal.put(journal_keys::slot_lsn, "");
  CHECK(Found{kept}.journal.get(journal_keys::slot_lsn) == "");
  kept.journal.erase(journal_keys::slot_lsn);
  CHECK_FALSE(Found{kept}.journal.get(journal_keys::slot_lsn).has_value());
}

TEST_CASE("entries below a prefix come without it") {
  Kept kept;
  kept.journal.put("identity-full/public.t", "d");
  kept.journal.put("identity-full/public.u", "n");
  kept.journal.put("identity", "not below it");
  using Pairs = std::vector<std::pair<std::string, std::string>>;
  CHECK(kept.journal.entries(journal_keys::identity_full) == Pairs{{"public.t", "d"}, {"public.u", "n"}});
  CHECK(kept.journal.entries("nothing/").empty());
}

TEST_CASE("a pinned identity comes back for its own side only") {
  Kept kept;
  CHECK_FALSE(kept.journal.pinned(Side::Source).has_value());
  kept.journal.pin(Side::Source, source_identity());
  const auto pinned = Found{kept}.journal.pinned(Side::Source);
  REQUIRE(pinned.has_value());
  CHECK(pinned->same_database(source_identity()));
  CHECK(pinned->database == source_identity().database);
  CHECK(pinned->timeline == 3);
  CHECK(pinned->server_version == 140'023);
  CHECK(pinned->encoding == "UTF8");
  CHECK_FALSE(kept.journal.pinned(Side::Target).has_value());
}

TEST_CASE("copied tables are told apart however their names are spelt") {
  Kept kept;
  const std::array<QualifiedName, 3> names{{{"a.b", "c"}, {"a", "b.c"}, {"a/b", "\"c\n"}}};
  std::uint64_t lsn = 0x1'0000'0000;
  for (const QualifiedName& name : names) kept.journal.record_copied(name, RelationId{16'384}, Lsn{lsn++});
  CHECK(Found{kept}.journal.copied_tables() == std::map<QualifiedName, Lsn>{{names[0], Lsn{0x1'0000'0000}},
                                                                            {names[1], Lsn{0x1'0000'0001}},
                                                                            {names[2], Lsn{0x1'0000'0002}}});
  kept.journal.record_copied(names[0], RelationId{4'000'000'000}, Lsn{0x2'0000'0000});
  CHECK(Found{kept}.journal.copied_tables().at(names[0]) == Lsn{0x2'0000'0000});
  CHECK(Found{kept}.journal.copied_ids() == std::set<RelationId>{RelationId{16'384}, RelationId{4'000'000'000}});
}

TEST_CASE("a copy record that cannot be read stops the run instead of copying or skipping the table") {
  using namespace std::string_literals;
  const std::array<std::pair<std::string, std::string>, 5> broken{
      {{"no separator", "7 0/1"}, {"a\0b"s, "0/1"}, {"a\0b"s, "7 0"}, {"a\0b"s, "x 0/1"}, {"a\0b"s, ""}}};
  for (const auto& [name, value] : broken) {
    Kept kept;
    kept.journal.put("copied/" + name, value);
    CHECK_THROWS_AS(static_cast<void>(kept.journal.copied_tables()), Error);
  }
}

TEST_CASE("a table that waits to be copied again is known by what it is to the source") {
  Kept kept;
  const RelationId id{16'400};
  const QualifiedName odd{"a 0/1 d", "b c"};
  kept.journal.record_copy_again(id, {.table = {"a", "b"}, .not_before = Lsn{0x10}});
  kept.journal.record_copy_again(id, {.table = odd, .not_before = Lsn{0x20}, .dropped = true});
  const store::TablesToCopyAgain found = Found{kept}.journal.tables_to_copy_again();
  REQUIRE(found.size() == 1);
  CHECK(found.at(id).table == odd);
  CHECK(found.at(id).not_before == Lsn{0x20});
  CHECK(found.at(id).dropped);
  kept.journal.forget_copy_again(id);
  CHECK(Found{kept}.journal.tables_to_copy_again().empty());
}

TEST_CASE("the plan of the lanes is kept") {
  Kept kept;
  CHECK(kept.journal.lane_plan() == LanePlan{});
  const LanePlan plan{3, {RelationId{16'384}, RelationId{4'000'000'000}}};
  kept.journal.record_lane_plan(plan);
  CHECK(Found{kept}.journal.lane_plan() == plan);
  CHECK(plan.text() == "3 16384 4000000000");
  for (const char* broken : {"", "0", "x", "2 ", "2 x", "2  7", "2,7"}) {
    CAPTURE(broken);
    CHECK_FALSE(LanePlan::parse(broken));
  }
}

TEST_CASE("which tables of the two ends belong together is kept") {
  Kept kept;
  CHECK(kept.journal.table_homes().empty());
  const std::map<RelationId, walferry::Oid> homes{{RelationId{16'384}, walferry::Oid{7}},
                                                  {RelationId{4'000'000'000}, walferry::Oid{4'000'000'001}}};
  kept.journal.record_table_homes(homes);
  CHECK(Found{kept}.journal.table_homes() == homes);
  for (const char* broken : {"x", "7", "7 x", "7 8 9"}) {
    CAPTURE(broken);
    kept.journal.put(store::journal_keys::table_homes, broken);
    CHECK_THROWS_AS(static_cast<void>(kept.journal.table_homes()), Error);
  }
}

TEST_CASE("what was confirmed of an idle source counts from where it began") {
  Kept kept;
  CHECK(kept.journal.idle_stretch().beyond(Lsn{5}) == Lsn{5});
  kept.journal.record_idle_stretch({.begin = Lsn{0x10}, .end = Lsn{0x30}});
  const store::IdleStretch idle = Found{kept}.journal.idle_stretch();
  CHECK(idle.beyond(Lsn{0xF}) == Lsn{0xF});
  CHECK(idle.beyond(Lsn{0x10}) == Lsn{0x30});
  CHECK(idle.beyond(Lsn{0x31}) == Lsn{0x31});
  for (const char* broken : {"", "0/10", "0/10 ", "x 0/30"}) {
    CAPTURE(broken);
    kept.journal.put(store::journal_keys::idle_confirmed, broken);
    CHECK_THROWS_AS(static_cast<void>(kept.journal.idle_stretch()), Error);
  }
}
