#include "engine/outside/database_settings.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>

namespace walferry::outside {
namespace {

// Lists of names, stored with each name quoted as needed: they are written back as they are.
bool is_list_of_names(std::string_view name) {
  static constexpr std::array<std::string_view, 4> lists{"local_preload_libraries", "search_path",
                                                         "session_preload_libraries", "temp_tablespaces"};
  return std::ranges::find(lists, name) != lists.end();
}

std::string current_database(pg::Session& session) {
  return session.exec("SELECT pg_catalog.current_database()").str(0, 0);
}

std::optional<std::string> comment_of(pg::Session& session) {
  return session
      .exec(
          "SELECT pg_catalog.shobj_description(oid, 'pg_database') FROM pg_catalog.pg_database WHERE datname = "
          "pg_catalog.current_database()")
      .maybe(0, 0);
}

// What was not done and why; nothing when it was done.
void try_to(pg::Session& target, const std::string& sql, const std::string& what, std::vector<std::string>& failures) {
  try {
    target.exec(sql);
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::Sql) throw;
    failures.push_back(fmt::format("{} was not carried over: {}", what, error.what()));
  }
}

}  // namespace

std::string DatabaseSetting::text() const {
  return role.empty() ? name : fmt::format("role {}: {}", role, name);
}

std::vector<DatabaseSetting> read_database_settings(pg::Session& session) {
  const pg::Result rows = session.exec(
      "SELECT coalesce(r.rolname, ''), pg_catalog.split_part(k, '=', 1), pg_catalog.substr(k, pg_catalog.strpos(k, "
      "'=') "
      "+ 1) FROM pg_catalog.pg_db_role_setting s CROSS JOIN LATERAL pg_catalog.unnest(s.setconfig) AS k "
      "LEFT JOIN pg_catalog.pg_roles r ON r.oid = s.setrole WHERE s.setdatabase = (SELECT oid FROM "
      "pg_catalog.pg_database WHERE datname = pg_catalog.current_database()) ORDER BY 1, 2");
  std::vector<DatabaseSetting> settings;
  for (int row = 0; row < rows.rows(); ++row)
    settings.push_back({rows.str(row, 0), rows.str(row, 1), rows.str(row, 2)});
  return settings;
}

bool begins_read_only(pg::Session& session) {
  const std::vector<DatabaseSetting> settings = read_database_settings(session);
  return std::ranges::any_of(settings, [&](const DatabaseSetting& setting) {
    return setting.role.empty() && setting.name == "default_transaction_read_only" &&
           session.exec(fmt::format("SELECT {}::pg_catalog.bool", pg::quote_literal(setting.value))).flag(0, 0);
  });
}

std::string set_statement(const DatabaseSetting& setting, std::string_view database) {
  const std::string subject = setting.role.empty() ? fmt::format("DATABASE {}", pg::quote_name(database))
                                                   : fmt::format("ROLE {} IN DATABASE {}", pg::quote_name(setting.role),
                                                                 pg::quote_name(database));
  const bool as_it_is = is_list_of_names(setting.name) && !setting.value.empty();
  // A setting of an extension has a dot in its name, which separates two names.
  const std::size_t dot = setting.name.find('.');
  const std::string name = dot == std::string::npos
                               ? pg::quote_name(setting.name)
                               : pg::quote_name(setting.name.substr(0, dot), setting.name.substr(dot + 1));
  return fmt::format("ALTER {} SET {} TO {}", subject, name,
                     as_it_is ? setting.value : pg::quote_literal(setting.value));
}

std::vector<std::string> copy_database_settings(pg::Session& source, pg::Session& target) {
  std::vector<std::string> failures;
  const std::string database = current_database(target);
  const std::vector<DatabaseSetting> there = read_database_settings(target);
  for (const DatabaseSetting& setting : read_database_settings(source)) {
    if (std::ranges::count(there, setting) > 0) continue;
    if (setting.name == "default_transaction_read_only") {
      // It keeps writers off the source; on the target it would keep them off the database that is to serve.
      failures.push_back(fmt::format("setting {} was left out on purpose", setting.text()));
      continue;
    }
    try_to(target, set_statement(setting, database), "setting " + setting.text(), failures);
  }
  const std::optional<std::string> comment = comment_of(source);
  if (comment && comment != comment_of(target)) {
    try_to(target, fmt::format("COMMENT ON DATABASE {} IS {}", pg::quote_name(database), pg::quote_literal(*comment)),
           "the comment on the database", failures);
  }
  return failures;
}

}  // namespace walferry::outside
