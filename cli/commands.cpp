#include "cli/commands.hpp"

#include <fmt/format.h>
#include <simdjson.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <condition_variable>
#include <csignal>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <mutex>
#include <sstream>
#include <stop_token>

#include "cli/cutover_view.hpp"
#include "cli/options.hpp"
#include "cli/signals.hpp"
#include "cli/status_view.hpp"
#include "cli/terminal.hpp"
#include "engine/check/check.hpp"
#include "engine/cleanup.hpp"
#include "engine/http/client.hpp"
#include "engine/http/status_json.hpp"
#include "engine/migration.hpp"
#include "engine/progress_line.hpp"
#include "engine/store/skips.hpp"
#include "engine/verify/verify.hpp"
#include "engine/way_back.hpp"

namespace walferry::cli {
namespace {

namespace fs = std::filesystem;
namespace keys = store::journal_keys;
using std::chrono::milliseconds;
using std::chrono::seconds;
using Clock = std::chrono::steady_clock;

constexpr auto plain_progress_interval = seconds{10};
constexpr auto watch_interval = milliseconds{1'000};
constexpr auto daemon_stop_patience = seconds{30};
constexpr auto daemon_start_patience = seconds{2};  // until it listens

po::options_description described(std::string_view command, std::string_view summary) {
  po::options_description options{
      fmt::format("walferry {}: {}\n\nOptions (each also as WALFERRY_<OPTION> or in the --config file)", command,
                  summary),
      110, 55};
  options.add_options()("help,h", po::bool_switch(), "this text");
  options.add_options()("config", po::value<std::string>(), "file of name=value lines");
  options.add_options()("log-level", po::value<std::string>()->default_value("info"), "debug, info, warn or error");
  return options;
}

void add_connections(po::options_description& options) {
  options.add_options()("source", po::value<std::string>(),
                        "source database: URI, \"host=... dbname=...\" or service=name");
  options.add_options()("target", po::value<std::string>(), "target database, likewise");
}

void add_state_dir(po::options_description& options) {
  options.add_options()("state-dir", po::value<std::string>(), "state directory of the migration");
}

void add_switch(po::options_description& options, const char* name, const char* text) {
  options.add_options()(name, po::bool_switch(), text);
}

void add_value(po::options_description& options, const char* name, const char* text) {
  options.add_options()(name, po::value<std::string>(), text);
}

void add_value(po::options_description& options, const char* name, const char* text, const char* fallback) {
  options.add_options()(name, po::value<std::string>()->default_value(fallback), text);
}

void add_selection(po::options_description& options) {
  const auto add = [&](const char* name, const char* text) {
    options.add_options()(name, po::value<std::vector<std::string>>()->composing(), text);
  };
  add("include-table", "only tables that match this pattern, as of pg_dump; may be repeated");
  add("exclude-table", "not the tables that match");
  add("include-schema", "only tables in schemas that match");
  add("exclude-schema", "not the tables in schemas that match");
  add("table", "the same as --include-table, as of pg_dump");
  add("schema", "the same as --include-schema, as of pg_dump");
  add_value(options, "tables-file", "file with rules, a line each: \"include table PATTERN\", \"exclude schema ...\"");
}

SelectionRules selection(const Arguments& arguments) {
  SelectionRules rules{.include_tables = arguments.texts("include-table"),
                       .exclude_tables = arguments.texts("exclude-table"),
                       .include_schemas = arguments.texts("include-schema"),
                       .exclude_schemas = arguments.texts("exclude-schema")};
  std::ranges::copy(arguments.texts("table"), std::back_inserter(rules.include_tables));
  std::ranges::copy(arguments.texts("schema"), std::back_inserter(rules.include_schemas));
  if (const auto path = arguments.text("tables-file")) {
    std::ifstream file{*path};
    std::ostringstream text;
    text << file.rdbuf();
    if (!file || fs::is_directory(*path))
      throw Error{{ErrorKind::Usage}, fmt::format("--tables-file {}: the file cannot be read", *path)};
    rules.add(text.str());
  }
  rules.require_sensible();
  return rules;
}

void add_adopt(po::options_description& options) {
  options.add_options()("adopt", po::value<std::string>()->implicit_value(""),
                        "the target holds the data as of this LSN of the source: make and copy nothing, stream what "
                        "follows; without an LSN: say how to get one");
}

// Zero: wanted, but the LSN was not said.
std::optional<Lsn> adopted_lsn(const Arguments& arguments) {
  const auto text = arguments.text("adopt");
  if (!text) return {};
  if (text->empty()) return Lsn{};
  const auto lsn = Lsn::parse(*text);
  if (lsn && *lsn) return lsn;
  throw Error{{ErrorKind::Usage}, fmt::format("--adopt {}: an LSN such as 16/B374D848 is wanted", *text)};
}

void print(std::string_view text) {
  std::fwrite(text.data(), 1, text.size(), stdout);
  if (text.empty() || text.back() != '\n') std::fputc('\n', stdout);
  std::fflush(stdout);
}

// Parses, answers --help, starts the log; nullopt when --help was all that was wanted.
std::optional<Arguments> begin(std::string_view command, const po::options_description& options, const Words& words) {
  Arguments arguments = Arguments::parse(command, options, words);
  if (arguments.flag("help")) {
    std::ostringstream text;
    text << options;
    print(text.str());
    return std::nullopt;
  }
  start_logging(arguments.required("log-level"));
  if (command != "run") release_stop_signals();
  return arguments;
}

fs::path control_socket(const fs::path& state_dir) {
  return state_dir / "control.sock";
}

// Whether a migration has been begun there.
bool holds_state(const fs::path& state_dir) {
  std::error_code failure;
  const bool holds = fs::exists(state_dir / "rocksdb", failure);
  if (!failure) return holds;
  throw Error{{ErrorKind::State},
              fmt::format("state directory {}: {}. Remedy: run this as the user that `walferry run` runs as",
                          state_dir.string(), failure.message())};
}

bool way_back_stands(const fs::path& state_dir) {
  if (!holds_state(way_back_dir(state_dir))) return false;
  store::Database database = store::Database::open(state_dir, store::Access::ReadOnly);
  return walferry::way_back_stands(store::Journal{database});
}

// Of the migration that goes on: behind a switch with a way back that is the way back's.
fs::path current_dir(const fs::path& state_dir) {
  const bool taken_over = way_back_stands(state_dir) && !http::get(control_socket(state_dir), "/healthz");
  return taken_over ? way_back_dir(state_dir) : state_dir;
}

std::vector<std::string> split_list(const std::optional<std::string>& text) {
  std::vector<std::string> items;
  std::string rest = text.value_or("");
  while (!rest.empty()) {
    const std::size_t end = std::min(rest.find(','), rest.size());
    if (end > 0) items.push_back(rest.substr(0, end));
    rest.erase(0, end + 1);
  }
  return items;
}

std::optional<fs::path> optional_path(const Arguments& arguments, const std::string& name) {
  const auto text = arguments.text(name);
  if (!text) return std::nullopt;
  return fs::path{*text};
}

// Waits on the terminal's clock; false when interrupted by a signal that asked to stop.
class Interruptible {
 public:
  Interruptible() {
    std::signal(SIGINT, [](int) { asked_ = 1; });
    std::signal(SIGTERM, [](int) { asked_ = 1; });
  }
  // sleep() of the C library returns early when a signal comes, which is what is wanted here.
  [[nodiscard]] bool pause() const {
    timespec time{.tv_sec = watch_interval.count() / 1'000, .tv_nsec = (watch_interval.count() % 1'000) * 1'000'000};
    ::nanosleep(&time, nullptr);
    return asked_ == 0;
  }

 private:
  static inline volatile std::sig_atomic_t asked_ = 0;
};

// What a state directory says when no migration runs on it.
Status offline_status(const fs::path& state_dir) {
  store::Database database = store::Database::open(state_dir, store::Access::ReadOnly);
  store::Journal journal{database};
  Status status;
  status.phase = journal.phase();
  status.running = false;
  const bool over = status.phase == Phase::Finished || status.phase == Phase::Aborted;
  status.activity = over ? "over" : "not running; `walferry run` goes on from here";
  status.migration = journal.get(keys::migration).value_or("");
  status.way_back_of = journal.get(keys::way_back_of).value_or("");
  if (const auto source = journal.get(keys::source))
    status.source = pg::ConnInfo::parse(*source, Side::Source).redacted();
  if (const auto target = journal.get(keys::target))
    status.target = pg::ConnInfo::parse(*target, Side::Target).redacted();
  for (const auto& [name, lsn] : journal.copied_tables()) {
    status.tables.push_back(
        {.name = name, .state = status.phase > Phase::PostData ? TableState::Ready : TableState::Copied});
  }
  const store::Skips skips{journal};
  status.stop = skips.stop();
  status.apply_stopped = status.stop.has_value();
  status.skips = skips.list();
  if (const auto error = journal.get(keys::last_error)) status.last_error = LastError{.text = *error, .at = {}};
  if (status.stop) status.last_error = LastError{.text = status.stop->error, .at = {}};
  return status;
}

std::string current_status(const fs::path& state_dir) {
  if (const auto response = http::get(control_socket(state_dir), "/status")) return response->body;
  return http::status_json(offline_status(state_dir));
}

Phase phase_of(const fs::path& state_dir) {
  const std::string json = current_status(state_dir);
  simdjson::dom::parser parser;
  std::string_view phase;
  if (parser.parse(simdjson::padded_string{json})["phase"].get(phase) != simdjson::SUCCESS) {
    throw Error{{ErrorKind::Protocol},
                "the daemon's status cannot be read. Remedy: use the same version of walferry for both"};
  }
  return parse_phase(phase).value_or(Phase::Init);
}

// finish and abort work on a state directory at rest: a daemon on it is asked to stop and waited for.
store::Database open_at_rest(const fs::path& state_dir) {
  // A directory that was never a migration's must not become one by being looked at.
  { const store::Database exists = store::Database::open(state_dir, store::Access::ReadOnly); }
  const auto begun = Clock::now();
  bool running = http::request_stop(control_socket(state_dir));
  for (;;) {
    try {
      return store::Database::open(state_dir, store::Access::ReadWrite);
    } catch (const Error&) {
      if (Clock::now() >= begun + (running ? daemon_stop_patience : daemon_start_patience)) throw;
      if (!running) running = http::request_stop(control_socket(state_dir));
    }
    std::mutex mutex;
    std::unique_lock lock{mutex};
    std::condition_variable{}.wait_for(lock, milliseconds{100});
  }
}

CleanupOptions cleanup_options(const Arguments& arguments) {
  CleanupOptions options;
  options.state_dir = arguments.required("state-dir");
  if (arguments.text("source")) options.source = arguments.connection(Side::Source);
  if (arguments.text("target")) options.target = arguments.connection(Side::Target);
  options.pg_bin_dir = optional_path(arguments, "pg-bin-dir");
  options.on_line = [](const std::string& line) { print(line); };
  return options;
}

Until parse_until(const std::optional<std::string>& text) {
  if (!text) return Until::Never;
  if (*text == "copied") return Until::Copied;
  if (*text == "caught-up") return Until::CaughtUp;
  if (*text == "cutover") return Until::Cutover;
  throw Error{{ErrorKind::Usage}, fmt::format("--until {}: copied, caught-up or cutover is wanted", *text)};
}

ddl::OnDdl parse_on_ddl(const std::string& text) {
  if (text == "stop") return ddl::OnDdl::Stop;
  if (text == "apply") return ddl::OnDdl::Apply;
  if (text == "warn") return ddl::OnDdl::Warn;
  throw Error{{ErrorKind::Usage}, fmt::format("--on-ddl {}: stop, apply or warn is wanted", text)};
}

copy::SplitTables parse_split_tables(const std::string& text) {
  if (text == "auto") return copy::SplitTables::Auto;
  if (text == "yes") return copy::SplitTables::Yes;
  if (text == "no") return copy::SplitTables::No;
  throw Error{{ErrorKind::Usage}, fmt::format("--split-tables {}: auto, yes or no is wanted", text)};
}

std::set<QualifiedName> carried_by(const std::vector<std::string>& publications, const pg::ConnInfo& source) {
  pg::Session session = pg::Session::open(source, {.application_name = "walferry verify", .read_only = true});
  for (const std::string& name : publications) {
    const std::string sql = "SELECT FROM pg_catalog.pg_publication WHERE pubname = " + pg::quote_literal(name);
    if (session.exec(sql).rows() > 0) continue;
    throw Error{{ErrorKind::Usage, Side::Source},
                fmt::format("the source has no publication {}. Remedy: correct --publication", name)};
  }
  return published_names(session, publications);
}

void require_one_choice(const SelectionRules& selection, const std::vector<std::string>& publications) {
  if (selection.empty() || publications.empty()) return;
  throw Error{{ErrorKind::Usage},
              "--publication together with a selection: the publications say what is migrated. Remedy: leave one out"};
}

}  // namespace

int check_command(const Words& words) {
  po::options_description options = described("check", "read-only pre-flight check of both ends");
  add_connections(options);
  add_value(options, "state-dir", "of a migration under way: its ends must be these");
  add_value(options, "slot", "name that `run` would be given");
  add_value(options, "publication", "existing publications that `run` would be given, comma between");
  add_selection(options);
  add_value(options, "jobs", "as of `run`", "2");
  add_value(options, "apply-lanes", "as of `run`", "1");
  add_value(options, "pg-bin-dir", "folder of pg_dump and pg_restore");
  add_switch(options, "replica-identity-full", "judge tables without a key as `run --replica-identity-full` would");
  add_switch(options, "allow-nonempty-target", "as of `run`");
  add_adopt(options);
  add_switch(options, "no-schema", "as of `run`");
  add_switch(options, "no-owner", "as of `run`");
  add_switch(options, "no-ddl-trigger", "as of `run`");
  add_switch(options, "json", "print JSON");
  const auto arguments = begin("check", options, words);
  if (!arguments) return exit_codes::ok;
  CheckOptions check;
  check.source = arguments->connection(Side::Source);
  check.target = arguments->connection(Side::Target);
  std::string slot = arguments->text("slot").value_or(default_slot_name(check.source.get("dbname").value_or("db")));
  check.jobs = arguments->number("jobs", 1, 64);
  check.apply_lanes = arguments->number("apply-lanes", 1, 16);
  check.publications = split_list(arguments->text("publication"));
  check.pg_bin_dir = optional_path(*arguments, "pg-bin-dir");
  check.replica_identity_full = arguments->flag("replica-identity-full");
  check.allow_nonempty_target = arguments->flag("allow-nonempty-target");
  check.ddl_trigger = !arguments->flag("no-ddl-trigger");
  check.adopt = adopted_lsn(*arguments);
  check.owners = !arguments->flag("no-owner");
  check.selection = selection(*arguments);
  if (const auto state_dir = arguments->text("state-dir"); state_dir && holds_state(*state_dir)) {
    store::Database database = store::Database::open(*state_dir, store::Access::ReadOnly);
    const store::Journal journal{database};
    if (journal.phase() >= Phase::Switched) {
      throw Error{{ErrorKind::Refused},
                  fmt::format("the migration of that state directory is {}: there is nothing left to check. Remedy: "
                              "`walferry status` tells where it stands",
                              to_string(journal.phase()))};
    }
    slot = journal.get(store::journal_keys::migration).value_or(slot);
    const auto source = journal.pinned(Side::Source);
    const auto target = journal.pinned(Side::Target);
    if (source && target) check.pinned = PinnedEnds{.source = *source, .target = *target};
    check.selection = settled_selection(journal, check.selection);
    check.adopt = settled_adoption(journal, check.adopt);
  }
  check.slot = slot;
  check.publication = slot;
  check.application_name = "walferry " + slot;
  check.no_schema = arguments->flag("no-schema") || check.adopt;
  const std::vector<Finding> findings = check_migration(check);
  print(arguments->flag("json") ? render_json(findings) : render_text(findings, wants_color(stdout_is_terminal())));
  return exit_code(findings);
}

int run_command(const Words& words) {
  po::options_description options = described("run", "the migration daemon; started again, it goes on where it was");
  add_connections(options);
  add_state_dir(options);
  add_value(options, "jobs", "connections for the copy and for building indexes, a side", "2");
  add_value(options, "split-tables", "copy a large table by several connections: auto, yes or no", "auto");
  add_value(options, "apply-lanes", "connections that write large groups of changes to the target together", "1");
  add_value(options, "listen", "address of the status endpoint, such as 127.0.0.1:9187");
  add_value(options, "until", "stop when this is reached: copied, caught-up or cutover");
  add_value(options, "slot", "name of slot and publication (default: walferry_<database>)");
  add_value(options, "publication", "existing publications to use, comma between");
  add_selection(options);
  add_switch(options, "no-schema", "the target has the schema already");
  add_switch(options, "no-copy", "copy no rows: the target holds what the source holds when the slot is made");
  add_adopt(options);
  add_switch(options, "allow-nonempty-target", "the target may hold objects of its own");
  add_switch(options, "replica-identity-full",
             "set REPLICA IDENTITY FULL on tables without a key, put back by finish and abort");
  add_value(options, "on-ddl", "what becomes of schema changes on the source: stop, apply or warn", "stop");
  add_switch(options, "no-ddl-trigger", "make no event triggers on the source");
  add_switch(options, "no-owner", "everything on the target belongs to the connecting role; grants are left out");
  add_value(options, "pg-bin-dir", "folder of pg_dump and pg_restore");
  const auto arguments = begin("run", options, words);
  if (!arguments) return exit_codes::ok;

  MigrationOptions migration;
  migration.source = arguments->connection(Side::Source);
  migration.target = arguments->connection(Side::Target);
  migration.state_dir = arguments->required("state-dir");
  migration.jobs = arguments->number("jobs", 1, 64);
  migration.split_tables = parse_split_tables(arguments->required("split-tables"));
  migration.apply_lanes = static_cast<unsigned>(arguments->number("apply-lanes", 1, 16));
  migration.listen = arguments->text("listen");
  migration.until = parse_until(arguments->text("until"));
  migration.slot = arguments->text("slot").value_or("");
  migration.publications = split_list(arguments->text("publication"));
  migration.schema = !arguments->flag("no-schema");
  migration.copy = !arguments->flag("no-copy");
  migration.adopt = adopted_lsn(*arguments);
  migration.allow_nonempty_target = arguments->flag("allow-nonempty-target");
  migration.replica_identity_full = arguments->flag("replica-identity-full");
  migration.on_ddl = parse_on_ddl(arguments->required("on-ddl"));
  migration.ddl_trigger = !arguments->flag("no-ddl-trigger");
  migration.owners = !arguments->flag("no-owner");
  migration.selection = selection(*arguments);
  require_one_choice(migration.selection, migration.publications);
  migration.pg_bin_dir = optional_path(*arguments, "pg-bin-dir");

  const auto sink = start_logging(arguments->required("log-level"));
  const bool terminal = stderr_is_terminal();
  auto next_line = Clock::now() + plain_progress_interval;
  migration.on_progress = [&](const Status& status) {
    if (terminal) {
      const TerminalSize size = terminal_size(STDERR_FILENO);
      sink->draw(
          render_status(http::status_json(status),
                        {.color = wants_color(true), .width = size.width, .height = std::min(size.height - 1, 20)}));
    } else if (Clock::now() >= next_line) {
      spdlog::info("{}", progress_line(status));
      next_line = Clock::now() + plain_progress_interval;
    }
  };
  // The migration, then its way back.
  for (std::optional<MigrationOptions> next = std::move(migration); next;) {
    Migration running{*next};
    running.run(release_stop_signals, hold_stop_signals);
    next = running.way_back();
    if (next) spdlog::info("the way back: from {} to {}", next->source.redacted(), next->target.redacted());
  }
  return exit_codes::ok;
}

int status_command(const Words& words) {
  po::options_description options = described("status", "where a migration stands");
  add_state_dir(options);
  add_switch(options, "watch", "redraw every second until interrupted");
  add_switch(options, "json", "print JSON");
  const auto arguments = begin("status", options, words);
  if (!arguments) return exit_codes::ok;
  const fs::path given_dir = arguments->required("state-dir");
  const bool terminal = stdout_is_terminal();
  const auto render = [&](const std::string& json) {
    const TerminalSize size = terminal_size(STDOUT_FILENO);
    return render_status(json, {.color = wants_color(terminal),
                                .width = terminal ? size.width : 120,
                                .height = terminal ? size.height - 1 : 0});
  };
  if (!arguments->flag("watch")) {
    const std::string json = current_status(current_dir(given_dir));
    print(arguments->flag("json") ? json : render(json));
    return exit_codes::ok;
  }
  const Interruptible clock;
  do {
    const std::string json = current_status(current_dir(given_dir));
    if (arguments->flag("json")) {
      print(json);
    } else {
      print((terminal ? "\033[H\033[J" : "") + render(json));
    }
  } while (clock.pause());
  return exit_codes::ok;
}

int verify_command(const Words& words) {
  po::options_description options =
      described("verify", "compare rows and hashes of every table, and every sequence, of two databases at rest");
  add_connections(options);
  add_value(options, "jobs", "connections a side", "2");
  add_switch(options, "allow-nonempty-target", "tables and sequences that only the target has are no difference");
  add_value(options, "state-dir", "of a migration: its selection of tables, or its publications, count");
  add_value(options, "publication", "compare what these publications of the source carry, comma between");
  add_selection(options);
  add_switch(options, "json", "print JSON");
  const auto arguments = begin("verify", options, words);
  if (!arguments) return exit_codes::ok;
  VerifyOptions verify_options;
  verify_options.jobs = arguments->number("jobs", 1, 64);
  verify_options.allow_extra_on_target = arguments->flag("allow-nonempty-target");
  verify_options.selection = selection(*arguments);
  const pg::ConnInfo source = arguments->connection(Side::Source);
  std::vector<std::string> publications = split_list(arguments->text("publication"));
  if (const auto state_dir = arguments->text("state-dir")) {
    store::Database database = store::Database::open(*state_dir, store::Access::ReadOnly);
    const store::Journal journal{database};
    verify_options.selection = settled_selection(journal, verify_options.selection);
    if (journal.phase() != Phase::Init && !journal.get(keys::own_publication))
      publications = recorded_publications(journal);
  }
  require_one_choice(verify_options.selection, publications);
  if (!publications.empty()) verify_options.only = carried_by(publications, source);
  const VerifyReport report = verify(source, arguments->connection(Side::Target), verify_options, std::stop_token{});
  print(arguments->flag("json") ? render_json(report) : render_text(report));
  return exit_code(report);
}

namespace {

void add_switch_over(po::options_description& options) {
  add_state_dir(options);
  add_value(options, "timeout", "limit of the whole; over it the source is writable again and the exit code is 7",
            "30s");
  add_value(options, "max-lag", "do not begin when the target is further behind", "1s");
  add_switch(options, "refresh-first",
             "refresh materialized views before writes are stopped; they then show that moment");
  add_switch(options, "dry-run", "run every guard and print the steps");
  add_switch(options, "json", "print the report as JSON");
}

extern "C" void say_that_it_goes_on(int signal) {
  constexpr std::string_view text =
      "\nwalferry: it goes on in the daemon: `walferry status` shows it. Before writers wait, ending `walferry run` "
      "gives "
      "it up\n";
  [[maybe_unused]] const auto written = ::write(STDERR_FILENO, text.data(), text.size());
  std::signal(signal, SIG_DFL);
  std::raise(signal);
}

int switch_over(const Arguments& arguments, const fs::path& state_dir, bool way_back) {
  std::signal(SIGINT, say_that_it_goes_on);
  std::signal(SIGTERM, say_that_it_goes_on);
  const CommandOutcome outcome = http::request_cutover(control_socket(state_dir),
                                                       {.timeout = arguments.duration("timeout"),
                                                        .max_lag = arguments.duration("max-lag"),
                                                        .dry_run = arguments.flag("dry-run"),
                                                        .refresh_first = arguments.flag("refresh-first"),
                                                        .way_back = way_back},
                                                       [](std::string_view step) { fmt::print(stderr, "{}\n", step); });
  print(arguments.flag("json") ? outcome.json : render_cutover(outcome.json));
  return outcome.exit_code;
}

}  // namespace

int cutover_command(const Words& words) {
  po::options_description options =
      described("cutover", "stop writes on the source, drain, prove, switch; or undo everything in time");
  add_switch_over(options);
  add_switch(options, "way-back",
             "keep the old source up to date from then on, so that `walferry rollback` can return");
  const auto arguments = begin("cutover", options, words);
  if (!arguments) return exit_codes::ok;
  const fs::path state_dir = arguments->required("state-dir");
  if (current_dir(state_dir) != state_dir) {
    throw Error{{ErrorKind::Refused},
                "this migration has been switched already, and its way back is in place. Remedy: `walferry rollback` "
                "goes back, if it has not yet; `walferry finish` gives the way back up"};
  }
  return switch_over(*arguments, state_dir, arguments->flag("way-back"));
}

int rollback_command(const Words& words) {
  po::options_description options =
      described("rollback", "after a cutover --way-back: the same, back to the old source with what was written since");
  add_switch_over(options);
  const auto arguments = begin("rollback", options, words);
  if (!arguments) return exit_codes::ok;
  const fs::path state_dir = arguments->required("state-dir");
  const fs::path back = current_dir(state_dir);
  if (back == state_dir && way_back_stands(state_dir)) {
    throw Error{
        {ErrorKind::Refused},
        "`walferry run` has not taken the way back up yet: it connects to both ends first. Nothing was changed. "
        "Remedy: `walferry status` says what it waits for; then again"};
  }
  if (back == state_dir) {
    throw Error{{ErrorKind::Refused},
                "there is no way back: the migration has not been switched, or without one. Nothing was changed. "
                "Remedy: `walferry cutover --way-back` arms one; before the switch `walferry abort` gives up"};
  }
  if (!http::get(control_socket(back), "/healthz")) {
    throw Error{
        {ErrorKind::Refused},
        fmt::format("no migration is running on {0}. Nothing was changed. Remedy: `walferry run --state-dir {0}` with "
                    "the options that it was started with before; then again",
                    state_dir.string())};
  }
  return switch_over(*arguments, back, false);
}

int skip_command(const Words& words) {
  po::options_description options = described(
      "skip", "leave out the one transaction or schema change at which the apply has stopped, and go on behind it");
  add_state_dir(options);
  add_value(options, "lsn", "exactly the LSN that the error names");
  add_value(options, "object", "instead: what the schemas are found to differ in, as `status` names it, is the same");
  add_value(options, "reason", "why it may be left out; kept in the report");
  add_switch(options, "json", "print JSON");
  const auto arguments = begin("skip", options, words);
  if (!arguments) return exit_codes::ok;
  const fs::path state_dir = current_dir(arguments->required("state-dir"));
  const std::string reason = arguments->required("reason");
  if (const auto object = arguments->text("object")) {
    if (arguments->text("lsn")) throw Error{{ErrorKind::Usage}, "--lsn and --object: leave one out"};
    const std::optional<std::string> json = http::request_acceptance(control_socket(state_dir), *object, reason);
    if (!json) {
      throw Error{{ErrorKind::Refused},
                  fmt::format("no migration is running on {}. Nothing was changed. Remedy: start `walferry run`, which "
                              "finds in what the schemas differ; then again",
                              state_dir.string())};
    }
    print(
        arguments->flag("json")
            ? *json
            : fmt::format("{}: accepted: {}\nIt is recorded, and the cutover's report will say so.", *object, reason));
    return exit_codes::ok;
  }
  const std::string lsn_text = arguments->required("lsn");
  const auto lsn = Lsn::parse(lsn_text);
  if (!lsn) {
    throw Error{{ErrorKind::Usage},
                fmt::format("--lsn {}: an LSN such as 0/1A2B3C4 is wanted, as the error names it", lsn_text)};
  }
  std::optional<std::string> json = http::request_skip(control_socket(state_dir), *lsn, reason);
  if (!json) {
    // A directory that was never a migration's must not become one by being looked at.
    { const store::Database exists = store::Database::open(state_dir, store::Access::ReadOnly); }
    store::Database database = store::Database::open(state_dir, store::Access::ReadWrite);
    store::Journal journal{database};
    json = http::skip_json(store::Skips{journal}.add(*lsn, reason));
  }
  print(arguments->flag("json")
            ? *json
            : fmt::format("{} will be left out: {}\nIt is recorded, and the cutover's report will say so.",
                          lsn->to_string(), reason));
  return exit_codes::ok;
}

int finish_command(const Words& words) {
  po::options_description options =
      described("finish", "after the cutover: remove slot, publication and walferry's own objects");
  add_state_dir(options);
  add_connections(options);
  add_switch(options, "lift-fence", "let the old source be written to again");
  const auto arguments = begin("finish", options, words);
  if (!arguments) return exit_codes::ok;
  CleanupOptions cleanup = cleanup_options(*arguments);
  cleanup.lift_fence = arguments->flag("lift-fence");
  const fs::path state_dir = cleanup.state_dir;
  require_switched(phase_of(state_dir));  // before a daemon that is still needed is stopped
  store::Database database = open_at_rest(state_dir);
  std::optional<store::Database> way_back;
  // Without its journal what there is of it is removed by its name.
  if (way_back_armed(store::Journal{database}) && holds_state(way_back_dir(state_dir)))
    way_back.emplace(open_at_rest(way_back_dir(state_dir)));
  finish(database, way_back ? &*way_back : nullptr, cleanup);
  return exit_codes::ok;
}

int abort_command(const Words& words) {
  po::options_description options = described("abort", "give the migration up: the source becomes as it was found");
  add_state_dir(options);
  add_connections(options);
  add_switch(options, "drop-target-objects", "drop what the migration made on the target");
  add_value(options, "pg-bin-dir", "folder of pg_restore");
  const auto arguments = begin("abort", options, words);
  if (!arguments) return exit_codes::ok;
  CleanupOptions cleanup = cleanup_options(*arguments);
  cleanup.drop_target_objects = arguments->flag("drop-target-objects");
  const Phase phase = phase_of(cleanup.state_dir);
  require_not_switched(phase);
  store::Database database = open_at_rest(cleanup.state_dir);
  abort_migration(database, cleanup);
  return exit_codes::ok;
}

std::span<const Command> commands() {
  static constexpr std::array list{
      Command{"check", "read-only pre-flight check of both ends", check_command},
      Command{"run", "the migration daemon", run_command},
      Command{"status", "where a migration stands", status_command},
      Command{"verify", "compare two databases at rest", verify_command},
      Command{"skip", "leave out what stopped the apply", skip_command},
      Command{"cutover", "the switch-over", cutover_command},
      Command{"rollback", "back to the old source, where the cutover kept the way", rollback_command},
      Command{"finish", "clean up after the cutover", finish_command},
      Command{"abort", "give a migration up", abort_command},
  };
  return list;
}

}  // namespace walferry::cli
