// What walferry's own sessions wait for on either end because somebody holds a lock, and who that is.
//
// A step behind a lock looks like a slow one from outside: copy, index build and apply wait as long as it takes. Asks
// both ends on connections of its own; a failure only leaves its end out until the next look. Started by Migration.
#pragma once

#include <array>
#include <chrono>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "engine/async.hpp"
#include "engine/pg/connection.hpp"
#include "engine/status.hpp"

namespace walferry {

class LockWaits {
 public:
  LockWaits(asio::any_io_executor executor, asio::thread_pool& pool, const pg::ConnInfo& source,
            const pg::ConnInfo& target, Status& status);

  // Until cancelled. Writes Status::waits.
  Awaitable<void> run();

 private:
  struct End {
    pg::ConnInfo info;
    std::unique_ptr<pg::Connection> connection = {};
    std::set<std::string> waiting = {};  // backends, at the last look: who waits a moment is not named
  };

  Awaitable<void> look(End& end, std::vector<std::string>& waits);

  asio::any_io_executor executor_;
  asio::thread_pool& pool_;
  std::array<End, 2> ends_;
  Status& status_;
};

}  // namespace walferry
