#include "engine/schema/drop_objects.hpp"

#include <fmt/format.h>

#include <optional>

#include "engine/schema/archive.hpp"

namespace walferry::schema {
namespace {

std::string one_line(std::string text) {
  for (char& c : text) {
    if (c == '\n') c = ' ';
  }
  return text;
}

// The object, or its schema or table, is gone or was never made.
bool is_gone(const std::string& sqlstate) {
  return sqlstate == "42P01" || sqlstate == "42704" || sqlstate == "42883" || sqlstate == "3F000" ||
         sqlstate == "42703";
}

// Why the statement failed; nothing when the object is gone now.
std::optional<std::string> drop(pg::Session& target, const std::string& statement) {
  try {
    target.exec(statement);
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::Sql) throw error.during("dropping objects of the target");
    if (!is_gone(error.sqlstate())) return error.what();
  }
  return std::nullopt;
}

}  // namespace

DropReport drop_migrated_objects(const PgTools& tools, pg::Session& target, const std::filesystem::path& archive,
                                 const std::stop_token& stop) {
  DropReport report;
  std::vector<std::string> waiting;
  for (std::string& statement : read_drop_statements(tools, archive, stop)) {
    if (statement.starts_with("DROP SCHEMA IF EXISTS public;")) continue;
    if (statement.starts_with("DROP EXTENSION ")) {
      report.left.push_back(one_line(statement) + " left out: the target may have had the extension before");
    } else {
      waiting.push_back(std::move(statement));
    }
  }
  // An object of a partition cannot go before the partition: what fails is tried again for as long as something else
  // went.
  for (bool progress = true; progress && !waiting.empty();) {
    progress = false;
    std::vector<std::string> failed;
    std::vector<std::string> reasons;
    for (std::string& statement : waiting) {
      if (stop.stop_requested()) {
        throw Error{{ErrorKind::Stopped, target.side()}, "stopped while dropping objects of the target"};
      }
      if (const auto reason = drop(target, statement)) {
        reasons.push_back(fmt::format("{} {}", one_line(statement), *reason));
        failed.push_back(std::move(statement));
      } else {
        ++report.executed;
        progress = true;
      }
    }
    waiting = std::move(failed);
    if (!progress || waiting.empty()) report.left.insert(report.left.end(), reasons.begin(), reasons.end());
  }
  return report;
}

}  // namespace walferry::schema
