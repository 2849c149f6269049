// COPY ... TO STDOUT, read many rows at a time.
//
// libpq hands out one row after the other, each in memory of its own, which was half of what a copy cost the engine.
// Between two statements its connection is idle and the socket can be borrowed: the statement is sent and its answer
// read here, up to the server's ReadyForQuery, and libpq never knows. Where the bytes are encrypted, which libpq alone
// can undo, it does the reading. Blocking; Session::interrupt() ends it. Owned by whoever copies a table.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "engine/pg/session.hpp"
#include "protocol/copy_out.hpp"

namespace walferry::pg {

class CopyOut {
 public:
  // Starts it. The session has nothing else in progress. After an exception it is of no more use.
  CopyOut(Session& session, const std::string& sql);
  ~CopyOut();
  CopyOut(const CopyOut&) = delete;
  CopyOut& operator=(const CopyOut&) = delete;

  // Appends what comes until `rows` holds `wanted` bytes or more; false: the COPY is over, and what was appended is its
  // end. Rows may be cut anywhere, and fit behind each other into a COPY ... FROM STDIN. Throws Error{Sql,Connection}.
  [[nodiscard]] bool read(std::string& rows, std::size_t wanted);
  // That have begun so far. In binary the trailer counts as one.
  [[nodiscard]] std::int64_t rows() const { return borrowed_ ? reader_.rows() : rows_; }

 private:
  void send(const std::string& sql);
  void take(std::string& rows);
  void receive();
  void gather(bool on);
  void wait(short events, int milliseconds);
  [[noreturn]] void fail(const char* doing) const;

  Session& session_;
  bool borrowed_;  // the socket
  CopyOutReader reader_;
  std::vector<std::byte> buffer_;
  std::size_t begin_ = 0;  // of what was received and not taken
  std::size_t end_ = 0;
  std::size_t received_bytes_ = 0;
  bool gathers_ = false;   // the socket wakes us only when much has come
  std::int64_t rows_ = 0;  // as libpq handed them out
};

}  // namespace walferry::pg
