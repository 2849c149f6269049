// One function a command: its words in, its exit code out. Results go to stdout, everything else to stderr.
//
// Each makes one engine call or one control request. Called by main().
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace walferry::cli {

using Words = std::vector<std::string>;

int check_command(const Words& words);
int run_command(const Words& words);
int status_command(const Words& words);
int verify_command(const Words& words);
int skip_command(const Words& words);
int cutover_command(const Words& words);
int rollback_command(const Words& words);
int finish_command(const Words& words);
int abort_command(const Words& words);

struct Command {
  std::string_view name;
  std::string_view summary;
  int (*run)(const Words&);
};

[[nodiscard]] std::span<const Command> commands();

}  // namespace walferry::cli
