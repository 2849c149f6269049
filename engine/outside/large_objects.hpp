// Large objects, which logical decoding never carries: compared by hash, and brought to the target with their ids,
// owners, grants and comments.
//
// copy_large_objects() makes the target hold exactly what the source holds and writes only what differs, so that it can
// be called early, again just before the write stop, and once more within it, when little is left to do. Which objects
// walferry made is recorded on the target in walferry.large_objects, in the transaction that makes them: nothing else
// is ever overwritten or removed (G5). Called by the initial copy and the cutover; verify compares the contents.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "engine/pg/session.hpp"

namespace walferry::outside {

struct LargeObjects {
  std::int64_t objects = 0;
  std::int64_t bytes = 0;
};

// How many a database holds, and the room they take.
[[nodiscard]] LargeObjects count_large_objects(pg::Session& session);

// Whether the role may read pg_largeobject itself; if not, each object is read with lo_get(), which takes 1 GB at most.
[[nodiscard]] bool may_read_pages(pg::Session& session);

struct LargeObjectOptions {
  bool owners = true;  // owners and grants as on the source
};

struct LargeObjectChanges {
  std::int64_t written = 0;
  std::int64_t removed = 0;
};

// From here on the target's objects count as made by walferry: those of adopted data are the source's own. With
// `only_common` only those that the source has, too; others are the target's.
void adopt_large_objects(pg::Session& source, pg::Session& target, bool only_common);

// Throws Error{Refused} where an object that is not walferry's bears the id of one of the source's.
LargeObjectChanges copy_large_objects(pg::Session& source, pg::Session& target, const LargeObjectOptions& options);

// The ids that exist on both sides before anything was copied; they would collide.
[[nodiscard]] std::vector<std::string> common_large_objects(pg::Session& source, pg::Session& target);

// Removes what copy_large_objects() made, or only the record of it.
void drop_large_objects(pg::Session& target);
void forget_large_objects(pg::Session& target);

// A FROM item with columns loid, pageno, data for a comparison of contents; empty objects are a row of NULLs.
// `by_pages`: both sides may_read_pages(). `only_recorded`: only those that walferry made.
[[nodiscard]] std::string large_object_rows(bool by_pages, bool only_recorded);
// Whether the target has the record of walferry's objects.
[[nodiscard]] bool has_large_object_record(pg::Session& target);

}  // namespace walferry::outside
