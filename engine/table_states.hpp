// The tables of the migration as the status shows them: which there are, how large, and how far each is.
//
// Owns the index into Status::tables; a table's state only goes forward until it is described anew. Used by Migration
// on the io thread; the counters alone are written by copy threads.
#pragma once

#include <map>
#include <memory>
#include <vector>

#include "engine/status.hpp"
#include "engine/store/journal.hpp"

namespace walferry {

class TableStates {
 public:
  TableStates(Status& status, const store::Journal& journal) : status_(status), journal_(journal) {}

  // Adds those that are new, and says of each what the journal knows: copied, or still to be.
  void describe(const std::vector<Table>& tables);
  void advance(const QualifiedName& table, TableState state);
  void all_ready();
  [[nodiscard]] std::shared_ptr<CopyCounters> counters(const QualifiedName& table) const {
    return status_.tables[index_.at(table)].copied;
  }

 private:
  Status& status_;
  const store::Journal& journal_;
  std::map<QualifiedName, std::size_t> index_;  // into status_.tables
};

}  // namespace walferry
