// Materialized views: filled anew on the target from its own tables, each after those that it reads, directly or
// through other views.
//
// Only those that are filled on the source are. Called by the cutover.
#pragma once

#include <vector>

#include "engine/catalog.hpp"
#include "engine/pg/session.hpp"

namespace walferry::outside {

// Views of the target whose counterpart on the source is filled, in an order in which they can be refreshed.
[[nodiscard]] std::vector<QualifiedName> views_to_refresh(pg::Session& source, pg::Session& target);

void refresh_materialized_views(pg::Session& target, const std::vector<QualifiedName>& views);

}  // namespace walferry::outside
