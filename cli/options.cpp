#include "cli/options.hpp"

#include <fmt/format.h>

#include <boost/program_options/environment_iterator.hpp>
#include <boost/program_options/errors.hpp>
#include <boost/program_options/parsers.hpp>
#include <charconv>
#include <fstream>
#include <sstream>

namespace walferry::cli {
namespace {

[[noreturn]] void fail_usage(std::string_view command, const std::string& what) {
  throw Error{{ErrorKind::Usage}, fmt::format("{}. Remedy: `walferry {} --help` lists the options", what, command)};
}

// WALFERRY_MAX_LAG -> max-lag, when the command has such an option.
std::string option_of_variable(const po::options_description& options, const std::string& variable) {
  constexpr std::string_view prefix = "WALFERRY_";
  if (!variable.starts_with(prefix)) return {};
  std::string name;
  for (const char c : variable.substr(prefix.size()))
    name += c == '_' ? '-' : static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return options.find_nothrow(name, false) == nullptr ? std::string{} : name;
}

}  // namespace

Arguments Arguments::parse(std::string_view command, const po::options_description& options,
                           const std::vector<std::string>& words) {
  Arguments arguments;
  arguments.command_ = command;
  const int style = (po::command_line_style::default_style & ~po::command_line_style::allow_guessing);
  try {
    const po::positional_options_description none;
    po::store(po::command_line_parser(words).options(options).positional(none).style(style).run(), arguments.values_);
    po::store(po::parse_environment(options,
                                    [&](const std::string& variable) { return option_of_variable(options, variable); }),
              arguments.values_);
    if (arguments.values_.contains("config")) {
      const auto path = arguments.values_["config"].as<std::string>();
      std::ifstream file{path};
      if (!file) fail_usage(command, fmt::format("--config {}: the file cannot be read", path));
      po::store(po::parse_config_file(file, options), arguments.values_);
    }
    po::notify(arguments.values_);
  } catch (const po::error& error) {
    fail_usage(command, error.what());
  }
  return arguments;
}

bool Arguments::flag(const std::string& name) const {
  return values_.contains(name) && values_[name].as<bool>();
}

std::optional<std::string> Arguments::text(const std::string& name) const {
  if (!values_.contains(name)) return std::nullopt;
  return values_[name].as<std::string>();
}

std::vector<std::string> Arguments::texts(const std::string& name) const {
  std::vector<std::string> values;
  if (!values_.contains(name)) return values;
  for (const std::string& given : values_[name].as<std::vector<std::string>>()) {
    std::istringstream lines{given};
    for (std::string line; std::getline(lines, line);) {
      if (!line.empty()) values.push_back(line);
    }
  }
  return values;
}

std::string Arguments::required(const std::string& name) const {
  const auto value = text(name);
  if (!value || value->empty()) fail_usage(command_, fmt::format("--{} is missing", name));
  return *value;
}

int Arguments::number(const std::string& name, int smallest, int largest) const {
  const std::string value = required(name);
  int number = 0;
  const auto [end, failure] = std::from_chars(value.data(), value.data() + value.size(), number);
  if (failure != std::errc{} || end != value.data() + value.size() || number < smallest || number > largest) {
    fail_usage(command_, fmt::format("--{} {}: a number from {} to {} is wanted", name, value, smallest, largest));
  }
  return number;
}

std::chrono::milliseconds Arguments::duration(const std::string& name) const {
  const std::string value = required(name);
  const auto duration = parse_duration(value);
  if (!duration) fail_usage(command_, fmt::format("--{} {}: a time such as 500ms, 30s or 2min is wanted", name, value));
  return *duration;
}

pg::ConnInfo Arguments::connection(Side side) const {
  return pg::ConnInfo::parse(required(std::string{to_string(side)}), side);
}

std::optional<std::chrono::milliseconds> parse_duration(std::string_view text) {
  double number = 0;
  const auto [end, failure] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (failure != std::errc{} || number < 0) return std::nullopt;
  const std::string_view unit{end, static_cast<std::size_t>(text.data() + text.size() - end)};
  double factor = 0;
  if (unit == "ms") factor = 1;
  if (unit == "s" || unit.empty()) factor = 1'000;
  if (unit == "min") factor = 60'000;
  if (unit == "h") factor = 3'600'000;
  constexpr double longest_ms = 1e12;  // 31 years: any later arithmetic in nanoseconds stays defined
  if (factor == 0 || !(number * factor <= longest_ms)) return std::nullopt;  // refuses NaN as well
  return std::chrono::milliseconds{static_cast<std::int64_t>(number * factor)};
}

}  // namespace walferry::cli
