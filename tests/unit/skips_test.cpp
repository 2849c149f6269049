#include "engine/store/skips.hpp"

#include <doctest/doctest.h>

#include "state_dir.hpp"

namespace walferry::store {
namespace {

constexpr StopPoint::What transaction = StopPoint::What::Transaction;

StopPoint point_at(std::uint64_t lsn) {
  return {.what = transaction, .lsn = Lsn{lsn}, .commit_lsn = Lsn{lsn}, .xid = Xid{7}, .error = "line 1\nline 2"};
}

ErrorKind refusal_of(Skips& skips, Lsn lsn, const std::string& reason) {
  try {
    const Skip skip = skips.add(lsn, reason);
  } catch (const Error& error) {
    return error.kind();
  }
  return ErrorKind::Stopped;
}

TEST_CASE("only the point at which the apply stands can be skipped, and only with a reason") {
  const test::StateDir directory;
  Database database = Database::open(directory.path(), Access::ReadWrite);
  Journal journal{database};
  Skips skips{journal};
  CHECK(refusal_of(skips, Lsn{16}, "none stopped") == ErrorKind::Refused);
  skips.record_stop(point_at(16));
  CHECK(refusal_of(skips, Lsn{15}, "another place") == ErrorKind::Refused);
  CHECK(refusal_of(skips, Lsn{16}, " ") == ErrorKind::Usage);
  CHECK(!skips.contains(transaction, Lsn{16}));
  CHECK(skips.add(Lsn{16}, "known to be harmless").point.error == "line 1\nline 2");
  CHECK(skips.contains(transaction, Lsn{16}));
  CHECK(!skips.contains(StopPoint::What::Ddl, Lsn{16}));
}

TEST_CASE("stops and skips outlive the process; a stop that is overcome does not") {
  const test::StateDir directory;
  {
    Database database = Database::open(directory.path(), Access::ReadWrite);
    Journal journal{database};
    Skips skips{journal};
    skips.record_stop(point_at(32));
    const Skip skip = skips.add(Lsn{32}, "first");
    skips.record_stop(point_at(48));
  }
  {
    Database database = Database::open(directory.path(), Access::ReadWrite);
    Journal journal{database};
    Skips skips{journal};
    REQUIRE(skips.stop());
    CHECK(skips.stop()->lsn == Lsn{48});
    CHECK(skips.stop()->xid == Xid{7});
    REQUIRE(skips.list().size() == 1);
    CHECK(skips.list().front().reason == "first");
    CHECK(skips.list().front().at > std::chrono::system_clock::now() - std::chrono::hours{1});
    skips.clear_stop();
  }
  Database database = Database::open(directory.path(), Access::ReadWrite);
  Journal journal{database};
  CHECK(!Skips{journal}.stop());
  CHECK(Skips{journal}.list().size() == 1);
}

}  // namespace
}  // namespace walferry::store
