// One schema change of the source as the stream tells it, put together from the trigger's messages.
//
// A command comes as one message at its end, after those that say what it dropped and which tables it rewrote. Reader
// keeps what belongs together inside one transaction. Nothing here talks to a server. Used by Applier; messages are
// made by trigger.cpp.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/catalog.hpp"
#include "protocol/lsn.hpp"

namespace walferry::ddl {

// What rows written before columns were added hold in them: decided once, by the source.
struct AddedValues {
  QualifiedName table;
  RelationId id{};
  std::map<std::string, std::optional<std::string>> values = {};  // by column; of earlier commands too
};

struct Object {
  std::string type;      // "table", "index", "table column" ...
  std::string identity;  // as pg_identify_object writes it; empty for grants
  bool dropped = false;

  // Of a table that is there after the command:
  std::optional<QualifiedName> table = {};
  RelationId id{};
  bool holds_rows = false;              // ordinary and permanent
  bool published = false;               // in walferry's own publication
  std::vector<AddedValues> added = {};  // its own, and of the tables below it
};

// A table whose rows a command filled with values that the target would make otherwise: they must be copied again.
struct RewrittenTable {
  QualifiedName name;
  RelationId id{};  // on the source; stays when the table is renamed
};

struct Command {
  Lsn lsn;  // of its message: names it for `walferry skip`
  Lsn commit_lsn;
  Xid xid{};
  std::string tag;    // "ALTER TABLE"
  std::string role;   // that ran it
  std::string query;  // as the client sent it, perhaps with other statements
  std::vector<Object> objects;
  std::vector<std::pair<std::string, std::string>> settings;  // search_path and what decides how values are read

  std::optional<std::string> statement;  // exactly this command, fit for a transaction block
  std::vector<RewrittenTable> rewritten;
  std::string not_executable;  // why it cannot be run on the target as it stands; empty: it can

  // "ALTER TABLE public.t"
  [[nodiscard]] std::string title() const;
  // Whether it can bring a trigger, a rule or an identity column.
  [[nodiscard]] bool may_bring_actions() const;
  // Where they can be told from the message.
  [[nodiscard]] std::vector<QualifiedName> dropped_tables() const;
  // What a person runs on the target.
  [[nodiscard]] std::string to_run() const;
};

// Where a message stands.
struct Place {
  Lsn lsn;
  Lsn commit_lsn;
  Xid xid{};
  std::span<const Xid> aborted = {};  // subtransactions of it that were rolled back, sorted
};

class Reader {
 public:
  // Messages that do not carry it were not written by our trigger and are passed over.
  void set_secret(std::string secret) { secret_ = std::move(secret); }
  // nullopt: nothing to do, or more of this command follows.
  [[nodiscard]] std::optional<Command> accept(std::string_view content, const Place& place);
  // A transaction began, or reading begins anew.
  void reset();

 private:
  std::string secret_;
  std::vector<Object> dropped_;
  struct Rewrite {
    std::string table;
    RelationId id{};
    int reason = 0;
  };
  std::vector<Rewrite> rewritten_;
  // Of the query string being worked off: which of its statements come next.
  std::string query_key_;
  std::size_t next_statement_ = 0;
};

}  // namespace walferry::ddl
