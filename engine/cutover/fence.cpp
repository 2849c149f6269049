#include "engine/cutover/fence.hpp"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <array>
#include <condition_variable>
#include <mutex>

namespace walferry::cutover {
namespace {

using std::chrono::duration_cast;
using std::chrono::milliseconds;
using Clock = std::chrono::steady_clock;

constexpr std::string_view trigger_name = "walferry_fence";
// How long one try may hold up the writers; the later ones outlast deadlock_timeout, at which autovacuum gives way.
constexpr std::array<milliseconds, 4> tries{milliseconds{300}, milliseconds{600}, milliseconds{1'500},
                                            milliseconds{2'500}};
constexpr milliseconds pause_between_tries{200};

std::string name_list(const std::vector<QualifiedName>& tables) {
  std::string list;
  for (const QualifiedName& table : tables) list += (list.empty() ? "ONLY " : ", ONLY ") + table.quoted();
  return list;
}

milliseconds until(Clock::time_point deadline) {
  return std::max(duration_cast<milliseconds>(deadline - Clock::now()), milliseconds{0});
}

std::string describe_holders(pg::Session& session) {
  const pg::Result rows = session.exec(
      "SELECT DISTINCT a.pid, coalesce(a.usename, '?'), coalesce(a.application_name, ''), coalesce(a.state, ''), "
      "pg_catalog.date_trunc('second', pg_catalog.now() - a.xact_start) "
      "FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_stat_activity a USING (pid) "
      "WHERE l.locktype = 'relation' AND l.granted AND l.pid <> pg_catalog.pg_backend_pid() "
      "AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()) "
      "AND l.mode IN ('RowExclusiveLock', 'ShareUpdateExclusiveLock', 'ShareLock', 'ShareRowExclusiveLock', "
      "'ExclusiveLock', "
      "'AccessExclusiveLock') ORDER BY 5 DESC LIMIT 5");
  std::string text;
  for (int row = 0; row < rows.rows(); ++row) {
    text +=
        fmt::format("{}pid {} ({}{}, {}, open for {})", text.empty() ? "" : "; ", rows.text(row, 0), rows.text(row, 1),
                    rows.text(row, 2).empty() ? "" : " " + rows.str(row, 2), rows.text(row, 3), rows.text(row, 4));
  }
  return text;
}

}  // namespace

Fence Fence::prepare(const pg::ConnInfo& source) {
  pg::Session session = pg::Session::open(source, {.application_name = "walferry fence"});
  try {
    // Found early, a deadlock ends our try and not the application's transaction, and a blocking autovacuum gives way
    // at once.
    session.exec("SET deadlock_timeout = '100ms'");
  } catch (const Error& error) {
    if (error.sqlstate() != "42501") throw;  // superusers only; without it the server's own deadlock_timeout counts
  }
  return Fence{std::move(session)};
}

Raised Fence::raise(const FenceRequest& request) {
  if (request.tables.empty()) {
    session_.exec("BEGIN");
    return {.since = Clock::now()};
  }
  const std::string lock = fmt::format("LOCK TABLE {} IN SHARE ROW EXCLUSIVE MODE", name_list(request.tables));
  milliseconds lost{0};
  std::string holders;
  for (std::size_t attempt = 0;; ++attempt) {
    const milliseconds left = until(request.deadline);
    if (left == milliseconds{0}) {
      throw Error{
          {ErrorKind::Timeout, Side::Source},
          fmt::format(
              "writes on the source could not be stopped in time{}. The source is writable, nothing was switched. "
              "Remedy: end those transactions, or give more time with --timeout",
              holders.empty() ? "" : ": locks are held by " + holders)};
    }
    const auto begun = Clock::now();
    const milliseconds patience = std::min(left, tries[std::min(attempt, tries.size() - 1)]);
    try {
      // The lease outlives the time limit by a moment at most.
      session_.exec(
          fmt::format("BEGIN; SET LOCAL statement_timeout = {}; SET LOCAL idle_in_transaction_session_timeout = {}",
                      patience.count(), left.count() + 5'000));
      session_.exec(lock);
      session_.exec("SET LOCAL statement_timeout = 0");
      return {.since = begun, .delayed = lost};
    } catch (const Error& error) {
      const bool in_the_way = error.sqlstate() == "57014" || error.sqlstate() == "40P01" || error.sqlstate() == "55P03";
      if (!in_the_way) throw error.during("stopping writes on the source");
    }
    session_.exec("ROLLBACK");
    lost += duration_cast<milliseconds>(Clock::now() - begun);
    holders = describe_holders(session_);
    if (request.on_waiting) request.on_waiting(holders, lost);
    std::mutex mutex;
    std::unique_lock held{mutex};
    std::condition_variable{}.wait_for(held, std::min(pause_between_tries, until(request.deadline)));
  }
}

void Fence::require_held() {
  try {
    if (session_.in_transaction()) {
      session_.exec("SELECT 1");
      return;
    }
  } catch (const Error&) {
    // Said below: to the caller a lost lease is one case, however it was lost.
  }
  throw Error{{ErrorKind::Timeout, Side::Source},
              "the write stop on the source fell away before it was made durable. Nothing was switched"};
}

void Fence::make_durable(const std::vector<FencedTable>& tables, const SelectionRules& selection,
                         const std::string& message) {
  // CREATE TABLE was not stopped: a table that came meanwhile, perhaps under the name of another, has neither lock nor
  // proof.
  std::vector<FencedTable> now;
  Catalog catalog = read_catalog(session_);
  keep_selected(catalog, session_, selection);
  for (const Table& table : catalog.tables) now.push_back({table.name, table.relation()});
  if (now != tables) {
    throw Error{{ErrorKind::Refused, Side::Source},
                "tables were created, dropped or renamed on the source during the cutover. Remedy: stop schema "
                "changes, then try again"};
  }
  silence_event_triggers(session_);
  std::string sql = fmt::format(
      "CREATE SCHEMA IF NOT EXISTS walferry; "
      "CREATE OR REPLACE FUNCTION walferry.refuse_writes() RETURNS trigger LANGUAGE plpgsql AS "
      "$fence$BEGIN RAISE EXCEPTION USING ERRCODE = '25006', MESSAGE = {}, "
      "HINT = 'Connect to the server that the database was moved to.'; END$fence$; ",
      pg::quote_literal(message));
  for (const FencedTable& fenced : tables) {
    const QualifiedName& table = fenced.name;
    sql += fmt::format(
        "CREATE TRIGGER {} BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON {} FOR EACH STATEMENT EXECUTE FUNCTION "
        "walferry.refuse_writes(); ALTER TABLE {} ENABLE ALWAYS TRIGGER {}; ",
        trigger_name, table.quoted(), table.quoted(), trigger_name);
  }
  // Sessions to come are read-only from the start, which refuses DDL and nextval() as well; only the database's owner
  // may say so.
  if (selection.empty()) {
    sql +=
        ("DO $read_only$ BEGIN IF pg_catalog.pg_has_role(current_user, (SELECT datdba FROM pg_catalog.pg_database "
         "WHERE datname = pg_catalog.current_database()), 'USAGE') THEN "
         "EXECUTE pg_catalog.format('ALTER DATABASE %I SET default_transaction_read_only = on', "
         "pg_catalog.current_database()); "
         "END IF; END $read_only$");
  }
  session_.exec(sql);
  session_.exec("COMMIT");
}

void Fence::lift() noexcept {
  try {
    if (session_.in_transaction()) session_.exec("ROLLBACK");
  } catch (const Error& error) {
    spdlog::debug("the fence's session is gone, and the fence with it: {}", error.what());
  }
}

bool durable_fence_stands(pg::Session& source) {
  return source.exec("SELECT pg_catalog.to_regproc('walferry.refuse_writes') IS NOT NULL").flag(0, 0);
}

void silence_event_triggers(pg::Session& source) {
  source.exec(
      "DO $quiet$ BEGIN PERFORM pg_catalog.set_config('session_replication_role', 'replica', false); "
      "EXCEPTION WHEN insufficient_privilege THEN NULL; END $quiet$");
}

bool settle_durable_fence(const pg::ConnInfo& info) {
  pg::Session source = pg::Session::open(info, {.application_name = "walferry"});
  source.exec(
      "DO $settle$ BEGIN FOR i IN 1..600 LOOP "
      "PERFORM pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity "
      "WHERE application_name = 'walferry fence' AND datname = pg_catalog.current_database(); "
      "PERFORM pg_catalog.pg_stat_clear_snapshot(); "
      "EXIT WHEN NOT EXISTS (SELECT 1 FROM pg_catalog.pg_stat_activity WHERE application_name = 'walferry fence' "
      "AND datname = pg_catalog.current_database()); "
      "PERFORM pg_catalog.pg_sleep(0.05); PERFORM pg_catalog.pg_stat_clear_snapshot(); END LOOP; END $settle$");
  return durable_fence_stands(source);
}

void remove_durable_fence(pg::Session& source) {
  if (!durable_fence_stands(source)) return;
  // CASCADE reaches the triggers and nothing else: only they can depend on this function.
  source.exec(
      "BEGIN; SET LOCAL lock_timeout = '10s'; DROP FUNCTION walferry.refuse_writes() CASCADE; "
      "DO $writable$ BEGIN IF EXISTS (SELECT 1 FROM pg_catalog.pg_db_role_setting s JOIN pg_catalog.pg_database d "
      "ON d.oid = s.setdatabase WHERE d.datname = pg_catalog.current_database() AND s.setrole = 0 "
      "AND 'default_transaction_read_only=on' = ANY (s.setconfig)) THEN "
      "EXECUTE pg_catalog.format('ALTER DATABASE %I RESET default_transaction_read_only', "
      "pg_catalog.current_database()); "
      "END IF; END $writable$; COMMIT");
  if (!source
           .exec("SELECT EXISTS (SELECT 1 FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = "
                 "c.relnamespace "
                 "WHERE n.nspname = 'walferry')")
           .flag(0, 0)) {
    source.exec("DROP SCHEMA walferry");
  }
}

}  // namespace walferry::cutover
