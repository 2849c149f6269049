// /metrics against the rules of the Prometheus text format and of metric names.
#include "engine/http/metrics.hpp"

#include <doctest/doctest.h>

#include <chrono>
#include <map>
#include <regex>
#include <set>
#include <sstream>
#include <string>

namespace walferry::http {
namespace {

struct Scrape {
  std::map<std::string, std::string> types;  // family -> type
  std::set<std::string> helps;               // families with a help text
  std::map<std::string, double> samples;     // name{labels} -> value
};

std::string family_of(const std::string& series) {
  return series.substr(0, series.find('{'));
}

Scrape parse(const std::string& text) {
  static const std::regex sample{
      R"re(^([a-z_][a-z0-9_]*(?:\{(?:[a-z_]+="(?:[^"\\\n]|\\["\\n])*",?)+\})?) (-?[0-9.]+(?:e[+-]?[0-9]+)?)$)re"};
  static const std::regex comment{R"(^# (HELP|TYPE) ([a-z_][a-z0-9_]*) (.+)$)"};
  Scrape scrape;
  std::istringstream lines{text};
  for (std::string line; std::getline(lines, line);) {
    CAPTURE(line);
    std::smatch match;
    if (std::regex_match(line, match, comment)) {
      if (match[1] == "HELP") {
        CHECK(scrape.helps.insert(match[2]).second);
      } else {
        CHECK(scrape.types.emplace(match[2], match[3]).second);
      }
      continue;
    }
    REQUIRE(std::regex_match(line, match, sample));
    CHECK(scrape.samples.emplace(match[1], std::stod(match[2])).second);
  }
  return scrape;
}

Status sample_status() {
  Status status;
  status.phase = Phase::Follow;
  status.migration = "walferry_netbox";
  status.source = "host=old options='-c \"x\"'";
  status.started_at = std::chrono::system_clock::time_point{std::chrono::seconds{1'767'225'600}};
  status.source_lsn = Lsn{0x16'B374D848};
  status.applied_lsn = Lsn{0x16'B374D800};
  status.lag_bytes = 72;
  status.lag_seconds = 0.25;
  status.source_connected = true;
  status.apply = {.inserts = 5,
                  .updates = 4,
                  .deletes = 3,
                  .truncates = 1,
                  .source_transactions = 7,
                  .target_transactions = 2,
                  .received_bytes = 123'456'789'012};
  TableStatus& table = status.tables.emplace_back();
  table.name = {.schema = "public", .name = "a\"b\\c\nd"};
  table.state = TableState::Ready;
  table.bytes_total = 1000;
  table.copied->bytes = 1200;
  table.copied->rows = 11;
  status.slot = SlotStatus{.name = "walferry_netbox",
                           .active = true,
                           .restart_lsn = Lsn{16},
                           .confirmed_flush_lsn = Lsn{32},
                           .retained_wal_bytes = 1 << 24,
                           .wal_status = "extended",
                           .safe_wal_size = 1 << 30};
  status.last_error = LastError{.text = "gone", .at = status.started_at};
  return status;
}

TEST_CASE("every line is a sample or a comment, and every family has one help and one type") {
  const Scrape scrape = parse(metrics_text(sample_status()));
  CHECK(scrape.samples.size() > 40);
  for (const auto& [series, value] : scrape.samples) {
    CAPTURE(series);
    const std::string family = family_of(series);
    CHECK(family.starts_with("walferry_"));
    CHECK(scrape.helps.contains(family));
    REQUIRE(scrape.types.contains(family));
    CHECK((scrape.types.at(family) == "counter") == family.ends_with("_total"));
  }
}

TEST_CASE("the values are those of the status") {
  const Scrape scrape = parse(metrics_text(sample_status()));
  const auto& samples = scrape.samples;
  CHECK(samples.at("walferry_lag_bytes") == 72);
  CHECK(samples.at("walferry_lag_seconds") == 0.25);
  CHECK(samples.at(R"(walferry_lsn_bytes{position="source"})") == 97'500'059'720.0);
  CHECK(samples.at(R"(walferry_phase{phase="follow"})") == 1);
  CHECK(samples.at(R"(walferry_phase{phase="copy"})") == 0);
  CHECK(samples.at(R"(walferry_apply_changes_total{kind="insert"})") == 5);
  CHECK(samples.at(R"(walferry_apply_changes_total{kind="truncate"})") == 1);
  CHECK(samples.at("walferry_received_bytes_total") == 123'456'789'012.0);
  CHECK(samples.at("walferry_slot_retained_wal_bytes") == 1 << 24);
  CHECK(samples.at("walferry_slot_safe_wal_bytes") == 1 << 30);
  CHECK(samples.at(R"(walferry_slot_wal_status{status="extended"})") == 1);
  CHECK(samples.at(R"(walferry_connected{side="source"})") == 1);
  CHECK(samples.at(R"(walferry_connected{side="target"})") == 0);
  CHECK(samples.at(R"(walferry_tables{state="ready"})") == 1);
  CHECK(samples.at("walferry_copy_copied_bytes") == 1200);
  CHECK(samples.at("walferry_start_timestamp_seconds") == 1'767'225'600);
  CHECK(samples.at("walferry_last_error_timestamp_seconds") == 1'767'225'600);
  CHECK(samples.at(R"(walferry_table_copied_rows{schema="public",table="a\"b\\c\nd"})") == 11);
}

TEST_CASE("what is not known has no sample") {
  const Scrape scrape = parse(metrics_text(Status{}));
  for (const auto& [series, value] : scrape.samples) {
    CAPTURE(series);
    CHECK_FALSE(series.starts_with("walferry_lsn_bytes"));
    CHECK_FALSE(series.starts_with("walferry_slot"));
    CHECK_FALSE(series.starts_with("walferry_last_error"));
    CHECK_FALSE(series.starts_with("walferry_copy_eta"));
  }
  CHECK_FALSE(scrape.types.contains("walferry_lsn_bytes"));
  CHECK(scrape.samples.at(R"(walferry_phase{phase="init"})") == 1);
}

TEST_CASE("the build is named") {
  const std::string text = metrics_text(Status{});
  CHECK(std::regex_search(text, std::regex{R"re(walferry_build_info\{version="[0-9]+\.[0-9]+\.[0-9]+"\} 1)re"}));
}

}  // namespace
}  // namespace walferry::http
