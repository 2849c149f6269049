#include "cli/status_view.hpp"

#include <fmt/format.h>
#include <simdjson.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "engine/error.hpp"
#include "engine/progress_line.hpp"

namespace walferry {
namespace {

using simdjson::dom::element;

constexpr std::size_t label_width = 10;
constexpr std::size_t bar_width = 24;
constexpr std::size_t table_bar_width = 12;
constexpr std::size_t text_width_min = 20;

enum class Color { Plain, Bold, Dim, Green, Yellow, Red };

std::string_view escape_of(Color color) {
  switch (color) {
    case Color::Plain:
      return "";
    case Color::Bold:
      return "\x1b[1m";
    case Color::Dim:
      return "\x1b[2m";
    case Color::Green:
      return "\x1b[32m";
    case Color::Yellow:
      return "\x1b[33m";
    case Color::Red:
      return "\x1b[31m";
  }
  return "";
}

std::string text_of(element object, std::string_view key) {
  std::string_view text;
  if (object[key].get(text) != simdjson::SUCCESS) return "";
  return std::string{text};
}

double number_of(element object, std::string_view key) {
  double number = 0;
  return object[key].get(number) == simdjson::SUCCESS ? number : 0;
}

std::optional<double> optional_number_of(element object, std::string_view key) {
  double number = 0;
  if (object[key].get(number) != simdjson::SUCCESS) return std::nullopt;
  return number;
}

bool flag_of(element object, std::string_view key) {
  bool flag = false;
  return object[key].get(flag) == simdjson::SUCCESS && flag;
}

// The member when it is an object; null and absent are nullopt.
std::optional<element> object_of(element object, std::string_view key) {
  element member;
  if (object[key].get(member) != simdjson::SUCCESS || !member.is_object()) return std::nullopt;
  return member;
}

bool is_continuation(char c) {
  return (static_cast<unsigned char>(c) & 0xC0) == 0x80;
}

std::size_t columns(std::string_view text) {
  return static_cast<std::size_t>(std::count_if(text.begin(), text.end(), [](char c) { return !is_continuation(c); }));
}

// The first `count` characters.
std::string_view head(std::string_view text, std::size_t count) {
  std::size_t end = 0;
  while (end < text.size() && (count > 0 || is_continuation(text[end]))) {
    if (!is_continuation(text[end])) --count;
    ++end;
  }
  return text.substr(0, end);
}

std::string clip(std::string_view text, std::size_t width) {
  if (columns(text) <= width) return std::string{text};
  return width == 0 ? "" : std::string{head(text, width - 1)} + "…";
}

std::string padded(std::string_view text, std::size_t width) {
  std::string fitted = clip(text, width);
  fitted.append(width - columns(fitted), ' ');
  return fitted;
}

// Breaks at spaces and line ends; a word longer than the line is cut into pieces.
std::vector<std::string> wrap(std::string_view text, std::size_t width) {
  std::vector<std::string> lines;
  std::string line;
  while (!text.empty()) {
    const std::size_t gap = std::min(text.find_first_of(" \n"), text.size());
    std::string_view word = text.substr(0, gap);
    const bool line_ends = gap < text.size() && text[gap] == '\n';
    text.remove_prefix(std::min(gap + 1, text.size()));
    if (!line.empty() && columns(line) + 1 + columns(word) > width) lines.push_back(std::exchange(line, ""));
    while (columns(word) > width) {
      const std::string_view piece = head(word, width);
      lines.emplace_back(piece);
      word.remove_prefix(piece.size());
    }
    if (!line.empty()) line += ' ';
    line += word;
    if (line_ends) lines.push_back(std::exchange(line, ""));
  }
  if (!line.empty() || lines.empty()) lines.push_back(line);
  return lines;
}

// Control characters of either set would let a table's name or a server's message command the terminal.
std::string printable(std::string_view text) {
  std::string shown;
  for (std::size_t index = 0; index < text.size(); ++index) {
    const auto byte = static_cast<unsigned char>(text[index]);
    const bool second_set =
        byte == 0xC2 && index + 1 < text.size() && static_cast<unsigned char>(text[index + 1]) < 0xA0;
    if (second_set) ++index;
    shown += (byte < 0x20 && byte != '\n') || byte == 0x7F || second_set ? '?' : text[index];
  }
  return shown;
}

std::string bar(double fraction, std::size_t width) {
  const double share = std::clamp(std::isfinite(fraction) ? fraction : 0.0, 0.0, 1.0);
  const auto filled = static_cast<std::size_t>(std::floor(share * static_cast<double>(width)));
  return "[" + std::string(filled, '#') + std::string(width - filled, '.') + "]";
}

std::string per_second(element object, std::string_view recent, std::string_view longer, std::string (*format)(double),
                       std::string_view unit) {
  return fmt::format("{}{}/s (10 s), {}{}/s (2 min)", format(number_of(object, recent)), unit,
                     format(number_of(object, longer)), unit);
}

// Collects lines no wider than the terminal.
class Page {
 public:
  explicit Page(const StatusViewOptions& options)
      : color_(options.color),
        width_(std::max(static_cast<std::size_t>(std::max(options.width, 0)), label_width + text_width_min)) {}

  // A label and its text, wrapped under itself.
  void add(std::string_view label, std::string_view text, Color color = Color::Plain) {
    bool first = true;
    for (const std::string& line : wrap(printable(text), width_ - label_width)) {
      const std::string shown_label = padded(first ? label : "", label_width);
      lines_.push_back(paint(shown_label, Color::Dim) + paint(line, color));
      first = false;
    }
  }

  void add_line(std::string_view text, Color color = Color::Plain) {
    lines_.push_back(paint(clip(printable(text), width_), color));
  }

  void add_blank() { lines_.emplace_back(); }

  [[nodiscard]] std::size_t size() const { return lines_.size(); }
  [[nodiscard]] std::size_t width() const { return width_; }

  [[nodiscard]] std::string text(std::size_t lines_max) const {
    std::string all;
    for (std::size_t index = 0; index < std::min(lines_.size(), lines_max); ++index) all += lines_[index] + "\n";
    return all;
  }

 private:
  [[nodiscard]] std::string paint(std::string text, Color color) const {
    if (!color_ || color == Color::Plain || text.empty()) return text;
    return fmt::format("{}{}\x1b[0m", escape_of(color), text);
  }

  bool color_;
  std::size_t width_;
  std::vector<std::string> lines_;
};

struct TableRow {
  std::string name;
  std::string state;
  double bytes_total = 0;
  double bytes_copied = 0;
  double rows_copied = 0;
  std::optional<double> bytes_per_second = {};
  std::optional<double> eta_seconds = {};

  [[nodiscard]] bool waits() const { return state == "pending"; }
  [[nodiscard]] bool unfinished() const { return state == "copying" || state == "indexing" || waits(); }
  [[nodiscard]] double bytes_left() const { return std::max(bytes_total - bytes_copied, 0.0); }
};

std::vector<TableRow> tables_of(element status) {
  std::vector<TableRow> rows;
  simdjson::dom::array tables;
  if (status["tables"].get(tables) != simdjson::SUCCESS) return rows;
  for (const element table : tables) {
    rows.push_back({.name = text_of(table, "schema") + "." + text_of(table, "name"),
                    .state = text_of(table, "state"),
                    .bytes_total = number_of(table, "bytes_total"),
                    .bytes_copied = number_of(table, "bytes_copied"),
                    .rows_copied = number_of(table, "rows_copied"),
                    .bytes_per_second = optional_number_of(table, "bytes_per_second"),
                    .eta_seconds = optional_number_of(table, "eta_seconds")});
  }
  return rows;
}

// The apply's connection to the target stands, or should.
bool is_applying(element status) {
  const std::optional<Phase> phase = parse_phase(text_of(status, "phase"));
  return phase == Phase::CatchUp || phase == Phase::Follow || phase == Phase::Cutover;
}

void add_head(Page& page, element status) {
  const bool stopped = flag_of(status, "apply_stopped");
  page.add("phase", text_of(status, "phase") + (stopped ? ", apply stopped" : ""), stopped ? Color::Red : Color::Bold);
  const std::string activity = text_of(status, "activity");
  if (!activity.empty()) page.add("now", activity);
  simdjson::dom::array waits;
  if (status["waits"].get(waits) == simdjson::SUCCESS) {
    for (const element wait : waits) {
      std::string_view text;
      if (wait.get(text) == simdjson::SUCCESS) page.add("waits", std::string{text}, Color::Yellow);
    }
  }
  const std::string way_back_of = text_of(status, "way_back_of");
  page.add("migration",
           fmt::format("{}{}, running since {}", text_of(status, "migration"),
                       way_back_of.empty() ? "" : ", the way back of " + way_back_of, text_of(status, "started_at")));
  page.add("source", text_of(status, "source") + (flag_of(status, "source_connected") ? "" : " (not connected)"),
           flag_of(status, "source_connected") ? Color::Plain : Color::Yellow);
  const bool connected = flag_of(status, "target_connected") || !is_applying(status);
  page.add("target", text_of(status, "target") + (connected ? "" : " (not connected)"),
           connected ? Color::Plain : Color::Yellow);
}

void add_stream(Page& page, element status) {
  page.add("lag",
           fmt::format("{}, {}", human_bytes(number_of(status, "lag_bytes")),
                       is_applying(status) ? human_duration(number_of(status, "lag_seconds"))
                                           : std::string{"applied once the copy is complete"}),
           Color::Bold);
  page.add("LSN",
           fmt::format("source {}, received {}, spooled {}, applied {}, confirmed {}", text_of(status, "source_lsn"),
                       text_of(status, "received_lsn"), text_of(status, "spooled_lsn"), text_of(status, "applied_lsn"),
                       text_of(status, "confirmed_lsn")));
  page.add("waiting",
           fmt::format("{} in the spool on disk, {} in memory", human_bytes(number_of(status, "spool_bytes")),
                       human_bytes(number_of(status, "queue_bytes"))));
}

void add_copy(Page& page, element copy) {
  const double fraction = number_of(copy, "fraction_done");
  page.add("copy", fmt::format("{} {:.1f} %, {} of {}, {} rows, {}/{} tables", bar(fraction, bar_width),
                               std::floor(fraction * 1000) / 10, human_bytes(number_of(copy, "bytes_copied")),
                               human_bytes(number_of(copy, "bytes_total")), human_count(number_of(copy, "rows_copied")),
                               number_of(copy, "tables_copied"), number_of(copy, "tables_total")));
  if (fraction >= 1) return;
  const std::optional<double> eta = optional_number_of(copy, "eta_seconds");
  page.add("", fmt::format("{}, ETA {}", per_second(copy, "bytes_per_second", "bytes_per_second_long", human_bytes, ""),
                           eta ? human_duration(*eta) : "unknown"));
}

void add_apply(Page& page, element apply) {
  page.add("apply", per_second(apply, "changes_per_second", "changes_per_second_long", human_count, " changes"));
  const double truncates = number_of(apply, "truncates");
  page.add("", fmt::format("{} received; {} inserts, {} updates, {} deletes{}; {} transactions in {} groups",
                           human_bytes(number_of(apply, "received_bytes")), human_count(number_of(apply, "inserts")),
                           human_count(number_of(apply, "updates")), human_count(number_of(apply, "deletes")),
                           truncates > 0 ? fmt::format(", {} truncates", human_count(truncates)) : "",
                           human_count(number_of(apply, "source_transactions")),
                           human_count(number_of(apply, "target_transactions"))));
}

void add_slot(Page& page, element slot) {
  const std::string wal_status = text_of(slot, "wal_status");
  const std::optional<double> safe = optional_number_of(slot, "safe_wal_size");
  Color color = Color::Plain;
  if (wal_status == "unreserved" || wal_status == "lost") color = Color::Red;
  page.add(
      "slot",
      fmt::format("{}, {}, source keeps {} of WAL for it, wal_status {}{}", text_of(slot, "name"),
                  flag_of(slot, "active") ? "active" : "not active", human_bytes(number_of(slot, "retained_wal_bytes")),
                  wal_status, safe ? fmt::format(", lost after {} more", human_bytes(*safe)) : ""),
      color);
}

void add_table_counts(Page& page, const std::vector<TableRow>& tables) {
  std::string counts;
  for (const std::string_view state : {"ready", "indexing", "copied", "copying", "pending"}) {
    const auto in_state =
        std::count_if(tables.begin(), tables.end(), [state](const TableRow& table) { return table.state == state; });
    if (in_state == 0) continue;
    counts += fmt::format("{}{} {}", counts.empty() ? "" : ", ", grouped(in_state), state);
  }
  page.add("tables", counts);
}

void add_table(Page& page, const TableRow& table, std::size_t name_width) {
  const bool copied = table.state == "indexing";
  const double fraction = copied ? 1 : table.bytes_total > 0 ? table.bytes_copied / table.bytes_total : 0;
  std::string line = fmt::format("  {} {:8} {} {} of {}, {} rows", padded(printable(table.name), name_width),
                                 table.state, bar(fraction, table_bar_width), human_bytes(table.bytes_copied),
                                 human_bytes(table.bytes_total), human_count(table.rows_copied));
  if (table.bytes_per_second) line += fmt::format(", {}/s", human_bytes(*table.bytes_per_second));
  if (table.eta_seconds) line += fmt::format(", ETA {}", human_duration(*table.eta_seconds));
  page.add_line(line, table.waits() ? Color::Dim : Color::Plain);
}

// The tables that are not through: those at work first, then those that wait, the most left to do on top.
void add_tables(Page& page, std::vector<TableRow> tables, std::size_t lines_max) {
  if (tables.empty()) return;
  add_table_counts(page, tables);
  std::erase_if(tables, [](const TableRow& table) { return !table.unfinished(); });
  std::stable_sort(tables.begin(), tables.end(), [](const TableRow& left, const TableRow& right) {
    if (left.waits() != right.waits()) return right.waits();
    return left.bytes_left() > right.bytes_left();
  });
  const std::size_t room = lines_max > page.size() ? lines_max - page.size() : 0;
  // The last line of the room says how many are not shown.
  const std::size_t shown = tables.size() <= room ? tables.size() : room > 0 ? room - 1 : 0;
  std::size_t name_width = 0;
  for (std::size_t index = 0; index < shown; ++index) name_width = std::max(name_width, columns(tables[index].name));
  name_width = std::min(name_width, page.width() / 3);
  for (std::size_t index = 0; index < shown; ++index) add_table(page, tables[index], name_width);
  if (shown < tables.size() && room > 0) page.add_line(fmt::format("  and {} more", tables.size() - shown), Color::Dim);
}

}  // namespace

std::string render_status(std::string_view json, const StatusViewOptions& options) {
  simdjson::dom::parser parser;
  element status;
  if (parser.parse(json.data(), json.size()).get(status) != simdjson::SUCCESS || !object_of(status, "copy")) {
    throw Error{{.kind = ErrorKind::Protocol},
                "the answer of the running migration is not a status; is it of another version than this command?"};
  }
  const std::size_t lines_max = options.height > 0 ? static_cast<std::size_t>(options.height) : std::string::npos;
  Page page{options};
  add_head(page, status);
  if (const std::optional<element> error = object_of(status, "last_error")) {
    page.add("error", fmt::format("{}: {}", text_of(*error, "at"), text_of(*error, "text")), Color::Red);
  }
  simdjson::dom::array findings;
  if (status["ddl"]["findings"].get(findings) == simdjson::SUCCESS) {
    for (const element finding : findings) {
      page.add("schema",
               fmt::format("{} was {} on the source: {}", text_of(finding, "object"), text_of(finding, "change"),
                           text_of(finding, "remedy")),
               Color::Yellow);
    }
  }
  simdjson::dom::array skips;
  if (status["skips"].get(skips) == simdjson::SUCCESS) {
    for (const element skip : skips) {
      page.add("skipped",
               fmt::format("{} at {} on {}: {}", text_of(skip, "what"), text_of(skip, "lsn"), text_of(skip, "at"),
                           text_of(skip, "reason")),
               Color::Yellow);
    }
  }
  page.add_blank();
  add_stream(page, status);
  if (const std::optional<element> copy = object_of(status, "copy")) add_copy(page, *copy);
  if (const std::optional<element> apply = object_of(status, "apply")) add_apply(page, *apply);
  if (const std::optional<element> slot = object_of(status, "slot")) add_slot(page, *slot);
  add_tables(page, tables_of(status), lines_max);
  return page.text(lines_max);
}

}  // namespace walferry
