// A server's answer to COPY ... TO STDOUT, taken at once and in pieces: both must come to the same.
#include <optional>
#include <string>

#include "protocol/copy_out.hpp"
#include "tests/fuzz/check.hpp"

namespace walferry::test {
namespace {

struct Outcome {
  std::string rows;
  std::int64_t count = 0;
  bool over = false;
  bool failed = false;
  bool refused = false;

  bool operator==(const Outcome&) const = default;
};

// The answer as it comes when so many bytes arrive at a time.
Outcome take_all(Bytes input, std::size_t at_a_time) {
  CopyOutReader reader;
  Outcome outcome;
  std::size_t arrived = 0;
  std::size_t taken = 0;
  try {
    while (arrived < input.size() && !reader.over()) {
      arrived = std::min(input.size(), arrived + at_a_time);
      const std::size_t used = reader.take(input.subspan(taken, arrived - taken), outcome.rows);
      require(used <= arrived - taken);
      taken += used;
    }
  } catch (const ProtocolError&) {
    outcome.refused = true;
  }
  require(outcome.rows.size() <= input.size());
  outcome.count = reader.rows();
  outcome.over = reader.over();
  outcome.failed = reader.failure().has_value();
  return outcome;
}

}  // namespace

void check_input(Bytes bytes) {
  if (bytes.empty()) return;
  const std::size_t at_a_time = 1 + std::to_integer<std::size_t>(bytes.front());
  const Bytes answer = bytes.subspan(1);
  require(take_all(answer, answer.size()) == take_all(answer, at_a_time));
}

}  // namespace walferry::test
