// A position in the write-ahead log, and the other small identities that travel in the replication protocol.
//
// An Lsn is a strong type: explicit in, explicit out, compared as a number, printed as PostgreSQL prints pg_lsn
// ("16/B374D848"). Zero is PostgreSQL's InvalidXLogRecPtr and means "none".
#pragma once

#include <compare>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace walferry {

struct Lsn {
  std::uint64_t value = 0;

  auto operator<=>(const Lsn&) const = default;

  explicit operator bool() const { return value != 0; }

  // Reads "X/Y" with 1 to 8 hexadecimal digits on both sides; anything else is nullopt.
  [[nodiscard]] static std::optional<Lsn> parse(std::string_view text);

  [[nodiscard]] std::string to_string() const;
};

enum class Oid : std::uint32_t {};
enum class RelationId : std::uint32_t {};
enum class Xid : std::uint32_t {};

// Microseconds since 2000-01-01 00:00 UTC, as every time in the protocol.
struct PgTime {
  std::int64_t microseconds = 0;
  auto operator<=>(const PgTime&) const = default;
};

}  // namespace walferry
