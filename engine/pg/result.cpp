#include "engine/pg/result.hpp"

#include <fmt/format.h>

#include <charconv>
#include <cstdlib>

namespace walferry::pg {
namespace {

template <typename Number>
Number parse(std::string_view text) {
  Number value{};
  const auto [end, failure] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (failure != std::errc{} || end != text.data() + text.size()) {
    throw Error{{ErrorKind::Protocol}, fmt::format("the server returned \"{}\" where a number was expected", text)};
  }
  return value;
}

std::string field(const PGresult* result, int code) {
  const char* text = PQresultErrorField(result, code);
  return text == nullptr ? std::string{} : std::string{text};
}

}  // namespace

std::int64_t Result::i64(int row, int column) const {
  return parse<std::int64_t>(text(row, column));
}
std::uint32_t Result::u32(int row, int column) const {
  return parse<std::uint32_t>(text(row, column));
}
double Result::number(int row, int column) const {
  return parse<double>(text(row, column));
}

Lsn Result::lsn(int row, int column) const {
  const auto lsn = Lsn::parse(text(row, column));
  if (!lsn) {
    throw Error{{ErrorKind::Protocol},
                fmt::format("the server returned \"{}\" where an LSN was expected", text(row, column))};
  }
  return *lsn;
}

std::optional<std::string> Result::maybe(int row, int column) const {
  if (is_null(row, column)) return std::nullopt;
  return str(row, column);
}

std::int64_t Result::affected() const {
  const char* text = result_ ? PQcmdTuples(result_.get()) : "";
  return *text == '\0' ? 0 : std::strtoll(text, nullptr, 10);
}

Error error_of(const PGresult* result, Side side) {
  const std::string sqlstate = field(result, PG_DIAG_SQLSTATE);
  std::string message = field(result, PG_DIAG_MESSAGE_PRIMARY);
  if (message.empty()) {
    message = PQresultErrorMessage(result);
    while (!message.empty() && message.back() == '\n') message.pop_back();
    if (message.empty()) message = "the connection was lost";
  }
  return make_error(side, sqlstate, std::move(message), field(result, PG_DIAG_MESSAGE_DETAIL),
                    field(result, PG_DIAG_MESSAGE_HINT));
}

Error make_error(Side side, const std::string& sqlstate, std::string message, const std::string& detail,
                 const std::string& hint) {
  if (!sqlstate.empty()) message += fmt::format(" (SQLSTATE {})", sqlstate);
  if (!detail.empty()) message += "; " + detail;
  if (!hint.empty()) message += "; hint: " + hint;
  return Error{{sqlstate.empty() ? ErrorKind::Connection : ErrorKind::Sql, side, sqlstate},
               fmt::format("{}: {}", to_string(side), message)};
}

std::string quote_name(std::string_view name) {
  std::string out = "\"";
  for (const char c : name) {
    if (c == '"') out += '"';
    out += c;
  }
  out += '"';
  return out;
}

std::string quote_name(std::string_view schema, std::string_view name) {
  return quote_name(schema) + "." + quote_name(name);
}

std::string quote_literal(std::string_view text) {
  const bool escapes = text.find('\\') != std::string_view::npos;
  std::string out = escapes ? " E'" : "'";
  for (const char c : text) {
    if (c == '\'' || c == '\\') out += c;
    out += c;
  }
  out += '\'';
  return out;
}

std::string array_literal(const std::vector<std::string>& values) {
  std::string text = "{";
  for (const std::string& value : values) {
    if (text.size() > 1) text += ',';
    text += '"';
    for (const char c : value) {
      if (c == '"' || c == '\\') text += '\\';
      text += c;
    }
    text += '"';
  }
  return text + '}';
}

}  // namespace walferry::pg
