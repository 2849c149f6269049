// What becomes of a schema change that comes through the stream (`run --on-ddl`).
#pragma once

#include <cstdint>

namespace walferry::ddl {

enum class OnDdl : std::uint8_t {
  Stop,   // the apply stands still at it until a person has run it on the target
  Apply,  // it is run on the target at its place
  Warn,   // it is logged and passed over
};

enum class Outcome : std::uint8_t {
  Executed,    // on the target, by us
  Present,     // the target had it already
  PassedOver,  // skipped by a person, or the policy is to warn
};

}  // namespace walferry::ddl
