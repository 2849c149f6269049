// What the target must not do by itself while the source's changes are applied to it, whatever rights our role has.
//
// With the right to set session_replication_role only triggers and rules that fire in replica mode are switched off.
// Without it, all of them are, by their owner, and foreign keys are dropped; what each was is in the journal before it
// goes. Restoring and relaxing compare with the source and the journal, so they are right after any crash and may be
// repeated. Called by the copy, before the apply and at its schema changes, by the cutover and by abort.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "engine/pg/session.hpp"
#include "engine/schema/target_prepare.hpp"
#include "engine/store/journal.hpp"

namespace walferry {

struct TargetRights {
  bool superuser = false;
  bool replication_role = false;     // may set session_replication_role
  bool bypass_row_security = false;  // FORCE ROW LEVEL SECURITY does not reach our role
};

[[nodiscard]] TargetRights read_target_rights(pg::Session& target);

void relax_target(pg::Session& source, pg::Session& target, store::Journal& journal);
// What acts on a target that was relaxed: its own, which the source does not have.
[[nodiscard]] schema::ActingObjects read_own_actions(pg::Session& target);
// On a session of the apply, within its transaction, where a person brought the target up to a schema change: relaxes
// what acts beside `own`. The source may be further than that by now and is not asked. What cannot be relaxed is
// logged.
void relax_again(pg::Session& target, store::Journal& journal, const schema::ActingObjects& own);
// Makes `change`, a schema change of the source, on a session of the apply; what acts since is relaxed with it.
void stay_relaxed(pg::Session& target, store::Journal& journal, const std::function<void()>& change);
void restore_target(pg::Session& source, pg::Session& target, store::Journal& journal);
// The old source of a way back, without the new server, which alone knows what was changed there since. The statements
// that failed, each with why.
[[nodiscard]] std::vector<std::string> restore_as_noted(pg::Session& target, store::Journal& journal);

// Notes in the journal that restore_target() is to make this foreign key, instead of now.
void defer_foreign_key(store::Journal& journal, const std::string& id, const std::string& sql);

}  // namespace walferry
