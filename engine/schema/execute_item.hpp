// Makes one post-data item on the target, once: an item that is there is recognised by the catalog and skipped.
//
// Each item is one transaction, so a crash leaves it whole or absent; an invalid leftover index (somebody's
// CONCURRENTLY) is dropped and built again. "Already exists" errors are never swallowed: a different object of that
// name is a failure. Called by the copy engine's workers, each with its own Session that prepare_build_session() has
// been applied to.
#pragma once

#include <string>

#include "engine/pg/session.hpp"
#include "engine/schema/post_data.hpp"

namespace walferry::schema {

// The settings under which items are executed; session_replication_role stays origin.
void prepare_build_session(pg::Session& target);

enum class ItemOutcome { Executed, AlreadyThere };

struct ExecuteOptions {
  // Triggers, rules and event triggers that would fire under session_replication_role=replica are made disabled;
  // restore_target() puts them into the source's state (facts: double effects during the apply).
  bool disable_always_firing = true;
  // Deadlocks with the other workers (foreign keys lock two tables) are tried again that often.
  int deadlock_retries = 10;
};

// Throws Error{Sql} naming the item, with the server's SQLSTATE.
ItemOutcome execute_item(pg::Session& target, const PostDataItem& item, const ExecuteOptions& options = {});

// Whether the target holds the item as it should be; false for those that are simply repeated (grants).
[[nodiscard]] bool item_is_there(pg::Session& target, const PostDataItem& item);

}  // namespace walferry::schema
