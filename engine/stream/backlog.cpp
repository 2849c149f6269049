#include "engine/stream/backlog.hpp"

namespace walferry::stream {
namespace {

// Where the commit time stands in Begin ('B': final LSN before it) and Stream Commit ('c': xid, flags, two LSNs).
constexpr std::size_t begin_commit_time = 1 + 8;
constexpr std::size_t stream_commit_time = 1 + 4 + 1 + 8 + 8;

}  // namespace

void Backlog::saw(Bytes payload, PgTime send_time) {
  const auto commit_time_at = [&](std::size_t offset) {
    // A payload that is too short is refused where it is decoded.
    if (payload.size() >= offset + sizeof(std::uint64_t))
      commit_time_ = PgTime{static_cast<std::int64_t>(wire::load<std::uint64_t>(payload.data() + offset))};
  };
  switch (payload.empty() ? '\0' : static_cast<char>(payload.front())) {
    case 'S':
      in_progress_ = true;
      break;
    case 'B':
      in_progress_ = false;
      commit_time_at(begin_commit_time);
      break;
    case 'c':
      in_progress_ = false;
      commit_time_at(stream_commit_time);
      break;
    default:
      break;
  }
  behind_ = !in_progress_ && send_time.microseconds - commit_time_.microseconds > behind_after.count();
}

}  // namespace walferry::stream
