// Roles that the source database needs and the target does not have.
//
// Needed are those that own an object of the database or stand in a grant, a default privilege, a policy or a user
// mapping of it (pg_shdepend says so exactly), and the owner of the database. Missing ones are created with the same
// attributes and the memberships among needed roles; never with SUPERUSER or REPLICATION and never with a password.
// Called by check and by the schema phase.
#pragma once

#include <string>
#include <vector>

#include "engine/pg/session.hpp"

namespace walferry::schema {

// By name; predefined roles (pg_...) are left out.
[[nodiscard]] std::vector<std::string> needed_roles(pg::Session& source);
[[nodiscard]] std::vector<std::string> missing_roles(pg::Session& source, pg::Session& target);

struct CreatedRole {
  std::string name;
  // Sentences for the report: "created without a password: ...", what was not carried and why.
  std::vector<std::string> remarks;
};

// In one transaction; does nothing when none is missing. Those that exist, and that our role may administer without
// being a member of them, are granted to it.
std::vector<CreatedRole> create_missing_roles(pg::Session& source, pg::Session& target);

}  // namespace walferry::schema
