// The value of synchronous_standby_names, read as the server reads it.
//
//   setting := list | [ "FIRST" | "ANY" ] number "(" list ")"
//   list    := name { "," name }        name := word | number | "*" | quoted, "" standing for one quote
//
// A walsender whose application_name is in the list may become a synchronous standby, and then every commit of the
// source waits for it. Pure; called by check.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace walferry {

// The names in order, without quotes; "*" stands for any.
[[nodiscard]] std::vector<std::string> parse_synchronous_standby_names(std::string_view setting);

// Whether a walsender of that name counts; the server compares without regard to ASCII case.
[[nodiscard]] bool is_synchronous_standby(std::string_view setting, std::string_view application_name);

}  // namespace walferry
