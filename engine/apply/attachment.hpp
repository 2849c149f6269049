// A new connection for changes with everything that it needs: asked in blocking calls, on a pool thread.
//
// attach() makes sure that the target is the pinned cluster (G4), ends a dead predecessor's backend, takes the position
// as its own, and reads where it stands, last of all: the apply connection, of which there is one. attach_beside()
// makes one more that does not own the position, attach_lane() one that owns the position of a lane. Called by Applier,
// EarlyTransaction and Lanes.
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
[[nodiscard]] Attachment attach_beside(const AttachmentOptions& options);
// Of lane 1 and on; after attach(). `tables` is left empty: they are those of lane 0.
[[nodiscard]] Attachment attach_lane(const AttachmentOptions& options, unsigned lane);

}  // namespace walferry::apply
