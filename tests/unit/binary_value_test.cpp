#include "protocol/binary_value.hpp"

#include <doctest/doctest.h>

#include <array>
#include <string>

#include "tests/unit/wire_bytes.hpp"

namespace walferry {
namespace {

struct Sample {
  BinaryType type;
  std::string_view text;
  std::string_view binary;
};

// As PostgreSQL 15 writes them: SELECT v::text, encode(date_send(v), 'hex') and its like.
constexpr std::array samples = std::to_array<Sample>({
    {BinaryType::Bool, "t", "01"},
    {BinaryType::Bool, "f", "00"},
    {BinaryType::Int2, "-32768", "8000"},
    {BinaryType::Int2, "32767", "7fff"},
    {BinaryType::Int2, "0", "0000"},
    {BinaryType::Int4, "-2147483648", "80000000"},
    {BinaryType::Int4, "7", "00000007"},
    {BinaryType::Int8, "9223372036854775807", "7fffffffffffffff"},
    {BinaryType::Int8, "-9223372036854775808", "8000000000000000"},
    {BinaryType::Float4, "1.1", "3f8ccccd"},
    {BinaryType::Float4, "-0", "80000000"},
    {BinaryType::Float4, "NaN", "7fc00000"},
    {BinaryType::Float4, "Infinity", "7f800000"},
    {BinaryType::Float4, "-Infinity", "ff800000"},
    {BinaryType::Float4, "1e-45", "00000001"},
    {BinaryType::Float4, "3.4028235e+38", "7f7fffff"},
    {BinaryType::Float4, "1.6777216e+07", "4b800000"},
    {BinaryType::Float8, "0.1", "3fb999999999999a"},
    {BinaryType::Float8, "-0", "8000000000000000"},
    {BinaryType::Float8, "NaN", "7ff8000000000000"},
    {BinaryType::Float8, "Infinity", "7ff0000000000000"},
    {BinaryType::Float8, "-Infinity", "fff0000000000000"},
    {BinaryType::Float8, "5e-324", "0000000000000001"},
    {BinaryType::Float8, "1.7976931348623157e+308", "7fefffffffffffff"},
    {BinaryType::Float8, "9.999999999999999e+22", "44b52d02c7e14af6"},
    {BinaryType::Float8, "123456789012345.67", "42dc12218377de6b"},
    {BinaryType::Date, "2000-01-01", "00000000"},
    {BinaryType::Date, "1999-12-31", "ffffffff"},
    {BinaryType::Date, "1970-01-01", "ffffd533"},
    {BinaryType::Date, "2024-02-29", "00002279"},
    {BinaryType::Date, "2100-03-01", "00008ee8"},
    {BinaryType::Date, "1900-02-28", "ffff718e"},
    {BinaryType::Date, "0001-01-01", "fff4dbf9"},
    {BinaryType::Date, "0001-12-31 BC", "fff4dbf8"},
    {BinaryType::Date, "0005-02-29 BC", "fff4d511"},
    {BinaryType::Date, "4714-11-24 BC", "ffda97a7"},
    {BinaryType::Date, "5874897-12-31", "7fda970c"},
    {BinaryType::Date, "10000-01-01", "002c95d4"},
    {BinaryType::Date, "infinity", "7fffffff"},
    {BinaryType::Date, "-infinity", "80000000"},
    {BinaryType::Timestamp, "2000-01-01 00:00:00", "0000000000000000"},
    {BinaryType::Timestamp, "1999-12-31 23:59:59.999999", "ffffffffffffffff"},
    {BinaryType::Timestamp, "2026-11-22 03:04:05.5", "000303d37fb23460"},
    {BinaryType::Timestamp, "2026-11-22 03:04:05.000001", "000303d37faa9341"},
    {BinaryType::Timestamp, "294276-12-31 23:59:59.999999", "7fffff5bb3b29fff"},
    {BinaryType::Timestamp, "4714-11-24 00:00:00 BC", "fd0f7cc1411fa000"},
    {BinaryType::Timestamp, "0044-03-15 12:00:00.25 BC", "ff1af9e8fb4aa090"},
    {BinaryType::Timestamp, "infinity", "7fffffffffffffff"},
    {BinaryType::Timestamp, "-infinity", "8000000000000000"},
    {BinaryType::TimestampTz, "2000-01-01 00:00:00+00", "0000000000000000"},
    {BinaryType::TimestampTz, "1969-07-20 20:17:40+00", "fffc96188bae6100"},
    {BinaryType::TimestampTz, "2026-11-22 03:04:05.123+00", "000303d37fac73b8"},
    {BinaryType::TimestampTz, "0044-03-15 12:00:00.25+00 BC", "ff1af9e8fb4aa090"},
    {BinaryType::TimestampTz, "infinity", "7fffffffffffffff"},
    {BinaryType::TimestampTz, "-infinity", "8000000000000000"},
    {BinaryType::Uuid, "00000000-0000-0000-0000-000000000000", "00000000000000000000000000000000"},
    {BinaryType::Uuid, "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "a0eebc999c0b4ef8bb6d6bb9bd380a11"},
    {BinaryType::Bytea, "\\x", ""},
    {BinaryType::Bytea, "\\x00ff7f80", "00ff7f80"},
    {BinaryType::Time, "00:00:00", "0000000000000000"},
    {BinaryType::Time, "24:00:00", "000000141dd76000"},
    {BinaryType::Time, "12:34:56.000007", "0000000a8bda1c07"},
    {BinaryType::Time, "23:59:59.5", "000000141dcfbee0"},
    {BinaryType::Jsonb, R"({"a": [1, null]})", "017b2261223a205b312c206e756c6c5d7d"},
    {BinaryType::Numeric, "0", "0000000000000000"},
    {BinaryType::Numeric, "0.00", "0000000000000002"},
    {BinaryType::Numeric, "1", "00010000000000000001"},
    {BinaryType::Numeric, "-1", "00010000400000000001"},
    {BinaryType::Numeric, "10000", "00010001000000000001"},
    {BinaryType::Numeric, "9999", "0001000000000000270f"},
    {BinaryType::Numeric, "123456789.123456789", "0006000200000009000109291a8504d2162e2328"},
    {BinaryType::Numeric, "-0.0001", "0001ffff400000040001"},
    {BinaryType::Numeric, "0.00001", "0001fffe0000000503e8"},
    {BinaryType::Numeric, "0.000000000000000000012345", "0002fffb0000001800010929"},
    {BinaryType::Numeric, "100000000", "00010002000000000001"},
    {BinaryType::Numeric, "99999999.9999", "0003000100000004270f270f270f"},
    {BinaryType::Numeric, "12345678901234567890123456789012345678",
     "000a000900000000000c0d801ed204d2162e23340d801ed204d2162e"},
    {BinaryType::Numeric, "0.1", "0001ffff0000000103e8"},
    {BinaryType::Numeric, "0.5000", "0001ffff000000041388"},
    {BinaryType::Numeric, "1000000.000", "00010001000000030064"},
    {BinaryType::Numeric, "NaN", "00000000c0000000"},
    {BinaryType::Numeric, "-12.30", "0002000040000002000c0bb8"},
    // The server leaves a number behind the sign that no reader looks at.
    {BinaryType::Numeric, "Infinity", "00000000d0000000"},
    {BinaryType::Numeric, "-Infinity", "00000000f0000000"},
});

std::string value_of(BinaryType type, std::string_view text) {
  std::vector<std::byte> out;
  if (!append_value(type, text, out)) {
    CHECK(out.empty());
    return "refused";
  }
  Reader in{out};
  const std::uint32_t length = in.u32("length");
  CHECK(length == out.size() - 4);
  return test::hex(Bytes{out}.subspan(4));
}

TEST_CASE("values are what the server's send functions make of them") {
  for (const Sample& sample : samples) {
    CAPTURE(sample.text);
    CHECK(value_of(sample.type, sample.text) == sample.binary);
  }
}

TEST_CASE("text is refused that the type does not write, and nothing of it is left behind") {
  using enum BinaryType;
  for (const auto& [type, text] : std::to_array<std::pair<BinaryType, std::string_view>>({
           {Bool, "true"},
           {Bool, ""},
           {Int2, "32768"},
           {Int4, "1.0"},
           {Int4, " 1"},
           {Int8, ""},
           {Float8, "nan"},
           {Float8, "inf"},
           {Float8, "1e999"},
           {Float8, "1,5"},
           {Date, "2024-1-01"},
           {Date, "2024-13-01"},
           {Date, "01/02/2024"},
           {Date, "9999999-01-01"},
           {Date, "2024-01-01 AD"},
           {Timestamp, "2024-01-01"},
           {Timestamp, "2024-01-01 00:00:00+00"},
           {Timestamp, "2024-01-01 00:00:00."},
           {Timestamp, "2024-01-01 00:00:00.1234567"},
           {Timestamp, "9999999-01-01 00:00:00"},
           {TimestampTz, "2024-01-01 00:00:00"},
           {TimestampTz, "2024-01-01 00:00:00+02"},
           {TimestampTz, "2024-01-01 00:00:00+00:30"},
           {Time, "24:00:00.1"},
           {Time, "12:34"},
           {Bytea, "abc"},
           {Bytea, "\\x0"},
           {Bytea, "\\x0g"},
           {Numeric, ""},
           {Numeric, "-"},
           {Numeric, "."},
           {Numeric, "1."},
           {Numeric, ".5"},
           {Numeric, "1e5"},
           {Numeric, "1,000"},
           {Numeric, "+1"},
           {Numeric, "inf"},
           {Uuid, "a0eebc999c0b4ef8bb6d6bb9bd380a11"},
           {Uuid, "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a1g"},
           {Uuid, "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a1"},
       })) {
    CAPTURE(text);
    CHECK(value_of(type, text) == "refused");
  }
}

TEST_CASE("each day is one behind the day before it, over leap years and the turn of the era") {
  using namespace std::string_literals;
  const auto days = [](const std::string& text) { return std::stoll(value_of(BinaryType::Date, text), nullptr, 16); };
  for (const auto& [before, after] : std::to_array<std::pair<std::string, std::string>>({
           {"2024-02-28"s, "2024-02-29"s},
           {"2024-02-29"s, "2024-03-01"s},
           {"2023-02-28"s, "2023-03-01"s},
           {"2100-02-28"s, "2100-03-01"s},
           {"2400-02-29"s, "2400-03-01"s},
           {"9999-12-31"s, "10000-01-01"s},
           {"0005-02-29 BC"s, "0005-03-01 BC"s},
       })) {
    CAPTURE(before);
    CHECK(days(after) == days(before) + 1);
  }
}

TEST_CASE("text goes as it is, and NULL has no length") {
  CHECK(value_of(BinaryType::Text, "ab") == "6162");
  CHECK(value_of(BinaryType::Text, "").empty());
  std::vector<std::byte> out;
  append_null(out);
  CHECK(as_text(out) == "\xFF\xFF\xFF\xFF");
  CHECK(binary_type_of(1184) == BinaryType::TimestampTz);
  CHECK(binary_type_of(1186) == BinaryType::Text);
  CHECK(name_of(BinaryType::TimestampTz) == "timestamptz");
}

}  // namespace
}  // namespace walferry
