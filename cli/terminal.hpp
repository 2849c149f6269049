// stderr of `walferry run`: log lines, and below them, on a terminal, a block that is redrawn.
//
// A log line first wipes the block, so the two never mix; the block comes back with the next draw(). Thread-safe,
// because every thread logs. Off a terminal there is no block and draw() is never called.
#pragma once

#include <spdlog/sinks/base_sink.h>

#include <memory>
#include <mutex>
#include <string>

namespace walferry::cli {

class TerminalSink final : public spdlog::sinks::base_sink<std::mutex> {
 public:
  void draw(const std::string& block);
  void wipe();

 protected:
  void sink_it_(const spdlog::details::log_msg& message) override;
  void flush_() override;

 private:
  void wipe_unlocked();
  int lines_drawn_ = 0;
};

[[nodiscard]] bool stderr_is_terminal();
[[nodiscard]] bool stdout_is_terminal();
// NO_COLOR and TERM=dumb are honoured.
[[nodiscard]] bool wants_color(bool terminal);

struct TerminalSize {
  int width = 80;
  int height = 24;
};
[[nodiscard]] TerminalSize terminal_size(int descriptor);

// Logs go to stderr through the sink returned. `level`: debug, info, warn, error.
std::shared_ptr<TerminalSink> start_logging(const std::string& level);

}  // namespace walferry::cli
