// The apply as the migration drives it: begun, laid to rest, brought to one LSN, begun anew.
//
// Owns the Applier of the moment and hears of its end. Invariant: while it rests nothing is written to the target, and
// what is received stays in the spool. The record of touched rows and the last marker outlive each Applier. Used by
// Migration on the io thread.
#pragma once

#include <boost/asio/cancellation_signal.hpp>
#include <exception>
#include <functional>
#include <memory>
#include <string>

#include "engine/apply/applier.hpp"
#include "engine/async.hpp"
#include "engine/touched_rows.hpp"

namespace walferry {

class ApplyWorker {
 public:
  struct Watch {
    // For an apply that ends at the LSN, or (zero) does not end.
    std::function<apply::ApplierOptions(Lsn until)> options;
    // The target's position moved on disk: the source may be told.
    std::function<void()> on_durable;
    // It ended, by itself or because it was told to; the failure is what no retry mends, or nothing.
    std::function<void(std::exception_ptr)> on_end;
  };

  // The references must outlive it.
  ApplyWorker(asio::any_io_executor executor, asio::thread_pool& pool, store::Spool& spool, store::Skips& skips,
              stream::Position& position, Status& status, Watch watch);

  [[nodiscard]] bool running() const { return running_; }
  // With `until` it applies the transactions that committed before it and no other, and ends.
  void start(Lsn until = {});
  // Lets reach() end: at the next commit boundary, or in the middle of a group once patience is over.
  void stop(Deadline patience);
  // Ends it at a commit boundary, or in the middle of a group once patience is over.
  Awaitable<void> rest(Deadline patience);
  // start(until) and rest() at the end; false when it did not get there in time or by itself.
  Awaitable<bool> reach(Lsn until, Deadline deadline, std::function<void()> on_start);
  // Returns when it is attached to the target, has ended, or `patience` is over.
  Awaitable<void> attached(Deadline patience);

  // True when a logical message with this text has come through the stream and is committed on the target; false at the
  // deadline, or when the apply stands still.
  Awaitable<bool> await_marker(std::string marker, Deadline deadline);
  // Names in `touched` whatever is changed from now on, by whichever Applier; nullptr ends that.
  void record(std::shared_ptr<TouchedRows> touched);
  // Something it waits for has changed.
  void wake();

 private:
  asio::any_io_executor executor_;
  asio::thread_pool& pool_;
  store::Spool& spool_;
  store::Skips& skips_;
  stream::Position& position_;
  Status& status_;
  Watch watch_;

  std::unique_ptr<apply::Applier> applier_;
  bool running_ = false;
  Deadline patience_ = Deadline::max();  // of reach()
  asio::cancellation_signal cancel_;
  Event ended_;
  Event marker_seen_;
  std::string last_marker_;
  std::shared_ptr<TouchedRows> touched_;
};

}  // namespace walferry
