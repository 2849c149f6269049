// What a server answers to COPY ... TO STDOUT (doc pages "COPY Operations" and "Message Formats").
//
//   answer  := CopyOutResponse 'H', CopyData 'd' *, CopyDone 'c', CommandComplete 'C', ReadyForQuery 'Z'
//   message := tag u8, length u32 (itself included), body
//
// An ErrorResponse 'E' may take the place of anything before ReadyForQuery; notices, parameters and notifications may
// stand anywhere. One CopyData is one row (in binary the header comes with the first and the trailer by itself), but
// its limits say nothing to a COPY FROM STDIN: rows are taken in the pieces they come in, whatever their length. Used
// by pg::CopyOut.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "protocol/bytes.hpp"

namespace walferry {

class CopyOutReader {
 public:
  // The fields of an ErrorResponse that people are told.
  struct Failure {
    std::string sqlstate;
    std::string message;
    std::string detail;
    std::string hint;
  };

  // Takes from the front of `input` what can be taken, appends its rows to `rows`, and returns how many bytes were
  // used. More may be called for than is there: the caller then comes again with what is left and more behind it.
  // Throws ProtocolError. Nothing is taken behind the end.
  std::size_t take(Bytes input, std::string& rows);

  // ReadyForQuery came: the server waits for the next statement.
  [[nodiscard]] bool over() const { return over_; }
  [[nodiscard]] const std::optional<Failure>& failure() const { return failure_; }
  // CopyData messages begun.
  [[nodiscard]] std::int64_t rows() const { return rows_; }

  // A message other than CopyData must be whole to be taken; none that a server sends here is longer.
  static constexpr std::size_t message_bytes_max = std::size_t{1} << 20U;

 private:
  void read(char tag, Bytes body);

  std::size_t row_bytes_left_ = 0;  // of the CopyData that is being taken
  std::int64_t rows_ = 0;
  bool over_ = false;
  std::optional<Failure> failure_;
};

}  // namespace walferry
