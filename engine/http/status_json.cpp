#include "engine/http/status_json.hpp"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <boost/json/serialize.hpp>
#include <boost/json/value.hpp>
#include <cmath>
#include <cstdint>
#include <optional>

#include "engine/progress_line.hpp"

namespace walferry::http {
namespace {

namespace json = boost::json;

constexpr int schema_version = 1;

json::string text_value(std::string_view text) {
  return json::string{valid_utf8(text)};
}

// Three decimals are enough for every rate and time here. Whole numbers are written as such, because Boost.JSON writes
// any double with an exponent.
json::value number(double value) {
  if (!std::isfinite(value)) return nullptr;
  const double rounded = std::round(value * 1000) / 1000;
  if (rounded == std::floor(rounded) && std::abs(rounded) < 9e15) return static_cast<std::int64_t>(rounded);
  return rounded;
}

json::value optional_number(const std::optional<double>& value) {
  if (!value) return nullptr;
  return number(*value);
}

json::value time_value(std::chrono::system_clock::time_point time) {
  if (time == std::chrono::system_clock::time_point{}) return nullptr;
  return json::string{iso8601(time)};
}

json::array tables_array(const Status& status) {
  json::array tables;
  tables.reserve(status.tables.size());
  const auto now = std::chrono::steady_clock::now();
  for (const TableStatus& table : status.tables) {
    json::object entry;
    entry["schema"] = text_value(table.name.schema);
    entry["name"] = text_value(table.name.name);
    entry["state"] = to_string(table.state);
    entry["bytes_total"] = table.bytes_total;
    entry["bytes_copied"] = table.copied->bytes.load(std::memory_order_relaxed);
    entry["rows_estimate"] = number(table.rows_estimate);
    entry["rows_copied"] = table.copied->rows.load(std::memory_order_relaxed);
    const std::optional<CopyRate> rate = copy_rate(table, now);
    entry["bytes_per_second"] = rate ? number(rate->bytes_per_second) : json::value{};
    entry["eta_seconds"] = rate ? optional_number(rate->eta_seconds) : json::value{};
    tables.push_back(std::move(entry));
  }
  return tables;
}

json::object copy_object(const Status& status) {
  const CopyTotals totals = copy_totals(status);
  json::object copy;
  copy["bytes_total"] = totals.bytes_total;
  copy["bytes_copied"] = totals.bytes_copied;
  copy["rows_copied"] = totals.rows_copied;
  copy["tables_total"] = totals.tables_total;
  copy["tables_copied"] = totals.tables_copied;
  // Rounded down: 1 means that nothing is left.
  copy["fraction_done"] = std::floor(totals.fraction_done * 1e6) / 1e6;
  copy["bytes_per_second"] = number(status.copy_bytes_per_second);
  copy["bytes_per_second_long"] = number(status.copy_bytes_per_second_long);
  copy["eta_seconds"] = optional_number(status.eta_seconds);
  return copy;
}

json::object apply_object(const Status& status) {
  json::object apply;
  apply["inserts"] = status.apply.inserts;
  apply["updates"] = status.apply.updates;
  apply["deletes"] = status.apply.deletes;
  apply["truncates"] = status.apply.truncates;
  apply["source_transactions"] = status.apply.source_transactions;
  apply["target_transactions"] = status.apply.target_transactions;
  apply["early_transactions"] = status.apply.early_transactions;
  apply["split_transactions"] = status.apply.split_transactions;
  apply["received_bytes"] = status.apply.received_bytes;
  apply["changes_per_second"] = number(status.apply_changes_per_second);
  apply["changes_per_second_long"] = number(status.apply_changes_per_second_long);
  return apply;
}

json::value slot_value(const std::optional<SlotStatus>& slot) {
  if (!slot) return nullptr;
  json::object entry;
  entry["name"] = text_value(slot->name);
  entry["active"] = slot->active;
  entry["restart_lsn"] = slot->restart_lsn.to_string();
  entry["confirmed_flush_lsn"] = slot->confirmed_flush_lsn.to_string();
  entry["retained_wal_bytes"] = slot->retained_wal_bytes;
  entry["wal_status"] = text_value(slot->wal_status);
  entry["safe_wal_size"] = nullptr;
  if (slot->safe_wal_size) entry["safe_wal_size"] = *slot->safe_wal_size;
  entry["awaits_standbys"] = slot->awaits_standbys;
  return entry;
}

json::value error_value(const std::optional<LastError>& error) {
  if (!error) return nullptr;
  json::object entry;
  entry["text"] = text_value(error->text);
  entry["at"] = time_value(error->at);
  return entry;
}

json::object ddl_object(const DdlStatus& ddl) {
  json::array findings;
  for (const DdlFinding& finding : ddl.findings) {
    json::object entry;
    entry["object"] = text_value(finding.object);
    entry["change"] = finding.change;
    entry["remedy"] = text_value(finding.remedy);
    findings.push_back(std::move(entry));
  }
  json::object object;
  object["policy"] = text_value(ddl.policy);
  object["trigger"] = ddl.trigger;
  object["applied"] = ddl.applied;
  object["passed"] = ddl.passed;
  object["findings"] = std::move(findings);
  return object;
}

json::object point_object(const StopPoint& point) {
  json::object entry;
  entry["lsn"] = point.lsn.to_string();
  entry["what"] = to_string(point.what);
  entry["commit_lsn"] = point.commit_lsn.to_string();
  entry["xid"] = static_cast<std::uint32_t>(point.xid);
  entry["error"] = text_value(point.error);
  return entry;
}

json::object skip_object(const Skip& skip) {
  json::object entry = point_object(skip.point);
  entry["reason"] = text_value(skip.reason);
  entry["at"] = time_value(skip.at);
  return entry;
}

json::array skips_array(const std::vector<Skip>& skips) {
  json::array list;
  for (const Skip& skip : skips) list.push_back(skip_object(skip));
  return list;
}

// The length of the valid UTF-8 sequence at the start of `text`; 0 if there is none. Overlong forms, surrogates and
// values beyond U+10FFFF are not valid.
std::size_t sequence_length(std::string_view text) {
  const auto byte_at = [text](std::size_t index) { return static_cast<unsigned char>(text[index]); };
  const unsigned char first = byte_at(0);
  if (first < 0x80) return 1;
  std::size_t length = 0;
  unsigned char second_min = 0x80;
  unsigned char second_max = 0xBF;
  if (first >= 0xC2 && first <= 0xDF) {
    length = 2;
  } else if (first >= 0xE0 && first <= 0xEF) {
    length = 3;
    if (first == 0xE0) second_min = 0xA0;
    if (first == 0xED) second_max = 0x9F;
  } else if (first >= 0xF0 && first <= 0xF4) {
    length = 4;
    if (first == 0xF0) second_min = 0x90;
    if (first == 0xF4) second_max = 0x8F;
  } else {
    return 0;
  }
  if (text.size() < length || byte_at(1) < second_min || byte_at(1) > second_max) return 0;
  for (std::size_t index = 2; index < length; ++index) {
    if (byte_at(index) < 0x80 || byte_at(index) > 0xBF) return 0;
  }
  return length;
}

}  // namespace

std::string status_json(const Status& status) {
  json::object root;
  root["schema_version"] = schema_version;
  root["running"] = status.running;
  root["phase"] = to_string(status.phase);
  root["activity"] = text_value(status.activity);
  json::array& waits = root["waits"].emplace_array();
  for (const std::string& wait : status.waits) waits.push_back(text_value(wait));
  root["migration"] = text_value(status.migration);
  root["way_back_of"] = text_value(status.way_back_of);
  root["source"] = text_value(status.source);
  root["target"] = text_value(status.target);
  root["started_at"] = time_value(status.started_at);
  root["source_lsn"] = status.source_lsn.to_string();
  root["received_lsn"] = status.received_lsn.to_string();
  root["spooled_lsn"] = status.spooled_lsn.to_string();
  root["applied_lsn"] = status.applied_lsn.to_string();
  root["confirmed_lsn"] = status.confirmed_lsn.to_string();
  root["lag_bytes"] = status.lag_bytes;
  root["lag_seconds"] = number(status.lag_seconds);
  root["spool_bytes"] = status.spool_bytes;
  root["queue_bytes"] = status.queue_bytes;
  root["source_connected"] = status.source_connected;
  root["target_connected"] = status.target_connected;
  root["apply_stopped"] = status.apply_stopped;
  root["copy"] = copy_object(status);
  root["apply"] = apply_object(status);
  root["slot"] = slot_value(status.slot);
  root["last_error"] = error_value(status.last_error);
  root["ddl"] = ddl_object(status.ddl);
  root["stop"] = nullptr;
  if (status.stop) root["stop"] = point_object(*status.stop);
  root["skips"] = skips_array(status.skips);
  root["tables"] = tables_array(status);
  return json::serialize(root);
}

std::string skip_json(const Skip& skip) {
  return json::serialize(skip_object(skip));
}

std::string acceptance_json(std::string_view object, std::string_view reason) {
  json::object root;
  root["object"] = text_value(object);
  root["reason"] = text_value(reason);
  return json::serialize(root);
}

std::string skips_json(const std::vector<Skip>& skips) {
  return json::serialize(skips_array(skips));
}

std::string error_json(std::string_view text) {
  json::object root;
  root["error"] = text_value(text);
  return json::serialize(root);
}

std::string json_string(std::string_view text) {
  return json::serialize(text_value(text));
}

std::string valid_utf8(std::string_view text) {
  std::string valid;
  valid.reserve(text.size());
  while (!text.empty()) {
    const std::size_t length = sequence_length(text);
    if (length == 0) {
      valid += "\xEF\xBF\xBD";
      text.remove_prefix(1);
    } else {
      valid += text.substr(0, length);
      text.remove_prefix(length);
    }
  }
  return valid;
}

std::string iso8601(std::chrono::system_clock::time_point time) {
  const auto milliseconds = std::chrono::floor<std::chrono::milliseconds>(time);
  const auto seconds = std::chrono::floor<std::chrono::seconds>(milliseconds);
  const std::tm calendar = fmt::gmtime(std::chrono::system_clock::to_time_t(seconds));
  return fmt::format("{:%Y-%m-%dT%H:%M:%S}.{:03}Z", calendar, (milliseconds - seconds).count());
}

}  // namespace walferry::http
