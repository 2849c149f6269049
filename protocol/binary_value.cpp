#include "protocol/binary_value.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <charconv>
#include <limits>
#include <optional>

namespace walferry {
namespace {

constexpr std::uint32_t null_length = 0xFFFF'FFFF;
constexpr std::int64_t microseconds_per_second = 1'000'000;
constexpr std::int64_t seconds_per_day = 86'400;
constexpr std::int64_t date_year_max = 5'874'897;  // as the server has them
constexpr std::int64_t timestamp_year_max = 294'276;

template <typename Bits>
void append_bits(Bits bits, std::vector<std::byte>& out) {
  Writer writer{out};
  writer.u32(sizeof bits);
  writer.bytes(wire::store(bits));
}

template <typename Number>
std::optional<Number> number(std::string_view text) {
  Number value{};
  const auto [end, failure] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (failure != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return value;
}

template <typename Integer>
bool append_integer(std::string_view text, std::vector<std::byte>& out) {
  const auto value = number<Integer>(text);
  if (value) append_bits(static_cast<std::make_unsigned_t<Integer>>(*value), out);
  return value.has_value();
}

template <typename Float, typename Bits>
bool append_float(std::string_view text, std::vector<std::byte>& out) {
  std::optional<Float> value;
  if (text == "NaN") {
    value = std::numeric_limits<Float>::quiet_NaN();
  } else if (text == "Infinity") {
    value = std::numeric_limits<Float>::infinity();
  } else if (text == "-Infinity") {
    value = -std::numeric_limits<Float>::infinity();
  } else if (!text.empty() && std::string_view{"-0123456789"}.find(text.front()) != std::string_view::npos) {
    value = number<Float>(text);
  }
  if (value) append_bits(std::bit_cast<Bits>(*value), out);
  return value.has_value();
}

// Takes text from its front; ok() is false from the first piece on that was not there.
class Scanner {
 public:
  explicit Scanner(std::string_view text) : rest_(text) {}

  [[nodiscard]] bool ok() const { return ok_; }
  [[nodiscard]] bool at_end() const { return ok_ && rest_.empty(); }

  bool accept(std::string_view word) {
    if (!rest_.starts_with(word)) return false;
    rest_.remove_prefix(word.size());
    return true;
  }
  void expect(char c) {
    ok_ = ok_ && !rest_.empty() && rest_.front() == c;
    if (ok_) rest_.remove_prefix(1);
  }
  // So many digits, at least and at most. Its count is left in `found`.
  std::int64_t digits(std::size_t least, std::size_t most, std::size_t* found = nullptr) {
    std::int64_t value = 0;
    std::size_t count = 0;
    for (; count < rest_.size() && count < most && rest_[count] >= '0' && rest_[count] <= '9'; ++count)
      value = 10 * value + (rest_[count] - '0');
    ok_ = ok_ && count >= least;
    if (ok_) rest_.remove_prefix(count);
    if (found != nullptr) *found = count;
    return value;
  }

 private:
  std::string_view rest_;
  bool ok_ = true;
};

// Days from 2000-01-01 to a day of the Gregorian calendar; years before 1 are 0, -1 ...
std::int64_t days_since_2000(std::int64_t year, std::int64_t month, std::int64_t day) {
  // Years are counted from March, so that the leap day is the last of its year, and by eras of 400 of them.
  constexpr std::int64_t days_per_era = 146'097;
  constexpr std::int64_t era_zero_to_2000 = 5 * days_per_era - 60;  // 0000-03-01 to 2000-01-01
  const std::int64_t shifted = year - (month <= 2 ? 1 : 0);
  const std::int64_t era = (shifted >= 0 ? shifted : shifted - 399) / 400;
  const std::int64_t year_of_era = shifted - era * 400;
  const std::int64_t day_of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
  const std::int64_t day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
  return era * days_per_era + day_of_era - era_zero_to_2000;
}

struct Day {
  std::int64_t year = 0;
  std::int64_t month = 0;
  std::int64_t day = 0;

  [[nodiscard]] bool sensible(std::int64_t year_max) const {
    return year >= 1 && year <= year_max && month >= 1 && month <= 12 && day >= 1 && day <= 31;
  }
  [[nodiscard]] std::int64_t number(bool before_christ) const {
    return days_since_2000(before_christ ? 1 - year : year, month, day);
  }
};

Day take_day(Scanner& in) {
  constexpr std::size_t year_digits_max = 7;
  Day day;
  day.year = in.digits(4, year_digits_max);
  in.expect('-');
  day.month = in.digits(2, 2);
  in.expect('-');
  day.day = in.digits(2, 2);
  return day;
}

// Which stands for the ends of the numbers.
template <typename Integer>
std::optional<Integer> infinity(std::string_view text) {
  if (text == "infinity") return std::numeric_limits<Integer>::max();
  if (text == "-infinity") return std::numeric_limits<Integer>::min();
  return std::nullopt;
}

bool append_date(std::string_view text, std::vector<std::byte>& out) {
  std::optional<std::int32_t> days = infinity<std::int32_t>(text);
  if (!days) {
    Scanner in{text};
    const Day day = take_day(in);
    const bool before_christ = in.accept(" BC");
    if (!in.at_end() || !day.sensible(date_year_max)) return false;
    days = static_cast<std::int32_t>(day.number(before_christ));
  }
  append_bits(static_cast<std::uint32_t>(*days), out);
  return true;
}

std::int64_t take_microseconds_of_day(Scanner& in) {
  constexpr std::array<std::int64_t, 7> scale{1'000'000, 100'000, 10'000, 1'000, 100, 10, 1};
  std::int64_t seconds = in.digits(2, 2) * 3'600;
  in.expect(':');
  seconds += in.digits(2, 2) * 60;
  in.expect(':');
  seconds += in.digits(2, 2);
  std::int64_t fraction = 0;
  if (in.accept(".")) {
    std::size_t count = 0;
    fraction = in.digits(1, 6, &count);
    fraction *= scale[std::min(count, scale.size() - 1)];
  }
  return seconds * microseconds_per_second + fraction;
}

bool append_timestamp(std::string_view text, std::string_view zone, std::vector<std::byte>& out) {
  std::optional<std::int64_t> microseconds = infinity<std::int64_t>(text);
  if (!microseconds) {
    Scanner in{text};
    const Day day = take_day(in);
    in.expect(' ');
    const std::int64_t of_day = take_microseconds_of_day(in);
    const bool in_zone = in.accept(zone);
    const bool before_christ = in.accept(" BC");
    if (!in.at_end() || !in_zone || !day.sensible(timestamp_year_max)) return false;
    microseconds = day.number(before_christ) * seconds_per_day * microseconds_per_second + of_day;
  }
  append_bits(static_cast<std::uint64_t>(*microseconds), out);
  return true;
}

std::optional<unsigned> hex_digit(char c) {
  if (c >= '0' && c <= '9') return static_cast<unsigned>(c - '0');
  if (c >= 'a' && c <= 'f') return static_cast<unsigned>(c - 'a' + 10);
  return std::nullopt;
}

bool append_uuid(std::string_view text, std::vector<std::byte>& out) {
  constexpr std::size_t text_length = 36;
  std::array<std::byte, 16> value{};
  if (text.size() != text_length) return false;
  std::size_t at = 0;
  for (std::size_t i = 0; i < text_length;) {
    if (i == 8 || i == 13 || i == 18 || i == 23) {
      if (text[i++] != '-') return false;
      continue;
    }
    const auto high = hex_digit(text[i]);
    const auto low = hex_digit(text[i + 1]);
    if (!high || !low) return false;
    value[at++] = static_cast<std::byte>(*high * 16 + *low);
    i += 2;
  }
  Writer writer{out};
  writer.u32(value.size());
  writer.bytes(value);
  return true;
}

// A value of two hexadecimal digits a byte.
bool append_bytea(std::string_view text, std::vector<std::byte>& out) {
  const std::size_t begin = out.size();
  if (!text.starts_with("\\x") || text.size() % 2 != 0) return false;
  text.remove_prefix(2);
  Writer writer{out};
  writer.u32(static_cast<std::uint32_t>(text.size() / 2));
  for (std::size_t i = 0; i < text.size(); i += 2) {
    const auto high = hex_digit(text[i]);
    const auto low = hex_digit(text[i + 1]);
    if (!high || !low) {
      out.resize(begin);
      return false;
    }
    writer.u8(static_cast<std::uint8_t>(*high * 16 + *low));
  }
  return true;
}

constexpr std::uint16_t numeric_positive = 0x0000;
constexpr std::uint16_t numeric_negative = 0x4000;
constexpr std::uint16_t numeric_nan = 0xC000;
constexpr std::uint16_t numeric_infinity = 0xD000;
constexpr std::uint16_t numeric_minus_infinity = 0xF000;
constexpr std::size_t digits_per_digit = 4;  // decimal ones in one to the base 10,000

struct NumericHead {
  std::size_t digits = 0;
  std::int64_t weight = 0;
  std::uint16_t sign = numeric_positive;
  std::size_t scale = 0;

  void append(Writer& out) const {
    constexpr std::size_t fields = 4;
    out.u32(static_cast<std::uint32_t>(2 * (fields + digits)));
    out.u16(static_cast<std::uint16_t>(digits));
    out.u16(static_cast<std::uint16_t>(static_cast<std::int16_t>(weight)));
    out.u16(sign);
    out.u16(static_cast<std::uint16_t>(scale));
  }
};

bool append_numeric(std::string_view text, std::vector<std::byte>& out) {
  constexpr std::size_t decimal_digits_max = 131'072;  // before the point, as the server has it
  constexpr std::size_t scale_max = 16'383;
  Writer writer{out};
  for (const auto& [word, sign] :
       {std::pair{"NaN", numeric_nan}, {"Infinity", numeric_infinity}, {"-Infinity", numeric_minus_infinity}}) {
    if (text != word) continue;
    NumericHead{.sign = sign}.append(writer);
    return true;
  }
  const bool negative = text.starts_with('-');
  if (negative) text.remove_prefix(1);
  const std::size_t point = std::min(text.find('.'), text.size());
  const std::string_view whole = text.substr(0, point);
  const std::string_view fraction = point < text.size() ? text.substr(point + 1) : std::string_view{};
  const auto all_digits = [](std::string_view part) {
    return std::ranges::all_of(part, [](char c) { return c >= '0' && c <= '9'; });
  };
  if (whole.empty() || !all_digits(whole) || !all_digits(fraction) || (point < text.size() && fraction.empty()) ||
      whole.size() > decimal_digits_max || fraction.size() > scale_max)
    return false;
  // Digits to the base 10,000, counted from the point: 0 is the one right before it, 1 the first behind it.
  const auto decimal = [&](std::int64_t at) -> int {  // of the text; 0 outside it
    const std::int64_t index = at + static_cast<std::int64_t>(whole.size());
    if (index < 0) return 0;
    if (at < 0) return whole[static_cast<std::size_t>(index)] - '0';
    return at < static_cast<std::int64_t>(fraction.size()) ? fraction[static_cast<std::size_t>(at)] - '0' : 0;
  };
  const auto digit = [&](std::int64_t place) {
    const std::int64_t first = (place - 1) * static_cast<std::int64_t>(digits_per_digit);
    int value = 0;
    for (std::int64_t i = 0; i < static_cast<std::int64_t>(digits_per_digit); ++i)
      value = value * 10 + decimal(first + i);
    return value;
  };
  std::int64_t first = 1 - static_cast<std::int64_t>((whole.size() + digits_per_digit - 1) / digits_per_digit);
  std::int64_t last = static_cast<std::int64_t>((fraction.size() + digits_per_digit - 1) / digits_per_digit);
  while (first <= last && digit(first) == 0) ++first;
  while (last >= first && digit(last) == 0) --last;
  if (first > last) {
    NumericHead{.scale = fraction.size()}.append(writer);
    return true;
  }
  NumericHead{.digits = static_cast<std::size_t>(last - first + 1),
              .weight = -first,
              .sign = negative ? numeric_negative : numeric_positive,
              .scale = fraction.size()}
      .append(writer);
  for (std::int64_t place = first; place <= last; ++place) writer.u16(static_cast<std::uint16_t>(digit(place)));
  return true;
}

bool append_time(std::string_view text, std::vector<std::byte>& out) {
  Scanner in{text};
  const std::int64_t microseconds = take_microseconds_of_day(in);
  if (!in.at_end() || microseconds > seconds_per_day * microseconds_per_second) return false;
  append_bits(static_cast<std::uint64_t>(microseconds), out);
  return true;
}

void append_jsonb(std::string_view text, std::vector<std::byte>& out) {
  Writer writer{out};
  writer.u32(static_cast<std::uint32_t>(text.size() + 1));
  writer.u8(1);  // the form's version
  writer.bytes(as_bytes(text));
}

bool append_bool(std::string_view text, std::vector<std::byte>& out) {
  if (text != "t" && text != "f") return false;
  Writer writer{out};
  writer.u32(1);
  writer.u8(text == "t" ? 1 : 0);
  return true;
}

void append_text(std::string_view text, std::vector<std::byte>& out) {
  Writer writer{out};
  writer.u32(static_cast<std::uint32_t>(text.size()));
  writer.bytes(as_bytes(text));
}

}  // namespace

BinaryType binary_type_of(std::uint32_t oid) {
  switch (const auto type = static_cast<BinaryType>(oid)) {
    case BinaryType::Bool:
    case BinaryType::Bytea:
    case BinaryType::Int8:
    case BinaryType::Int2:
    case BinaryType::Int4:
    case BinaryType::Text:
    case BinaryType::Float4:
    case BinaryType::Float8:
    case BinaryType::Date:
    case BinaryType::Time:
    case BinaryType::Timestamp:
    case BinaryType::TimestampTz:
    case BinaryType::Numeric:
    case BinaryType::Uuid:
    case BinaryType::Jsonb:
      return type;
  }
  return BinaryType::Text;
}

std::string_view name_of(BinaryType type) {
  switch (type) {
    case BinaryType::Bool:
      return "bool";
    case BinaryType::Bytea:
      return "bytea";
    case BinaryType::Int8:
      return "int8";
    case BinaryType::Int2:
      return "int2";
    case BinaryType::Int4:
      return "int4";
    case BinaryType::Text:
      break;
    case BinaryType::Float4:
      return "float4";
    case BinaryType::Float8:
      return "float8";
    case BinaryType::Date:
      return "date";
    case BinaryType::Time:
      return "time";
    case BinaryType::Timestamp:
      return "timestamp";
    case BinaryType::TimestampTz:
      return "timestamptz";
    case BinaryType::Numeric:
      return "numeric";
    case BinaryType::Uuid:
      return "uuid";
    case BinaryType::Jsonb:
      return "jsonb";
  }
  return "text";
}

bool append_value(BinaryType type, std::string_view text, std::vector<std::byte>& out) {
  switch (type) {
    case BinaryType::Bool:
      return append_bool(text, out);
    case BinaryType::Bytea:
      return append_bytea(text, out);
    case BinaryType::Int8:
      return append_integer<std::int64_t>(text, out);
    case BinaryType::Int2:
      return append_integer<std::int16_t>(text, out);
    case BinaryType::Int4:
      return append_integer<std::int32_t>(text, out);
    case BinaryType::Text:
      break;
    case BinaryType::Float4:
      return append_float<float, std::uint32_t>(text, out);
    case BinaryType::Float8:
      return append_float<double, std::uint64_t>(text, out);
    case BinaryType::Date:
      return append_date(text, out);
    case BinaryType::Time:
      return append_time(text, out);
    case BinaryType::Timestamp:
      return append_timestamp(text, "", out);
    case BinaryType::TimestampTz:
      return append_timestamp(text, "+00", out);
    case BinaryType::Numeric:
      return append_numeric(text, out);
    case BinaryType::Uuid:
      return append_uuid(text, out);
    case BinaryType::Jsonb:
      append_jsonb(text, out);
      return true;
  }
  append_text(text, out);
  return true;
}

void append_null(std::vector<std::byte>& out) {
  Writer{out}.u32(null_length);
}

}  // namespace walferry
