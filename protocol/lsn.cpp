#include "protocol/lsn.hpp"

#include <array>
#include <charconv>
#include <cinttypes>
#include <cstdio>
#include <system_error>

namespace walferry {
namespace {

constexpr std::size_t half_digits_max = 8;

// from_chars alone is too kind: it stops at the first foreign character and reads any number of leading zeros.
std::optional<std::uint32_t> parse_half(std::string_view digits) {
  if (digits.empty() || digits.size() > half_digits_max) return std::nullopt;
  const char* const end = digits.data() + digits.size();
  std::uint32_t value = 0;
  const auto [stopped_at, error] = std::from_chars(digits.data(), end, value, 16);
  if (error != std::errc{} || stopped_at != end) return std::nullopt;
  return value;
}

}  // namespace

std::optional<Lsn> Lsn::parse(std::string_view text) {
  const std::size_t slash = text.find('/');
  if (slash == std::string_view::npos) return std::nullopt;
  const std::optional<std::uint32_t> high = parse_half(text.substr(0, slash));
  const std::optional<std::uint32_t> low = parse_half(text.substr(slash + 1));
  if (!high || !low) return std::nullopt;
  return Lsn{std::uint64_t{*high} << 32 | *low};
}

std::string Lsn::to_string() const {
  const auto high = static_cast<std::uint32_t>(value >> 32);
  const auto low = static_cast<std::uint32_t>(value);
  std::array<char, 2 * half_digits_max + 2> text{};  // both halves, the slash and the NUL of snprintf
  const int length = std::snprintf(text.data(), text.size(), "%" PRIX32 "/%" PRIX32, high, low);
  return {text.data(), static_cast<std::size_t>(length)};
}

}  // namespace walferry
