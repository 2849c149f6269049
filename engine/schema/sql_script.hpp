// The text that `pg_restore --verbose -f -` writes, taken apart into the entries of the archive. Pure: no I/O.
//
//   script  := preamble { header sql } ending
//   header  := "--" / "-- TOC entry <dump id> (class <oid> OID <oid>)" / ["-- Dependencies: <dump id> ..."] /
//              "-- [Data for ]Name: <tag>; Type: <type>; Schema: <schema>; Owner: <owner>[; Tablespace: <t>]" / "--"
//
// Headers count only outside quotes, dollar quotes and comments, so no text that a user stored (a comment that quotes a
// dump) can be taken for one. "SET default_tablespace / default_table_access_method" stand between entries and hold for
// those that follow: each entry keeps the values it needs. Names come from the SQL, never from headers, which are
// sanitised.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace walferry::schema {

enum class LexemeKind { Space, LineComment, BlockComment, Word, QuotedName, String, DollarString, Symbol };

// A piece of SQL text [begin, end).
struct Lexeme {
  LexemeKind kind = LexemeKind::Space;
  std::size_t begin = 0;
  std::size_t end = 0;
};

// The lexeme at `begin`, which must be inside `sql` and outside any quotes; standard_conforming_strings is on.
[[nodiscard]] Lexeme lexeme_at(std::string_view sql, std::size_t begin);

struct Token {
  enum class Kind { Word, Name, String, Symbol };  // Name: a quoted one

  Kind kind = Kind::Symbol;
  std::string text;  // a name without its quotes, a string with them
  std::size_t begin = 0;
  std::size_t end = 0;

  [[nodiscard]] bool is_name() const { return kind == Kind::Word || kind == Kind::Name; }
  // An unquoted key word or a symbol.
  [[nodiscard]] bool is(std::string_view word) const {
    return (kind == Kind::Word || kind == Kind::Symbol) && text == word;
  }
};

// The tokens of the first statement of `sql`, up to its semicolon outside parentheses.
[[nodiscard]] std::vector<Token> first_statement(std::string_view sql);

// `sql` cut after every top-level semicolon outside parentheses; comments and psql's backslash lines are left out.
[[nodiscard]] std::vector<std::string> split_statements(std::string_view sql);

// `sql` without the option pg_attver of ALTER ... SET (...): servers since August 2026 count changes of a column there,
// a pg_dump that does not know it writes it down, and servers without it refuse it. Nothing of the application's is
// lost.
[[nodiscard]] std::string without_server_counters(std::string_view sql);

struct ScriptEntry {
  int dump_id = 0;
  std::uint32_t class_oid = 0;
  std::uint32_t oid = 0;
  std::vector<int> depends_on;        // dump ids
  std::string type;                   // "INDEX", "FK CONSTRAINT" ...: for messages only
  std::string tag;                    // sanitised name: for messages only
  std::vector<std::string> settings;  // "default_tablespace = ''": hold while it is executed (hold_settings)
  std::string sql;                    // one or more statements, never empty
};

struct Script {
  std::string preamble;  // what stands before the first entry; drop statements when the script was made with --clean
  std::vector<ScriptEntry> entries;
};

[[nodiscard]] Script split_script(std::string_view script);

}  // namespace walferry::schema
