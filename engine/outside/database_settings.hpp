// What pg_dump leaves out because it belongs to the database as such: ALTER DATABASE ... SET, ALTER ROLE ... IN
// DATABASE ... SET, and the database's comment.
//
// Carried at the cutover, so that what was set during the migration counts too. Called by the cutover; check names
// them.
#pragma once

#include <string>
#include <vector>

#include "engine/pg/session.hpp"

namespace walferry::outside {

struct DatabaseSetting {
  std::string role;  // empty: of the database, for everybody
  std::string name;
  std::string value;

  auto operator<=>(const DatabaseSetting&) const = default;

  // "role app: work_mem", for people.
  [[nodiscard]] std::string text() const;
};

[[nodiscard]] std::vector<DatabaseSetting> read_database_settings(pg::Session& session);

// Whether sessions of everybody begin read-only there (ALTER DATABASE ... SET default_transaction_read_only), as in a
// database that a cutover has closed.
[[nodiscard]] bool begins_read_only(pg::Session& session);

// ALTER ... SET for this one in the database `database`.
[[nodiscard]] std::string set_statement(const DatabaseSetting& setting, std::string_view database);

// Sets on the target what the source has and the target has not or otherwise. Never fails for want of a right or a
// role: what could not be set is returned, a sentence each.
[[nodiscard]] std::vector<std::string> copy_database_settings(pg::Session& source, pg::Session& target);

}  // namespace walferry::outside
