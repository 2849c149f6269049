// Which table of the target each table of the source has: told by what they are to the two servers, not by their names.
//
// Names are how a table is found the first time. Two tables whose names change places on the source, and not on the
// target, would be taken for each other ever after (a staging table that becomes the live one is the common case).
// Invariant: what is settled is in the journal before a change is written by it. Shared by the table maps of all
// connections of the apply.
#pragma once

#include <functional>
#include <map>
#include <set>

#include "engine/catalog.hpp"

namespace walferry::apply {

using Homes = std::map<RelationId, Oid>;

class TableHomes {
 public:
  // `known`: of earlier runs; `record` is called with all of them whenever one is added.
  TableHomes(Homes known, std::function<void(const Homes&)> record)
      : homes_(std::move(known)), record_(std::move(record)) {}

  // Before the first change: the tables that were copied are those of the same names. Whose rows are somewhere is said
  // by `copied` ever after.
  void begin(const std::map<QualifiedName, RelationId>& copied, const Catalog& target);
  // `table` of the target has the name that `relation` has on the source now. Throws Error{Divergence} where the
  // relation had another one that is still there, or this one is that of another relation.
  void settle(RelationId relation, const Table& table, const Catalog& target);
  // settle() would have something to say, or to note.
  [[nodiscard]] bool differs(RelationId relation, Oid table) const {
    const auto known = homes_.find(relation);
    return known != homes_.end() && known->second != table;
  }

 private:
  void record() const {
    if (record_) record_(homes_);
  }

  // Throws where the table holds rows of another relation.
  void require_free(RelationId relation, const Table& table) const;

  Homes homes_;
  std::set<RelationId> copied_;
  std::function<void(const Homes&)> record_;
};

}  // namespace walferry::apply
