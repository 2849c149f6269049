// Where the apply's position lives on the target (G1): in the table walferry.progress_<migration>, which gets a row
// from each target transaction of a lane; the highest counts.
//
// Invariant: the position is written by the same target transaction as the changes it stands for, so after any crash,
// and after a commit that failed, the target itself says exactly what it holds. (A replication origin does not: from
// PostgreSQL 16 on it also moves in a transaction that is rolled back.) Rows are only added, and all of them replaced
// now and then: an updated row would leave a version for every commit that some snapshot on the target may still see,
// and each further update would have to pass them all. Used by the apply's connections; made, read and dropped also by
// Migration, Cutover and finish.
#pragma once

#include <string>

#include "engine/pg/session.hpp"
#include "protocol/lsn.hpp"

namespace walferry::apply {

struct Progress {
  std::string name = {};  // of the migration
  unsigned lane = 0;

  static std::string table_of(const std::string& name);
  // Makes the table, and schema walferry, and lets lane 0 stand at `start`. Only before anything is applied.
  // Idempotent.
  static void prepare(pg::Session& target, const std::string& name, Lsn start);
  static bool exists(pg::Session& target, const std::string& name);
  // Of lane 0; throws Error{Refused} when the table does not exist.
  static Progress of(pg::Session& target, const std::string& name);
  static void drop(pg::Session& target, const std::string& name);
  // Leaves one row for each lane. Not while anybody uses the table: nobody is waited for.
  static void tidy(pg::Session& target, const std::string& name);

  // The position, flushed: everything before it survives a crash of the target. Zero where a further lane has none;
  // throws Error{Refused} where lane 0 has none.
  [[nodiscard]] Lsn read(pg::Session& target) const;

  // Statements of an apply connection: to own the position, which one session does at a time (a dead predecessor's
  // backend, perhaps still committing, is waited for), and to give it away; and, inside each target transaction, to
  // move it ($1 LSN).
  [[nodiscard]] std::string take_sql() const;
  [[nodiscard]] std::string release_sql() const;
  [[nodiscard]] std::string advance_sql() const;
  // Outside of one: flushes what was committed through the position $1, and so that too.
  [[nodiscard]] std::string flush_sql() const;
};

}  // namespace walferry::apply
