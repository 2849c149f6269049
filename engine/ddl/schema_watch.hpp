// Sees schema changes in the catalogs, whether or not the stream told of them.
//
// The source's inventory of the moment of the slot is the baseline, kept in the journal. What differs from it since is
// settled when the target holds the same, or when it came through the stream and was run, passed over or skipped there;
// anything else is a finding, and a finding blocks the cutover. Of a migration of selected tables only what is part of
// them counts. Blocking; used by Watcher, by the cutover's guards and
// by the apply, each with an instance of its own.
#pragma once

#include <string>
#include <vector>

#include "engine/ddl/command.hpp"
#include "engine/ddl/inventory.hpp"
#include "engine/pg/conninfo.hpp"
#include "engine/status.hpp"
#include "engine/store/journal.hpp"

namespace walferry::ddl {

class SchemaWatch {
 public:
  SchemaWatch(pg::ConnInfo source, pg::ConnInfo target, store::Journal& journal)
      : source_(std::move(source)), target_(std::move(target)), journal_(&journal) {}

  // As `source` sees it: the snapshot of the slot.
  static void record_baseline(pg::Session& source, store::Journal& journal);

  [[nodiscard]] std::vector<DdlFinding> compare();
  // Whether the target holds what the command made, by the definition of every object that it names. Changes that leave
  // no trace in the inventory (grants) are never found to be there. `target`: the apply's own session, which alone sees
  // what its open transaction has changed and waits for none of its locks.
  [[nodiscard]] bool target_has(pg::Session& target, const Command& command);
  // The command came through the stream and is settled.
  void passed(const Command& command);
  // A person says that exactly this, which compare() has found, is no difference: the same in other words, or none that
  // counts. The object's next change is a finding again.
  static void accept(store::Journal& journal, const DdlFinding& finding, const std::string& reason);

 private:
  pg::ConnInfo source_;
  pg::ConnInfo target_;
  store::Journal* journal_;
  std::string settled_digest_;  // of a source without findings
};

}  // namespace walferry::ddl
