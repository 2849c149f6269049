// The command line's side of the control socket: blocking requests to the migration that runs on a state directory.
//
// "Nobody listens" (no socket file, or one left by a dead process) is an ordinary answer, not an error: status and
// abort work without a running migration. Everything else that goes wrong is an Error. Called by cli/ only.
#pragma once

#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "engine/control.hpp"

namespace walferry::http {

struct Response {
  unsigned status = 0;
  std::string body;
};

// GET; nullopt when nobody listens. Throws Error{Connection} when the answer does not come within 10 seconds.
[[nodiscard]] std::optional<Response> get(const std::filesystem::path& socket, std::string_view target);

// POST /stop; whether somebody was there to be stopped.
[[nodiscard]] bool request_stop(const std::filesystem::path& socket);

// POST /skip; the skip as JSON, or nullopt when nobody listens. Throws Error{Refused} when it is not taken.
[[nodiscard]] std::optional<std::string> request_skip(const std::filesystem::path& socket, Lsn lsn,
                                                      std::string_view reason);
// The same for a finding in the schemas.
[[nodiscard]] std::optional<std::string> request_acceptance(const std::filesystem::path& socket,
                                                            std::string_view object, std::string_view reason);

// POST /cutover; returns when it has ended. Throws Error{Refused} when nobody listens or the request is not taken, and
// Error{Connection} when the connection is lost before the outcome is known (the cutover itself goes on).
[[nodiscard]] CommandOutcome request_cutover(const std::filesystem::path& socket, const CutoverOptions& options,
                                             const std::function<void(std::string_view)>& on_step);

}  // namespace walferry::http
