// Rows and an order-independent 128-bit hash of tables, taken by the server.
//
// A row's hash is md5 of its text form under the settings that Session pins; a table's hash is the sum of its rows'
// hashes, each half modulo 2^64, so that order does not matter and duplicates count. Nothing is written. Called by
// Verification, and by cutover to measure.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/catalog.hpp"
#include "engine/pg/session.hpp"

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
  std::string rows = {};                // the FROM item; empty: ONLY the table
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

// The same beside work that truncates and alters tables: it waits for no table while it holds the lock of another, so
// that nobody deadlocks with it, and no lock remains. Inside a transaction, whose snapshot stays.
[[nodiscard]] std::vector<TableDigest> digest_and_release(pg::Session& session,
                                                          const std::vector<DigestRequest>& requests,
                                                          const DigestMethod& method);
// Lets the session plan the statement once, so that its caches are filled; nothing where a table is locked just now.
// Outside a transaction.
void plan_digest(pg::Session& session, const std::vector<DigestRequest>& requests, const DigestMethod& method);

// The statement of digest_tables: number, rows, two sums.
[[nodiscard]] std::string digest_query(const std::vector<DigestRequest>& requests, const DigestMethod& method);
// A decimal integer of any length modulo 2^64, as 16 hexadecimal digits. Throws Error{Protocol} for anything else.
[[nodiscard]] std::string hash_half(std::string_view decimal_sum);

}  // namespace walferry
