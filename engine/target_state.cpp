#include "engine/target_state.hpp"

#include <fmt/format.h>

#include "engine/schema/execute_item.hpp"
#include "engine/schema/foreign_keys.hpp"
#include "engine/schema/target_prepare.hpp"

namespace walferry {
namespace {

namespace keys = store::journal_keys;

bool may_set_replication_role(pg::Session& target) {
  // Tried and taken back: managed services allow it in ways that no catalog shows.
  target.exec("BEGIN");
  try {
    target.exec("SET LOCAL session_replication_role = replica");
    target.exec("ROLLBACK");
    return true;
  } catch (const Error& error) {
    if (error.kind() == ErrorKind::Connection) throw;
    target.exec("ROLLBACK");
    return false;
  }
}

}  // namespace

TargetRights read_target_rights(pg::Session& target) {
  const pg::Result row =
      target.exec("SELECT rolsuper, rolsuper OR rolbypassrls FROM pg_catalog.pg_roles WHERE rolname = current_user");
  return {.superuser = row.flag(0, 0),
          .replication_role = may_set_replication_role(target),
          .bypass_row_security = row.flag(0, 1)};
}

void defer_foreign_key(store::Journal& journal, const std::string& id, const std::string& sql) {
  journal.put(std::string{keys::deferred_key} + id, sql);
}

void relax_target(pg::Session& source, pg::Session& target, store::Journal& journal) {
  const TargetRights rights = read_target_rights(target);
  if (!rights.replication_role) {
    for (const schema::ForeignKey& key : schema::read_foreign_keys(target)) {
      defer_foreign_key(journal, key.id(), key.sql);
      schema::drop_foreign_key(target, key);
    }
  }
  schema::relax_target(
      source, target,
      {.ordinary_triggers = !rights.replication_role, .forced_row_security = !rights.bypass_row_security});
}

void restore_target(pg::Session& source, pg::Session& target, store::Journal& journal) {
  schema::restore_target(source, target);
  for (const auto& [id, sql] : journal.entries(keys::deferred_key)) {
    schema::ScriptEntry entry;
    entry.sql = sql;
    schema::execute_item(target, schema::make_item(entry));
  }
}

}  // namespace walferry
