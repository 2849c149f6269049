// Keeps event triggers of the application's from firing for walferry's own DDL: one that notes down schema changes
// would write a row that nobody asked for, or be refused.
//
// By session_replication_role, where the role may set it; elsewhere, and where they are ENABLE ALWAYS, they fire. Used
// on both ends wherever walferry changes a schema that the application's triggers are part of.
#pragma once

#include "engine/pg/session.hpp"

namespace walferry::pg {

// For the rest of the session.
void silence_event_triggers(Session& session);

// For as long as it lives.
class EventTriggersSilenced {
 public:
  explicit EventTriggersSilenced(Session& session);
  ~EventTriggersSilenced();
  EventTriggersSilenced(const EventTriggersSilenced&) = delete;
  EventTriggersSilenced& operator=(const EventTriggersSilenced&) = delete;

 private:
  Session& session_;
};

}  // namespace walferry::pg
