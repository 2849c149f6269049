// The source's server, role and present activity.
#include <fmt/format.h>

#include <optional>

#include "engine/check/sections.hpp"
#include "engine/check/standby_names.hpp"

namespace walferry::check {
namespace {

void check_version(const End& source, Findings& findings) {
  const std::string id = "source.version";
  if (source.major() < 13) {
    findings.fail(id, {.title = fmt::format("PostgreSQL {} is too old, 13 is the oldest source", source.major()),
                       .detail = "older servers cannot publish partitioned tables and lack what the stream needs",
                       .remedy = "upgrade the source to 13 or newer first (pg_upgrade)"});
  } else if (source.major() == 13) {
    findings.warn(id,
                  {.title = "PostgreSQL 13 streams no logical messages and no transactions in progress",
                   .detail = "everything is carried; a large transaction arrives at its commit only, schema changes "
                             "are found by comparing the catalogs, and the cutover waits for a position instead of "
                             "its marker",
                   .remedy = "none needed; keep transactions small until the cutover"});
  } else {
    findings.pass(id, fmt::format("PostgreSQL {}", source.major()));
  }
}

void check_recovery(const End& source, Findings& findings) {
  const std::string id = "source.recovery";
  if (!source.identity.in_recovery) return findings.pass(id, "it is a primary");
  findings.add(
      source.major() < 16 ? Severity::Fail : Severity::Warn, id,
      {.title = "it is a standby",
       .detail = source.major() < 16 ? "logical decoding on a standby needs PostgreSQL 16"
                                     : "a publication, the cutover marker and the write fence need the primary",
       .remedy = "name the primary, or several hosts with target_session_attrs=read-write"});
}

void check_wal_level(End& source, Findings& findings) {
  const std::string id = "source.wal_level";
  const std::string level = source.setting("wal_level");
  if (level == "logical") return findings.pass(id, "wal_level is logical");
  if (source.major() >= 19 && level == "replica") {
    return findings.pass(
        id, "wal_level is replica, which this server raises to logical by itself while a logical slot exists");
  }
  const bool pending =
      source.session.exec("SELECT pending_restart FROM pg_catalog.pg_settings WHERE name = 'wal_level'").flag(0, 0);
  findings.fail(id, {.title = fmt::format("wal_level is {}, logical is needed", level),
                     .detail = pending ? "another value is configured already and waits for a restart (pending_restart)"
                                       : "the setting takes effect when the server starts: a reload is not enough",
                     .remedy = pending ? "check that the configured value is logical, then restart the source server"
                                       : "ALTER SYSTEM SET wal_level = logical;\nthen restart the source server"});
}

struct Room {
  std::string id;
  std::string setting;
  std::string what;
  std::string count_sql;
};

// One is needed for the stream; a second one serves copies that are taken up again, and proofs under load.
void check_room(End& source, const Room& room, Findings& findings) {
  const std::int64_t maximum = std::stoll(source.setting(room.setting));
  const std::int64_t free = maximum - source.number(room.count_sql);
  if (free >= 2) return findings.pass(room.id, fmt::format("{} of {} {} are free", free, maximum, room.what));
  findings.add(
      free < 1 ? Severity::Fail : Severity::Warn, room.id,
      {.title = fmt::format("{} of {} {} are free", free < 0 ? 0 : free, maximum, room.what),
       .detail = free < 1 ? "the stream needs one, a copy that is taken up again a second one for a while"
                          : "enough for the stream; a copy that is taken up again needs a second one for a while",
       .remedy = fmt::format("drop those no longer used, or ALTER SYSTEM SET {} = {}; and restart the source server",
                             room.setting, maximum + 4)});
}

void check_ddl_trigger(End& source, const CheckOptions& options, Findings& findings) {
  const std::string id = "source.ddl_trigger";
  if (!options.ddl_trigger) {
    findings.pass(id, "no event trigger is made on the source (--no-ddl-trigger)");
  } else if (source.superuser && source.major() >= 14) {
    findings.pass(id, "schema changes will be in the stream",
                  "`run` makes event triggers and a function in schema walferry on the source, removed by finish and "
                  "abort; tables that are created later join the publication. --no-ddl-trigger does without");
  } else {
    findings.warn(
        id, {.title = "schema changes will not be in the stream",
             .detail = source.major() < 14 ? "PostgreSQL 13 sends no logical messages. They are seen by comparing "
                                             "catalogs and by what they do to rows, and block the cutover"
                                           : "event triggers need a superuser on the source. Schema changes are seen "
                                             "by comparing catalogs and by what they do to rows, and block the cutover",
             .remedy = "make no schema changes until the cutover, or connect to the source as a superuser"});
  }
}

void check_replication_right(End& source, const CheckOptions& options, Findings& findings) {
  const std::string id = "source.replication";
  const bool attribute =
      source.session.exec("SELECT rolreplication FROM pg_catalog.pg_roles WHERE rolname = current_user").flag(0, 0);
  const bool managed = source.number(
                           "SELECT count(*) FROM pg_catalog.pg_roles WHERE rolname = 'rds_replication' "
                           "AND pg_catalog.pg_has_role(current_user, oid, 'MEMBER')") > 0;
  const std::string role = pg::quote_name(source.role);
  if (!source.superuser && !attribute && !managed) {
    return findings.fail(
        id, {.title = fmt::format("role {} has no REPLICATION attribute", source.role),
             .detail = "an ordinary login cannot open a replication connection",
             .remedy = fmt::format("ALTER ROLE {0} REPLICATION;   (Amazon RDS: GRANT rds_replication TO {0};)", role)});
  }
  // The attribute alone does not decide: pg_hba.conf and poolers have a say. A walsender that streams nothing changes
  // nothing.
  try {
    pg::SessionOptions session;
    session.application_name = "walferry check";
    session.kind = pg::SessionKind::Replication;
    pg::Session::open(options.source, session).exec("IDENTIFY_SYSTEM");
    findings.pass(id, "a replication connection can be opened");
  } catch (const Error& error) {
    findings.fail(
        id, {.title = "the role may replicate, but a replication connection cannot be opened",
             .detail = error.what(),
             .remedy = "a line for this database and role in pg_hba.conf (logical replication matches the database's "
                       "name, not the word replication), a free walsender, no pooler in between"});
  }
}

void check_synchronous_standbys(End& source, const CheckOptions& options, Findings& findings) {
  const std::string id = "source.synchronous_standby_names";
  const std::string names = source.setting("synchronous_standby_names");
  if (!is_synchronous_standby(names, options.application_name)) {
    return findings.pass(id, names.empty() ? "synchronous_standby_names is empty"
                                           : "synchronous_standby_names does not count walferry's walsender");
  }
  findings.warn(
      id, {.title = fmt::format("synchronous_standby_names ({}) counts walferry's walsender, application_name {}",
                                names, options.application_name),
           .detail = "walferry would become a synchronous standby: commits of the source would wait for it, or be "
                     "reported as safe while no real standby has them",
           .remedy = "name the real standbys one by one: ALTER SYSTEM SET synchronous_standby_names = '<their names>'; "
                     "SELECT pg_reload_conf();"});
}

// From 17 on a slot made with FAILOVER, as the migration's is, sends nothing that these standbys do not have yet.
void check_standby_slots(End& source, Findings& findings) {
  const std::string id = "source.synchronized_standby_slots";
  const std::vector<std::string> absent = source.texts(
      "SELECT wanted.name FROM pg_catalog.unnest(pg_catalog.string_to_array("
      "pg_catalog.current_setting('synchronized_standby_slots'), ',')) AS given (name), "
      "LATERAL (SELECT pg_catalog.btrim(given.name, ' \"')) AS wanted (name) "
      "LEFT JOIN pg_catalog.pg_replication_slots s ON s.slot_name = wanted.name "
      "WHERE s.active IS NOT TRUE AND wanted.name <> '' ORDER BY 1");
  if (absent.empty())
    return findings.pass(id, "no standby that is down keeps the stream back (synchronized_standby_slots)");
  findings.warn(id, {.title = "synchronized_standby_slots names slots whose standbys are not there: " + listed(absent),
                     .detail = "the source sends walferry nothing that they have not received: the stream stands still "
                               "until they are back",
                     .remedy = "start these standbys, or take their slots out: ALTER SYSTEM SET "
                               "synchronized_standby_slots = '<slots of living standbys>'; SELECT pg_reload_conf();"});
}

void check_wal_retention(End& source, Findings& findings) {
  const std::string id = "source.max_slot_wal_keep_size";
  const std::int64_t limit_mb =
      source.number("SELECT setting::bigint FROM pg_catalog.pg_settings WHERE name = 'max_slot_wal_keep_size'");
  const std::int64_t database_bytes =
      source.number("SELECT pg_catalog.pg_database_size(pg_catalog.current_database())");
  constexpr std::int64_t mb = 1 << 20;
  if (limit_mb < 0) {
    return findings.pass(id, "max_slot_wal_keep_size is unlimited: the slot cannot be lost to it",
                         "while walferry is stopped the source keeps all WAL: watch its disk, or `walferry abort`");
  }
  const std::int64_t wanted_mb = std::max<std::int64_t>(1024, database_bytes / mb / 10);
  if (limit_mb >= wanted_mb)
    return findings.pass(id, fmt::format("max_slot_wal_keep_size is {}", bytes_text(limit_mb * mb)));
  findings.warn(id, {.title = fmt::format("max_slot_wal_keep_size is only {}", bytes_text(limit_mb * mb)),
                     .detail = "once the slot has fallen back further than this it is lost, and with it the migration",
                     .remedy = fmt::format("ALTER SYSTEM SET max_slot_wal_keep_size = '{}MB'; SELECT pg_reload_conf();",
                                           wanted_mb)});
}

void check_timeouts(End& source, Findings& findings) {
  // Asked of the server's default, as walferry sets its own for its walsender.
  const std::int64_t sender_ms =
      source.number("SELECT reset_val::bigint FROM pg_catalog.pg_settings WHERE name = 'wal_sender_timeout'");
  const std::string id = "source.wal_sender_timeout";
  if (sender_ms == 0) {
    findings.warn(
        id,
        {.title = "wal_sender_timeout is 0",
         .detail = "after a network failure a dead walsender holds the slot until TCP gives up; walferry sets its own "
                   "limit where the server lets it",
         .remedy = "ALTER SYSTEM SET wal_sender_timeout = '60s'; SELECT pg_reload_conf();"});
  } else if (sender_ms < 10000) {
    findings.warn(id, {.title = fmt::format("wal_sender_timeout is only {} ms", sender_ms),
                       .detail = "a short stall of the network cuts the stream; it resumes, but decoding starts again",
                       .remedy = "ALTER SYSTEM SET wal_sender_timeout = '60s'; SELECT pg_reload_conf();"});
  } else {
    findings.pass(id, fmt::format("wal_sender_timeout is {} s", sender_ms / 1000));
  }
  const std::string idle = source.setting("idle_replication_slot_timeout");
  if (idle.empty() || idle == "0") return;
  findings.warn("source.idle_replication_slot_timeout",
                {.title = fmt::format("idle_replication_slot_timeout is {}", idle),
                 .detail = "a migration that is stopped for longer than this loses its slot and must begin again",
                 .remedy = "ALTER SYSTEM SET idle_replication_slot_timeout = 0; SELECT pg_reload_conf();"});
}

void check_output_plugin(End& source, Findings& findings) {
  const std::string plugins = source.setting("output_plugin_libraries");
  if (plugins.empty() || plugins.find("pgoutput") != std::string::npos || plugins.find('*') != std::string::npos)
    return;
  findings.fail(
      "source.output_plugin_libraries",
      {.title = "output_plugin_libraries does not allow pgoutput",
       .detail = fmt::format("it is {}", plugins),
       .remedy = "ALTER SYSTEM SET output_plugin_libraries = pgoutput, test_decoding; SELECT pg_reload_conf();"});
}

void check_long_transactions(End& source, Findings& findings) {
  const std::string id = "source.long_transactions";
  const pg::Result rows = source.session.exec(R"(
SELECT pid, coalesce(usename, ''), coalesce(datname, ''), coalesce(state, ''),
       extract(epoch FROM pg_catalog.clock_timestamp() - xact_start)::bigint,
       coalesce(pg_catalog.to_char(query_start, 'YYYY-MM-DD HH24:MI:SS TZ'), 'unknown'), backend_xid IS NOT NULL
FROM pg_catalog.pg_stat_activity
WHERE xact_start < pg_catalog.clock_timestamp() - interval '1 minute' AND pid <> pg_catalog.pg_backend_pid()
  AND backend_type NOT IN ('autovacuum worker', 'walsender')
ORDER BY xact_start)");
  std::vector<std::string> lines;
  std::vector<std::string> remedies;
  for (int row = 0; row < rows.rows(); ++row) {
    lines.push_back(fmt::format("pid {}: open for {} s, user {}, database {}, {}, last statement began {}{}",
                                rows.str(row, 0), rows.i64(row, 4), rows.str(row, 1), rows.str(row, 2),
                                rows.str(row, 3), rows.str(row, 5), rows.flag(row, 6) ? ", has written" : ""));
    remedies.push_back(fmt::format("SELECT pg_terminate_backend({});", rows.str(row, 0)));
  }
  if (!lines.empty()) {
    findings.warn(
        id, {.title = counted(lines.size(), "transaction has", "transactions have") + " been open for over a minute",
             .detail = "the slot is created only when every transaction that has written has ended:\n" +
                       listed(lines, 20, "\n"),
             .remedy = "let them end, or\n" + listed(remedies, 20, "\n")});
    return;
  }
  const bool sees_all = source.superuser || source.number(
                                                "SELECT pg_catalog.pg_has_role(current_user, 'pg_read_all_stats', "
                                                "'USAGE')::int") == 1;
  if (sees_all) return findings.pass(id, "no transaction has been open for over a minute");
  findings.warn(id, {.title = "transactions of other roles cannot be seen",
                     .detail = "a long transaction delays the creation of the slot",
                     .remedy = fmt::format("GRANT pg_read_all_stats TO {};", pg::quote_name(source.role))});
}

void check_prepared_transactions(End& source, Findings& findings) {
  const std::string id = "source.prepared_transactions";
  const pg::Result rows = source.session.exec(R"(
SELECT gid, owner, database, extract(epoch FROM pg_catalog.clock_timestamp() - prepared)::bigint
FROM pg_catalog.pg_prepared_xacts ORDER BY prepared)");
  if (rows.rows() == 0) return findings.pass(id, "no prepared transaction is open");
  std::vector<std::string> lines;
  std::vector<std::string> remedies;
  for (int row = 0; row < rows.rows(); ++row) {
    lines.push_back(fmt::format("{}: prepared {} s ago by {} in database {}", pg::quote_literal(rows.text(row, 0)),
                                rows.i64(row, 3), rows.str(row, 1), rows.str(row, 2)));
    remedies.push_back(
        fmt::format("COMMIT PREPARED {0};   or   ROLLBACK PREPARED {0};", pg::quote_literal(rows.text(row, 0))));
  }
  findings.warn(id, {.title = counted(lines.size(), "prepared transaction is", "prepared transactions are") + " open",
                     .detail = "the slot is created only when they have ended, and they survive restarts:\n" +
                               listed(lines, 20, "\n"),
                     .remedy = listed(remedies, 20, "\n")});
}

void check_slot_name(End& source, const CheckOptions& options, Findings& findings) {
  const std::string id = "source.slot_name";
  const pg::Result rows = source.session.exec(
      "SELECT active, coalesce(active_pid, 0), coalesce(database, '') FROM pg_catalog.pg_replication_slots "
      "WHERE slot_name = " +
      pg::quote_literal(options.slot));
  if (rows.rows() == 0) {
    if (!options.pinned) return findings.pass(id, fmt::format("the slot name {} is free", options.slot));
    return findings.warn(
        id,
        {.title = fmt::format("slot {} of this migration does not exist", options.slot),
         .detail =
             "right only while the migration has not created it yet; if it is lost (a fail-over of a source before 17 "
             "does this), so are the changes that it had not yet sent",
         .remedy = "if it was lost: walferry abort --state-dir <dir>, then begin again with an empty target"});
  }
  if (options.pinned) return findings.pass(id, fmt::format("slot {} of this migration exists", options.slot));
  findings.fail(id, {.title = fmt::format("a replication slot named {} exists already{}", options.slot,
                                          rows.flag(0, 0) ? fmt::format(", in use by pid {}", rows.str(0, 1)) : ""),
                     .detail = "another migration may own it; if none does, it makes the source keep WAL for ever",
                     .remedy = fmt::format("name its state directory (--state-dir), choose another name (--slot), or\n"
                                           "SELECT pg_drop_replication_slot({});",
                                           pg::quote_literal(options.slot))});
}

void check_lost_slots(End& source, Findings& findings) {
  const std::vector<std::string> lost =
      source.texts("SELECT slot_name FROM pg_catalog.pg_replication_slots WHERE wal_status = 'lost' ORDER BY 1");
  if (lost.empty()) return;
  std::vector<std::string> remedies;
  for (const std::string& slot : lost) {
    remedies.push_back(fmt::format("SELECT pg_drop_replication_slot({});", pg::quote_literal(slot)));
  }
  findings.warn("source.lost_slots", {.title = "there are lost slots: " + listed(lost),
                                      .detail = "WAL that they needed is gone; they only take up room",
                                      .remedy = listed(remedies, 20, "\n")});
}

}  // namespace

void check_source(End& source, const CheckOptions& options, Findings& findings) {
  check_version(source, findings);
  check_recovery(source, findings);
  check_direct_connection(source, findings);
  findings.ask("source.wal_level", [&] { check_wal_level(source, findings); });
  const Room slots{"source.slots", "max_replication_slots", "replication slots",
                   "SELECT count(*) FROM pg_catalog.pg_replication_slots"};
  findings.ask(slots.id, [&] { check_room(source, slots, findings); });
  const Room senders{"source.walsenders", "max_wal_senders", "walsenders",
                     "SELECT count(*) FROM pg_catalog.pg_stat_replication"};
  findings.ask(senders.id, [&] { check_room(source, senders, findings); });
  check_free_connections(source, options.jobs + 5, findings);
  findings.ask("source.replication", [&] { check_replication_right(source, options, findings); });
  check_ddl_trigger(source, options, findings);
  if (!options.adopt || options.pinned)
    findings.ask("source.slot_name", [&] { check_slot_name(source, options, findings); });
  findings.ask("source.lost_slots", [&] { check_lost_slots(source, findings); });
  findings.ask("source.output_plugin_libraries", [&] { check_output_plugin(source, findings); });
  findings.ask("source.synchronous_standby_names", [&] { check_synchronous_standbys(source, options, findings); });
  // A slot that is taken over, or made on a standby, need not be one that waits.
  if (source.session.server_version() >= 170'000 && !options.adopt && !source.identity.in_recovery)
    findings.ask("source.synchronized_standby_slots", [&] { check_standby_slots(source, findings); });
  findings.ask("source.max_slot_wal_keep_size", [&] { check_wal_retention(source, findings); });
  findings.ask("source.wal_sender_timeout", [&] { check_timeouts(source, findings); });
  findings.ask("source.long_transactions", [&] { check_long_transactions(source, findings); });
  findings.ask("source.prepared_transactions", [&] { check_prepared_transactions(source, findings); });
}

}  // namespace walferry::check
