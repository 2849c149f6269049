// The blocking steps that begin a migration on the two servers: pin, guard, publish, create the slot, prepare the
// position.
//
// Each step is recorded in the journal before it acts and is safe to repeat after a crash. Nothing here touches a
// table's rows. Called by Migration on a pool thread.
#pragma once

#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "engine/catalog.hpp"
#include "engine/copy/snapshot.hpp"
#include "engine/copy/table_copy.hpp"
#include "engine/ddl/policy.hpp"
#include "engine/selection.hpp"
#include "engine/store/journal.hpp"

namespace walferry {

enum class Until { Never, Copied, CaughtUp, Cutover };

struct MigrationOptions {
  pg::ConnInfo source;
  pg::ConnInfo target;
  std::filesystem::path state_dir;
  int jobs = 2;
  copy::SplitTables split_tables = copy::SplitTables::Auto;
  unsigned apply_lanes = 1;  // connections that write a large group of changes at the same time
  std::optional<std::string> listen;
  Until until = Until::Never;
  std::string slot;                       // empty: walferry_<source database>
  std::vector<std::string> publications;  // existing ones; empty: walferry makes its own
  SelectionRules selection = {};          // of tables; empty: all
  bool schema = true;
  bool copy = true;  // false: the target holds what the source holds when the slot is made
  // The target holds the data already, as of this LSN of the source: nothing is made or copied. Zero: it was not said.
  std::optional<Lsn> adopt = {};
  bool allow_nonempty_target = false;
  bool replica_identity_full = false;
  bool ddl_trigger = true;  // event triggers on the source, where the role may
  ddl::OnDdl on_ddl = ddl::OnDdl::Stop;
  bool owners = true;  // carry owners and grants as they are
  std::optional<std::filesystem::path> pg_bin_dir;
  std::chrono::milliseconds progress_interval{1'000};
  std::function<void(const Status&)> on_progress = {};
};

// Both ends, as they answered when they were last asked.
struct Ends {
  DatabaseIdentity source;
  DatabaseIdentity target;
  std::string client_encoding;
};

// Asks both ends who they are. On a new migration the answers are pinned; later they must be the same (G4).
// Throws Error{Refused} naming which end is another one than before, swapped ends included. An adopted physical copy
// bears the source's identity, and is told apart by what only one of the two has.
[[nodiscard]] Ends identify(const MigrationOptions& options, store::Journal& journal);

// Everything before the slot: what `check` calls FAIL stops here; settings are recorded. Fresh migrations only.
void guard_and_record(const MigrationOptions& options, const Ends& ends, store::Journal& journal);

// The second half: how the migration was begun, and which databases it is between.
void record_settings(const MigrationOptions& options, const Ends& ends, store::Journal& journal);

// Event triggers that tell of schema changes, where they are wanted and permitted. Before the slot: what changes after
// its consistent point is in the stream.
void make_ddl_trigger(pg::Session& source, const MigrationOptions& options, const std::string& publication,
                      store::Journal& journal);

// Replica identities (where told to), publication, slot with its snapshot, the position on the target.
[[nodiscard]] copy::Snapshot publish_and_create_slot(const MigrationOptions& options, const Ends& ends,
                                                     store::Journal& journal,
                                                     std::function<void(const std::string&)> on_waiting);

// The same where slot and publications were made before the target's data: they become the migration's, the position
// is that of the data. What `check` has found right is taken for granted.
void adopt_slot(const MigrationOptions& options, const Ends& ends, store::Journal& journal);

// The tables of the publications, as `session` sees them: those that hold rows, or the partitioned tables that are
// published in place of their partitions.
[[nodiscard]] std::vector<Table> published_tables(pg::Session& session, const std::vector<std::string>& publications,
                                                  Sizes sizes = Sizes::Read);
[[nodiscard]] std::set<QualifiedName> published_names(pg::Session& session,
                                                      const std::vector<std::string>& publications);

// Those of which the publications carry only some columns, or only the rows that a condition meets (from 15): changes
// of the others would be missed, and nothing would tell.
[[nodiscard]] std::vector<std::string> filtered_tables(pg::Session& session,
                                                       const std::vector<std::string>& publications);

// Those of which the publications carry generated columns (from 18), which the target computes itself.
[[nodiscard]] std::vector<std::string> tables_with_generated_columns_published(
    pg::Session& session, const std::vector<std::string>& publications);

[[nodiscard]] std::vector<std::string> recorded_publications(const store::Journal& journal);

// Whether the migration carries the whole database, and so what no publication carries, too.
[[nodiscard]] bool carries_everything(const MigrationOptions& options, const store::Journal& journal);

// The catalog of the source without the tables that are not selected.
[[nodiscard]] Catalog read_selected_catalog(pg::Session& source, const SelectionRules& rules,
                                            Sizes sizes = Sizes::Read);

// A selection holds from the first run on: the recorded one. Throws Error{Refused} when `given` is another one.
[[nodiscard]] SelectionRules settled_selection(const store::Journal& journal, const SelectionRules& given);

// --adopt holds from the first run on, likewise.
[[nodiscard]] std::optional<Lsn> settled_adoption(const store::Journal& journal, const std::optional<Lsn>& given);

// Throws Error{Refused} that says how to get one where --adopt names no LSN.
void require_adoption_point(const MigrationOptions& options);

// Of a migration whose ends bear one identity: the slot is on the source alone, the position on the target alone.
// Throws Error{Refused} when `session` is of the other end.
void require_end(pg::Session& session, Side side, const std::string& slot);

// "walferry_<database>", made fit for a slot's name.
[[nodiscard]] std::string default_slot_name(std::string_view database);

}  // namespace walferry
