// The source transaction whose changes are being read, and whether they count.
//
// Made by Applier at its Begin or at its commit when it was streamed, and by EarlyTransaction while it is in progress.
#pragma once

#include <algorithm>
#include <optional>
#include <vector>

#include "protocol/lsn.hpp"

namespace walferry::apply {

struct SourceTransaction {
  Xid xid{};
  Lsn final_lsn = {};
  bool skipped = false;           // the target holds it already
  bool left_out = false;          // a person said so (`walferry skip`)
  bool streamed = false;          // its messages carry an xid
  bool in_progress = false;       // its commit has not been received: final_lsn is below its commit LSN
  bool one_by_one = false;        // its net changes were refused
  bool tail = false;              // its beginning was released: the target holds it
  std::vector<Xid> aborted = {};  // of a streamed one: rolled back subtransactions, sorted

  [[nodiscard]] bool counts() const { return !skipped && !left_out; }
  [[nodiscard]] bool is_aborted(const std::optional<Xid>& subtransaction) const {
    return subtransaction && std::ranges::binary_search(aborted, *subtransaction);
  }
};

}  // namespace walferry::apply
