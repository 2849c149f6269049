// What is made on the target after the rows are in: indexes, constraints, triggers ... as items with a stage each.
//
// Built from the archive's post-data entries; every name comes from the SQL itself. A comment is part of the item it
// belongs to. An item that needs another one never stands in an earlier stage, nor beside it in a parallel one. Pure:
// no I/O. Called by the copy engine, which hands the items to execute_item().
#pragma once

#include <map>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/catalog.hpp"
#include "engine/schema/sql_script.hpp"

namespace walferry::schema {

enum class ItemKind {
  Index,
  IndexSetting,     // CLUSTER ON, REPLICA IDENTITY USING INDEX
  Constraint,       // primary key, unique, exclusion
  CheckConstraint,  // not valid ones of tables
  DomainConstraint,
  ForeignKey,
  IndexAttach,
  Statistics,
  Trigger,
  TriggerState,  // of a partition whose trigger differs from its parent's
  Rule,
  Policy,
  RowSecurity,
  EventTrigger,
  View,  // the real definition of a view that depends on a primary key
  MatviewDefinition,
  MatviewData,  // REFRESH
  Routine,
  Other,  // grants, default privileges ...: all of them repeatable
};

[[nodiscard]] std::string_view to_string(ItemKind kind);

enum class Stage {
  // Indexes, primary keys, unique and exclusion constraints, extended statistics of a table whose rows are copied: as
  // soon as its rows are in; items of one table and of different tables may run in parallel. Of the keys of a table
  // with further indexes only the index.
  Table,
  // The same of partitioned parents and materialized views, the keys that take such an index over, checks (they reach
  // into child tables), attachments and settings of indexes: one after the other, after every table's items. Nearly all
  // of it is catalog work.
  Remaining,
  // In parallel, after Remaining. They need the rows of one moment in all tables.
  ForeignKeys,
  // Triggers, rules, policies, event triggers, views and functions that needed a primary key, filling of materialized
  // views, grants on those: one after the other.
  Last,
};

struct PostDataItem {
  ItemKind kind = ItemKind::Other;
  Stage stage = Stage::Last;
  std::string schema;                  // of the object; empty where it has none
  std::string name;                    // of the object; the parent index for IndexAttach, the domain's constraint ...
  std::optional<QualifiedName> table;  // the relation (or domain) it belongs to; the child index for IndexAttach
  char wanted_state = ' ';             // of TriggerState, as pg_trigger.tgenabled
  int order = 0;                       // position in the dump
  std::vector<int> depends_on;         // dump ids
  int dump_id = 0;
  std::vector<std::string> settings;  // hold while it is executed
  std::string sql;                    // with its comments; one or more statements, executed as one transaction

  // "index public.person_name on public.person", for messages.
  [[nodiscard]] std::string text() const;
};

// The item of one archive entry; order and stage as its kind alone decides.
[[nodiscard]] PostDataItem make_item(const ScriptEntry& entry);

class PostDataPlan {
 public:
  // `copied` names the tables whose rows are copied (Table::holds_rows()).
  PostDataPlan(std::span<const ScriptEntry> entries, const std::set<QualifiedName>& copied);

  [[nodiscard]] std::span<const PostDataItem> table_items(const QualifiedName& table) const;
  [[nodiscard]] std::span<const PostDataItem> remaining() const { return remaining_; }
  [[nodiscard]] std::span<const PostDataItem> foreign_keys() const { return foreign_keys_; }
  [[nodiscard]] std::span<const PostDataItem> last() const { return last_; }
  // Tables that have table_items(), by name.
  [[nodiscard]] std::vector<QualifiedName> tables() const;
  [[nodiscard]] std::size_t size() const;

 private:
  std::map<QualifiedName, std::vector<PostDataItem>> table_items_;
  std::vector<PostDataItem> remaining_;
  std::vector<PostDataItem> foreign_keys_;
  std::vector<PostDataItem> last_;
};

}  // namespace walferry::schema
