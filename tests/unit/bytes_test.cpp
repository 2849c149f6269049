#include "protocol/bytes.hpp"

#include <doctest/doctest.h>

#include <string>

#include "tests/unit/wire_bytes.hpp"

namespace walferry {
namespace {

using test::hex;
using test::wire;

// What the reader says when `read` fails.
template <typename Read>
std::string error_of(Read read) {
  try {
    read();
  } catch (const ProtocolError& error) {
    return error.what();
  }
  return "no error";
}

TEST_CASE("integers are read big-endian, in order, and the rest is left") {
  const auto bytes = wire("01 0203 04050607 08090a0b0c0d0e0f fffffffffffffffe 2a");
  Reader in(bytes);
  CHECK(in.u8("a") == 0x01);
  CHECK(in.u16("b") == 0x0203);
  CHECK(in.u32("c") == 0x04050607);
  CHECK(in.u64("d") == 0x08090A0B0C0D0E0F);
  CHECK(in.i64("e") == -2);
  CHECK(in.remaining() == 1);
  CHECK(hex(in.rest()) == "2a");
}

TEST_CASE("what Writer writes Reader reads") {
  std::vector<std::byte> bytes;
  Writer out(bytes);
  out.u8(0xFE);
  out.u16(0xFEDC);
  out.u32(0xFEDCBA98);
  out.u64(0xFEDCBA9876543210);
  out.i64(-3);
  out.c_string("name");
  out.c_string("");
  out.bytes(wire("00ff"));
  CHECK(hex(bytes) == "fefedcfedcba98fedcba9876543210fffffffffffffffd6e616d65000000ff");

  Reader in(bytes);
  CHECK(in.u8("") == 0xFE);
  CHECK(in.u16("") == 0xFEDC);
  CHECK(in.u32("") == 0xFEDCBA98);
  CHECK(in.u64("") == 0xFEDCBA9876543210);
  CHECK(in.i64("") == -3);
  CHECK(in.c_string("") == "name");
  CHECK(in.c_string("").empty());
  CHECK(hex(in.take(2, "")) == "00ff");
  in.expect_end("");
}

TEST_CASE("an integer that is cut short is refused with field, need and rest, and nothing is consumed") {
  const auto bytes = wire("010203");
  Reader in(bytes);
  CHECK(error_of([&] { static_cast<void>(in.u32("Begin xid")); }) == "Begin xid: needs 4 bytes, 3 left");
  CHECK(in.remaining() == 3);
  CHECK_THROWS_AS(static_cast<void>(in.u64("x")), ProtocolError);
  CHECK_THROWS_AS(static_cast<void>(in.i64("x")), ProtocolError);
  CHECK(in.u16("x") == 0x0102);
  CHECK_THROWS_AS(static_cast<void>(in.u16("x")), ProtocolError);
  CHECK(in.u8("x") == 3);
  CHECK_THROWS_AS(static_cast<void>(in.u8("x")), ProtocolError);
}

TEST_CASE("a string without its NUL is refused") {
  const auto bytes = wire("'abc'");
  Reader in(bytes);
  CHECK(error_of([&] { static_cast<void>(in.c_string("Type name")); }) == "Type name: no NUL in the 3 bytes left");
  Reader empty(Bytes{});
  CHECK_THROWS_AS(static_cast<void>(empty.c_string("x")), ProtocolError);
}

TEST_CASE("strings and taken bytes point into the input") {
  const auto bytes = wire("'abc' 00 'de'");
  Reader in(bytes);
  CHECK(as_bytes(in.c_string("")).data() == bytes.data());
  CHECK(in.take(2, "").data() == bytes.data() + 4);
}

TEST_CASE("taking more than is left is refused, however much it is") {
  const auto bytes = wire("0102");
  Reader in(bytes);
  CHECK_THROWS_AS(static_cast<void>(in.take(3, "x")), ProtocolError);
  CHECK_THROWS_AS(static_cast<void>(in.take(static_cast<std::size_t>(-1), "x")), ProtocolError);
  CHECK(in.take(0, "x").empty());
  CHECK(in.take(2, "x").size() == 2);
  CHECK(in.take(0, "x").empty());
}

TEST_CASE("expect names what it wanted and what it found") {
  const auto bytes = wire("'K' 00 'N'");
  Reader in(bytes);
  CHECK(error_of([&] { in.expect('N', "Insert new tuple"); }) == "Insert new tuple: expected 'N', found 'K'");
  CHECK(error_of([&] { in.expect('N', "Insert new tuple"); }) == "Insert new tuple: expected 'N', found 0x00");
  in.expect('N', "Insert new tuple");
  CHECK_THROWS_AS(in.expect('N', "x"), ProtocolError);
}

TEST_CASE("bytes after the end are counted in the refusal") {
  const auto bytes = wire("0102");
  const Reader in(bytes);
  CHECK(error_of([&] { in.expect_end("Commit"); }) == "Commit: 2 bytes after its end");
  Reader(Bytes{}).expect_end("Commit");
}

}  // namespace
}  // namespace walferry
