// Tables that the source got while the stream runs and that walferry's own publication lacks: made where there is no
// event trigger, or without a key, or filled before they had one. They join by a copy of their own.
//
// mark_joining() marks a table to be copied again once both ends have it with the same columns, empty on the target.
// When its turn comes, the apply at rest, publish_marked() puts it into the publication before the copy's snapshot is
// made. Invariants: a table is published only with a usable identity (G2), and while nobody is writing to it: a
// transaction that had written before would lack those rows in the stream, and one that a decoder sees with both states
// of the publication can hide the table from it. Each step can be repeated after any death. Blocking; mark_joining() is
// called by Watcher, publish_marked() by Migration.
#pragma once

#include <string>

#include "engine/catalog.hpp"
#include "engine/pg/conninfo.hpp"
#include "engine/selection.hpp"
#include "engine/store/journal.hpp"

namespace walferry::ddl {

struct JoinOptions {
  pg::ConnInfo source;
  pg::ConnInfo target;
  SelectionRules selection;
  std::string publication;       // walferry's own
  bool via_root = false;         // it carries partitioned tables by their roots, and new partitions with them
  bool full_identities = false;  // a table without a key gets REPLICA IDENTITY FULL for the time of the migration
};

void mark_joining(const JoinOptions& options, store::Journal& journal);

// False: it cannot be published any more, and the mark is to be forgotten. Throws Error{Sql} where it cannot be now:
// somebody holds the table.
[[nodiscard]] bool publish_marked(const JoinOptions& options, RelationId table, store::Journal& journal);

}  // namespace walferry::ddl
