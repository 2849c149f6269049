// Where every sequence stands, read from one side and set on the other.
//
// PostgreSQL up to 18 does not replicate sequences, so cutover copies (last_value, is_called) exactly, after writes
// have stopped: owned or not, cycling, descending, cached and unlogged alike. last_value already lies past the blocks
// that sessions have cached (CACHE n), so the target can never hand out a value that the source has given to anybody.
// Called by verify and cutover.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "engine/catalog.hpp"
#include "engine/pg/session.hpp"

namespace walferry {

struct SequenceValue {
  QualifiedName name;
  std::int64_t last_value = 0;
  bool is_called = false;

  bool operator==(const SequenceValue&) const = default;
};

// One sequence on both sides; a value that is absent means that the sequence is missing there.
struct SequenceComparison {
  QualifiedName name;
  std::optional<SequenceValue> source = {};
  std::optional<SequenceValue> target = {};
  bool equal = false;
  std::string note = {};  // what differs, for people: missing, definition
};

// What one side holds; values stand in the order of definitions.
struct SequenceState {
  std::vector<Sequence> definitions;
  std::vector<SequenceValue> values;
};

// In the order given, from the sequences themselves (pg_sequences hides values without USAGE and before the first
// call). Sequences are not transactional: a snapshot does not hold them still, only the end of the writes does.
[[nodiscard]] std::vector<SequenceValue> read_sequence_values(pg::Session& session,
                                                              const std::vector<Sequence>& sequences);

// setval(name, last_value, is_called) for each. Needs UPDATE on them. Safe to repeat.
void set_sequence_values(pg::Session& target, const std::vector<SequenceValue>& values);

// Where rows came without their sequences: moves each that an integer column takes its values from, by default or as
// its own, behind what the column holds; further only. The names of those that feed no such column, which stay.
[[nodiscard]] std::vector<std::string> move_sequences_behind_rows(pg::Session& session);

// By name. Type, increment, bounds and CYCLE must agree as well as the value; START and CACHE need not.
[[nodiscard]] std::vector<SequenceComparison> compare_sequences(const SequenceState& source,
                                                                const SequenceState& target);

// "increment 1 / 2, maximum 10 / 20": what differs between two definitions, source / target; empty when nothing does.
[[nodiscard]] std::string definition_difference(const Sequence& source, const Sequence& target);

}  // namespace walferry
