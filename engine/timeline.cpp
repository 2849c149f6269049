#include "engine/timeline.hpp"

#include <algorithm>
#include <charconv>
#include <limits>
#include <sstream>
#include <vector>

namespace walferry {
namespace {

constexpr Lsn endless{std::numeric_limits<std::uint64_t>::max()};

struct Leap {
  std::uint32_t timeline = 0;
  Lsn at;

  bool operator==(const Leap&) const = default;
};

// The timelines that were left on the way, oldest first; what cannot be read is no history.
std::vector<Leap> parse_history(const std::string& file) {
  std::vector<Leap> leaps;
  std::istringstream lines{file};
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words{line};
    std::uint32_t timeline = 0;
    std::string lsn;
    if (!(words >> timeline >> lsn)) continue;  // a comment, or an empty line
    const auto at = Lsn::parse(lsn);
    if (!at) return {};
    leaps.push_back({timeline, *at});
  }
  return leaps;
}

// With the timeline that has not been left.
std::vector<Leap> whole_way(const TimelineHistory& history) {
  std::vector<Leap> way = parse_history(history.file);
  way.push_back({history.timeline, endless});
  return way;
}

}  // namespace

std::string TimelineHistory::text() const {
  return std::to_string(timeline) + '\n' + file;
}

std::optional<TimelineHistory> TimelineHistory::parse(std::string_view text) {
  TimelineHistory history;
  const auto [end, failure] = std::from_chars(text.data(), text.data() + text.size(), history.timeline);
  if (failure != std::errc{} || end == text.data() + text.size() || *end != '\n') return {};
  history.file = text.substr(static_cast<std::size_t>(end - text.data()) + 1);
  return history;
}

Lsn shared_until(const TimelineHistory& one, const TimelineHistory& other) {
  const std::vector<Leap> way = whole_way(one);
  const std::vector<Leap> other_way = whole_way(other);
  const auto [left, other_left] = std::ranges::mismatch(way, other_way);
  if (left == way.end() || other_left == other_way.end()) return endless;  // only whole ways end in what is endless
  if (left->timeline == other_left->timeline) return std::min(left->at, other_left->at);
  return left == way.begin() ? Lsn{} : std::prev(left)->at;
}

std::optional<Lsn> branch_point(const TimelineHistory& of_source, const TimelineHistory& of_target) {
  const std::vector<Leap> source = parse_history(of_source.file);
  const std::vector<Leap> target = parse_history(of_target.file);
  // The same number may be given to different timelines: only with the same past are they one.
  if (target.size() <= source.size() || !std::equal(source.begin(), source.end(), target.begin())) return {};
  const Leap& left = target[source.size()];
  if (left.timeline != of_source.timeline) return {};
  return left.at;
}

}  // namespace walferry
