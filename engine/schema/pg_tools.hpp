// Which pg_dump and pg_restore serve a migration, and how they are told where to connect.
//
// pg_dump refuses a server newer than itself, so its major must be at least the source's; the target's own major is
// preferred, because its output is what that server expects, then the smallest that serves. Both programs come from one
// folder. The conninfo in argv carries no secret; the password is in the child's environment (G7). Called by check and
// archive.
#pragma once

#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/pg/conninfo.hpp"
#include "engine/schema/child_process.hpp"

namespace walferry::schema {

struct PgTools {
  std::filesystem::path dump;
  std::filesystem::path restore;
  int major = 0;
};

// Every pair of pg_dump and pg_restore that answers --version: of `bin_dir` alone when it is given, else of the folders
// in WALFERRY_PG_BINDIRS, of /usr/lib/postgresql/*/bin and of PATH. One a major, the first found; ascending.
[[nodiscard]] std::vector<PgTools> list_pg_tools(const std::optional<std::filesystem::path>& bin_dir);

struct Majors {
  int source = 0;
  int target = 0;
};

// The pair that serves, by the rule above.
[[nodiscard]] std::optional<PgTools> choose_pg_tools(std::span<const PgTools> found, const Majors& majors);
[[nodiscard]] std::optional<PgTools> find_pg_tools(const std::optional<std::filesystem::path>& bin_dir,
                                                   const Majors& majors);

// "pg_dump 15 (/usr/lib/postgresql/15/bin), ...", or "none", for messages.
[[nodiscard]] std::string describe_pg_tools(std::span<const PgTools> found);

// 15 of "pg_dump (PostgreSQL) 15.20 (Debian 15.20-0+deb12u1)"; 18 of "... 18beta1".
[[nodiscard]] std::optional<int> parse_tool_major(std::string_view version_line);

// 14 of PQserverVersion's 140023.
[[nodiscard]] constexpr int major_of(int server_version) {
  return server_version / 10000;
}

// A command of `program` that connects to `server`: --dbname without secrets, password and settings beside it. Throws
// Error{Usage} where a secret cannot be handed over.
[[nodiscard]] ChildCommand connecting_command(const std::filesystem::path& program, const pg::ConnInfo& server);

}  // namespace walferry::schema
