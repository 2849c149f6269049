// Where a run of the daemon begins in the stream: what the target holds, what the spool kept and what the slot still
// sends must fit together without a gap (G1).
//
// Questions: all that is written is the target's position once more, to have it flushed. Called by Migration on a pool
// thread, once in every run.
#pragma once

#include <string>

#include "engine/pg/conninfo.hpp"
#include "engine/store/journal.hpp"
#include "protocol/lsn.hpp"

namespace walferry {

struct StartingPointQuestion {
  pg::ConnInfo source;
  pg::ConnInfo target;
  std::string migration;  // the slot's name
  Lsn spool_begin;        // the spool holds everything from here ...
  Lsn spool_end;          // ... to here; zero: it holds nothing
  store::IdleStretch idle;
};

// The target's own word: it holds every transaction that ended at or before this LSN. Where that is before
// `spool_begin` the spool is of no use, and the source can still send what is missing. Throws Error{Refused} when the
// slot is gone or lost, when the target knows nothing of the migration, or when the source was told to forget what
// neither target nor spool holds.
[[nodiscard]] Lsn find_starting_point(const StartingPointQuestion& question);

}  // namespace walferry
