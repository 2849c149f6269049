#include "protocol/copy_out.hpp"

#include <doctest/doctest.h>

#include <string>

#include "tests/unit/wire_bytes.hpp"

namespace walferry {
namespace {

std::vector<std::byte> bytes_of(std::string_view notation) {
  return test::wire(notation);  // not `wire`, which is a namespace here
}

// COPY (VALUES (1, 'a'), (22, 'b')) TO STDOUT, from PostgreSQL 15.
constexpr std::string_view answer_notation =
    "'H' 0000000b 00 0002 0000 0000"
    " 'd' 00000008 '1' 09 'a' 0a"
    " 'd' 00000009 '22' 09 'b' 0a"
    " 'c' 00000004 'C' 0000000b 'COPY 2' 00 'Z' 00000005 'T'";

struct Taken {
  CopyOutReader reader;
  std::string rows;
  std::size_t used = 0;
};

// All of it, so many bytes at a time.
Taken take(Bytes answer, std::size_t at_a_time) {
  Taken taken;
  for (std::size_t arrived = 0; arrived < answer.size();) {
    arrived = std::min(answer.size(), arrived + at_a_time);
    taken.used += taken.reader.take(answer.subspan(taken.used, arrived - taken.used), taken.rows);
  }
  return taken;
}

}  // namespace

TEST_CASE("rows come out whatever the pieces they arrive in") {
  const auto answer = bytes_of(answer_notation);
  for (std::size_t at_a_time = 1; at_a_time <= answer.size(); ++at_a_time) {
    const Taken taken = take(answer, at_a_time);
    CHECK(taken.rows == "1\ta\n22\tb\n");
    CHECK(taken.reader.rows() == 2);
    CHECK(taken.reader.over());
    CHECK_FALSE(taken.reader.failure());
    CHECK(taken.used == answer.size());
  }
}

TEST_CASE("no proper prefix is the end") {
  const auto answer = bytes_of(answer_notation);
  for (std::size_t length = 0; length < answer.size(); ++length)
    CHECK_FALSE(take(Bytes{answer}.first(length), 7).reader.over());
}

TEST_CASE("part of a row is handed on before its end has come") {
  const auto answer = bytes_of("'d' 00100004 'begin'");
  const Taken taken = take(answer, answer.size());
  CHECK(taken.rows == "begin");
  CHECK(taken.reader.rows() == 1);
  CHECK_FALSE(taken.reader.over());
}

TEST_CASE("nothing is taken behind the end") {
  const auto answer = bytes_of("'c' 00000004 'Z' 00000005 'T' 'd' 00000005 'x'");
  const Taken taken = take(answer, answer.size());
  CHECK(taken.reader.over());
  CHECK(taken.used == 11);
  CHECK(taken.rows.empty());
}

TEST_CASE("an error in the middle is kept until the server is ready again") {
  const auto answer = bytes_of(
      "'H' 00000007 00 0000 'd' 00000005 'x' 'N' 00000005 00"
      " 'E' 00000033 'SERROR' 00 'C57014' 00 'Mcanceled' 00 'Dby a user' 00 'Hask again' 00 00"
      " 'Z' 00000005 'E'");
  const Taken taken = take(answer, 3);
  CHECK(taken.reader.over());
  REQUIRE(taken.reader.failure());
  CHECK(taken.reader.failure()->sqlstate == "57014");
  CHECK(taken.reader.failure()->message == "canceled");
  CHECK(taken.reader.failure()->detail == "by a user");
  CHECK(taken.reader.failure()->hint == "ask again");
}

TEST_CASE("what does not belong to a COPY is refused") {
  const auto refused = [](std::string_view notation) {
    const auto answer = bytes_of(notation);
    CHECK_THROWS_AS(static_cast<void>(take(answer, answer.size())), ProtocolError);
  };
  refused("'W' 0000000b 00 0002 0000 0000");     // CopyBothResponse
  refused("'D' 00000006 0000");                  // DataRow
  refused("'d' 00000003");                       // shorter than its length
  refused("'C' 7fffffff");                       // longer than any
  refused("'E' 00000006 'C' '5' 'Z' 00000005");  // an error without an end
}

}  // namespace walferry
