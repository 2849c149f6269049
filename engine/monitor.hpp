// Asks the source, about once a second, where its WAL ends and how the slot fares, and keeps the rates and the lag of
// Status.
//
// Owns a connection of its own, so that it goes on answering while copy, apply or receiver are busy or broken. A
// failure here only makes numbers stale; it never stops the migration. Started by Migration.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <string>

#include "engine/async.hpp"
#include "engine/pg/connection.hpp"
#include "engine/status.hpp"
#include "engine/stream/position.hpp"

namespace walferry {

struct MonitorOptions {
  pg::ConnInfo source;
  std::string slot;
  std::chrono::milliseconds interval{1'000};
};

class Monitor {
 public:
  Monitor(asio::any_io_executor executor, asio::thread_pool& pool, MonitorOptions options,
          const stream::Position& position, Status& status);

  // Until cancelled. `on_tick` is called after each look.
  Awaitable<void> run(std::function<void()> on_tick);
  // Brings LSNs, lag and rates of Status up to the shared position; cheap, asks nobody.
  void refresh();
  // Looks now rather than at the end of the interval: there is a slot since.
  void wake() { woken_.notify(); }

 private:
  struct Sample {
    Deadline at;
    std::int64_t copied_bytes = 0;
    std::uint64_t changes = 0;
  };

  // Where the source's WAL ended, as it was asked.
  struct Written {
    Deadline at;
    Lsn lsn;
  };

  Awaitable<void> look();
  void look_for_fence(bool stands);
  void note_written(Lsn lsn, Deadline asked);
  [[nodiscard]] double lag_seconds();
  void take_sample();
  [[nodiscard]] bool stands_still(bool awaits_standbys);

  asio::any_io_executor executor_;
  asio::thread_pool& pool_;
  MonitorOptions options_;
  const stream::Position& position_;
  Status& status_;
  std::unique_ptr<pg::Connection> connection_;
  std::deque<Sample> samples_;
  std::deque<Written> unread_;  // of which not all has been received
  Deadline began_ = std::chrono::steady_clock::now();
  // The walsender waits for standbys, and nothing has come since.
  struct Awaiting {
    Lsn received;
    Deadline since;
    Deadline seen{};
  };
  std::optional<Awaiting> awaiting_;
  bool failed_before_ = false;
  unsigned fence_missed_ = 0;  // looks in a row, behind the switch
  Event woken_;
};

}  // namespace walferry
