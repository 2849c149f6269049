// From a relation of the stream to the statements that change its table on the target.
//
// A MappedTable belongs to one version of one Relation message. Columns are matched by name; the statements name every
// column and are prepared under a name of their own. Made by TableMap when the relation first appears, or appears
// changed.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "engine/apply/net_changes.hpp"
#include "engine/apply/table_homes.hpp"
#include "engine/apply/target_tables.hpp"
#include "engine/store/source_types.hpp"
#include "protocol/binary_value.hpp"
#include "protocol/pgoutput.hpp"

namespace walferry::apply {

struct MappedColumn {
  std::string name;
  bool key = false;  // identifies the row on the target
  bool comparable = true;
  Oid source_type{};
  std::int32_t source_modifier = -1;
  Oid target_type{};
  std::string equality = "=";             // the operator that compares it
  std::string type = {};                  // of the target's column, for a cast; empty: a cast from text would not do
  bool has_array = false;                 // of the target's type
  BinaryType element = BinaryType::Text;  // as which its values travel in sets
};

// A statement to prepare: its text, and which tuple columns are its parameters, in order.
struct Statement {
  std::string name;  // on the server
  std::string sql;
  std::vector<std::uint16_t> new_columns;  // parameters from the new tuple
  std::vector<std::uint16_t>
      old_columns;        // then parameters from the old tuple (or the new one, where the key is unchanged)
  bool prepared = false;  // on the connection in use
};

struct MappedTable {
  QualifiedName name;
  Oid target{};
  bool full_identity = false;         // no key on the target either: rows are found by all their columns
  bool whole_old_rows = false;        // REPLICA IDENTITY FULL on the source
  bool partitioned = false;           // on the target: statements must reach the partitions
  std::vector<MappedColumn> columns;  // in the stream's order
  Lsn copy_lsn;                       // transactions that committed before it are already in the copied rows

  // Free: changes may be gathered and folded. InTable: written one by one, in their order among themselves.
  // Everywhere: others can see them at their place, so what was gathered before goes first.
  enum class Order : std::uint8_t { Free, InTable, Everywhere };
  Order order = Order::Free;
  std::optional<NetChanges> changes;                         // gathered and not yet written
  std::chrono::steady_clock::time_point distrusted_until{};  // its net changes were refused: nothing is gathered
  bool set_key = false;                                      // the key can travel in a set
  bool splits = false;                                       // rows of different keys do not depend on each other
  std::string copy_sql;                                      // COPY of whole rows
  bool copy_binary = false;                                  // in binary: no value is text that the target would read
  Statement copied_types;  // after that: fails unless the columns still have the types that the values were made for

  Statement insert;
  // Keyed by shape, with an 'o' behind it where an old tuple came with it.
  std::map<std::string, Statement, std::less<>> updates;
  Statement remove;
  // The same for net changes of few rows: they fail where they do not meet exactly one, so nobody has to look before
  // the commit is sent.
  std::map<std::string, Statement, std::less<>> guarded_updates;
  Statement guarded_remove;                                   // its text is empty until it is needed
  std::map<std::string, Statement, std::less<>> set_updates;  // by the columns that came
  Statement set_remove;                                       // its text is empty until it is needed

  [[nodiscard]] std::string reference() const { return (partitioned ? "" : "ONLY ") + name.quoted(); }
};

// What the source's columns were when their relation was last described and taken, whichever connection wrote it.
struct KnownTypes {
  store::SourceTypes types = {};
  // Blocking, on disk when it returns: of a relation that was known before, another description.
  std::function<void(RelationId, const store::ColumnTypes&)> record = {};
};

// Which columns a row carries ('1') or leaves unchanged ('0').
[[nodiscard]] std::string shape_of(const RowView& row);

class TableMap {
 public:
  // Whether this is the description at hand.
  [[nodiscard]] bool knows(const pgoutput::RelationView& relation, Bytes message) const;
  // Called for every Relation message; false when the table is unknown in the catalog at hand and it should be read
  // again.
  [[nodiscard]] bool describe(const pgoutput::RelationView& relation, Bytes message);
  // The table a change belongs to; describe() has been called before it in every block.
  [[nodiscard]] MappedTable& find(RelationId relation);

  // Of tables that are described already, what depends on the target's constraints, triggers and types is looked at
  // again.
  // Nothing is gathered for them.
  void set_target(TargetTables target);
  // Up to where the copy holds each table's changes. A name may be another table's by now, so what they are to the
  // source counts, where that is known: for whoever has copied them himself.
  void set_copied(const std::map<QualifiedName, Lsn>& copied, const std::map<QualifiedName, RelationId>& relations) {
    copied_ = copied;
    for (const auto& [name, relation] : relations) {
      if (const auto found = copied.find(name); found != copied.end()) copied_relations_[relation] = found->second;
    }
  }
  // As it was last looked at.
  [[nodiscard]] const Table* find_on_target(const QualifiedName& name) const { return target_.catalog.find(name); }
  void set_homes(std::shared_ptr<TableHomes> homes) { homes_ = std::move(homes); }
  void set_source_types(KnownTypes types) { *types_ = std::move(types); }
  // Of two maps that see changes of the same relations: what changed must be noticed by either.
  void share_source(const TableMap& other) {
    types_ = other.types_;
    homes_ = other.homes_;
  }
  // The table's changes are written one by one until then.
  void distrust(const QualifiedName& name, std::chrono::steady_clock::time_point until);
  // Changes to the table do not count until it has been copied again, whatever its name is by then.
  void ignore(RelationId relation);
  // What was gathered and not written.
  void forget_changes();
  // A new connection: nothing is prepared there.
  void forget_prepared();
  // No statement is in flight: descriptions that were replaced meanwhile can go.
  void forget_replaced() { replaced_.clear(); }

  // Whether TRUNCATE is how these are emptied. Not where nothing is in its way but what has no rows that count: an
  // unlogged table, which the source's CASCADE reached unsaid, the partitioned table above those that were listed, or
  // one of the `listed` that is not among the tables, because what happens to it does not count.
  [[nodiscard]] bool truncates(std::span<const MappedTable* const> tables, std::span<const RelationId> listed) const;

  // The UPDATE for this shape of change; prepared later by the caller.
  [[nodiscard]] Statement& update_statement(MappedTable& table, const pgoutput::UpdateView& update);
  [[nodiscard]] Statement& update_statement(MappedTable& table, const std::string& shape);
  [[nodiscard]] Statement& guarded_update_statement(MappedTable& table, const std::string& shape);
  [[nodiscard]] Statement& guarded_remove_statement(MappedTable& table);
  // The UPDATE of many rows of one shape; nullptr where they cannot travel in a set.
  [[nodiscard]] Statement* set_update_statement(MappedTable& table, const std::string& shape);
  // The DELETE of many rows; only where table.set_key.
  [[nodiscard]] Statement& set_remove_statement(MappedTable& table);

 private:
  struct Known {
    std::vector<std::byte> message;
    std::unique_ptr<MappedTable> table;
  };

  // How changes to the table may be gathered and written.
  void judge(MappedTable& table, const Table& target) const;
  void match_types(MappedTable& table, const Table& target) const;
  void build_statements(MappedTable& table);
  void build_copy(MappedTable& table);
  [[nodiscard]] bool is_copied(RelationId relation, const QualifiedName& name) const;
  [[nodiscard]] Lsn copy_lsn_of(RelationId relation, const QualifiedName& name) const;
  void note_types(const pgoutput::RelationView& relation);
  [[nodiscard]] std::string next_name(std::string_view prefix);

  TargetTables target_;
  std::map<QualifiedName, Lsn> copied_;
  std::map<RelationId, Lsn> copied_relations_;
  std::set<RelationId> ignored_;
  std::unordered_map<std::uint32_t, Known> tables_;
  std::shared_ptr<KnownTypes> types_ = std::make_shared<KnownTypes>();
  std::shared_ptr<TableHomes> homes_;
  std::vector<std::unique_ptr<MappedTable>> replaced_;  // statements in flight may still point at them
  std::uint64_t next_statement_ = 1;
};

}  // namespace walferry::apply
