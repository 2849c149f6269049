// REPLICA IDENTITY FULL on the source's tables without a key, for the time of the migration.
//
// Invariant: what stood there is in the journal before it is changed, so that finish and abort put it back. Used by
// setup for the tables of the beginning and by ddl/join for those that come later.
#pragma once

#include <string>

#include "engine/catalog.hpp"
#include "engine/pg/session.hpp"
#include "engine/store/journal.hpp"

namespace walferry {

// The statement that sets it, which the caller runs: a brief ACCESS EXCLUSIVE lock.
[[nodiscard]] std::string record_full_identity(pg::Session& source, const Table& table, store::Journal& journal);

}  // namespace walferry
