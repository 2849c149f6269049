// What schema changes of the source make the running migration do: tables are copied again, and new ones join.
#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include "engine/migration.hpp"

namespace walferry {
namespace {

namespace keys = store::journal_keys;
using std::chrono::duration_cast;
using std::chrono::seconds;
using Clock = std::chrono::steady_clock;

// Between attempts at a table, and for open transactions within one; both grow while it does not succeed.
constexpr seconds copy_again_interval{3};
constexpr seconds copy_again_interval_max{300};
constexpr seconds copy_again_patience{10};
constexpr seconds copy_again_patience_max{1800};
constexpr const char* cannot_be_copied = " cannot be copied now";

seconds grown(seconds first, int attempts, seconds most) {
  return std::min(first * (1 << std::min(attempts, 10)), most);
}

}  // namespace

void Migration::start_watcher() {
  status_.ddl.trigger = journal_.get(keys::ddl_trigger).has_value();
  std::function<void()> join = [this] {
    if (const auto options = join_options()) ddl::mark_joining(*options, journal_);
  };
  watcher_ = std::make_unique<ddl::Watcher>(io_.get_executor(), pool_,
                                            ddl::SchemaWatch{options_.source, options_.target, journal_},
                                            std::move(join), status_);
  run_beside(watcher_->run(), cancel_watcher_);
}

// A schema change has had its turn in the stream; its transaction is committed with what follows it.
void Migration::settle(const ddl::Command& command, ddl::Outcome outcome) {
  ddl::SchemaWatch{options_.source, options_.target, journal_}.passed(command);
  const auto copied = journal_.copied_tables();
  const auto copied_ids = journal_.copied_ids();
  std::vector<Table> joined;
  for (const ddl::Object& object : command.objects) {
    if (!object.table || !object.holds_rows || !object.published) continue;
    // Published from its first row on, or under another name before: nothing of it is left to copy.
    if (copied.contains(*object.table) && copied_ids.contains(object.id)) continue;
    journal_.record_copied(*object.table, object.id, command.commit_lsn);
    Table table;
    table.name = *object.table;
    joined.push_back(std::move(table));
  }
  if (!joined.empty()) {
    tables_.describe(joined);
    for (const Table& table : joined) tables_.advance(table.name, TableState::Ready);
  }
  for (const ddl::RewrittenTable& table : command.rewritten) {
    spdlog::warn("{} made the rows of {} anew on the source: the table will be copied again{}", command.title(),
                 table.name.text(),
                 outcome == ddl::Outcome::PassedOver ? " when it has the same columns on the target; until then its "
                                                       "changes wait and a cutover is refused"
                                                     : "");
    journal_.record_copy_again(table.id, {.table = table.name, .not_before = command.lsn});
  }
  if (watcher_) watcher_->wake();
}

std::optional<ddl::JoinOptions> Migration::join_options() const {
  const auto publication = journal_.get(keys::own_publication);
  const bool others_data = journal_.get(keys::adopted) && !journal_.get(keys::way_back_of);
  if (!publication || journal_.get(keys::without_copy) || others_data) return std::nullopt;
  return ddl::JoinOptions{.source = options_.source,
                          .target = options_.target,
                          .selection = options_.selection,
                          .publication = *publication,
                          .via_root = journal_.get(keys::via_root).has_value(),
                          .full_identities = journal_.get(keys::full_identities).has_value()};
}

// The apply rests, and ignores these tables until they are there again.
Awaitable<void> Migration::copy_again(const store::TablesToCopyAgain& marked) {
  ddl::Waiting waiting;
  std::function<void()> look = [this, &waiting, &marked, applied = position_.applied] {
    const bool via_root = journal_.get(keys::via_root).has_value();
    waiting = ddl::look_at_waiting(options_.source, options_.target, marked, applied, via_root);
    if (via_root || join_options()) return;
    // Where none can join, one that is no member is none of the migration's.
    const std::set<RelationId> members = journal_.copied_ids();
    for (const auto& [id, mark] : marked) {
      if (members.contains(id)) continue;
      journal_.forget_copy_again(id);
      waiting.ready.erase(id);
      waiting.to_record.erase(id);
    }
  };
  co_await insist_blocking("looking at the tables to be copied again", std::move(look));
  for (const auto& [id, mark] : waiting.to_record) journal_.record_copy_again(id, mark);
  for (const auto& [id, mark] : waiting.gone) {
    spdlog::warn("{} is not copied again: neither end has it any more", mark.table.text());
    journal_.forget_copy_again(id);
  }
  std::erase_if(waiting.ready, [this](const auto& each) { return Clock::now() < postponed_[each.first].until; });
  // Without one that can be copied the apply must not rest: what makes them so may be what it does next.
  if (waiting.ready.empty()) co_return;
  co_await apply_.rest(Clock::now() + stop_patience);
  for (const auto& [id, mark] : waiting.ready) {
    status_.activity = "copying " + mark.table.text() + " again";
    const Deadline begun = Clock::now();
    const Deadline patience = begun + grown(copy_again_patience, copy_again_timeouts_, copy_again_patience_max);
    std::function<CopyAttempt()> work = [this, patience, table = mark.table, id = id] {
      return copy_again_now(table, id, patience);
    };
    CopyAttempt attempt = co_await run_blocking<CopyAttempt>(pool_, std::move(work));
    if (attempt.copied) {
      spdlog::info("{} was copied again as of {}", mark.table.text(), attempt.copied->lsn.to_string());
      postponed_.erase(id);
      copy_again_timeouts_ = 0;
      tables_.describe({std::move(attempt.copied->table)});
      tables_.advance(mark.table, TableState::Ready);
      if (status_.last_error && status_.last_error->text.starts_with(mark.table.text() + cannot_be_copied))
        status_.last_error.reset();
      continue;
    }
    if (attempt.forgotten) {
      spdlog::info("{} is not copied: {}", mark.table.text(), attempt.why_not);
      postponed_.erase(id);
      continue;
    }
    // The apply goes on for longer than it has rested.
    Postponed& postponed = postponed_[id];
    const auto pause = std::max(grown(copy_again_interval, postponed.attempts++, copy_again_interval_max),
                                duration_cast<seconds>(3 * (Clock::now() - begun)));
    postponed.until = Clock::now() + pause;
    const std::string text = fmt::format("{}{}, another attempt follows in {} s: {}", mark.table.text(),
                                         cannot_be_copied, pause.count(), attempt.why_not);
    spdlog::warn("{}", text);
    status_.last_error = LastError{text, std::chrono::system_clock::now()};
    if (!attempt.timed_out) continue;
    // The same transactions are in the way of the others.
    ++copy_again_timeouts_;
    for (const auto& [other, its_mark] : waiting.ready) {
      Deadline& until = postponed_[other].until;
      until = std::max(until, postponed_[id].until);
    }
    break;
  }
  status_.activity.clear();
  apply_.start();
}

// Blocking. Whatever one table is in the way of, neither the others nor the stream wait for it.
Migration::CopyAttempt Migration::copy_again_now(const QualifiedName& name, RelationId id, Deadline patience) {
  CopyAttempt attempt;
  const auto require_followed = [this](const TimelineHistory& history, Lsn lsn) {
    copy::require_shared_past(history, lsn, journal_.get(keys::source_timeline));
  };
  try {
    const std::optional<ddl::JoinOptions> join = join_options();
    if (join && !ddl::publish_marked(*join, id, journal_)) {
      // A member that was taken out of the publication waits until it is there again.
      attempt.forgotten = !journal_.copied_ids().contains(id);
      if (attempt.forgotten) journal_.forget_copy_again(id);
      attempt.why_not = "it is not in walferry's publication and cannot be put there";
      return attempt;
    }
    attempt.copied = ddl::copy_again({.source = options_.source,
                                      .target = options_.target,
                                      .client_encoding = ends_.client_encoding,
                                      .slot = options_.slot,
                                      .table = name,
                                      .id = id,
                                      .deadline = patience,
                                      .require_followed = require_followed});
    if (attempt.copied) {
      journal_.record_copied(name, id, attempt.copied->lsn);
      require_followed(attempt.copied->history, attempt.copied->lsn);  // else the table still waits, and is passed over
      journal_.forget_copy_again(id);
    } else {
      attempt.why_not = "another schema change is on its way";
    }
  } catch (const Error& error) {
    attempt.copied.reset();
    attempt.timed_out = error.kind() == ErrorKind::Timeout;
    if (!attempt.timed_out && error.kind() != ErrorKind::Sql && !is_transient(error)) throw;
    attempt.why_not = error.what();
  }
  return attempt;
}

}  // namespace walferry
