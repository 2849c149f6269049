// Foreign keys of the target as statements that make them again.
//
// Where the apply may not set session_replication_role they would act on changes that the source has acted on already,
// and only a superuser may switch them off: their owner drops them until the cutover. Called by target_state.
#pragma once

#include <string>
#include <vector>

#include "engine/catalog.hpp"
#include "engine/pg/session.hpp"

namespace walferry::schema {

struct ForeignKey {
  QualifiedName table;
  std::string name;
  std::string sql;  // ALTER TABLE ... ADD CONSTRAINT ..., as it is now, with its comment

  // Unique in a database; for the journal.
  [[nodiscard]] std::string id() const { return table.quoted() + "." + pg::quote_name(name); }
};

// Those of partitions that belong to their parent's are part of it.
[[nodiscard]] std::vector<ForeignKey> read_foreign_keys(pg::Session& target);
void drop_foreign_key(pg::Session& target, const ForeignKey& key);

}  // namespace walferry::schema
