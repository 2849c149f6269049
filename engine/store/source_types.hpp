// The types that the columns of the source's tables had when their rows, or their last description, were taken.
//
// A type that is another one now must be the same on the target: it would round or cut what it takes. Kept in the
// journal, since the change may come before the first row, or while nobody reads. Used by Journal, the apply's table
// maps, and the setup, which knows the types of the slot's snapshot.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "engine/catalog.hpp"

namespace walferry::store {

struct ColumnType {
  Oid type{};
  std::int32_t modifier = -1;

  auto operator<=>(const ColumnType&) const = default;
};

using ColumnTypes = std::map<std::string, ColumnType, std::less<>>;

struct SourceTypes {
  std::map<RelationId, ColumnTypes> tables;

  [[nodiscard]] static SourceTypes of(const Catalog& source);
  // "<relation> <type> <modifier> <column>" a line; columns with a line break in their names are left out.
  [[nodiscard]] std::string text() const;
  // nullopt where that is not such a text.
  [[nodiscard]] static std::optional<SourceTypes> parse(std::string_view text);
};

}  // namespace walferry::store
