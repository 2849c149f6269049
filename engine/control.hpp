// What a running migration can be asked through its control socket, and who answers.
//
// ControlHandler is implemented by Migration and called by http::Server on the io thread. The TCP listener offers only
// the read-only part; commands come through the unix socket in the state directory.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <chrono>
#include <functional>
#include <string>

#include "engine/status.hpp"

namespace walferry {

struct CutoverOptions {
  std::chrono::milliseconds timeout{30'000};
  std::chrono::milliseconds max_lag{1'000};
  bool dry_run = false;
  bool refresh_first = false;  // materialized views before writes are stopped, not meanwhile
  bool way_back = false;       // armed before writes are stopped
};

// A finished command: the exit code that the command line returns, and one JSON object as text.
struct CommandOutcome {
  int exit_code = 0;
  std::string json;
};

class ControlHandler {
 public:
  virtual ~ControlHandler() = default;

  // Brings the status up to date and returns it; valid until the caller next suspends.
  [[nodiscard]] virtual const Status& status() = 0;
  // Attached to both servers and streaming or copying, with nothing stopped.
  [[nodiscard]] virtual bool ready() = 0;
  // A JSON list of strings: what stands in the way of a cutover now; empty when nothing does.
  [[nodiscard]] virtual boost::asio::awaitable<std::string> cutover_readiness() = 0;
  // Runs the whole cutover; `on_step` is called with one line of text as each step ends.
  [[nodiscard]] virtual boost::asio::awaitable<CommandOutcome> cutover(CutoverOptions options,
                                                                       std::function<void(std::string)> on_step) = 0;
  // Lets the apply leave out the one thing at which it stands. Throws Error{Refused} when that is not at `lsn`.
  virtual Skip skip(Lsn lsn, const std::string& reason) = 0;
  // Takes what was found of this object in the schemas (Status::ddl.findings) as settled. Throws Error{Refused} when
  // nothing was.
  virtual void accept(const std::string& object, const std::string& reason) = 0;
  // Asks the migration to stop at a commit boundary; returns at once.
  virtual void stop() = 0;
};

}  // namespace walferry
