#include "engine/cutover/guards.hpp"

#include <fmt/format.h>

#include "engine/catalog.hpp"
#include "engine/cutover/fence.hpp"
#include "engine/cutover/lock_holders.hpp"
#include "engine/cutover/prepared.hpp"
#include "engine/ddl/schema_watch.hpp"
#include "engine/outside/database_settings.hpp"
#include "engine/pg/session.hpp"

namespace walferry::cutover {
namespace {

// Whoever has locked a table exclusively is named, not waited for.
pg::Session open(const pg::ConnInfo& info) {
  return pg::Session::open(
      info, {.application_name = "walferry cutover", .settings = {"lock_timeout=3s", "statement_timeout=60s"}});
}

}  // namespace

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

namespace {

void look_at_source(pg::Session& source, const MigrationOptions& options, store::Journal& journal,
                    std::vector<std::string>& blockers) {
  const pg::Result prepared = source.exec(
      "SELECT gid, owner FROM pg_catalog.pg_prepared_xacts WHERE database = pg_catalog.current_database() ORDER BY "
      "prepared");
  for (int row = 0; row < prepared.rows(); ++row) {
    blockers.push_back(fmt::format("prepared transaction {} of {}: COMMIT PREPARED or ROLLBACK PREPARED it",
                                   prepared.text(row, 0), prepared.text(row, 1)));
  }
  const Catalog selected = read_selected_catalog(source, options.selection, Sizes::LeaveOut);
  std::vector<QualifiedName> names;
  for (const Table& table : selected.tables) names.push_back(table.name);
  for (std::string& holder : long_holders_and_writers(source, names)) blockers.push_back(std::move(holder));
  // The rights that the fence needs, found before anything is stopped.
  for (const std::string& table : unfenceable_tables(source)) {
    blockers.push_back(
        fmt::format("table {} belongs to a role that ours is no member of, so writes to it cannot be stopped: GRANT "
                    "that role to ours",
                    table));
  }
  if (!source.exec("SELECT pg_catalog.has_database_privilege(pg_catalog.current_database(), 'CREATE')").flag(0, 0)) {
    blockers.emplace_back("our role may not create the fence's schema on the source: GRANT CREATE ON DATABASE");
  }
  for (std::string& blocker : table_blockers(source, selected, journal)) blockers.push_back(std::move(blocker));
  for (const DdlFinding& finding : ddl::SchemaWatch{options.source, options.target, journal}.compare()) {
    blockers.push_back(fmt::format(
        "{0} was {1} on the source and the target does not have the same: {2}. Where it is the same in other "
        "words: `walferry skip --object '{0}' --reason ...`",
        finding.object, finding.change, finding.remedy));
  }
}

}  // namespace

std::vector<std::string> blockers_of_ends(const MigrationOptions& options, store::Journal& journal) {
  std::vector<std::string> blockers;
  pg::Session source = open(options.source);
  try {
    look_at_source(source, options, journal, blockers);
  } catch (const Error& error) {
    if (error.sqlstate() != "55P03" || error.side() != Side::Source) throw;
    blockers.push_back(
        fmt::format("a table of the source is locked exclusively ({}): wait until that is over, or end it",
                    describe_holders(source)));
  }
  pg::Session target = open(options.target);
  // The old source is, until a way back opens it.
  if (!journal.get(store::journal_keys::way_back_of) && outside::begins_read_only(target)) {
    blockers.emplace_back(
        "default_transaction_read_only is on for the target's database, where applications are to write: ALTER "
        "DATABASE ... RESET default_transaction_read_only");
  }
  return blockers;
}

}  // namespace walferry::cutover
