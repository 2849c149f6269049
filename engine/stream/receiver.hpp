// Reads the walsender: frames in, blocks into the spool, confirmations out.
//
// Owns the replication connection. run() connects, streams, and after a lost connection does so again from the end of
// what the spool holds. Invariant (G1): `flush` in a status update never passes what is durable on the target or synced
// in the spool. Never waits for the apply: reading and answering keepalives go on whatever the target does. While the
// source is behind, or small transactions come very fast, the socket is left to fill between reads (Backlog, Pace).
// Started by Migration as soon as the slot exists.
#pragma once

#include <functional>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "engine/async.hpp"
#include "engine/pg/connection.hpp"
#include "engine/status.hpp"
#include "engine/store/journal.hpp"
#include "engine/stream/assembler.hpp"
#include "engine/stream/backlog.hpp"
#include "engine/stream/pace.hpp"
#include "engine/stream/position.hpp"
#include "engine/timeline.hpp"

namespace walferry::stream {

struct ReceiverOptions {
  pg::ConnInfo source;
  std::string slot;
  std::vector<std::string> publications;
  std::string client_encoding;
  std::string system_identifier;  // the source must still be this cluster (G4)
};

class Receiver {
 public:
  Receiver(asio::any_io_executor executor, asio::thread_pool& pool, ReceiverOptions options, store::Spool& spool,
           store::Journal& journal, Position& position, Status& status);

  // Until cancelled; throws only what no retry can mend.
  Awaitable<void> run();
  // The position moved: confirm it at the next opportunity instead of at the next interval.
  void request_confirmation() { confirm_now_ = true; }

 private:
  Awaitable<void> stream();
  Awaitable<void> connect();
  Awaitable<void> open_connection(std::string client_encoding);
  Awaitable<void> free_slot();
  struct SourceTimeline {
    TimelineHistory now;
    std::uint32_t after = 0;                                // the one before; 0: none is known
    Lsn shared{std::numeric_limits<std::uint64_t>::max()};  // with the one before
    bool keep = false;
  };
  // Throws where what was received is not of this timeline; changes nothing.
  Awaitable<SourceTimeline> judge_timeline(std::uint32_t timeline, bool in_recovery, Lsn from);
  void keep_timeline(const SourceTimeline& found);
  Awaitable<void> check_slot(Lsn from, Lsn shared);
  void forget_beyond(Lsn shared);
  [[nodiscard]] Error as_passing(const Error& failure);
  Awaitable<std::string> find_unreadable(Error failure);
  Awaitable<std::string> read_without_conversion(Lsn lsn, Deadline deadline);
  [[nodiscard]] Error unreadable_error(const Error& failure, const std::string& row) const;
  Awaitable<void> send_status(bool ask_reply);
  Awaitable<void> pause_until(Deadline deadline);
  [[nodiscard]] int take_frames();
  [[nodiscard]] bool worth_reading() const;
  void handle(Bytes frame);
  void note_idle();
  [[nodiscard]] Lsn confirmable();

  asio::any_io_executor executor_;
  asio::thread_pool& pool_;
  ReceiverOptions options_;
  store::Spool& spool_;
  store::Journal& journal_;
  Position& position_;
  Status& status_;
  Assembler assembler_;
  Backlog backlog_;
  Pace pace_;
  std::unique_ptr<pg::Connection> connection_;
  bool gathers_unread_ = false;  // the connection's kernel does, so that it may be read lazily
  std::size_t last_pause_brought_ = 0;
  bool reply_requested_ = false;
  bool confirm_now_ = false;
  Deadline last_heard_{};
  std::optional<Lsn> keepalive_end_;  // of the newest keepalive, until everything before it is applied
  Lsn started_from_;                  // of the stream under way
  Lsn unmapped_at_;                   // where the source failed at a file without a name
  int unmapped_attempts_ = 0;
};

// Met instead of the primary that was followed: tried again.
[[nodiscard]] Error standby_error();

// Whether the source failed at a file that its catalog does not know at that moment.
[[nodiscard]] bool is_unmapped_file(const Error& error);

// START_REPLICATION for what a server of `server_version` understands (the table of version gates in docs/wire.md).
[[nodiscard]] std::string start_replication_sql(int server_version, const std::string& slot, Lsn from,
                                                const std::vector<std::string>& publications);

}  // namespace walferry::stream
