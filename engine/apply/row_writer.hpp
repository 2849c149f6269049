// Writes a change as one prepared statement of its own.
//
// Binds tuples as text, in which every type reads its own form, and hands them to the Pipeline. Either changes as they
// came, in source order, or net changes that are too few to be a set. Called by Applier and SetWriter.
#pragma once

#include <string>
#include <vector>

#include "engine/apply/net_changes.hpp"
#include "engine/apply/pipeline.hpp"
#include "engine/apply/table_map.hpp"

namespace walferry::apply {

class RowWriter {
 public:
  RowWriter(Pipeline& pipeline, TableMap& tables) : pipeline_(pipeline), tables_(tables) {}

  // As they came.
  void insert(MappedTable& table, const pgoutput::InsertView& insert, ChangeOrigin origin);
  void update(MappedTable& table, const pgoutput::UpdateView& update, ChangeOrigin origin);
  void remove(MappedTable& table, const pgoutput::DeleteView& remove, ChangeOrigin origin);
  // `tables`: those of `truncate` whose changes count.
  void truncate(std::span<const MappedTable* const> tables, const pgoutput::TruncateView& truncate,
                ChangeOrigin origin);

  // Of table.changes.
  void insert_net(MappedTable& table, const NetChanges::Row& row);
  void update_net(MappedTable& table, const NetChanges::Row& row);
  void remove_net(MappedTable& table, const NetChanges::Row& row);

 private:
  void begin();
  void bind(const MappedTable& table, const RowView& row, const std::vector<std::uint16_t>& columns);
  void bind_key(const MappedTable& table, const NetChanges::Row& row);
  void append(std::string_view text);
  void send(Statement& statement, Expected expected);

  Pipeline& pipeline_;
  TableMap& tables_;

  // Parameters of the statement being sent: NUL-ended copies in one arena, since libpq takes text that way.
  std::string arena_;
  std::vector<std::size_t> offsets_;
  std::vector<const char*> values_;
};

// Throws Error{Protocol} unless a row has the columns that its relation was described with.
void expect_described(const MappedTable& table, std::uint16_t column_count);

}  // namespace walferry::apply
