// What a comparison of both ends found, for people and for programs. Filled by Verification, read by cli and cutover.
#pragma once

#include <boost/json/value.hpp>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "engine/catalog.hpp"
#include "engine/sequences.hpp"

namespace walferry {

struct TableComparison {
  QualifiedName name;
  std::int64_t rows_source = 0;
  std::int64_t rows_target = 0;
  std::string hash_source = {};
  std::string hash_target = {};
  bool equal = false;
  std::string note = {};                  // what explains a difference, for people
  std::optional<std::int64_t> keys = {};  // only the rows with so many keys were compared; absent: all rows
};

struct VerifyReport {
  std::vector<TableComparison> tables;        // on both sides, by name
  std::vector<SequenceComparison> sequences;  // by name
  std::vector<QualifiedName> missing_on_target;
  std::vector<QualifiedName> missing_on_source;
  bool equal = false;
  double seconds = 0;
};

// Differences first, the verdict last.
[[nodiscard]] std::string render_text(const VerifyReport& report);
[[nodiscard]] std::string render_json(const VerifyReport& report);
// {"last_value": ..., "is_called": ...}, or null where there is none.
[[nodiscard]] boost::json::value json_of(const std::optional<SequenceValue>& value);
// 0 equal, 3 differences (mission: exit codes).
[[nodiscard]] int exit_code(const VerifyReport& report);

}  // namespace walferry
