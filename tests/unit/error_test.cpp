#include "engine/error.hpp"

#include <doctest/doctest.h>

#include <string>

using namespace walferry;

namespace {

Error sql_error(const std::string& sqlstate) {
  return {{ErrorKind::Sql, Side::Target, sqlstate}, "failed"};
}
Error connection_error(const std::string& sqlstate = {}) {
  return {{ErrorKind::Connection, Side::Source, sqlstate}, "failed"};
}

}  // namespace

TEST_CASE("a lost or refused connection passes") {
  CHECK(is_transient(connection_error()));
  for (const char* state : {"08006", "57P03", "53300"}) CHECK(is_transient(connection_error(state)));
}

TEST_CASE("a connection that a person must mend does not pass by itself") {
  for (const char* state : {"28000", "28P01", "3D000"}) {
    CAPTURE(state);
    CHECK_FALSE(is_transient(connection_error(state)));
  }
}

TEST_CASE("statements that failed for a passing reason are repeated") {
  for (const char* state :
       {"08000", "08006", "57P01", "57P02", "57P03", "53100", "53300", "55006", "40001", "40P01", "55P03", "57014"}) {
    CAPTURE(state);
    CHECK(is_transient(sql_error(state)));
  }
}

TEST_CASE("statements that fail each time are not repeated") {
  for (const char* state : {"", "23505", "42P01", "42501", "22P02", "53200", "58P01", "XX000", "57P04", "0A000"}) {
    CAPTURE(state);
    CHECK_FALSE(is_transient(sql_error(state)));
  }
}

TEST_CASE("no other kind of error passes, whatever its SQLSTATE") {
  for (const ErrorKind kind :
       {ErrorKind::Usage, ErrorKind::Refused, ErrorKind::Protocol, ErrorKind::Schema, ErrorKind::State,
        ErrorKind::Divergence, ErrorKind::Verification, ErrorKind::Timeout, ErrorKind::Stopped}) {
    CHECK_FALSE(is_transient(Error{{kind, Side::Source, "08006"}, "failed"}));
  }
}

TEST_CASE("saying what was being done keeps everything else of the error") {
  const Error error = sql_error("40P01").during("copying public.t");
  CHECK(std::string{error.what()} == "copying public.t: failed");
  CHECK(error.kind() == ErrorKind::Sql);
  CHECK(error.side() == Side::Target);
  CHECK(error.sqlstate() == "40P01");
}
