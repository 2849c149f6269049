// What a statement returned: a PGresult that is owned, and quoting of names and literals.
//
// Views returned by text() live as long as the Result.
#pragma once

#include <libpq-fe.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/error.hpp"
#include "protocol/lsn.hpp"

namespace walferry::pg {

struct ClearResult {
  void operator()(PGresult* result) const { PQclear(result); }
};
using ResultPtr = std::unique_ptr<PGresult, ClearResult>;

class Result {
 public:
  Result() = default;
  explicit Result(ResultPtr result) : result_(std::move(result)) {}

  [[nodiscard]] int rows() const { return result_ ? PQntuples(result_.get()) : 0; }
  [[nodiscard]] int columns() const { return result_ ? PQnfields(result_.get()) : 0; }
  [[nodiscard]] bool is_null(int row, int column) const { return PQgetisnull(result_.get(), row, column) != 0; }
  [[nodiscard]] std::string_view text(int row, int column) const {
    return {PQgetvalue(result_.get(), row, column), static_cast<std::size_t>(PQgetlength(result_.get(), row, column))};
  }
  [[nodiscard]] std::string str(int row, int column) const { return std::string{text(row, column)}; }
  [[nodiscard]] bool flag(int row, int column) const { return text(row, column) == "t"; }
  // Throw Error{Protocol} when the text is no number of that kind.
  [[nodiscard]] std::int64_t i64(int row, int column) const;
  [[nodiscard]] std::uint32_t u32(int row, int column) const;
  [[nodiscard]] double number(int row, int column) const;
  [[nodiscard]] Lsn lsn(int row, int column) const;
  [[nodiscard]] std::optional<std::string> maybe(int row, int column) const;
  // Rows affected by the statement, from its command tag; 0 where it has none.
  [[nodiscard]] std::int64_t affected() const;

  [[nodiscard]] PGresult* get() const { return result_.get(); }

 private:
  ResultPtr result_;
};

// The server's error in `result` as one paragraph with SQLSTATE, detail, hint and context.
[[nodiscard]] Error error_of(const PGresult* result, Side side);
// The same from an error's fields.
[[nodiscard]] Error make_error(Side side, const std::string& sqlstate, std::string message, const std::string& detail,
                               const std::string& hint);

// "name" with embedded quotes doubled; never relies on search_path or on what needs no quotes.
[[nodiscard]] std::string quote_name(std::string_view name);
[[nodiscard]] std::string quote_name(std::string_view schema, std::string_view name);
// A standard-conforming literal; backslashes force the E'' form.
[[nodiscard]] std::string quote_literal(std::string_view text);
// {"a","b"}: the text form of an array of these values.
[[nodiscard]] std::string array_literal(const std::vector<std::string>& values);

}  // namespace walferry::pg
