#include "engine/ddl/execute.hpp"

#include <fmt/format.h>

#include <map>
#include <set>

namespace walferry::ddl {
namespace {

using ColumnNames = std::set<std::string>;

ColumnNames columns_of(pg::Session& target, const QualifiedName& table) {
  const pg::Result rows = target.exec(fmt::format(
      "SELECT attname FROM pg_catalog.pg_attribute WHERE attrelid = pg_catalog.to_regclass({}) AND attnum > 0 AND NOT "
      "attisdropped",
      pg::quote_literal(table.quoted())));
  ColumnNames names;
  for (int row = 0; row < rows.rows(); ++row) names.insert(rows.str(row, 0));
  return names;
}

// The settings of the command, for the transaction; returns the statement that puts back what was there.
std::string take_settings(pg::Session& target, const Command& command) {
  std::string set;
  std::string restore;
  for (const auto& [name, value] : command.settings) {
    const std::string before =
        target.exec(fmt::format("SELECT pg_catalog.current_setting({})", pg::quote_literal(name))).str(0, 0);
    const auto assign = [&name = name](const std::string& to) {
      return fmt::format("SELECT pg_catalog.set_config({}, {}, true); ", pg::quote_literal(name),
                         pg::quote_literal(to));
    };
    set += assign(value);
    restore += assign(before);
  }
  if (!set.empty()) target.exec(set);
  return restore;
}

// Rows that were there before the column hold what the source decided when it was added (DEFAULT now()).
void fill_added_columns(pg::Session& target, const Object& object, const ColumnNames& before) {
  for (const auto& [column, value] : object.missing) {
    if (before.contains(column)) continue;
    const std::string name = pg::quote_name(column);
    const std::string wanted = value ? pg::quote_literal(*value) : std::string{"NULL"};
    const pg::Result type = target.exec(
        fmt::format("SELECT pg_catalog.format_type(atttypid, atttypmod) FROM pg_catalog.pg_attribute WHERE attrelid = "
                    "pg_catalog.to_regclass({}) AND attname = {} AND NOT attisdropped",
                    pg::quote_literal(object.table->quoted()), pg::quote_literal(column)));
    if (type.rows() != 1) continue;  // a later command of the source's transaction removed it again
    target.exec(
        fmt::format("UPDATE ONLY {0} SET {1} = {2}::{3} WHERE {1}::pg_catalog.text IS DISTINCT FROM "
                    "{2}::{3}::pg_catalog.text",
                    object.table->quoted(), name, wanted, type.text(0, 0)));
  }
}

}  // namespace

void execute(pg::Session& target, const Command& command, const ExecuteOptions& options) {
  std::map<QualifiedName, ColumnNames> before;
  for (const Object& object : command.objects) {
    if (object.table) before.emplace(*object.table, columns_of(target, *object.table));
  }
  const std::string restore = take_settings(target, command);
  if (options.as_role) target.exec("SET LOCAL ROLE " + pg::quote_name(command.role));
  target.exec(*command.statement);
  if (options.as_role) target.exec("SET LOCAL ROLE NONE");
  if (!restore.empty()) target.exec(restore);
  for (const Object& object : command.objects) {
    const auto columns = object.table ? before.find(*object.table) : before.end();
    // A table that was not there under this name was made or renamed just now: nothing was added to its rows.
    if (columns != before.end() && !columns->second.empty()) fill_added_columns(target, object, columns->second);
  }
}

}  // namespace walferry::ddl
