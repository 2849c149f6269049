// Checked reading and plain writing of big-endian wire bytes.
//
// Reader never reads past its span and never allocates; what it returns points into the span it was given and lives as
// long as that. Every failure is a ProtocolError that names the field. Writer appends to a caller's buffer. Both are
// inline: they run for every field of every row.
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

namespace walferry {

class ProtocolError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

using Bytes = std::span<const std::byte>;

[[nodiscard]] inline std::string_view as_text(Bytes bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}
[[nodiscard]] inline Bytes as_bytes(std::string_view text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}

// Big-endian integers at an unchecked place: the caller has checked the length.
namespace wire {

template <typename Integer>
[[nodiscard]] constexpr Integer swap_to_big_endian(Integer value) {
  static_assert(std::is_unsigned_v<Integer>);
  if constexpr (std::endian::native == std::endian::big || sizeof(Integer) == 1) {
    return value;
  } else if constexpr (sizeof(Integer) == 2) {
    return __builtin_bswap16(value);
  } else if constexpr (sizeof(Integer) == 4) {
    return __builtin_bswap32(value);
  } else {
    static_assert(sizeof(Integer) == 8);
    return __builtin_bswap64(value);
  }
}

template <typename Integer>
[[nodiscard]] inline Integer load(const std::byte* at) {
  Integer value;
  std::memcpy(&value, at, sizeof value);
  return swap_to_big_endian(value);
}

template <typename Integer>
[[nodiscard]] inline std::array<std::byte, sizeof(Integer)> store(Integer value) {
  return std::bit_cast<std::array<std::byte, sizeof(Integer)>>(swap_to_big_endian(value));
}

// A tag, kind or flag byte for an error message: 'N', or 0x80 where it has no printable form.
[[nodiscard]] std::string describe_byte(std::uint8_t byte);

// The throwing ends of Reader, out of line so that the reading itself stays small.
[[noreturn]] void throw_too_short(std::string_view field, std::size_t needed, std::size_t left);
[[noreturn]] void throw_no_string_end(std::string_view field, std::size_t left);
[[noreturn]] void throw_unexpected(std::string_view field, char expected, std::uint8_t found);
[[noreturn]] void throw_left_over(std::string_view message, std::size_t left);

}  // namespace wire

class Reader {
 public:
  explicit Reader(Bytes bytes) : rest_(bytes) {}

  [[nodiscard]] std::uint8_t u8(std::string_view field) { return integer<std::uint8_t>(field); }
  [[nodiscard]] std::uint16_t u16(std::string_view field) { return integer<std::uint16_t>(field); }
  [[nodiscard]] std::uint32_t u32(std::string_view field) { return integer<std::uint32_t>(field); }
  [[nodiscard]] std::uint64_t u64(std::string_view field) { return integer<std::uint64_t>(field); }
  [[nodiscard]] std::int64_t i64(std::string_view field) { return static_cast<std::int64_t>(u64(field)); }

  // A NUL-ended string, without its NUL.
  [[nodiscard]] std::string_view c_string(std::string_view field) {
    const std::size_t length = as_text(rest_).find('\0');
    if (length == std::string_view::npos) wire::throw_no_string_end(field, rest_.size());
    const std::string_view text = as_text(rest_.first(length));
    rest_ = rest_.subspan(length + 1);
    return text;
  }

  [[nodiscard]] Bytes take(std::size_t length, std::string_view field) {
    if (rest_.size() < length) wire::throw_too_short(field, length, rest_.size());
    const Bytes taken = rest_.first(length);
    rest_ = rest_.subspan(length);
    return taken;
  }

  // Throws unless the next byte is `tag`.
  void expect(char tag, std::string_view field) {
    const std::uint8_t found = u8(field);
    if (found != static_cast<std::uint8_t>(tag)) wire::throw_unexpected(field, tag, found);
  }

  // Throws if any byte is left.
  void expect_end(std::string_view message) const {
    if (!rest_.empty()) wire::throw_left_over(message, rest_.size());
  }

  [[nodiscard]] std::size_t remaining() const { return rest_.size(); }
  [[nodiscard]] Bytes rest() const { return rest_; }

 private:
  template <typename Integer>
  [[nodiscard]] Integer integer(std::string_view field) {
    if (rest_.size() < sizeof(Integer)) wire::throw_too_short(field, sizeof(Integer), rest_.size());
    const Integer value = wire::load<Integer>(rest_.data());
    rest_ = rest_.subspan(sizeof(Integer));
    return value;
  }

  Bytes rest_;
};

class Writer {
 public:
  explicit Writer(std::vector<std::byte>& out) : out_(out) {}

  void u8(std::uint8_t value) { out_.push_back(std::byte{value}); }
  void u16(std::uint16_t value) { bytes(wire::store(value)); }
  void u32(std::uint32_t value) { bytes(wire::store(value)); }
  void u64(std::uint64_t value) { bytes(wire::store(value)); }
  void i64(std::int64_t value) { u64(static_cast<std::uint64_t>(value)); }
  // Writes `text` and a NUL; `text` itself must hold none.
  void c_string(std::string_view text) {
    bytes(as_bytes(text));
    u8(0);
  }
  void bytes(Bytes bytes) { out_.insert(out_.end(), bytes.begin(), bytes.end()); }

 private:
  std::vector<std::byte>& out_;
};

}  // namespace walferry
