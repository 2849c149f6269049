// Configuration tables of extensions: tables that CREATE EXTENSION makes and users fill, named in
// pg_extension.extconfig, with a condition that says which rows are the user's.
//
// They belong to no publication of walferry's; those rows, and the positions of such sequences, are brought over while
// nobody writes. Called by the cutover and by verify.
#pragma once

#include <string>
#include <vector>

#include "engine/catalog.hpp"
#include "engine/pg/session.hpp"

namespace walferry::outside {

struct ExtensionTable {
  std::string extension;
  QualifiedName name;
  bool sequence = false;
  std::string condition;             // "WHERE ...", or empty: every row
  std::vector<std::string> columns;  // sorted, without generated ones

  // A FROM item with the user's rows.
  [[nodiscard]] std::string rows() const;
};

// Tables and sequences, by name.
[[nodiscard]] std::vector<ExtensionTable> read_extension_tables(pg::Session& session);

// Those with rows of users, as far as our role may look.
[[nodiscard]] std::vector<std::string> filled_extension_tables(pg::Session& session);

// Those of the source that the target has as well, with every column of the source's, and that our role may write to
// there. Of the others `left_out` says why: "public.t of extension x, which ...".
struct CommonExtensionTables {
  std::vector<ExtensionTable> common;  // with the source's condition
  std::vector<std::string> left_out;
};
[[nodiscard]] CommonExtensionTables match_extension_tables(pg::Session& source, pg::Session& target);

// Makes the target's rows those of the source, table by table, where they differ.
void copy_extension_tables(pg::Session& source, pg::Session& target, const std::vector<ExtensionTable>& tables);

}  // namespace walferry::outside
