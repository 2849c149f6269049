// What a source's schema, and what it publishes, looked like when a cutover began to compare.
//
// The stream tells of no schema change where there is no event trigger, and a proof that looks at touched rows would
// not see one. Used by Cutover: read before the first comparison, and again when nobody can change a table any more.
// Blocking.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "engine/catalog.hpp"
#include "engine/ddl/inventory.hpp"

namespace walferry::cutover {

struct ChangedTable {
  QualifiedName name;
  std::optional<QualifiedName> root;  // of a partition
};

class SchemaState {
 public:
  [[nodiscard]] static SchemaState read(pg::Session& source, std::vector<std::string> publications);

  // Tables whose definition or file is another by now: which of their rows look different is not known. A file changes
  // with TRUNCATE and VACUUM FULL too.
  [[nodiscard]] std::vector<ChangedTable> changed(const SchemaState& later) const;
  // The same by their files alone, which costs little.
  [[nodiscard]] std::vector<ChangedTable> changed_files(pg::Session& source) const;
  // Whether the publications carry all that they carried, of what there is still.
  [[nodiscard]] bool still_publishes(pg::Session& source) const;

 private:
  struct TableFile {
    ChangedTable table;
    std::string identity;  // as the inventory names it
    std::uint32_t file = 0;
  };
  using Files = std::map<RelationId, TableFile>;
  // What the catalogs say of each publication, and of each table in it; zero: not of a table.
  using Published = std::map<std::string, RelationId>;

  [[nodiscard]] static Files read_files(pg::Session& source);
  [[nodiscard]] static Published read_published(pg::Session& source, const std::vector<std::string>& publications);
  [[nodiscard]] std::vector<ChangedTable> changed_files(const Files& later) const;

  ddl::Inventory inventory_;
  Files files_;
  std::vector<std::string> publications_;
  Published published_;
};

}  // namespace walferry::cutover
