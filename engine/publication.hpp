// What a migration's own publication names, and the statement that makes it.
//
// Invariant: a table without a usable identity is never published, because the application's own UPDATE and DELETE on
// it would fail then (G2). Pure. Called by setup, which makes the publication, and for a target that is adopted by the
// check and by the text that says how to make it beforehand.
#pragma once

#include <string>
#include <vector>

#include "engine/catalog.hpp"

namespace walferry {

// The pointers live as long as the catalog. `via_root`: partitioned tables in place of their partitions.
[[nodiscard]] std::vector<const Table*> tables_to_publish(const Catalog& catalog, bool via_root);

[[nodiscard]] std::string create_publication_sql(const std::string& name, const Catalog& catalog, bool via_root);

}  // namespace walferry
