// What a database holds, as far as a migration must know: tables with their columns and keys, sequences, identity.
//
// Read once per use from one session, so that everything in one Catalog belongs to one snapshot of that session. System
// schemas, walferry's own schema and objects that belong to an extension are left out. Called by check, copy, apply,
// sequences, verify and cutover.
#pragma once

#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "engine/pg/session.hpp"

namespace walferry {

struct QualifiedName {
  std::string schema;
  std::string name;

  auto operator<=>(const QualifiedName&) const = default;

  // "schema"."name", for SQL.
  [[nodiscard]] std::string quoted() const { return pg::quote_name(schema, name); }
  // schema.name, for people.
  [[nodiscard]] std::string text() const { return schema + "." + name; }
};

struct Column {
  std::string name;
  Oid type{};
  std::string type_name;  // format_type(), with the type modifier
  std::int32_t type_modifier = -1;
  bool not_null = false;
  bool generated = false;  // stored or virtual: computed by the target, never copied
  char identity = ' ';     // 'a' always, 'd' by default, ' ' none
  bool comparable = true;  // equal values are the same value; not so for numeric, float8, jsonb, json, citext ...
};

struct Table {
  Oid oid{};
  QualifiedName name;
  char kind = 'r';         // 'r' ordinary, 'p' partitioned parent (holds no rows)
  char persistence = 'p';  // 'p' permanent, 'u' unlogged
  bool partition = false;
  QualifiedName root;                         // of a partition: the partitioned table at the top
  bool hashes_oids = false;                   // partitioned by the hash of an enum, which is that of its label's oid
  bool hashes_text = false;                   // partitioned by the hash of a text, which is that of its bytes
  bool inherits = false;                      // has rows of its own besides those of its children
  char replica_identity = 'd';                // as in pg_class.relreplident
  std::vector<std::string> identity_columns;  // those that identify a row in the stream; empty: none usable
  bool has_primary_key = false;
  bool deferrable_primary_key = false;
  std::int64_t pages = 0;       // of the heap, from pg_relation_size
  std::int64_t bytes = 0;       // heap and TOAST
  double rows_estimate = -1;    // pg_class.reltuples; -1 unknown
  std::vector<Column> columns;  // live ones in attribute order

  // False from 18 on where a column is generated: the server refuses updates and deletes under FULL then.
  bool full_identity_serves = true;

  // Whether updates and deletes on it can be replicated: a usable key, or identity FULL.
  [[nodiscard]] bool has_usable_identity() const {
    return replica_identity == 'f' ? full_identity_serves : !identity_columns.empty();
  }
  [[nodiscard]] bool holds_rows() const { return kind == 'r'; }
  // As the stream names it.
  [[nodiscard]] RelationId relation() const { return RelationId{static_cast<std::uint32_t>(oid)}; }
};

struct Sequence {
  Oid oid{};
  QualifiedName name;
  std::string type_name;
  std::int64_t start = 1;
  std::int64_t increment = 1;
  std::int64_t minimum = 1;
  std::int64_t maximum = 0;
  std::int64_t cache = 1;
  bool cycle = false;
};

// Which cluster and database a session talks to (G4).
struct DatabaseIdentity {
  std::string system_identifier;
  std::uint32_t database_oid = 0;
  std::string database;
  std::uint32_t timeline = 0;
  int server_version = 0;  // as PQserverVersion: 140023
  std::string encoding;
  bool in_recovery = false;

  [[nodiscard]] bool same_database(const DatabaseIdentity& other) const {
    return system_identifier == other.system_identifier && database_oid == other.database_oid;
  }
};

struct Catalog {
  std::vector<Table> tables;        // by name
  std::vector<Sequence> sequences;  // by name
  std::string encoding = {};        // of the database

  [[nodiscard]] const Table* find(const QualifiedName& name) const;
};

// Partitioned tables at the top whose rows belong to other partitions in every database.
[[nodiscard]] std::set<QualifiedName> hashed_by_oids(const Catalog& catalog);

// Partitioned tables of the source that the target has too, but with other partitions or none, and those that hash
// oids, or texts where the encodings differ: their rows can only be carried by way of the table at the top.
[[nodiscard]] std::set<QualifiedName> partitioned_differently(const Catalog& source, const Catalog& target);

[[nodiscard]] DatabaseIdentity read_identity(pg::Session& session);
// Sizes are asked of the file system, and wait for whoever has locked the table exclusively.
enum class Sizes { Read, LeaveOut };
[[nodiscard]] Catalog read_catalog(pg::Session& session, Sizes sizes = Sizes::Read);
// Parts of it, for when writers wait: tables without columns, keys and sizes; sequences.
[[nodiscard]] Catalog read_table_list(pg::Session& session);
[[nodiscard]] std::vector<Sequence> read_sequences(pg::Session& session);

// The client_encoding that both ends' sessions use: their common encoding, or UTF8, so that conversion happens in the
// servers.
[[nodiscard]] std::string common_encoding(const DatabaseIdentity& source, const DatabaseIdentity& target);

// SQL condition on pg_namespace alias `namespace_alias` that leaves out system schemas and walferry's own.
[[nodiscard]] std::string user_schema_condition(std::string_view namespace_alias);
// SQL condition on pg_class alias `class_alias` that leaves out what belongs to an extension.
[[nodiscard]] std::string no_extension_condition(std::string_view class_alias);

}  // namespace walferry
