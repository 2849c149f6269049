// Proof that both ends hold the same: rows and an order-independent 128-bit hash of every table, and every sequence.
//
// A row's hash is md5 of its text form, taken by the server under the settings that Session pins; a table's hash is the
// sum of its rows' hashes, each half modulo 2^64, so that order does not matter and duplicates count. verify() opens
// its own sessions; cutover calls digest_tables() on those that it has. Nothing is written on either side. Called by
// cli and cutover.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <set>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

#include "engine/catalog.hpp"
#include "engine/pg/session.hpp"
#include "engine/sequences.hpp"
#include "engine/touched_rows.hpp"

namespace walferry {

struct TableDigest {
  QualifiedName name;
  std::int64_t rows = 0;
  std::string hash;  // 32 hexadecimal digits; zeros for a table without rows or without columns

  bool operator==(const TableDigest&) const = default;
};

// How rows become hashes. Both sides of a comparison must use the same.
struct DigestMethod {
  bool sha256 = false;   // where md5() is forbidden (FIPS); the first 128 bits
  bool as_utf8 = false;  // the encodings of the two databases differ: hash the text's UTF-8 form
};

// Some rows of a table, by their key.
struct DigestKeys {
  std::vector<std::string> columns;
  std::vector<std::string> types;                // as format_type() writes them
  std::vector<std::vector<std::string>> values;  // one list a column, text form
};

struct DigestRequest {
  QualifiedName name;
  std::vector<std::string> columns;     // from digest_columns() of the source's table, for both sides
  std::optional<DigestKeys> keys = {};  // only these rows; absent: all
};

// The method that both servers offer.
[[nodiscard]] DigestMethod choose_digest_method(pg::Session& source, pg::Session& target);

// The names of all columns, sorted, so that the order of attributes does not matter (a dump may change it).
[[nodiscard]] std::vector<std::string> digest_columns(const Table& table);

[[nodiscard]] TableDigest digest_table(pg::Session& session, const Table& table,
                                       const std::vector<std::string>& columns, const DigestMethod& method = {});
// Several tables in one statement and one round trip, in the order given.
[[nodiscard]] std::vector<TableDigest> digest_tables(pg::Session& session, const std::vector<DigestRequest>& requests,
                                                     const DigestMethod& method = {});

// The statement of digest_tables: number, rows, two sums.
[[nodiscard]] std::string digest_query(const std::vector<DigestRequest>& requests, const DigestMethod& method);
// A decimal integer of any length modulo 2^64, as 16 hexadecimal digits. Throws Error{Protocol} for anything else.
[[nodiscard]] std::string hash_half(std::string_view decimal_sum);

struct VerifyOptions {
  int jobs = 2;  // sessions a side
  // Snapshots under which the sides are read (pg_export_snapshot, or that of a slot). Without one, each side is read
  // under one fresh snapshot of its own, which is an answer only while both sides are at rest.
  std::optional<std::string> source_snapshot = {};
  std::optional<std::string> target_snapshot = {};
  bool sequences = true;
  // Tables and sequences that only the target has do not count as a difference.
  bool allow_extra_on_target = false;
  // Of each statement; zero: none. A table that somebody has locked exclusively makes even its size wait.
  std::chrono::milliseconds statement_timeout{0};
  // Of each wait for a lock; zero: none.
  std::chrono::milliseconds lock_timeout{0};
  // Only these tables, where a migration carries only some; absent: all.
  std::optional<std::set<QualifiedName>> only = {};
  // Tables whose changes are not in the stream.
  bool unlogged = true;
};

struct TableComparison {
  QualifiedName name;
  std::int64_t rows_source = 0;
  std::int64_t rows_target = 0;
  std::string hash_source = {};
  std::string hash_target = {};
  bool equal = false;
  std::string note = {};                  // what explains a difference, for people
  std::optional<std::int64_t> keys = {};  // only the rows with so many keys were compared; absent: all rows
};

struct VerifyReport {
  std::vector<TableComparison> tables;        // on both sides, by name
  std::vector<SequenceComparison> sequences;  // by name
  std::vector<QualifiedName> missing_on_target;
  std::vector<QualifiedName> missing_on_source;
  bool equal = false;
  double seconds = 0;
};

// A comparison in two steps, for a cutover that has no time to open sessions and read catalogs while writers wait.
class Verification {
 public:
  // Opens the sessions, reads both catalogs and plans the work. Nothing is compared yet.
  [[nodiscard]] static Verification prepare(const pg::ConnInfo& source, const pg::ConnInfo& target,
                                            const VerifyOptions& options, const std::stop_token& stop);
  // Lets every session plan every statement once, so that its caches are filled.
  void warm_up();
  // Takes the snapshots and compares; once. With `touched` only what it names, and unlogged tables.
  [[nodiscard]] VerifyReport run(const std::stop_token& stop, const TouchedRows* touched = nullptr);

  Verification(Verification&&) noexcept;
  ~Verification();

 private:
  struct Prepared;
  explicit Verification(std::unique_ptr<Prepared> prepared);
  std::unique_ptr<Prepared> prepared_;
};

// Both steps at once. Throws Error{Connection} when a side fails, Error{Verification} when a comparison cannot be made,
// Error{Stopped}.
[[nodiscard]] VerifyReport verify(const pg::ConnInfo& source, const pg::ConnInfo& target, const VerifyOptions& options,
                                  std::stop_token stop);

// Differences first, the verdict last.
[[nodiscard]] std::string render_text(const VerifyReport& report);
[[nodiscard]] std::string render_json(const VerifyReport& report);
// 0 equal, 3 differences (mission: exit codes).
[[nodiscard]] int exit_code(const VerifyReport& report);

}  // namespace walferry
