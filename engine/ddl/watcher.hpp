// Compares the schemas every few seconds, keeps the findings in the status, and has new tables join.
//
// A coroutine on the io thread; the comparison itself runs on the pool. Started by Migration once the baseline is
// recorded.
#pragma once

#include <functional>

#include "engine/async.hpp"
#include "engine/ddl/schema_watch.hpp"

namespace walferry::ddl {

class Watcher {
 public:
  // `join`: blocking; marks the tables that can join now (join.hpp).
  Watcher(const asio::any_io_executor& executor, asio::thread_pool& pool, SchemaWatch watch, std::function<void()> join,
          Status& status);

  // Until cancelled.
  Awaitable<void> run();
  // Something was settled: look again soon.
  void wake() { wake_.notify(); }

 private:
  void report(std::vector<DdlFinding> findings);

  asio::thread_pool& pool_;
  std::shared_ptr<SchemaWatch> watch_;  // shared with the pool thread that works on it
  std::function<void()> join_;
  Status& status_;
  Event wake_;
};

}  // namespace walferry::ddl
