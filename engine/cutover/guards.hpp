// The guards of a cutover: what stands in its way now, each with its remedy; nothing when nothing does.
//
// They only look, so that `cutover --dry-run` and the status ask the same. Called by Cutover and Migration.
#pragma once

#include <chrono>
#include <string>
#include <vector>

#include "engine/setup.hpp"
#include "engine/status.hpp"
#include "engine/store/journal.hpp"

namespace walferry::cutover {

// The part that needs no server.
[[nodiscard]] std::vector<std::string> own_blockers(const Status& status, std::chrono::milliseconds max_lag);
// The part that asks both ends; blocking, for as long as somebody's lock is waited for, seconds at most.
[[nodiscard]] std::vector<std::string> blockers_of_ends(const MigrationOptions& options, store::Journal& journal);

}  // namespace walferry::cutover
