#include "engine/schema/item_settings.hpp"

#include <fmt/format.h>

#include "engine/schema/sql_script.hpp"

namespace walferry::schema {

void hold_settings(pg::Session& target, const std::vector<std::string>& settings) {
  for (const std::string& setting : settings) {
    const std::vector<Token> tokens = first_statement(setting);
    if (tokens.size() == 3 && tokens[0].is("default_tablespace") && tokens[2].is_name()) {
      target.exec(fmt::format(
          "SELECT pg_catalog.set_config('default_tablespace', coalesce((SELECT spcname::pg_catalog.text FROM "
          "pg_catalog.pg_tablespace WHERE spcname = {} AND pg_catalog.has_tablespace_privilege(oid, "
          "'CREATE')), ''), true)",
          pg::quote_literal(tokens[2].text)));
    } else {
      target.exec("SET LOCAL " + setting);
    }
  }
}

}  // namespace walferry::schema
