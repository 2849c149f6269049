#include "engine/pg/event_triggers.hpp"

#include "engine/error.hpp"

namespace walferry::pg {

void silence_event_triggers(Session& session) {
  session.exec(
      "DO $quiet$ BEGIN PERFORM pg_catalog.set_config('session_replication_role', 'replica', false); "
      "EXCEPTION WHEN insufficient_privilege THEN NULL; END $quiet$");
}

EventTriggersSilenced::EventTriggersSilenced(Session& session) : session_(session) {
  silence_event_triggers(session);
}

EventTriggersSilenced::~EventTriggersSilenced() {
  try {
    session_.exec(
        "DO $loud$ BEGIN PERFORM pg_catalog.set_config('session_replication_role', 'origin', false); "
        "EXCEPTION WHEN insufficient_privilege THEN NULL; END $loud$");
  } catch (const Error&) {
    // The transaction or the connection is lost, and with it what was done in it.
  }
}

}  // namespace walferry::pg
