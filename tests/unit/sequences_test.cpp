#include "engine/sequences.hpp"

#include <doctest/doctest.h>

using namespace walferry;

namespace {

Sequence sequence(const std::string& name) {
  Sequence made;
  made.name = {"public", name};
  made.type_name = "bigint";
  made.maximum = 100;
  return made;
}

SequenceState state(const std::string& name, std::int64_t last_value, bool is_called) {
  return {{sequence(name)}, {{{"public", name}, last_value, is_called}}};
}

}  // namespace

TEST_CASE("the same value is equal only when it has been handed out on both sides or on neither") {
  CHECK(compare_sequences(state("s", 5, true), state("s", 5, true)).at(0).equal);
  CHECK_FALSE(compare_sequences(state("s", 5, true), state("s", 5, false)).at(0).equal);
  CHECK_FALSE(compare_sequences(state("s", 5, true), state("s", 6, true)).at(0).equal);
}

TEST_CASE("a sequence that one side lacks is a difference that says which side") {
  const auto compared = compare_sequences(state("a", 1, false), state("b", 1, false));
  REQUIRE(compared.size() == 2);
  CHECK(compared[0].note == "missing on the target");
  CHECK_FALSE(compared[0].target.has_value());
  CHECK(compared[1].note == "missing on the source");
  CHECK_FALSE(compared[0].equal);
  CHECK_FALSE(compared[1].equal);
}

TEST_CASE("definitions must agree in what decides the next value") {
  Sequence other = sequence("s");
  CHECK(definition_difference(sequence("s"), other).empty());
  other.start = 50;
  other.cache = 20;
  CHECK(definition_difference(sequence("s"), other).empty());
  other.increment = 2;
  other.cycle = true;
  CHECK(definition_difference(sequence("s"), other) == "increment 1 / 2, cycle no / yes");

  SequenceState target = state("s", 5, true);
  target.definitions[0].maximum = 10;
  const auto compared = compare_sequences(state("s", 5, true), target);
  CHECK_FALSE(compared.at(0).equal);
  CHECK(compared.at(0).note == "definitions differ (source / target): maximum 100 / 10");
}
