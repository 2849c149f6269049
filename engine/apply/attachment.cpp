#include "engine/apply/attachment.hpp"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

namespace walferry::apply {
namespace {

constexpr std::size_t application_name_max = 63;  // what pg_stat_activity keeps

bool become_replica(pg::Session& session) {
  try {
    session.exec("SET session_replication_role = replica");
    return true;
  } catch (const Error& error) {
    if (error.sqlstate() != "42501") throw;
    // Without the right the target was prepared otherwise (target_state.cpp); check has said what that costs.
    spdlog::info(
        "the target role may not set session_replication_role: triggers and rules are disabled and foreign keys are "
        "left out until the cutover, deferrable keys are checked at each commit");
    return false;
  }
}

// Commits need not be flushed: a crash of the target takes changes and position back together.
void commit_lazily(pg::Session& session) {
  session.exec("SET synchronous_commit = off");
}

// A backend that does not end holds it: tried again from the beginning, where such are ended.
void take_position(pg::Session& session, const Progress& progress) {
  session.exec("SET lock_timeout = '10s'");
  session.exec(progress.take_sql());
  session.exec("RESET lock_timeout");
}

// What the server shows of such a session, and by what a dead run's are found.
// None is longer than the first, so that as much of the migration's name is kept in each.
constexpr std::string_view apply_session = "apply";
constexpr std::string_view lane_session = "lane";
constexpr std::string_view early_session = "early";
constexpr std::string_view early_lane_session = "ahead";

std::string application_name(const std::string& migration, std::string_view what) {
  return fmt::format("walferry {} {}", what, migration).substr(0, application_name_max);
}

pg::Session open_session(const AttachmentOptions& options, std::string_view what) {
  // Rows are found by their key whatever statistics say, by plans that are made once. jit would be chosen for the cost
  // that a disabled sequential scan is given.
  pg::Session session =
      pg::Session::open(options.target, {.application_name = application_name(options.migration, what),
                                         .client_encoding = options.client_encoding,
                                         .settings = {"plan_cache_mode=force_generic_plan", "enable_seqscan=off",
                                                      "enable_hashjoin=off", "enable_mergejoin=off", "jit=off"}});
  const DatabaseIdentity identity = read_identity(session);
  if (identity.system_identifier != options.system_identifier) {
    throw Error{
        {ErrorKind::Refused, Side::Target},
        fmt::format("the target is now another cluster (system identifier {}, pinned {}). Nothing was written to it. "
                    "Remedy: correct --target, or abort this migration and begin anew",
                    identity.system_identifier, options.system_identifier)};
  }
  if (identity.in_recovery) throw standby_error();
  return session;
}

}  // namespace

Error standby_error() {
  return Error{
      {ErrorKind::Connection, Side::Target},
      "target: this server is a standby, and what was written to is a primary: it may be promoted yet. Remedy: "
      "promote it, or let --target lead to the primary"};
}

Attachment attach(const AttachmentOptions& options) {
  pg::Session session = open_session(options, apply_session);
  // A dead predecessor's backend may still hold the position, or rows; the state directory's lock says that nobody
  // else is alive.
  session.exec("SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity WHERE " +
               is_apply_session_sql(options.migration));
  Progress progress = Progress::of(session, options.migration);
  TargetTables tables = read_target_tables(session);
  const bool replica_role = become_replica(session);
  commit_lazily(session);
  take_position(session, progress);
  Progress::tidy(session, options.migration);
  // Read last: from here on nobody else can move it.
  const Lsn position = progress.read(session);
  return {std::move(session), std::move(progress), position, std::move(tables), replica_role};
}

Attachment attach_lane(const AttachmentOptions& options, unsigned lane) {
  pg::Session session = open_session(options, lane_session);
  Progress progress{options.migration, lane};
  const bool replica_role = become_replica(session);
  commit_lazily(session);
  take_position(session, progress);
  // Read last: a dead predecessor's backend could still have committed before.
  const Lsn position = progress.read(session);
  return {std::move(session), std::move(progress), position, {}, replica_role};
}

Attachment attach_early(const AttachmentOptions& options, unsigned lane) {
  pg::Session session = open_session(options, lane == 0 ? early_session : early_lane_session);
  Progress progress = lane == 0 ? Progress::of(session, options.migration) : Progress{options.migration, lane};
  TargetTables tables = lane == 0 ? read_target_tables(session) : TargetTables{};
  const bool replica_role = become_replica(session);
  commit_lazily(session);
  return {std::move(session), std::move(progress), Lsn{}, std::move(tables), replica_role};
}

std::string is_apply_session_sql(const std::string& migration) {
  std::string names;
  for (const std::string_view what : {apply_session, lane_session, early_session, early_lane_session})
    names += (names.empty() ? "" : ", ") + pg::quote_literal(application_name(migration, what));
  // Another database of the cluster may be the target of a migration of the same name.
  return fmt::format(
      "application_name IN ({}) AND datname = pg_catalog.current_database() AND pid <> pg_catalog.pg_backend_pid()",
      names);
}

}  // namespace walferry::apply
