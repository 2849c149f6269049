#include "engine/full_identity.hpp"

#include <fmt/format.h>

namespace walferry {
namespace {

// What stands after REPLICA IDENTITY now. An index that is gone or does not serve identifies nothing either way.
std::string present_identity(pg::Session& source, const Table& table) {
  if (table.replica_identity == 'n') return "NOTHING";
  if (table.replica_identity != 'i') return "DEFAULT";
  const pg::Result index = source.exec(fmt::format(
      "SELECT x.relname FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class x ON x.oid = i.indexrelid WHERE "
      "i.indrelid = {} AND i.indisreplident AND i.indisvalid",
      static_cast<std::uint32_t>(table.oid)));
  return index.rows() == 0 ? "NOTHING" : "USING INDEX " + pg::quote_name(index.text(0, 0));
}

}  // namespace

std::string record_full_identity(pg::Session& source, const Table& table, store::Journal& journal) {
  journal.put(std::string{store::journal_keys::identity_full} + table.name.quoted(), present_identity(source, table));
  return fmt::format("ALTER TABLE {} REPLICA IDENTITY FULL", table.name.quoted());
}

}  // namespace walferry
