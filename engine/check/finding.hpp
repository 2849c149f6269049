// One thing that check found out, and the two ways to show a list of them.
//
// A finding that is not a Pass always carries its remedy: the SQL statement or the setting that a person can use as it
// stands. Ids ("source.wal_level") are a contract for scripts; titles and details are for people. Nothing here talks to
// a server. Made by check_migration(), printed by cli.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace walferry {

enum class Severity { Pass, Warn, Fail };

[[nodiscard]] std::string_view to_string(Severity severity);

struct Finding {
  Severity severity = Severity::Pass;
  std::string id;           // "source.wal_level"
  std::string title;        // one line
  std::string detail = {};  // why it matters, what was seen
  std::string remedy = {};  // exact SQL or setting, may have several lines
};

// One block a finding, its detail and remedy indented below; the verdict is the last line.
[[nodiscard]] std::string render_text(const std::vector<Finding>& findings, bool color);
[[nodiscard]] std::string render_json(const std::vector<Finding>& findings);

// 0 without a Fail; 5 or 6 when the source or the target could not be reached; else 2.
[[nodiscard]] int exit_code(const std::vector<Finding>& findings);

}  // namespace walferry
