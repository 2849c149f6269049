// A Status as the JSON object that /status answers and `walferry status --json` prints.
//
// The keys are a contract with monitoring (schema_version counts its breaking changes). LSNs are strings as PostgreSQL
// prints them, times ISO 8601 in UTC, counters as counted and never clamped, unknown values null. Text that is not
// valid UTF-8 (names in a database with another encoding) is made valid, because JSON and Prometheus allow nothing
// else.
#pragma once

#include <chrono>
#include <string>
#include <string_view>
#include <vector>

#include "engine/status.hpp"

namespace walferry::http {

[[nodiscard]] std::string status_json(const Status& status);

// What `walferry skip` answers, and a list of such for the cutover's report.
[[nodiscard]] std::string skip_json(const Skip& skip);
[[nodiscard]] std::string acceptance_json(std::string_view object, std::string_view reason);
[[nodiscard]] std::string skips_json(const std::vector<Skip>& skips);

// {"error": "..."}: what every answer that is not a success carries.
[[nodiscard]] std::string error_json(std::string_view text);

// The JSON string literal for `text`, quotes included.
[[nodiscard]] std::string json_string(std::string_view text);

// `text` with every byte that is not part of a valid UTF-8 sequence replaced by U+FFFD.
[[nodiscard]] std::string valid_utf8(std::string_view text);

// "2026-01-31T12:00:00.250Z".
[[nodiscard]] std::string iso8601(std::chrono::system_clock::time_point time);

}  // namespace walferry::http
