// What differs on the target while a migration runs, and how it gets back into the source's state.
//
// While rows of the source are applied, identity columns GENERATED ALWAYS take no values of ours, and triggers, rules
// and event triggers that fire under session_replication_role=replica would do their work a second time. relax_target()
// changes exactly those that the source has in such a state; restore_target() compares both catalogs, so it is right
// after any crash and may be repeated. Called by the copy and by cutover.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "engine/pg/session.hpp"

namespace walferry::schema {

struct RelaxOptions {
  bool ordinary_triggers = false;    // triggers and rules that fire in origin mode as well
  bool forced_row_security = false;  // FORCE ROW LEVEL SECURITY, which reaches the owner
};

// Statements, for one object each.
struct Relaxation {
  std::string relaxes;
  std::string restores;
};
// Told before any of it is done.
using OnRelaxations = std::function<void(const std::vector<Relaxation>&)>;

void relax_target(pg::Session& source, pg::Session& target, const RelaxOptions& options, const OnRelaxations& note);
void restore_target(pg::Session& source, pg::Session& target);

// What would act on the target now, whoever made it, by what it is.
using ActingObjects = std::map<std::string, Relaxation>;
[[nodiscard]] ActingObjects read_acting_objects(pg::Session& target, const RelaxOptions& options);
// Relaxes what acts since `before`: a schema change of the source brought it, so the source has it in such a state.
void relax_new_objects(pg::Session& target, const ActingObjects& before, const RelaxOptions& options,
                       const OnRelaxations& note);

// Statements that give schema public the owner and the grants that it has on this server now.
[[nodiscard]] std::string public_schema_state(pg::Session& target);

}  // namespace walferry::schema
