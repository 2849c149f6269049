// Flags, environment and configuration file of one command: flag > WALFERRY_<OPTION> > --config file > default.
//
// Every option of a command can be given in each of the three ways under the same name ("max-lag", WALFERRY_MAX_LAG,
// max-lag=2s in the file). Unknown flags and unusable values are Error{Usage}. The one home of Boost.Program_options.
#pragma once

#include <boost/program_options/options_description.hpp>
#include <boost/program_options/variables_map.hpp>
#include <chrono>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/pg/conninfo.hpp"

namespace walferry::cli {

namespace po = boost::program_options;

class Arguments {
 public:
  // Throws Error{Usage}. `words` are those after the command.
  [[nodiscard]] static Arguments parse(std::string_view command, const po::options_description& options,
                                       const std::vector<std::string>& words);

  [[nodiscard]] bool flag(const std::string& name) const;
  [[nodiscard]] std::optional<std::string> text(const std::string& name) const;
  // Of an option that may be given several times; one value may hold several, a line each.
  [[nodiscard]] std::vector<std::string> texts(const std::string& name) const;
  // Throws Error{Usage} when the option is absent.
  [[nodiscard]] std::string required(const std::string& name) const;
  [[nodiscard]] int number(const std::string& name, int smallest, int largest) const;
  // "30s", "500ms", "2min", or a plain number of seconds.
  [[nodiscard]] std::chrono::milliseconds duration(const std::string& name) const;
  [[nodiscard]] pg::ConnInfo connection(Side side) const;

 private:
  std::string command_;
  po::variables_map values_;
};

// "30s" and so on; nullopt for anything else.
[[nodiscard]] std::optional<std::chrono::milliseconds> parse_duration(std::string_view text);

}  // namespace walferry::cli
