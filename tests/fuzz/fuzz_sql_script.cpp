// Text of pg_restore and of SQL strings: cut into entries, statements and tokens.
#include "engine/schema/sql_script.hpp"
#include "tests/fuzz/check.hpp"

namespace walferry::test {

void check_input(Bytes bytes) {
  const std::string_view text = as_text(bytes);
  // Lexemes stand one behind the other and leave nothing out.
  for (std::size_t at = 0; at < text.size();) {
    const schema::Lexeme lexeme = schema::lexeme_at(text, at);
    require(lexeme.begin == at && lexeme.end > at && lexeme.end <= text.size());
    at = lexeme.end;
  }
  std::size_t end = 0;
  for (const schema::Token& token : schema::first_statement(text)) {
    require(token.begin >= end && token.end > token.begin && token.end <= text.size());
    end = token.end;
  }
  std::size_t bytes_of_statements = 0;
  for (const std::string& statement : schema::split_statements(text)) bytes_of_statements += statement.size();
  require(bytes_of_statements <= text.size());
  require(schema::without_server_counters(text).size() <= text.size());
  const schema::Script script = schema::split_script(text);
  for (const schema::ScriptEntry& entry : script.entries) require(!entry.sql.empty());
}

}  // namespace walferry::test
