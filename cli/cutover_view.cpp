#include "cli/cutover_view.hpp"

#include <fmt/format.h>
#include <simdjson.h>

#include <algorithm>

#include "engine/error.hpp"
#include "engine/progress_line.hpp"

namespace walferry {
namespace {

namespace dom = simdjson::dom;

constexpr std::size_t name_width_max = 60;

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

std::int64_t integer_of(const dom::element& object, const char* key) {
  return static_cast<std::int64_t>(number_of(object, key));
}

std::string verdict_of_rollback(const dom::element& report, std::string_view result) {
  if (result == "switched") {
    return fmt::format(
        "SWITCHED BACK: writes were stopped for {:.0f} ms; the old source serves again, the new server refuses "
        "writes\n",
        number_of(report, "writes_stopped_ms"));
  }
  return fmt::format("NOT SWITCHED BACK: the new server goes on serving (writes waited for {:.0f} ms)\n  {}\n",
                     number_of(report, "writes_stopped_ms"), text_of(report, "error"));
}

std::string verdict(const dom::element& report) {
  const std::string result = text_of(report, "result");
  bool back = false;
  if (report["back"].get(back) != simdjson::SUCCESS) back = false;
  if (back && (result == "switched" || result == "rolled-back")) return verdict_of_rollback(report, result);
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
  if (error.empty()) return "DRY RUN: every guard passes\n";
  return fmt::format("DRY RUN: the {} would be refused\n", back ? "rollback" : "cutover");
}

struct Compared {
  std::size_t tables = 0;
  std::int64_t rows = 0;
  std::string lines;        // each table with its rows and hash
  std::string differences;  // of tables and sequences
};

Compared compared_tables(const dom::element& report) {
  Compared compared;
  dom::array tables;
  if (report["tables"].get(tables) != simdjson::SUCCESS) return compared;
  std::size_t width = 0;
  for (const dom::element table : tables) width = std::max(width, text_of(table, "name").size());
  width = std::min(width, name_width_max);
  for (const dom::element table : tables) {
    const std::string name = text_of(table, "name");
    const std::int64_t rows = integer_of(table, "rows_source");
    ++compared.tables;
    compared.rows += rows;
    bool equal = false;
    if (table["equal"].get(equal) == simdjson::SUCCESS && !equal) {
      compared.differences +=
          fmt::format("  DIFFERS  {}: {} rows on the source, {} on the target  {}\n", name, grouped(rows),
                      grouped(integer_of(table, "rows_target")), text_of(table, "note"));
    }
    const std::string source = text_of(table, "hash_source");
    const std::string target = text_of(table, "hash_target");
    compared.lines += fmt::format("  {:<{}} {:>15}  {}{}\n", name, width, grouped(rows), source.empty() ? "-" : source,
                                  source == target ? "" : " / " + (target.empty() ? "-" : target));
  }
  return compared;
}

// Counts them, and adds those that differ.
std::size_t compared_sequences(const dom::element& report, std::string& differences) {
  dom::array sequences;
  if (report["sequences"].get(sequences) != simdjson::SUCCESS) return 0;
  std::size_t count = 0;
  for (const dom::element sequence : sequences) {
    ++count;
    bool equal = false;
    if (sequence["equal"].get(equal) == simdjson::SUCCESS && !equal) {
      differences += fmt::format("  DIFFERS  sequence {}  {}\n", text_of(sequence, "name"), text_of(sequence, "note"));
    }
  }
  return count;
}

}  // namespace

std::string render_cutover(std::string_view json) {
  dom::parser parser;
  dom::element report;
  if (parser.parse(simdjson::padded_string{json}).get(report) != simdjson::SUCCESS) {
    throw Error{{ErrorKind::Protocol},
                "the daemon's report cannot be read. Remedy: use the same version of walferry for both"};
  }
  Compared compared = compared_tables(report);
  const std::size_t sequences = compared_sequences(report, compared.differences);
  std::string out;
  if (compared.tables > 0) {
    // What matters comes last, where the screen ends.
    out += fmt::format("tables at {}: rows and 128-bit hash, on both ends\n{}\n", text_of(report, "compared_at"),
                       compared.lines);
  }
  out += verdict(report);
  if (const std::string begins = text_of(report, "way_back_begins");
      text_of(report, "result") == "switched" && !begins.empty())
    out += fmt::format("  way back: armed, from {} of the target on; `walferry run` keeps the old source up to date\n",
                       begins);
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
  out += compared.differences;
  if (compared.tables + sequences == 0) return out;
  out += fmt::format("compared: {} tables with {} rows, by count and 128-bit hash, and {} sequences\n", compared.tables,
                     grouped(compared.rows), sequences);
  out += fmt::format("          everything at {}, and again in the write stop the {} rows touched since\n",
                     text_of(report, "compared_at"), grouped(integer_of(report, "touched_rows")));
  return out;
}

}  // namespace walferry
