#include "engine/outside/extension_tables.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "engine/schema/transaction.hpp"

namespace walferry::outside {
namespace {

// Equal when both hold the same multiset of rows; the tables are small.
std::string fingerprint(pg::Session& session, const ExtensionTable& table) {
  std::string columns;
  for (const std::string& column : table.columns) columns += (columns.empty() ? "t." : ", t.") + pg::quote_name(column);
  return session
      .exec(fmt::format("SELECT coalesce(pg_catalog.string_agg(h, '' ORDER BY h), '') FROM (SELECT pg_catalog.encode("
                        "pg_catalog.sha256(pg_catalog.convert_to(ROW({})::text, 'UTF8')), 'hex') AS h FROM {} AS t) s",
                        columns, table.rows()))
      .str(0, 0);
}

void copy_rows(pg::Session& source, pg::Session& target, const ExtensionTable& table) {
  std::string columns;
  for (const std::string& column : table.columns) columns += (columns.empty() ? "" : ", ") + pg::quote_name(column);
  schema::Transaction transaction{target};
  target.exec(fmt::format("DELETE FROM ONLY {} {}", table.name.quoted(), table.condition));
  target.start_copy_in(fmt::format("COPY {} ({}) FROM STDIN", table.name.quoted(), columns));
  source.start_copy_out(fmt::format("COPY (SELECT {} FROM {} AS t) TO STDOUT", columns, table.rows()));
  for (;;) {
    const std::string_view row = source.next_copy_row();
    if (row.data() == nullptr) break;
    target.put_copy_data(row);
  }
  target.finish_copy_in();
  transaction.commit();
}

void copy_position(pg::Session& source, pg::Session& target, const QualifiedName& name) {
  const pg::Result row = source.exec("SELECT last_value, is_called FROM " + name.quoted());
  target.exec(fmt::format("SELECT pg_catalog.setval({}, {}, {})", pg::quote_literal(name.quoted()), row.text(0, 0),
                          row.flag(0, 1) ? "true" : "false"));
}

// Members of an extension belong to whoever made it, on managed servers to somebody else.
bool may_write(pg::Session& target, const ExtensionTable& table) {
  const std::string name = pg::quote_literal(table.name.quoted());
  const std::string rights = table.sequence ? fmt::format("pg_catalog.has_sequence_privilege({}, 'UPDATE')", name)
                                            : fmt::format(
                                                  "pg_catalog.has_table_privilege({0}, 'SELECT') AND "
                                                  "pg_catalog.has_table_privilege({0}, 'INSERT') AND "
                                                  "pg_catalog.has_table_privilege({0}, 'DELETE')",
                                                  name);
  return target.exec("SELECT " + rights).flag(0, 0);
}

}  // namespace

std::string ExtensionTable::rows() const {
  return fmt::format("(SELECT * FROM ONLY {} {})", name.quoted(), condition);
}

std::vector<ExtensionTable> read_extension_tables(pg::Session& session) {
  const pg::Result rows = session.exec(R"(
SELECT x.extname, n.nspname, c.relname, c.relkind = 'S', coalesce(f.condition, ''), a.attname
FROM pg_catalog.pg_extension x
CROSS JOIN LATERAL ROWS FROM (pg_catalog.unnest(x.extconfig), pg_catalog.unnest(x.extcondition)) AS f(relation, condition)
JOIN pg_catalog.pg_class c ON c.oid = f.relation AND c.relkind IN ('r', 'S')
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_catalog.pg_attribute a
  ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '' AND c.relkind = 'r'
ORDER BY 2, 3, 6)");
  std::vector<ExtensionTable> tables;
  for (int row = 0; row < rows.rows(); ++row) {
    const QualifiedName name{rows.str(row, 1), rows.str(row, 2)};
    if (tables.empty() || tables.back().name != name) {
      tables.push_back({.extension = rows.str(row, 0),
                        .name = name,
                        .sequence = rows.flag(row, 3),
                        .condition = rows.str(row, 4),
                        .columns = {}});
    }
    if (!rows.is_null(row, 5)) tables.back().columns.push_back(rows.str(row, 5));
  }
  std::ranges::sort(tables, {}, &ExtensionTable::name);
  return tables;
}

std::vector<std::string> filled_extension_tables(pg::Session& session) {
  std::vector<std::string> filled;
  for (const ExtensionTable& table : read_extension_tables(session)) {
    if (table.sequence) continue;
    const std::string name = pg::quote_literal(table.name.quoted());
    if (!session.exec(fmt::format("SELECT pg_catalog.has_table_privilege({}, 'SELECT')", name)).flag(0, 0)) continue;
    if (session.exec(fmt::format("SELECT EXISTS (SELECT FROM {} AS t)", table.rows())).flag(0, 0))
      filled.push_back(table.name.text());
  }
  return filled;
}

CommonExtensionTables match_extension_tables(pg::Session& source, pg::Session& target) {
  CommonExtensionTables matched;
  const std::vector<ExtensionTable> there = read_extension_tables(target);
  for (ExtensionTable& table : read_extension_tables(source)) {
    const auto found = std::ranges::find(there, table.name, &ExtensionTable::name);
    const bool fits = found != there.end() && found->sequence == table.sequence &&
                      std::ranges::all_of(table.columns, [&](const std::string& column) {
                        return std::ranges::count(found->columns, column) > 0;
                      });
    const std::string title = fmt::format("{} of extension {}", table.name.text(), table.extension);
    if (!fits) {
      matched.left_out.push_back(title + ", which the target does not have");
    } else if (!may_write(target, table)) {
      matched.left_out.push_back(title + ", to which our role on the target may not write");
    } else {
      matched.common.push_back(std::move(table));
    }
  }
  return matched;
}

void copy_extension_tables(pg::Session& source, pg::Session& target, const std::vector<ExtensionTable>& tables) {
  for (const ExtensionTable& table : tables) {
    try {
      if (table.sequence) {
        copy_position(source, target, table.name);
      } else if (!table.columns.empty() && fingerprint(source, table) != fingerprint(target, table)) {
        copy_rows(source, target, table);
      }
    } catch (const Error& error) {
      throw error.during(
          fmt::format("copying configuration table {} of extension {}", table.name.text(), table.extension));
    }
  }
}

}  // namespace walferry::outside
