#include "protocol/copy_format.hpp"

#include <doctest/doctest.h>

#include <string>

#include "tests/unit/wire_bytes.hpp"

namespace walferry::copy_format {
namespace {

using test::hex;
using test::wire;

// COPY (VALUES (1::int4, 'a'::text, NULL::text), (2, E'x\ty', 'zzz')) TO STDOUT (FORMAT binary), from PostgreSQL 15.
constexpr std::string_view server_notation =
    "'PGCOPY' 0aff0d0a00 00000000 00000000"
    " 0003 00000004 00000001 00000001 'a' ffffffff"
    " 0003 00000004 00000002 00000003 'x' 09 'y' 00000003 'zzz'"
    " ffff";

Field text(std::string_view value) {
  return as_bytes(value);
}

std::string text_row(std::vector<Field> fields) {
  std::vector<std::byte> out;
  append_text_row(fields, out);
  return std::string(as_text(out));
}

// Reads a whole binary COPY to its end.
std::size_t read_all(Bytes bytes) {
  Reader in(bytes);
  expect_binary_header(in);
  std::vector<Field> fields;
  std::size_t tuple_count = 0;
  while (read_binary_tuple(in, fields)) ++tuple_count;
  in.expect_end("COPY");
  return tuple_count;
}

TEST_CASE("binary COPY is written byte for byte as PostgreSQL writes it") {
  const auto one = wire("00000001");
  const auto two = wire("00000002");
  std::vector<std::byte> out;
  append_binary_header(out);
  append_binary_tuple(std::vector<Field>{Bytes(one), text("a"), std::nullopt}, out);
  append_binary_tuple(std::vector<Field>{Bytes(two), text("x\ty"), text("zzz")}, out);
  append_binary_trailer(out);
  CHECK(hex(out) == hex(wire(server_notation)));
}

TEST_CASE("binary COPY from PostgreSQL is read field by field, NULL apart from empty") {
  const auto bytes = wire(server_notation);
  Reader in(bytes);
  expect_binary_header(in);
  std::vector<Field> fields;
  REQUIRE(read_binary_tuple(in, fields));
  REQUIRE(fields.size() == 3);
  CHECK(hex(fields[0].value()) == "00000001");
  CHECK(as_text(fields[1].value()) == "a");
  CHECK_FALSE(fields[2].has_value());
  REQUIRE(read_binary_tuple(in, fields));
  REQUIRE(fields.size() == 3);
  CHECK(as_text(fields[1].value()) == "x\ty");
  CHECK_FALSE(read_binary_tuple(in, fields));
  CHECK(fields.empty());
  in.expect_end("COPY");
}

TEST_CASE("tuples come back as they went in") {
  const auto odd = wire("00 ff 5c 0a");
  const std::vector<std::vector<Field>> tuples{
      {}, {std::nullopt}, {text("")}, {text("a"), std::nullopt, text("")}, {Bytes(odd), text("tab\there")}};
  std::vector<std::byte> out;
  append_binary_header(out);
  for (const auto& tuple : tuples) append_binary_tuple(tuple, out);
  append_binary_trailer(out);

  Reader in(out);
  expect_binary_header(in);
  std::vector<Field> fields;
  for (const auto& tuple : tuples) {
    REQUIRE(read_binary_tuple(in, fields));
    REQUIRE(fields.size() == tuple.size());
    for (std::size_t index = 0; index < tuple.size(); ++index) {
      REQUIRE(fields[index].has_value() == tuple[index].has_value());
      if (tuple[index]) CHECK(hex(*fields[index]) == hex(*tuple[index]));
    }
  }
  CHECK_FALSE(read_binary_tuple(in, fields));
  in.expect_end("COPY");
}

TEST_CASE("every proper prefix of a binary COPY is refused") {
  const auto bytes = wire(server_notation);
  CHECK(read_all(bytes) == 2);
  for (std::size_t length = 0; length < bytes.size(); ++length) {
    CAPTURE(length);
    CHECK_THROWS_AS(read_all(Bytes(bytes).first(length)), ProtocolError);
  }
}

TEST_CASE("a byte after the trailer stays for expect_end to refuse") {
  auto bytes = wire(server_notation);
  bytes.push_back(std::byte{0});
  CHECK_THROWS_AS(read_all(bytes), ProtocolError);
}

TEST_CASE("damaged binary COPY is refused by field name") {
  struct Case {
    std::string_view notation;
    const char* error;
  };
  const std::vector<Case> cases{
      {"'PGCOPX' 0aff0d0a00 00000000 00000000 ffff", "COPY header signature: not PGCOPY"},
      {"'PGCOPY' 0aff0d0a00 00010000 00000000 ffff", "COPY header flags: not zero"},
      {"'PGCOPY' 0aff0d0a00 00000000 00000004 00000000 ffff", "COPY header extension length: not zero"},
      {"'PGCOPY' 0aff0d0a00 00000000 00000000 fffe", "COPY tuple field count: negative"},
      {"'PGCOPY' 0aff0d0a00 00000000 00000000 7fff 00000000", "COPY tuple fields: needs 131068 bytes, 4 left"},
      {"'PGCOPY' 0aff0d0a00 00000000 00000000 0001 fffffffe", "COPY field length: negative"},
      {"'PGCOPY' 0aff0d0a00 00000000 00000000 0001 80000000", "COPY field length: negative"},
      {"'PGCOPY' 0aff0d0a00 00000000 00000000 0001 7fffffff 00", "COPY field value: needs 2147483647 bytes, 1 left"},
  };
  for (const Case& c : cases) {
    CAPTURE(c.notation);
    const auto bytes = wire(c.notation);
    CHECK_THROWS_WITH_AS(read_all(bytes), c.error, ProtocolError);
  }
}

TEST_CASE("a tuple with more fields than an i16 counts is refused and nothing is written") {
  std::vector<std::byte> out;
  const std::vector<Field> fields(0x8000);
  CHECK_THROWS_AS(append_binary_tuple(fields, out), ProtocolError);
  CHECK(out.empty());
}

TEST_CASE("text COPY is written as PostgreSQL writes it") {
  // COPY (VALUES (1, 'a', NULL), (2, E'x\ty\\\\\r\n.', 'zzz')) TO STDOUT, from PostgreSQL 15.
  CHECK(text_row({text("1"), text("a"), std::nullopt}) == "1\ta\t\\N\n");
  CHECK(text_row({text("2"), text("x\ty\\\\\r\n."), text("zzz")}) == "2\tx\\ty\\\\\\\\\\r\\n.\tzzz\n");
}

TEST_CASE("text that looks like NULL or like the end of data is escaped") {
  CHECK(text_row({text("\\N")}) == "\\\\N\n");
  CHECK(text_row({text("\\.")}) == "\\\\.\n");
}

TEST_CASE("empty text and NULL differ, and a row may have no fields") {
  CHECK(text_row({text("")}) == "\n");
  CHECK(text_row({std::nullopt}) == "\\N\n");
  CHECK(text_row({text(""), text("")}) == "\t\n");
  CHECK(text_row({}) == "\n");
}

// The inverse of append_text_row for one row, as the server reads it.
std::vector<std::optional<std::string>> read_text_row(std::string_view row) {
  std::vector<std::optional<std::string>> fields(1, std::string());
  REQUIRE(row.back() == '\n');
  row.remove_suffix(1);
  for (std::size_t at = 0; at < row.size(); ++at) {
    if (row[at] == '\t') {
      fields.emplace_back(std::string());
    } else if (row[at] != '\\') {
      *fields.back() += row[at];
    } else if (row[++at] == 'N') {
      fields.back().reset();
    } else {
      *fields.back() += row[at] == 't' ? '\t' : row[at] == 'n' ? '\n' : row[at] == 'r' ? '\r' : row[at];
    }
  }
  return fields;
}

TEST_CASE("every byte value survives the text format") {
  std::string all;
  for (int byte = 1; byte < 256; ++byte) all += static_cast<char>(byte);
  const auto fields = read_text_row(text_row({text(all), std::nullopt, text("\t\n\r\\"), text("")}));
  REQUIRE(fields.size() == 4);
  CHECK(fields[0].value() == all);
  CHECK_FALSE(fields[1].has_value());
  CHECK(fields[2].value() == "\t\n\r\\");
  CHECK(fields[3].value().empty());
}

}  // namespace
}  // namespace walferry::copy_format
