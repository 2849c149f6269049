// What walferry remembers of a migration that neither the target nor the slot can tell: phase, pinned identities,
// settings, the copy state of each table, steps begun.
//
// Invariant: every write is synced before it returns, and is made before the step that relies on it. Losing the journal
// never corrupts a target: where the apply stands is in the target itself. Thread-safe (copy threads record their
// tables).
#pragma once

#include <algorithm>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/catalog.hpp"
#include "engine/status.hpp"
#include "engine/store/database.hpp"
#include "engine/store/lane_plan.hpp"
#include "engine/store/source_types.hpp"

namespace walferry::store {

// A table that waits to be copied again.
struct CopyAgain {
  QualifiedName table;   // its name on the source, as it was last seen
  Lsn not_before;        // until this is applied, the name may stand for another table on the target
  bool dropped = false;  // on the source, where another table has its name
};
// A stretch of the source's WAL in which no change was, on the word of its walsender.
struct IdleStretch {
  Lsn begin;
  Lsn end;

  [[nodiscard]] IdleStretch until(Lsn lsn) const { return {begin, std::max(begin, std::min(end, lsn))}; }
  // How far everything is known by whom everything before `covered` is known.
  [[nodiscard]] Lsn beyond(Lsn covered) const { return covered < begin ? covered : std::max(covered, end); }
};

// By what they are to the source, which a renamed table keeps.
using TablesToCopyAgain = std::map<RelationId, CopyAgain>;

class Journal {
 public:
  explicit Journal(Database& database) : database_(database) {}

  [[nodiscard]] Phase phase() const;
  void set_phase(Phase phase);

  // Named values: settings of the migration, steps begun or done. Keys are listed in journal_keys below.
  [[nodiscard]] std::optional<std::string> get(std::string_view key) const;
  void put(std::string_view key, std::string_view value);
  void erase(std::string_view key);
  // Every (rest of the key, value) below `prefix`.
  [[nodiscard]] std::vector<std::pair<std::string, std::string>> entries(std::string_view prefix) const;

  [[nodiscard]] std::optional<DatabaseIdentity> pinned(Side side) const;
  void pin(Side side, const DatabaseIdentity& identity);

  // Tables whose rows are wholly on the target, each with its copy LSN: changes of transactions that committed before
  // it are already in the copied rows.
  [[nodiscard]] std::map<QualifiedName, Lsn> copied_tables() const;
  // What they are to the source, which a renamed one keeps.
  [[nodiscard]] std::map<QualifiedName, RelationId> copied_relations() const;
  [[nodiscard]] std::set<RelationId> copied_ids() const;
  void record_copied(const QualifiedName& table, RelationId id, Lsn copy_lsn);
  void forget_copied(const QualifiedName& table);
  // The tables that the stream began with, as the slot's snapshot has them.
  [[nodiscard]] std::map<QualifiedName, RelationId> slot_tables() const;
  void record_slot_tables(const std::map<QualifiedName, RelationId>& tables);
  // Tables whose rows a schema change made anew on the source.
  [[nodiscard]] TablesToCopyAgain tables_to_copy_again() const;
  void record_copy_again(RelationId id, const CopyAgain& mark);
  void forget_copy_again(RelationId id);

  // The last one that was confirmed to the source; an empty one where none was.
  [[nodiscard]] IdleStretch idle_stretch() const;
  void record_idle_stretch(const IdleStretch& stretch);

  // Which table of the target each of the source's is.
  [[nodiscard]] std::map<RelationId, Oid> table_homes() const;
  void record_table_homes(const std::map<RelationId, Oid>& homes);

  // What the columns of the source's tables are, as far as it is known.
  [[nodiscard]] SourceTypes source_types() const;
  void record_source_types(const SourceTypes& types);
  void record_source_types(RelationId relation, const ColumnTypes& types);

  // Where the apply has several lanes, or had when it last ended.
  [[nodiscard]] LanePlan lane_plan() const;
  void record_lane_plan(const LanePlan& plan);

 private:
  Database& database_;
};

namespace journal_keys {
inline constexpr std::string_view migration = "migration";  // the slot's name
inline constexpr std::string_view source = "source";        // connection string without secrets
inline constexpr std::string_view target = "target";
inline constexpr std::string_view publications = "publications";        // names, newline between
inline constexpr std::string_view own_publication = "own-publication";  // set: it is ours, and finish drops it
inline constexpr std::string_view via_root = "via-root";  // set: it publishes partitioned tables, not their partitions
inline constexpr std::string_view slot_begun = "slot-begun";
inline constexpr std::string_view slot_lsn = "slot-lsn";                // consistent point of the slot
inline constexpr std::string_view selection = "option/selection";       // rules as text; absent: all tables
inline constexpr std::string_view without_schema = "option/no-schema";  // set: `run` was told so
inline constexpr std::string_view without_copy = "option/no-copy";
inline constexpr std::string_view adopted = "option/adopt";  // LSN at which the target's own data stands
inline constexpr std::string_view nonempty_target = "option/allow-nonempty-target";
inline constexpr std::string_view without_owners = "option/no-owner";
inline constexpr std::string_view full_identities = "option/replica-identity-full";
inline constexpr std::string_view identity_full =
    "identity-full/";  // + table: what to put back, as after REPLICA IDENTITY
inline constexpr std::string_view deferred_key = "deferred-key/";  // + foreign key: SQL that makes it
inline constexpr std::string_view relaxed = "relaxed";  // of a way back: "<statement>\0<the one that undoes it>\0" each
inline constexpr std::string_view idle_confirmed = "idle-confirmed";    // IdleStretch, "A B"
inline constexpr std::string_view source_timeline = "source-timeline";  // TimelineHistory::text() as last seen
inline constexpr std::string_view target_public_grants = "target-public-grants";  // SQL that puts schema public back
inline constexpr std::string_view last_error = "last-error";
inline constexpr std::string_view stop = "stop";                  // where the apply stands still (Skips)
inline constexpr std::string_view skips = "skip/";                // + LSN: what a person left out (Skips)
inline constexpr std::string_view report = "report";              // the cutover's report, JSON
inline constexpr std::string_view ddl_secret = "ddl-secret";      // that our trigger's messages carry
inline constexpr std::string_view ddl_trigger = "ddl-trigger";    // the publication that new tables join; set: walferry
                                                                  // made event triggers on the source
inline constexpr std::string_view ddl_baseline = "ddl-baseline";  // the source's inventory (SchemaWatch)
inline constexpr std::string_view ddl_passed = "ddl-passed/";     // + identity: settled by its place in the stream
inline constexpr std::string_view ddl_accept = "ddl-accept/";  // + object: the finding that a person takes as settled
inline constexpr std::string_view ddl_accepted = "ddl-accepted/";  // + object: why, for the report
inline constexpr std::string_view ddl_agreed = "ddl-agreed/";      // + identity: changed, and alike on both ends
inline constexpr std::string_view ddl_differed =
    "ddl-differed";                                    // LSN of the command whose objects were seen to differ
inline constexpr std::string_view recopy = "recopy/";  // + relation of the source: its rows must be copied again
inline constexpr std::string_view table_homes = "table-homes";       // "<relation> <table>" a line
inline constexpr std::string_view slot_tables = "slot-tables";       // "<relation> <schema>\0<name>\0" each
inline constexpr std::string_view source_types = "source-types";     // SourceTypes::text() of all
inline constexpr std::string_view changed_types = "changed-types/";  // + relation of the source: its own since
inline constexpr std::string_view lane_plan = "lane-plan";           // LanePlan::text()
inline constexpr std::string_view cutover_step = "cutover-step";     // set while a cutover may hold the lease
inline constexpr std::string_view fence_begun = "fence-begun";       // set just before the source is closed for good
inline constexpr std::string_view fence_left = "fence-left";         // set: triggers of an opened fence are there still
inline constexpr std::string_view way_back = "way-back";        // set: one may be armed; with the switch its first LSN
inline constexpr std::string_view way_back_of = "way-back-of";  // the migration that this one leads back
inline constexpr std::string_view old_source_open = "old-source-open";  // by this way back, behind its switch: "1"; or
                                                                        // "never", the new server having been opened
}  // namespace journal_keys

}  // namespace walferry::store
