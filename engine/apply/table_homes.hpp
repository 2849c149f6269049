// Which table of the target each table of the source has: told by what they are to the two servers, not by their names.
//
// Names are how a table is found the first time. Two tables whose names change places on the source, and not on the
// target, would be taken for each other ever after (a staging table that becomes the live one is the common case).
// Invariant: what is settled is in the journal before a change is written by it. Shared by the table maps of all
// connections of the apply.
#pragma once

#include <functional>
#include <map>

#include "engine/catalog.hpp"

namespace walferry::apply {

using Homes = std::map<RelationId, Oid>;

class TableHomes {
 public:
  // `known`: of earlier runs; `record` is called with all of them whenever one is added.
  TableHomes(Homes known, std::function<void(const Homes&)> record)
      : homes_(std::move(known)), record_(std::move(record)) {}

  // Before the first change: the tables that were copied are those of the same names.
  void begin(const std::map<QualifiedName, RelationId>& copied, const Catalog& target);
  // `table` of the target has the name that `relation` has on the source now. Throws Error{Divergence} where the
  // relation had another one that is still there.
  void settle(RelationId relation, const Table& table, const Catalog& target);

 private:
  void record() const {
    if (record_) record_(homes_);
  }

  Homes homes_;
  std::function<void(const Homes&)> record_;
};

}  // namespace walferry::apply
