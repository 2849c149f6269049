#include "engine/store/database.hpp"

#include <doctest/doctest.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "engine/error.hpp"
#include "tests/unit/state_dir.hpp"

using namespace walferry;
using namespace walferry::store;
using test::StateDir;

namespace fs = std::filesystem;

namespace {

using Family = Database::Family;
using Durability = Database::Durability;
using Pairs = std::vector<std::pair<std::string, std::string>>;

// What opening fails with; "" when it does not fail.
std::string refusal(const fs::path& directory, Access access) {
  try {
    static_cast<void>(Database::open(directory, access));
    return "";
  } catch (const Error& error) {
    CHECK(error.kind() == ErrorKind::State);
    return error.what();
  }
}

}  // namespace

TEST_CASE("the state directory is made for its owner alone") {
  const StateDir dir;
  const Database database = Database::open(dir.path(), Access::ReadWrite);
  CHECK(fs::status(dir.path()).permissions() == fs::perms::owner_all);
  CHECK(database.directory() == dir.path());
}

TEST_CASE("a second walferry on the same state directory is refused with the way out") {
  const StateDir dir;
  const Database first = Database::open(dir.path(), Access::ReadWrite);
  const std::string why = refusal(dir.path(), Access::ReadWrite);
  CHECK(why.find("another walferry works on it") != std::string::npos);
  CHECK(why.find("Remedy: ") != std::string::npos);
}

TEST_CASE("a reader looks on while a migration runs") {
  const StateDir dir;
  Database running = Database::open(dir.path(), Access::ReadWrite);
  running.put(Family::State, "phase", "copy", Durability::Synced);
  const Database reader = Database::open(dir.path(), Access::ReadOnly);
  CHECK(reader.get(Family::State, "phase") == "copy");
}

TEST_CASE("a reader makes no directory where no migration was started") {
  const StateDir dir;
  CHECK(refusal(dir.path(), Access::ReadOnly).find("no migration was started here") != std::string::npos);
  CHECK_FALSE(fs::exists(dir.path()));
}

TEST_CASE("a file in the place of the state directory is refused by name") {
  const StateDir dir;
  std::ofstream{dir.path()} << "not a directory";
  const std::string why = refusal(dir.path(), Access::ReadWrite);
  CHECK(why.find(dir.path().string()) != std::string::npos);
  CHECK(why.find("--state-dir") != std::string::npos);
}

TEST_CASE("keys are visited in order, those of one prefix or all, and families do not mix") {
  const StateDir dir;
  Database database = Database::open(dir.path(), Access::ReadWrite);
  for (const std::string_view key : {"b/2", "a/1", "b/1", "c"}) {
    database.put(Family::State, key, std::string{"value of "} += key, Durability::Synced);
  }
  database.put(Family::Blocks, "b/3", "a block", Durability::Logged);
  CHECK(database.scan(Family::State, "b/") == Pairs{{"b/1", "value of b/1"}, {"b/2", "value of b/2"}});
  std::string visited;
  database.for_each(Family::State, [&](std::string_view key, std::string_view) { (visited += key) += ' '; });
  CHECK(visited == "a/1 b/1 b/2 c ");
  CHECK_FALSE(database.get(Family::Streams, "b/3").has_value());
}

TEST_CASE("erasing a range leaves its end and what is outside") {
  const StateDir dir;
  Database database = Database::open(dir.path(), Access::ReadWrite);
  for (const std::string_view key : {"a", "b", "b1", "c"})
    database.put(Family::Streams, key, "x", Durability::Unlogged);
  database.erase_range(Family::Streams, "b", "c");
  CHECK(database.scan(Family::Streams, "") == Pairs{{"a", "x"}, {"c", "x"}});
  database.erase(Family::Streams, "a", Durability::Logged);
  CHECK(database.scan(Family::Streams, "") == Pairs{{"c", "x"}});
}

TEST_CASE("a killed process leaves its logged writes, and unlogged ones once they were flushed") {
  const StateDir dir;
  Database database = Database::open(dir.path(), Access::ReadWrite);
  database.put(Family::State, "synced", "1", Durability::Synced);
  database.put(Family::Blocks, "logged", "2", Durability::Logged);
  database.put(Family::Streams, "flushed", "3", Durability::Unlogged);
  database.flush(Family::Streams);
  database.put(Family::Streams, "unlogged", "4", Durability::Unlogged);
  database.sync_log();

  const StateDir left = dir.copied();
  const Database after = Database::open(left.path(), Access::ReadWrite);
  CHECK(after.get(Family::State, "synced") == "1");
  CHECK(after.get(Family::Blocks, "logged") == "2");
  CHECK(after.get(Family::Streams, "flushed") == "3");
  CHECK_FALSE(after.get(Family::Streams, "unlogged").has_value());
}
