// The end of a replication slot.
//
// Used where a migration ends: Cleaner, the way back.
#pragma once

#include <string>

#include "engine/pg/session.hpp"

namespace walferry {

// Whether there was one. The walsender of a daemon that was killed is ended and waited for.
bool drop_slot(pg::Session& server, const std::string& slot);

}  // namespace walferry
