// The target's tables as the apply must know them: the catalog, and what decides how changes to a table may be written.
//
// Read in one go by a blocking session, waiting for no lock of a table: when an apply connection is made, and when the
// stream brings a relation that the catalog at hand does not fit. Used by TableMap.
#pragma once

#include <map>
#include <set>
#include <string>
#include <vector>

#include "engine/catalog.hpp"

namespace walferry::apply {

// Another table with a foreign key to one.
struct Referrer {
  Oid table{};
  Oid root{};               // of its partitions, or itself
  bool keeps_rows = false;  // that the stream carries: neither unlogged nor partitioned itself
};

struct TableTraits {
  // A trigger or rule of it, or of a partition, fires in replica mode: others may see each change at its place.
  bool fires = false;
  // A deferrable or exclusion constraint: what changes stand together decides whether they are accepted.
  bool in_order = false;
  std::vector<Referrer> referrers = {};
  // The columns of the one unique index, where no two values of them are equal that differ as text; else none.
  std::set<std::string> only_key = {};
  // By column of a unique index: the operator by which the index compares it.
  std::map<std::string, std::string> equality = {};
};

struct TypeTraits {
  std::string name;  // qualified and quoted
  // A text cast to it is read by its input function; some types have a cast from text of another meaning.
  bool reads_text = false;
  std::string equality = "=";  // the operator of its default class for btree, else for hash
  bool has_array = false;      // an array of it is a type, and is compared element by element
};

struct TargetTables {
  Catalog catalog = {};
  std::map<Oid, TableTraits> tables = {};  // of those that are not listed nothing is to be known
  std::map<Oid, TypeTraits> types = {};    // of all columns
  // Not in the catalog. A publication FOR ALL TABLES has them, and those of schema walferry, where the source was the
  // target of another migration.
  std::set<QualifiedName> of_extensions = {};

  // The stream does not carry it: the cutover does, or nobody.
  [[nodiscard]] bool leaves_out(const QualifiedName& name) const {
    return name.schema == "walferry" || of_extensions.contains(name);
  }
};

[[nodiscard]] TargetTables read_target_tables(pg::Session& session);

}  // namespace walferry::apply
