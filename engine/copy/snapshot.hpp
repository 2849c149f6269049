// A consistent view of the source that many sessions share, tied to an LSN of the stream.
//
// Made by creating a logical slot (the migration's own, or a temporary one) with an exported snapshot; a holder session
// imports it and exports it again, so that the walsender is free for streaming. Invariant: a transaction is in the view
// if and only if it committed before lsn. Lives as long as the holder's connection; used by pg_dump, the copy and
// verification.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "engine/pg/session.hpp"
#include "engine/timeline.hpp"

namespace walferry::copy {

struct SnapshotRequest {
  pg::ConnInfo source;
  std::string client_encoding = "UTF8";
  std::string slot;
  bool temporary = false;                                   // the slot vanishes again, only its view stays
  std::function<void(const std::string&)> on_waiting = {};  // which transactions slot creation waits for
  std::chrono::steady_clock::time_point deadline = std::chrono::steady_clock::time_point::max();
};

class Snapshot {
 public:
  // Blocks while transactions that wrote before are still open. Throws Error{Timeout} naming them at the deadline.
  [[nodiscard]] static Snapshot create(const SnapshotRequest& request);

  [[nodiscard]] const std::string& id() const { return id_; }
  [[nodiscard]] Lsn lsn() const { return lsn_; }
  // Whether the holder still lives; asks the server.
  [[nodiscard]] bool alive();
  [[nodiscard]] pg::Session& holder() { return holder_; }
  // Which way the WAL of its server went.
  [[nodiscard]] const TimelineHistory& history() const { return history_; }

 private:
  Snapshot(pg::Session holder, std::string id, Lsn lsn, TimelineHistory history)
      : holder_(std::move(holder)), id_(std::move(id)), lsn_(lsn), history_(std::move(history)) {}

  pg::Session holder_;
  std::string id_;
  Lsn lsn_;
  TimelineHistory history_;
};

// Throws Error{snapshot_gone}, which asks for another, where a view of `lsn` on a server with this history is beyond
// what it shares with the server that is followed: a primary that was left behind by a fail-over may still be read
// from. `followed`: as the receiver has noted it, if it has (store::journal_keys::source_timeline).
void require_shared_past(const TimelineHistory& history, Lsn lsn, const std::optional<std::string>& followed);

// A name that no other run uses: a dead predecessor's walsender may still wait for its slot.
[[nodiscard]] std::string temporary_slot_name(const std::string& migration);

}  // namespace walferry::copy
