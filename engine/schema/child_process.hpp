// One child process: started without a shell, watched to its end, never left behind.
//
// The child runs in its own process group with stdin from /dev/null, umask 077 and no descriptor of ours; the kernel
// kills it when the thread that started it dies, so a killed walferry leaves none. run_child() blocks the calling
// thread until the child has ended; a stop request sends SIGTERM to the group, SIGKILL after a grace period. Secrets
// travel in `environment` only: argv is visible to everyone on the machine. Called by pg_tools and archive.
#pragma once

#include <chrono>
#include <filesystem>
#include <stop_token>
#include <string>
#include <utility>
#include <vector>

#include "engine/error.hpp"

namespace walferry::schema {

struct ChildCommand {
  std::filesystem::path program;  // absolute
  std::vector<std::string> arguments = {};
  // Added to our own environment, from which libpq's ambient settings and passwords are taken out.
  std::vector<std::pair<std::string, std::string>> environment = {};
  std::chrono::milliseconds stop_grace{5000};
};

struct ChildOutcome {
  int exit_status = 0;        // 128 + signal where a signal ended it
  std::string output = {};    // all of stdout
  std::string messages = {};  // the last 64 KiB of stderr
  bool stopped = false;       // it was ended because of the stop request

  [[nodiscard]] bool succeeded() const { return exit_status == 0 && !stopped; }
};

// Throws Error{Schema} when the program cannot be started; how it ended is in the outcome.
[[nodiscard]] ChildOutcome run_child(const ChildCommand& command, const std::stop_token& stop = {});

}  // namespace walferry::schema
