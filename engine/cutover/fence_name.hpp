// What a migration's durable fence is called on the source, so that whoever looks for one asks for the same.
//
// Used by Fence, and by check, which does not know the engine.
#pragma once

#include <string>
#include <string_view>

namespace walferry::cutover {

// A slot's name, short enough for the names that are made of it; two long names stay two.
[[nodiscard]] std::string short_name(const std::string& migration);
// Of its triggers, on every table.
inline constexpr std::string_view fence_trigger = "walferry_fence";
inline constexpr std::string_view fence_row_trigger = "walferry_fence_rows";

// The setting that opens a migration's fence to its way back; its value is the migration.
inline constexpr const char* passage = "walferry.way_back";

// The function of its triggers: "walferry.refuse_writes_<slot>".
[[nodiscard]] std::string fence_function(const std::string& migration);

}  // namespace walferry::cutover
