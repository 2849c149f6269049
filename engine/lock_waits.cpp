#include "engine/lock_waits.hpp"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <boost/asio/steady_timer.hpp>

namespace walferry {
namespace {

constexpr auto interval = std::chrono::seconds{2};
constexpr auto patience = std::chrono::seconds{20};

// Asked of those that wait only: pg_blocking_pids() and pg_locks hold up the lock table for a moment. A blocker that is
// a prepared transaction has the pid 0. What our sessions make each other wait for is nobody's business.
constexpr std::string_view question = R"(
SELECT a.pid, a.application_name, coalesce(w.relation, w.kind, 'a lock'), b.pid, coalesce(h.usename, h.backend_type, '?'),
       coalesce(h.application_name, ''), coalesce(h.state, ''),
       pg_catalog.date_trunc('second', pg_catalog.clock_timestamp() - h.xact_start)::text,
       CASE WHEN h.query ~* 'password' THEN '' ELSE
         pg_catalog.left(pg_catalog.regexp_replace(coalesce(h.query, ''), '\s+', ' ', 'g'), 60) END
FROM pg_catalog.pg_stat_activity a
CROSS JOIN LATERAL (SELECT pg_catalog.min(x) AS pid FROM pg_catalog.unnest(pg_catalog.pg_blocking_pids(a.pid)) AS x) b
LEFT JOIN pg_catalog.pg_stat_activity h ON h.pid = b.pid
LEFT JOIN LATERAL (
  SELECT CASE WHEN c.oid IS NOT NULL THEN pg_catalog.format('%I.%I', n.nspname, c.relname) END AS relation,
         CASE l.locktype WHEN 'transactionid' THEN 'a row' ELSE l.locktype END AS kind
  FROM pg_catalog.pg_locks l
  LEFT JOIN pg_catalog.pg_class c ON c.oid = l.relation
  LEFT JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  WHERE l.pid = a.pid AND NOT l.granted LIMIT 1) w ON true
WHERE a.datname = pg_catalog.current_database() AND a.application_name ~ '^walferry( |$)' AND a.wait_event_type = 'Lock'
  AND a.pid <> pg_catalog.pg_backend_pid() AND b.pid IS NOT NULL
  AND coalesce(h.application_name, '') !~ '^walferry( |$)'
ORDER BY a.pid LIMIT 10)";

std::string describe(const pg::Result& row, int at, Side side) {
  const std::string who = fmt::format("{}: {} waits for {}", to_string(side), row.text(at, 1), row.text(at, 2));
  if (row.text(at, 3) == "0") return who + ", which a prepared transaction holds";
  return fmt::format("{}, which pid {} ({}{}{}{}{}{}) holds", who, row.text(at, 3), row.text(at, 4),
                     row.text(at, 5).empty() ? "" : " ", row.text(at, 5),
                     row.text(at, 6).empty() ? "" : fmt::format(", {}", row.text(at, 6)),
                     row.is_null(at, 7) ? "" : fmt::format(" for {}", row.text(at, 7)),
                     row.text(at, 8).empty() ? "" : fmt::format(": {}", row.text(at, 8)));
}

}  // namespace

LockWaits::LockWaits(asio::any_io_executor executor, asio::thread_pool& pool, const pg::ConnInfo& source,
                     const pg::ConnInfo& target, Status& status)
    : executor_(std::move(executor)), pool_(pool), ends_{End{.info = source}, End{.info = target}}, status_(status) {}

Awaitable<void> LockWaits::run() {
  asio::steady_timer pause{executor_};
  for (;;) {
    std::vector<std::string> waits;
    for (End& end : ends_) {
      bool failed = false;
      try {
        co_await look(end, waits);
      } catch (const Error& error) {
        spdlog::debug("{} cannot be asked what is waited for: {}", to_string(end.info.side()), error.what());
        failed = true;
      }
      if (failed) end.connection.reset();
    }
    if (status_.waits.empty()) {
      for (const std::string& wait : waits) spdlog::warn("{}", wait);
    }
    status_.waits = std::move(waits);
    pause.expires_after(interval);
    co_await pause.async_wait(asio::use_awaitable);
  }
}

Awaitable<void> LockWaits::look(End& end, std::vector<std::string>& waits) {
  if (!end.connection) {
    std::function<pg::Session()> open = [info = end.info] {
      return pg::Session::open(info, {.application_name = "walferry locks", .settings = {"statement_timeout=10s"}});
    };
    pg::Session session = co_await run_blocking<pg::Session>(pool_, std::move(open));
    end.connection = std::make_unique<pg::Connection>(executor_, std::move(session));
  }
  std::string sql{question};
  const pg::Result rows =
      co_await end.connection->exec_until(std::move(sql), std::chrono::steady_clock::now() + patience);
  std::set<std::string> waiting;
  for (int row = 0; row < rows.rows(); ++row) {
    std::string pid = rows.str(row, 0);
    if (end.waiting.contains(pid)) waits.push_back(describe(rows, row, end.info.side()));
    waiting.insert(std::move(pid));
  }
  end.waiting = std::move(waiting);
}

}  // namespace walferry
