#include "engine/copy/snapshot.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <chrono>

namespace walferry::copy {
namespace {

constexpr std::chrono::seconds blockers_interval{1};

// The open transactions of the whole cluster that have written, prepared ones too: logical decoding cannot start before
// each of them has ended.
std::string describe_blockers(pg::Session& session) {
  const pg::Result rows = session.exec(
      "SELECT pid, coalesce(usename, '?'), coalesce(application_name, ''), coalesce(state, backend_type), "
      "pg_catalog.date_trunc('second', pg_catalog.now() - xact_start) FROM pg_catalog.pg_stat_activity "
      "WHERE backend_xid IS NOT NULL AND pid <> pg_catalog.pg_backend_pid() ORDER BY xact_start LIMIT 5");
  const pg::Result prepared = session.exec(
      "SELECT gid, owner, database, pg_catalog.date_trunc('second', pg_catalog.now() - prepared) FROM "
      "pg_catalog.pg_prepared_xacts ORDER BY prepared LIMIT 5");
  std::string text;
  for (int row = 0; row < rows.rows(); ++row) {
    if (!text.empty()) text += "; ";
    text += fmt::format("pid {} ({}{}, {}, open for {})", rows.text(row, 0), rows.text(row, 1),
                        rows.text(row, 2).empty() ? "" : " " + rows.str(row, 2), rows.text(row, 3), rows.text(row, 4));
  }
  for (int row = 0; row < prepared.rows(); ++row) {
    text += fmt::format("{}prepared transaction {} ({} in database {}, for {}: COMMIT or ROLLBACK PREPARED there)",
                        text.empty() ? "" : "; ", pg::quote_literal(prepared.str(row, 0)), prepared.text(row, 1),
                        prepared.text(row, 2), prepared.text(row, 3));
  }
  return text;
}

// From 17 on standbys that synchronise slots (sync_replication_slots) take the migration's along, to be promoted with
// it.
std::string create_slot_sql(pg::Session& server, const SnapshotRequest& request) {
  const bool follows_failover = server.server_version() >= 170'000 && !request.temporary &&
                                !server.exec("SELECT pg_catalog.pg_is_in_recovery()").flag(0, 0);
  return fmt::format("CREATE_REPLICATION_SLOT {}{} LOGICAL pgoutput {}", pg::quote_name(request.slot),
                     request.temporary ? " TEMPORARY" : "",
                     follows_failover ? "(SNAPSHOT 'export', FAILOVER true)" : "EXPORT_SNAPSHOT");
}

TimelineHistory read_history(pg::Session& walsender) {
  TimelineHistory history{.timeline = walsender.exec("IDENTIFY_SYSTEM").u32(0, 1), .file = {}};
  if (history.timeline == 1) return history;
  try {
    history.file = walsender.exec(fmt::format("TIMELINE_HISTORY {}", history.timeline)).str(0, 1);
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::Sql || is_transient(error)) throw;
    // It may lack the file: the receiver warns of that.
  }
  return history;
}

}  // namespace

Snapshot Snapshot::create(const SnapshotRequest& request) {
  pg::Session walsender = pg::Session::open(request.source, {.application_name = "walferry slot",
                                                             .kind = pg::SessionKind::Replication,
                                                             .client_encoding = request.client_encoding});
  TimelineHistory history = read_history(walsender);
  pg::Session holder = pg::Session::open(
      request.source, {.application_name = "walferry snapshot", .client_encoding = request.client_encoding});
  const pg::Result slot = walsender.exec_watched(create_slot_sql(holder, request), blockers_interval, [&] {
    const bool over_time = std::chrono::steady_clock::now() >= request.deadline;
    if (!over_time && !request.on_waiting) return;
    const std::string blockers = describe_blockers(holder);
    if (over_time) {
      throw Error{{ErrorKind::Timeout, Side::Source},
                  fmt::format("transactions that are open on the source did not end in time, and no view of it can be "
                              "taken before they do: {}. Remedy: end them, or give more --timeout",
                              blockers)};
    }
    request.on_waiting(blockers);
  });
  const Lsn lsn = slot.lsn(0, 1);
  // The snapshot lives until the walsender's next command: import it, and export it again from a session that only
  // holds it.
  pg::use_snapshot(holder, slot.str(0, 2));
  const std::string id = holder.exec("SELECT pg_catalog.pg_export_snapshot()").str(0, 0);
  return Snapshot{std::move(holder), id, lsn, std::move(history)};
}

bool Snapshot::alive() {
  try {
    holder_.exec("SELECT 1");
    return true;
  } catch (const Error&) {
    return false;  // a lost holder is an answer, not a failure: the caller makes a new snapshot
  }
}

void require_shared_past(const TimelineHistory& history, Lsn lsn, const std::optional<std::string>& followed) {
  const auto known = TimelineHistory::parse(followed.value_or(""));
  if (!known) return;
  const bool unreadable = history.timeline == known->timeline && (history.file.empty() || known->file.empty());
  if (unreadable || lsn <= shared_until(history, *known)) return;
  throw Error{{ErrorKind::Sql, Side::Source, std::string{pg::snapshot_gone}},
              fmt::format("rows were read as of {} on timeline {}, and the stream comes from a server on timeline {} "
                          "that does not have that moment: they are copied again once both lead to the same server",
                          lsn.to_string(), history.timeline, known->timeline)};
}

std::string temporary_slot_name(const std::string& migration) {
  return fmt::format("{}_{}_{:x}", migration.substr(0, 36), ::getpid(),
                     std::chrono::steady_clock::now().time_since_epoch().count());
}

}  // namespace walferry::copy
