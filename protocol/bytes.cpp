#include "protocol/bytes.hpp"

#include <array>
#include <cstdio>

namespace walferry::wire {

std::string describe_byte(std::uint8_t byte) {
  if (byte > ' ' && byte < 0x7F) return {'\'', static_cast<char>(byte), '\''};
  std::array<char, 5> text{};
  std::snprintf(text.data(), text.size(), "0x%02X", static_cast<unsigned>(byte));
  return text.data();
}

void throw_too_short(std::string_view field, std::size_t needed, std::size_t left) {
  throw ProtocolError(std::string(field) + ": needs " + std::to_string(needed) + " bytes, " + std::to_string(left) +
                      " left");
}

void throw_no_string_end(std::string_view field, std::size_t left) {
  throw ProtocolError(std::string(field) + ": no NUL in the " + std::to_string(left) + " bytes left");
}

void throw_unexpected(std::string_view field, char expected, std::uint8_t found) {
  throw ProtocolError(std::string(field) + ": expected " + describe_byte(static_cast<std::uint8_t>(expected)) +
                      ", found " + describe_byte(found));
}

void throw_left_over(std::string_view message, std::size_t left) {
  throw ProtocolError(std::string(message) + ": " + std::to_string(left) + " bytes after its end");
}

}  // namespace walferry::wire
