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
#include <string>

#include "engine/pg/session.hpp"

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

 private:
  Snapshot(pg::Session holder, std::string id, Lsn lsn) : holder_(std::move(holder)), id_(std::move(id)), lsn_(lsn) {}

  pg::Session holder_;
  std::string id_;
  Lsn lsn_;
};

// A name that no other run uses: a dead predecessor's walsender may still wait for its slot.
[[nodiscard]] std::string temporary_slot_name(const std::string& migration);

}  // namespace walferry::copy
