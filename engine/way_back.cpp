#include "engine/way_back.hpp"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include "engine/check/standby_names.hpp"
#include "engine/cutover/fence.hpp"
#include "engine/cutover/fence_name.hpp"
#include "engine/ddl/schema_watch.hpp"
#include "engine/ddl/trigger.hpp"
#include "engine/listed.hpp"
#include "engine/pg/event_triggers.hpp"
#include "engine/publication.hpp"
#include "engine/slot.hpp"
#include "engine/target_state.hpp"

namespace walferry {
namespace {

namespace keys = store::journal_keys;

constexpr const char* application_name = "walferry way back";

void look_at_target(pg::Session& target, const MigrationOptions& options, bool ours,
                    std::vector<std::string>& blockers) {
  const std::string wal_level = target.exec("SHOW wal_level").str(0, 0);
  if (wal_level != "logical") {
    blockers.push_back(
        fmt::format("no way back: wal_level of the target is {}: set it to logical and restart that server, before the "
                    "cutover",
                    wal_level));
  }
  const std::string slot = pg::quote_literal(way_back_slot(options.slot));
  const bool taken = target
                         .exec(fmt::format("SELECT EXISTS (SELECT 1 FROM pg_catalog.pg_replication_slots WHERE "
                                           "slot_name = {0}) OR EXISTS (SELECT 1 FROM pg_catalog.pg_publication WHERE "
                                           "pubname = {0})",
                                           slot))
                         .flag(0, 0);
  if (taken && !ours) {
    blockers.push_back(fmt::format(
        "no way back: the target has a slot or a publication {} that is not of this migration: it may be another's "
        "way back; if it is nobody's, remove it",
        way_back_slot(options.slot)));
  }
  // One streams, and the proof of a rollback takes its snapshot by another.
  const bool room = target
                        .exec(
                            "SELECT pg_catalog.current_setting('max_replication_slots')::int >= 2 + (SELECT "
                            "pg_catalog.count(*) FROM pg_catalog.pg_replication_slots WHERE slot_name <> " +
                            slot +
                            ") AND pg_catalog.current_setting('max_wal_senders')::int >= 2 + (SELECT "
                            "pg_catalog.count(*) FROM pg_catalog.pg_stat_replication)")
                        .flag(0, 0);
  if (!room) {
    blockers.emplace_back(
        "no way back: the target has not two free replication slots and walsenders: raise max_replication_slots and "
        "max_wal_senders there, which needs a restart");
  }
  if (!target.exec("SELECT pg_catalog.has_database_privilege(pg_catalog.current_database(), 'CREATE')").flag(0, 0))
    blockers.emplace_back("no way back: our role may not make a publication on the target: GRANT CREATE ON DATABASE");
  const std::string standbys = target.exec("SHOW synchronous_standby_names").str(0, 0);
  if (is_synchronous_standby(standbys, "walferry " + way_back_slot(options.slot))) {
    blockers.push_back(
        fmt::format("no way back: synchronous_standby_names of the target ({}) would count walferry, and commits there "
                    "would wait for it: name the standbys one by one",
                    standbys));
  }
  const bool may_replicate =
      target
          .exec(
              "SELECT pg_catalog.count(*) > 0 FROM pg_catalog.pg_roles WHERE rolname = current_user AND (rolsuper OR "
              "rolreplication) OR rolname = 'rds_replication' AND pg_catalog.pg_has_role(current_user, oid, 'MEMBER')")
          .flag(0, 0);
  if (!may_replicate)
    blockers.emplace_back("no way back: our role on the target may not replicate: ALTER ROLE ... REPLICATION");
  std::vector<std::string> without_key;
  for (const Table& table : read_catalog(target, Sizes::LeaveOut).tables) {
    if (table.holds_rows() && table.persistence == 'p' && !table.has_usable_identity())
      without_key.push_back(table.name.text());
  }
  if (!without_key.empty()) {
    blockers.push_back(
        fmt::format("no way back: once published, updates and deletes would be refused on the target for want of a key "
                    "or REPLICA IDENTITY FULL: {}",
                    listed(without_key, 5)));
  }
  for (const std::string& table : cutover::unfenceable_tables(target)) {
    blockers.push_back(
        fmt::format("no way back: table {} of the target belongs to a role that ours is no member of, so writes to it "
                    "could not be stopped: GRANT that role to ours",
                    table));
  }
}

std::vector<std::string> texts(pg::Session& session, const std::string& sql) {
  const pg::Result rows = session.exec(sql);
  std::vector<std::string> texts;
  for (int row = 0; row < rows.rows(); ++row) texts.push_back(rows.str(row, 0));
  return texts;
}

// It fires for our own sessions, and what it writes on the closed source for them is on no other server.
void refuse_login_triggers(pg::Session& session, std::vector<std::string>& blockers) {
  if (session.server_version() < 170'000) return;
  const std::vector<std::string> names =
      texts(session, "SELECT evtname FROM pg_catalog.pg_event_trigger WHERE evtevent = 'login' AND evtenabled <> 'D'");
  if (names.empty()) return;
  blockers.push_back(
      fmt::format("no way back: an event trigger of the {} fires at login, for our sessions too: ALTER "
                  "EVENT TRIGGER ... DISABLE for as long as the way back stands: {}",
                  to_string(session.side()), listed(names, 5)));
}

// What a rollback writes there while writers wait, beside rows.
void look_at_source(pg::Session& source, std::vector<std::string>& blockers) {
  if (!read_target_rights(source).replication_role) {
    blockers.emplace_back(
        "no way back: our role may not set session_replication_role on the source, and changes would meet its triggers "
        "and foreign keys: GRANT SET ON PARAMETER session_replication_role, or connect as a superuser");
  }
  refuse_login_triggers(source, blockers);
  const auto relations = [&source](std::string_view condition) {
    return texts(source,
                 fmt::format("SELECT pg_catalog.format('%I.%I', n.nspname, c.relname) FROM pg_catalog.pg_class c JOIN "
                             "pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE {} AND {} AND {} ORDER BY 1",
                             condition, user_schema_condition("n"), no_extension_condition("c")));
  };
  const std::vector<std::string> sequences = relations(
      "CASE WHEN c.relkind = 'S' AND c.relpersistence <> 't' THEN NOT pg_catalog.has_sequence_privilege(c.oid, "
      "'UPDATE') END");
  if (!sequences.empty()) {
    blockers.push_back(
        fmt::format("no way back: our role may not set sequences of the source: GRANT UPDATE ON SEQUENCE {}",
                    listed(sequences, 5)));
  }
  const std::vector<std::string> views = relations(fmt::format(
      "c.relkind = 'm' AND c.relispopulated AND NOT pg_catalog.pg_has_role(current_user, c.relowner, "
      "'USAGE'){}",
      source.server_version() >= 170'000 ? " AND NOT pg_catalog.has_table_privilege(c.oid, 'MAINTAIN')" : ""));
  if (!views.empty()) {
    blockers.push_back(
        fmt::format("no way back: our role may not refresh materialized views of the source: GRANT their owner to "
                    "ours: {}",
                    listed(views, 5)));
  }
  const std::vector<std::string> objects =
      texts(source,
            "SELECT oid FROM pg_catalog.pg_largeobject_metadata WHERE NOT pg_catalog.pg_has_role(current_user, "
            "lomowner, 'USAGE') ORDER BY oid LIMIT 6");
  if (!objects.empty()) {
    blockers.push_back(
        fmt::format("no way back: large objects of the source belong to roles that ours is no member of, and could not "
                    "be written: GRANT those roles to ours: {}",
                    listed(objects, 5)));
  }
}

std::string create_slot_sql(pg::Session& target, const std::string& slot) {
  return fmt::format("SELECT pg_catalog.pg_create_logical_replication_slot({}, 'pgoutput'{})", pg::quote_literal(slot),
                     target.server_version() >= 170'000 ? ", failover => true" : "");
}

}  // namespace

std::string way_back_slot(const std::string& slot) {
  return cutover::short_name(slot) + "_back";
}

std::filesystem::path way_back_dir(const std::filesystem::path& state_dir) {
  return state_dir / "back";
}

MigrationOptions options_of_way_back(const MigrationOptions& options) {
  MigrationOptions back = options;
  back.source = options.target.of(Side::Source);
  back.target = cutover::with_passage(options.source.of(Side::Target), options.slot);
  back.state_dir = way_back_dir(options.state_dir);
  back.slot = way_back_slot(options.slot);
  back.until = Until::Never;
  // The rest is in its journal.
  back.publications.clear();
  back.selection = {};
  back.adopt = {};
  back.allow_nonempty_target = false;
  back.replica_identity_full = false;
  return back;
}

std::vector<std::string> way_back_blockers(const MigrationOptions& options, const store::Journal& journal) {
  std::vector<std::string> blockers;
  if (journal.get(keys::way_back_of)) blockers.emplace_back("no way back: this is one, and has none of its own");
  if (!journal.get(keys::own_publication))
    blockers.emplace_back("no way back: it is there only for what walferry publishes itself, without --publication");
  if (journal.get(keys::via_root))
    blockers.emplace_back(
        "no way back: partitioned tables are carried as a whole, since the target partitions them differently");
  if (!options.selection.empty())
    blockers.emplace_back("no way back: it is there for whole databases, not for a selection of tables");
  if (options.allow_nonempty_target)
    blockers.emplace_back("no way back: the target may hold tables of its own (--allow-nonempty-target)");
  if (!blockers.empty()) return blockers;
  pg::Session source = pg::Session::open(options.source, {.application_name = application_name});
  look_at_source(source, blockers);
  pg::Session target = pg::Session::open(
      options.target, {.application_name = application_name, .settings = {"lock_timeout=3s", "statement_timeout=60s"}});
  look_at_target(target, options, journal.get(keys::way_back).has_value(), blockers);
  return blockers;
}

bool way_back_armed(const store::Journal& journal) {
  return !journal.get(keys::way_back).value_or("").empty();
}

bool way_back_stands(const store::Journal& journal) {
  return journal.phase() == Phase::Switched && way_back_armed(journal);
}

WayBack WayBack::arm(const MigrationOptions& options, const Ends& ends, store::Journal& journal,
                     std::chrono::milliseconds time_limit) {
  if (journal.get(keys::way_back)) disarm_way_back(options, journal);
  journal.put(keys::way_back, "");
  const MigrationOptions back = options_of_way_back(options);
  WayBack armed{store::Database::open(back.state_dir, store::Access::ReadWrite)};
  store::Journal its{armed.database_};
  its.put(keys::way_back_of, options.slot);
  for (const auto& [table, identity] : journal.entries(keys::identity_full))
    its.put(std::string{keys::identity_full} + table, identity);
  record_settings(back, {.source = ends.target, .target = ends.source, .client_encoding = {}}, its);

  pg::Session target = pg::Session::open(options.target, {.application_name = application_name});
  target.exec(fmt::format("SET statement_timeout = {}; SET lock_timeout = {}", time_limit.count(), time_limit.count()));
  pg::silence_event_triggers(target);
  its.put(keys::own_publication, back.slot);
  target.exec(create_publication_sql(back.slot, read_catalog(target, Sizes::LeaveOut), false));
  make_ddl_trigger(target, back, back.slot, its);
  // As it will be, unless something of it is put back at the end of the cutover only: then it is read there.
  const TargetRights rights = read_target_rights(target);
  if (rights.replication_role && rights.bypass_row_security) ddl::SchemaWatch::record_baseline(target, its);
  its.put(keys::slot_begun, "1");
  target.exec(create_slot_sql(target, back.slot));
  return armed;
}

// Flushed: the position of what is not yet on disk may come again after a crash of the target, with other changes.
Lsn WayBack::begin_here(pg::Session& target, store::Journal& journal) {
  const std::string slot = store::Journal{database_}.get(keys::migration).value_or("");
  const pg::Result stands = target.exec(
      fmt::format("SELECT pg_catalog.pg_current_wal_flush_lsn(), EXISTS (SELECT 1 FROM pg_catalog.pg_replication_slots "
                  "WHERE slot_name = {0} AND wal_status IS DISTINCT FROM 'lost'), EXISTS (SELECT 1 FROM "
                  "pg_catalog.pg_publication WHERE pubname = {0})",
                  pg::quote_literal(slot)));
  if (!stands.flag(0, 1) || !stands.flag(0, 2)) {
    throw Error{{ErrorKind::Refused, Side::Target},
                fmt::format("the way back is gone again: somebody has removed slot or publication {} from the target. "
                            "Remedy: where Patroni did it, name the slot in its ignore_slots; then try again",
                            slot)};
  }
  const Lsn here = stands.lsn(0, 0);
  store::Journal its{database_};
  if (!its.get(keys::ddl_baseline)) ddl::SchemaWatch::record_baseline(target, its);
  its.put(keys::adopted, here.to_string());
  journal.put(keys::way_back, here.to_string());
  return here;
}

void disarm_way_back(const MigrationOptions& options, store::Journal& journal) {
  const std::string slot = way_back_slot(options.slot);
  pg::Session target = pg::Session::open(options.target, {.application_name = application_name});
  pg::silence_event_triggers(target);
  drop_slot(target, slot);
  if (ddl::trigger_permitted(target)) ddl::remove_trigger(target, slot);
  target.exec("DROP PUBLICATION IF EXISTS " + pg::quote_name(slot));
  const std::filesystem::path directory = way_back_dir(options.state_dir);
  std::error_code failure;
  std::filesystem::remove_all(directory, failure);
  if (failure) {
    throw Error{
        {ErrorKind::State},
        fmt::format("{} cannot be removed: {}. Remedy: remove it by hand", directory.string(), failure.message())};
  }
  journal.erase(keys::way_back);
}

void open_old_source(const pg::ConnInfo& old_source, store::Journal& journal) {
  const std::string migration = journal.get(keys::way_back_of).value_or("");
  pg::Session old = pg::Session::open(old_source, {.application_name = application_name});
  pg::silence_event_triggers(old);
  cutover::open_durable_fence(old, migration);
  journal.put(keys::old_source_open, "1");
}

void remove_opened_fence(const pg::ConnInfo& old_source, const store::Journal& journal) {
  constexpr std::chrono::seconds tidying_max{1};
  try {
    pg::Session old = pg::Session::open(old_source, {.application_name = application_name});
    pg::silence_event_triggers(old);
    const std::vector<std::string> left = cutover::remove_durable_fence(
        old, journal.get(keys::way_back_of).value_or(""), std::chrono::steady_clock::now() + tidying_max);
    if (!left.empty()) spdlog::info("triggers of the old source's fence are left, and do nothing: {}", listed(left, 5));
  } catch (const Error& error) {
    spdlog::info("the old source can be written to; what is left of its fence stays until finish: {}", error.what());
  }
}

}  // namespace walferry
