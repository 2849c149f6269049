// From a relation of the stream to the statements that change its table on the target.
//
// A MappedTable belongs to one version of one Relation message. Columns are matched by name; the statements name every
// column and are prepared under a name of their own. Made by TableMap when the relation first appears, or appears
// changed.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "engine/catalog.hpp"
#include "protocol/pgoutput.hpp"

namespace walferry::apply {

struct MappedColumn {
  std::string name;
  bool key = false;  // identifies the row on the target
  bool comparable = true;
  Oid type{};  // on the source
  std::int32_t type_modifier = -1;
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
  bool full_identity = false;         // no key on the target either: rows are found by all their columns
  bool partitioned = false;           // on the target: statements must reach the partitions
  std::vector<MappedColumn> columns;  // in the stream's order
  Lsn copy_lsn;                       // transactions that committed before it are already in the copied rows

  Statement insert;
  // Keyed by which columns the new tuple carries ('1') or leaves unchanged ('0') and whether an old tuple came with it
  // ('o').
  std::map<std::string, Statement, std::less<>> updates;
  Statement remove;

  [[nodiscard]] std::string reference() const { return (partitioned ? "" : "ONLY ") + name.quoted(); }
};

class TableMap {
 public:
  // Called for every Relation message; false when the table is unknown in the catalog at hand and it should be read
  // again.
  [[nodiscard]] bool describe(const pgoutput::RelationView& relation, Bytes message);
  // The table a change belongs to; describe() has been called before it in every block.
  [[nodiscard]] MappedTable& find(RelationId relation);

  void set_catalog(Catalog catalog) { catalog_ = std::move(catalog); }
  void set_copied(std::map<QualifiedName, Lsn> copied) { copied_ = std::move(copied); }
  // Changes to the table do not count until it has been copied again.
  void ignore(const QualifiedName& name);
  // A new connection: nothing is prepared there.
  void forget_prepared();
  // No statement is in flight: descriptions that were replaced meanwhile can go.
  void forget_replaced() { replaced_.clear(); }

  // The UPDATE for this shape of change; prepared later by the caller.
  [[nodiscard]] Statement& update_statement(MappedTable& table, const pgoutput::UpdateView& update);

 private:
  struct Known {
    std::vector<std::byte> message;
    std::unique_ptr<MappedTable> table;
  };

  void build_statements(MappedTable& table);
  [[nodiscard]] std::string next_name(std::string_view prefix);

  Catalog catalog_;
  std::map<QualifiedName, Lsn> copied_;
  std::unordered_map<std::uint32_t, Known> tables_;
  std::vector<std::unique_ptr<MappedTable>> replaced_;  // statements in flight may still point at them
  std::uint64_t next_statement_ = 1;
};

}  // namespace walferry::apply
