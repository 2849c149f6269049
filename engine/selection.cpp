#include "engine/selection.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>

namespace walferry {
namespace {

struct RuleKind {
  std::string_view words;
  std::vector<std::string> SelectionRules::*patterns;
};

constexpr std::array<RuleKind, 4> rule_kinds{{{"include table ", &SelectionRules::include_tables},
                                              {"exclude table ", &SelectionRules::exclude_tables},
                                              {"include schema ", &SelectionRules::include_schemas},
                                              {"exclude schema ", &SelectionRules::exclude_schemas}}};

// The parts of a pattern, between its dots outside quotes, each as a regular expression.
std::vector<std::string> regular_expressions(std::string_view pattern) {
  std::vector<std::string> parts{""};
  bool quoted = false;
  for (std::size_t i = 0; i < pattern.size(); ++i) {
    const char c = pattern[i];
    std::string& part = parts.back();
    if (c == '"') {
      if (quoted && i + 1 < pattern.size() && pattern[i + 1] == '"') {
        part += c;
        ++i;
      } else {
        quoted = !quoted;
      }
    } else if (quoted) {
      if (std::string_view{"|*+?()[]{}.^$\\"}.find(c) != std::string_view::npos) part += '\\';
      part += c;
    } else if (c == '.') {
      parts.emplace_back();
    } else if (c == '*') {
      part += ".*";
    } else if (c == '?') {
      part += '.';
    } else if (c == '$') {
      part += "\\$";
    } else {
      part += c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
    }
  }
  for (std::string& part : parts) part = "^(" + part + ")$";
  return parts;
}

std::string matches(std::string_view column, const std::string& expression) {
  return fmt::format("{}::pg_catalog.text OPERATOR(pg_catalog.~) {} COLLATE pg_catalog.\"default\"", column,
                     pg::quote_literal(expression));
}

std::set<Oid> tables_where(pg::Session& source, const std::string& condition, const std::string& pattern) {
  const pg::Result rows = source.exec(fmt::format(
      "WITH RECURSIVE named AS (SELECT c.oid FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = "
      "c.relnamespace WHERE c.relkind IN ('r', 'p') AND {} AND {} UNION SELECT h.inhrelid FROM named JOIN "
      "pg_catalog.pg_inherits h ON h.inhparent = named.oid JOIN pg_catalog.pg_class k ON k.oid = h.inhrelid AND "
      "k.relispartition AND k.relkind IN ('r', 'p')) SELECT oid FROM named",
      user_schema_condition("n"), condition));
  if (rows.rows() == 0) {
    throw Error{{ErrorKind::Refused, Side::Source},
                fmt::format("no table of the source matches the pattern {}. Nothing was changed. Remedy: correct it; "
                            "names with upper case or dots need double quotes inside the pattern",
                            pattern)};
  }
  std::set<Oid> found;
  for (int row = 0; row < rows.rows(); ++row) found.insert(Oid{rows.u32(row, 0)});
  return found;
}

std::set<Oid> tables_matching(pg::Session& source, const std::vector<std::string>& patterns) {
  std::set<Oid> found;
  for (const std::string& pattern : patterns) {
    const NamePattern parsed = parse_table_pattern(pattern);
    std::string condition = matches("c.relname", parsed.name);
    if (!parsed.schema.empty()) condition += " AND " + matches("n.nspname", parsed.schema);
    found.merge(tables_where(source, condition, pattern));
  }
  return found;
}

std::set<Oid> tables_in_schemas(pg::Session& source, const std::vector<std::string>& patterns) {
  std::set<Oid> found;
  for (const std::string& pattern : patterns) {
    const std::vector<std::string> parts = regular_expressions(pattern);
    if (parts.size() != 1) {
      throw Error{{ErrorKind::Usage}, fmt::format("pattern {}: a schema's name has no dot outside quotes", pattern)};
    }
    found.merge(tables_where(source, matches("n.nspname", parts.front()), pattern));
  }
  return found;
}

std::set<Oid> selected_tables(const Catalog& catalog, pg::Session& source, const SelectionRules& rules) {
  std::set<Oid> selected;
  if (!rules.include_tables.empty()) {
    selected = tables_matching(source, rules.include_tables);
  } else if (!rules.include_schemas.empty()) {
    selected = tables_in_schemas(source, rules.include_schemas);
  } else {
    for (const Table& table : catalog.tables) selected.insert(table.oid);
  }
  for (const Oid table : tables_in_schemas(source, rules.exclude_schemas)) selected.erase(table);
  for (const Oid table : tables_matching(source, rules.exclude_tables)) selected.erase(table);
  return selected;
}

// The two halves of the catalog as SQL arrays of oids.
struct Halves {
  std::string selected;
  std::string left_out;
};

Halves split(pg::Session& source, const SelectionRules& rules) {
  const Catalog catalog = read_catalog(source);
  const std::set<Oid> chosen = selected_tables(catalog, source, rules);
  std::string selected;
  std::string left_out;
  for (const Table& table : catalog.tables) {
    std::string& list = chosen.contains(table.oid) ? selected : left_out;
    list += fmt::format("{}{}", list.empty() ? "" : ",", static_cast<std::uint32_t>(table.oid));
  }
  return {fmt::format("'{{{}}}'::pg_catalog.oid[]", selected), fmt::format("'{{{}}}'::pg_catalog.oid[]", left_out)};
}

// Joins what a default draws from: expression f, its sequence d.
constexpr std::string_view sequences_of_defaults =
    "pg_catalog.pg_attrdef f JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass "
    "AND d.objid = f.oid AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.deptype = 'n'";

// Sequences that a default of a selected table draws from, whatever table they belong to.
std::string sequences_in_use(const Halves& halves) {
  return fmt::format(
      "SELECT d.refobjid FROM {} JOIN pg_catalog.pg_class s ON s.oid = d.refobjid AND s.relkind = 'S' WHERE f.adrelid "
      "= ANY ({})",
      sequences_of_defaults, halves.selected);
}

// Names of sequences of tables that are left out.
std::string sequences_of_others(const Halves& halves) {
  return fmt::format(
      "SELECT n.nspname, s.relname FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_class s ON s.oid = d.objid AND "
      "s.relkind = 'S' JOIN pg_catalog.pg_namespace n ON n.oid = s.relnamespace WHERE d.classid = "
      "'pg_catalog.pg_class'::pg_catalog.regclass AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND "
      "d.deptype IN ('a', 'i') AND d.refobjsubid > 0 AND d.refobjid <> ALL ({0}) AND NOT EXISTS (SELECT 1 FROM "
      "pg_catalog.pg_partition_tree(d.refobjid) p WHERE p.relid = ANY ({0})) AND d.objid NOT IN ({1})",
      halves.selected, sequences_in_use(halves));
}

// "out": what depends on a table that is left out, by way of anything but the tables that are selected and the
// sequences that they use. A view hangs on its rule the other way round.
std::string dependents(const Halves& halves) {
  return fmt::format(
      "WITH RECURSIVE out(classid, objid) AS (SELECT 'pg_catalog.pg_class'::pg_catalog.regclass::pg_catalog.oid, t "
      "FROM "
      "pg_catalog.unnest({}) AS t UNION SELECT x.classid, x.objid FROM out o CROSS JOIN LATERAL (SELECT d.classid, "
      "d.objid FROM pg_catalog.pg_depend d WHERE d.refclassid = o.classid AND d.refobjid = o.objid AND d.deptype IN "
      "('n', 'a', 'i') UNION ALL SELECT 'pg_catalog.pg_class'::pg_catalog.regclass::pg_catalog.oid, r.ev_class FROM "
      "pg_catalog.pg_rewrite r JOIN pg_catalog.pg_class v ON v.oid = r.ev_class AND v.relkind IN ('v', 'm') WHERE "
      "o.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass AND r.oid = o.objid) x WHERE NOT (x.classid = "
      "'pg_catalog.pg_class'::pg_catalog.regclass AND (x.objid = ANY ({}) OR x.objid IN ({})))) ",
      halves.left_out, halves.selected, sequences_in_use(halves));
}

std::vector<std::string> first_column(const pg::Result& rows) {
  std::vector<std::string> texts;
  for (int row = 0; row < rows.rows(); ++row) texts.push_back(rows.str(row, 0));
  return texts;
}

}  // namespace

bool SelectionRules::empty() const {
  return std::ranges::all_of(rule_kinds, [this](const RuleKind& kind) { return (this->*kind.patterns).empty(); });
}

std::string SelectionRules::text() const {
  std::string lines;
  for (const RuleKind& kind : rule_kinds) {
    for (const std::string& pattern : this->*kind.patterns) lines += fmt::format("{}{}\n", kind.words, pattern);
  }
  return lines;
}

void SelectionRules::add(std::string_view text) {
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    const std::size_t first = line.find_first_not_of(" \t\r");
    if (first == std::string_view::npos || line[first] == '#') continue;
    line = line.substr(first, line.find_last_not_of(" \t\r") - first + 1);
    const auto kind =
        std::ranges::find_if(rule_kinds, [&](const RuleKind& each) { return line.starts_with(each.words); });
    if (kind != rule_kinds.end()) {
      (this->*kind->patterns).emplace_back(line.substr(kind->words.size()));
    } else if (line.starts_with("include ") || line.starts_with("exclude ")) {
      throw Error{
          {ErrorKind::Usage},
          fmt::format("\"{}\": only tables and schemas can be selected, as in \"include table PATTERN\"", line)};
    } else {
      include_tables.emplace_back(line);
    }
  }
}

void SelectionRules::require_sensible() const {
  for (const std::string& pattern : include_tables) static_cast<void>(parse_table_pattern(pattern));
  for (const std::string& pattern : exclude_tables) static_cast<void>(parse_table_pattern(pattern));
  if (include_tables.empty() || (include_schemas.empty() && exclude_schemas.empty())) return;
  throw Error{{ErrorKind::Usage},
              "--include-table together with --include-schema or --exclude-schema: the latter would have no effect, as "
              "with pg_dump. Remedy: write schemas into the patterns of --include-table, such as 'app.*'"};
}

NamePattern parse_table_pattern(std::string_view pattern) {
  std::vector<std::string> parts = regular_expressions(pattern);
  if (pattern.empty() || parts.size() > 2) {
    throw Error{{ErrorKind::Usage},
                fmt::format("pattern \"{}\": NAME or SCHEMA.NAME is wanted; names with dots need double quotes inside "
                            "the pattern",
                            pattern)};
  }
  if (parts.size() == 1) return {.schema = {}, .name = std::move(parts[0])};
  return {.schema = std::move(parts[0]), .name = std::move(parts[1])};
}

void keep_selected(Catalog& catalog, pg::Session& source, const SelectionRules& rules) {
  if (rules.empty()) return;
  const std::set<Oid> selected = selected_tables(catalog, source, rules);
  std::erase_if(catalog.tables, [&](const Table& table) { return !selected.contains(table.oid); });
}

std::vector<std::string> defaults_without_sequence(pg::Session& source, const SelectionRules& rules) {
  if (rules.empty()) return {};
  const Halves halves = split(source, rules);
  return first_column(source.exec(
      fmt::format("SELECT DISTINCT pg_catalog.format('%s.%I draws from %s, the identity of %s', f.adrelid"
                  "::pg_catalog.regclass, a.attname, d.refobjid::pg_catalog.regclass, "
                  "i.refobjid::pg_catalog.regclass) FROM {} JOIN pg_catalog.pg_attribute a ON a.attrelid = f.adrelid "
                  "AND a.attnum = f.adnum JOIN pg_catalog.pg_depend i ON i.classid = "
                  "'pg_catalog.pg_class'::pg_catalog.regclass AND i.objid = d.refobjid AND i.deptype = 'i' "
                  "AND i.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND i.refobjid = ANY ({}) WHERE "
                  "f.adrelid = ANY ({}) ORDER BY 1",
                  sequences_of_defaults, halves.left_out, halves.selected)));
}

std::vector<QualifiedName> keep_sequences_of(const std::set<QualifiedName>& carried, Catalog& source, Catalog& target,
                                             pg::Session& session) {
  std::string ids;
  for (const Table& table : source.tables) {
    if (carried.contains(table.name))
      ids += fmt::format("{}{}", ids.empty() ? "" : ",", static_cast<std::uint32_t>(table.oid));
  }
  const Halves halves{.selected = fmt::format("'{{{}}}'::pg_catalog.oid[]", ids), .left_out = {}};
  const pg::Result rows = session.exec(sequences_of_others(halves));
  std::set<QualifiedName> others;
  for (int row = 0; row < rows.rows(); ++row) others.insert({rows.str(row, 0), rows.str(row, 1)});
  const auto on_target = [&](const Sequence& sequence) {
    return std::ranges::count(target.sequences, sequence.name, &Sequence::name) > 0;
  };
  const auto of_others = [&](const Sequence& sequence) { return others.contains(sequence.name); };
  std::vector<QualifiedName> kept_away;
  for (const Sequence& sequence : source.sequences) {
    if (of_others(sequence) && on_target(sequence)) kept_away.push_back(sequence.name);
  }
  std::erase_if(source.sequences,
                [&](const Sequence& sequence) { return of_others(sequence) || !on_target(sequence); });
  std::erase_if(target.sequences, of_others);
  return kept_away;
}

LeftOutObjects objects_left_out(pg::Session& source, const SelectionRules& rules) {
  LeftOutObjects objects;
  if (rules.empty()) return objects;
  const Halves halves = split(source, rules);
  const pg::Result rows = source.exec(dependents(halves) + "SELECT classid, objid FROM out");
  for (int row = 0; row < rows.rows(); ++row) objects.ids.emplace(rows.u32(row, 0), rows.u32(row, 1));
  const pg::Result orphans = source.exec(fmt::format(
      "SELECT DISTINCT d.objid FROM pg_catalog.pg_depend d WHERE d.classid = "
      "'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid IN ({}) AND d.deptype = 'a' AND d.refclassid = "
      "'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjid = ANY ({})",
      sequences_in_use(halves), halves.left_out));
  for (int row = 0; row < orphans.rows(); ++row) objects.without_owner.insert(orphans.u32(row, 0));
  return objects;
}

std::vector<std::string> keys_left_out(pg::Session& source, const SelectionRules& rules) {
  if (rules.empty()) return {};
  const Halves halves = split(source, rules);
  return first_column(source.exec(
      fmt::format("SELECT pg_catalog.format('%I on %s references %s', k.conname, k.conrelid::pg_catalog.regclass, "
                  "k.confrelid::pg_catalog.regclass) FROM pg_catalog.pg_constraint k WHERE k.contype = 'f' AND "
                  "k.conparentid = 0 AND "
                  "k.conrelid = ANY ({}) AND k.confrelid = ANY ({}) ORDER BY 1",
                  halves.selected, halves.left_out)));
}

std::vector<std::string> readers_left_out(pg::Session& source, const SelectionRules& rules) {
  if (rules.empty()) return {};
  return first_column(source.exec(
      dependents(split(source, rules)) +
      "SELECT 'view ' || c.oid::pg_catalog.regclass::text FROM out o JOIN pg_catalog.pg_class c ON o.classid = "
      "'pg_catalog.pg_class'::pg_catalog.regclass AND c.oid = o.objid AND c.relkind IN ('v', 'm') UNION ALL SELECT "
      "'function ' || p.oid::pg_catalog.regprocedure::text FROM out o JOIN pg_catalog.pg_proc p ON o.classid = "
      "'pg_catalog.pg_proc'::pg_catalog.regclass AND p.oid = o.objid ORDER BY 1"));
}

}  // namespace walferry
