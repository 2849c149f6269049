// How one server is reached: a URI, a keyword/value string or "service=name", parsed by libpq.
//
// Keeps the parameters that the user gave and nothing else; adds only walferry's own at connect time. Never prints or
// stores a password. The PGHOST family of the environment fills neither side (G4): forget_ambient_connection_settings()
// removes it from the process before the first connection. Called by cli/ and by every opener of a session.
#pragma once

#include <optional>
#include <stop_token>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/error.hpp"

namespace walferry::pg {

// Removes PGHOST, PGPORT, PGDATABASE, PGUSER, PGPASSWORD, PGSERVICE, PGOPTIONS and their like from the environment;
// PGPASSFILE, PGSERVICEFILE, PGSSL* and PGCONNECT_TIMEOUT stay, since they do not say which server is meant.
void forget_ambient_connection_settings();

class ConnInfo {
 public:
  // Throws Error{Usage} with libpq's reason, or when neither a service nor a host and database are named.
  [[nodiscard]] static ConnInfo parse(std::string_view text, Side side);

  [[nodiscard]] Side side() const { return side_; }
  [[nodiscard]] std::optional<std::string> get(std::string_view keyword) const;
  // The same server with one parameter changed or added.
  [[nodiscard]] ConnInfo with(std::string_view keyword, std::string_view value) const;
  // The same server at the other end of a migration.
  [[nodiscard]] ConnInfo of(Side side) const;
  // The same server, until then: every session opened with it ends, also in the middle of a wait, and none is opened
  // any more. An empty token: for ever.
  [[nodiscard]] ConnInfo until(std::stop_token stop) const;
  [[nodiscard]] const std::stop_token& stop() const { return stop_; }

  // "user@host:port/dbname", for people.
  [[nodiscard]] std::string redacted() const;
  // A keyword/value string of everything but secrets, fit to be kept and parsed again.
  [[nodiscard]] std::string without_secrets() const;
  // The same with dbname etc. for a child process; the password travels in its environment.
  [[nodiscard]] const std::vector<std::pair<std::string, std::string>>& parameters() const { return parameters_; }

 private:
  Side side_ = Side::None;
  std::vector<std::pair<std::string, std::string>> parameters_;
  std::stop_token stop_;
};

}  // namespace walferry::pg
