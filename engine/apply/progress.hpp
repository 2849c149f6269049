// Where the apply's position lives on the target (G1): a replication origin, or a row where origin functions are not
// granted.
//
// Invariant: the position is written by the same target transaction as the changes it stands for, so after any crash
// the target itself says exactly what it holds. Used by Applier on its own connection; create/drop/read also by
// Migration and finish.
#pragma once

#include <optional>
#include <string>

#include "engine/pg/connection.hpp"
#include "protocol/lsn.hpp"

namespace walferry::apply {

enum class ProgressKind { Origin, Row };

struct Progress {
  ProgressKind kind = ProgressKind::Origin;
  std::string name;  // of the migration

  // Makes the origin (or the row) and lets it stand at `start`. Only before anything is applied. Idempotent. Creates
  // schema walferry for the row.
  static Progress prepare(pg::Session& target, const std::string& name, Lsn start);
  // An origin for a lane of the apply; it stands at nothing until the lane has committed. Idempotent.
  static Progress prepare_lane(pg::Session& target, const std::string& name, unsigned lane);
  // Which of the two exists; nullopt when neither does.
  static std::optional<Progress> find(pg::Session& target, const std::string& name);
  // The same; throws Error{Refused} when neither does.
  static Progress of(pg::Session& target, const std::string& name);
  // With those of its lanes.
  static void drop(pg::Session& target, const std::string& name);

  // The position, flushed: everything before it survives a crash of the target.
  [[nodiscard]] Lsn read(pg::Session& target) const;

  // Statements of an apply connection: once after connecting; to own the position, which one session does at a time,
  // and to give it away; and inside each target transaction ($1 LSN, $2 commit time in microseconds since 2000-01-01
  // UTC).
  [[nodiscard]] std::string settings_sql() const;
  [[nodiscard]] std::string take_sql() const;
  [[nodiscard]] std::string release_sql() const;
  [[nodiscard]] std::string advance_sql() const;
  // Returns the flushed position of the attached session.
  [[nodiscard]] std::string durable_sql() const;
  // Whether commits may return before they are flushed. Only an origin goes back together with the lost commits *and*
  // can be asked what is flushed; the row is read back, so its commits must be flushed.
  [[nodiscard]] bool lazy_commit() const { return kind == ProgressKind::Origin; }
};

}  // namespace walferry::apply
