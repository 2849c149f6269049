// The terminal view of /status.
#include "cli/status_view.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <sstream>
#include <string>
#include <vector>

#include "engine/error.hpp"
#include "engine/http/status_json.hpp"

namespace walferry {
namespace {

Status copying() {
  Status status;
  status.phase = Phase::Copy;
  status.activity = "copying 2 tables; the target's disk is what it waits for";
  status.migration = "walferry_netbox";
  status.source = "host=old dbname=netbox";
  status.target = "host=new dbname=netbox";
  status.source_lsn = Lsn{0x16'B374D848};
  status.received_lsn = Lsn{0x16'B374D800};
  status.lag_bytes = 3LL << 30;
  status.lag_seconds = 125;
  status.spool_bytes = 12 << 20;
  status.source_connected = true;
  status.target_connected = true;
  for (int number = 0; number < 30; ++number) {
    TableStatus& table = status.tables.emplace_back();
    table.name = {.schema = "public", .name = "table_" + std::to_string(number)};
    table.bytes_total = (number + 1) << 20;
    table.state = number < 2 ? TableState::Copying : number < 10 ? TableState::Ready : TableState::Pending;
    if (number < 10) table.copied->bytes = table.bytes_total / 2;
  }
  status.copy_bytes_per_second = 85 << 20;
  status.copy_bytes_per_second_long = 80 << 20;
  status.eta_seconds = 18;
  status.slot = SlotStatus{.name = "walferry_netbox",
                           .active = true,
                           .restart_lsn = Lsn{16},
                           .confirmed_flush_lsn = Lsn{32},
                           .retained_wal_bytes = 1 << 24,
                           .wal_status = "extended",
                           .safe_wal_size = 1 << 30};
  return status;
}

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream stream{text};
  for (std::string line; std::getline(stream, line);) lines.push_back(line);
  return lines;
}

std::string render(const Status& status, const StatusViewOptions& options) {
  return render_status(http::status_json(status), options);
}

bool holds(const std::string& text, std::string_view part) {
  return text.find(part) != std::string::npos;
}

TEST_CASE("the view shows phase, cause, lag, positions, rates, progress and slot") {
  const std::string text = render(copying(), {.width = 160});
  CHECK(holds(text, "phase     copy\n"));
  CHECK(holds(text, "now       copying 2 tables; the target's disk is what it waits for"));
  CHECK(holds(text, "lag       3.0 GiB, applied once the copy is complete"));
  CHECK(holds(text, "source 16/B374D848, received 16/B374D800"));
  CHECK(holds(text, "85 MiB/s (10 s), 80 MiB/s (2 min), ETA 18 s"));
  CHECK(holds(text, "8/30 tables"));
  CHECK(holds(text, "source keeps 16 MiB of WAL for it, wal_status extended, lost after 1.0 GiB more"));
  CHECK(holds(text, "8 ready, 2 copying, 20 pending"));
}

TEST_CASE("tables at work come first, then those that wait, the most left on top") {
  const std::string text = render(copying(), {.width = 120});
  const std::size_t second = text.find("public.table_1 ");
  const std::size_t first = text.find("public.table_0 ");
  const std::size_t largest = text.find("public.table_29");
  REQUIRE(second != std::string::npos);
  CHECK(second < first);
  CHECK(first < largest);
  CHECK_FALSE(holds(text, "public.table_5 "));
}

TEST_CASE("no view is higher or wider than asked") {
  Status status = copying();
  status.tables[0].name.name = std::string(200, 'x');
  status.last_error = LastError{.text = std::string(300, 'e') + " and words", .at = {}};
  for (const int width : {30, 60, 80, 200}) {
    for (const int height : {1, 5, 24, 50}) {
      CAPTURE(width);
      CAPTURE(height);
      const std::vector<std::string> lines = lines_of(render(status, {.width = width, .height = height}));
      CHECK(lines.size() <= static_cast<std::size_t>(height));
      for (const std::string& line : lines) {
        CAPTURE(line);
        const auto columns = std::count_if(line.begin(), line.end(), [](char c) { return (c & 0xC0) != 0x80; });
        CHECK(columns <= width);
      }
    }
  }
  CHECK(holds(render(copying(), {.width = 80, .height = 24}), "more\n"));
}

TEST_CASE("a stopped apply and a lost side are named") {
  Status status = copying();
  status.target_connected = false;
  CHECK_FALSE(holds(render(status, {.width = 120}), "(not connected)"));  // nothing is applied yet
  status.phase = Phase::Follow;
  status.apply_stopped = true;
  status.last_error = LastError{.text = "row (id)=(7) of public.site is not there", .at = {}};
  const std::string text = render(status, {.width = 120});
  CHECK(holds(text, "follow, apply stopped"));
  CHECK(holds(text, "lag       3.0 GiB, 2 min 5 s"));
  CHECK(holds(text, "host=new dbname=netbox (not connected)"));
  CHECK(holds(text, "row (id)=(7) of public.site is not there"));
}

TEST_CASE("colours come only when asked for, and names cannot bring their own") {
  Status status = copying();
  status.tables[0].name.name = "evil\x1b[2J\xC2\x9B";
  CHECK_FALSE(holds(render(status, {.width = 120}), "\x1b"));
  CHECK(holds(render(status, {.width = 120}), "evil?[2J?"));
  const std::string coloured = render(status, {.color = true, .width = 120});
  CHECK(holds(coloured, "\x1b[1m"));
  CHECK_FALSE(holds(coloured, "\x1b[2J"));
}

TEST_CASE("a finished copy is whole, whatever its text weighed") {
  Status status = copying();
  for (TableStatus& table : status.tables) table.state = TableState::Ready;
  status.phase = Phase::Follow;
  const std::string text = render(status, {.width = 120});
  CHECK(holds(text, "[########################] 100.0 %"));
  CHECK_FALSE(holds(text, "ETA"));
  CHECK_FALSE(holds(text, "public.table_"));
}

TEST_CASE("what is not a status is refused") {
  for (const char* json : {"", "{", "[]", "{}", "{\"copy\":1}"}) {
    CAPTURE(json);
    CHECK_THROWS_AS((void)render_status(json, {}), Error);
  }
}

}  // namespace

TEST_CASE("a table that is being copied has a rate and an ETA of its own, others have none") {
  Status status = copying();
  // 1 MiB in all, half of it copied in the last 100 s.
  status.tables[0].copying_since = std::chrono::steady_clock::now() - std::chrono::seconds{100};
  const std::string text = render(status, {.width = 160});
  CHECK(holds(text, "/s, ETA "));
  std::size_t rates = 0;
  for (const std::string& line : lines_of(text)) {
    if (line.find("public.table_") != std::string::npos && line.find("/s, ETA") != std::string::npos) ++rates;
  }
  CHECK(rates == 1);
}

TEST_CASE("the rate of a table counts from the beginning of its copy") {
  using namespace std::chrono_literals;
  const auto now = std::chrono::steady_clock::now();
  TableStatus table;
  table.state = TableState::Copying;
  table.bytes_total = 300;
  table.copied->bytes = 100;
  CHECK_FALSE(copy_rate(table, now));  // it is not known when it began
  table.copying_since = now - 10s;
  const std::optional<CopyRate> rate = copy_rate(table, now);
  REQUIRE(rate);
  CHECK(rate->bytes_per_second == doctest::Approx(10));
  CHECK(*rate->eta_seconds == doctest::Approx(20));
  // The total is an estimate: beyond it nothing is promised.
  table.copied->bytes = 400;
  CHECK_FALSE(copy_rate(table, now)->eta_seconds);
  table.state = TableState::Copied;
  CHECK_FALSE(copy_rate(table, now));
}

}  // namespace walferry
