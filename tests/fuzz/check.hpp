// What the fuzz targets share: the checks, and the one way to fail.
//
// Each target is a file that defines check_input(); one_input.cpp calls it, for libFuzzer and for the replay.
#pragma once

#include <algorithm>
#include <cstdlib>

#include "protocol/bytes.hpp"
#include "protocol/pgoutput.hpp"
#include "tests/fuzz/pgoutput_encode.hpp"

namespace walferry::test {

// Returns when the input was refused or means what it says; else ends in require().
void check_input(Bytes input);

// Stops the process, in release builds too: both the fuzzer and the replay take that as a failure.
inline void require(bool holds) {
  if (!holds) std::abort();
}

inline bool same_bytes(Bytes left, Bytes right) {
  return std::equal(left.begin(), left.end(), right.begin(), right.end());
}

// Either a ProtocolError, or a message that holds everything that was in the payload.
inline void check_pgoutput(Bytes payload, pgoutput::DecodeContext context) {
  try {
    const pgoutput::Message message = pgoutput::decode(payload, context);
    require(same_bytes(encode(message), payload));
  } catch (const ProtocolError&) {
    // Refused: what most mutated inputs must come to.
  }
}

}  // namespace walferry::test
