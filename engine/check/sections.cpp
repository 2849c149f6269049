#include "engine/check/sections.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>

namespace walferry::check {

void Findings::ask(const std::string& id, const std::function<void()>& question) {
  try {
    question();
  } catch (const Error& error) {
    if (error.kind() == ErrorKind::Connection || error.kind() == ErrorKind::Stopped) throw;
    warn(id, {.title = "this could not be examined",
              .detail = error.what(),
              .remedy = "let the role read the catalogs and statistics: GRANT pg_monitor TO <role>"});
  }
}

std::string End::setting(const std::string& name) {
  return session.exec("SELECT coalesce(pg_catalog.current_setting(" + pg::quote_literal(name) + ", true), '')")
      .str(0, 0);
}

std::int64_t End::number(const std::string& sql) {
  return session.exec(sql).i64(0, 0);
}

std::vector<std::string> End::texts(const std::string& sql) {
  const pg::Result rows = session.exec(sql);
  std::vector<std::string> texts;
  for (int row = 0; row < rows.rows(); ++row) texts.push_back(rows.str(row, 0));
  return texts;
}

End open_end(const pg::ConnInfo& info) {
  pg::SessionOptions options;
  options.application_name = "walferry check";
  options.read_only = true;
  options.settings = {"jit=off"};
  End end{.session = pg::Session::open(info, options), .identity = {}, .catalog = {}, .role = {}};
  end.identity = read_identity(end.session);
  end.catalog = read_catalog(end.session);
  const pg::Result role =
      end.session.exec("SELECT rolname, rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user");
  end.role = role.str(0, 0);
  end.superuser = role.flag(0, 1);
  return end;
}

void check_direct_connection(End& end, Findings& findings) {
  const std::string id = fmt::format("{}.pooler", to_string(end.session.side()));
  findings.ask(id, [&] {
    // A pooler makes up the process id that it tells the client, and may change servers between two transactions.
    const std::int64_t announced = end.session.backend_pid();
    const std::int64_t first = end.number("SELECT pg_catalog.pg_backend_pid()");
    const std::int64_t second = end.number("SELECT pg_catalog.pg_backend_pid()");
    if (announced == first && first == second) {
      findings.pass(id, "the connection is direct, not through a pooler");
      return;
    }
    findings.fail(
        id, {.title = "the connection goes through a connection pooler",
             .detail = "the server process is not the one that was announced when connecting. Replication, exported "
                       "snapshots, session settings and prepared statements do not survive a pooler",
             .remedy = "connect to PostgreSQL's own host and port (5432, not 6432)"});
  });
}

void check_free_connections(End& end, std::int64_t needed, Findings& findings) {
  const std::string id = fmt::format("{}.connections", to_string(end.session.side()));
  findings.ask(id, [&] {
    const std::int64_t maximum = std::stoll(end.setting("max_connections"));
    const std::int64_t reserved = end.superuser ? 0 : std::stoll(end.setting("superuser_reserved_connections"));
    // pg_stat_activity shows each session to everybody, though not what it does.
    const std::int64_t used = end.number(
        "SELECT count(*) FROM pg_catalog.pg_stat_activity WHERE backend_type IN ('client backend', 'parallel worker') "
        "AND pid <> pg_catalog.pg_backend_pid()");
    const std::int64_t free = maximum - reserved - used;
    if (free >= needed) {
      findings.pass(id, fmt::format("{} of {} connections are free, {} are needed", free, maximum, needed));
      return;
    }
    findings.warn(
        id, {.title = fmt::format("only {} of {} connections are free, {} are needed", free, maximum, needed),
             .detail = "each copy worker has one connection on each side, besides stream, snapshot and control",
             .remedy = fmt::format("use fewer --jobs, close idle sessions, or ALTER SYSTEM SET max_connections = {}; "
                                   "and restart the server",
                                   maximum + needed)});
  });
}

std::string counted(std::size_t number, std::string_view one, std::string_view many) {
  return fmt::format("{} {}", number, number == 1 ? one : many);
}

std::string bytes_text(std::int64_t bytes) {
  static constexpr std::array units{"bytes", "kB", "MB", "GB", "TB"};
  double value = static_cast<double>(bytes);
  std::size_t unit = 0;
  while (value >= 1024 && unit + 1 < units.size()) {
    value /= 1024;
    ++unit;
  }
  return unit == 0 ? fmt::format("{} bytes", bytes) : fmt::format("{:.1f} {}", value, units[unit]);
}

}  // namespace walferry::check
