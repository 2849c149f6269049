#include "engine/status.hpp"

#include <array>
#include <utility>

namespace walferry {
namespace {

constexpr std::array<std::pair<Phase, std::string_view>, 10> phase_names{{{Phase::Init, "init"},
                                                                          {Phase::Schema, "schema"},
                                                                          {Phase::Copy, "copy"},
                                                                          {Phase::PostData, "post-data"},
                                                                          {Phase::CatchUp, "catch-up"},
                                                                          {Phase::Follow, "follow"},
                                                                          {Phase::Cutover, "cutover"},
                                                                          {Phase::Switched, "switched"},
                                                                          {Phase::Finished, "finished"},
                                                                          {Phase::Aborted, "aborted"}}};

}  // namespace

std::string_view to_string(Phase phase) {
  for (const auto& [value, name] : phase_names) {
    if (value == phase) return name;
  }
  return "init";
}

std::optional<Phase> parse_phase(std::string_view text) {
  for (const auto& [value, name] : phase_names) {
    if (name == text) return value;
  }
  return std::nullopt;
}

std::string_view to_string(TableState state) {
  switch (state) {
    case TableState::Pending:
      return "pending";
    case TableState::Copying:
      return "copying";
    case TableState::Copied:
      return "copied";
    case TableState::Indexing:
      return "indexing";
    case TableState::Ready:
      return "ready";
  }
  return "pending";
}

std::string_view to_string(StopPoint::What what) {
  return what == StopPoint::What::Ddl ? "ddl" : "transaction";
}

std::optional<CopyRate> copy_rate(const TableStatus& table, std::chrono::steady_clock::time_point now) {
  const std::int64_t bytes = table.copied->bytes.load(std::memory_order_relaxed);
  if (table.state != TableState::Copying || !table.copying_since || bytes <= 0 || now <= *table.copying_since)
    return std::nullopt;
  const double seconds = std::chrono::duration<double>(now - *table.copying_since).count();
  CopyRate rate{.bytes_per_second = static_cast<double>(bytes) / seconds};
  if (bytes < table.bytes_total)
    rate.eta_seconds = static_cast<double>(table.bytes_total - bytes) / rate.bytes_per_second;
  return rate;
}

}  // namespace walferry
