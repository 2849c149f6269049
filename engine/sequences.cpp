#include "engine/sequences.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <map>

namespace walferry {
namespace {

// Enough to make round trips rare, few enough to keep the parser's and the lock table's work small.
constexpr std::size_t batch_sequences_max = 200;

struct Pair {
  const Sequence* source_definition = nullptr;
  const SequenceValue* source = nullptr;
  const Sequence* target_definition = nullptr;
  const SequenceValue* target = nullptr;
};

void read_batch(pg::Session& session, const std::vector<Sequence>& sequences, std::size_t begin,
                std::vector<SequenceValue>& values) {
  const std::size_t end = std::min(begin + batch_sequences_max, sequences.size());
  std::string sql;
  for (std::size_t i = begin; i < end; ++i) {
    if (i > begin) sql += " UNION ALL ";
    sql += fmt::format("SELECT {} AS i, last_value, is_called FROM {}", i, sequences[i].name.quoted());
  }
  sql += " ORDER BY i";
  const pg::Result rows = session.exec(sql);
  if (rows.rows() != static_cast<int>(end - begin)) {
    throw Error{
        {ErrorKind::Verification, session.side()},
        fmt::format("reading the sequences of the {} gave {} rows for {} sequences; one of them is not a sequence any "
                    "more. Remedy: try again after the DDL",
                    to_string(session.side()), rows.rows(), end - begin)};
  }
  for (int row = 0; row < rows.rows(); ++row) {
    const std::size_t i = begin + static_cast<std::size_t>(row);
    values.push_back({sequences[i].name, rows.i64(row, 1), rows.flag(row, 2)});
  }
}

void add_difference(std::string& text, std::string_view what, const std::string& source, const std::string& target) {
  if (source == target) return;
  if (!text.empty()) text += ", ";
  text += fmt::format("{} {} / {}", what, source, target);
}

}  // namespace

std::vector<SequenceValue> read_sequence_values(pg::Session& session, const std::vector<Sequence>& sequences) {
  std::vector<SequenceValue> values;
  values.reserve(sequences.size());
  for (std::size_t begin = 0; begin < sequences.size(); begin += batch_sequences_max) {
    try {
      read_batch(session, sequences, begin, values);
    } catch (const Error& error) {
      throw error.during(fmt::format("reading the sequences of the {}", to_string(session.side())));
    }
  }
  return values;
}

void set_sequence_values(pg::Session& target, const std::vector<SequenceValue>& values) {
  for (std::size_t begin = 0; begin < values.size(); begin += batch_sequences_max) {
    const std::size_t end = std::min(begin + batch_sequences_max, values.size());
    std::string sql;
    for (std::size_t i = begin; i < end; ++i) {
      if (i > begin) sql += ", ";
      sql +=
          fmt::format("({}, {}::pg_catalog.int8, {})", pg::quote_literal(values[i].name.quoted()),
                      pg::quote_literal(std::to_string(values[i].last_value)), values[i].is_called ? "true" : "false");
    }
    try {
      const pg::Result rows =
          target.exec("SELECT pg_catalog.setval(v.name::pg_catalog.regclass, v.value, v.called) FROM (VALUES " + sql +
                      ") AS v(name, value, called)");
      if (rows.rows() != static_cast<int>(end - begin)) {
        throw Error{{ErrorKind::Verification, target.side()},
                    fmt::format("{} of {} sequences were set", rows.rows(), end - begin)};
      }
    } catch (const Error& error) {
      throw error.during(fmt::format("setting sequences {} to {} of {} on the {}", begin + 1, end, values.size(),
                                     to_string(target.side())));
    }
  }
}

std::vector<std::string> move_sequences_behind_rows(pg::Session& session) {
  const pg::Result feeds = session.exec(R"(
WITH feeds AS (
  SELECT d.objid AS sequence, d.refobjid AS relation, d.refobjsubid::pg_catalog.int2 AS number
  FROM pg_catalog.pg_depend d
  WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.deptype IN ('a', 'i') AND d.refobjsubid > 0
    AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
  UNION
  SELECT d.refobjid, f.adrelid, f.adnum
  FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_attrdef f ON f.oid = d.objid
  WHERE d.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass
    AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass)
SELECT s.sequence, n.nspname, c.relname, a.attname
FROM feeds s
JOIN pg_catalog.pg_class c ON c.oid = s.relation AND c.relkind IN ('r', 'p') AND c.relpersistence <> 't'
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum = s.number AND a.atttypid IN (20, 21, 23))");
  std::multimap<Oid, int> rows_of;
  for (int row = 0; row < feeds.rows(); ++row) rows_of.emplace(Oid{feeds.u32(row, 0)}, row);
  std::vector<std::string> left;
  for (const Sequence& sequence : read_sequences(session)) {
    const auto [begin, end] = rows_of.equal_range(sequence.oid);
    if (begin == end) left.push_back(sequence.name.text());
    const bool up = sequence.increment > 0;
    for (auto feed = begin; feed != end; ++feed) {
      const QualifiedName table{feeds.str(feed->second, 1), feeds.str(feed->second, 2)};
      session.exec(fmt::format(
          "SELECT pg_catalog.setval({0}, r.v) FROM (SELECT pg_catalog.{1}({2})::pg_catalog.int8 AS v FROM {3}) r, {4} "
          "AS s WHERE r.v BETWEEN {5} AND {6} AND (r.v {7} s.last_value OR r.v = s.last_value AND NOT s.is_called)",
          pg::quote_literal(sequence.name.quoted()), up ? "max" : "min", pg::quote_name(feeds.str(feed->second, 3)),
          table.quoted(), sequence.name.quoted(), sequence.minimum, sequence.maximum, up ? ">" : "<"));
    }
  }
  return left;
}

std::string definition_difference(const Sequence& source, const Sequence& target) {
  std::string text;
  add_difference(text, "type", source.type_name, target.type_name);
  add_difference(text, "increment", std::to_string(source.increment), std::to_string(target.increment));
  add_difference(text, "minimum", std::to_string(source.minimum), std::to_string(target.minimum));
  add_difference(text, "maximum", std::to_string(source.maximum), std::to_string(target.maximum));
  add_difference(text, "cycle", source.cycle ? "yes" : "no", target.cycle ? "yes" : "no");
  return text;
}

std::vector<SequenceComparison> compare_sequences(const SequenceState& source, const SequenceState& target) {
  std::map<QualifiedName, Pair> pairs;
  for (std::size_t i = 0; i < source.definitions.size(); ++i) {
    Pair& pair = pairs[source.definitions[i].name];
    pair.source_definition = &source.definitions[i];
    pair.source = &source.values.at(i);
  }
  for (std::size_t i = 0; i < target.definitions.size(); ++i) {
    Pair& pair = pairs[target.definitions[i].name];
    pair.target_definition = &target.definitions[i];
    pair.target = &target.values.at(i);
  }
  std::vector<SequenceComparison> comparisons;
  comparisons.reserve(pairs.size());
  for (const auto& [name, pair] : pairs) {
    SequenceComparison comparison{.name = name};
    if (pair.source != nullptr) comparison.source = *pair.source;
    if (pair.target != nullptr) comparison.target = *pair.target;
    if (pair.source == nullptr) {
      comparison.note = "missing on the source";
    } else if (pair.target == nullptr) {
      comparison.note = "missing on the target";
    } else {
      const std::string difference = definition_difference(*pair.source_definition, *pair.target_definition);
      if (!difference.empty()) comparison.note = "definitions differ (source / target): " + difference;
      comparison.equal = difference.empty() && *pair.source == *pair.target;
    }
    comparisons.push_back(std::move(comparison));
  }
  return comparisons;
}

}  // namespace walferry
