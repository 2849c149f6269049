// The journal's record of where the apply stands still and of what may be left out.
//
// Invariant (G3): a skip is only ever written for the point at which the apply has stopped, with the reason that a
// person gave, and is never forgotten. Used by Applier on the io thread, and by `walferry skip` on a state directory at
// rest.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "engine/skip.hpp"
#include "engine/store/journal.hpp"

namespace walferry::store {

class Skips {
 public:
  explicit Skips(Journal& journal);

  // The apply stands at `point`; written when it is news.
  void record_stop(const StopPoint& point);
  // The apply went past it.
  void clear_stop();
  [[nodiscard]] const std::optional<StopPoint>& stop() const { return stop_; }

  // Throws Error{Refused} when the apply does not stand at exactly `lsn`, Error{Usage} without a reason.
  Skip add(Lsn lsn, const std::string& reason);
  [[nodiscard]] bool contains(StopPoint::What what, Lsn lsn) const;
  [[nodiscard]] std::vector<Skip> list() const;  // oldest first

 private:
  Journal& journal_;
  std::optional<StopPoint> stop_;
  std::map<Lsn, Skip> skips_;
};

}  // namespace walferry::store
