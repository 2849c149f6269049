// abort --drop-target-objects: takes away what the archive put on the target, and nothing else.
//
// The statements are pg_restore's own DROPs of the archive's entries, last created first. None cascades: an object that
// something foreign depends on stays and is reported, and so do schemas that are not empty. Extensions, the schema
// public, comments, grants and roles stay, since the target may have had them before. Each statement is its own
// transaction and may be repeated. Only for a target whose schema came from this archive (not after --no-schema).
#pragma once

#include <filesystem>
#include <stop_token>
#include <string>
#include <vector>

#include "engine/pg/session.hpp"
#include "engine/schema/pg_tools.hpp"

namespace walferry::schema {

struct DropReport {
  std::size_t executed = 0;
  std::vector<std::string> left;  // "DROP TABLE ...: why", and what is left on purpose
};

DropReport drop_migrated_objects(const PgTools& tools, pg::Session& target, const std::filesystem::path& archive,
                                 const std::stop_token& stop = {});

}  // namespace walferry::schema
