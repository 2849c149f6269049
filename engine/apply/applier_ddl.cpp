// Applier's part for schema changes: a barrier in the stream, and what the policy makes of it.

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "engine/apply/applier.hpp"
#include "engine/ddl/execute.hpp"
#include "engine/pg/lock_limit.hpp"

namespace walferry::apply {

Awaitable<void> Applier::pass_ddl(const pgoutput::LogicalMessageView& note) {
  if (group_.split) throw CannotSplit{"a schema change concerns all lanes"};
  const ddl::Place place{.lsn = note.lsn,
                         .commit_lsn = transaction_->final_lsn,
                         .xid = transaction_->xid,
                         .aborted = transaction_->aborted};
  const std::optional<ddl::Command> command = ddl_.accept(as_text(note.content), place);
  if (!command) co_return;
  early_.let_go();  // with what it knows of the target's tables
  writer_.touch_everything();
  const ddl::Outcome outcome = co_await settle_ddl(*command);
  group_.ddl = true;
  if (outcome != ddl::Outcome::Executed && command->may_bring_actions()) {
    co_await settle_group();
    std::function<void(pg::Session&)> relax = options_.relax;
    co_await change_target(std::move(relax));
  }
  if (outcome != ddl::Outcome::Executed) co_await fill_added_columns(*command);
  ++(outcome == ddl::Outcome::Executed ? status_.ddl.applied : status_.ddl.passed);
  // Whoever runs the command on the target, and whenever: its rows come from a copy, and what follows counts from
  // there.
  for (const ddl::RewrittenTable& table : command->rewritten) {
    for (ChangeWriter* writer : all_writers()) writer->tables().ignore(table.id);
  }
  if (options_.on_command) options_.on_command(*command, outcome);
}

Awaitable<ddl::Outcome> Applier::settle_ddl(const ddl::Command& command) {
  if (skips_.contains(StopPoint::What::Ddl, command.lsn)) {
    spdlog::warn("{} at {} is left out, as a person said", command.title(), command.lsn.to_string());
    co_return ddl::Outcome::PassedOver;
  }
  if (options_.on_ddl == ddl::OnDdl::Warn) {
    spdlog::warn("schema change on the source at {}: {}. Passed over (--on-ddl=warn). On the target: {}",
                 command.lsn.to_string(), command.title(), command.to_run());
    co_return ddl::Outcome::PassedOver;
  }
  if (options_.via_root) stop_at_partition(command);
  const bool execute = options_.on_ddl == ddl::OnDdl::Apply && command.not_executable.empty();
  if (execute && ddl_failed_ != command.lsn) {
    co_await execute_ddl(command);
    co_return ddl::Outcome::Executed;
  }
  const Answer answer = co_await ask_target(command);
  if (answer.there) {
    spdlog::info("schema change {} at {}: the target has it", command.title(), command.lsn.to_string());
    co_return ddl::Outcome::Present;
  }
  if (execute) {
    co_await execute_ddl(command);
    co_return ddl::Outcome::Executed;
  }
  std::string why = options_.on_ddl == ddl::OnDdl::Apply ? command.not_executable : "";
  if (!answer.failure.empty())
    why += fmt::format("{}whether the target has it cannot be asked: {}", why.empty() ? "" : "; ", answer.failure);
  stop_at(command, why);
}

Awaitable<void> Applier::execute_ddl(const ddl::Command& command) {
  co_await settle_group();  // a change that stands before it fails as what it is
  std::function<void(pg::Session&)> execute = [run = options_.execute, command](pg::Session& target) {
    run(target, command);
  };
  std::optional<Error> failure;
  try {
    co_await change_target(std::move(execute));
  } catch (const Error& error) {
    failure = error;
  }
  if (failure) {
    if (is_transient(*failure)) throw *failure;
    ddl_failed_ = command.lsn;
    stop_at(command, fmt::format("the target refuses it: {}", failure->what()));
  }
  spdlog::info("schema change of the source applied at {}: {}", command.lsn.to_string(), command.title());
}

// Whoever added columns on the target did so at another time than the source, whose default may be the time.
Awaitable<void> Applier::fill_added_columns(const ddl::Command& command) {
  if (std::ranges::all_of(command.objects, [](const ddl::Object& object) { return object.added.empty(); })) co_return;
  co_await settle_group();
  std::function<void(pg::Session&)> fill = [command](pg::Session& target) {
    target.exec("SAVEPOINT fill");
    try {
      for (const ddl::Object& object : command.objects) {
        for (const ddl::AddedValues& added : object.added) ddl::replace_own_defaults(target, added);
      }
      target.exec("RELEASE SAVEPOINT fill");
    } catch (const Error& error) {
      if (error.kind() != ErrorKind::Sql || is_transient(error)) throw;
      target.exec("ROLLBACK TO SAVEPOINT fill");
      spdlog::warn("what {} gave to rows that were there is not the source's on the target: {}", command.title(),
                   error.what());
    }
  };
  co_await change_target(std::move(fill));
}

// What is done to the target's schema, or asked of it, is done within the transaction of the group, after all that was
// before it.
Awaitable<void> Applier::settle_group() {
  writer_.begin();
  co_await writer_.write_gathered();
  co_await writer_.pipeline().settle();
}

Awaitable<Applier::Answer> Applier::ask_target(const ddl::Command& command) {
  co_await settle_group();
  std::function<Answer(pg::Session&)> look = [has = options_.target_has, command](pg::Session& target) {
    Answer answer;
    const pg::LockLimit limit{target};  // a person at work there: there is a next time
    try {
      answer.there = has && has(target, command);
    } catch (const Error& error) {
      if (error.side() != Side::Source) throw;  // and with it our transaction is lost
      answer.failure = error.what();
    }
    return answer;
  };
  const Answer answer = co_await writer_.connection().lend<Answer>(pool_, std::move(look));
  co_return answer;
}

Awaitable<void> Applier::change_target(std::function<void(pg::Session&)> change) {
  std::function<TargetTables(pg::Session&)> work = [change = std::move(change)](pg::Session& target) {
    change(target);
    return read_target_tables(target);
  };
  TargetTables tables = co_await writer_.connection().lend<TargetTables>(pool_, std::move(work));
  for (const auto& lane : lanes_.writers()) lane->tables().set_target(tables);
  writer_.tables().set_target(std::move(tables));
}

// A table that was not carried under its own name, and that the target does not have, or has as a partition: its rows
// are its root's, and a table of that name may hold others.
void Applier::stop_at_partition(const ddl::Command& command) {
  for (const QualifiedName& name : command.dropped_tables()) {
    const Table* there = writer_.tables().find_on_target(name);
    if (options_.copied.contains(name) || (there != nullptr && !there->partition)) continue;
    throw Stop{Side::Target,
               {.what = StopPoint::What::Ddl,
                .lsn = command.lsn,
                .commit_lsn = command.commit_lsn,
                .xid = command.xid,
                .error = fmt::format(
                    "schema change on the source at {}, in transaction {} (commit LSN {}): {}. Partitioned tables are "
                    "carried by the table at the top, so if {} was a partition its rows are still in that on the "
                    "target. Nothing of this transaction was applied and nothing is lost. Remedy: delete those rows "
                    "there, change the target's partitions if they are to be changed, then `walferry skip --lsn {} "
                    "--reason ...`",
                    command.lsn.to_string(), static_cast<std::uint32_t>(command.xid), command.commit_lsn.to_string(),
                    command.title(), name.text(), command.lsn.to_string())}};
  }
}

void Applier::stop_at(const ddl::Command& command, const std::string& why) const {
  const std::string lsn = command.lsn.to_string();
  throw Stop{
      Side::Target,
      {.what = StopPoint::What::Ddl,
       .lsn = command.lsn,
       .commit_lsn = command.commit_lsn,
       .xid = command.xid,
       .error = fmt::format(
           "schema change on the source at {}, in transaction {} (commit LSN {}) of role {}: {}{}{}. Nothing of "
           "this transaction was applied and nothing is lost. Remedy: run on the target, as its owner: {}{} -- then "
           "`walferry skip --lsn {} --reason ...`; where the two ends can be compared it goes on by itself",
           lsn, static_cast<std::uint32_t>(command.xid), command.commit_lsn.to_string(), command.role, command.title(),
           why.empty() ? "" : ", and ", why, options_.target_closed ? "SET default_transaction_read_only = off; " : "",
           command.to_run(), lsn)}};
}

}  // namespace walferry::apply
