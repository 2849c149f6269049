#include "engine/cutover/fence_name.hpp"

#include <fmt/format.h>

#include <cstdint>

namespace walferry::cutover {

// It is made of lower case letters, digits and underscores.
std::string short_name(const std::string& migration) {
  constexpr std::size_t name_max = 48;
  if (migration.size() <= name_max) return migration;
  std::uint32_t hash = 2'166'136'261;  // FNV-1a
  for (const char c : migration) hash = (hash ^ static_cast<std::uint8_t>(c)) * 16'777'619;
  return fmt::format("{}_{:08x}", migration.substr(0, name_max - 9), hash);
}

pg::ConnInfo with_passage(const pg::ConnInfo& info, const std::string& migration) {
  const std::string before = info.get("options").value_or("");
  const std::string option = fmt::format("-c {}={}", passage, migration);
  if (before.find(option) != std::string::npos) return info;
  return info.with("options", before.empty() ? option : before + " " + option);
}

std::string fence_function(const std::string& migration) {
  return "walferry.refuse_writes_" + short_name(migration);
}

}  // namespace walferry::cutover
