// The parts of the check, and what they share: the list being filled and one open side.
//
// A question that the server refuses to answer becomes a Warn of its own and never hides the other answers; only a lost
// connection ends a part. Used inside engine/check alone.
#pragma once

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "engine/catalog.hpp"
#include "engine/check/check.hpp"
#include "engine/check/finding.hpp"
#include "engine/listed.hpp"
#include "engine/pg/session.hpp"

namespace walferry::check {

class Findings {
 public:
  void pass(std::string id, std::string title, std::string detail = {}) {
    list_.push_back({Severity::Pass, std::move(id), std::move(title), std::move(detail), {}});
  }
  // A Warn and a Fail say what, why and the remedy; designated initialisers keep the three apart.
  struct Problem {
    std::string title;
    std::string detail;
    std::string remedy;
  };
  void warn(std::string id, Problem problem) { add(Severity::Warn, std::move(id), std::move(problem)); }
  void fail(std::string id, Problem problem) { add(Severity::Fail, std::move(id), std::move(problem)); }
  void add(Severity severity, std::string id, Problem problem) {
    list_.push_back(
        {severity, std::move(id), std::move(problem.title), std::move(problem.detail), std::move(problem.remedy)});
  }

  // Runs one question; a refused statement becomes Warn `id`.
  void ask(const std::string& id, const std::function<void()>& question);

  [[nodiscard]] std::vector<Finding> take() && { return std::move(list_); }

 private:
  std::vector<Finding> list_;
};

// One side while it is being examined.
struct End {
  pg::Session session;
  DatabaseIdentity identity;
  Catalog catalog;
  std::string role;  // current_user
  bool superuser = false;

  [[nodiscard]] int major() const { return identity.server_version / 10000; }
  [[nodiscard]] std::string setting(const std::string& name);            // "" where this server does not know it
  [[nodiscard]] std::int64_t number(const std::string& sql);             // of one row, one column
  [[nodiscard]] std::vector<std::string> texts(const std::string& sql);  // the first column
};

// Connects and reads identity and catalog.
[[nodiscard]] End open_end(const pg::ConnInfo& info);

// Takes the tables that are not selected out of the source's catalog, and says what goes with them.
void check_selection(End& source, const CheckOptions& options, Findings& findings);
void check_source(End& source, const CheckOptions& options, Findings& findings);
void check_source_tables(End& source, const CheckOptions& options, Findings& findings);
void check_target(End& target, const CheckOptions& options, Findings& findings);
// What --adopt asks for: slot and publication made beforehand; the data, and the LSN at which it stands.
void check_adopted_source(End& source, const CheckOptions& options, Findings& findings);
void check_adopted_target(End& source, End& target, const CheckOptions& options, Findings& findings);
void check_pair(End& source, End& target, const CheckOptions& options, Findings& findings);

// What both sides are asked, under "source." or "target.".
void check_direct_connection(End& end, Findings& findings);
void check_free_connections(End& end, std::int64_t needed, Findings& findings);

// Those of the target's tables that hold rows; where a table may not be read, its size decides.
[[nodiscard]] std::vector<std::string> tables_with_rows(End& target);

// "1 table", "3 tables".
[[nodiscard]] std::string counted(std::size_t number, std::string_view one, std::string_view many);
[[nodiscard]] std::string bytes_text(std::int64_t bytes);

}  // namespace walferry::check
