// A cutover's report as a person reads it, made from the JSON that the daemon returned and kept.
#pragma once

#include <string>
#include <string_view>

namespace walferry {

// Verdict first, then steps with their milliseconds, differences and what was compared.
[[nodiscard]] std::string render_cutover(std::string_view json);

}  // namespace walferry
