// From the text that a client sent to the one statement in it that is the command at hand. Pure: no I/O.
//
// The trigger knows the whole query string, and for a statement inside a function the call stack with its text. Where
// the command cannot be told apart with certainty the answer is none, and a person decides.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

namespace walferry::ddl {

// The query string that holds the command: that of the innermost SQL statement on the stack, else what the client sent;
// nullopt where the stack does not tell it.
[[nodiscard]] std::optional<std::string> command_text(std::string_view query, std::string_view context);

struct Found {
  std::string statement;
  std::size_t next = 0;  // where to go on looking in the same query string
};

// The first statement at or after number `from` that fits the command tag.
[[nodiscard]] std::optional<Found> find_statement(std::string_view text, std::string_view tag, std::size_t from);

// Without CONCURRENTLY, which a transaction block does not allow and an idle target does not need.
[[nodiscard]] std::string for_transaction(std::string_view statement);

// Why a command that rewrites rows may give other values on the target: empty when it gives the same.
[[nodiscard]] std::string rewrite_doubt(std::string_view statement, int reason);

}  // namespace walferry::ddl
