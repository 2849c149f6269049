// The statements in flight on the apply connection, in libpq's pipeline, and what is to come back for each.
//
// Owns the order of sending. Invariant (G3): every outcome is read and its row count compared; counts_open() says that
// some are still to be read, and while it does nothing may be committed. A change that fails as it came stops the
// stream with an error that names it; net changes that fail are refused as a whole (NetChangesRefused) and the caller
// applies what they came from. Used by Applier, RowWriter and SetWriter.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "engine/apply/table_map.hpp"
#include "engine/async.hpp"
#include "engine/pg/connection.hpp"

namespace walferry::apply {

enum class Operation : std::uint8_t { Control, Advance, Insert, Update, Delete, Truncate };

// Where a change came from, for the error text.
struct ChangeOrigin {
  Bytes payload = {};  // its message, kept alive by:
  std::shared_ptr<const void> owner = {};
  bool in_stream = false;
  Xid xid{};
  Lsn final_lsn = {};
};

// What is to come back for a statement.
struct Expected {
  Operation operation = Operation::Control;
  const MappedTable* table = nullptr;
  std::int64_t rows = 1;  // that it must meet; looked at for Advance and changes of rows
  bool net = false;       // stands for changes that can be applied one by one instead
  bool guarded = false;   // the statement itself fails where it does not meet one row
  bool open = false;      // the count can still be wrong; set when it is sent, since what decides it may change
  ChangeOrigin origin = {};
};

// Net changes did not go in: a unique constraint saw them in another order, or a row was not there.
class NetChangesRefused : public std::runtime_error {
 public:
  NetChangesRefused(QualifiedName table, const std::string& reason)
      : std::runtime_error(reason), table_(std::move(table)) {}
  [[nodiscard]] const QualifiedName& table() const { return table_; }

 private:
  QualifiedName table_;
};

class Pipeline {
 public:
  // The connection is in pipeline mode and idle. `triggers_fire`: any insert may be turned away without an error.
  void attach(pg::Connection& connection, bool triggers_fire);
  void detach();

  void prepare(const std::string& name, const std::string& sql);
  void send_control(const std::string& name, std::span<const char* const> values = {},
                    Operation operation = Operation::Control);
  void send_sql(const std::string& sql, Expected expected);
  // Prepares the statement first where that has not been done. Values as text.
  void send(Statement& statement, std::span<const char* const> values, std::size_t bytes, Expected expected);
  // The same with values in binary form.
  void send_binary(Statement& statement, std::span<const std::string_view> values, Expected expected);

  // So much is in flight, or queued for the kernel, that throttle() must be awaited.
  [[nodiscard]] bool full() const;
  // A change was sent whose row count can still be wrong.
  [[nodiscard]] bool counts_open() const { return counts_open_ > 0; }
  // Hands what is queued to the server and takes the outcomes that are there, so that neither grows without bound.
  Awaitable<void> throttle();
  // Ends the unit and reads every outcome.
  Awaitable<void> settle();
  // Settles, and loads `rows` rows of `table` by COPY; `next` fills a buffer with some of them until it returns false.
  Awaitable<void> copy(const MappedTable& table, std::int64_t rows, std::function<bool(std::vector<std::byte>&)> next);

 private:
  void expect(Expected expected);
  [[nodiscard]] bool count_can_differ(const Expected& expected) const;
  void accept_result(pg::ResultPtr result);
  [[noreturn]] void fail(const Expected& expected, const Error& cause) const;

  pg::Connection* connection_ = nullptr;
  bool triggers_fire_ = false;
  std::deque<Expected> expected_;
  std::size_t unflushed_bytes_ = 0;
  std::size_t counts_open_ = 0;
};

}  // namespace walferry::apply
