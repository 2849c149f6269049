#include "engine/cutover/guards.hpp"

#include <fmt/format.h>

#include "engine/catalog.hpp"
#include "engine/cutover/prepared.hpp"
#include "engine/ddl/schema_watch.hpp"
#include "engine/pg/session.hpp"

namespace walferry::cutover {

std::vector<std::string> own_blockers(const Status& status, std::chrono::milliseconds max_lag) {
  std::vector<std::string> blockers;
  if (status.phase != Phase::Follow) {
    blockers.push_back(fmt::format("the migration is in phase \"{}\": wait until it follows", to_string(status.phase)));
  }
  if (status.apply_stopped) {
    blockers.push_back("apply stands still: " +
                       (status.last_error ? status.last_error->text : std::string{"see the log"}));
  }
  if (status.slot && status.slot->awaits_standbys) {
    blockers.emplace_back(
        "the source sends nothing before the standbys of its synchronized_standby_slots have it: "
        "start the one that is down, or take its slot out of that setting");
  }
  if (!status.source_connected) blockers.push_back("the stream from the source is not connected");
  if (status.phase == Phase::Follow && !status.target_connected)
    blockers.push_back("the apply is not connected to the target");
  if (status.lag_seconds * 1'000 > static_cast<double>(max_lag.count())) {
    blockers.push_back(fmt::format("the target is {:.1f} s behind, more than {:.1f} s: wait, or raise --max-lag",
                                   status.lag_seconds, static_cast<double>(max_lag.count()) / 1'000));
  }
  return blockers;
}

std::vector<std::string> source_blockers(const MigrationOptions& options, store::Journal& journal) {
  std::vector<std::string> blockers;
  pg::Session source = pg::Session::open(options.source, {.application_name = "walferry cutover"});
  const pg::Result prepared = source.exec(
      "SELECT gid, owner FROM pg_catalog.pg_prepared_xacts WHERE database = pg_catalog.current_database() ORDER BY "
      "prepared");
  for (int row = 0; row < prepared.rows(); ++row) {
    blockers.push_back(fmt::format("prepared transaction {} of {}: COMMIT PREPARED or ROLLBACK PREPARED it",
                                   prepared.text(row, 0), prepared.text(row, 1)));
  }
  const pg::Result open = source.exec(
      "SELECT pid, coalesce(usename, '?'), pg_catalog.date_trunc('second', pg_catalog.now() - xact_start) "
      "FROM pg_catalog.pg_stat_activity WHERE backend_xid IS NOT NULL AND datname = pg_catalog.current_database() "
      "AND xact_start < pg_catalog.now() - '10 seconds'::pg_catalog.interval ORDER BY xact_start LIMIT 5");
  for (int row = 0; row < open.rows(); ++row) {
    blockers.push_back(fmt::format("pid {} ({}) has had a writing transaction open for {}: end it first",
                                   open.text(row, 0), open.text(row, 1), open.text(row, 2)));
  }
  // The rights that the fence needs, found before anything is stopped.
  const pg::Result foreign = source.exec(fmt::format(
      "SELECT n.nspname, c.relname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace "
      "WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't' AND NOT pg_catalog.pg_has_role(current_user, "
      "c.relowner, 'USAGE') "
      "AND {} ORDER BY 1, 2 LIMIT 3",
      user_schema_condition("n")));
  for (int row = 0; row < foreign.rows(); ++row) {
    blockers.push_back(
        fmt::format("table {}.{} belongs to a role that ours is no member of, so writes to it cannot be stopped: GRANT "
                    "that role to ours",
                    foreign.text(row, 0), foreign.text(row, 1)));
  }
  if (!source.exec("SELECT pg_catalog.has_database_privilege(pg_catalog.current_database(), 'CREATE')").flag(0, 0)) {
    blockers.emplace_back("our role may not create the fence's schema on the source: GRANT CREATE ON DATABASE");
  }
  for (std::string& blocker : table_blockers(source, read_selected_catalog(source, options.selection), journal))
    blockers.push_back(std::move(blocker));
  for (const DdlFinding& finding : ddl::SchemaWatch{options.source, options.target, journal}.compare()) {
    blockers.push_back(fmt::format("{} was {} on the source and the target does not have the same: {}", finding.object,
                                   finding.change, finding.remedy));
  }
  return blockers;
}

}  // namespace walferry::cutover
