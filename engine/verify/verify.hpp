// Proof that both ends hold the same: every table by rows and hash (digest.hpp), and every sequence.
//
// verify() opens its own sessions and reads each side under one snapshot; cutover does it in two steps. Nothing is
// written on either side. Called by cli and cutover.
#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <set>
#include <stop_token>
#include <string>

#include "engine/pg/conninfo.hpp"
#include "engine/selection.hpp"
#include "engine/touched_rows.hpp"
#include "engine/verify/report.hpp"

namespace walferry {

struct VerifyOptions {
  int jobs = 2;  // sessions a side
  // Snapshots under which the sides are read (pg_export_snapshot, or that of a slot). Without one, each side is read
  // under one fresh snapshot of its own, which is an answer only while both sides are at rest.
  std::optional<std::string> source_snapshot = {};
  std::optional<std::string> target_snapshot = {};
  bool sequences = true;
  // Tables and sequences that only the target has do not count as a difference.
  bool allow_extra_on_target = false;
  // Of each statement; zero: none. A table that somebody has locked exclusively makes even its size wait.
  std::chrono::milliseconds statement_timeout{0};
  // Of each wait for a lock; zero: none.
  std::chrono::milliseconds lock_timeout{0};
  // Only these tables, where a migration carries only some; absent: all, and large objects and the rows of users in
  // tables of extensions as well.
  std::optional<std::set<QualifiedName>> only = {};
  // The same by patterns; sequences that only the source has are then no difference.
  SelectionRules selection = {};
  // Whose changes are not in the stream: unlogged tables, large objects, rows in tables of extensions.
  bool outside_the_stream = true;
  std::string client_encoding = "UTF8";  // in which the keys of touched rows stand
};

// A comparison in two steps, for a cutover that has no time to open sessions and read catalogs while writers wait.
class Verification {
 public:
  // Opens the sessions, reads both catalogs and plans the work. Nothing is compared yet.
  [[nodiscard]] static Verification prepare(const pg::ConnInfo& source, const pg::ConnInfo& target,
                                            const VerifyOptions& options, const std::stop_token& stop);
  // Lets every session plan every statement once, so that its caches are filled.
  void warm_up();
  // Takes the snapshots and compares; once. With `touched` only what it names, and what is not in the
  // stream.
  [[nodiscard]] VerifyReport run(const std::stop_token& stop, const TouchedRows* touched = nullptr);

  Verification(Verification&&) noexcept;
  ~Verification();

 private:
  struct Prepared;
  explicit Verification(std::unique_ptr<Prepared> prepared);
  std::unique_ptr<Prepared> prepared_;
};

// Both steps at once. Throws Error{Connection} when a side fails, Error{Verification} when a comparison cannot be made,
// Error{Stopped}.
[[nodiscard]] VerifyReport verify(const pg::ConnInfo& source, const pg::ConnInfo& target, const VerifyOptions& options,
                                  std::stop_token stop);

}  // namespace walferry
