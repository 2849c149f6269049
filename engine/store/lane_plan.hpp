// Which tables the apply splits between its lanes: what says, after a crash, which part of the changes a lane holds.
//
// Plain data; kept in the journal, changed by apply::Lanes.
#pragma once

#include <optional>
#include <set>
#include <string>
#include <string_view>

#include "protocol/pgoutput.hpp"

namespace walferry::store {

struct LanePlan {
  unsigned lanes = 1;
  std::set<RelationId> tables;  // of the source

  // As the journal keeps it: "2 16384 16390".
  [[nodiscard]] std::string text() const;
  // nullopt where it is no such text.
  [[nodiscard]] static std::optional<LanePlan> parse(std::string_view text);

  bool operator==(const LanePlan&) const = default;
};

}  // namespace walferry::store
