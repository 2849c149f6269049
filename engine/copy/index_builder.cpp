#include "engine/copy/index_builder.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "engine/pg/event_triggers.hpp"
#include "engine/schema/execute_item.hpp"

namespace walferry::copy {
namespace {

std::string build_session(const std::string& migration) {
  constexpr std::size_t application_name_max = 63;
  return ("walferry build " + migration).substr(0, application_name_max);
}

pg::Session open_build_session(const IndexBuilderOptions& options) {
  pg::Session session = pg::Session::open(options.target, {.application_name = build_session(options.migration),
                                                           .client_encoding = options.client_encoding});
  schema::prepare_build_session(session);
  pg::silence_event_triggers(session);
  return session;
}

void execute(const IndexBuilderOptions& options, pg::Session& session, const schema::PostDataItem& item) {
  if (options.on_item) options.on_item(item.text());
  schema::execute_item(session, item);
}

// Keeps builds that go on at the same time from sharing processors with each other's workers: what a worker has sorted
// goes through a file to the one who merges. Where the processors are not ours nobody knows how many there are.
class Workers {
 public:
  explicit Workers(pg::Session& session)
      : session_(session),
        here_(pg::is_here(session)),
        allowed_(static_cast<int>(
            session.exec("SELECT pg_catalog.current_setting('max_parallel_maintenance_workers')::int8").i64(0, 0))),
        given_(allowed_) {}

  void share(std::size_t at_once) {
    if (!here_) return;
    const int workers = workers_of_build(allowed_, std::thread::hardware_concurrency(), at_once);
    if (workers == std::exchange(given_, workers)) return;
    session_.exec(fmt::format("SET max_parallel_maintenance_workers = {}", workers));
  }

 private:
  pg::Session& session_;
  bool here_;
  int allowed_;
  int given_;
};

}  // namespace

struct IndexBuilder::Shared {
  IndexBuilderOptions options;
  std::mutex mutex;
  std::condition_variable_any changed;
  std::deque<const schema::PostDataItem*> waiting;
  std::size_t building = 0;
  bool finishing = false;
  std::exception_ptr failure;
  std::vector<std::jthread> threads;

  void work() {
    std::optional<pg::Session> session;
    std::optional<Workers> workers;
    for (;;) {
      const schema::PostDataItem* item = nullptr;
      std::size_t at_once = 0;
      {
        std::unique_lock lock{mutex};
        changed.wait(lock, [&] { return !waiting.empty() || finishing || failure; });
        if (failure || waiting.empty()) return;
        item = waiting.front();
        waiting.pop_front();
        ++building;
        at_once = std::min(building + waiting.size(), static_cast<std::size_t>(options.jobs));
      }
      try {
        if (!session) session.emplace(open_build_session(options));
        if (!workers) workers.emplace(*session);
        workers->share(at_once);
        execute(options, *session, *item);
        const std::scoped_lock lock{mutex};
        --building;
      } catch (...) {
        const std::scoped_lock lock{mutex};
        if (!failure) failure = std::current_exception();  // rethrown by finish()
        changed.notify_all();
        return;
      }
    }
  }
};

void end_earlier_builds(const IndexBuilderOptions& options) {
  pg::Session session = pg::Session::open(options.target, {.application_name = "walferry"});
  const std::string theirs = fmt::format("application_name = {} AND datname = pg_catalog.current_database()",
                                         pg::quote_literal(build_session(options.migration)));
  session.exec(
      fmt::format("DO $end$ BEGIN FOR i IN 1..200 LOOP "
                  "PERFORM pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity WHERE {0}; "
                  "PERFORM pg_catalog.pg_stat_clear_snapshot(); "
                  "EXIT WHEN NOT EXISTS (SELECT FROM pg_catalog.pg_stat_activity WHERE {0}); "
                  "PERFORM pg_catalog.pg_sleep(0.05); END LOOP; END $end$",
                  theirs));
}

int workers_of_build(int allowed, unsigned processors, std::size_t at_once) {
  if (processors == 0) return allowed;  // the machine does not say
  const auto of_each = static_cast<int>(processors / std::max<std::size_t>(at_once, 1));
  return std::clamp(of_each - 1, 0, allowed);
}

IndexBuilder::IndexBuilder(IndexBuilderOptions options) : shared_(std::make_unique<Shared>()) {
  shared_->options = std::move(options);
  for (int i = 0; i < shared_->options.jobs; ++i) {
    shared_->threads.emplace_back([shared = shared_.get()] { shared->work(); });
  }
}

IndexBuilder::~IndexBuilder() {
  {
    const std::scoped_lock lock{shared_->mutex};
    shared_->waiting.clear();
    shared_->finishing = true;
  }
  shared_->changed.notify_all();
  shared_->threads.clear();
}

void IndexBuilder::add(std::span<const schema::PostDataItem> items) {
  {
    const std::scoped_lock lock{shared_->mutex};
    for (const schema::PostDataItem& item : items) shared_->waiting.push_back(&item);
  }
  shared_->changed.notify_all();
}

void IndexBuilder::finish() {
  {
    const std::scoped_lock lock{shared_->mutex};
    shared_->finishing = true;
  }
  shared_->changed.notify_all();
  shared_->threads.clear();
  if (shared_->failure) std::rethrow_exception(shared_->failure);
}

void execute_in_order(const IndexBuilderOptions& options, std::span<const schema::PostDataItem> items) {
  if (items.empty()) return;
  pg::Session session = open_build_session(options);
  for (const schema::PostDataItem& item : items) execute(options, session, item);
}

void analyze_tables(const IndexBuilderOptions& options, const std::vector<QualifiedName>& tables) {
  std::atomic<std::size_t> next{0};
  std::mutex mutex;
  std::exception_ptr failure;
  {
    std::vector<std::jthread> threads;
    for (int i = 0; i < options.jobs; ++i) {
      threads.emplace_back([&] {
        try {
          pg::Session session = open_build_session(options);
          for (std::size_t at = next++; at < tables.size(); at = next++) session.exec("ANALYZE " + tables[at].quoted());
        } catch (...) {
          const std::scoped_lock lock{mutex};
          if (!failure) failure = std::current_exception();  // rethrown below
        }
      });
    }
  }
  if (failure) std::rethrow_exception(failure);
}

}  // namespace walferry::copy
