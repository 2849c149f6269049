#include "engine/cleanup.hpp"

#include <fmt/format.h>

#include "engine/apply/attachment.hpp"
#include "engine/apply/progress.hpp"
#include "engine/catalog.hpp"
#include "engine/cutover/fence.hpp"
#include "engine/cutover/fence_name.hpp"
#include "engine/ddl/trigger.hpp"
#include "engine/listed.hpp"
#include "engine/outside/large_objects.hpp"
#include "engine/pg/event_triggers.hpp"
#include "engine/schema/drop_objects.hpp"
#include "engine/schema_record.hpp"
#include "engine/sequences.hpp"
#include "engine/setup.hpp"
#include "engine/slot.hpp"
#include "engine/target_state.hpp"
#include "engine/way_back.hpp"

namespace walferry {
namespace {

namespace keys = store::journal_keys;

struct Sides {
  pg::ConnInfo source;
  pg::ConnInfo target;
  std::string slot;
};

Sides sides_of(const store::Journal& journal, const CleanupOptions& options) {
  const auto migration = journal.get(keys::migration);
  const auto source = journal.get(keys::source);
  const auto target = journal.get(keys::target);
  if (!migration || !source || !target) {
    throw Error{{ErrorKind::Refused},
                fmt::format("state directory {}: no migration was begun here, so there is nothing to remove",
                            options.state_dir.string())};
  }
  Sides sides{.source = options.source ? *options.source : pg::ConnInfo::parse(*source, Side::Source),
              .target = options.target ? *options.target : pg::ConnInfo::parse(*target, Side::Target),
              .slot = *migration};
  // An end that is closed may have a login trigger that writes.
  sides.source = cutover::with_passage(sides.source, sides.slot);
  if (const auto forward = journal.get(keys::way_back_of)) sides.target = cutover::with_passage(sides.target, *forward);
  return sides;
}

void require_pinned(pg::Session& session, const store::Journal& journal, Side side) {
  const auto pinned = journal.pinned(side);
  const auto other = journal.pinned(side == Side::Source ? Side::Target : Side::Source);
  if (!pinned || read_identity(session).same_database(*pinned)) {
    if (pinned && other && pinned->same_database(*other))
      require_end(session, side, journal.get(keys::migration).value_or(""));
    return;
  }
  throw Error{{ErrorKind::Refused, side},
              fmt::format("the {} is not the one this migration began with. Nothing was removed there. Remedy: "
                          "correct --{}; where another server has taken its place, nothing is left to be removed",
                          to_string(side), to_string(side))};
}

class Cleaner {
 public:
  Cleaner(store::Journal& journal, const CleanupOptions& options)
      : journal_(journal), options_(options), sides_(sides_of(journal, options)) {}

  // What fails on one side does not keep the other from being cleaned; the first failure is thrown when both were
  // tried.
  void both(const std::function<void()>& on_source, const std::function<void()>& on_target) {
    std::optional<Error> failure;
    for (const auto& work : {on_source, on_target}) {
      try {
        work();
      } catch (const Error& error) {
        if (error.kind() == ErrorKind::Stopped) throw;
        say(error.side(), fmt::format("not cleaned: {}", error.what()));
        if (!failure) failure = error;
      }
    }
    if (failure) throw *failure;
  }

  // Identities and triggers of the target as the source has them.
  void restore_target() {
    std::optional<pg::Session> source;
    try {
      source = pg::Session::open(sides_.source, {.application_name = "walferry"});
      require_pinned(*source, journal_, Side::Source);
    } catch (const Error& error) {
      if (error.kind() != ErrorKind::Connection && error.kind() != ErrorKind::Refused) throw;
      restore_target_as_noted();
      return;
    }
    pg::Session target = pg::Session::open(sides_.target, {.application_name = "walferry"});
    require_pinned(target, journal_, Side::Target);
    pg::silence_event_triggers(target);
    walferry::restore_target(*source, target, journal_);
  }

  // A cutover whose end the journal does not know may have closed the source: then the target serves.
  void require_not_closed() {
    if (!journal_.get(keys::fence_begun)) return;
    if (cutover::settle_durable_fence(sides_.source, sides_.slot)) {
      throw Error{{ErrorKind::Refused, Side::Source},
                  "the source was closed by a cutover just before the last run ended: the migration is switched. "
                  "Nothing was removed. "
                  "Remedy: start `walferry run` once more, which notes it, then `walferry finish`"};
    }
  }

  void clean_source(bool lift_fence) {
    pg::Session source = pg::Session::open(sides_.source, {.application_name = "walferry"});
    require_pinned(source, journal_, Side::Source);
    // Of a source that is closed: one would write to a table and be refused.
    if (journal_.get(keys::way_back_of) || cutover::any_durable_fence_stands(source))
      pg::silence_event_triggers(source);
    // Whatever is in the way of the rest.
    if (lift_fence) cutover::open_durable_fence(source, sides_.slot);
    drop_slot(source);
    if (journal_.get(keys::ddl_trigger)) {
      say(Side::Source, "removing the event triggers that tell of schema changes");
      ddl::remove_trigger(source, sides_.slot);
    }
    if (const auto publication = journal_.get(keys::own_publication)) {
      say(Side::Source, fmt::format("removing publication {}", *publication));
      source.exec("DROP PUBLICATION IF EXISTS " + pg::quote_name(*publication));
    }
    restore_identities(source);
    if (lift_fence || is_opened(source)) {
      this->lift_fence();
    } else if (cutover::durable_fence_stands(source, sides_.slot)) {
      say(Side::Source,
          "the write fence stays, so that nothing is written there by mistake; `walferry finish --lift-fence` "
          "lifts it");
    }
  }

  // What a lock had kept from being removed, by an earlier finish.
  void remove_opened_fence() {
    if (journal_.get(keys::fence_left)) lift_fence();
  }

  void lift_fence() {
    pg::Session source = pg::Session::open(sides_.source, {.application_name = "walferry"});
    require_pinned(source, journal_, Side::Source);
    pg::silence_event_triggers(source);
    say(Side::Source, "lifting the write fence, it can be written to again");
    const std::vector<std::string> left = cutover::remove_durable_fence(source, sides_.slot);
    if (left.empty()) {
      journal_.erase(keys::fence_left);
    } else {
      journal_.put(keys::fence_left, "1");
      say(Side::Source,
          "triggers of the fence, which let everybody pass now, are left where somebody has locked the table; the same "
          "command again removes them: " +
              listed(left, 5));
    }
  }

  // Of a way back that has switched: the new server was opened again before the old source could be.
  [[nodiscard]] bool stays_closed() const { return journal_.get(keys::old_source_open) == "never"; }

  // Whether a way back has switched; its last run may have ended inside a rollback.
  [[nodiscard]] bool went_back() const {
    if (journal_.phase() != Phase::Cutover)
      return journal_.phase() == Phase::Switched || journal_.get(keys::old_source_open);
    try {
      return cutover::settle_durable_fence(sides_.source, sides_.slot) && journal_.get(keys::fence_begun);
    } catch (const Error& error) {
      if (error.kind() != ErrorKind::Connection || !options_.lift_fence) throw;
      return false;  // the new server may be gone for good, and the old source is wanted
    }
  }

  // Of a way back that has switched.
  void open_target() {
    if (stays_closed()) return;
    pg::Session target = pg::Session::open(sides_.target, {.application_name = "walferry"});
    require_pinned(target, journal_, Side::Target);
    if (!journal_.get(keys::old_source_open)) say(Side::Target, "lifting the write fence, it serves again");
    open_old_source(sides_.target, journal_);
    walferry::remove_opened_fence(sides_.target, journal_);
  }

  void clean_target(bool drop_objects) {
    pg::Session target = pg::Session::open(sides_.target, {.application_name = "walferry"});
    require_pinned(target, journal_, Side::Target);
    pg::silence_event_triggers(target);
    target.exec(
        fmt::format("DO $end$ BEGIN FOR i IN 1..200 LOOP "
                    "PERFORM pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity WHERE {0}; "
                    "PERFORM pg_catalog.pg_stat_clear_snapshot(); "
                    "EXIT WHEN NOT EXISTS (SELECT FROM pg_catalog.pg_stat_activity WHERE {0}); "
                    "PERFORM pg_catalog.pg_sleep(0.05); END LOOP; END $end$",
                    apply::is_apply_session_sql(sides_.slot)));
    const bool adopted = journal_.get(keys::adopted).has_value();
    if (drop_objects && adopted) {
      say(Side::Target, "its data was adopted, walferry made no objects there, none are dropped");
    } else if (drop_objects) {
      outside::drop_large_objects(target);
      drop_migrated(target);
    }
    if (const auto publication = journal_.get(keys::own_publication); publication && adopted) {
      // A physical copy brought it along.
      target.exec("DROP PUBLICATION IF EXISTS " + pg::quote_name(*publication));
    }
    outside::forget_large_objects(target);
    schema_record::forget(target, sides_.slot);
    say(Side::Target, "removing the position of the apply");
    apply::Progress::drop(target, sides_.slot);
    if (target
            .exec("SELECT EXISTS (SELECT 1 FROM pg_catalog.pg_namespace n WHERE n.nspname = 'walferry' AND "
                  "pg_catalog.pg_has_role(n.nspowner, 'USAGE') AND NOT EXISTS "
                  "(SELECT 1 FROM pg_catalog.pg_class c WHERE c.relnamespace = n.oid) AND NOT EXISTS "
                  "(SELECT 1 FROM pg_catalog.pg_proc p WHERE p.pronamespace = n.oid))")
            .flag(0, 0)) {
      target.exec("DROP SCHEMA walferry");
    }
    if (!drop_objects) say(Side::Target, "tables and data stay as they are");
  }

  // Of the old source, where rows came back and nobody switched.
  void move_sequences() {
    pg::Session source = pg::Session::open(sides_.source, {.application_name = "walferry"});
    require_pinned(source, journal_, Side::Source);
    say(Side::Source, "moving sequences behind the values that came back");
    try {
      source.exec("SET lock_timeout = '2s'");
      const std::vector<std::string> left = move_sequences_behind_rows(source);
      if (!left.empty())
        say(Side::Source, "sequences that feed no column stay as they were at the switch: " + listed(left, 40));
    } catch (const Error& error) {
      if (error.kind() != ErrorKind::Sql) throw;
      say(Side::Source,
          fmt::format("sequences may stand before values that came back, setval() them before anybody inserts: {}",
                      error.what()));
    }
  }

  // Of a way back whose journal is gone.
  void drop_position_of_way_back() {
    pg::Session source = pg::Session::open(sides_.source, {.application_name = "walferry"});
    require_pinned(source, journal_, Side::Source);
    pg::silence_event_triggers(source);
    apply::Progress::drop(source, way_back_slot(sides_.slot));
    say(Side::Source,
        "the journal of the way back is gone, and with it how triggers, rules and identity columns were here: ENABLE "
        "ALWAYS and GENERATED ALWAYS are to be put back by hand");
  }

  void require_source() {
    pg::Session source = pg::Session::open(sides_.source, {.application_name = "walferry"});
    require_pinned(source, journal_, Side::Source);
  }

  // Of a cutover that was not completed.
  void disarm() {
    if (!journal_.get(keys::way_back)) return;
    pg::Session target = pg::Session::open(sides_.target, {.application_name = "walferry"});
    require_pinned(target, journal_, Side::Target);
    MigrationOptions migration;
    migration.target = sides_.target;
    migration.slot = sides_.slot;
    migration.state_dir = options_.state_dir;
    disarm_way_back(migration, journal_);
  }

 private:
  [[nodiscard]] bool is_opened(pg::Session& source) const {
    return cutover::fence_remains(source, sides_.slot) && !cutover::durable_fence_stands(source, sides_.slot);
  }

  // Of a way back the ends keep the names that they have in the migration.
  void say(Side side, const std::string& line) const {
    const Side named = !journal_.get(keys::way_back_of) ? side : side == Side::Source ? Side::Target : Side::Source;
    if (options_.on_line) options_.on_line(fmt::format("{}: {}", to_string(named), line));
  }

  void restore_target_as_noted() {
    if (!journal_.get(keys::way_back_of)) {
      return say(Side::Target,
                 "triggers, rules, identity columns and foreign keys stay as the stream needed them, since only the "
                 "source tells how they were; when it is back, the same command again");
    }
    pg::Session target = pg::Session::open(sides_.target, {.application_name = "walferry"});
    require_pinned(target, journal_, Side::Target);
    pg::silence_event_triggers(target);
    say(Side::Target, "triggers, rules and identity columns are put back as they were at the switch");
    for (const std::string& failed : walferry::restore_as_noted(target, journal_))
      say(Side::Target, "not put back, to be done by hand if it is wanted still: " + failed);
  }

  void drop_slot(pg::Session& source) {
    if (walferry::drop_slot(source, sides_.slot)) say(Side::Source, fmt::format("slot {} is removed", sides_.slot));
  }

  void restore_identities(pg::Session& source) {
    for (const auto& [table, identity] : journal_.entries(keys::identity_full)) {
      try {
        source.exec(
            fmt::format("BEGIN; SET LOCAL lock_timeout = '2s'; ALTER TABLE IF EXISTS {} REPLICA IDENTITY {}; COMMIT",
                        table, identity));
      } catch (const Error& error) {
        throw error.during(
            fmt::format("giving {} its replica identity {} again, which needs its lock for a moment (the "
                        "same command again tries once more)",
                        table, identity));
      }
      say(Side::Source, fmt::format("replica identity of {} is {} again", table, identity));
    }
  }

  void drop_migrated(pg::Session& target) {
    const std::filesystem::path archive = options_.state_dir / "schema.dump";
    // Objects of these names may be the target's own where the schema was not made.
    if (!std::filesystem::exists(archive) || !schema_record::stands(target, sides_.slot)) {
      say(Side::Target, "walferry made no objects there, none are dropped");
      return;
    }
    const auto source = journal_.pinned(Side::Source);
    const auto pinned_target = journal_.pinned(Side::Target);
    const auto tools =
        schema::find_pg_tools(options_.pg_bin_dir, {.source = schema::major_of(source->server_version),
                                                    .target = schema::major_of(pinned_target->server_version)});
    if (!tools) throw Error{{ErrorKind::Schema}, "no pg_restore serves. Remedy: name the folder with --pg-bin-dir"};
    say(Side::Target, "dropping the objects that the migration made");
    const schema::DropReport report = schema::drop_migrated_objects(*tools, target, archive);
    say(Side::Target, fmt::format("{} objects of the migration dropped", report.executed));
    for (const std::string& left : report.left) say(Side::Target, "left: " + left);
    // The archive may have changed owner and grants of schema public, which was there before.
    if (const auto grants = journal_.get(keys::target_public_grants)) target.exec(*grants);
  }

  store::Journal& journal_;
  const CleanupOptions& options_;
  Sides sides_;
};

}  // namespace

void require_switched(Phase phase) {
  if (phase == Phase::Switched || phase == Phase::Finished) return;
  if (phase == Phase::Cutover) {
    throw Error{{ErrorKind::Refused},
                "the last run ended inside a cutover, and whether it was completed only the source knows. Nothing was "
                "removed. Remedy: start `walferry run` once more, which asks the source and notes the answer"};
  }
  throw Error{
      {ErrorKind::Refused},
      fmt::format(
          "the migration is in phase \"{}\" and has not been switched. Nothing was removed. Remedy: `walferry cutover` "
          "first, or `walferry abort` to give it up",
          to_string(phase))};
}

void require_not_switched(Phase phase) {
  if (phase != Phase::Switched && phase != Phase::Finished) return;
  throw Error{{ErrorKind::Refused},
              "the migration has been switched: the target serves the applications and abort would open the old source "
              "beside it. "
              "Nothing was removed. Remedy: `walferry finish`"};
}

namespace {

void finish_way_back(store::Database& database, CleanupOptions options) {
  options.state_dir = way_back_dir(options.state_dir);
  const std::optional<pg::ConnInfo> source = options.source;
  options.source = options.target ? std::optional{options.target->of(Side::Source)} : std::nullopt;
  options.target = source ? std::optional{source->of(Side::Target)} : std::nullopt;
  store::Journal journal{database};
  Cleaner cleaner{journal, options};
  const bool went_back = cleaner.went_back();
  if (journal.phase() == Phase::Finished) {
    // The old source may serve: nothing is put back there any more.
    if (went_back && options.lift_fence) {
      cleaner.lift_fence();
    } else {
      cleaner.remove_opened_fence();
    }
    return;
  }
  // The old source serves: it comes first, where it can be reached.
  try {
    if (went_back) cleaner.open_target();
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::Connection) throw;
  }
  cleaner.both(
      [&] {
        // Else a later run would open the old source beside it.
        cleaner.require_source();
        if (options.lift_fence && went_back && !journal.get(keys::old_source_open))
          journal.put(keys::old_source_open, "never");
        cleaner.clean_source(options.lift_fence && went_back);
      },
      [&] {
        if (!went_back) cleaner.restore_target();
        if (went_back) cleaner.open_target();
        cleaner.clean_target(false);
      });
  journal.set_phase(Phase::Finished);
}

}  // namespace

void finish(store::Database& database, store::Database* way_back, const CleanupOptions& options) {
  store::Journal journal{database};
  Cleaner cleaner{journal, options};
  require_switched(journal.phase());
  std::optional<Error> failure;
  bool settled = false;  // by a rollback, whether the old source is to be open
  if (way_back != nullptr) {
    try {
      finish_way_back(*way_back, options);
    } catch (const Error& error) {
      if (error.kind() == ErrorKind::Stopped) throw;
      failure = error;  // of an end that may be gone for good: the other is cleaned all the same
    }
    settled = store::Journal{*way_back}.get(keys::old_source_open).has_value();
  }
  const bool opens = options.lift_fence && !settled;
  const bool came_back = way_back_armed(journal);
  if (journal.phase() == Phase::Finished) {
    // Others may have begun since, under the same name.
    if (opens) {
      if (came_back) cleaner.move_sequences();
      cleaner.lift_fence();
    } else {
      cleaner.remove_opened_fence();
    }
    if (failure) throw *failure;
    return;
  }
  cleaner.both(
      [&] {
        if (opens && came_back) cleaner.move_sequences();
        if (came_back && way_back == nullptr) cleaner.drop_position_of_way_back();
        cleaner.clean_source(opens);
      },
      [&] {
        if (way_back == nullptr) cleaner.disarm();
        cleaner.clean_target(false);
      });
  if (failure) throw *failure;
  journal.set_phase(Phase::Finished);
}

void abort_migration(store::Database& database, const CleanupOptions& options) {
  store::Journal journal{database};
  Cleaner cleaner{journal, options};
  require_not_switched(journal.phase());
  if (journal.phase() == Phase::Aborted) {
    // Others may have begun since, under the same name.
    if (options.on_line) options.on_line("the migration has been aborted before: nothing is left to be removed");
    return;
  }
  cleaner.require_not_closed();
  // This migration has closed nothing: a fence that stands is another's.
  cleaner.both([&] { cleaner.clean_source(false); },
               [&] {
                 cleaner.disarm();
                 if (!options.drop_target_objects) cleaner.restore_target();
                 cleaner.clean_target(options.drop_target_objects);
               });
  journal.set_phase(Phase::Aborted);
}

}  // namespace walferry
