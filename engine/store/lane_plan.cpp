#include "engine/store/lane_plan.hpp"

#include <charconv>

namespace walferry::store {
namespace {

// The number at the beginning of `text`, which loses it and a space behind it.
std::optional<std::uint32_t> take_number(std::string_view& text) {
  std::uint32_t number = 0;
  const auto [end, failure] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (failure != std::errc{}) return std::nullopt;
  text.remove_prefix(static_cast<std::size_t>(end - text.data()));
  if (text.empty()) return number;
  if (text.front() != ' ' || text.size() == 1) return std::nullopt;
  text.remove_prefix(1);
  return number;
}

}  // namespace

std::string LanePlan::text() const {
  std::string text = std::to_string(lanes);
  for (const RelationId table : tables) text += ' ' + std::to_string(static_cast<std::uint32_t>(table));
  return text;
}

std::optional<LanePlan> LanePlan::parse(std::string_view text) {
  LanePlan plan;
  const auto lanes = take_number(text);
  if (!lanes || *lanes == 0) return std::nullopt;
  plan.lanes = *lanes;
  while (!text.empty()) {
    const auto table = take_number(text);
    if (!table) return std::nullopt;
    plan.tables.insert(RelationId{*table});
  }
  return plan;
}

}  // namespace walferry::store
