#include "engine/ddl/statement.hpp"

#include <algorithm>
#include <array>
#include <vector>

#include "engine/schema/sql_script.hpp"

namespace walferry::ddl {
namespace {

using schema::Token;

// Bits of pg_event_trigger_table_rewrite_reason().
constexpr int rewrite_for_default = 2;
constexpr int rewrite_for_type = 4;

constexpr std::string_view own_frame_end = "\n";
constexpr std::string_view sql_frame = "SQL statement \"";

std::string upper(std::string_view text) {
  std::string result{text};
  std::ranges::transform(result, result.begin(),
                         [](char c) { return c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c; });
  return result;
}

bool is_word(const Token& token, std::string_view word) {
  return token.kind == Token::Kind::Word && upper(token.text) == word;
}

std::vector<std::string> words_of(std::string_view tag) {
  std::vector<std::string> words;
  while (!tag.empty()) {
    const std::size_t end = std::min(tag.find(' '), tag.size());
    words.emplace_back(tag.substr(0, end));
    tag.remove_prefix(std::min(end + 1, tag.size()));
  }
  return words;
}

// The words of the tag stand in this order at the statement's beginning: CREATE [UNIQUE] INDEX, CREATE [OR REPLACE]
// VIEW.
bool fits(const std::vector<Token>& tokens, std::string_view tag) {
  const std::vector<std::string> words = words_of(tag);
  if (tokens.empty() || words.empty() || !is_word(tokens[0], words[0])) return false;
  const std::size_t depth = std::min(tokens.size(), words.size() + 4);
  std::size_t found = 1;
  for (std::size_t i = 1; i < depth && found < words.size(); ++i) {
    if (is_word(tokens[i], words[found])) ++found;
  }
  return found == words.size();
}

// Statements that may run schema changes of their own, which could be taken for one that stands in the text.
bool is_opaque(const std::vector<Token>& tokens) {
  static constexpr std::array<std::string_view, 7> doors{"SELECT", "DO", "CALL", "EXECUTE", "WITH", "VALUES", "TABLE"};
  return !tokens.empty() && (tokens[0].is("(") || std::ranges::any_of(doors, [&](std::string_view door) {
                               return is_word(tokens[0], door);
                             }));
}

bool has_word(const std::vector<Token>& tokens, std::string_view word) {
  return std::ranges::any_of(tokens, [&](const Token& token) { return is_word(token, word); });
}

// The statements of a query string, comments and all. A function's BEGIN ATOMIC ... END holds semicolons of its own.
std::vector<std::string> statements_of(std::string_view text) {
  std::vector<std::string> statements;
  std::size_t begin = 0;
  std::size_t at = 0;
  int depth = 0;
  int blocks = 0;
  std::string previous;
  const auto take = [&](std::size_t end) {
    const std::string_view piece = text.substr(begin, end - begin);
    if (!schema::first_statement(piece).empty()) statements.emplace_back(piece);
    begin = at;
  };
  while (at < text.size()) {
    const schema::Lexeme lexeme = schema::lexeme_at(text, at);
    at = lexeme.end;
    const std::string_view piece = text.substr(lexeme.begin, lexeme.end - lexeme.begin);
    if (lexeme.kind == schema::LexemeKind::Word) {
      const std::string word = upper(piece);
      if (word == "ATOMIC" && previous == "BEGIN") ++blocks;
      if (blocks > 0 && word == "CASE") ++blocks;
      if (blocks > 0 && word == "END") --blocks;
      previous = word;
    }
    if (lexeme.kind != schema::LexemeKind::Symbol) continue;
    if (piece == "(") ++depth;
    if (piece == ")") --depth;
    if (piece == ";" && depth == 0 && blocks == 0) take(lexeme.begin);
  }
  take(text.size());
  return statements;
}

}  // namespace

std::optional<std::string> command_text(std::string_view query, std::string_view context) {
  const std::size_t own_end = context.find(own_frame_end);
  if (own_end == std::string_view::npos) return std::string{query};
  std::string_view rest = context.substr(own_end + own_frame_end.size());
  if (!rest.starts_with(sql_frame)) return std::nullopt;
  rest.remove_prefix(sql_frame.size());
  std::size_t end = std::string_view::npos;
  for (const std::string_view next : {"\"\nPL/", "\"\nSQL "}) end = std::min(end, rest.find(next));
  if (end == std::string_view::npos) {
    if (!rest.ends_with('"')) return std::nullopt;
    end = rest.size() - 1;
  }
  return std::string{rest.substr(0, end)};
}

std::optional<Found> find_statement(std::string_view text, std::string_view tag, std::size_t from) {
  const std::vector<std::string> statements = statements_of(text);
  std::vector<std::vector<Token>> tokens;
  for (const std::string& statement : statements) tokens.push_back(schema::first_statement(statement));
  if (statements.size() > 1 && std::ranges::any_of(tokens, is_opaque)) return std::nullopt;
  // Statements that ran are in the order of the text; a string that is sent again begins anew.
  for (const std::size_t begin : {from, std::size_t{0}}) {
    for (std::size_t i = begin; i < statements.size(); ++i) {
      if (fits(tokens[i], tag)) return Found{.statement = statements[i], .next = i + 1};
    }
    if (begin == 0) break;
  }
  return std::nullopt;
}

std::string for_transaction(std::string_view statement) {
  const std::vector<Token> tokens = schema::first_statement(statement);
  if (tokens.empty()) return std::string{statement};
  const bool index = (is_word(tokens[0], "CREATE") || is_word(tokens[0], "DROP")) && tokens.size() > 2 &&
                     (is_word(tokens[1], "INDEX") || is_word(tokens[2], "INDEX"));
  const bool detach = is_word(tokens[0], "ALTER") && has_word(tokens, "DETACH");
  if (!index && !detach) return std::string{statement};
  for (const Token& token : tokens) {
    if (!is_word(token, "CONCURRENTLY")) continue;
    std::string result{statement.substr(0, token.begin)};
    result += statement.substr(token.end);
    return result;
  }
  return std::string{statement};
}

std::string rewrite_doubt(std::string_view statement, int reason) {
  const std::vector<Token> tokens = schema::first_statement(statement);
  if ((reason & rewrite_for_default) != 0) {
    // A stored generated column is computed from its row; nothing else that rewrites for a default can be trusted.
    const bool computed = has_word(tokens, "STORED") && has_word(tokens, "GENERATED") && !has_word(tokens, "DEFAULT") &&
                          !has_word(tokens, "IDENTITY");
    if (!computed) return "it fills existing rows with values that are made anew for each row";
  }
  if ((reason & rewrite_for_type) != 0) {
    const auto begin = std::ranges::find_if(tokens, [](const Token& token) { return is_word(token, "USING"); });
    for (auto token = begin; token != tokens.end(); ++token) {
      static constexpr std::array<std::string_view, 5> clock{"CURRENT_TIMESTAMP", "CURRENT_DATE", "CURRENT_TIME",
                                                             "LOCALTIMESTAMP", "LOCALTIME"};
      const auto next = std::next(token);
      const bool call = token != begin && token->is_name() && next != tokens.end() && next->is("(");
      if (call || std::ranges::any_of(clock, [&](std::string_view word) { return is_word(*token, word); }))
        return "its USING clause calls functions, which may give other values on the target";
    }
  }
  return {};
}

}  // namespace walferry::ddl
