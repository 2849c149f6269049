#include "engine/cutover/cutover.hpp"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>

#include "engine/cutover/guards.hpp"
#include "engine/cutover/prepared.hpp"
#include "engine/ddl/schema_watch.hpp"
#include "engine/outside/database_settings.hpp"
#include "engine/outside/materialized_views.hpp"
#include "engine/pg/event_triggers.hpp"
#include "engine/target_state.hpp"

namespace walferry::cutover {
namespace {

namespace keys = store::journal_keys;
using std::chrono::duration;
using std::chrono::milliseconds;
using Clock = std::chrono::steady_clock;

constexpr auto patience_with_the_source = std::chrono::seconds{60};
constexpr auto catching_up_takes = std::chrono::seconds{1};  // where nothing is behind, at most

double milliseconds_since(Deadline begin) {
  return duration<double, std::milli>(Clock::now() - begin).count();
}

Error schema_changed() {
  return Error{{ErrorKind::Refused, Side::Source},
               "the schema of the source was changed during the cutover. Remedy: stop schema changes, then try again"};
}

// Changes that it left out meanwhile are neither on the target nor in the record of what was touched.
Error publication_changed() {
  return Error{{ErrorKind::Refused, Side::Source},
               "what the source publishes was changed during the cutover. Remedy: leave the publications as they are, "
               "then try again"};
}

// As the guards saw it.
void require_same_schema(Prepared& prepared, const MigrationOptions& options, store::Journal& journal) {
  if (ddl::read_digest(prepared.observer) == prepared.schema_digest) return;
  // Of a selection only what belongs to it counts.
  if (options.selection.empty() || !ddl::SchemaWatch{options.source, options.target, journal}.compare().empty())
    throw schema_changed();
}

}  // namespace

Cutover::Cutover(Environment environment, CutoverOptions options, std::function<void(std::string)> on_step)
    : environment_(std::move(environment)),
      options_(options),
      on_step_(std::move(on_step)),
      armed_(environment_.executor) {}

milliseconds Cutover::time_left() const {
  return std::max(std::chrono::duration_cast<milliseconds>(deadline_ - Clock::now()), milliseconds{1});
}

void Cutover::require_time() const {
  if (not_armed_) std::rethrow_exception(not_armed_);
  if (Clock::now() < deadline_) return;
  throw Error{{ErrorKind::Timeout},
              fmt::format("the cutover took longer than its limit of {:.1f} s",
                          static_cast<double>(options_.timeout.count()) / 1'000)};
}

Awaitable<void> Cutover::step(std::string name, Awaitable<void> work) {
  const Deadline begun = Clock::now();
  spdlog::info("cutover: {}", name);
  environment_.status.activity = name;
  co_await std::move(work);
  const double took = milliseconds_since(begun);
  report_.steps.push_back({.name = name, .milliseconds = took, .lsn = environment_.position.applied});
  on_step_(fmt::format("{:<28} {:>9.1f} ms", name, took));
}

Awaitable<CommandOutcome> Cutover::run() {
  report_.skips = environment_.status.skips;
  report_.back = environment_.journal.get(keys::way_back_of).has_value();
  report_.blockers = own_blockers(environment_.status, options_.max_lag);
  if (report_.blockers.empty()) {
    std::function<std::vector<std::string>()> ask = [&options = environment_.options, &journal = environment_.journal,
                                                     with_way_back = options_.way_back] {
      std::vector<std::string> blockers = blockers_of_ends(options, journal);
      if (with_way_back) std::ranges::copy(way_back_blockers(options, journal), std::back_inserter(blockers));
      return blockers;
    };
    report_.blockers = co_await run_blocking<std::vector<std::string>>(environment_.pool, std::move(ask));
  }
  if (!report_.blockers.empty()) {
    report_.result = options_.dry_run ? "dry-run" : "refused";
    report_.error = "the cutover was not begun; the source was not touched";
    CommandOutcome refused;
    refused.exit_code = 2;
    refused.json = render_json(report_, environment_.ends);
    co_return refused;
  }
  on_step_("guards                       passed");
  if (report_.back) {
    on_step_(fmt::format("going back: the source is {}, the target {}", environment_.options.source.redacted(),
                         environment_.options.target.redacted()));
  }
  if (options_.dry_run) {
    report_.result = "dry-run";
    for (const char* name : {"compare while writers go on", "prepare sessions", "arm way back", "catch up",
                             "stop writes (lease)", "drain to marker", "copy sequences", "verify",
                             "put back target settings", "close source", "open old source"}) {
      if (name == std::string_view{"arm way back"} && !options_.way_back) continue;
      if (name == std::string_view{"open old source"} && !report_.back) continue;
      report_.steps.push_back({.name = name, .milliseconds = 0, .lsn = {}});
      on_step_(std::string{"would: "} + name);
    }
    std::function<std::string()> estimate = [&options = environment_.options, limit = options_.timeout] {
      return describe_large_objects(options, limit);
    };
    const std::string large_objects = co_await run_blocking<std::string>(environment_.pool, std::move(estimate));
    if (!large_objects.empty()) report_.notes.push_back(large_objects);
    CommandOutcome outcome;
    outcome.json = render_json(report_, environment_.ends);
    co_return outcome;
  }

  environment_.status.phase = Phase::Cutover;
  std::optional<Error> failure;
  try {
    co_await step("compare while writers go on", compare());
    deadline_ = Clock::now() + options_.timeout;
    co_await step("prepare sessions", prepare());
    if (options_.way_back) {
      co_await step("arm way back", arm_way_back());
    } else if (environment_.journal.get(keys::way_back)) {
      co_await step("remove way back", remove_way_back());  // of an earlier try that could not
    }
    co_await step("catch up", catch_up(deadline_));
    co_await step("stop writes (lease)", stop_writes());
    std::vector<Awaitable<void>> both;
    both.push_back(bring_target_level());
    both.push_back(arm_fence());
    co_await together(environment_.executor, std::move(both));
    require_time();
    co_await step("close source", close_source());
    if (report_.back) co_await step("open old source", open_target());
  } catch (const Error& error) {
    failure = error;
  }
  if (failure && failure->kind() == ErrorKind::Stopped) {
    failure = Error{{ErrorKind::Refused},
                    "`walferry run` is ending: it was told to stop, or its log says why. Remedy: start it again, then "
                    "try again"};
  }
  CommandOutcome outcome;
  if (undecided_) {
    report_.result = "undecided";
    report_.error = failure->what();
    outcome.exit_code = exit_codes::person_must_act;
  } else if (failure && closed_) {
    // Nothing is undone behind the point of no return.
    report_.notes.push_back(fmt::format("the source is closed and the target serves, but: {}", failure->what()));
  } else if (failure) {
    const bool lock_timeout = failure->sqlstate() == "55P03";
    if (lock_timeout || (failure->sqlstate() == "57014" && Clock::now() >= deadline_)) {
      failure = Error{{ErrorKind::Timeout, failure->side()},
                      fmt::format("the time limit is over: {}. Remedy: end what holds the lock, or give more --timeout",
                                  failure->what())};
    }
    co_await undo(*failure);
    outcome.exit_code = exit_code(*failure);
  }
  report_.skips = environment_.status.skips;  // a person may have said so meanwhile
  outcome.json = render_json(report_, environment_.ends);
  co_return outcome;
}

Awaitable<void> Cutover::compare() {
  std::function<VerifyOptions()> ask = [this, &options = environment_.options, &journal = environment_.journal] {
    const std::string limit = fmt::format("lock_timeout={}", options_.timeout.count());
    pg::Session source =
        pg::Session::open(options.source, {.application_name = "walferry cutover", .settings = {limit}});
    schema_before_ = SchemaState::read(source, recorded_publications(journal));
    VerifyOptions verify = what_to_compare(options, journal, source);
    marking_.emplace(std::move(source));
    return verify;
  };
  VerifyOptions verify = co_await run_blocking<VerifyOptions>(environment_.pool, std::move(ask));
  verify.lock_timeout = options_.timeout;
  verify.client_encoding = environment_.ends.client_encoding;
  Proof::TableBytes table_bytes = [&status = environment_.status](const QualifiedName& name) {
    const auto found = std::ranges::find(status.tables, name, &TableStatus::name);
    return found == status.tables.end() ? std::int64_t{1} << 40U : found->bytes_total;
  };
  Proof::CatchUp catch_up = [this] { return this->catch_up(Clock::now() + options_.timeout); };
  Proof::Beginning with{.source = environment_.options.source,
                        .target = environment_.options.target,
                        .verify = std::move(verify),
                        .make_moment = environment_.make_moment,
                        .catch_up = std::move(catch_up),
                        .table_bytes = std::move(table_bytes),
                        .stop = environment_.stop};
  co_await proof_.begin(environment_.pool, std::move(with));
}

// While writers go on, so that they need not wait for an apply that is behind or stands still.
Awaitable<void> Cutover::catch_up(Deadline deadline) {
  for (;;) {
    const Deadline begun = Clock::now();
    const std::shared_ptr<const Mark> mark = co_await make_mark(*marking_);
    co_await await_mark(*mark, deadline);
    if (Clock::now() - begun <= std::max<Clock::duration>(options_.max_lag, catching_up_takes)) co_return;
    if (environment_.stop.stop_requested()) throw Error{{ErrorKind::Stopped}, "stopped"};
  }
}

// A transactional message behind everything that has committed: when it has come through the stream, so has all that.
Awaitable<std::shared_ptr<const Cutover::Mark>> Cutover::make_mark(pg::Session& source) {
  auto mark = std::make_shared<Mark>();
  mark->text = fmt::format("cutover {}", std::chrono::system_clock::now().time_since_epoch().count());
  // Before 14 pgoutput carries no messages: there the keepalive that passes this position says that all commits were
  // sent.
  const std::string sql = marks_are_messages()
                              ? fmt::format("SELECT pg_catalog.pg_logical_emit_message(true, 'walferry', {})",
                                            pg::quote_literal(mark->text))
                              : std::string{"SELECT pg_catalog.pg_current_wal_insert_lsn()"};
  std::function<Lsn()> emit = [&source, sql] { return source.exec(sql).lsn(0, 0); };
  mark->lsn = co_await run_blocking<Lsn>(environment_.pool, std::move(emit));
  co_return mark;
}

// Throws when it does not come in time, or the apply stands still.
Awaitable<void> Cutover::await_mark(const Mark& mark, Deadline deadline) {
  environment_.wake_receiver();
  bool arrived = false;
  if (marks_are_messages()) {
    arrived = co_await environment_.await_marker(mark.text, deadline);
  } else {
    asio::steady_timer timer{environment_.executor};
    const auto goes_on = [&] { return Clock::now() < deadline && !environment_.status.apply_stopped; };
    while (environment_.position.applied < mark.lsn && goes_on()) {
      timer.expires_after(milliseconds{5});
      co_await timer.async_wait(asio::use_awaitable);
    }
    arrived = environment_.position.applied >= mark.lsn;
  }
  if (arrived) co_return;
  const Status& status = environment_.status;
  const std::string why = status.last_error ? ": " + status.last_error->text : std::string{};
  if (status.apply_stopped) throw Error{{ErrorKind::Divergence, Side::Target}, "the apply stands still" + why};
  throw Error{{ErrorKind::Timeout},
              fmt::format("what had been committed on the source did not reach the target in time{}",
                          status.source_connected && status.target_connected ? "" : why)};
}

Awaitable<void> Cutover::prepare() {
  std::function<std::shared_ptr<Prepared>()> open = [this] {
    return cutover::prepare({.options = environment_.options,
                             .journal = environment_.journal,
                             .client_encoding = environment_.ends.client_encoding,
                             .time_limit = options_.timeout,
                             .refresh_first = options_.refresh_first});
  };
  prepared_ = co_await run_blocking<std::shared_ptr<Prepared>>(environment_.pool, std::move(open));
  report_.notes = prepared_->notes;
  std::function<std::vector<ChangedTable>()> look = [this, prepared = prepared_] {
    return schema_before_->changed(SchemaState::read(prepared->observer, recorded_publications(environment_.journal)));
  };
  const auto changed = co_await run_blocking<std::vector<ChangedTable>>(environment_.pool, std::move(look));
  touch(changed);
}

Awaitable<void> Cutover::arm_way_back() {
  std::function<void()> arm = [this, limit = time_left()] {
    way_back_.emplace(WayBack::arm(environment_.options, environment_.ends, environment_.journal, limit));
  };
  try {
    co_await run_blocking<void>(environment_.pool, std::move(arm));
  } catch (const Error& error) {
    throw error.during("arming the way back");
  }
}

Awaitable<void> Cutover::remove_way_back() {
  way_back_.reset();
  std::function<void()> disarm = [this] { disarm_way_back(environment_.options, environment_.journal); };
  co_await run_blocking<void>(environment_.pool, std::move(disarm));
}

Awaitable<void> Cutover::stop_writes() {
  environment_.journal.put(keys::cutover_step, "fence");
  const auto delayed = std::make_shared<milliseconds>(0);
  const bool new_tables = environment_.options.selection.empty();
  std::function<Raised()> raise = [prepared = prepared_, deadline = deadline_, new_tables, delayed] {
    return prepared->fence.raise(
        {.tables = prepared->locked,
         .deadline = deadline,
         .new_tables = new_tables,
         .large_objects = prepared->everything,
         .on_waiting = [delayed](const std::string& holders, milliseconds lost) {
           *delayed = lost;
           spdlog::info("cutover: writers did not end in time and go on, another try follows: {}", holders);
         }});
  };
  std::optional<Raised> raised;
  std::optional<Error> failure;
  try {
    raised = co_await run_blocking<Raised>(environment_.pool, std::move(raise));
  } catch (const Error& error) {
    failure = error;
  }
  report_.writes_delayed_ms = static_cast<double>(delayed->count());
  if (failure) throw *failure;
  writes_stopped_at_ = raised->since;
}

// Beside everything that is done while writes are stopped: triggers take a time for each table.
Awaitable<void> Cutover::arm_fence() {
  ArmRequest request{.migration = environment_.options.slot,
                     .tables = prepared_->tables,
                     .message = fmt::format("database {} was moved by walferry to {}",
                                            environment_.ends.source.database, environment_.options.target.redacted()),
                     .deadline = deadline_,
                     .stop = arming_.get_token()};
  std::function<void()> arm = [prepared = prepared_, request] { prepared->fence.arm(request); };
  std::exception_ptr failure;
  try {
    co_await run_blocking<void>(environment_.pool, std::move(arm));
  } catch (...) {
    failure = std::current_exception();
  }
  if (failure) {
    not_armed_ = failure;  // nothing beside it need go on: the source can be opened again the sooner
    proving_.request_stop();
  }
  armed_.notify();
  if (failure) std::rethrow_exception(failure);
}

Awaitable<void> Cutover::bring_target_level() {
  try {
    std::vector<Awaitable<void>> both;
    both.push_back(drain());
    both.push_back(look_at_schema());
    co_await step("drain to marker", together(environment_.executor, std::move(both)));
    if (!prepared_->unlogged.empty()) co_await step("copy unlogged tables", copy_unlogged());
    if (prepared_->large_objects) co_await step("copy large objects", copy_large_objects());
    if (!prepared_->extension_tables.empty()) co_await step("copy extension tables", copy_extension_tables());
    co_await step("copy sequences", copy_sequences());
    co_await step("verify", prove());
    co_await step("put back target settings", put_back_target());
    co_await step("await fence triggers", armed_.wait());
  } catch (...) {
    arming_.request_stop();  // the lease can be lifted the sooner
    throw;
  }
}

// Of the tables that are compared; where roots carry their partitions the root stands for them.
void Cutover::touch(const std::vector<ChangedTable>& changed) {
  const bool via_root = environment_.journal.get(keys::via_root).has_value();
  for (const ChangedTable& table : changed) {
    if (std::ranges::count(prepared_->tables, table.name, &FencedTable::name) == 0) continue;
    proof_.touch_whole(via_root && table.root ? *table.root : table.name);
  }
}

// While the marker is on its way. No table can be altered any more.
Awaitable<void> Cutover::look_at_schema() {
  std::function<std::vector<ChangedTable>()> look = [this, prepared = prepared_] {
    try {
      require_same_schema(*prepared, environment_.options, environment_.journal);
    } catch (const Error& error) {
      if (error.sqlstate() != "55P03") throw;
      throw schema_changed();  // one is under way, and waits for us
    }
    if (!schema_before_->still_publishes(prepared->observer)) throw publication_changed();
    return schema_before_->changed_files(prepared->observer);
  };
  const auto changed = co_await run_blocking<std::vector<ChangedTable>>(environment_.pool, std::move(look));
  touch(changed);
}

// Proof of the drain: a transactional message written after the fence has come through the stream, and with it every
// commit before it.
Awaitable<void> Cutover::drain() {
  require_time();
  const std::shared_ptr<const Mark> mark = co_await make_mark(prepared_->source);
  marker_ = mark->text;
  report_.fence_lsn = mark->lsn;
  co_await await_mark(*mark, deadline_);
  report_.applied_lsn = environment_.position.applied;
  // A schema change that came through the stream since the guards passed: changes of that table were ignored.
  if (const auto waiting = environment_.journal.tables_to_copy_again(); !waiting.empty()) {
    throw Error{{ErrorKind::Refused, Side::Source},
                fmt::format("{} waits to be copied again, since the cutover began. Remedy: stop schema changes, then "
                            "try again",
                            waiting.begin()->second.table.text())};
  }
  // The apply commits lazily; from here on the target must keep what it has, whatever happens to it.
  std::function<Lsn()> flush = [prepared = prepared_, name = environment_.options.slot] {
    return apply::Progress::of(prepared->target, name).read(prepared->target);
  };
  const Lsn flushed = co_await run_blocking<Lsn>(environment_.pool, std::move(flush));
  if (marks_are_messages() && flushed < report_.fence_lsn) {
    throw Error{{ErrorKind::Refused, Side::Target},
                "the target's position is behind the marker that was applied to it"};
  }
}

Awaitable<void> Cutover::copy_unlogged() {
  require_time();
  std::function<void()> copy = [prepared = prepared_, &options = environment_.options,
                                encoding = environment_.ends.client_encoding] {
    copy_unlogged_tables(*prepared, options, encoding);
  };
  co_await run_blocking<void>(environment_.pool, std::move(copy));
}

Awaitable<void> Cutover::copy_large_objects() {
  require_time();
  std::function<void()> copy = [prepared = prepared_, owners = environment_.options.owners, left = time_left()] {
    const std::string limit = fmt::format("SET statement_timeout = {}", left.count());
    prepared->source.exec(limit);
    prepared->target.exec(limit);
    outside::copy_large_objects(prepared->source, prepared->target, {.owners = owners});
    prepared->source.exec("SET statement_timeout = 0");
    prepared->target.exec("SET statement_timeout = 0");
  };
  co_await run_blocking<void>(environment_.pool, std::move(copy));
}

Awaitable<void> Cutover::copy_extension_tables() {
  require_time();
  std::function<void()> copy = [prepared = prepared_] {
    outside::copy_extension_tables(prepared->source, prepared->target, prepared->extension_tables);
  };
  co_await run_blocking<void>(environment_.pool, std::move(copy));
}

Awaitable<void> Cutover::copy_sequences() {
  require_time();
  std::function<std::vector<SequenceComparison>()> copy = [prepared = prepared_] {
    prepared->sequence_values = read_sequence_values(prepared->source, prepared->sequences);
    set_sequence_values(prepared->target, prepared->sequence_values);
    // Read back, and compared with what the source had: both definition and value.
    std::vector<Sequence> definitions = read_sequences(prepared->target);
    std::erase_if(definitions, [&](const Sequence& each) { return prepared->others_sequences.contains(each.name); });
    return compare_sequences(
        {.definitions = prepared->sequences, .values = prepared->sequence_values},
        {.definitions = definitions, .values = read_sequence_values(prepared->target, definitions)});
  };
  sequences_ = co_await run_blocking<std::vector<SequenceComparison>>(environment_.pool, std::move(copy));
  if (environment_.options.allow_nonempty_target) {
    std::erase_if(sequences_, [](const SequenceComparison& sequence) { return !sequence.source; });
  }
}

// Locks do not stop a bare nextval(). What was drawn from the source between the copy and its end is passed on, where
// the target has not drawn itself since.
Awaitable<void> Cutover::copy_sequences_again() {
  std::function<std::size_t()> copy = [prepared = prepared_] {
    const std::vector<SequenceValue> source = read_sequence_values(prepared->source, prepared->sequences);
    const std::vector<SequenceValue> target = read_sequence_values(prepared->target, prepared->sequences);
    std::vector<SequenceValue> moved;
    for (std::size_t i = 0; i < source.size(); ++i) {
      if (source[i] != prepared->sequence_values[i] && target[i] == prepared->sequence_values[i])
        moved.push_back(source[i]);
    }
    set_sequence_values(prepared->target, moved);
    return moved.size();
  };
  try {
    const std::size_t moved = co_await run_blocking<std::size_t>(environment_.pool, std::move(copy));
    if (moved > 0)
      report_.notes.push_back(
          fmt::format("{} sequences had been drawn from during the cutover; the target follows", moved));
  } catch (const Error& error) {
    // The switch is made; what was proven before it holds.
    report_.notes.push_back(
        fmt::format("sequences could not be looked at once more after the switch: {}", error.what()));
  }
}

Awaitable<void> Cutover::prove() {
  require_time();
  // Whatever may still come through the stream, a table that was made just now, say, would be noted beside the proof.
  co_await environment_.rest_apply();
  asio::steady_timer limit{environment_.executor, deadline_};
  limit.async_wait([proving = proving_](const boost::system::error_code& cancelled) mutable {
    if (!cancelled) proving.request_stop();
  });
  report_.compared_at = proof_.compared_at();
  report_.touched_rows = proof_.touched_rows();
  std::function<VerifyReport()> compare = [this, prepared = prepared_, stop = proving_.get_token()] {
    return proof_.finish(std::move(prepared->verification), stop);
  };
  std::optional<Error> failure;
  try {
    report_.verification = co_await run_blocking<VerifyReport>(environment_.pool, std::move(compare));
  } catch (const Error& error) {
    failure = error;
  }
  limit.cancel();
  if (failure) {
    require_time();  // stopped by the limit, or because the fence has no triggers
    throw *failure;
  }
  report_.verification->sequences = std::move(sequences_);
  const bool sequences_equal = std::ranges::all_of(report_.verification->sequences, &SequenceComparison::equal);
  report_.verification->equal = report_.verification->equal && sequences_equal;
  if (report_.verification->equal) co_return;
  throw Error{{ErrorKind::Differences},
              fmt::format("source and target differ in {}. Remedy: `walferry verify` shows how",
                          differing_names(*report_.verification))};
}

Awaitable<void> Cutover::put_back_target() {
  require_time();
  // With triggers that fire, and identities of their own, no change must meet the target any more: the apply rests.
  std::function<std::vector<std::string>()> restore = [prepared = prepared_, &journal = environment_.journal,
                                                       left = time_left(), refresh = !options_.refresh_first,
                                                       back = options_.way_back] {
    prepared->target.exec(fmt::format("SET statement_timeout = {}", left.count()));
    const pg::EventTriggersSilenced silenced{prepared->target};
    restore_target(prepared->source, prepared->target, journal);
    for (const auto& [table, identity] : journal.entries(keys::identity_full)) {
      // The dump took along the identity that walferry had set on the source. A way back needs it.
      if (back) break;
      prepared->target.exec(fmt::format("ALTER TABLE IF EXISTS {} REPLICA IDENTITY {}", table, identity));
    }
    if (refresh) {
      outside::refresh_materialized_views(prepared->target,
                                          outside::views_to_refresh(prepared->source, prepared->target));
    }
    std::vector<std::string> failures = outside::copy_database_settings(prepared->source, prepared->target);
    prepared->target.exec("SET statement_timeout = 0");
    return failures;
  };
  const std::vector<std::string> failures =
      co_await run_blocking<std::vector<std::string>>(environment_.pool, std::move(restore));
  for (const std::string& failure : failures) report_.notes.push_back("left out: " + failure);
}

Awaitable<void> Cutover::close_source() {
  if (way_back_) {
    std::function<Lsn()> begin = [this, prepared = prepared_] {
      return way_back_->begin_here(prepared->target, environment_.journal);
    };
    report_.way_back_begins = co_await run_blocking<Lsn>(environment_.pool, std::move(begin));
  }
  report_.result = "switched";
  report_.writes_stopped_ms = milliseconds_since(writes_stopped_at_);
  environment_.journal.put(keys::report, render_json(report_, environment_.ends));
  environment_.journal.put(keys::fence_begun, marker_);
  std::function<void()> close = [prepared = prepared_, &selection = environment_.options.selection] {
    prepared->fence.require_held();
    if (prepared->everything && !prepared->large_objects &&
        outside::count_large_objects(prepared->source).objects > 0) {
      throw Error{{ErrorKind::Refused, Side::Source},
                  "the first large objects were made on the source during the cutover. Remedy: try again"};
    }
    prepared->fence.make_durable(selection);
  };
  std::optional<Error> failure;
  try {
    co_await run_blocking<void>(environment_.pool, std::move(close));
  } catch (const Error& error) {
    failure = error;
  }
  if (failure && !prepared_->fence.commit_begun()) throw *failure;
  if (failure) co_await decide_after(*failure);
  closed_ = true;
  note_switched();
  report_.writes_stopped_ms = milliseconds_since(writes_stopped_at_);
  co_await copy_sequences_again();
}

// Behind the point of no return, so nothing fails for it: without this note the next start asks the source.
void Cutover::note_switched() {
  try {
    environment_.journal.set_phase(Phase::Switched);
  } catch (const Error& error) {
    report_.notes.push_back(fmt::format(
        "the source is closed and the target serves, but it could not be written down: {}. Before `walferry finish`, "
        "when the directory can be written to, start `walferry run` once more",
        error.what()));
    spdlog::error("cutover: {}", report_.notes.back());
  }
}

// Of a way back. What fails here is tried again by whoever runs the migration.
Awaitable<void> Cutover::open_target() {
  std::function<void()> open = [this] { open_old_source(environment_.options.target, environment_.journal); };
  bool opened = false;
  try {
    co_await run_blocking<void>(environment_.pool, std::move(open));
    opened = true;
  } catch (const Error& error) {
    report_.notes.push_back(fmt::format(
        "the old source refuses writes still, and `walferry run` goes on trying to open it: {}", error.what()));
  }
  report_.writes_stopped_ms = milliseconds_since(writes_stopped_at_);
  if (!opened) co_return;
  std::function<void()> tidy = [this] { remove_opened_fence(environment_.options.target, environment_.journal); };
  co_await run_blocking<void>(environment_.pool, std::move(tidy));
}

// The commit's answer was lost, or it failed: only the source knows, once the fence's backend is gone.
Awaitable<void> Cutover::decide_after(Error failure) {
  const Deadline patience = Clock::now() + patience_with_the_source;
  asio::steady_timer timer{environment_.executor};
  for (;;) {
    std::function<bool()> ask = [&options = environment_.options] {
      return settle_durable_fence(options.source, options.slot);
    };
    std::optional<bool> stands;
    try {
      stands = co_await run_blocking<bool>(environment_.pool, std::move(ask));
    } catch (const Error& error) {
      spdlog::error("cutover: the source cannot be asked whether it is closed: {}", error.what());
    }
    if (stands && *stands) co_return;
    if (stands) throw failure;
    if (Clock::now() >= patience) break;
    timer.expires_after(milliseconds{500});
    co_await timer.async_wait(asio::use_awaitable);
  }
  undecided_ = true;
  throw Error{{ErrorKind::Connection, Side::Source},
              "it is not known whether the source is closed: it went away while the cutover was being committed. "
              "Remedy: bring the source "
              "back and start `walferry run` again; it asks the source and says which it is. Let no application write "
              "until then"};
}

Awaitable<void> Cutover::undo(const Error& cause) {
  report_.result = "rolled-back";
  report_.way_back_begins = {};
  report_.error = cause.what();
  if (prepared_) {
    std::function<void()> lift = [prepared = prepared_] { prepared->fence.lift(); };
    co_await run_blocking<void>(environment_.pool, std::move(lift));
    if (writes_stopped_at_ != Deadline{}) report_.writes_stopped_ms = milliseconds_since(writes_stopped_at_);
  }
  if (options_.way_back && environment_.journal.get(keys::way_back)) {
    try {
      co_await remove_way_back();
    } catch (const Error& error) {
      report_.notes.push_back(fmt::format(
          "slot {} is still on the target and keeps WAL there, until `walferry run` is started again, or the next "
          "cutover or `walferry abort` removes it: {}",
          way_back_slot(environment_.options.slot), error.what()));
    }
  }
  environment_.journal.erase(keys::fence_begun);
  environment_.journal.erase(keys::cutover_step);
  spdlog::warn("cutover rolled back, the source is writable: {}", cause.what());
}

}  // namespace walferry::cutover
