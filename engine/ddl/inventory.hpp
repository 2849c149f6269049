// What a database's schema consists of, as a list of named definitions that can be compared: over time on the source,
// and between the two ends.
//
// Tables, columns, constraints, indexes, triggers, rules, policies, views, sequences, types, functions, statistics,
// schemas and extensions of the user's schemas; not owners, grants, comments, and not what walferry changes itself for
// the time of the migration (identity ALWAYS, which triggers fire, replica identity). Blocking.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/pg/session.hpp"

namespace walferry::ddl {

struct Entry {
  std::string owner;  // identity of the table (or other object) it is part of, or its own
  std::string definition;
  bool operator==(const Entry&) const = default;
};

// By "kind identity": "column public.t.c".
using Inventory = std::map<std::string, Entry>;

[[nodiscard]] Inventory read_inventory(pg::Session& session);
// One text for all of it: equal texts, equal inventories. Computed by the server.
[[nodiscard]] std::string read_digest(pg::Session& session);

struct Difference {
  std::string object;  // "column public.t.c"
  std::string owner;
  std::string change;      // "added", "dropped" or "changed"
  std::string definition;  // as it is now; of a dropped one as it was
};

[[nodiscard]] std::vector<Difference> differences(const Inventory& before, const Inventory& now);

// For the journal.
[[nodiscard]] std::string encode(const Inventory& inventory);
[[nodiscard]] Inventory decode_inventory(std::string_view text);

}  // namespace walferry::ddl
