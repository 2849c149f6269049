// The proof that both ends hold the same, in two halves: everything at one LSN while writers go on, and, once they have
// stopped, only what was touched since. So the write stop does not grow with the data.
//
// Invariant: the verdict is "equal" only if every row was compared at a moment after which the stream did not touch it.
// What it takes for granted is that nobody but walferry writes to the target. Owned and called by Cutover.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>

#include "engine/async.hpp"
#include "engine/copy/snapshot.hpp"
#include "engine/touched_rows.hpp"
#include "engine/verify/verify.hpp"

namespace walferry::cutover {

// Both sides as they were at one LSN of the source, and what has been touched since.
struct Moment {
  copy::Snapshot source;
  pg::Session target;  // keeps the snapshot
  std::string target_snapshot;
  std::shared_ptr<TouchedRows> touched_since;  // written on the io thread while the apply runs
};

class Proof {
 public:
  // Makes a moment: the apply rests at it while both snapshots are taken, until the deadline at most.
  using MakeMoment = std::function<Awaitable<std::shared_ptr<Moment>>(Deadline)>;
  // Returns when what has committed on the source by now is applied: what it touched is then in the record.
  using CatchUp = std::function<Awaitable<void>()>;
  // How many bytes a table holds on the source, about.
  using TableBytes = std::function<std::int64_t(const QualifiedName&)>;

  struct Beginning {
    pg::ConnInfo source;
    pg::ConnInfo target;
    // Without snapshots; lock_timeout also bounds the making of a moment, during which the apply rests.
    VerifyOptions verify;
    MakeMoment make_moment;
    CatchUp catch_up;
    TableBytes table_bytes;
    std::stop_token stop;
  };

  // While writers go on: compares everything, then again what was touched meanwhile, until little is left.
  // Throws Error{Differences} naming what differs.
  Awaitable<void> begin(asio::thread_pool& pool, Beginning with);
  // After the drain, blocking: the other half, with the sessions that `verification` has open.
  [[nodiscard]] VerifyReport finish(Verification verification, const std::stop_token& stop);

  // Between the two: whatever the table holds must be compared.
  void touch_whole(const QualifiedName& table);

  // The LSN at which everything was compared first; nothing before begin() has succeeded.
  [[nodiscard]] Lsn compared_at() const { return compared_at_; }
  [[nodiscard]] std::size_t touched_rows() const { return touched_ ? touched_->rows() : 0; }

 private:
  // Throws Error{Differences} when the last comparison found what later changes do not explain.
  void require_excused(const TouchedRows& touched) const;
  [[nodiscard]] bool little_is_left(const TableBytes& table_bytes) const;

  Lsn compared_at_;
  VerifyReport report_;                   // of every table, each at its latest comparison
  std::shared_ptr<TouchedRows> touched_;  // since the last comparison
};

// What is not equal, named; empty when everything is.
[[nodiscard]] std::string differing_names(const VerifyReport& report);

}  // namespace walferry::cutover
