// The one-line view and its number formats.
#include "engine/progress_line.hpp"

#include <doctest/doctest.h>

#include <limits>

namespace walferry {
namespace {

TableStatus table(std::string name, TableState state, std::int64_t total, std::int64_t copied, std::int64_t rows) {
  TableStatus made;
  made.name = {.schema = "public", .name = std::move(name)};
  made.state = state;
  made.bytes_total = total;
  made.copied->bytes = copied;
  made.copied->rows = rows;
  return made;
}

Status copying() {
  Status status;
  status.phase = Phase::Copy;
  status.source_connected = true;
  status.target_connected = true;
  status.received_lsn = Lsn{0x1A2B3C4};
  status.spool_bytes = 12 << 20;
  status.tables = {table("a", TableState::Copied, 1000 << 20, 700 << 20, 10'000'000),
                   table("b", TableState::Copying, 1000 << 20, 250 << 20, 2'300'000),
                   table("c", TableState::Pending, 867 << 20, 0, 0)};
  status.copy_bytes_per_second = 85 << 20;
  status.copy_bytes_per_second_long = 80 << 20;
  status.eta_seconds = 18;
  return status;
}

TEST_CASE("every phase is read back from its name") {
  for (int value = 0; value <= static_cast<int>(Phase::Aborted); ++value) {
    const auto phase = static_cast<Phase>(value);
    CHECK(parse_phase(to_string(phase)) == phase);
  }
  CHECK(to_string(Phase::PostData) == "post-data");
  CHECK(to_string(Phase::CatchUp) == "catch-up");
  CHECK_FALSE(parse_phase("Copy").has_value());
  CHECK_FALSE(parse_phase("").has_value());
  CHECK(to_string(TableState::Indexing) == "indexing");
}

TEST_CASE("a copy shows bytes, rows, both rates, the time left and the spool") {
  CHECK(progress_line(copying()) ==
        "copy 43.5 % 950 MiB of 2.8 GiB, 12.3M rows, 85 MiB/s (10 s) 80 MiB/s (2 min), ETA 18 s, 1/3 tables; "
        "received 0/1A2B3C4, spool 12 MiB");
  Status status = copying();
  status.eta_seconds.reset();
  CHECK(progress_line(status).find("ETA unknown") != std::string::npos);
}

TEST_CASE("a finished table counts whole and a table never counts more than whole") {
  Status status = copying();
  // Text can be longer than the heap it came from.
  status.tables[1].copied->bytes = 5000LL << 20;
  const CopyTotals totals = copy_totals(status);
  CHECK(totals.bytes_copied == 5700LL << 20);
  CHECK(totals.fraction_done == doctest::Approx(2000.0 / 2867.0));
  for (TableStatus& each : status.tables) each.state = TableState::Ready;
  CHECK(copy_totals(status).fraction_done == 1);
  CHECK(copy_totals(Status{}).fraction_done == 0);
}

TEST_CASE("tables without bytes are counted by number") {
  Status status;
  status.tables = {table("a", TableState::Copied, 0, 0, 0), table("b", TableState::Pending, 0, 0, 0)};
  CHECK(copy_totals(status).fraction_done == 0.5);
}

TEST_CASE("follow shows lag, position and rate") {
  Status status;
  status.phase = Phase::Follow;
  status.source_connected = true;
  status.target_connected = true;
  status.applied_lsn = Lsn{0x16'B374D848};
  status.apply_changes_per_second = 1234;
  CHECK(progress_line(status) == "follow lag 0 B 0.0 s, applied 16/B374D848, 1,234 changes/s");
  status.phase = Phase::CatchUp;
  status.lag_bytes = 3LL << 30;
  status.lag_seconds = 33;
  CHECK(progress_line(status).starts_with("catch-up lag 3.0 GiB 33.0 s, applied 16/B374D848, 1,234 changes/s (10 s) "));
}

TEST_CASE("the line says why nothing moves, without line breaks") {
  Status status = copying();
  status.source_connected = false;
  status.activity = "reconnecting to the source in 3 s";
  CHECK(progress_line(status).ends_with("; source not connected: reconnecting to the source in 3 s"));
  status.apply_stopped = true;
  status.last_error = LastError{.text = "no row with\nkey (id)=(7)", .at = {}};
  CHECK(progress_line(status).ends_with("; apply stopped: no row with key (id)=(7)"));
  Status schema;
  schema.phase = Phase::Schema;
  schema.source_connected = true;
  schema.target_connected = true;
  schema.activity = "restoring the pre-data section";
  CHECK(progress_line(schema) == "schema restoring the pre-data section");
}

TEST_CASE("post-data counts the tables that are ready") {
  Status status = copying();
  status.phase = Phase::PostData;
  status.tables[0].state = TableState::Ready;
  CHECK(progress_line(status).starts_with("post-data 1/3 tables ready; received 0/1A2B3C4"));
}

TEST_CASE("bytes are shown in binary units with at most three digits") {
  CHECK(human_bytes(0) == "0 B");
  CHECK(human_bytes(1023) == "1023 B");
  CHECK(human_bytes(1024) == "1.0 KiB");
  CHECK(human_bytes(1024 * 1024 - 1) == "1.0 MiB");
  CHECK(human_bytes(85.4 * (1 << 20)) == "85 MiB");
  CHECK(human_bytes(-2048) == "-2.0 KiB");
  CHECK(human_bytes(std::numeric_limits<double>::infinity()) == "unknown");
}

TEST_CASE("counts are grouped while short and shortened when long") {
  CHECK(human_count(0) == "0");
  CHECK(human_count(0.25) == "0.2");
  CHECK(human_count(1234) == "1,234");
  CHECK(human_count(12'345) == "12.3k");
  CHECK(human_count(999'949) == "999.9k");
  CHECK(human_count(999'951) == "1.0M");
  CHECK(human_count(12.34e6) == "12.3M");
  CHECK(grouped(1'234'567) == "1,234,567");
  CHECK(grouped(-123) == "-123");
  CHECK(grouped(-1234) == "-1,234");
}

TEST_CASE("durations are shown in their two largest units") {
  CHECK(human_duration(0.04) == "0.0 s");
  CHECK(human_duration(18.2) == "18 s");
  CHECK(human_duration(125) == "2 min 5 s");
  CHECK(human_duration(11'520) == "3 h 12 min");
  CHECK(human_duration(187'200) == "2 d 4 h");
  CHECK(human_duration(std::numeric_limits<double>::quiet_NaN()) == "unknown");
}

}  // namespace
}  // namespace walferry
