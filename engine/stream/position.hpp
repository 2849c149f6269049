// Where the stream stands: shared by Receiver, Applier and Migration, all on the io thread.
//
// Invariant: confirmed <= what is durable on the target or in the spool <= received.
#pragma once

#include <chrono>

#include "protocol/lsn.hpp"

namespace walferry::stream {

struct Position {
  Lsn received;        // every transaction that committed before it has been received
  Lsn applied;         // ... has been committed on the target
  Lsn target_durable;  // ... is flushed there
  Lsn confirmed;       // told to the source as flushed
  Lsn idle_end;        // newest keepalive position at which nothing was in transit

  std::chrono::steady_clock::duration apply_at_work{};  // how long, in all: neither waiting for changes nor connecting

  bool apply_idle = false;  // the apply is attached, has committed all it took, and waits for more

  bool source_behind = false;  // what arrives was committed some time ago, and there is more of it

  Lsn source_wal_end;                              // newest position the walsender named
  PgTime source_time;                              // its clock when it last spoke
  std::chrono::steady_clock::time_point heard_at;  // when source_time was read
  PgTime applied_time;  // everything that committed on the source before this moment of its clock is applied
};

}  // namespace walferry::stream
