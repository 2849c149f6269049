// The keys of /status, read back with the parser that the command line uses.
#include "engine/http/status_json.hpp"

#include <doctest/doctest.h>
#include <simdjson.h>

#include <chrono>
#include <limits>

namespace walferry::http {
namespace {

using simdjson::dom::element;

Status full_status() {
  Status status;
  status.phase = Phase::CatchUp;
  status.activity = "applying";
  status.migration = "walferry_netbox";
  status.source = "host=old dbname=netbox";
  status.target = "host=new dbname=netbox";
  status.started_at = std::chrono::system_clock::time_point{std::chrono::milliseconds{1'767'225'600'250}};
  status.source_lsn = Lsn{0x16'B374D848};
  status.received_lsn = Lsn{0x16'B374D847};
  status.applied_lsn = Lsn{0x15'00000001};
  status.lag_bytes = 42;
  status.lag_seconds = 1.23456;
  status.source_connected = true;
  TableStatus& table = status.tables.emplace_back();
  table.name = {.schema = "public", .name = "dcim_\"device\""};
  table.state = TableState::Copying;
  table.bytes_total = 100;
  table.rows_estimate = 7;
  table.copied->bytes = 150;
  table.copied->rows = 9;
  status.copy_bytes_per_second = 12'000'000;
  status.apply.inserts = 3;
  status.apply_changes_per_second = 0.5;
  return status;
}

TEST_CASE("status JSON holds every key of the contract") {
  const std::string json = status_json(full_status());
  simdjson::dom::parser parser;
  const element status = parser.parse(json);
  for (const char* key :
       {"schema_version",   "phase",         "activity",    "waits",        "migration",   "source",
        "target",           "started_at",    "source_lsn",  "received_lsn", "spooled_lsn", "applied_lsn",
        "confirmed_lsn",    "lag_bytes",     "lag_seconds", "spool_bytes",  "queue_bytes", "source_connected",
        "target_connected", "apply_stopped", "tables",      "copy",         "apply",       "slot",
        "last_error"}) {
    CAPTURE(key);
    CHECK(status[key].error() == simdjson::SUCCESS);
  }
  CHECK(std::int64_t{status["schema_version"]} == 1);
  CHECK(std::string_view{status["phase"]} == "catch-up");
  CHECK(std::string_view{status["source_lsn"]} == "16/B374D848");
  CHECK(std::string_view{status["spooled_lsn"]} == "0/0");
  CHECK(std::string_view{status["started_at"]} == "2026-01-01T00:00:00.250Z");
  CHECK(std::int64_t{status["lag_bytes"]} == 42);
  CHECK(double{status["lag_seconds"]} == doctest::Approx(1.235));
  CHECK(bool{status["source_connected"]});
  CHECK(status["slot"].is_null());
  CHECK(status["last_error"].is_null());
  for (const char* key : {"bytes_total", "bytes_copied", "rows_copied", "tables_total", "tables_copied",
                          "fraction_done", "bytes_per_second", "bytes_per_second_long", "eta_seconds"}) {
    CAPTURE(key);
    CHECK(status["copy"][key].error() == simdjson::SUCCESS);
  }
  CHECK(status["copy"]["eta_seconds"].is_null());
  CHECK(std::int64_t{status["copy"]["bytes_per_second"]} == 12'000'000);
  CHECK(std::int64_t{status["apply"]["inserts"]} == 3);
  CHECK(double{status["apply"]["changes_per_second"]} == 0.5);
}

TEST_CASE("a table's counters are shown as counted, above its size too") {
  const std::string json = status_json(full_status());
  simdjson::dom::parser parser;
  const element table = parser.parse(json)["tables"].at(0);
  CHECK(std::string_view{table["name"]} == "dcim_\"device\"");
  CHECK(std::string_view{table["schema"]} == "public");
  CHECK(std::string_view{table["state"]} == "copying");
  CHECK(std::int64_t{table["bytes_total"]} == 100);
  CHECK(std::int64_t{table["bytes_copied"]} == 150);
  CHECK(std::int64_t{table["rows_copied"]} == 9);
  CHECK(std::int64_t{table["rows_estimate"]} == 7);
}

TEST_CASE("slot and last error are objects when they are known") {
  Status status = full_status();
  status.slot = SlotStatus{.name = "walferry_netbox",
                           .active = true,
                           .restart_lsn = Lsn{16},
                           .confirmed_flush_lsn = Lsn{32},
                           .retained_wal_bytes = 1 << 24,
                           .wal_status = "extended",
                           .safe_wal_size = std::nullopt,
                           .awaits_standbys = true};
  status.last_error = LastError{.text = "line one\nline \"two\"", .at = status.started_at};
  simdjson::dom::parser parser;
  const std::string json = status_json(status);
  const element read = parser.parse(json);
  CHECK(bool{read["slot"]["active"]});
  CHECK(std::string_view{read["slot"]["restart_lsn"]} == "0/10");
  CHECK(std::string_view{read["slot"]["wal_status"]} == "extended");
  CHECK(std::int64_t{read["slot"]["retained_wal_bytes"]} == 1 << 24);
  CHECK(read["slot"]["safe_wal_size"].is_null());
  CHECK(bool{read["slot"]["awaits_standbys"]});
  CHECK(std::string_view{read["last_error"]["text"]} == "line one\nline \"two\"");
  CHECK(std::string_view{read["last_error"]["at"]} == "2026-01-01T00:00:00.250Z");
}

TEST_CASE("a number that is none becomes null") {
  Status status = full_status();
  status.lag_seconds = std::numeric_limits<double>::quiet_NaN();
  status.eta_seconds = std::numeric_limits<double>::infinity();
  const std::string json = status_json(status);
  simdjson::dom::parser parser;
  const element read = parser.parse(json);
  CHECK(read["lag_seconds"].is_null());
  CHECK(read["copy"]["eta_seconds"].is_null());
}

TEST_CASE("text in another encoding becomes valid UTF-8") {
  struct Case {
    std::string_view given;
    std::string_view expected;
  };
  const Case cases[] = {
      {"plain", "plain"},
      {"gr\xC3\xBC\xC3\x9F", "gr\xC3\xBC\xC3\x9F"},
      {"gr\xFC\xDF", "gr\xEF\xBF\xBD\xEF\xBF\xBD"},
      {"\xF0\x9F\x98\x80", "\xF0\x9F\x98\x80"},
      {"\xE2\x82", "\xEF\xBF\xBD\xEF\xBF\xBD"},                  // cut short
      {"\xC0\xAF", "\xEF\xBF\xBD\xEF\xBF\xBD"},                  // overlong
      {"\xED\xA0\x80", "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD"},  // surrogate
      {"\xF4\x90\x80\x80", "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD"},
  };
  for (const Case& each : cases) CHECK(valid_utf8(each.given) == each.expected);
  Status status = full_status();
  status.activity = "gr\xFC\xDF";
  const std::string json = status_json(status);
  simdjson::dom::parser parser;
  CHECK(parser.parse(json).error() == simdjson::SUCCESS);
}

TEST_CASE("an error is an object with one text") {
  CHECK(error_json("no \"such\" thing") == R"({"error":"no \"such\" thing"})");
  CHECK(json_string("a\nb") == R"("a\nb")");
}

}  // namespace
}  // namespace walferry::http
