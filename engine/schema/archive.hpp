// The schema archive: pg_dump's custom format in the state directory, and its pre-data part on the target.
//
// The archive holds every object of the source but no row, no large object, no publication or subscription and nothing
// of the schema walferry. It may hold secrets (user mappings), so only its owner can read it. pg_restore only turns it
// into SQL; the SQL runs in a Session of ours, in one transaction, so that a crash leaves nothing and the caller can
// record in the same transaction that it is done. Called by the schema phase; post_data and drop_objects read the same
// archive.
#pragma once

#include <filesystem>
#include <optional>
#include <set>
#include <stop_token>
#include <string>
#include <utility>
#include <vector>

#include "engine/pg/session.hpp"
#include "engine/schema/pg_tools.hpp"
#include "engine/schema/sql_script.hpp"
#include "engine/selection.hpp"

namespace walferry::schema {

struct DumpOptions {
  std::optional<std::string> snapshot = {};  // an exported one
  std::string encoding = "UTF8";  // of the archive's text: the client_encoding of the sessions that execute it
  std::vector<std::string> exclude_schemas = {"walferry"};
  int lock_wait_seconds = 60;  // for ACCESS SHARE behind somebody's DDL; over it the dump fails, transiently
};

// Writes the archive to `path`, whole or not at all. Throws Error{Schema}, Error{Connection} or Error{Stopped}.
void dump_schema(const PgTools& tools, const pg::ConnInfo& source, const std::filesystem::path& path,
                 const DumpOptions& options = {}, const std::stop_token& stop = {});

// Leaves these objects of the source and what belongs to them out of everything that is read from the archive from now
// on: a list beside it says what counts. None: no list.
void select_entries(const PgTools& tools, const std::filesystem::path& path, const LeftOutObjects& left_out,
                    const std::stop_token& stop = {});

enum class Section { PreData, PostData };

// Who owns and who may do what on the target: as on the source, or as the connecting role leaves it.
struct OwnershipOptions {
  bool owners = true;
  bool privileges = true;
};

// The archive's entries of one section as SQL, in dump order.
[[nodiscard]] std::vector<ScriptEntry> read_section(const PgTools& tools, const std::filesystem::path& path,
                                                    Section section, const OwnershipOptions& ownership = {},
                                                    const std::stop_token& stop = {});

struct RestoreOptions {
  OwnershipOptions ownership = {};
  // Statements of the caller that run last in the same transaction: its record that the schema is there.
  std::vector<std::string> record = {};
};

// Creates the archive's pre-data objects in one transaction. Whether that has been done before is for the caller to
// know (by its record): done twice it fails with "already exists" and changes nothing. Returns the number of entries
// executed.
std::size_t restore_pre_data(const PgTools& tools, pg::Session& target, const std::filesystem::path& path,
                             const RestoreOptions& options = {}, const std::stop_token& stop = {});

// The DROP statements of the archive's objects, last created first; they never cascade.
[[nodiscard]] std::vector<std::string> read_drop_statements(const PgTools& tools, const std::filesystem::path& path,
                                                            const std::stop_token& stop = {});

}  // namespace walferry::schema
