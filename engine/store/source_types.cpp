#include "engine/store/source_types.hpp"

#include <fmt/format.h>

#include <sstream>

namespace walferry::store {

SourceTypes SourceTypes::of(const Catalog& source) {
  SourceTypes types;
  for (const Table& table : source.tables) {
    ColumnTypes& columns = types.tables[table.relation()];
    for (const Column& column : table.columns)
      columns.emplace(column.name, ColumnType{.type = column.type, .modifier = column.type_modifier});
  }
  return types;
}

std::string SourceTypes::text() const {
  std::string text;
  for (const auto& [relation, columns] : tables) {
    for (const auto& [name, column] : columns) {
      if (name.find('\n') != std::string::npos) continue;
      fmt::format_to(std::back_inserter(text), "{} {} {} {}\n", static_cast<std::uint32_t>(relation),
                     static_cast<std::uint32_t>(column.type), column.modifier, name);
    }
  }
  return text;
}

std::optional<SourceTypes> SourceTypes::parse(std::string_view text) {
  SourceTypes types;
  std::istringstream in{std::string{text}};
  for (std::string line; std::getline(in, line);) {
    std::istringstream words{line};
    std::uint32_t relation = 0;
    std::uint32_t type = 0;
    std::int32_t modifier = 0;
    std::string name;
    if (!(words >> relation >> type >> modifier) || words.get() != ' ' || !std::getline(words, name))
      return std::nullopt;
    types.tables[RelationId{relation}].insert_or_assign(name, ColumnType{.type = Oid{type}, .modifier = modifier});
  }
  return types;
}

}  // namespace walferry::store
