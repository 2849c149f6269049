// The blocking work of the phases schema, copy and post-data: what brings the target to one moment of the source before
// the stream takes over.
//
// Owns the snapshot the tables are read under and the plan of what is built after the rows. Invariant: every step may
// be begun again after any failure; what is finished already is found in the journal or on the target and left alone.
// Called by Migration, one step at a time, on a pool thread.
#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "engine/copy/index_builder.hpp"
#include "engine/copy/snapshot.hpp"
#include "engine/schema/pg_tools.hpp"
#include "engine/schema/post_data.hpp"
#include "engine/setup.hpp"
#include "engine/status.hpp"
#include "engine/store/journal.hpp"

namespace walferry {

class InitialCopy {
 public:
  // What it tells while it works; called from pool threads.
  struct Watch {
    std::function<void(std::string)> on_activity;
    std::function<void(const QualifiedName&, TableState)> on_table;
    std::function<std::shared_ptr<CopyCounters>(const QualifiedName&)> counters;
  };

  // The references must outlive it.
  InitialCopy(const MigrationOptions& options, const Ends& ends, store::Journal& journal, Watch watch)
      : options_(options), ends_(ends), journal_(journal), watch_(std::move(watch)) {}

  // The slot's own snapshot, from the moment the slot was made.
  void take(copy::Snapshot snapshot) { snapshot_ = std::move(snapshot); }

  // Roles, schemas, types, tables, functions: all that must be there before the rows. Once, in one transaction.
  void move_schema();
  // The tables whose rows are migrated, as the snapshot sees them.
  [[nodiscard]] std::vector<Table> tables();
  // Their rows; indexes and unique constraints of a finished table are built while others are copied.
  void copy(const std::vector<Table>& tables);
  // What is left of each table's indexes and constraints, and whatever belongs to no table.
  void build_indexes();
  // The copy LSN up to which changes must be applied so that tables copied under different snapshots are at one moment;
  // nothing when they are already.
  [[nodiscard]] std::optional<Lsn> common_moment() const;
  // Foreign keys, triggers and all that wants every row in place; statistics.
  void build_the_rest();

 private:
  void copy_large_objects();
  // Throws Error{snapshot_gone} where the stream comes from a server that does not have these rows.
  void leave_out_what_went(const std::vector<Table>& tables);
  void record_copied(const Table& table);
  // A living snapshot: the one at hand, or a fresh one under a temporary slot.
  copy::Snapshot& snapshot();
  [[nodiscard]] schema::PgTools pg_tools() const;
  [[nodiscard]] schema::PostDataPlan read_plan(const std::set<QualifiedName>& tables) const;
  [[nodiscard]] copy::IndexBuilderOptions build_options() const;
  [[nodiscard]] std::filesystem::path archive_path() const { return options_.state_dir / "schema.dump"; }

  const MigrationOptions& options_;
  const Ends& ends_;
  store::Journal& journal_;
  Watch watch_;
  std::optional<copy::Snapshot> snapshot_;
  std::optional<schema::PostDataPlan> plan_;  // from build_indexes() on
};

}  // namespace walferry
