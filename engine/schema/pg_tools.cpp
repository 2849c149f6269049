#include "engine/schema/pg_tools.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <map>

namespace walferry::schema {
namespace {

namespace fs = std::filesystem;

// Appends the absolute folders of a list with colons between them, such as PATH.
void append_folders(std::vector<fs::path>& folders, std::string_view list) {
  while (!list.empty()) {
    const std::size_t colon = list.find(':');
    const std::string_view folder = list.substr(0, colon);
    if (folder.starts_with('/')) folders.emplace_back(folder);
    list = colon == std::string_view::npos ? std::string_view{} : list.substr(colon + 1);
  }
}

std::vector<fs::path> folders_to_search() {
  std::vector<fs::path> folders;
  if (const char* named = std::getenv("WALFERRY_PG_BINDIRS")) append_folders(folders, named);
  std::vector<fs::path> of_the_system;
  std::error_code ignored;  // a folder that is not there offers no tools
  for (const auto& entry : fs::directory_iterator{"/usr/lib/postgresql", ignored})
    of_the_system.push_back(entry.path() / "bin");
  std::sort(of_the_system.begin(), of_the_system.end());
  folders.insert(folders.end(), of_the_system.begin(), of_the_system.end());
  const char* path = std::getenv("PATH");
  append_folders(folders, path == nullptr ? "/usr/bin:/usr/local/bin" : path);
  return folders;
}

// /usr/bin/pg_dump there: asks the user's configuration, and runs one of those in /usr/lib/postgresql.
constexpr std::string_view debian_wrapper = "pg_wrapper";

std::optional<PgTools> tools_in(const fs::path& folder) {
  PgTools tools{folder / "pg_dump", folder / "pg_restore", 0};
  if (::access(tools.dump.c_str(), X_OK) != 0 || ::access(tools.restore.c_str(), X_OK) != 0) return std::nullopt;
  std::error_code ignored;
  if (fs::canonical(tools.dump, ignored).filename() == debian_wrapper) return std::nullopt;
  const ChildOutcome answer =
      run_child({.program = tools.dump, .arguments = {"--version"}, .environment = {{"LC_ALL", "C"}}});
  const std::optional<int> major = answer.succeeded() ? parse_tool_major(answer.output) : std::nullopt;
  if (!major) return std::nullopt;
  tools.major = *major;
  return tools;
}

// Sent at connection start: a setting of the source's database or role must not end the dump or change its text, nor
// make the server look as if it could not be written to (target_session_attrs=read-write). pg_dump itself only reads.
constexpr std::string_view dump_settings =
    "-c statement_timeout=0 -c lock_timeout=0 -c idle_in_transaction_session_timeout=0 "
    "-c standard_conforming_strings=on -c quote_all_identifiers=off -c default_transaction_read_only=off "
    "-c default_transaction_deferrable=off";

}  // namespace

std::optional<int> parse_tool_major(std::string_view version_line) {
  const std::size_t product = version_line.find("(PostgreSQL) ");
  if (product == std::string_view::npos) return std::nullopt;
  const std::string_view number = version_line.substr(product + std::string_view{"(PostgreSQL) "}.size());
  int major = 0;
  const auto [end, error] = std::from_chars(number.data(), number.data() + number.size(), major);
  if (error != std::errc{} || major <= 0) return std::nullopt;
  return major;
}

std::vector<PgTools> list_pg_tools(const std::optional<fs::path>& bin_dir) {
  std::map<int, PgTools> by_major;
  const std::vector<fs::path> folders = bin_dir ? std::vector{fs::absolute(*bin_dir)} : folders_to_search();
  for (const fs::path& folder : folders) {
    if (const auto tools = tools_in(folder)) by_major.emplace(tools->major, *tools);
  }
  std::vector<PgTools> found;
  for (auto& [major, tools] : by_major) found.push_back(std::move(tools));
  return found;
}

std::optional<PgTools> choose_pg_tools(std::span<const PgTools> found, const Majors& majors) {
  const PgTools* best = nullptr;
  for (const PgTools& tools : found) {
    if (tools.major < majors.source) continue;
    if (tools.major == majors.target) return tools;
    if (best == nullptr || tools.major < best->major) best = &tools;
  }
  if (best == nullptr) return std::nullopt;
  return *best;
}

std::optional<PgTools> find_pg_tools(const std::optional<fs::path>& bin_dir, const Majors& majors) {
  return choose_pg_tools(list_pg_tools(bin_dir), majors);
}

std::string describe_pg_tools(std::span<const PgTools> found) {
  std::string text;
  for (const PgTools& tools : found) {
    if (!text.empty()) text += ", ";
    text += fmt::format("pg_dump {} ({})", tools.major, tools.dump.parent_path().string());
  }
  return text.empty() ? "none" : text;
}

ChildCommand connecting_command(const fs::path& program, const pg::ConnInfo& server) {
  if (server.get("sslpassword")) {
    throw Error{
        {ErrorKind::Usage, server.side()},
        fmt::format("--{}: sslpassword cannot be handed to {} without showing it to everyone on this machine. Use a "
                    "client key without a passphrase, readable by this user only",
                    to_string(server.side()), program.filename().string())};
  }
  const std::string own = server.get("options").value_or("");
  pg::ConnInfo told =
      server.with("application_name", "walferry")
          .with("options", own.empty() ? std::string{dump_settings} : own + " " + std::string{dump_settings});
  if (!server.get("connect_timeout")) told = told.with("connect_timeout", "10");
  ChildCommand command{.program = program, .arguments = {"--dbname=" + told.without_secrets(), "--no-password"}};
  // Untranslated messages: they are searched for known causes.
  command.environment = {{"LC_ALL", "C"}, {"PGAPPNAME", "walferry"}};
  if (const auto password = server.get("password")) command.environment.emplace_back("PGPASSWORD", *password);
  return command;
}

}  // namespace walferry::schema
