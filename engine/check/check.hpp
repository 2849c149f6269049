// The pre-flight check: everything that would make a migration fail, stall or surprise, found before anything is
// changed.
//
// Strictly read-only: every session is read-only. A side that cannot be reached, or
// a catalog that may not be read, is itself a finding, and all that can still be said is said. Called by cli (`walferry
// check`) and by the start of a migration.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "engine/catalog.hpp"
#include "engine/check/finding.hpp"
#include "engine/pg/conninfo.hpp"
#include "engine/selection.hpp"

namespace walferry {

// The two ends that a state directory belongs to (G4).
struct PinnedEnds {
  DatabaseIdentity source;
  DatabaseIdentity target;
};

struct CheckOptions {
  pg::ConnInfo source;
  pg::ConnInfo target;
  std::optional<std::filesystem::path> pg_bin_dir = {};
  // Of the state directory, where there is one: then slot, publication and position are expected to exist.
  std::optional<PinnedEnds> pinned = {};
  std::string slot = "walferry";
  std::string publication = "walferry";        // the one that walferry would create
  std::vector<std::string> publications = {};  // existing ones to use instead
  std::string application_name = "walferry";   // of the walsender
  int jobs = 2;                                // copy workers, for the count of connections
  int apply_lanes = 1;                         // connections to the target
  bool replica_identity_full = false;
  bool allow_nonempty_target = false;
  bool ddl_trigger = true;
  // The target holds the data already, as of this LSN of the source; zero: which one was not said.
  std::optional<Lsn> adopt = {};
  bool no_schema = false;  // the target has the schema already
  SelectionRules selection = {};
  bool owners = true;  // carry owners and grants as they are
};

[[nodiscard]] std::vector<Finding> check_migration(const CheckOptions& options);

}  // namespace walferry
