// The settings that a dump puts before an object: where it is to lie, and how it is stored.
//
// A tablespace that the target does not have, or that our role may not use, is no reason to stop: what would lie there
// lies in the database's own. Called in the transaction that makes the object.
#pragma once

#include <string>
#include <vector>

#include "engine/pg/session.hpp"

namespace walferry::schema {

// `settings` of a ScriptEntry: "default_tablespace = fast". They hold until the end of the transaction.
void hold_settings(pg::Session& target, const std::vector<std::string>& settings);

}  // namespace walferry::schema
