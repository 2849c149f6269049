// Everything a cutover opens and reads before writers are stopped, so that nothing of it is done while they wait.
//
// Also knows what is not in the stream and is brought over while nobody writes: unlogged tables, large objects, rows of
// users in tables of extensions. Made by Cutover on a pool thread and used by one thread at a time.
#pragma once

#include <chrono>
#include <memory>
#include <vector>

#include "engine/copy/table_copy.hpp"
#include "engine/cutover/fence.hpp"
#include "engine/outside/extension_tables.hpp"
#include "engine/outside/large_objects.hpp"
#include "engine/setup.hpp"
#include "engine/verify/digest.hpp"
#include "engine/verify/verify.hpp"

namespace walferry::cutover {

struct Prepared {
  Fence fence;
  pg::Session source;
  pg::Session target;
  pg::Session observer;               // of the source's schema, beside the others
  std::string schema_digest;          // of the schema that the guards have seen
  std::vector<FencedTable> tables;    // all that can be written to
  std::vector<QualifiedName> locked;  // these, and what is not in the stream and may be locked
  std::vector<Sequence> sequences;
  std::set<QualifiedName> others_sequences = {};  // of tables that are not carried
  Verification verification;
  std::vector<SequenceValue> sequence_values = {};  // as they were set on the target
  std::vector<copy::TableToCopy> unlogged = {};
  std::vector<outside::ExtensionTable> extension_tables = {};
  bool large_objects = false;
  bool everything = false;              // the whole database is carried
  std::vector<std::string> notes = {};  // for the report: what is left out, what could not be done
  Catalog target_catalog;               // `unlogged` points into it
};

struct PrepareRequest {
  const MigrationOptions& options;
  store::Journal& journal;
  std::string client_encoding;
  std::chrono::milliseconds time_limit;
  bool refresh_first = false;  // materialized views now, not while writers wait
};

// Every table that is migrated, by rows alone: sequences are set and proven by the cutover itself, since an application
// may draw from them without writing a row.
[[nodiscard]] VerifyOptions what_to_compare(const MigrationOptions& options, const store::Journal& journal,
                                            pg::Session& source);

// Why tables of the source are not, or not wholly, in the migration. `selected`: the source's catalog now.
[[nodiscard]] std::vector<std::string> table_blockers(pg::Session& source, const Catalog& selected,
                                                      const store::Journal& journal);

// Blocking. Nothing is stopped yet; large objects are brought over once, so that few are left for later.
[[nodiscard]] std::shared_ptr<Prepared> prepare(const PrepareRequest& request);

// While writes are stopped, under one snapshot.
void copy_unlogged_tables(Prepared& prepared, const MigrationOptions& options, const std::string& client_encoding);

// For a dry run: what the large objects will cost, measured by reading them; empty when there are none.
[[nodiscard]] std::string describe_large_objects(const MigrationOptions& options, std::chrono::milliseconds time_limit);

}  // namespace walferry::cutover
