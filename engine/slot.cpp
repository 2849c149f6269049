#include "engine/slot.hpp"

#include <fmt/format.h>

namespace walferry {

bool drop_slot(pg::Session& server, const std::string& slot) {
  const std::string name = pg::quote_literal(slot);
  const pg::Result found = server.exec(
      fmt::format("SELECT active_pid FROM pg_catalog.pg_replication_slots WHERE slot_name = {} AND database = "
                  "pg_catalog.current_database()",
                  name));
  if (found.rows() == 0) return false;
  if (!found.is_null(0, 0)) {
    // Waited for by asking until it is gone.
    server.exec(fmt::format("SELECT pg_catalog.pg_terminate_backend({})", found.text(0, 0)));
    server.exec(
        fmt::format("DO $wait$ BEGIN FOR i IN 1..100 LOOP EXIT WHEN NOT EXISTS (SELECT 1 FROM "
                    "pg_catalog.pg_replication_slots WHERE slot_name = {} "
                    "AND active); PERFORM pg_catalog.pg_sleep(0.05); END LOOP; END $wait$",
                    name));
  }
  server.exec(fmt::format("SELECT pg_catalog.pg_drop_replication_slot({})", name));
  return true;
}

}  // namespace walferry
