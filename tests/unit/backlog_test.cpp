#include "engine/stream/backlog.hpp"

#include <doctest/doctest.h>

#include "tests/fuzz/pgoutput_encode.hpp"

using namespace walferry;
using stream::Backlog;

namespace {

constexpr std::int64_t second = 1'000'000;
constexpr PgTime committed{100 * second};

PgTime later(std::int64_t microseconds) {
  return {committed.microseconds + microseconds};
}

std::vector<std::byte> begin() {
  return test::encode(pgoutput::Begin{.final_lsn = Lsn{1}, .commit_time = committed, .xid = Xid{7}});
}

}  // namespace

TEST_CASE("what is sent soon after its commit is no backlog") {
  Backlog backlog;
  backlog.saw(begin(), later(5'000));
  CHECK_FALSE(backlog.any());
}

TEST_CASE("what was committed asynchronously and waited for the source's WAL writer is no backlog") {
  Backlog backlog;
  backlog.saw(begin(), later(200'000));
  CHECK_FALSE(backlog.any());
}

TEST_CASE("what is sent long after its commit is a backlog until the walsender says that nothing is left") {
  Backlog backlog;
  backlog.saw(begin(), later(second));
  CHECK(backlog.any());
  CHECK(backlog.behind());
  const std::vector<std::byte> change{std::byte{'I'}};
  backlog.saw(change, later(2 * second));
  CHECK(backlog.any());
  backlog.nothing_left();
  CHECK_FALSE(backlog.any());
}

TEST_CASE("a transaction that takes long to send becomes a backlog while it is sent") {
  Backlog backlog;
  backlog.saw(begin(), later(1'000));
  CHECK_FALSE(backlog.any());
  const std::vector<std::byte> change{std::byte{'I'}};
  backlog.saw(change, later(300'000));
  CHECK(backlog.any());
}

TEST_CASE("a transaction in progress is read lazily and holds nothing back") {
  Backlog backlog;
  backlog.saw(test::encode(pgoutput::StreamStart{.xid = Xid{7}, .first_segment = true}), later(second));
  CHECK(backlog.any());
  CHECK_FALSE(backlog.behind());
  backlog.saw(test::encode(pgoutput::StreamCommit{
                  .xid = Xid{7}, .commit_lsn = Lsn{1}, .end_lsn = Lsn{2}, .commit_time = committed}),
              later(2'000));
  CHECK_FALSE(backlog.any());
}

TEST_CASE("a payload cut short is left to the decoder") {
  Backlog backlog;
  backlog.saw({}, later(0));
  backlog.saw(std::vector<std::byte>{std::byte{'B'}, std::byte{0}}, later(0));
}
