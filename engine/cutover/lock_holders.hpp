// Who on the source holds what the write stop needs: locks on tables that conflict with its own, and transactions that
// have written.
//
// Only looks. Asked by the guards before a cutover, and by Fence before and after each try.
#pragma once

#include <string>
#include <vector>

#include "engine/catalog.hpp"
#include "engine/pg/session.hpp"

namespace walferry::cutover {

// Those who hold a lock on a table now, the oldest first; empty when nobody does.
[[nodiscard]] std::string describe_holders(pg::Session& source);

// Those who have held one on these tables for so long that waiting for them would hold up every writer: each with what
// it is. An autovacuum that gives way is not among them.
[[nodiscard]] std::vector<std::string> long_holders(pg::Session& source, const std::vector<QualifiedName>& tables);

// And those whose transaction has written something, wherever, and been open for as long.
[[nodiscard]] std::vector<std::string> long_holders_and_writers(pg::Session& source,
                                                                const std::vector<QualifiedName>& tables);

}  // namespace walferry::cutover
