// Writes the net changes of tables as sets: DELETE .. USING unnest, UPDATE .. FROM unnest, then COPY for what is
// inserted.
//
// A set travels as one array per column. Numbers, dates and the like are binary (protocol/binary_value.hpp), and so is
// a COPY of a table that has nothing but these and text; every other value is the text that the source sent, cast by
// the target, which calls the type's own input function: right for arrays of any dimension, composites, domains and
// types of extensions alike. Few rows, and types for which that cast means something else, go through
// RowWriter. Called by Applier at the end of a group, at barriers, and when enough is gathered.
#pragma once

#include <array>
#include <string>
#include <vector>

#include "engine/apply/pipeline.hpp"
#include "engine/apply/row_writer.hpp"
#include "engine/async.hpp"

namespace walferry::apply {

class SetWriter {
 public:
  SetWriter(Pipeline& pipeline, TableMap& tables, RowWriter& rows)
      : pipeline_(pipeline), tables_(tables), rows_(rows) {}

  // Sends what is gathered for these tables and clears it. Outcomes are read later, with the rest of the pipeline.
  Awaitable<void> write(std::vector<MappedTable*> tables);

 private:
  using Row = NetChanges::Row;

  Awaitable<void> write_removed(MappedTable& table);
  Awaitable<void> write_updated(MappedTable& table);
  Awaitable<void> write_inserted(MappedTable& table);
  // UPDATE or DELETE of many rows by `statement`.
  Awaitable<void> write_set(MappedTable& table, Statement& statement, Operation operation,
                            const std::vector<const Row*>& rows);
  void begin_arrays(const MappedTable& table, const Statement& statement);
  std::size_t append_row(const MappedTable& table, const Statement& statement, const Row& row);
  void send_arrays(MappedTable& table, Statement& statement, Operation operation, std::uint32_t rows);

  Pipeline& pipeline_;
  TableMap& tables_;
  RowWriter& rows_;
  std::vector<std::vector<std::byte>> arrays_;  // one per parameter
  std::vector<std::string_view> values_;
};

}  // namespace walferry::apply
