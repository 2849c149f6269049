// The exit codes of mission.md, in one place.
#pragma once

#include "engine/error.hpp"

namespace walferry {

namespace exit_codes {
inline constexpr int ok = 0;
inline constexpr int usage = 1;
inline constexpr int refused = 2;
inline constexpr int differences = 3;
inline constexpr int not_verifiable = 4;
inline constexpr int source_failed = 5;
inline constexpr int target_failed = 6;
inline constexpr int timed_out = 7;
inline constexpr int person_must_act = 8;
}  // namespace exit_codes

[[nodiscard]] inline int exit_code(const Error& error) {
  switch (error.kind()) {
    case ErrorKind::Usage:
    case ErrorKind::State:
      return exit_codes::usage;
    case ErrorKind::Refused:
      return exit_codes::refused;
    case ErrorKind::Verification:
      return exit_codes::not_verifiable;
    case ErrorKind::Timeout:
      return exit_codes::timed_out;
    case ErrorKind::Stopped:
      return exit_codes::ok;
    case ErrorKind::Connection:
    case ErrorKind::Sql:
    case ErrorKind::Protocol:
    case ErrorKind::Schema:
    case ErrorKind::Divergence:
      break;
  }
  return error.side() == Side::Target ? exit_codes::target_failed : exit_codes::source_failed;
}

}  // namespace walferry
