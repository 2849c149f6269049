// What finish and abort remove, and what they say of it.
//
// Both work from the journal with no migration running, are safe to repeat, and go on when one of the two servers is
// gone for good (that side's leftovers are named instead). abort leaves the source as it was found; finish keeps the
// fence on the source, since an application that still writes there would lose its data. Called by cli/ when the daemon
// has stopped.
#pragma once

#include <filesystem>
#include <functional>
#include <optional>
#include <string>

#include "engine/pg/conninfo.hpp"
#include "engine/store/journal.hpp"

namespace walferry {

struct CleanupOptions {
  std::filesystem::path state_dir;
  std::optional<pg::ConnInfo> source;  // absent: as recorded, passwords from PGPASSFILE
  std::optional<pg::ConnInfo> target;
  std::optional<std::filesystem::path> pg_bin_dir;
  bool lift_fence = false;                               // finish: let the source be written to again
  bool drop_target_objects = false;                      // abort
  std::function<void(const std::string&)> on_line = {};  // one line of text for each thing done or left
};

// What each is for: throw Error{Refused} in any other phase.
void require_switched(Phase phase);
void require_not_switched(Phase phase);

// `way_back`: the way back's, where one was armed, else null.
void finish(store::Database& database, store::Database* way_back, const CleanupOptions& options);
void abort_migration(store::Database& database, const CleanupOptions& options);

}  // namespace walferry
