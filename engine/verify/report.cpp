#include "engine/verify/report.hpp"

#include <fmt/format.h>

#include <boost/json.hpp>

namespace walferry {
namespace {

std::string called(const std::optional<SequenceValue>& value) {
  if (!value) return "none";
  return fmt::format("{}{}", value->last_value, value->is_called ? "" : " (not called)");
}

boost::json::array json_of(const std::vector<QualifiedName>& names) {
  boost::json::array array;
  for (const QualifiedName& name : names) {
    array.emplace_back(boost::json::object{{"schema", name.schema}, {"name", name.name}});
  }
  return array;
}

}  // namespace

boost::json::value json_of(const std::optional<SequenceValue>& value) {
  if (!value) return nullptr;
  return boost::json::object{{"last_value", value->last_value}, {"is_called", value->is_called}};
}

std::string render_text(const VerifyReport& report) {
  std::string text;
  std::int64_t rows = 0;
  std::size_t different = 0;
  for (const TableComparison& table : report.tables) {
    rows += table.rows_source;
    if (table.equal) continue;
    ++different;
    text += fmt::format("DIFFERENT  table {}: rows {} / {}, hash {} / {}{}\n", table.name.text(), table.rows_source,
                        table.rows_target, table.hash_source.empty() ? "-" : table.hash_source,
                        table.hash_target.empty() ? "-" : table.hash_target,
                        table.note.empty() ? "" : " (" + table.note + ")");
  }
  for (const QualifiedName& name : report.missing_on_target) {
    text += fmt::format("MISSING    table {} on the target\n", name.text());
  }
  for (const QualifiedName& name : report.missing_on_source) {
    text += fmt::format("MISSING    table {} on the source\n", name.text());
  }
  for (const SequenceComparison& sequence : report.sequences) {
    if (sequence.equal) continue;
    ++different;
    text += fmt::format("DIFFERENT  sequence {}: {} / {}{}\n", sequence.name.text(), called(sequence.source),
                        called(sequence.target), sequence.note.empty() ? "" : " (" + sequence.note + ")");
  }
  text += fmt::format("{} tables with {} rows and {} sequences compared in {:.2f} s (source / target): ",
                      report.tables.size(), rows, report.sequences.size(), report.seconds);
  if (report.equal) return text + "equal\n";
  return text + fmt::format("{} differ, {} tables are missing on the target and {} on the source\n", different,
                            report.missing_on_target.size(), report.missing_on_source.size());
}

std::string render_json(const VerifyReport& report) {
  boost::json::array tables;
  for (const TableComparison& table : report.tables) {
    tables.emplace_back(boost::json::object{{"schema", table.name.schema},
                                            {"name", table.name.name},
                                            {"equal", table.equal},
                                            {"rows_source", table.rows_source},
                                            {"rows_target", table.rows_target},
                                            {"hash_source", table.hash_source},
                                            {"hash_target", table.hash_target},
                                            {"note", table.note}});
  }
  boost::json::array sequences;
  for (const SequenceComparison& sequence : report.sequences) {
    sequences.emplace_back(boost::json::object{{"schema", sequence.name.schema},
                                               {"name", sequence.name.name},
                                               {"equal", sequence.equal},
                                               {"source", json_of(sequence.source)},
                                               {"target", json_of(sequence.target)},
                                               {"note", sequence.note}});
  }
  return boost::json::serialize(boost::json::object{{"equal", report.equal},
                                                    {"seconds", report.seconds},
                                                    {"tables", std::move(tables)},
                                                    {"sequences", std::move(sequences)},
                                                    {"missing_on_target", json_of(report.missing_on_target)},
                                                    {"missing_on_source", json_of(report.missing_on_source)}});
}

int exit_code(const VerifyReport& report) {
  return report.equal ? 0 : 3;
}

}  // namespace walferry
