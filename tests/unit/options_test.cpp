#include "cli/options.hpp"

#include <doctest/doctest.h>
#include <stdlib.h>

#include <array>
#include <fstream>
#include <optional>
#include <string>
#include <vector>

#include "tests/unit/state_dir.hpp"

using namespace walferry;
using cli::Arguments;
using cli::parse_duration;
namespace po = boost::program_options;

namespace {

using std::chrono::milliseconds;

// Options of every kind that the commands have.
po::options_description options() {
  po::options_description all{"walferry run"};
  all.add_options()("config", po::value<std::string>(), "");
  all.add_options()("source", po::value<std::string>(), "");
  all.add_options()("jobs", po::value<std::string>()->default_value("2"), "");
  all.add_options()("max-lag", po::value<std::string>()->default_value("2s"), "");
  all.add_options()("no-owner", po::bool_switch(), "");
  all.add_options()("adopt", po::value<std::string>()->implicit_value(""), "");
  return all;
}

Arguments parse(const std::vector<std::string>& words) {
  return Arguments::parse("run", options(), words);
}

// What the words are refused with; "" when they are not.
template <typename Use>
std::string refusal(const std::vector<std::string>& words, Use use) {
  try {
    use(parse(words));
    return "";
  } catch (const Error& error) {
    CHECK(error.kind() == ErrorKind::Usage);
    return error.what();
  }
}
std::string refusal(const std::vector<std::string>& words) {
  return refusal(words, [](const Arguments&) {});
}

class Variable {
 public:
  Variable(const char* name, const char* value) : name_(name) { setenv(name, value, 1); }
  Variable(const Variable&) = delete;
  Variable& operator=(const Variable&) = delete;
  ~Variable() { unsetenv(name_); }

 private:
  const char* name_;
};

class ConfigFile {
 public:
  explicit ConfigFile(const std::string& text) { std::ofstream{dir_.path()} << text; }
  [[nodiscard]] std::string path() const { return dir_.path().string(); }

 private:
  test::StateDir dir_;  // its path is free for a file
};

}  // namespace

TEST_CASE("a flag beats the environment, which beats the file, which beats the default") {
  CHECK(parse({}).text("max-lag") == "2s");
  const ConfigFile file{"max-lag=4s\n# comment\njobs = 4\n"};
  CHECK(parse({"--config", file.path()}).text("max-lag") == "4s");
  CHECK(parse({"--config", file.path()}).text("jobs") == "4");
  {
    const Variable variable{"WALFERRY_MAX_LAG", "3s"};
    CHECK(parse({}).text("max-lag") == "3s");
    CHECK(parse({"--config", file.path()}).text("max-lag") == "3s");
    CHECK(parse({"--config", file.path(), "--max-lag", "1s"}).text("max-lag") == "1s");
    CHECK(parse({"--max-lag=1s"}).text("max-lag") == "1s");
  }
  // A flag that repeats the default is a flag all the same.
  CHECK(parse({"--config", file.path(), "--max-lag=2s"}).text("max-lag") == "2s");
}

TEST_CASE("the file can be named in the environment") {
  const ConfigFile file{"jobs=7\n"};
  const Variable variable{"WALFERRY_CONFIG", file.path().c_str()};
  CHECK(parse({}).text("jobs") == "7");
}

TEST_CASE("a switch is off unless it is given, in any of the three ways") {
  CHECK_FALSE(parse({}).flag("no-owner"));
  CHECK(parse({"--no-owner"}).flag("no-owner"));
  const ConfigFile file{"no-owner=true\n"};
  CHECK(parse({"--config", file.path()}).flag("no-owner"));
  {
    const Variable variable{"WALFERRY_NO_OWNER", "true"};
    CHECK(parse({}).flag("no-owner"));
  }
  const Variable variable{"WALFERRY_NO_OWNER", "false"};
  CHECK_FALSE(parse({"--config", file.path()}).flag("no-owner"));
  CHECK(parse({"--no-owner"}).flag("no-owner"));
}

TEST_CASE("an option whose value may be left out takes the word behind it, but no other option") {
  CHECK_FALSE(parse({}).text("adopt"));
  CHECK(parse({"--adopt"}).text("adopt") == "");
  CHECK(parse({"--adopt", "0/10"}).text("adopt") == "0/10");
  CHECK(parse({"--adopt=0/10"}).text("adopt") == "0/10");
  const Arguments both = parse({"--adopt", "--no-owner"});
  CHECK(both.text("adopt") == "");
  CHECK(both.flag("no-owner"));
}

TEST_CASE("what the command does not know is refused with where to look") {
  CHECK(refusal({"--no-such-flag"}).find("walferry run --help") != std::string::npos);
  CHECK_FALSE(refusal({"--max"}).empty());
  CHECK_FALSE(refusal({"word"}).empty());
  CHECK_FALSE(refusal({"--jobs", "1", "--jobs", "2"}).empty());
  CHECK_FALSE(refusal({"--source"}).empty());
  const ConfigFile file{"no-such-option=1\n"};
  CHECK_FALSE(refusal({"--config", file.path()}).empty());
}

TEST_CASE("variables of other commands and other programs are let alone") {
  const Variable of_another_command{"WALFERRY_PG_BINDIRS", "x"};
  const Variable of_another_program{"MAX_LAG", "9s"};
  CHECK(parse({}).text("max-lag") == "2s");
}

TEST_CASE("a configuration file that cannot be read is refused by name") {
  CHECK(refusal({"--config", "no/such/file"}).find("no/such/file") != std::string::npos);
}

TEST_CASE("an option that is needed is missed by name, also when it is empty") {
  const auto source = [](const Arguments& arguments) { static_cast<void>(arguments.required("source")); };
  CHECK(refusal({}, source).find("--source is missing") == 0);
  CHECK(refusal({"--source="}, source).find("--source") != std::string::npos);
  CHECK_FALSE(parse({}).text("source").has_value());
}

TEST_CASE("a number is whole and within its bounds") {
  CHECK(parse({"--jobs", "1"}).number("jobs", 1, 64) == 1);
  CHECK(parse({"--jobs", "64"}).number("jobs", 1, 64) == 64);
  for (const std::string value : {"0", "65", "-1", "2x", "x", "1.5", " 2", "99999999999"}) {
    CAPTURE(value);
    const auto jobs = [](const Arguments& arguments) { static_cast<void>(arguments.number("jobs", 1, 64)); };
    CHECK(refusal({"--jobs=" + value}, jobs).find("--jobs " + value) == 0);
  }
}

TEST_CASE("a side's connection string belongs to that side") {
  const pg::ConnInfo source = parse({"--source", "host=h dbname=d"}).connection(Side::Source);
  CHECK(source.side() == Side::Source);
  CHECK(source.get("dbname") == "d");
  const auto connect = [](const Arguments& arguments) { static_cast<void>(arguments.connection(Side::Source)); };
  CHECK(refusal({"--source", "dbname=d"}, connect).find("--source") == 0);
}

TEST_CASE("a duration is a number with a unit, or seconds") {
  struct Row {
    std::string_view text;
    std::optional<milliseconds> expected;
  };
  constexpr std::array rows{
      Row{"500ms", milliseconds{500}},
      Row{"30s", milliseconds{30'000}},
      Row{"2min", milliseconds{120'000}},
      Row{"1h", milliseconds{3'600'000}},
      Row{"7", milliseconds{7'000}},
      Row{"0", milliseconds{0}},
      Row{"0.5s", milliseconds{500}},
      Row{"1.5h", milliseconds{5'400'000}},
      Row{"", std::nullopt},
      Row{"s", std::nullopt},
      Row{"-1s", std::nullopt},
      Row{"5 s", std::nullopt},
      Row{" 5s", std::nullopt},
      Row{"5m", std::nullopt},
      Row{"5S", std::nullopt},
      Row{"5sec", std::nullopt},
      Row{"5s5", std::nullopt},
      Row{"+5s", std::nullopt},
      Row{"soon", std::nullopt},
  };
  for (const Row& row : rows) {
    CAPTURE(row.text);
    CHECK(parse_duration(row.text) == row.expected);
  }
}

TEST_CASE("a duration that no clock can hold is refused") {
  for (const std::string_view text : {"nan", "inf", "infs", "nanms", "1e300", "1e17s", "9e18ms", "1e16h"}) {
    CAPTURE(text);
    CHECK_FALSE(parse_duration(text).has_value());
  }
}

TEST_CASE("an option that wants a duration says what it is given and what is wanted") {
  CHECK(parse({"--max-lag", "500ms"}).duration("max-lag") == milliseconds{500});
  const auto lag = [](const Arguments& arguments) { static_cast<void>(arguments.duration("max-lag")); };
  const std::string why = refusal({"--max-lag", "soon"}, lag);
  CHECK(why.find("--max-lag soon") == 0);
  CHECK(why.find("30s") != std::string::npos);
}
