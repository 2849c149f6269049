// What a migration's durable fence is called on the source, so that whoever looks for one asks for the same.
//
// Used by Fence, and by check, which does not know the engine.
#pragma once

#include <string>
#include <string_view>

#include "engine/pg/conninfo.hpp"

namespace walferry::cutover {

// A slot's name, short enough for the names that are made of it; two long names stay two.
[[nodiscard]] std::string short_name(const std::string& migration);
// Of its triggers, on every table.
inline constexpr std::string_view fence_trigger = "walferry_fence";
inline constexpr std::string_view fence_row_trigger = "walferry_fence_rows";

// The setting that opens a migration's fence to its way back, and to what a login trigger writes for our own sessions;
// its value is the migration.
inline constexpr const char* passage = "walferry.way_back";
// A connection string that sets it.
[[nodiscard]] pg::ConnInfo with_passage(const pg::ConnInfo& info, const std::string& migration);

// The function of its triggers: "walferry.refuse_writes_<slot>".
[[nodiscard]] std::string fence_function(const std::string& migration);

}  // namespace walferry::cutover
