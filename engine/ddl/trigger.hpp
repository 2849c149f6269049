// The event triggers on the source that put every schema change into the stream, ordered with the data.
//
// A function in schema walferry emits a transactional logical message (prefix `message_prefix`, JSON, see message.hpp)
// for each command. It never makes the application's own statement fail: whatever goes wrong inside is caught, and the
// catalog comparison (watcher.hpp) still sees the change. A table that is created while the migration runs joins
// walferry's own publication in the transaction that creates it, so that none of its rows is missed. A secret that only
// the owner can read tells our messages from those that any role may write. Installed by setup with the publication,
// removed by finish and abort. Needs a superuser and a source from 14; without, there is no trigger and `check` says
// so.
#pragma once

#include <string>
#include <string_view>

#include "engine/pg/session.hpp"

namespace walferry::ddl {

inline constexpr std::string_view message_prefix = "walferry.ddl";

struct TriggerOptions {
  std::string migration;    // names the objects
  std::string publication;  // that new tables join; empty: none of ours
  std::string secret;       // a positive bigint, decimal
};

// Whether this session's role can have them here.
[[nodiscard]] bool trigger_permitted(pg::Session& source);

// Makes them, or makes them anew. One transaction.
void install_trigger(pg::Session& source, const TriggerOptions& options);

// Idempotent. Leaves schema walferry to whoever else uses it, and drops it when nobody does.
void remove_trigger(pg::Session& source, const std::string& migration);

[[nodiscard]] bool trigger_installed(pg::Session& source, const std::string& migration);

}  // namespace walferry::ddl
