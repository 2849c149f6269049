#include "engine/copy/index_builder.hpp"

#include <spdlog/spdlog.h>

#include <atomic>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>
#include <vector>

#include "engine/schema/execute_item.hpp"

namespace walferry::copy {
namespace {

pg::Session open_build_session(const IndexBuilderOptions& options) {
  pg::Session session = pg::Session::open(
      options.target, {.application_name = "walferry build", .client_encoding = options.client_encoding});
  schema::prepare_build_session(session, {});
  return session;
}

void execute(const IndexBuilderOptions& options, pg::Session& session, const schema::PostDataItem& item) {
  if (options.on_item) options.on_item(item.text());
  schema::execute_item(session, item);
}

}  // namespace

struct IndexBuilder::Shared {
  IndexBuilderOptions options;
  std::mutex mutex;
  std::condition_variable_any changed;
  std::deque<const schema::PostDataItem*> waiting;
  bool finishing = false;
  std::exception_ptr failure;
  std::vector<std::jthread> threads;

  void work() {
    std::optional<pg::Session> session;
    for (;;) {
      const schema::PostDataItem* item = nullptr;
      {
        std::unique_lock lock{mutex};
        changed.wait(lock, [&] { return !waiting.empty() || finishing || failure; });
        if (failure || waiting.empty()) return;
        item = waiting.front();
        waiting.pop_front();
      }
      try {
        if (!session) session.emplace(open_build_session(options));
        execute(options, *session, *item);
      } catch (...) {
        const std::scoped_lock lock{mutex};
        if (!failure) failure = std::current_exception();  // rethrown by finish()
        changed.notify_all();
        return;
      }
    }
  }
};

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
