// Runs one schema change of the source on the target, inside the transaction that is open there.
//
// As the role that ran it on the source, with its search_path and formats; afterwards the session is as before. What a
// default gave to rows that were there already is taken from the source, not computed again. Blocking; called by
// Applier with the apply's own session, so that the change is committed together with the position (G1).
#pragma once

#include <functional>
#include <set>
#include <string>

#include "engine/ddl/command.hpp"
#include "engine/pg/session.hpp"

namespace walferry::ddl {

struct ExecuteOptions {
  bool as_role = true;  // false: everything on the target belongs to the connecting role (--no-owner)
};

using ColumnNames = std::set<std::string, std::less<>>;

// Rows that were there before the columns hold what the source decided when it added them (DEFAULT now()), in all but
// the `known` ones. Of columns that the target has.
void fill_added_columns(pg::Session& target, const AddedValues& added, const ColumnNames& known);

// Throws Error{Sql}; the transaction is then lost.
void execute(pg::Session& target, const Command& command, const ExecuteOptions& options);

}  // namespace walferry::ddl
