#include "engine/cutover/fence.hpp"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <array>
#include <condition_variable>
#include <mutex>

#include "engine/cutover/fence_name.hpp"
#include "engine/cutover/lock_holders.hpp"
#include "engine/listed.hpp"
#include "engine/pg/event_triggers.hpp"

namespace walferry::cutover {
namespace {

using std::chrono::duration_cast;
using std::chrono::milliseconds;
using Clock = std::chrono::steady_clock;

// How long one try may hold up the writers; the later ones outlast deadlock_timeout, at which autovacuum gives way.
constexpr std::array<milliseconds, 4> tries{milliseconds{300}, milliseconds{600}, milliseconds{1'500},
                                            milliseconds{2'500}};
constexpr milliseconds pause_between_tries{200};
constexpr milliseconds pause_between_looks{5};
constexpr milliseconds patience_with_makers{200};  // at the close: most are done at once
// Triggers of so many are made by one message to the server.
constexpr std::size_t tables_at_once = 100;

std::string name_list(const std::vector<QualifiedName>& tables) {
  std::string list;
  for (const QualifiedName& table : tables) list += (list.empty() ? "ONLY " : ", ONLY ") + table.quoted();
  return list;
}

milliseconds until(Clock::time_point deadline) {
  return std::max(duration_cast<milliseconds>(deadline - Clock::now()), milliseconds{0});
}

struct UnseenWriters {
  bool new_tables = false;
  bool large_objects = false;
  std::string among = "true";  // a condition on their locks l
};

// Open transactions that no lock on a table stops, and whose commit would come behind everything: those that made a
// relation, which nobody else can see yet (its schema is locked as well, and may be unseen itself), and those that
// changed large objects. A prepared one has no process. pg_stat_activity stands still within a transaction, and this is
// asked within the lease's.
std::string describe(pg::Session& session, const UnseenWriters& wanted) {
  const pg::Result rows = session.exec(fmt::format(
      R"(SELECT pg_catalog.pg_stat_clear_snapshot();
SELECT DISTINCT coalesce(l.pid, 0), coalesce(a.usename, '?'), coalesce(a.application_name, ''), coalesce(a.state, ''),
       l.large_object
FROM (SELECT *, relation IS NOT DISTINCT FROM 2613 OR locktype = 'object' AS large_object FROM pg_catalog.pg_locks) l
LEFT JOIN pg_catalog.pg_stat_activity a USING (pid)
WHERE l.granted AND l.pid IS DISTINCT FROM pg_catalog.pg_backend_pid() AND (l.pid IS NULL OR {})
  AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
  AND CASE WHEN l.large_object
      THEN {} AND (l.pid IS NULL OR a.backend_xid IS NOT NULL AND a.application_name !~ '^walferry')
           AND (l.relation = 2613 AND l.mode = 'RowExclusiveLock' OR l.classid = 2613 AND l.mode = 'AccessExclusiveLock')
      ELSE {} AND l.locktype = 'relation' AND l.mode = 'AccessExclusiveLock'
           AND NOT EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid = l.relation)
           AND EXISTS (SELECT FROM pg_catalog.pg_locks s LEFT JOIN pg_catalog.pg_namespace n ON n.oid = s.objid
                       WHERE s.virtualtransaction = l.virtualtransaction AND s.locktype = 'object' AND s.classid = 2615
                         AND n.nspname !~ '^pg_temp_' IS NOT FALSE) END
ORDER BY 1 LIMIT 5)",
      wanted.among, wanted.large_objects, wanted.new_tables));
  std::string text;
  for (int row = 0; row < rows.rows(); ++row) {
    if (row > 0) text += "; ";
    text += rows.i64(row, 0) == 0
                ? std::string{"a prepared transaction"}
                : fmt::format("pid {} ({}{}, {})", rows.text(row, 0), rows.text(row, 1),
                              rows.text(row, 2).empty() ? "" : " " + rows.str(row, 2), rows.text(row, 3));
    text += rows.flag(row, 4) ? ", which changed large objects" : ", which made a table, view, sequence or type";
  }
  return text;
}

void pause(milliseconds duration) {
  std::mutex mutex;
  std::unique_lock held{mutex};
  std::condition_variable{}.wait_for(held, duration);
}

// Who is left at the deadline.
std::string await_none(pg::Session& session, const UnseenWriters& wanted, Clock::time_point deadline) {
  for (;;) {
    std::string left = describe(session, wanted);
    if (left.empty() || Clock::now() >= deadline) return left;
    pause(pause_between_looks);
  }
}

// Behind the locks: until those that are open now have ended.
std::string await_unseen_writers(pg::Session& session, UnseenWriters wanted, Clock::time_point deadline) {
  if (!wanted.new_tables && !wanted.large_objects) return {};
  const pg::Result open = session.exec(
      "SELECT coalesce(pg_catalog.array_agg(virtualtransaction), '{}') FROM pg_catalog.pg_locks WHERE locktype = "
      "'virtualxid' AND granted");
  wanted.among = fmt::format("l.virtualtransaction = ANY ({}::pg_catalog.text[])", pg::quote_literal(open.str(0, 0)));
  return await_none(session, wanted, deadline);
}

// What the server shows of the session that holds the lease: other migrations of the same database have their own.
std::string session_of(const std::string& migration) {
  return "walferry fence " + short_name(migration);  // 63 characters, as many as are kept
}

constexpr std::string_view fences_sql =
    "SELECT 1 FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname = "
    "'walferry' AND pg_catalog.starts_with(p.proname::pg_catalog.text, 'refuse_writes_')";
// Of them, those that open_durable_fence() has not opened.
constexpr std::string_view is_closed = "pg_catalog.strpos(p.prosrc, 'RAISE EXCEPTION') > 0";

// The database stays read-only for the fence of another migration.
std::string make_writable_sql(const std::string& migration) {
  const std::string own = pg::quote_literal("refuse_writes_" + short_name(migration));
  return fmt::format(
      "DO $writable$ BEGIN IF NOT EXISTS ({} AND {} AND p.proname <> {}) AND EXISTS (SELECT 1 FROM "
      "pg_catalog.pg_db_role_setting s JOIN pg_catalog.pg_database d ON d.oid = s.setdatabase WHERE d.datname = "
      "pg_catalog.current_database() AND s.setrole = 0 AND 'default_transaction_read_only=on' = ANY (s.setconfig)) "
      "THEN EXECUTE pg_catalog.format('ALTER DATABASE %I RESET default_transaction_read_only', "
      "pg_catalog.current_database()); END IF; END $writable$",
      fences_sql, is_closed, own);
}

// One transaction for each table, which waits for nobody: whoever comes behind it would wait as well. The first of
// those that stay.
std::vector<std::string> drop_triggers(pg::Session& source, const std::string& function,
                                       std::chrono::steady_clock::time_point deadline) {
  const pg::Result triggers = source.exec(
      fmt::format("SELECT n.nspname, c.relname, t.tgname FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_class c ON "
                  "c.oid = t.tgrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE t.tgfoid = "
                  "pg_catalog.to_regproc({}) AND t.tgparentid = 0 ORDER BY 1, 2",
                  pg::quote_literal(function)));
  std::vector<std::string> left;
  for (int row = 0; row < triggers.rows(); ++row) {
    const QualifiedName table{triggers.str(row, 0), triggers.str(row, 1)};
    if (std::chrono::steady_clock::now() >= deadline) {
      if (left.empty() || left.back() != table.text()) left.push_back(table.text());
      continue;
    }
    try {
      source.exec(fmt::format("BEGIN; SET LOCAL lock_timeout = '100ms'; DROP TRIGGER IF EXISTS {} ON {}; COMMIT",
                              pg::quote_name(triggers.text(row, 2)), table.quoted()));
    } catch (const Error& error) {
      if (error.kind() != ErrorKind::Sql) throw;
      source.exec("ROLLBACK");
      if (left.empty() || left.back() != table.text()) left.push_back(table.text());
    }
  }
  return left;
}

}  // namespace

std::vector<FencedTable> fenced_tables(const Catalog& catalog) {
  std::vector<FencedTable> tables;
  tables.reserve(catalog.tables.size());
  for (const Table& table : catalog.tables) tables.push_back({table.name, table.relation(), table.holds_rows()});
  return tables;
}

std::vector<std::string> unfenceable_tables(pg::Session& source) {
  const pg::Result foreign = source.exec(fmt::format(
      "SELECT n.nspname, c.relname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace "
      "WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't' AND NOT pg_catalog.pg_has_role(current_user, "
      "c.relowner, 'USAGE') "
      "AND {} AND {} ORDER BY 1, 2 LIMIT 3",
      user_schema_condition("n"), no_extension_condition("c")));
  std::vector<std::string> names;
  for (int row = 0; row < foreign.rows(); ++row)
    names.push_back(QualifiedName{foreign.str(row, 0), foreign.str(row, 1)}.text());
  return names;
}

Fence Fence::prepare(const pg::ConnInfo& source, const std::string& migration) {
  pg::Session session = pg::Session::open(source, {.application_name = session_of(migration)});
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
  for (std::size_t attempt = 0;;) {
    const milliseconds left = until(request.deadline);
    if (left == milliseconds{0}) {
      throw Error{
          {ErrorKind::Timeout, Side::Source},
          fmt::format(
              "writes on the source could not be stopped in time{}. The source is writable, nothing was switched. "
              "Remedy: end those transactions, or give more time with --timeout",
              holders.empty() ? "" : ": " + holders)};
    }
    const auto begun = Clock::now();
    const milliseconds patience = std::min(left, tries[std::min(attempt, tries.size() - 1)]);
    try {
      // Before anybody is held up: those who make tables, or have had their locks for long, may take longer.
      holders = request.new_tables ? describe(session_, {.new_tables = true}) : std::string{};
      if (holders.empty()) holders = listed(long_holders(session_, request.tables), 5, "; ");
      if (!holders.empty()) {
        if (request.on_waiting) request.on_waiting(holders, lost);
        pause(std::min(pause_between_tries, left));
        continue;
      }
      // The lease outlives the time limit by a moment at most.
      session_.exec(
          fmt::format("BEGIN; SET LOCAL statement_timeout = {}; SET LOCAL idle_in_transaction_session_timeout = {}",
                      patience.count(), left.count() + 5'000));
      session_.exec(lock);
      holders = await_unseen_writers(
          session_, {.new_tables = request.new_tables, .large_objects = request.large_objects}, begun + patience);
      session_.exec("SET LOCAL statement_timeout = 0");
      if (holders.empty()) return {.since = begun, .delayed = lost};
    } catch (const Error& error) {
      const bool in_the_way = error.sqlstate() == "57014" || error.sqlstate() == "40P01" || error.sqlstate() == "55P03";
      if (!in_the_way) throw error.during("stopping writes on the source");
      holders.clear();
    }
    ++attempt;
    session_.exec("ROLLBACK");
    lost += duration_cast<milliseconds>(Clock::now() - begun);
    if (holders.empty()) holders = describe_holders(session_);
    if (request.on_waiting) request.on_waiting(holders, lost);
    pause(std::min(pause_between_tries, until(request.deadline)));
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

void Fence::arm(const ArmRequest& request) {
  session_.exec(
      fmt::format("SET LOCAL statement_timeout = {}", std::max(until(request.deadline), milliseconds{1}).count()));
  pg::silence_event_triggers(session_);
  const std::string function = fence_function(request.migration);
  // The transaction that makes the triggers may write: an event trigger that notes down DDL fires within it. So may the
  // way back, which says so.
  const std::string own = session_.exec("SELECT pg_catalog.pg_current_xact_id()").str(0, 0);
  session_.exec(
      fmt::format("CREATE SCHEMA IF NOT EXISTS walferry; "
                  "CREATE OR REPLACE FUNCTION {}() RETURNS trigger LANGUAGE plpgsql AS "
                  "$fence$BEGIN IF pg_catalog.pg_current_xact_id_if_assigned() OPERATOR(pg_catalog.=) "
                  "'{}'::pg_catalog.xid8 OR pg_catalog.current_setting('{}', true) OPERATOR(pg_catalog.=) {} "
                  "THEN RETURN coalesce(NEW, OLD); END IF; "
                  "RAISE EXCEPTION USING ERRCODE = '25006', MESSAGE = {}, "
                  "HINT = 'Connect to the server that the database was moved to.'; END$fence$",
                  function, own, passage, pg::quote_literal(request.migration), pg::quote_literal(request.message)));
  // A subscription's worker fires row triggers only, but for TRUNCATE.
  const bool subscribed =
      session_
          .exec(
              "SELECT EXISTS (SELECT 1 FROM pg_catalog.pg_subscription s JOIN pg_catalog.pg_database d ON d.oid = "
              "s.subdbid WHERE d.datname = pg_catalog.current_database())")
          .flag(0, 0);
  std::string sql;
  const auto add_trigger = [&](std::string_view name, std::string_view events, const QualifiedName& table,
                               std::string_view each) {
    sql += fmt::format(
        "CREATE TRIGGER {0} BEFORE {1} ON {2} FOR EACH {3} EXECUTE FUNCTION {4}(); ALTER TABLE {2} ENABLE ALWAYS "
        "TRIGGER "
        "{0}; ",
        name, events, table.quoted(), each, function);
  };
  for (std::size_t i = 0; i < request.tables.size(); ++i) {
    const FencedTable& table = request.tables[i];
    add_trigger(fence_trigger, "INSERT OR UPDATE OR DELETE OR TRUNCATE", table.name, "STATEMENT");
    if (subscribed && table.holds_rows) add_trigger(fence_row_trigger, "INSERT OR UPDATE OR DELETE", table.name, "ROW");
    if ((i + 1) % tables_at_once != 0 && i + 1 < request.tables.size()) continue;
    if (request.stop.stop_requested()) return;
    // The server's limit is for each statement; ours is for all of them.
    const milliseconds left = until(request.deadline);
    if (left <= milliseconds{0})
      throw Error{{ErrorKind::Timeout, Side::Source}, "the triggers that refuse writes were not made in time"};
    session_.exec(fmt::format("SET LOCAL statement_timeout = {}; {}", left.count(), sql));
    sql.clear();
  }
  session_.exec("SET LOCAL statement_timeout = 0");
  armed_ = request.tables;
}

void Fence::make_durable(const SelectionRules& selection) {
  // CREATE TABLE was not stopped: a table that came meanwhile, perhaps under the name of another, has neither lock nor
  // proof. Those not committed yet are asked for first: whichever ends in between is in the list.
  if (selection.empty()) {
    const std::string makers = await_none(session_, {.new_tables = true}, Clock::now() + patience_with_makers);
    if (!makers.empty()) {
      throw Error{{ErrorKind::Refused, Side::Source},
                  fmt::format("something is being created on the source: {}, and has not committed yet. Remedy: stop "
                              "schema changes, then try again",
                              makers)};
    }
  }
  Catalog catalog = read_table_list(session_);
  keep_selected(catalog, session_, selection);
  if (fenced_tables(catalog) != armed_) {
    throw Error{{ErrorKind::Refused, Side::Source},
                "tables were created, dropped or renamed on the source during the cutover. Remedy: stop schema "
                "changes, then try again"};
  }
  // Sessions to come are read-only from the start, which refuses DDL and nextval() as well; only the database's owner
  // may say so.
  if (selection.empty()) {
    session_.exec(
        "DO $read_only$ BEGIN IF pg_catalog.pg_has_role(current_user, (SELECT datdba FROM pg_catalog.pg_database "
        "WHERE datname = pg_catalog.current_database()), 'USAGE') THEN "
        "EXECUTE pg_catalog.format('ALTER DATABASE %I SET default_transaction_read_only = on', "
        "pg_catalog.current_database()); "
        "END IF; END $read_only$");
  }
  commit_begun_ = true;
  session_.exec("COMMIT");
}

void Fence::lift() noexcept {
  try {
    if (session_.in_transaction()) session_.exec("ROLLBACK");
  } catch (const Error& error) {
    spdlog::debug("the fence's session is gone, and the fence with it: {}", error.what());
  }
}

bool durable_fence_stands(pg::Session& source, const std::string& migration) {
  return source
      .exec(fmt::format("SELECT EXISTS ({} AND {} AND p.oid = pg_catalog.to_regproc({}))", fences_sql, is_closed,
                        pg::quote_literal(fence_function(migration))))
      .flag(0, 0);
}

bool fence_remains(pg::Session& source, const std::string& migration) {
  return source
      .exec(fmt::format("SELECT pg_catalog.to_regproc({}) IS NOT NULL", pg::quote_literal(fence_function(migration))))
      .flag(0, 0);
}

bool any_durable_fence_stands(pg::Session& source) {
  return source.exec(fmt::format("SELECT EXISTS ({} AND {})", fences_sql, is_closed)).flag(0, 0);
}

bool settle_durable_fence(const pg::ConnInfo& info, const std::string& migration) {
  pg::Session source = pg::Session::open(info, {.application_name = "walferry"});
  if (source.exec("SELECT pg_catalog.pg_is_in_recovery()").flag(0, 0)) {
    throw Error{{ErrorKind::Connection, Side::Source},
                "source: this server is a standby and cannot know whether the source is closed"};
  }
  const std::string sessions = fmt::format(
      "FROM pg_catalog.pg_stat_activity WHERE application_name = {} AND datname = "
      "pg_catalog.current_database()",
      pg::quote_literal(session_of(migration)));
  source.exec(
      fmt::format("DO $settle$ BEGIN FOR i IN 1..600 LOOP PERFORM pg_catalog.pg_terminate_backend(pid) {0}; "
                  "PERFORM pg_catalog.pg_stat_clear_snapshot(); EXIT WHEN NOT EXISTS (SELECT 1 {0}); "
                  "PERFORM pg_catalog.pg_sleep(0.05); PERFORM pg_catalog.pg_stat_clear_snapshot(); END LOOP; "
                  "END $settle$",
                  sessions));
  const bool gone = source.exec(fmt::format("SELECT NOT EXISTS (SELECT 1 {})", sessions)).flag(0, 0);
  if (!gone) {
    throw Error{{ErrorKind::Connection, Side::Source},
                "source: the session that may be closing it does not end: it is not known yet which it will be"};
  }
  return durable_fence_stands(source, migration);
}

void open_durable_fence(pg::Session& source, const std::string& migration) {
  if (!durable_fence_stands(source, migration)) return;
  source.exec(
      fmt::format("BEGIN; CREATE OR REPLACE FUNCTION {}() RETURNS trigger LANGUAGE plpgsql AS "
                  "$fence$BEGIN RETURN coalesce(NEW, OLD); END$fence$; {}; COMMIT",
                  fence_function(migration), make_writable_sql(migration)));
}

std::vector<std::string> remove_durable_fence(pg::Session& source, const std::string& migration,
                                              std::chrono::steady_clock::time_point deadline) {
  open_durable_fence(source, migration);
  const std::string function = fence_function(migration);
  std::vector<std::string> left = drop_triggers(source, function, deadline);
  if (!left.empty()) return left;
  source.exec(fmt::format("DROP FUNCTION IF EXISTS {}()", function));
  if (!source.exec(fmt::format("SELECT EXISTS ({})", fences_sql)).flag(0, 0) &&
      !source
           .exec("SELECT EXISTS (SELECT 1 FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = "
                 "c.relnamespace "
                 "WHERE n.nspname = 'walferry')")
           .flag(0, 0)) {
    source.exec("DROP SCHEMA IF EXISTS walferry");
  }
  return left;
}

}  // namespace walferry::cutover
