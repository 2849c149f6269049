// Which tables of the source a migration carries: everything, or what patterns say.
//
// Patterns are those of psql and pg_dump: * and ? stand for any characters and for one, upper case is folded outside
// double quotes, a dot separates the schema, other characters of regular expressions keep their meaning. A pattern
// without a schema matches in every schema. A partitioned table brings its partitions along. The rules are recorded in
// the journal as text in the form of pg_dump's --filter files, and hold until the end. Used by set-up, check, cutover
// and verify.
#pragma once

#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "engine/catalog.hpp"
#include "engine/pg/session.hpp"

namespace walferry {

struct SelectionRules {
  std::vector<std::string> include_tables = {};
  std::vector<std::string> exclude_tables = {};
  std::vector<std::string> include_schemas = {};
  std::vector<std::string> exclude_schemas = {};

  bool operator==(const SelectionRules&) const = default;

  // Everything is carried.
  [[nodiscard]] bool empty() const;
  // "include table PATTERN", one rule a line.
  [[nodiscard]] std::string text() const;
  // Adds the rules of such a text; "# ..." is a comment, a pattern alone includes a table. Throws Error{Usage}.
  void add(std::string_view text);
  // Throws Error{Usage} for rules that contradict each other.
  void require_sensible() const;
};

// A pattern as regular expressions for the server's ~ operator; no schema: every one.
struct NamePattern {
  std::string schema;
  std::string name;
};
// Throws Error{Usage} for a pattern with more dots than names.
[[nodiscard]] NamePattern parse_table_pattern(std::string_view pattern);

// Takes the tables that are not selected out of the catalog. Throws Error{Refused} where a pattern matches nothing: it
// is misspelt more often than meant.
void keep_selected(Catalog& catalog, pg::Session& source, const SelectionRules& rules);

// Where a part of the source is carried: takes away the sequences that the target has not, and on both sides those of
// tables that are not `carried`, unless one of these draws from them. They are another part's, and on the target they
// may be ahead. Returns the latter that the target has.
std::vector<QualifiedName> keep_sequences_of(const std::set<QualifiedName>& carried, Catalog& source, Catalog& target,
                                             pg::Session& session);

struct LeftOutObjects {
  // What cannot be made without a table that is left out, the tables included: (class, oid) as in pg_depend.
  std::set<std::pair<std::uint32_t, std::uint32_t>> ids;
  // Sequences that belong to such a table and are made all the same, because a selected one draws from them.
  std::set<std::uint32_t> without_owner;
};
[[nodiscard]] LeftOutObjects objects_left_out(pg::Session& source, const SelectionRules& rules);

// Foreign keys of selected tables that reference one that is not: "of_area on public.place references public.area".
[[nodiscard]] std::vector<std::string> keys_left_out(pg::Session& source, const SelectionRules& rules);
// Defaults of selected tables that draw from the identity column of one that is left out: they could not be made.
[[nodiscard]] std::vector<std::string> defaults_without_sequence(pg::Session& source, const SelectionRules& rules);
// Views that read a table that is left out, and functions that name one.
[[nodiscard]] std::vector<std::string> readers_left_out(pg::Session& source, const SelectionRules& rules);

}  // namespace walferry
