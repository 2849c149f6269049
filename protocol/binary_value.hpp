// Values in the binary form that their type's receive function takes, made from text, so that the target need not read
// text.
//
//   bool       u8                 int2, int4, int8   big endian      float4, float8   IEEE 754, big endian
//   uuid       16 bytes           bytea              its bytes       jsonb            u8 = 1, text
//   date       i32 days since 2000-01-01             time            i64 microseconds since midnight
//   timestamp, timestamptz        i64 microseconds since 2000-01-01 00:00 (UTC)
//              infinity is the largest number of days or microseconds, -infinity the smallest
//   numeric    digits i16, weight i16, sign u16, digits behind the point i16, digit i16 ...: to the base 10,000, the
//              first standing for 10,000 to the weight; zeros at both ends are left out
//
// The text is that of a session with walferry's settings: ISO dates, UTC, the shortest floats that are exact, bytea in
// hexadecimal. The forms
// are those of each type's send function (doc page "Binary Format" of COPY leaves them to these). Used by set-wise
// apply.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "protocol/bytes.hpp"

namespace walferry {

// By the oids that these types have in every version. Text: of any type, as it came.
enum class BinaryType : std::uint32_t {
  Bool = 16,
  Bytea = 17,
  Int8 = 20,
  Int2 = 21,
  Int4 = 23,
  Text = 25,
  Float4 = 700,
  Float8 = 701,
  Date = 1082,
  Time = 1083,
  Timestamp = 1114,
  TimestampTz = 1184,
  Numeric = 1700,
  Uuid = 2950,
  Jsonb = 3802,
};

// Text for every type that is not among them.
[[nodiscard]] BinaryType binary_type_of(std::uint32_t oid);
// In schema pg_catalog.
[[nodiscard]] std::string_view name_of(BinaryType type);

// Appends the value behind its length in bytes (i32), as arrays and COPY have it. False, with nothing appended: the
// text is not one that the type writes.
[[nodiscard]] bool append_value(BinaryType type, std::string_view text, std::vector<std::byte>& out);
// NULL in its place.
void append_null(std::vector<std::byte>& out);

}  // namespace walferry
