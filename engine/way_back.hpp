// The way back: a second migration, from the target to the old source, that takes over when the first has switched.
//
// It stands before writers wait: slot, publication and event triggers on the target, its journal in `<state dir>/back`.
// Where it begins is written down just before the source is closed, when the target has everything and nobody but
// walferry has written to it. From the switch on it is a migration like any other, one that adopts the old source's
// data: its changes pass the fence there, and its cutover, `walferry rollback`, ends with lifting that fence. Armed by
// Cutover, run by cli/ after the migration that it leads back, removed by finish.
#pragma once

#include <chrono>
#include <filesystem>
#include <string>
#include <vector>

#include "engine/setup.hpp"
#include "engine/store/database.hpp"
#include "engine/store/journal.hpp"

namespace walferry {

[[nodiscard]] std::filesystem::path way_back_dir(const std::filesystem::path& state_dir);
// The name of its slot and publication.
[[nodiscard]] std::string way_back_slot(const std::string& slot);

// Its ends are exchanged. `options`: of the migration that it leads back, with the slot's name.
[[nodiscard]] MigrationOptions options_of_way_back(const MigrationOptions& options);

// Why none can be armed, each with its remedy. Looks only.
[[nodiscard]] std::vector<std::string> way_back_blockers(const MigrationOptions& options,
                                                         const store::Journal& journal);

// One was armed and told where it begins, in whatever phase the migration is.
[[nodiscard]] bool way_back_armed(const store::Journal& journal);
// The migration has switched with a way back, and is not finished.
[[nodiscard]] bool way_back_stands(const store::Journal& journal);

class WayBack {
 public:
  // Blocking, while writers go on: a slot waits for the transactions that are open on the target. `journal`: of the
  // migration that it leads back. Throws when the time is over.
  [[nodiscard]] static WayBack arm(const MigrationOptions& options, const Ends& ends, store::Journal& journal,
                                   std::chrono::milliseconds time_limit);

  // With the target as it is now, which is as the source is. The LSN of the target from which on it streams. Throws
  // where somebody has removed it meanwhile.
  Lsn begin_here(pg::Session& target, store::Journal& journal);

 private:
  explicit WayBack(store::Database database) : database_(std::move(database)) {}
  store::Database database_;
};

// Whatever there is of it, before the switch: nothing is lost by it. None may be open in this process.
void disarm_way_back(const MigrationOptions& options, store::Journal& journal);

// Behind the switch of a way back, whose journal it is: lets the old source be written to again. Safe to repeat.
void open_old_source(const pg::ConnInfo& old_source, store::Journal& journal);
// Then: its triggers, which let everybody pass, as far as that goes at once. finish removes what is left.
void remove_opened_fence(const pg::ConnInfo& old_source, const store::Journal& journal);

}  // namespace walferry
