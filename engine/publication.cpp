#include "engine/publication.hpp"

#include <fmt/format.h>

namespace walferry {

std::vector<const Table*> tables_to_publish(const Catalog& catalog, bool via_root) {
  std::vector<const Table*> tables;
  for (const Table& table : catalog.tables) {
    const bool published = via_root ? !table.partition : table.holds_rows();
    if (published && table.persistence == 'p' && table.has_usable_identity()) tables.push_back(&table);
  }
  return tables;
}

std::string create_publication_sql(const std::string& name, const Catalog& catalog, bool via_root) {
  std::string list;
  for (const Table* table : tables_to_publish(catalog, via_root)) {
    list += list.empty() ? " FOR TABLE " : ", ";
    list += (table->kind == 'p' ? "" : "ONLY ") + table->name.quoted();
  }
  return fmt::format("CREATE PUBLICATION {}{} WITH (publish = 'insert, update, delete, truncate'{})",
                     pg::quote_name(name), list, via_root ? ", publish_via_partition_root = true" : "");
}

}  // namespace walferry
