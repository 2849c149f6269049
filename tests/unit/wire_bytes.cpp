#include "tests/unit/wire_bytes.hpp"

#include <charconv>
#include <stdexcept>
#include <system_error>

namespace walferry::test {

std::vector<std::byte> wire(std::string_view notation) {
  std::vector<std::byte> bytes;
  std::size_t at = 0;
  while (at < notation.size()) {
    if (notation[at] == ' ') {
      ++at;
      continue;
    }
    if (notation[at] == '\'') {
      const std::size_t end = notation.find('\'', at + 1);
      if (end == std::string_view::npos) throw std::invalid_argument("wire: open quote");
      Writer(bytes).bytes(as_bytes(notation.substr(at + 1, end - at - 1)));
      at = end + 1;
      continue;
    }
    const std::string_view pair = notation.substr(at, 2);
    std::uint8_t value = 0;
    const auto [stopped_at, error] = std::from_chars(pair.data(), pair.data() + pair.size(), value, 16);
    if (pair.size() != 2 || error != std::errc{} || stopped_at != pair.data() + 2) {
      throw std::invalid_argument("wire: not a hexadecimal pair: " + std::string(pair));
    }
    bytes.push_back(std::byte{value});
    at += 2;
  }
  return bytes;
}

std::string hex(Bytes bytes) {
  constexpr std::string_view digits = "0123456789abcdef";
  std::string text;
  text.reserve(bytes.size() * 2);
  for (const std::byte byte : bytes) {
    text += digits[std::to_integer<std::size_t>(byte >> 4)];
    text += digits[std::to_integer<std::size_t>(byte & std::byte{0x0F})];
  }
  return text;
}

}  // namespace walferry::test
