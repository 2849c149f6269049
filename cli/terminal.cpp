#include "cli/terminal.hpp"

#include <spdlog/spdlog.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <string_view>

#include "engine/error.hpp"

namespace walferry::cli {

void TerminalSink::draw(const std::string& block) {
  const std::scoped_lock lock{mutex_};
  wipe_unlocked();
  std::fwrite(block.data(), 1, block.size(), stderr);
  if (!block.empty() && block.back() != '\n') std::fputc('\n', stderr);
  lines_drawn_ = static_cast<int>(std::ranges::count(block, '\n')) + (block.empty() || block.back() == '\n' ? 0 : 1);
  std::fflush(stderr);
}

void TerminalSink::wipe() {
  const std::scoped_lock lock{mutex_};
  wipe_unlocked();
  std::fflush(stderr);
}

void TerminalSink::wipe_unlocked() {
  if (lines_drawn_ > 0) std::fprintf(stderr, "\033[%dA\r\033[J", lines_drawn_);
  lines_drawn_ = 0;
}

void TerminalSink::sink_it_(const spdlog::details::log_msg& message) {
  wipe_unlocked();
  spdlog::memory_buf_t text;
  formatter_->format(message, text);
  std::fwrite(text.data(), 1, text.size(), stderr);
}

void TerminalSink::flush_() {
  std::fflush(stderr);
}

bool stderr_is_terminal() {
  return ::isatty(STDERR_FILENO) == 1;
}
bool stdout_is_terminal() {
  return ::isatty(STDOUT_FILENO) == 1;
}

bool wants_color(bool terminal) {
  const char* no_color = std::getenv("NO_COLOR");
  const char* term = std::getenv("TERM");
  return terminal && (no_color == nullptr || *no_color == '\0') &&
         (term == nullptr || std::string_view{term} != "dumb");
}

TerminalSize terminal_size(int descriptor) {
  winsize size{};
  if (::ioctl(descriptor, TIOCGWINSZ, &size) != 0 || size.ws_col == 0) return {};
  return {.width = size.ws_col, .height = size.ws_row};
}

std::shared_ptr<TerminalSink> start_logging(const std::string& level) {
  const spdlog::level::level_enum wanted = spdlog::level::from_str(level);
  if (wanted == spdlog::level::off && level != "off") {
    throw Error{{ErrorKind::Usage}, "--log-level " + level + ": debug, info, warn or error is wanted"};
  }
  auto sink = std::make_shared<TerminalSink>();
  auto logger = std::make_shared<spdlog::logger>("walferry", sink);
  logger->set_pattern("%Y-%m-%d %H:%M:%S.%e %-5l %v");
  logger->set_level(wanted);
  logger->flush_on(spdlog::level::info);
  spdlog::set_default_logger(logger);
  return sink;
}

}  // namespace walferry::cli
