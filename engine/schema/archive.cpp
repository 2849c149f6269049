#include "engine/schema/archive.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <sstream>

#include "engine/schema/item_settings.hpp"
#include "engine/schema/transaction.hpp"

namespace walferry::schema {
namespace {

std::string last_messages(const std::string& text) {
  constexpr std::size_t shown_max = 2000;
  std::string shown = text.size() > shown_max ? "..." + text.substr(text.size() - shown_max) : text;
  for (char& c : shown) {
    if (c == '\n') c = ' ';
  }
  while (!shown.empty() && shown.back() == ' ') shown.pop_back();
  return shown.empty() ? "no message" : shown;
}

bool mentions(const std::string& text, std::string_view sign) {
  return text.find(sign) != std::string::npos;
}

[[noreturn]] void throw_dump_failure(const PgTools& tools, const pg::ConnInfo& source, const ChildOutcome& outcome) {
  const std::string& said = outcome.messages;
  ErrorOrigin origin{ErrorKind::Schema, source.side()};
  std::string_view remedy = "the role needs SELECT on every table and USAGE on every schema";
  if (mentions(said, "server version mismatch")) {
    remedy = "install the client programs of the source's major version or newer, or name them with --pg-bin-dir";
  } else if (mentions(said, "lock timeout") || mentions(said, "statement timeout")) {
    origin = {ErrorKind::Sql, source.side(), "55P03"};
    remedy = "somebody's DDL holds a table; it is tried again, or end that transaction on the source";
  } else if (mentions(said, "connection to server") || mentions(said, "server closed the connection")) {
    origin.kind = ErrorKind::Connection;
    if (mentions(said, "database \"") && mentions(said, "does not exist")) {
      origin.sqlstate = "3D000";
    } else if (mentions(said, "authentication failed") || mentions(said, "no password supplied") ||
               mentions(said, "no pg_hba.conf entry") || mentions(said, "does not exist")) {
      origin.sqlstate = "28000";
    }
    remedy = "check that the server runs and that user, password and pg_hba.conf fit";
  } else if (mentions(said, "output file") || mentions(said, "No space left")) {
    origin = {ErrorKind::State};
    remedy = "check space and permissions of the state directory";
  } else if (mentions(said, "invalid snapshot")) {
    remedy = "the session that exported the snapshot has ended; take a new one";
  }
  throw Error{origin,
              fmt::format("dumping the schema of {} with {} failed (exit status {}): {}. Remedy: {}", source.redacted(),
                          tools.dump.string(), outcome.exit_status, last_messages(said), remedy)};
}

[[noreturn]] void throw_file_failure(std::string_view doing, const std::filesystem::path& path) {
  throw Error{{ErrorKind::State},
              fmt::format("{} {}: {}. Check space and permissions of the state directory", doing, path.string(),
                          std::strerror(errno))};
}

// The rename is durable only with its directory.
void sync(const std::filesystem::path& path, int flags) {
  const int opened = ::open(path.c_str(), flags | O_CLOEXEC);
  if (opened < 0) throw_file_failure("opening", path);
  const int synced = ::fsync(opened);
  ::close(opened);
  if (synced != 0) throw_file_failure("syncing", path);
}

void rename_durably(const std::filesystem::path& from, const std::filesystem::path& to) {
  sync(from, O_RDONLY);
  if (::rename(from.c_str(), to.c_str()) != 0) throw_file_failure("renaming the schema archive to", to);
  sync(std::filesystem::absolute(to).parent_path(), O_RDONLY | O_DIRECTORY);
}

std::filesystem::path list_beside(const std::filesystem::path& path) {
  std::filesystem::path list = path;
  list += ".list";
  return list;
}

std::string output_of(const PgTools& tools, const std::filesystem::path& path, std::vector<std::string> arguments,
                      const std::stop_token& stop) {
  arguments.push_back(path.string());
  ChildOutcome outcome =
      run_child({.program = tools.restore, .arguments = std::move(arguments), .environment = {{"LC_ALL", "C"}}}, stop);
  if (outcome.stopped) throw Error{{ErrorKind::Stopped}, "stopped while reading the schema archive"};
  if (!outcome.succeeded()) {
    throw Error{
        {ErrorKind::Schema},
        fmt::format(
            "{} cannot read the schema archive {} (exit status {}): {}. Remedy: use the pg_restore of the major "
            "version that wrote it or a newer one (--pg-bin-dir)",
            tools.restore.string(), path.string(), outcome.exit_status, last_messages(outcome.messages))};
  }
  return std::move(outcome.output);
}

std::string script_of(const PgTools& tools, const std::filesystem::path& path, std::vector<std::string> arguments,
                      const std::stop_token& stop) {
  arguments.emplace_back("--file=-");
  if (std::filesystem::exists(list_beside(path))) arguments.push_back("--use-list=" + list_beside(path).string());
  return output_of(tools, path, std::move(arguments), stop);
}

// One entry of `pg_restore --list --verbose`: "215; 1259 16385 TABLE public item owner", then ";\tdepends on: 7 8".
constexpr std::uint32_t pg_class = 1'259;  // the catalog of tables and sequences, by its oid

struct ListEntry {
  std::string line;
  int dump_id = 0;
  std::uint32_t class_oid = 0;
  std::uint32_t oid = 0;
  std::vector<int> depends_on;
};

std::vector<ListEntry> parse_list(const std::string& text) {
  std::vector<ListEntry> entries;
  std::istringstream lines{text};
  constexpr std::string_view needs = ";\tdepends on:";
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with(needs) && !entries.empty()) {
      std::istringstream ids{line.substr(needs.size())};
      for (int id = 0; ids >> id;) entries.back().depends_on.push_back(id);
      continue;
    }
    ListEntry entry;
    char semicolon = ' ';
    std::istringstream words{line};
    if (words >> entry.dump_id >> semicolon >> entry.class_oid >> entry.oid && semicolon == ';') {
      entry.line = line;
      entries.push_back(std::move(entry));
    }
  }
  return entries;
}

std::string name_of(const ScriptEntry& entry) {
  return fmt::format("{} {}", entry.type, entry.tag);
}

// COMMENT ON EXTENSION needs the extension's owner, who on managed servers is somebody else; most often nothing
// differs.
bool comment_is_there(pg::Session& target, const std::vector<Token>& tokens) {
  if (tokens.size() < 6 || !tokens[0].is("COMMENT") || !tokens[2].is("EXTENSION")) return false;
  const Token& text = tokens.back();
  if (text.kind != Token::Kind::String) return false;
  const pg::Result same =
      target.exec(fmt::format("SELECT pg_catalog.obj_description(oid, 'pg_extension') IS NOT DISTINCT FROM {} "
                              "FROM pg_catalog.pg_extension WHERE extname = {}",
                              text.text, pg::quote_literal(tokens[3].text)));
  return same.rows() == 1 && same.flag(0, 0);
}

std::string_view remedy_of_restore(const std::string& sqlstate) {
  if (sqlstate == "53200")
    return "raise max_locks_per_transaction on the target and restart it: all objects are made in one transaction";
  if (sqlstate.starts_with("42P0") || sqlstate == "42710" || sqlstate == "42723") {
    return "the target holds an object of that name; use an empty database; where the schema is there already, "
           "`walferry abort` and begin "
           "anew with --no-schema";
  }
  if (sqlstate == "42704") return "create the role or type named above on the target, or leave owners and grants out";
  if (sqlstate == "42501")
    return "connect to the target as a role that may create these objects, or leave owners and grants out";
  if (sqlstate == "0A000" || sqlstate == "58P01" || sqlstate == "22023") {
    return "install the extension packages of the source on the target server";
  }
  return "nothing was created; mend the cause and run again";
}

}  // namespace

void dump_schema(const PgTools& tools, const pg::ConnInfo& source, const std::filesystem::path& path,
                 const DumpOptions& options, const std::stop_token& stop) {
  std::filesystem::path part = path;
  part += ".part";
  ChildCommand command = connecting_command(tools.dump, source);
  // Both sections rather than --schema-only: that would leave out which materialized views are filled.
  command.arguments.insert(
      command.arguments.end(),
      {"--format=custom", "--section=pre-data", "--section=post-data", "-B", "--no-publications", "--no-subscriptions",
       "--encoding=" + options.encoding, fmt::format("--lock-wait-timeout={}s", options.lock_wait_seconds),
       "--file=" + part.string()});
  for (const std::string& schema : options.exclude_schemas) {
    command.arguments.push_back("--exclude-schema=" + pg::quote_name(schema));
  }
  if (options.snapshot) command.arguments.push_back("--snapshot=" + *options.snapshot);
  const ChildOutcome outcome = run_child(command, stop);
  if (!outcome.succeeded()) {
    ::unlink(part.c_str());
    if (outcome.stopped) throw Error{{ErrorKind::Stopped, source.side()}, "stopped while dumping the schema"};
    throw_dump_failure(tools, source, outcome);
  }
  rename_durably(part, path);
}

void select_entries(const PgTools& tools, const std::filesystem::path& path, const LeftOutObjects& left_out,
                    const std::stop_token& stop) {
  std::filesystem::remove(list_beside(path));
  if (left_out.ids.empty()) return;
  std::set<int> dropped;
  std::set<int> without_owner;
  const auto needs_any_of = [](const ListEntry& entry, const std::set<int>& others) {
    return std::ranges::any_of(entry.depends_on, [&](int id) { return others.contains(id); });
  };
  std::string list;
  for (const ListEntry& entry : parse_list(output_of(tools, path, {"--list", "--verbose"}, stop))) {
    if (entry.class_oid == pg_class && left_out.without_owner.contains(entry.oid)) without_owner.insert(entry.dump_id);
    // Comments, grants and attachments have no object of their own: they go with any that they need. The owner of a
    // sequence is not among those that its OWNED BY names.
    const bool owned = entry.line.find(" SEQUENCE OWNED BY ") != std::string::npos;
    const bool gone = entry.class_oid == 0
                          ? needs_any_of(entry, dropped) || (owned && needs_any_of(entry, without_owner))
                          : left_out.ids.contains({entry.class_oid, entry.oid});
    if (gone) {
      dropped.insert(entry.dump_id);
    } else {
      list += entry.line + "\n";
    }
  }
  std::filesystem::path part = list_beside(path);
  part += ".part";
  std::ofstream file{part};
  file << list;
  file.close();
  if (!file) throw_file_failure("writing", part);
  rename_durably(part, list_beside(path));
}

std::vector<ScriptEntry> read_section(const PgTools& tools, const std::filesystem::path& path, Section section,
                                      const OwnershipOptions& ownership, const std::stop_token& stop) {
  std::vector<std::string> arguments{"--verbose",
                                     section == Section::PreData ? "--section=pre-data" : "--section=post-data"};
  if (!ownership.owners) arguments.emplace_back("--no-owner");
  if (!ownership.privileges) arguments.emplace_back("--no-privileges");
  std::vector<ScriptEntry> entries = split_script(script_of(tools, path, std::move(arguments), stop)).entries;
  // pg_dump leaves out walferry's schema and keeps the event triggers that call into it.
  std::erase_if(entries, [](const ScriptEntry& entry) {
    return entry.type == "EVENT TRIGGER" && mentions(entry.sql, "EXECUTE FUNCTION walferry.");
  });
  return entries;
}

std::size_t restore_pre_data(const PgTools& tools, pg::Session& target, const std::filesystem::path& path,
                             const RestoreOptions& options, const std::stop_token& stop) {
  const std::vector<ScriptEntry> entries = read_section(tools, path, Section::PreData, options.ownership, stop);
  std::size_t executed = 0;
  Transaction transaction{target};
  target.exec("SET LOCAL check_function_bodies = off");
  for (const ScriptEntry& entry : entries) {
    if (stop.stop_requested()) throw Error{{ErrorKind::Stopped, target.side()}, "stopped while creating the schema"};
    if (comment_is_there(target, first_statement(entry.sql))) continue;
    try {
      hold_settings(target, entry.settings);
      target.exec(entry.sql);
    } catch (const Error& error) {
      const std::string what =
          fmt::format("creating {} (archive entry {}) on the target", name_of(entry), entry.dump_id);
      if (error.kind() != ErrorKind::Sql) throw error.during(what);
      throw Error{{error.kind(), error.side(), error.sqlstate()},
                  fmt::format("{}: {}. Remedy: {}", what, error.what(), remedy_of_restore(error.sqlstate()))};
    }
    ++executed;
  }
  for (const std::string& statement : options.record) target.exec(statement);
  transaction.commit();
  return executed;
}

std::vector<std::string> read_drop_statements(const PgTools& tools, const std::filesystem::path& path,
                                              const std::stop_token& stop) {
  const std::string script = script_of(tools, path,
                                       {"--verbose", "--clean", "--if-exists", "--no-owner", "--no-privileges",
                                        "--section=pre-data", "--section=post-data"},
                                       stop);
  std::vector<std::string> drops;
  for (std::string& statement : split_statements(split_script(script).preamble)) {
    // The preamble also sets the session up; sessions of ours are.
    if (statement.starts_with("SET ") || statement.starts_with("SELECT pg_catalog.set_config(")) continue;
    drops.push_back(std::move(statement));
  }
  return drops;
}

}  // namespace walferry::schema
