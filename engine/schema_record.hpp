// Whether a migration has made the schema on the target: written there in the transaction that makes it.
//
// What the archive names is the migration's only where this says so. A row for each migration, since several may have
// the same target. Used by InitialCopy and by cleanup.
#pragma once

#include <string>
#include <vector>

#include "engine/pg/session.hpp"

namespace walferry::schema_record {

// To be run in the transaction that makes the schema.
[[nodiscard]] std::vector<std::string> statements(const std::string& migration);
[[nodiscard]] bool stands(pg::Session& target, const std::string& migration);
// Its objects are gone, or the target's own by now.
void forget(pg::Session& target, const std::string& migration);

}  // namespace walferry::schema_record
