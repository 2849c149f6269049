#include "engine/stream/pace.hpp"

#include <doctest/doctest.h>

using walferry::stream::Pace;

namespace {

// Source transactions applied at a rate, each of which keeps the apply at work for as long.
class Load {
 public:
  Pace pace;

  void run(double seconds, double per_second, double share) {
    for (double passed = 0; passed < seconds; passed += step) {
      now_ += step;
      transactions_ += step * per_second;
      at_work_ += step * share;
      pace.saw(Pace::Moment{duration(now_)}, static_cast<std::uint64_t>(transactions_), duration(at_work_));
    }
  }

 private:
  static constexpr double step = 0.01;
  static Pace::Duration duration(double seconds) {
    return std::chrono::duration_cast<Pace::Duration>(std::chrono::duration<double>(seconds));
  }

  double now_ = 1'000;
  double transactions_ = 0;
  double at_work_ = 0;
};

}  // namespace

TEST_CASE("transactions that leave the apply time are applied as they come") {
  Load load;
  load.run(2, 1'000, 0.4);
  CHECK_FALSE(load.pace.gathers());
}

TEST_CASE("transactions that keep the apply at work gather, and go on gathering when it has less to do with them") {
  Load load;
  load.run(2, 2'000, 0.9);
  CHECK(load.pace.gathers());
  load.run(10, 2'500, 0.1);
  CHECK(load.pace.gathers());
  load.run(10, 1'500, 0.1);
  CHECK(load.pace.gathers());
}

TEST_CASE("it is tried again now and then whether they still keep the apply at work") {
  Load load;
  load.run(2, 2'000, 0.9);
  CHECK(load.pace.gathers());
  load.run(40, 2'000, 0.1);
  CHECK_FALSE(load.pace.gathers());
  load.run(1.1, 2'000, 0.9);
  CHECK(load.pace.gathers());
}

TEST_CASE("when they come more slowly than what had kept the apply at work, each goes at once again") {
  Load load;
  load.run(2, 2'000, 0.9);
  load.run(1, 1'000, 0.1);
  CHECK_FALSE(load.pace.gathers());
  load.run(2, 1'000, 0.5);
  CHECK_FALSE(load.pace.gathers());
}

TEST_CASE("when everything ends, so does the gathering") {
  Load load;
  load.run(2, 2'000, 1);
  load.run(1, 0, 0);
  CHECK_FALSE(load.pace.gathers());
}

TEST_CASE("a few large transactions keep the apply at work and would not meet in a pause") {
  Load load;
  load.run(5, 50, 1);
  CHECK_FALSE(load.pace.gathers());
}

TEST_CASE("a moment of work is not looked at by itself") {
  Load load;
  load.run(1, 100, 0.1);
  load.run(0.8, 5'000, 1);
  CHECK_FALSE(load.pace.gathers());
  load.run(1, 100, 0.1);
  CHECK_FALSE(load.pace.gathers());
}
