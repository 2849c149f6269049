// /status as a person reads it in a terminal: `walferry status` and, redrawn, `walferry status --watch`.
//
// Works on the JSON text alone, so that it shows a running migration of any process and needs nothing of the engine's
// state. No line is wider than asked; text from the databases cannot carry terminal control sequences. Called by cli/.
#pragma once

#include <string>
#include <string_view>

namespace walferry {

struct StatusViewOptions {
  bool color = false;
  int width = 80;
  int height = 0;  // lines; the list of tables is cut to fit; 0: no limit
};

// Throws Error{Protocol} when `json` is not a status object.
[[nodiscard]] std::string render_status(std::string_view json, const StatusViewOptions& options);

}  // namespace walferry
