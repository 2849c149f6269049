// What becomes of a schema change that comes through the stream (`run --on-ddl`).
#pragma once

#include <cstdint>

namespace walferry::ddl {

enum class OnDdl : std::uint8_t {
  Stop,   // the apply stands still at it until a person has run it on the target
  Apply,  // it is run on the target at its place
  Warn,   // it is logged and passed over
};

}  // namespace walferry::ddl
