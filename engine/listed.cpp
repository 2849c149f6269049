#include "engine/listed.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace walferry {

std::string listed(const std::vector<std::string>& names, std::size_t shown_max, const std::string& separator) {
  std::string text;
  for (std::size_t i = 0; i < std::min(names.size(), shown_max); ++i) text += (i == 0 ? "" : separator) + names[i];
  if (names.size() > shown_max) {
    text += fmt::format("{}{} more", separator == ", " ? " and " : separator + "-- and ", names.size() - shown_max);
  }
  return text;
}

}  // namespace walferry
