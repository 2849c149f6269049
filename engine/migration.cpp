#include "engine/migration.hpp"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <array>
#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/co_spawn.hpp>
#include <cstdlib>

#include "engine/cutover/fence.hpp"
#include "engine/cutover/fence_name.hpp"
#include "engine/ddl/execute.hpp"
#include "engine/retry.hpp"
#include "engine/starting_point.hpp"
#include "engine/target_state.hpp"

namespace walferry {
namespace {

namespace keys = store::journal_keys;
using std::chrono::milliseconds;
using std::chrono::seconds;
using Clock = std::chrono::steady_clock;

constexpr seconds waiting_interval{3};  // between looks at the tables that wait to be copied

}  // namespace

Migration::Migration(MigrationOptions options)
    : options_(std::move(options)),
      database_(store::Database::open(options_.state_dir, store::Access::ReadWrite)),
      journal_(database_),
      spool_(database_, {}),
      skips_(journal_),
      pool_(4),
      signals_(io_, SIGINT, SIGTERM),
      changed_(io_.get_executor()),
      apply_goes_on_(io_.get_executor()),
      tables_(status_, journal_),
      initial_copy_(options_, ends_, journal_, watch_copy()),
      apply_(io_.get_executor(), pool_, spool_, skips_, position_, status_, watch_apply()) {
  options_.source = options_.source.until(stop_.get_token());
  options_.target = options_.target.until(stop_.get_token());
  // Whether it still follows is seen when both ends are attached again.
  status_.phase = journal_.phase() == Phase::Follow ? Phase::CatchUp : journal_.phase();
  status_.started_at = std::chrono::system_clock::now();
  status_.source = options_.source.redacted();
  status_.target = options_.target.redacted();
  options_.slot = journal_.get(keys::migration)
                      .value_or(options_.slot.empty() ? default_slot_name(options_.source.get("dbname").value_or("db"))
                                                      : options_.slot);
  options_.source = cutover::with_passage(options_.source, options_.slot);
  status_.migration = options_.slot;
  status_.way_back_of = journal_.get(keys::way_back_of).value_or("");
  // How a migration was begun is how it goes on.
  options_.selection = settled_selection(journal_, options_.selection);
  options_.allow_nonempty_target = options_.allow_nonempty_target || journal_.get(keys::nonempty_target);
  options_.adopt = settled_adoption(journal_, options_.adopt);
  options_.schema = !options_.adopt && settled_choice(options_.schema, keys::without_schema, "--no-schema");
  options_.copy = settled_choice(options_.copy, keys::without_copy, "--no-copy");
  options_.owners = settled_choice(options_.owners, keys::without_owners, "--no-owner");
  if (way_back_stands(journal_)) options_.until = Until::Never;  // it was reached in an earlier run
  if (journal_.phase() == Phase::Finished || journal_.phase() == Phase::Aborted) {
    throw Error{
        {ErrorKind::Refused},
        fmt::format("the migration in state directory {} is {}. Remedy: give a new migration a --state-dir of its own",
                    options_.state_dir.string(), to_string(journal_.phase()))};
  }
  if (const auto error = journal_.get(keys::last_error)) status_.last_error = LastError{*error, status_.started_at};
  status_.skips = skips_.list();
  static constexpr std::array<std::string_view, 3> policies{"stop", "apply", "warn"};
  status_.ddl.policy = policies[static_cast<std::size_t>(options_.on_ddl)];
}

// `wanted`: unless an option takes it back. What an option took back at the beginning stays so without it.
bool Migration::settled_choice(bool wanted, std::string_view taken_back, std::string_view option) const {
  if (!journal_.get(keys::migration) || journal_.get(taken_back)) return wanted && !journal_.get(taken_back);
  if (wanted) return true;
  throw Error{{ErrorKind::Refused},
              fmt::format("the migration was begun without {0}, and how it was begun is how it goes on. Nothing was "
                          "changed. Remedy: leave {0} out; or `walferry abort`, and begin anew with it",
                          option)};
}

Migration::~Migration() = default;

void Migration::run(const std::function<void()>& on_ready, const std::function<void()>& on_end) {
  // The first signal stops at a commit boundary, the second at once; both leave everything resumable.
  std::function<void(const boost::system::error_code&, int)> on_signal = [&](const boost::system::error_code& cancelled,
                                                                             int signal) {
    if (cancelled) return;
    if (stop_.stop_requested()) std::_Exit(128 + signal);
    spdlog::info("stopping at a commit boundary (signal {}); once more to stop at once", signal);
    stop();
    signals_.async_wait(on_signal);
  };
  signals_.async_wait(on_signal);
  if (on_ready) on_ready();
  asio::co_spawn(io_, main(), [&](std::exception_ptr failure) {
    if (failure) fail(failure);
    if (on_end) on_end();
    // One that came before that is heard still: the second round has looked at whatever there was in the first.
    asio::post(io_, [this] { asio::post(io_, [this] { signals_.cancel(); }); });
  });
  io_.run();
  pool_.join();
  if (failure_) std::rethrow_exception(failure_);
}

std::optional<MigrationOptions> Migration::way_back() const {
  if (told_to_stop_ || options_.until == Until::Cutover || !way_back_stands(journal_)) return {};
  if (std::error_code failure; !std::filesystem::exists(way_back_dir(options_.state_dir) / "rocksdb", failure)) {
    throw Error{{ErrorKind::State},
                fmt::format("{}: the journal of the way back is not there: there is no return. Remedy: `walferry "
                            "finish`, which removes its slot from the target too",
                            way_back_dir(options_.state_dir).string())};
  }
  return options_of_way_back(options_);
}

Awaitable<void> Migration::main() {
  server_ = std::make_unique<http::Server>(
      io_.get_executor(), *this,
      http::ServerOptions{.listen = options_.listen, .control_socket = options_.state_dir / "control.sock"});
  server_->start();
  if (!server_->tcp_address().empty()) spdlog::info("status on http://{}/", server_->tcp_address());
  std::exception_ptr failure;
  try {
    co_await go_through_phases();
  } catch (...) {
    failure = std::current_exception();  // rethrown below, when everything has been stopped in order
  }
  stop_.request_stop();
  // A cutover under way comes to its end first; it needs the stream.
  while (cutover_running_) co_await changed_.wait_until(Clock::now() + seconds{1});
  // It writes what the spool holds in memory; without room for that the source sends it again.
  std::exception_ptr unrest;
  try {
    co_await apply_.rest(Clock::now() + stop_patience);
  } catch (...) {
    unrest = std::current_exception();  // rethrown below where nothing failed before
  }
  cancel_receiver_.emit(asio::cancellation_type::all);
  cancel_monitor_.emit(asio::cancellation_type::all);
  cancel_lock_waits_.emit(asio::cancellation_type::all);
  cancel_watcher_.emit(asio::cancellation_type::all);
  cancel_listing_.emit(asio::cancellation_type::all);
  server_->stop();
  // What failed first had everything else stopped.
  if (failure_ && (!failure || is_cancellation(failure) || is_stop(failure))) failure = failure_;
  if (!failure) failure = unrest;
  failure_ = nullptr;
  if (!failure || is_stop(failure)) co_return;
  std::string text = "unknown failure";
  try {
    std::rethrow_exception(failure);
  } catch (const std::exception& error) {
    text = error.what();
  }
  try {
    journal_.put(keys::last_error, text);
  } catch (const Error& error) {
    spdlog::warn("the error is not in the state directory: {}", error.what());
  }
  std::rethrow_exception(failure);
}

// The main loop: each phase begins where the journal says the last run ended.
Awaitable<void> Migration::go_through_phases() {
  co_await connect_both();
  start_monitor();
  if (status_.phase == Phase::Cutover) co_await find_switched();
  if (status_.phase < Phase::Switched && journal_.get(keys::way_back)) {
    std::function<void()> disarm = [this] { disarm_way_back(options_, journal_); };
    co_await insist_blocking("removing the way back of a cutover that was not completed", std::move(disarm));
  }
  if (status_.phase == Phase::Init) co_await begin();
  if (status_.phase < Phase::Switched) {
    co_await find_position();
    start_receiver();
    start_watcher();
  }
  if (status_.phase == Phase::Schema) co_await move_schema();
  if (status_.phase == Phase::Copy) co_await copy();
  if (status_.phase == Phase::PostData) co_await build_post_data();
  if (options_.until == Until::Copied) co_return;
  if (status_.phase == Phase::CatchUp || status_.phase == Phase::Follow) co_await follow();
  co_await wait_for_goal();
}

// Makes attempts until one succeeds: what passes by itself is waited for, what does not is thrown.
Awaitable<void> Migration::insist(std::string what, std::function<Awaitable<void>()> attempt) {
  Retry retry{io_.get_executor(), std::move(what)};
  for (;;) {
    std::optional<Error> failure;
    try {
      co_await attempt();
      co_return;
    } catch (const Error& error) {
      failure = error;
    }
    require_running();
    status_.last_error = LastError{failure->what(), std::chrono::system_clock::now()};
    co_await retry.after(*failure);
  }
}

Awaitable<void> Migration::insist_blocking(std::string what, std::function<void()> work) {
  std::function<Awaitable<void>()> attempt = [this, work] { return run_blocking<void>(pool_, work); };
  co_await insist(std::move(what), std::move(attempt));
}

// Asks both ends who they are. A new migration says at once what is wrong; one under way waits for servers that come
// back.
Awaitable<void> Migration::connect_both() {
  std::function<void()> ask = [this] {
    require_adoption_point(options_);
    ends_ = identify(options_, journal_);
  };
  if (journal_.pinned(Side::Source)) {
    co_await insist_blocking("connecting to both ends", std::move(ask));
  } else {
    co_await run_blocking<void>(pool_, std::move(ask));
  }
}

Awaitable<void> Migration::begin() {
  if (!journal_.get(keys::slot_begun)) {
    status_.activity = "checking both ends";
    std::function<void()> guard = [this] { guard_and_record(options_, ends_, journal_); };
    co_await run_blocking<void>(pool_, std::move(guard));
  }
  if (options_.adopt) {
    status_.activity = "taking over the slot and the target's data";
    std::function<void()> adopt = [this] { adopt_slot(options_, ends_, journal_); };
    co_await insist_blocking("taking over the slot", std::move(adopt));
    set_phase(Phase::Schema);
    co_return;
  }
  status_.activity = "creating the publication and the slot";
  auto waiting = [this](const std::string& blockers) {
    asio::post(io_, [this, blockers] {
      const std::string text = "waiting for open transactions on the source before the slot can be made: " +
                               (blockers.empty() ? std::string{"they cannot be named, or have ended"} : blockers);
      if (status_.activity != text) spdlog::info("{}", text);
      status_.activity = text;
    });
  };
  std::function<void()> publish = [this, waiting] {
    initial_copy_.take(publish_and_create_slot(options_, ends_, journal_, waiting));
  };
  co_await insist_blocking("creating publication and slot", std::move(publish));
  monitor_->wake();
  set_phase(Phase::Schema);
}

Awaitable<void> Migration::find_position() {
  Lsn held;
  std::function<void()> ask = [this, &held] {
    held = find_starting_point({.source = options_.source,
                                .target = options_.target,
                                .migration = options_.slot,
                                .spool_begin = spool_.begin_lsn(),
                                .spool_end = spool_.end_lsn(),
                                .idle = journal_.idle_stretch()});
  };
  co_await insist_blocking("asking where source and target stand", std::move(ask));
  if (spool_.end_lsn() <= held || held < spool_.begin_lsn()) spool_.clear(held);
  position_.target_durable = held;
  position_.applied = held;
  position_.received = std::max(spool_.end_lsn(), held);
}

Awaitable<void> Migration::move_schema() {
  std::function<void()> move = [this] { initial_copy_.move_schema(); };
  if (options_.schema) co_await insist_blocking("moving the schema", std::move(move));
  set_phase(Phase::Copy);
}

Awaitable<void> Migration::copy() {
  std::function<Awaitable<void>()> attempt = [this] { return copy_once(); };
  co_await insist("the copy", std::move(attempt));
  set_phase(Phase::PostData);
}

Awaitable<void> Migration::copy_once() {
  std::function<std::vector<Table>()> list = [this] { return initial_copy_.tables(); };
  const std::vector<Table> tables = co_await run_blocking<std::vector<Table>>(pool_, std::move(list));
  tables_.describe(tables);
  status_.activity = "copying tables";
  std::function<void()> work = [this, &tables] { initial_copy_.copy(tables); };
  co_await run_blocking<void>(pool_, std::move(work));
}

Awaitable<void> Migration::build_post_data() {
  std::function<Awaitable<void>()> attempt = [this] { return build_post_data_once(); };
  if (options_.schema) co_await insist("building indexes and constraints", std::move(attempt));
  tables_.all_ready();
  set_phase(Phase::CatchUp);
}

Awaitable<void> Migration::build_post_data_once() {
  status_.activity = "building indexes and constraints";
  std::function<void()> indexes = [this] { initial_copy_.build_indexes(); };
  co_await run_blocking<void>(pool_, std::move(indexes));
  // Foreign keys want all tables at one moment. Tables copied under different snapshots reach it by applying up to the
  // last.
  const std::optional<Lsn> moment = initial_copy_.common_moment();
  if (moment) {
    status_.activity = fmt::format("bringing tables copied at different moments to one, {}", moment->to_string());
    co_await apply_until(*moment, Deadline::max());
  }
  status_.activity = "building foreign keys, triggers and the rest";
  std::function<void()> rest = [this] { initial_copy_.build_the_rest(); };
  co_await run_blocking<void>(pool_, std::move(rest));
}

// Applies the transactions that committed before `lsn` and no other, then lets go of the target again.
Awaitable<void> Migration::apply_until(Lsn lsn, Deadline deadline) {
  require_running();
  // A signal, or a stream that ended for good: nothing more would come.
  std::function<void()> end = [this] { apply_.stop(Clock::now() + stop_patience); };
  const std::stop_callback<std::function<void()>> ended{stop_.get_token(), end};
  // On a quiet source the answer says that nothing else comes before `lsn`.
  std::function<void()> ask = [this] { receiver_->request_confirmation(); };
  const bool reached = co_await apply_.reach(lsn, deadline, std::move(ask));
  require_running();
  if (reached) co_return;
  throw Error{
      {ErrorKind::Timeout, Side::Target},
      fmt::format("the apply did not get to {} in time{}. Remedy: end what blocks it on the target, or give more "
                  "--timeout",
                  lsn.to_string(), status_.last_error ? ": " + status_.last_error->text : std::string{})};
}

// Both sides at one LSN: the apply stands still while the source's snapshot is made, catches up to exactly that, and
// goes on when the target's snapshot is taken as well.
Awaitable<std::shared_ptr<cutover::Moment>> Migration::make_moment(Deadline deadline) {
  co_await apply_.rest(std::min(deadline, Clock::now() + stop_patience));
  std::shared_ptr<cutover::Moment> moment;
  std::exception_ptr failure;
  try {
    co_await rest_at_moment(moment, deadline);
  } catch (...) {
    failure = std::current_exception();  // rethrown below
  }
  if (!stop_.stop_requested()) {
    // Up to the moment changes went into the record before it: none is in between.
    if (moment) apply_.record(moment->touched_since);
    apply_.start();
    co_await apply_.attached(Clock::now() + stop_patience);
  }
  if (failure) std::rethrow_exception(failure);
  require_running();
  co_return moment;
}

Awaitable<void> Migration::rest_at_moment(std::shared_ptr<cutover::Moment>& moment, Deadline deadline) {
  std::function<copy::Snapshot()> create = [this, deadline] {
    return copy::Snapshot::create({.source = options_.source,
                                   .client_encoding = ends_.client_encoding,
                                   .slot = copy::temporary_slot_name(options_.slot),
                                   .temporary = true,
                                   .deadline = deadline});
  };
  copy::Snapshot source = co_await run_blocking<copy::Snapshot>(pool_, std::move(create));
  co_await apply_until(source.lsn(), deadline);
  std::function<std::shared_ptr<cutover::Moment>()> take = [this, &source] {
    pg::Session target = pg::Session::open(options_.target, {.application_name = "walferry snapshot"});
    target.exec("BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY");
    std::string target_snapshot = target.exec("SELECT pg_catalog.pg_export_snapshot()").str(0, 0);
    return std::make_shared<cutover::Moment>(cutover::Moment{.source = std::move(source),
                                                             .target = std::move(target),
                                                             .target_snapshot = std::move(target_snapshot),
                                                             .touched_since = std::make_shared<TouchedRows>()});
  };
  moment = co_await run_blocking<std::shared_ptr<cutover::Moment>>(pool_, std::move(take));
}

Awaitable<void> Migration::prepare_target() {
  // Triggers and identities that arrived with post-data, or were put back by a cutover that failed.
  std::function<void()> relax = [this] {
    pg::Session source = pg::Session::open(options_.source, {.application_name = "walferry"});
    pg::Session target = pg::Session::open(options_.target, {.application_name = "walferry"});
    relax_target(source, target, journal_);
    own_actions_ = std::make_shared<const schema::ActingObjects>(read_own_actions(target));
  };
  co_await insist_blocking("preparing the target for the apply", std::move(relax));
}

Awaitable<void> Migration::follow() {
  co_await prepare_target();
  apply_.start();
  if (status_.tables.empty()) run_beside(list_tables(), cancel_listing_);
}

// For the status alone: whoever holds a table of the source exclusively holds this up, and nothing else.
Awaitable<void> Migration::list_tables() {
  std::function<std::vector<Table>()> list = [this] {
    pg::Session source = pg::Session::open(options_.source, {.application_name = "walferry"});
    return published_tables(source, recorded_publications(journal_));
  };
  try {
    const std::vector<Table> tables = co_await run_blocking<std::vector<Table>>(pool_, std::move(list));
    tables_.describe(tables);
    tables_.all_ready();
  } catch (const Error& error) {
    if (error.kind() == ErrorKind::Stopped) co_return;
    if (!is_transient(error)) throw;
    spdlog::warn("the tables cannot be listed for the status now: {}", error.what());
  }
}

Awaitable<void> Migration::wait_for_goal() {
  Deadline next_copy = Clock::now();
  Lsn goal;  // where the source stood when both ends were first attached
  for (;;) {
    if (failure_) std::rethrow_exception(failure_);
    if (stop_.stop_requested()) co_return;
    if (status_.phase == Phase::CatchUp && status_.source_connected && status_.target_connected) {
      if (!goal || status_.source_lsn < goal) goal = status_.source_lsn;  // failed over, say
      if (goal && position_.applied >= goal) set_phase(Phase::Follow);
    }
    if (apply_must_go_on_) {
      co_await prepare_target();
      apply_.start();
      apply_must_go_on_ = false;
      apply_goes_on_.notify();
    }
    // From the switch on the target is the applications'.
    if (apply_.running() && !cutover_running_ && status_.phase < Phase::Cutover && Clock::now() >= next_copy) {
      const store::TablesToCopyAgain tables = journal_.tables_to_copy_again();
      if (!tables.empty()) {
        co_await copy_again(tables);
        next_copy = Clock::now() + waiting_interval;
        continue;
      }
    }
    if (options_.until == Until::CaughtUp && status_.phase >= Phase::Follow) co_return;
    if (status_.phase == Phase::Switched && !cutover_running_) {
      if (!std::exchange(retired_, true)) co_await retire();
      if (options_.until == Until::Cutover || way_back_stands(journal_)) co_return;
    }
    co_await changed_.wait_until(Clock::now() + milliseconds{200});
  }
}

// The target belongs to the applications now.
Awaitable<void> Migration::retire() {
  co_await apply_.rest(Clock::now() + stop_patience);
  cancel_receiver_.emit(asio::cancellation_type::all);
  cancel_watcher_.emit(asio::cancellation_type::all);
  if (journal_.get(keys::way_back_of) && !journal_.get(keys::old_source_open)) {
    status_.activity = "opening the old source";
    std::function<void()> open = [this] {
      open_old_source(options_.target, journal_);
      remove_opened_fence(options_.target, journal_);
    };
    co_await insist_blocking("opening the old source", std::move(open));
  }
  status_.activity = journal_.get(keys::old_source_open) == "never"
                         ? "the new server was opened again, the old source stays closed: `walferry finish`"
                     : journal_.get(keys::way_back_of)
                         ? "switched back: the old source serves, the new server refuses writes"
                         : "switched: the target serves, the source refuses writes; its slot keeps WAL there until "
                           "`walferry finish`";
}

// The last run ended inside a cutover. Its lease is gone with it; only the durable fence on the source tells what
// happened.
Awaitable<void> Migration::find_switched() {
  bool stands = false;
  std::function<void()> ask = [this, &stands] {
    stands = cutover::settle_durable_fence(options_.source, options_.slot);
  };
  co_await insist_blocking("asking the source whether the cutover was completed", std::move(ask));
  if (stands && journal_.get(keys::fence_begun)) {
    spdlog::info("the cutover had been completed before the last run ended");
    set_phase(Phase::Switched);
    co_return;
  }
  spdlog::info("the last run ended inside a cutover that was not completed: the source is writable, following goes on");
  journal_.erase(keys::fence_begun);
  set_phase(Phase::CatchUp);
}

void Migration::set_phase(Phase phase) {
  journal_.set_phase(phase);
  status_.phase = phase;
  status_.activity.clear();
  if (phase == Phase::Follow && !status_.apply_stopped) {
    // What went wrong on the way has been overcome.
    status_.last_error.reset();
    journal_.erase(keys::last_error);
  }
  spdlog::info("phase: {}", to_string(phase));
  changed_.notify();
}

InitialCopy::Watch Migration::watch_copy() {
  return {
      .on_activity =
          [this](std::string text) { asio::post(io_, [this, text = std::move(text)] { status_.activity = text; }); },
      .on_table = [this](
                      const QualifiedName& table,
                      TableState state) { asio::post(io_, [this, table, state] { tables_.advance(table, state); }); },
      .counters = [this](const QualifiedName& table) { return tables_.counters(table); }};
}

// Runs it until it ends or is cancelled; a failure of its own is the migration's.
void Migration::run_beside(Awaitable<void> work, asio::cancellation_signal& cancel, std::function<void()> on_end) {
  auto ended = [this, on_end = std::move(on_end)](const std::exception_ptr& failure) {
    if (on_end) on_end();
    if (failure && !is_cancellation(failure)) fail(failure);
  };
  asio::co_spawn(io_, std::move(work), asio::bind_cancellation_slot(cancel.slot(), std::move(ended)));
}

void Migration::start_monitor() {
  monitor_ = std::make_unique<Monitor>(
      io_.get_executor(), pool_,
      MonitorOptions{
          .source = options_.source.until({}), .slot = options_.slot, .interval = options_.progress_interval},
      position_, status_);
  std::function<void()> on_tick = [this] { tick(); };
  run_beside(monitor_->run(on_tick), cancel_monitor_);
  lock_waits_ = std::make_unique<LockWaits>(io_.get_executor(), pool_, options_.source, options_.target, status_);
  run_beside(lock_waits_->run(), cancel_lock_waits_);
}

void Migration::start_receiver() {
  receiver_ =
      std::make_unique<stream::Receiver>(io_.get_executor(), pool_,
                                         stream::ReceiverOptions{.source = options_.source.until({}),
                                                                 .slot = options_.slot,
                                                                 .publications = recorded_publications(journal_),
                                                                 .client_encoding = ends_.client_encoding,
                                                                 .system_identifier = ends_.source.system_identifier},
                                         spool_, journal_, position_, status_);
  run_beside(receiver_->run(), cancel_receiver_, [this] { status_.source_connected = false; });
}

ApplyWorker::Watch Migration::watch_apply() {
  return {.options = [this](Lsn until) { return applier_options(until); },
          .on_durable =
              [this] {
                if (receiver_) receiver_->request_confirmation();
              },
          .on_end =
              [this](std::exception_ptr failure) {
                if (failure) fail(failure);
                changed_.notify();
              }};
}

apply::ApplierOptions Migration::applier_options(Lsn until) {
  apply::ApplierOptions options{
      .target = options_.target.until({}),
      .migration = options_.slot,
      .client_encoding = ends_.client_encoding,
      .system_identifier = ends_.target.system_identifier,
      .copied = journal_.copied_tables(),
      .to_copy_again = journal_.tables_to_copy_again(),
      .until = until,
      .on_ddl = options_.on_ddl,
      .via_root = journal_.get(keys::via_root).has_value(),
      .ddl_secret = journal_.get(keys::ddl_secret).value_or(""),
      .homes = {.known = journal_.table_homes(),
                // Rows that somebody else brought came under the names of that time.
                .copied = options_.adopt || !options_.copy ? std::map<QualifiedName, RelationId>{}
                                                           : journal_.copied_relations(),
                .record = [this](const apply::Homes& homes) { journal_.record_table_homes(homes); }},
      .source_types = {.types = journal_.source_types(),
                       .record =
                           [this](RelationId relation, const store::ColumnTypes& types) {
                             journal_.record_source_types(relation, types);
                           }},
      .lanes = {.wanted = options_.apply_lanes,
                .plan = journal_.lane_plan(),
                .record_plan = [this](const store::LanePlan& plan) { journal_.record_lane_plan(plan); }},
      .target_closed = journal_.get(keys::way_back_of).has_value(),
      .give_up_on_divergence = options_.until != Until::Never || status_.phase < Phase::CatchUp};
  options.execute = [this](pg::Session& target, const ddl::Command& command) {
    stay_relaxed(target, journal_, [&] { ddl::execute(target, command, {.as_role = options_.owners}); });
  };
  options.relax = [this, own = own_actions_](pg::Session& target) {
    if (own) relax_again(target, journal_, *own);  // else before the target is prepared as a whole
  };
  options.target_has = [this](pg::Session& target, const ddl::Command& command) {
    return ddl::SchemaWatch{options_.source.until({}), options_.target, journal_}.target_has(target, command);
  };
  options.on_command = [this](const ddl::Command& command, ddl::Outcome outcome) { settle(command, outcome); };
  return options;
}

void Migration::tick() {
  status_.spool_bytes = static_cast<std::int64_t>(spool_.disk_bytes());
  status_.queue_bytes = static_cast<std::int64_t>(spool_.memory_bytes());
  status_.spooled_lsn = spool_.disk_bytes() > 0 ? spool_.end_lsn() : Lsn{};
  if (options_.on_progress) options_.on_progress(status_);
  changed_.notify();
}

void Migration::fail(std::exception_ptr failure) {
  if (!failure_) failure_ = std::move(failure);
  stop_.request_stop();
  changed_.notify();
}

void Migration::require_running() const {
  if (failure_) std::rethrow_exception(failure_);
  if (stop_.stop_requested()) throw Error{{ErrorKind::Stopped}, "stopped"};
}

}  // namespace walferry
