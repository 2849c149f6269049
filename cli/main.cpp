// walferry <command> [options]: finds the command, runs it, turns an Error into one paragraph and an exit code.

#include <fmt/format.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <string>
#include <string_view>

#include "cli/commands.hpp"
#include "cli/signals.hpp"
#include "engine/error.hpp"
#include "engine/pg/conninfo.hpp"
#include "engine/store/database.hpp"

namespace walferry::cli {
namespace {

std::string overview() {
  std::string text =
      "walferry moves a live PostgreSQL database to another server while its applications keep writing.\n\n"
      "  walferry <command> [options]      walferry <command> --help\n\n";
  for (const Command& command : commands()) text += fmt::format("  {:<10} {}\n", command.name, command.summary);
  return text;
}

int dispatch(int count, char** words) {
  const std::string_view name = count > 1 ? words[1] : "";
  if (name.empty() || name == "--help" || name == "-h" || name == "help") {
    fmt::print(name.empty() ? stderr : stdout, "{}", overview());
    return name.empty() ? exit_codes::usage : exit_codes::ok;
  }
  if (name == "--version") {
    fmt::print("walferry {}\n", WALFERRY_VERSION);
    return exit_codes::ok;
  }
  for (const Command& command : commands()) {
    if (command.name == name) return command.run(Words{words + 2, words + count});
  }
  throw Error{{ErrorKind::Usage},
              fmt::format("there is no command \"{}\". Remedy: `walferry --help` lists them", name)};
}

}  // namespace
}  // namespace walferry::cli

namespace {

int outcome_of(int count, char** words) {
  try {
    return walferry::cli::dispatch(count, words);
  } catch (const walferry::Error& error) {
    if (error.kind() == walferry::ErrorKind::Stopped) return walferry::exit_codes::ok;
    fmt::print(stderr, "walferry: {}\n", error.what());
    return walferry::exit_code(error);
  } catch (const std::exception& error) {
    fmt::print(stderr, "walferry: internal error: {}. Nothing is lost: start it again, and report this\n",
               error.what());
    return walferry::exit_codes::person_must_act;
  }
}

}  // namespace

int main(int count, char** words) {
  // A peer that closes its connection is an error of that connection, not the end of the process.
  std::signal(SIGPIPE, SIG_IGN);
  // Held back until whoever handles them is ready: a stop that comes while `run` is still starting is a stop in order.
  walferry::cli::hold_stop_signals();
  walferry::pg::forget_ambient_connection_settings();
  const int code = outcome_of(count, words);
  if (!walferry::store::Database::any_left_open()) return code;
  std::fflush(nullptr);
  std::_Exit(code);
}
