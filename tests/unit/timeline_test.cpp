#include "engine/timeline.hpp"

#include <doctest/doctest.h>

#include <limits>
#include <tuple>

using namespace walferry;

namespace {

constexpr Lsn endless{std::numeric_limits<std::uint64_t>::max()};
const TimelineHistory first{.timeline = 1, .file = ""};
const TimelineHistory second{.timeline = 2, .file = "1\t0/10\tx\n"};
const TimelineHistory third{.timeline = 3, .file = "1\t0/10\tx\n2\t0/20\ty\n"};

}  // namespace

TEST_CASE("a promoted copy left the source's timeline where its history says so") {
  const TimelineHistory source{.timeline = 1, .file = ""};
  CHECK(branch_point(source, {.timeline = 2, .file = "1\t0/5000060\tno recovery target specified\n"}) ==
        Lsn{0x5000060});
  // Promoted a second time since.
  CHECK(branch_point(source, {.timeline = 3, .file = "# a comment\n\n1\t1/A0\tx\n\n2\t1/B0\ty\n"}) ==
        Lsn{0x1'0000'00A0});
}

TEST_CASE("a source that was promoted itself shares its past with its copies") {
  const TimelineHistory source{.timeline = 3, .file = "1\t0/10\tx\n2\t0/20\ty\n"};
  CHECK(branch_point(source, {.timeline = 4, .file = "1\t0/10\tx\n2\t0/20\ty\n3\t0/30\tz\n"}) == Lsn{0x30});
  // Other words for the same leap.
  CHECK(branch_point(source, {.timeline = 4, .file = "1\t0/10\ta\n2\t0/20\tb\n3\t0/30\tc\n"}) == Lsn{0x30});
}

TEST_CASE("timelines of one number and another past are not one") {
  const TimelineHistory source{.timeline = 2, .file = "1\t0/10\tx\n"};
  CHECK_FALSE(branch_point(source, {.timeline = 3, .file = "1\t0/18\tx\n2\t0/30\ty\n"}));
  CHECK_FALSE(branch_point(source, {.timeline = 2, .file = "1\t0/18\tx\n"}));
}

TEST_CASE("without a branch there is no point") {
  CHECK_FALSE(branch_point({.timeline = 1, .file = ""}, {.timeline = 1, .file = ""}));
  // The ends the wrong way round.
  CHECK_FALSE(branch_point({.timeline = 2, .file = "1\t0/10\tx\n"}, {.timeline = 1, .file = ""}));
  CHECK_FALSE(branch_point({.timeline = 1, .file = ""}, {.timeline = 2, .file = "1\tnonsense\tx\n"}));
  CHECK_FALSE(branch_point({.timeline = 1, .file = ""}, {.timeline = 2, .file = "1"}));
}

TEST_CASE("what two servers share ends where one of them was promoted without the other") {
  CHECK(shared_until(first, first) == endless);
  CHECK(shared_until(third, third) == endless);
  CHECK(shared_until(third, {.timeline = 3, .file = "1\t0/10\tother words\n\n2\t0/20\t\n"}) == endless);
  for (const auto& [older, newer, at] : {std::tuple{first, second, Lsn{0x10}}, std::tuple{second, third, Lsn{0x20}},
                                         std::tuple{first, third, Lsn{0x10}}}) {
    CHECK(shared_until(older, newer) == at);
    CHECK(shared_until(newer, older) == at);
  }
  // Two standbys that were promoted to the same number, or one after the other from the same timeline.
  CHECK(shared_until(second, {.timeline = 2, .file = "1\t0/8\tx\n"}) == Lsn{0x8});
  CHECK(shared_until(second, {.timeline = 3, .file = "1\t0/18\tx\n"}) == Lsn{0x10});
  CHECK(shared_until(third, {.timeline = 4, .file = "1\t0/10\tx\n3\t0/30\ty\n"}) == Lsn{0x10});
}

TEST_CASE("a history that cannot be read is shared with nobody") {
  CHECK(shared_until(second, {.timeline = 2, .file = "1\tnonsense\tx\n"}) == Lsn{});
  CHECK(shared_until(first, {.timeline = 2, .file = ""}) == Lsn{});
}

TEST_CASE("a history is kept as text") {
  for (const TimelineHistory& history : {first, third}) {
    const auto again = TimelineHistory::parse(history.text());
    REQUIRE(again);
    CHECK(again->timeline == history.timeline);
    CHECK(again->file == history.file);
  }
  CHECK_FALSE(TimelineHistory::parse(""));
  CHECK_FALSE(TimelineHistory::parse("3"));
  CHECK_FALSE(TimelineHistory::parse("x\n"));
}
