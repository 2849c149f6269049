// Names in a sentence, cut off before they fill the screen. Called by check, verify and the cutover.
#pragma once

#include <string>
#include <vector>

namespace walferry {

// "a, b and 3 more".
[[nodiscard]] std::string listed(const std::vector<std::string>& names, std::size_t shown_max = 12,
                                 const std::string& separator = ", ");

}  // namespace walferry
