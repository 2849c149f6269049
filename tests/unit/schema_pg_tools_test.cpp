#include <doctest/doctest.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <thread>

#include "engine/schema/pg_tools.hpp"

using namespace walferry;
using namespace walferry::schema;

namespace {

std::vector<PgTools> tools_of(std::initializer_list<int> majors) {
  std::vector<PgTools> tools;
  for (const int major : majors) tools.push_back({"/opt/pg_dump", "/opt/pg_restore", major});
  return tools;
}

int chosen(std::initializer_list<int> found, const Majors& majors) {
  const auto tools = choose_pg_tools(tools_of(found), majors);
  return tools ? tools->major : 0;
}

}  // namespace

TEST_CASE("the major is read from what pg_dump --version prints") {
  CHECK(parse_tool_major("pg_dump (PostgreSQL) 15.20 (Debian 15.20-0+deb12u1)\n") == 15);
  CHECK(parse_tool_major("pg_dump (PostgreSQL) 19devel") == 19);
  CHECK(parse_tool_major("pg_dump (PostgreSQL) 18beta1") == 18);
  CHECK_FALSE(parse_tool_major("pg_dump 15").has_value());
  CHECK_FALSE(parse_tool_major("pg_dump (PostgreSQL) x").has_value());
  CHECK_FALSE(parse_tool_major("").has_value());
}

TEST_CASE("the target's own pg_dump is preferred, then the smallest that can read the source") {
  CHECK(chosen({14, 15, 16, 17}, {.source = 14, .target = 16}) == 16);
  CHECK(chosen({13, 15, 17}, {.source = 14, .target = 16}) == 15);
  CHECK(chosen({15}, {.source = 14, .target = 16}) == 15);
  CHECK(chosen({18}, {.source = 14, .target = 16}) == 18);
  CHECK(chosen({14, 16, 17}, {.source = 16, .target = 14}) == 16);
  CHECK(chosen({13}, {.source = 14, .target = 16}) == 0);
  CHECK(chosen({}, {.source = 14, .target = 16}) == 0);
}

TEST_CASE("what was found is told in one line") {
  CHECK(describe_pg_tools({}) == "none");
  CHECK(describe_pg_tools(tools_of({15, 16})) == "pg_dump 15 (/opt), pg_dump 16 (/opt)");
}

TEST_CASE("a folder without the programs offers none") {
  CHECK(list_pg_tools("/nonexistent").empty());
}

TEST_CASE("folders named in WALFERRY_PG_BINDIRS come before those of the system") {
  namespace fs = std::filesystem;
  const fs::path folder = fs::temp_directory_path() / ("walferry-tools-" + std::to_string(::getpid()));
  fs::create_directories(folder);
  for (const char* program : {"pg_dump", "pg_restore"}) {
    std::ofstream{folder / program} << "#!/bin/sh\necho \"$0 (PostgreSQL) 99.1\"\n";
    fs::permissions(folder / program, fs::perms::owner_all);
  }
  ::setenv("WALFERRY_PG_BINDIRS", ("/nonexistent:" + folder.string()).c_str(), 1);
  const std::vector<PgTools> found = list_pg_tools(std::nullopt);
  ::unsetenv("WALFERRY_PG_BINDIRS");
  fs::remove_all(folder);
  REQUIRE_FALSE(found.empty());
  CHECK(found.back().major == 99);
  CHECK(found.back().dump == folder / "pg_dump");
}

TEST_CASE("a password reaches the child's environment and never its arguments") {
  const auto server =
      pg::ConnInfo::parse("postgresql://app:se'cret@db.example:5433/my db?sslmode=require", Side::Source);
  const ChildCommand command = connecting_command("/usr/bin/pg_dump", server);
  for (const std::string& argument : command.arguments) CHECK(argument.find("cret") == std::string::npos);
  const auto password = std::find_if(command.environment.begin(), command.environment.end(),
                                     [](const auto& pair) { return pair.first == "PGPASSWORD"; });
  REQUIRE(password != command.environment.end());
  CHECK(password->second == "se'cret");
  CHECK(command.arguments.front().starts_with("--dbname="));
  CHECK(command.arguments.front().find("sslmode='require'") != std::string::npos);
}

TEST_CASE("a passphrase that only argv could carry is refused") {
  const auto server = pg::ConnInfo::parse("host=h dbname=d sslpassword=secret", Side::Target);
  CHECK_THROWS_AS((void)connecting_command("/usr/bin/pg_dump", server), Error);
}

TEST_CASE("a child's output, messages and exit status are returned") {
  const ChildOutcome outcome =
      run_child({.program = "/bin/sh", .arguments = {"-c", "cat; echo out; echo err >&2; umask; exit 3"}});
  CHECK(outcome.exit_status == 3);
  CHECK(outcome.output == "out\n0077\n");
  CHECK(outcome.messages == "err\n");
  CHECK_FALSE(outcome.succeeded());
}

TEST_CASE("a child sees what it is given and none of our connection settings") {
  ::setenv("PGPASSWORD", "other", 1);
  ::setenv("PGHOST", "elsewhere", 1);
  ::setenv("WALFERRY_SOURCE", "postgresql://u:p@h/d", 1);
  const ChildOutcome outcome =
      run_child({.program = "/usr/bin/env", .arguments = {}, .environment = {{"PGPASSWORD", "given"}}});
  CHECK(outcome.output.find("PGPASSWORD=given\n") != std::string::npos);
  CHECK(outcome.output.find("other") == std::string::npos);
  CHECK(outcome.output.find("PGHOST") == std::string::npos);
  CHECK(outcome.output.find("WALFERRY_SOURCE") == std::string::npos);
  for (const char* name : {"PGPASSWORD", "PGHOST", "WALFERRY_SOURCE"}) ::unsetenv(name);
}

TEST_CASE("of many messages the last 64 KiB are kept") {
  const ChildOutcome outcome = run_child(
      {.program = "/bin/sh",
       .arguments = {"-c", "i=0; while [ $i -lt 9000 ]; do echo 0123456789 >&2; i=$((i+1)); done; echo end >&2"}});
  CHECK(outcome.messages.size() <= 64 * 1024);
  CHECK(outcome.messages.ends_with("end\n"));
}

TEST_CASE("a program that is not there is an error that names it") {
  CHECK_THROWS_WITH_AS((void)run_child({.program = "/nonexistent/pg_dump"}), doctest::Contains("/nonexistent/pg_dump"),
                       Error);
}

TEST_CASE("a stop request ends the child and its children") {
  const std::filesystem::path running =
      std::filesystem::temp_directory_path() / ("walferry-child-" + std::to_string(::getpid()));
  std::filesystem::remove(running);
  const std::string say_running = "touch '" + running.string() + "'; ";
  std::stop_source source;
  std::jthread stopper{[&source, &running](const std::stop_token& over) {
    while (!std::filesystem::exists(running) && !over.stop_requested()) std::this_thread::yield();
    source.request_stop();
  }};
  const auto begin = std::chrono::steady_clock::now();
  SUBCASE("that obeys SIGTERM") {
    const ChildOutcome outcome =
        run_child({.program = "/bin/sh", .arguments = {"-c", say_running + "sleep 60 & sleep 60"}}, source.get_token());
    CHECK(outcome.stopped);
    CHECK_FALSE(outcome.succeeded());
  }
  SUBCASE("that does not") {
    const ChildOutcome outcome =
        run_child({.program = "/bin/sh",
                   .arguments = {"-c", "trap '' TERM; " + say_running + "while :; do sleep 1; done"},
                   .stop_grace = std::chrono::milliseconds{200}},
                  source.get_token());
    CHECK(outcome.stopped);
    CHECK(outcome.exit_status == 128 + SIGKILL);
  }
  std::filesystem::remove(running);
  CHECK(std::chrono::steady_clock::now() - begin < std::chrono::seconds{20});
}
