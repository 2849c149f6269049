#include "engine/schema/sql_script.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <optional>

namespace walferry::schema {
namespace {

bool is_space(char c) {
  return c == ' ' || c == '\n' || c == '\t' || c == '\r' || c == '\f' || c == '\v';
}
bool is_digit(char c) {
  return c >= '0' && c <= '9';
}
// Bytes above 127 belong to names in every server encoding.
bool starts_word(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || static_cast<unsigned char>(c) >= 0x80;
}
bool continues_word(char c) {
  return starts_word(c) || is_digit(c) || c == '$';
}

// One past the quote that ends the text begun at `begin`; doubled quotes go on, backslashes only where they escape.
std::size_t end_of_quoted(std::string_view sql, std::size_t begin, bool backslash_escapes) {
  const char quote = sql[begin];
  std::size_t at = begin + 1;
  while (at < sql.size()) {
    if (backslash_escapes && sql[at] == '\\') {
      at += 2;
    } else if (sql[at] == quote) {
      if (at + 1 >= sql.size() || sql[at + 1] != quote) return at + 1;
      at += 2;
    } else {
      ++at;
    }
  }
  return sql.size();
}

std::size_t end_of_block_comment(std::string_view sql, std::size_t begin) {
  int depth = 0;
  std::size_t at = begin;
  while (at < sql.size()) {
    if (sql.substr(at, 2) == "/*") {
      ++depth;
      at += 2;
    } else if (sql.substr(at, 2) == "*/") {
      at += 2;
      if (--depth == 0) return at;
    } else {
      ++at;
    }
  }
  return sql.size();
}

// "$tag$" at `begin`, or empty when the dollar starts no quote.
std::string_view dollar_tag(std::string_view sql, std::size_t begin) {
  std::size_t at = begin + 1;
  if (at < sql.size() && is_digit(sql[at])) return {};
  while (at < sql.size() && continues_word(sql[at]) && sql[at] != '$') ++at;
  return at < sql.size() && sql[at] == '$' ? sql.substr(begin, at + 1 - begin) : std::string_view{};
}

std::size_t end_of_line(std::string_view text, std::size_t begin) {
  return std::min(text.find('\n', begin), text.size());
}

std::string unquoted_name(std::string_view quoted) {
  std::string name;
  for (std::size_t at = 1; at + 1 < quoted.size(); ++at) {
    name += quoted[at];
    if (quoted[at] == '"') ++at;  // doubled
  }
  return name;
}

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && is_space(text.front())) text.remove_prefix(1);
  while (!text.empty() && is_space(text.back())) text.remove_suffix(1);
  return text;
}

std::optional<std::uint32_t> number_at(std::string_view& text) {
  std::uint32_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{}) return std::nullopt;
  text.remove_prefix(static_cast<std::size_t>(end - text.data()));
  return value;
}

bool take(std::string_view& text, std::string_view prefix) {
  if (!text.starts_with(prefix)) return false;
  text.remove_prefix(prefix.size());
  return true;
}

// "-- TOC entry 3345 (class 1259 OID 16390)"
std::optional<ScriptEntry> parse_toc_line(std::string_view line) {
  if (!take(line, "-- TOC entry ")) return std::nullopt;
  const auto dump_id = number_at(line);
  if (!dump_id || !take(line, " (class ")) return std::nullopt;
  const auto class_oid = number_at(line);
  if (!class_oid || !take(line, " OID ")) return std::nullopt;
  const auto oid = number_at(line);
  if (!oid || line != ")") return std::nullopt;
  ScriptEntry entry;
  entry.dump_id = static_cast<int>(*dump_id);
  entry.class_oid = *class_oid;
  entry.oid = *oid;
  return entry;
}

void parse_dependencies(std::string_view line, ScriptEntry& entry) {
  while (take(line, " ")) {
    const auto dump_id = number_at(line);
    if (!dump_id) return;
    entry.depends_on.push_back(static_cast<int>(*dump_id));
  }
}

void parse_name_line(std::string_view line, ScriptEntry& entry) {
  const std::size_t name = line.find("Name: ");
  const std::size_t type = line.rfind("; Type: ");
  if (name == std::string_view::npos || type == std::string_view::npos || type < name) return;
  entry.tag = line.substr(name + 6, type - name - 6);
  const std::string_view rest = line.substr(type + 8);
  entry.type = rest.substr(0, rest.find("; Schema: "));
}

constexpr std::string_view server_counter = "pg_attver";

// One past the first semicolon outside parentheses.
std::size_t end_of_statement(std::string_view sql) {
  int depth = 0;
  for (std::size_t at = 0; at < sql.size();) {
    const Lexeme lexeme = lexeme_at(sql, at);
    at = lexeme.end;
    if (lexeme.kind != LexemeKind::Symbol) continue;
    const char symbol = sql[lexeme.begin];
    if (symbol == '(') ++depth;
    if (symbol == ')') --depth;
    if (symbol == ';' && depth == 0) return at;
  }
  return sql.size();
}

// One statement without the option; empty when that was all it set.
std::string without_counter(std::string_view statement) {
  const std::vector<Token> tokens = first_statement(statement);
  std::size_t at = tokens.size();
  for (std::size_t i = 2; i + 1 < tokens.size() && tokens.front().is("ALTER"); ++i) {
    if (tokens[i].is(server_counter) && tokens[i + 1].is("=") && (tokens[i - 1].is("(") || tokens[i - 1].is(",")))
      at = i;
  }
  std::size_t end = at;
  while (end < tokens.size() && !tokens[end].is(",") && !tokens[end].is(")")) ++end;
  if (end == tokens.size()) return std::string{statement};
  const bool first = tokens[at - 1].is("(");
  if (first && tokens[end].is(")")) return {};
  // With the comma before it, or where it is the first option the one after it.
  const std::size_t from = first ? tokens[at].begin : tokens[at - 1].begin;
  const std::size_t to = first ? tokens[end].end : tokens[end].begin;
  return std::string{statement.substr(0, from)}.append(statement.substr(to));
}

// Walks the script once; what is not comment is collected for the entry (or the preamble) being read.
class Splitter {
 public:
  explicit Splitter(std::string_view text) : text_(text) {}

  Script run() {
    while (at_ < text_.size()) step();
    close_entry();
    return std::move(script_);
  }

 private:
  [[nodiscard]] bool at_line_start() const { return at_ == 0 || text_[at_ - 1] == '\n'; }

  void step() {
    if (at_line_start() && text_[at_] == '\\') {  // \restrict and \unrestrict are for psql
      at_ = end_of_line(text_, at_);
      return;
    }
    if (at_line_start() && statement_start_ && take_setting()) return;
    const Lexeme lexeme = lexeme_at(text_, at_);
    const std::string_view piece = text_.substr(lexeme.begin, lexeme.end - lexeme.begin);
    if (lexeme.kind == LexemeKind::LineComment) {
      if (at_line_start() && piece.starts_with("-- TOC entry ") && open_entry(piece)) return;
    } else {
      current().append(piece);
      if (lexeme.kind != LexemeKind::Space) statement_start_ = piece == ";";
    }
    at_ = lexeme.end;
  }

  std::string& current() { return entry_ ? entry_->sql : script_.preamble; }

  // Reads the lines of a header from its TOC line on.
  bool open_entry(std::string_view toc_line) {
    std::optional<ScriptEntry> entry = parse_toc_line(toc_line);
    if (!entry) return false;
    close_entry();
    at_ = end_of_line(text_, at_);
    while (at_ < text_.size()) {
      const std::size_t begin = at_ + 1;
      const std::size_t end = begin <= text_.size() ? end_of_line(text_, begin) : text_.size();
      const std::string_view line = text_.substr(std::min(begin, text_.size()), end - std::min(begin, end));
      if (!line.starts_with("--")) break;
      if (line.starts_with("-- Dependencies:")) parse_dependencies(line.substr(16), *entry);
      if (line.starts_with("-- Name: ") || line.starts_with("-- Data for Name: ")) parse_name_line(line, *entry);
      at_ = end;
      if (line == "--") break;
    }
    for (const auto& setting : settings_) {
      if (!setting.empty()) entry->settings.push_back(setting);
    }
    entry_ = std::move(entry);
    statement_start_ = true;
    return true;
  }

  void close_entry() {
    if (!entry_) return;
    entry_->sql = without_server_counters(trimmed(entry_->sql));
    if (!entry_->sql.empty()) script_.entries.push_back(std::move(*entry_));
    entry_.reset();
  }

  // "SET default_tablespace = x;" is kept for the entries that follow, not executed where it stands.
  bool take_setting() {
    static constexpr std::array<std::string_view, 2> kept{"default_tablespace", "default_table_access_method"};
    for (std::size_t which = 0; which < kept.size(); ++which) {
      std::string_view rest = text_.substr(at_);
      if (!take(rest, "SET ") || !take(rest, kept[which]) || !take(rest, " = ")) continue;
      const std::size_t begin = at_ + 4;
      std::size_t end = begin;
      while (end < text_.size() && text_[end] != ';') end = lexeme_at(text_, end).end;
      settings_[which] = text_.substr(begin, end - begin);
      at_ = std::min(end + 1, text_.size());
      return true;
    }
    return false;
  }

  std::string_view text_;
  std::size_t at_ = 0;
  bool statement_start_ = true;
  std::optional<ScriptEntry> entry_;
  std::array<std::string, 2> settings_;
  Script script_;
};

}  // namespace

Lexeme lexeme_at(std::string_view sql, std::size_t begin) {
  const char c = sql[begin];
  std::size_t end = begin + 1;
  if (is_space(c)) {
    // A line at a time: callers look at line starts.
    while (end < sql.size() && is_space(sql[end]) && sql[end - 1] != '\n') ++end;
    return {LexemeKind::Space, begin, end};
  }
  if (sql.substr(begin, 2) == "--") return {LexemeKind::LineComment, begin, end_of_line(sql, begin)};
  if (sql.substr(begin, 2) == "/*") return {LexemeKind::BlockComment, begin, end_of_block_comment(sql, begin)};
  if (c == '\'') return {LexemeKind::String, begin, end_of_quoted(sql, begin, false)};
  if (c == '"') return {LexemeKind::QuotedName, begin, end_of_quoted(sql, begin, false)};
  if ((c == 'e' || c == 'E') && end < sql.size() && sql[end] == '\'') {
    return {LexemeKind::String, begin, end_of_quoted(sql, end, true)};
  }
  if (c == '$') {
    if (const std::string_view tag = dollar_tag(sql, begin); !tag.empty()) {
      const std::size_t closing = sql.find(tag, begin + tag.size());
      return {LexemeKind::DollarString, begin, closing == std::string_view::npos ? sql.size() : closing + tag.size()};
    }
  }
  if (starts_word(c) || is_digit(c)) {
    while (end < sql.size() && continues_word(sql[end])) ++end;
    return {LexemeKind::Word, begin, end};
  }
  return {LexemeKind::Symbol, begin, end};
}

std::vector<Token> first_statement(std::string_view sql) {
  std::vector<Token> tokens;
  int depth = 0;
  std::size_t at = 0;
  while (at < sql.size()) {
    const Lexeme lexeme = lexeme_at(sql, at);
    at = lexeme.end;
    std::string_view piece = sql.substr(lexeme.begin, lexeme.end - lexeme.begin);
    Token token{Token::Kind::Symbol, std::string{piece}, lexeme.begin, lexeme.end};
    switch (lexeme.kind) {
      case LexemeKind::Space:
      case LexemeKind::LineComment:
      case LexemeKind::BlockComment:
        continue;
      case LexemeKind::Word:
        token.kind = Token::Kind::Word;
        break;
      case LexemeKind::QuotedName:
        token.kind = Token::Kind::Name;
        token.text = unquoted_name(piece);
        break;
      case LexemeKind::String:
      case LexemeKind::DollarString:
        token.kind = Token::Kind::String;
        break;
      case LexemeKind::Symbol:
        if (piece == "(") ++depth;
        if (piece == ")") --depth;
        if (piece == ";" && depth == 0) return tokens;
        break;
    }
    tokens.push_back(std::move(token));
  }
  return tokens;
}

std::vector<std::string> split_statements(std::string_view sql) {
  std::vector<std::string> statements;
  std::string current;
  int depth = 0;
  std::size_t at = 0;
  while (at < sql.size()) {
    if (sql[at] == '\\' && (at == 0 || sql[at - 1] == '\n')) {
      at = end_of_line(sql, at);
      continue;
    }
    const Lexeme lexeme = lexeme_at(sql, at);
    at = lexeme.end;
    if (lexeme.kind == LexemeKind::LineComment || lexeme.kind == LexemeKind::BlockComment) continue;
    const std::string_view piece = sql.substr(lexeme.begin, lexeme.end - lexeme.begin);
    current += piece;
    if (lexeme.kind != LexemeKind::Symbol) continue;
    if (piece == "(") ++depth;
    if (piece == ")") --depth;
    if (piece == ";" && depth == 0) {
      statements.emplace_back(trimmed(current));
      current.clear();
    }
  }
  if (!trimmed(current).empty()) statements.emplace_back(trimmed(current));
  return statements;
}

std::string without_server_counters(std::string_view sql) {
  if (sql.find(server_counter) == std::string_view::npos) return std::string{sql};
  std::string kept;
  while (!sql.empty()) {
    const std::size_t end = end_of_statement(sql);
    kept += without_counter(sql.substr(0, end));
    sql.remove_prefix(end);
  }
  return kept;
}

Script split_script(std::string_view script) {
  return Splitter{script}.run();
}

}  // namespace walferry::schema
