#include "engine/pg/conninfo.hpp"

#include <fmt/format.h>
#include <libpq-fe.h>

#include <array>
#include <cstdlib>
#include <memory>

namespace walferry::pg {
namespace {

struct FreeConninfo {
  void operator()(PQconninfoOption* options) const { PQconninfoFree(options); }
};
struct FreePq {
  void operator()(char* text) const { PQfreemem(text); }
};

bool is_secret(std::string_view keyword) {
  return keyword == "password" || keyword == "sslpassword";
}

std::string quoted_value(std::string_view value) {
  std::string out = "'";
  for (const char c : value) {
    if (c == '\'' || c == '\\') out += '\\';
    out += c;
  }
  out += '\'';
  return out;
}

// libpq's reason without what it quotes of the connection string, which may be a password or all of it; a quoted
// keyword
// ("no_such_option") is told by its words before: invalid connection option.
std::string without_given_text(std::string_view reason) {
  constexpr std::string_view names_an_option = "invalid connection option";
  constexpr std::string_view names_a_parameter = "invalid URI query parameter";
  if (reason.ends_with('\n')) reason.remove_suffix(1);
  if (reason.starts_with(names_an_option) || reason.starts_with(names_a_parameter)) return std::string{reason};
  const std::size_t begin = reason.find('"');
  const std::size_t end = reason.rfind('"');
  if (begin == end) return std::string{reason};
  return fmt::format("{}\"...\"{}", reason.substr(0, begin), reason.substr(end + 1));
}

}  // namespace

void forget_ambient_connection_settings() {
  static constexpr std::array ambient{
      "PGHOST",    "PGHOSTADDR",           "PGPORT",    "PGDATABASE",       "PGUSER",      "PGPASSWORD", "PGSERVICE",
      "PGOPTIONS", "PGTARGETSESSIONATTRS", "PGAPPNAME", "PGCLIENTENCODING", "PGDATESTYLE", "PGTZ",       "PGGEQO"};
  for (const char* name : ambient) unsetenv(name);
}

ConnInfo ConnInfo::parse(std::string_view text, Side side) {
  const std::string owned{text};
  char* reason_raw = nullptr;
  const std::unique_ptr<PQconninfoOption, FreeConninfo> options{PQconninfoParse(owned.c_str(), &reason_raw)};
  const std::unique_ptr<char, FreePq> reason{reason_raw};
  if (!options) {
    const std::string why = reason ? without_given_text(reason.get()) : "out of memory";
    throw Error{{ErrorKind::Usage, side},
                fmt::format("--{}: this is no connection string: {}. Give a URI (postgresql://user@host:port/dbname), "
                            "\"host=... dbname=...\" or \"service=name\"",
                            to_string(side), why)};
  }
  ConnInfo info;
  info.side_ = side;
  for (const PQconninfoOption* option = options.get(); option->keyword != nullptr; ++option) {
    if (option->val != nullptr && *option->val != '\0') info.parameters_.emplace_back(option->keyword, option->val);
  }
  if (!info.get("service") && (!(info.get("host") || info.get("hostaddr")) || !info.get("dbname"))) {
    throw Error{
        {ErrorKind::Usage, side},
        fmt::format("--{}: the connection string names no {}. Both must be explicit (or service=name): walferry "
                    "never lets PGHOST or PGDATABASE choose a side",
                    to_string(side), info.get("dbname") ? "host" : "database")};
  }
  return info;
}

std::optional<std::string> ConnInfo::get(std::string_view keyword) const {
  for (const auto& [key, value] : parameters_) {
    if (key == keyword) return value;
  }
  return std::nullopt;
}

ConnInfo ConnInfo::with(std::string_view keyword, std::string_view value) const {
  ConnInfo changed = *this;
  for (auto& [key, current] : changed.parameters_) {
    if (key == keyword) {
      current = value;
      return changed;
    }
  }
  changed.parameters_.emplace_back(keyword, value);
  return changed;
}

ConnInfo ConnInfo::of(Side side) const {
  ConnInfo changed = *this;
  changed.side_ = side;
  return changed;
}

ConnInfo ConnInfo::until(std::stop_token stop) const {
  ConnInfo changed = *this;
  changed.stop_ = std::move(stop);
  return changed;
}

std::string ConnInfo::redacted() const {
  std::string host = get("host").value_or(get("hostaddr").value_or(""));
  if (host.empty()) host = "service=" + get("service").value_or("?");
  std::string out;
  if (const auto user = get("user")) out += *user + "@";
  out += host;
  if (const auto port = get("port")) out += ":" + *port;
  if (const auto dbname = get("dbname")) out += "/" + *dbname;
  return out;
}

std::string ConnInfo::without_secrets() const {
  std::string out;
  for (const auto& [key, value] : parameters_) {
    if (is_secret(key)) continue;
    if (!out.empty()) out += ' ';
    out += key + "=" + quoted_value(value);
  }
  return out;
}

}  // namespace walferry::pg
