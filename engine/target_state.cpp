#include "engine/target_state.hpp"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <set>

#include "engine/pg/event_triggers.hpp"
#include "engine/pg/lock_limit.hpp"
#include "engine/schema/execute_item.hpp"
#include "engine/schema/foreign_keys.hpp"

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

TargetRights read_rights_of_role(pg::Session& target) {
  const pg::Result row =
      target.exec("SELECT rolsuper, rolsuper OR rolbypassrls FROM pg_catalog.pg_roles WHERE rolname = current_user");
  return {.superuser = row.flag(0, 0), .bypass_row_security = row.flag(0, 1)};
}

// Of a session of the apply, within its transaction: it has taken the role if it may.
TargetRights read_rights_of_apply(pg::Session& target) {
  TargetRights rights = read_rights_of_role(target);
  rights.replication_role =
      target.exec("SELECT pg_catalog.current_setting('session_replication_role') = 'replica'").flag(0, 0);
  return rights;
}

schema::RelaxOptions relax_options(const TargetRights& rights) {
  return {.ordinary_triggers = !rights.replication_role, .forced_row_security = !rights.bypass_row_security};
}

using Restoring = std::map<std::string, std::string>;  // by what relaxed it

Restoring read_restoring(const store::Journal& journal) {
  Restoring restoring;
  const std::string text = journal.get(keys::relaxed).value_or("");
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t middle = text.find('\0', at);
    const std::size_t end = text.find('\0', middle + 1);
    restoring.emplace(text.substr(at, middle - at), text.substr(middle + 1, end - middle - 1));
    at = end + 1;
  }
  return restoring;
}

void write_restoring(store::Journal& journal, const Restoring& restoring) {
  std::string text;
  for (const auto& [relaxes, restores] : restoring) text += relaxes + '\0' + restores + '\0';
  journal.put(keys::relaxed, text);
}

// Of the old source of a way back only: elsewhere the source tells how it was.
schema::OnRelaxations note_in(store::Journal& journal) {
  return [&journal](const std::vector<schema::Relaxation>& relaxations) {
    if (!journal.get(keys::way_back_of)) return;
    Restoring restoring = read_restoring(journal);
    for (const schema::Relaxation& relaxation : relaxations) restoring[relaxation.relaxes] = relaxation.restores;
    write_restoring(journal, restoring);
  };
}

void leave_foreign_keys_out(pg::Session& target, store::Journal& journal, const std::set<std::string>& but_for) {
  for (const schema::ForeignKey& key : schema::read_foreign_keys(target)) {
    if (but_for.contains(key.id())) continue;
    defer_foreign_key(journal, key.id(), key.sql);
    schema::drop_foreign_key(target, key);
  }
}

// As they begin a foreign key's id.
std::set<std::string> read_quoted_tables(pg::Session& target) {
  const pg::Result rows = target.exec(
      "SELECT n.nspname, c.relname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n "
      "ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'p')");
  std::set<std::string> names;
  for (int row = 0; row < rows.rows(); ++row)
    names.insert(QualifiedName{rows.str(row, 0), rows.str(row, 1)}.quoted() + ".");
  return names;
}

}  // namespace

TargetRights read_target_rights(pg::Session& target) {
  TargetRights rights = read_rights_of_role(target);
  rights.replication_role = may_set_replication_role(target);
  return rights;
}

void defer_foreign_key(store::Journal& journal, const std::string& id, const std::string& sql) {
  journal.put(std::string{keys::deferred_key} + id, sql);
}

void relax_target(pg::Session& source, pg::Session& target, store::Journal& journal) {
  const TargetRights rights = read_target_rights(target);
  const pg::EventTriggersSilenced silenced{target};
  if (!rights.replication_role) leave_foreign_keys_out(target, journal, {});
  schema::relax_target(source, target, relax_options(rights), note_in(journal));
}

schema::ActingObjects read_own_actions(pg::Session& target) {
  return schema::read_acting_objects(target, relax_options(read_target_rights(target)));
}

void relax_again(pg::Session& target, store::Journal& journal, const schema::ActingObjects& own) {
  const TargetRights rights = read_rights_of_apply(target);
  const pg::LockLimit limit{target};
  target.exec("SAVEPOINT relax");
  try {
    if (!rights.replication_role) leave_foreign_keys_out(target, journal, {});
    schema::relax_new_objects(target, own, relax_options(rights), note_in(journal));
    target.exec("RELEASE SAVEPOINT relax");
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::Sql || is_transient(error)) throw;
    target.exec("ROLLBACK TO SAVEPOINT relax");
    spdlog::warn("what a schema change brought to the target may act by itself there: {}", error.what());
  }
}

void stay_relaxed(pg::Session& target, store::Journal& journal, const std::function<void()>& change) {
  const TargetRights rights = read_rights_of_apply(target);
  const schema::RelaxOptions options = relax_options(rights);
  const schema::ActingObjects before = schema::read_acting_objects(target, options);
  std::set<std::string> foreign_keys;
  if (!rights.replication_role) {
    for (const schema::ForeignKey& key : schema::read_foreign_keys(target)) foreign_keys.insert(key.id());
  }
  change();
  if (!rights.replication_role) leave_foreign_keys_out(target, journal, foreign_keys);
  schema::relax_new_objects(target, before, options, note_in(journal));
}

std::vector<std::string> restore_as_noted(pg::Session& target, store::Journal& journal) {
  std::vector<std::string> failed;
  Restoring left;
  for (const auto& [relaxes, restores] : read_restoring(journal)) {
    try {
      target.exec(fmt::format("BEGIN; SET LOCAL lock_timeout = '2s'; {}; COMMIT", restores));
    } catch (const Error& error) {
      if (error.kind() != ErrorKind::Sql) throw;
      target.exec("ROLLBACK");
      failed.push_back(fmt::format("{}: {}", restores, error.what()));
      left.emplace(relaxes, restores);
    }
  }
  write_restoring(journal, left);  // what is done is the operator's from now on
  return failed;
}

// The words of the source, if it has the key still: what it names may have other names by now, its table too.
void restore_target(pg::Session& source, pg::Session& target, store::Journal& journal) {
  schema::restore_target(source, target);
  const auto deferred = journal.entries(keys::deferred_key);
  if (deferred.empty()) return;
  std::set<std::string> ids;
  for (const auto& [id, sql] : deferred) ids.insert(id);
  const std::set<std::string> tables = read_quoted_tables(target);
  const std::vector<schema::ForeignKey> on_source = schema::read_foreign_keys(source);
  const auto make = [&target](const std::string& sql) {
    schema::ScriptEntry entry;
    entry.sql = sql;
    schema::execute_item(target, schema::make_item(entry));
  };
  for (const auto& [id, sql] : deferred) {
    const auto same = std::ranges::find(on_source, id, &schema::ForeignKey::id);
    const auto moved = std::ranges::find_if(on_source, [&, &id = id](const schema::ForeignKey& key) {
      return id.ends_with("." + pg::quote_name(key.name)) && !ids.contains(key.id());
    });
    if (same != on_source.end()) {
      make(same->sql);
    } else if (std::ranges::any_of(tables, [&, &id = id](const std::string& table) { return id.starts_with(table); })) {
      make(sql);
    } else if (moved != on_source.end()) {
      make(moved->sql);
      ids.insert(moved->id());
    } else {
      spdlog::info("foreign key {} is gone with its table", id);
    }
  }
}

}  // namespace walferry
