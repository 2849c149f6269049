// Whether the source is behind in sending: decides how the Receiver reads.
//
// A walsender flushes after every message. Read at once, each message becomes a packet and a wake-up of its own; left
// to gather, many share one, and the walsender decodes two to three times as fast. Waiting costs latency, so it is done
// only while the walsender sends what was committed some time ago, by its own clock, or what has not ended at all.
// Told of each frame by Receiver.
#pragma once

#include <chrono>

#include "protocol/bytes.hpp"
#include "protocol/lsn.hpp"

namespace walferry::stream {

class Backlog {
 public:
  // One payload of pgoutput, and when the walsender sent it.
  void saw(Bytes payload, PgTime send_time);
  // Nothing is on its way: the walsender said so, or has been silent for a while.
  void nothing_left() { behind_ = in_progress_ = false; }

  [[nodiscard]] bool any() const { return behind_ || in_progress_; }
  // What is committed is behind; the changes of a transaction in progress do not count.
  [[nodiscard]] bool behind() const { return behind_; }

 private:
  // A transaction sent later than this after its commit stands behind others; a few milliseconds more do not hurt it.
  // One that was committed asynchronously is sent when the source's wal_writer_delay (200 ms) has passed, without being
  // behind.
  static constexpr std::chrono::microseconds behind_after = std::chrono::milliseconds{250};

  PgTime commit_time_;        // of the transaction that is being sent
  bool behind_ = false;       // it is sent late
  bool in_progress_ = false;  // it is streamed before its end: nobody can see it yet
};

}  // namespace walferry::stream
