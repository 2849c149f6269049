#include "protocol/lsn.hpp"

#include <doctest/doctest.h>

#include <array>
#include <cstdint>
#include <limits>

namespace walferry {
namespace {

struct Text {
  std::string_view text;
  std::uint64_t value;
};

TEST_CASE("an LSN is printed as PostgreSQL prints pg_lsn and read back to the same number") {
  constexpr std::array cases{
      Text{"0/0", 0},
      Text{"0/1", 1},
      Text{"0/1D897A0", 0x1D897A0},
      Text{"0/FFFFFFFF", 0xFFFFFFFF},
      Text{"1/0", 0x1'0000'0000},
      Text{"16/B374D848", 0x16'B374'D848},
      Text{"FFFFFFFF/FFFFFFFF", std::numeric_limits<std::uint64_t>::max()},
  };
  for (const Text& c : cases) {
    CAPTURE(c.text);
    CHECK(Lsn{c.value}.to_string() == c.text);
    REQUIRE(Lsn::parse(c.text).has_value());
    CHECK(Lsn::parse(c.text)->value == c.value);
  }
}

TEST_CASE("lower case and leading zeros are read") {
  CHECK(Lsn::parse("16/b374d848") == Lsn{0x16'B374'D848});
  CHECK(Lsn::parse("00000016/0000000a") == Lsn{0x16'0000'000A});
}

TEST_CASE("anything but two halves of one to eight hexadecimal digits is refused") {
  constexpr std::array<std::string_view, 18> refused{
      "",     "/",    "0",     "0/",   "/0",   "0/0/0", "0//0",        "000000000/0", "0/000000000",
      "-1/0", "+1/0", "0x1/0", " 0/0", "0/0 ", "0/G",   "123456789/0", "0/-1",        "0 /0"};
  for (const std::string_view text : refused) {
    CAPTURE(text);
    CHECK_FALSE(Lsn::parse(text).has_value());
  }
  CHECK_FALSE(Lsn::parse(std::string_view("0/0\0", 4)).has_value());
}

TEST_CASE("LSNs are ordered as numbers, not as text") {
  CHECK(Lsn{0x2'0000'0000} < Lsn{0x10'0000'0000});
  CHECK(Lsn{0x9} < Lsn{0x10});
  CHECK(Lsn{7} == Lsn{7});
}

TEST_CASE("only LSN zero means none") {
  CHECK_FALSE(static_cast<bool>(Lsn{}));
  CHECK(static_cast<bool>(Lsn{1}));
}

}  // namespace
}  // namespace walferry
