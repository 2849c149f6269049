// A new connection for changes with everything that it needs: asked in blocking calls, on a pool thread.
//
// attach() makes sure that the target is the pinned cluster (G4), ends a dead predecessor's backend, takes the position
// as its own, and reads where it stands, last of all: the apply connection, of which there is one. attach_lane() makes
// one that owns the position of a lane, attach_early() one that owns none and is given one for its commits. Called by
// Applier, EarlyTransaction and Lanes.
#pragma once

#include <string>

#include "engine/apply/progress.hpp"
#include "engine/apply/target_tables.hpp"
#include "engine/pg/session.hpp"

namespace walferry::apply {

struct AttachmentOptions {
  pg::ConnInfo target;
  std::string migration;
  std::string client_encoding;
  std::string system_identifier;
};

struct Attachment {
  pg::Session session;
  Progress progress;
  Lsn position;
  TargetTables tables;
  // Triggers and foreign keys are off, so that the order of changes across tables is free.
  bool replica_role = false;
};

[[nodiscard]] Attachment attach(const AttachmentOptions& options);
// Of lane 1 and on; after attach(). `tables` is left empty: they are those of lane 0.
[[nodiscard]] Attachment attach_lane(const AttachmentOptions& options, unsigned lane);
// For transactions in progress, of every lane; `tables` likewise.
[[nodiscard]] Attachment attach_early(const AttachmentOptions& options, unsigned lane);

// Whether a row of pg_stat_activity is such a connection of the migration, as a condition in SQL.
[[nodiscard]] std::string is_apply_session_sql(const std::string& migration);
// To be tried again.
[[nodiscard]] Error standby_error();

}  // namespace walferry::apply
