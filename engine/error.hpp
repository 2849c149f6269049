// The one exception of the engine, and the one retry policy.
//
// An Error says what failed (kind), on which side, with PostgreSQL's SQLSTATE where there is one, and in its text what
// was being done, to what, and the remedy. cli/ turns it into an exit code; Migration::run asks is_transient() whether
// to go on. Secrets never enter an Error: libpq's messages carry none and ConnInfo::redacted() is what is printed.
#pragma once

#include <exception>
#include <stdexcept>
#include <string>
#include <string_view>

namespace walferry {

enum class ErrorKind {
  Usage,         // bad flag, bad connection string, bad configuration
  Refused,       // a guard said no; nothing was changed
  Connection,    // server unreachable, connection lost
  Sql,           // a statement failed
  Protocol,      // bytes that the replication protocol does not allow
  Schema,        // pg_dump, pg_restore or the catalogs do not fit
  State,         // the state directory cannot be read or written
  Divergence,    // the target does not hold what a change expects (G3)
  Verification,  // the comparison could not be made
  Differences,   // the comparison was made and the two sides differ
  Timeout,       // the time limit of an operation is over
  Stopped,       // asked to stop
};

enum class Side { None, Source, Target };

[[nodiscard]] std::string_view to_string(Side side);

struct ErrorOrigin {
  ErrorKind kind;
  Side side = Side::None;
  std::string sqlstate = {};
};

class Error : public std::runtime_error {
 public:
  Error(ErrorOrigin origin, const std::string& message) : std::runtime_error(message), origin_(std::move(origin)) {}

  [[nodiscard]] ErrorKind kind() const { return origin_.kind; }
  [[nodiscard]] Side side() const { return origin_.side; }
  [[nodiscard]] const std::string& sqlstate() const { return origin_.sqlstate; }

  // The same error with "<doing>: " before its text.
  [[nodiscard]] Error during(std::string_view doing) const;

 private:
  ErrorOrigin origin_;
};

// Whether the same operation can be expected to work later as it is: lost connections, servers starting or
// stopping, deadlocks, a slot that its old walsender still holds, connection limits, a server whose disk is full until
// somebody makes room.
[[nodiscard]] bool is_transient(const Error& error);

// What the command line returns, a contract (docs/operations.md).
namespace exit_codes {
inline constexpr int ok = 0;
inline constexpr int usage = 1;    // or configuration
inline constexpr int refused = 2;  // by a guard
inline constexpr int differences = 3;
inline constexpr int not_verifiable = 4;
inline constexpr int source_failed = 5;
inline constexpr int target_failed = 6;
inline constexpr int timed_out = 7;  // and was rolled back
inline constexpr int person_must_act = 8;
}  // namespace exit_codes

[[nodiscard]] int exit_code(const Error& error);
// Nothing failed but that it was asked to stop.
[[nodiscard]] bool is_stop(const std::exception_ptr& failure);

}  // namespace walferry
