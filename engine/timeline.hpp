// Which way the write-ahead log of a cluster went: each promotion leaves one timeline for the next.
//
// Two servers with one system identifier have one past, up to where one of them was promoted without the other; what
// committed after that on one of them is not on the other. Pure; the text is that of a timeline history file
// ("timeline <tab> LSN <tab> reason" a line, oldest first), as TIMELINE_HISTORY of the replication protocol and
// pg_wal/*.history have it. Called by the receiver (a source that was failed over) and by adoption (a promoted copy).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "protocol/lsn.hpp"

namespace walferry {

struct TimelineHistory {
  std::uint32_t timeline = 0;
  std::string file;  // empty for the first timeline

  // As the journal keeps it.
  [[nodiscard]] std::string text() const;
  [[nodiscard]] static std::optional<TimelineHistory> parse(std::string_view text);
};

// The LSN before which the WAL of both is the same; the greatest there is where both are one.
[[nodiscard]] Lsn shared_until(const TimelineHistory& one, const TimelineHistory& other);

// The LSN at which `of_target` left the timeline that the source is on. Nothing where the target's history does not
// pass through the source's.
[[nodiscard]] std::optional<Lsn> branch_point(const TimelineHistory& of_source, const TimelineHistory& of_target);

}  // namespace walferry
