// Runs one schema change of the source on the target, inside the transaction that is open there.
//
// As the role that ran it on the source, with its search_path and formats; afterwards the session is as before. What a
// default gave to rows that were there already is taken from the source, not computed again. Blocking; called by
// Applier with the apply's own session, so that the change is committed together with the position (G1).
#pragma once

#include "engine/ddl/command.hpp"
#include "engine/pg/session.hpp"

namespace walferry::ddl {

struct ExecuteOptions {
  bool as_role = true;  // false: everything on the target belongs to the connecting role (--no-owner)
};

// Columns that somebody else added on the target: rows that hold what its own default gave them then hold what the
// source's gave. No other row has that value of the target's, where it is a time; where both are the same nothing is
// done.
void replace_own_defaults(pg::Session& target, const AddedValues& added);

// Throws Error{Sql}; the transaction is then lost.
void execute(pg::Session& target, const Command& command, const ExecuteOptions& options);

}  // namespace walferry::ddl
