#include "engine/error.hpp"

namespace walferry {

std::string_view to_string(Side side) {
  switch (side) {
    case Side::None:
      return "none";
    case Side::Source:
      return "source";
    case Side::Target:
      return "target";
  }
  return "none";
}

Error Error::during(std::string_view doing) const {
  std::string message{doing};
  message += ": ";
  message += what();
  return Error{origin_, message};
}

bool is_transient(const Error& error) {
  if (error.kind() == ErrorKind::Connection) {
    // Wrong password or role, no such database, no pg_hba line: a person must act.
    return !error.sqlstate().starts_with("28") && error.sqlstate() != "3D000";
  }
  if (error.kind() != ErrorKind::Sql) return false;
  const std::string& state = error.sqlstate();
  return state.starts_with("08") ||                                                       // connection exceptions
         state == "57P01" || state == "57P02" || state == "57P03" || state == "57P05" ||  // shutdown, starting up
         state == "53300" ||                                                              // too many connections
         state == "53100" ||                      // the server's disk is full: somebody will make room
         state == "55006" ||                      // slot in use by the session before
         state == "40P01" || state == "40001" ||  // deadlock, serialization
         state == "72000" ||                      // the exported snapshot is gone; a new one is taken
         state == "25P03" || state == "25P04" ||  // a timeout of the server's ended the session
         state == "55P03" || state == "57014";    // lock not available, cancelled
}

int exit_code(const Error& error) {
  switch (error.kind()) {
    case ErrorKind::Usage:
    case ErrorKind::State:
      return exit_codes::usage;
    case ErrorKind::Refused:
    case ErrorKind::Stopped:  // before it was done: only what has no end of its own, `run`, was stopped in order
      return exit_codes::refused;
    case ErrorKind::Differences:
      return exit_codes::differences;
    case ErrorKind::Verification:
      return exit_codes::not_verifiable;
    case ErrorKind::Timeout:
      return exit_codes::timed_out;
    case ErrorKind::Connection:
    case ErrorKind::Sql:
    case ErrorKind::Protocol:
    case ErrorKind::Schema:
    case ErrorKind::Divergence:
      break;
  }
  if (error.side() == Side::Source) return exit_codes::source_failed;
  if (error.side() == Side::Target) return exit_codes::target_failed;
  return exit_codes::person_must_act;
}

bool is_stop(const std::exception_ptr& failure) {
  if (!failure) return false;
  try {
    std::rethrow_exception(failure);
  } catch (const Error& error) {
    return error.kind() == ErrorKind::Stopped;
  } catch (...) {
    return false;
  }
}

}  // namespace walferry
