#include "cli/cutover_view.hpp"

#include <fmt/format.h>
#include <simdjson.h>

#include "engine/error.hpp"
#include "engine/progress_line.hpp"

namespace walferry {
namespace {

namespace dom = simdjson::dom;

std::string text_of(const dom::element& object, const char* key) {
  std::string_view value;
  if (object[key].get(value) != simdjson::SUCCESS) return {};
  return std::string{value};
}

double number_of(const dom::element& object, const char* key) {
  double value = 0;
  if (object[key].get(value) != simdjson::SUCCESS) return 0;
  return value;
}

std::string verdict(const dom::element& report) {
  const std::string result = text_of(report, "result");
  if (result == "switched") {
    return fmt::format("SWITCHED: writes were stopped for {:.0f} ms; the target serves, the source refuses writes\n",
                       number_of(report, "writes_stopped_ms"));
  }
  const std::string error = text_of(report, "error");
  if (result == "rolled-back") {
    return fmt::format(
        "ROLLED BACK: the source is writable (writes waited for {:.0f} ms), nothing was switched\n  {}\n",
        number_of(report, "writes_stopped_ms"), error);
  }
  if (result == "refused" || result.empty()) return fmt::format("REFUSED: {}\n", error);
  if (result == "undecided") return fmt::format("UNDECIDED: {}\n", error);
  return error.empty() ? "DRY RUN: every guard passes\n" : "DRY RUN: the cutover would be refused\n";
}

void append_differences(const dom::element& report, std::string& out) {
  dom::array tables;
  std::int64_t rows = 0;
  std::size_t count = 0;
  if (report["tables"].get(tables) != simdjson::SUCCESS) return;
  for (const dom::element table : tables) {
    ++count;
    rows += static_cast<std::int64_t>(number_of(table, "rows_source"));
    bool equal = false;
    if (table["equal"].get(equal) == simdjson::SUCCESS && !equal) {
      out += fmt::format("  DIFFERS  {}: {} rows on the source, {} on the target  {}\n", text_of(table, "name"),
                         grouped(static_cast<std::int64_t>(number_of(table, "rows_source"))),
                         grouped(static_cast<std::int64_t>(number_of(table, "rows_target"))), text_of(table, "note"));
    }
  }
  dom::array sequences;
  std::size_t sequence_count = 0;
  if (report["sequences"].get(sequences) == simdjson::SUCCESS) {
    for (const dom::element sequence : sequences) {
      ++sequence_count;
      bool equal = false;
      if (sequence["equal"].get(equal) == simdjson::SUCCESS && !equal) {
        out += fmt::format("  DIFFERS  sequence {}  {}\n", text_of(sequence, "name"), text_of(sequence, "note"));
      }
    }
  }
  out += fmt::format("compared: {} tables with {} rows, by count and 128-bit hash, and {} sequences\n", count,
                     grouped(rows), sequence_count);
  out += fmt::format("          everything at {}, and again in the write stop the {} rows touched since\n",
                     text_of(report, "compared_at"),
                     grouped(static_cast<std::int64_t>(number_of(report, "touched_rows"))));
}

}  // namespace

std::string render_cutover(std::string_view json) {
  dom::parser parser;
  dom::element report;
  if (parser.parse(simdjson::padded_string{json}).get(report) != simdjson::SUCCESS) {
    throw Error{{ErrorKind::Protocol},
                "the daemon's report cannot be read. Remedy: use the same version of walferry for both"};
  }
  std::string out = verdict(report);
  dom::array blockers;
  if (report["blockers"].get(blockers) == simdjson::SUCCESS) {
    for (const dom::element blocker : blockers) {
      std::string_view text;
      if (blocker.get(text) == simdjson::SUCCESS) out += fmt::format("  in the way: {}\n", text);
    }
  }
  dom::array steps;
  const bool dry = text_of(report, "result") == "dry-run";
  if (report["steps"].get(steps) == simdjson::SUCCESS) {
    for (const dom::element step : steps) {
      out += dry ? fmt::format("  {}\n", text_of(step, "name"))
                 : fmt::format("  {:<28} {:>9.1f} ms  applied {}\n", text_of(step, "name"), number_of(step, "ms"),
                               text_of(step, "lsn"));
    }
  }
  dom::array notes;
  if (report["notes"].get(notes) == simdjson::SUCCESS) {
    for (const dom::element note : notes) {
      std::string_view text;
      if (note.get(text) == simdjson::SUCCESS) out += fmt::format("  note: {}\n", text);
    }
  }
  dom::array skips;
  if (report["skips"].get(skips) == simdjson::SUCCESS) {
    for (const dom::element skip : skips) {
      out += fmt::format("  skipped: {} at {} ({}), reason: {}\n", text_of(skip, "what"), text_of(skip, "lsn"),
                         text_of(skip, "at"), text_of(skip, "reason"));
    }
  }
  append_differences(report, out);
  return out;
}

}  // namespace walferry
