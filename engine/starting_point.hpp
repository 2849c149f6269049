// Where a run of the daemon begins in the stream: what the target holds, what the spool kept and what the slot still
// sends must fit together without a gap (G1).
//
// Pure questions: nothing is changed on either end. Called by Migration on a pool thread, once in every run.
#pragma once

#include <optional>
#include <string>

#include "engine/pg/conninfo.hpp"
#include "protocol/lsn.hpp"

namespace walferry {

struct StartingPointQuestion {
  pg::ConnInfo source;
  pg::ConnInfo target;
  std::string migration;            // the slot's name
  Lsn spool_end;                    // everything before it was received and kept on disk; zero: nothing is kept
  std::optional<std::string> idle;  // journal_keys::idle_confirmed
};

// The target's own word: it holds every transaction that ended at or before this LSN.
// Throws Error{Refused} when the slot is gone or lost, when the target knows nothing of the migration, or when the
// source was told to forget what neither target nor spool holds.
[[nodiscard]] Lsn find_starting_point(const StartingPointQuestion& question);

}  // namespace walferry
