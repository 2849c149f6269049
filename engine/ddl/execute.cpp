#include "engine/ddl/execute.hpp"

#include <fmt/format.h>

#include <functional>
#include <set>
#include <utility>
#include <vector>

namespace walferry::ddl {
namespace {

using ColumnNames = std::set<std::string, std::less<>>;

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

// Rows that were there before the columns hold what the source decided when it added them (DEFAULT now()), in all but
// the `known` ones.
void fill_added_columns(pg::Session& target, const AddedValues& added, const ColumnNames& known) {
  for (const auto& [column, value] : added.values) {
    if (known.contains(column)) continue;
    const std::string name = pg::quote_name(column);
    const std::string wanted = value ? pg::quote_literal(*value) : std::string{"NULL"};
    const pg::Result type = target.exec(
        fmt::format("SELECT pg_catalog.format_type(atttypid, atttypmod) FROM pg_catalog.pg_attribute WHERE attrelid = "
                    "pg_catalog.to_regclass({}) AND attname = {} AND NOT attisdropped AND attgenerated = ''",
                    pg::quote_literal(added.table.quoted()), pg::quote_literal(column)));
    if (type.rows() != 1) continue;  // a later command of the source's transaction removed it again
    target.exec(
        fmt::format("UPDATE ONLY {0} SET {1} = {2}::{3} WHERE {1}::pg_catalog.text IS DISTINCT FROM "
                    "{2}::{3}::pg_catalog.text",
                    added.table.quoted(), name, wanted, type.text(0, 0)));
  }
}

}  // namespace

void replace_own_defaults(pg::Session& target, const AddedValues& added) {
  const pg::Result own = target.exec(fmt::format(
      "SELECT attname, pg_catalog.format_type(atttypid, atttypmod), "
      "(attmissingval::pg_catalog.text::pg_catalog.text[])[1] FROM pg_catalog.pg_attribute WHERE attrelid = "
      "pg_catalog.to_regclass({}) AND attnum > 0 AND NOT attisdropped AND atthasmissing",
      pg::quote_literal(added.table.quoted())));
  for (int row = 0; row < own.rows(); ++row) {
    const auto of_source = added.values.find(own.str(row, 0));
    if (of_source == added.values.end() || !of_source->second || own.is_null(row, 2)) continue;
    if (*of_source->second == own.str(row, 2)) continue;
    target.exec(fmt::format("UPDATE ONLY {0} SET {1} = {2}::{4} WHERE {1}::pg_catalog.text = {3}::{4}::pg_catalog.text",
                            added.table.quoted(), pg::quote_name(own.text(row, 0)),
                            pg::quote_literal(*of_source->second), pg::quote_literal(own.text(row, 2)),
                            own.text(row, 1)));
  }
}

void execute(pg::Session& target, const Command& command, const ExecuteOptions& options) {
  std::vector<std::pair<const AddedValues*, ColumnNames>> before;
  for (const Object& object : command.objects) {
    // A table that was not there under this name is made or renamed just now: nothing is added to its rows.
    for (const AddedValues& added : object.added) {
      ColumnNames columns = columns_of(target, added.table);
      if (!columns.empty()) before.emplace_back(&added, std::move(columns));
    }
  }
  const std::string restore = take_settings(target, command);
  if (options.as_role) target.exec("SET LOCAL ROLE " + pg::quote_name(command.role));
  target.exec(*command.statement);
  if (options.as_role) target.exec("SET LOCAL ROLE NONE");
  if (!restore.empty()) target.exec(restore);
  for (const auto& [added, columns] : before) fill_added_columns(target, *added, columns);
}

}  // namespace walferry::ddl
