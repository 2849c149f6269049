#include "engine/schema_record.hpp"

#include <fmt/format.h>

namespace walferry::schema_record {
namespace {

constexpr std::string_view table = "walferry.schema_restored";

bool exists(pg::Session& target) {
  return target.exec(fmt::format("SELECT pg_catalog.to_regclass('{}') IS NOT NULL", table)).flag(0, 0);
}

}  // namespace

std::vector<std::string> statements(const std::string& migration) {
  return {"CREATE SCHEMA IF NOT EXISTS walferry",
          fmt::format("CREATE TABLE IF NOT EXISTS {} (migration pg_catalog.text PRIMARY KEY)", table),
          fmt::format("INSERT INTO {} VALUES ({})", table, pg::quote_literal(migration))};
}

bool stands(pg::Session& target, const std::string& migration) {
  return exists(target) && target
                               .exec(fmt::format("SELECT EXISTS (SELECT 1 FROM {} WHERE migration = {})", table,
                                                 pg::quote_literal(migration)))
                               .flag(0, 0);
}

void forget(pg::Session& target, const std::string& migration) {
  if (!exists(target)) return;
  target.exec(fmt::format("DELETE FROM {} WHERE migration = {}", table, pg::quote_literal(migration)));
  if (!target.exec(fmt::format("SELECT EXISTS (SELECT 1 FROM {})", table)).flag(0, 0))
    target.exec(fmt::format("DROP TABLE IF EXISTS {}", table));
}

}  // namespace walferry::schema_record
