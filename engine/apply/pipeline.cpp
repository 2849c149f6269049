#include "engine/apply/pipeline.hpp"

#include <fmt/format.h>

#include "engine/apply/change_error.hpp"

namespace walferry::apply {
namespace {

// libpq's buffers must not grow with the backlog.
constexpr std::size_t in_flight_statements_max = 2'048;
constexpr std::size_t unflushed_bytes_max = std::size_t{64} << 10U;
constexpr std::size_t statement_overhead_bytes = 64;

constexpr std::string_view division_by_zero = "22012";  // how a guarded statement fails

bool is_change_of_rows(Operation operation) {
  return operation == Operation::Insert || operation == Operation::Update || operation == Operation::Delete;
}

}  // namespace

void Pipeline::attach(pg::Connection& connection, bool triggers_fire) {
  detach();
  connection_ = &connection;
  triggers_fire_ = triggers_fire;
}

void Pipeline::detach() {
  connection_ = nullptr;
  expected_.clear();
  unflushed_bytes_ = 0;
  counts_open_ = 0;
}

// An insert without triggers or rules meets one row or fails; any other change may meet none.
bool Pipeline::count_can_differ(const Expected& expected) const {
  if (expected.guarded) return false;
  if (expected.operation != Operation::Insert) return is_change_of_rows(expected.operation);
  return triggers_fire_ || expected.table->order != MappedTable::Order::Free;
}

void Pipeline::expect(Expected expected) {
  expected.open = count_can_differ(expected);
  if (expected.open) ++counts_open_;
  expected_.push_back(std::move(expected));
}

void Pipeline::prepare(const std::string& name, const std::string& sql) {
  connection_->send_prepare(name, sql);
  expect({});
}

void Pipeline::send_control(const std::string& name, std::span<const char* const> values, Operation operation) {
  connection_->send_prepared(name, values);
  expect({.operation = operation});
}

void Pipeline::send_sql(const std::string& sql, Expected expected) {
  connection_->send_statement(sql);
  expect(std::move(expected));
}

void Pipeline::send(Statement& statement, std::span<const char* const> values, std::size_t bytes, Expected expected) {
  if (!std::exchange(statement.prepared, true)) {
    connection_->send_prepare(statement.name, statement.sql);
    expect({.table = expected.table, .net = expected.net, .origin = expected.origin});
  }
  connection_->send_prepared(statement.name, values);
  expect(std::move(expected));
  unflushed_bytes_ += bytes + statement_overhead_bytes;
}

void Pipeline::send_binary(Statement& statement, std::span<const std::string_view> values, Expected expected) {
  if (!std::exchange(statement.prepared, true)) {
    connection_->send_prepare(statement.name, statement.sql);
    expect({.table = expected.table, .net = expected.net, .origin = expected.origin});
  }
  connection_->send_prepared_binary(statement.name, values);
  expect(std::move(expected));
  for (const std::string_view value : values) unflushed_bytes_ += value.size();
}

bool Pipeline::full() const {
  return expected_.size() >= in_flight_statements_max || unflushed_bytes_ >= unflushed_bytes_max;
}

Awaitable<void> Pipeline::throttle() {
  connection_->send_flush_request();
  co_await connection_->flush();
  unflushed_bytes_ = 0;
  connection_->consume_input();
  while (!expected_.empty()) {
    pg::ResultPtr result = connection_->take_result();
    if (!result) break;
    accept_result(std::move(result));
  }
  while (expected_.size() > in_flight_statements_max / 2) {
    pg::ResultPtr result = co_await connection_->next_result();
    accept_result(std::move(result));
  }
}

Awaitable<void> Pipeline::settle() {
  connection_->send_sync();
  for (;;) {
    pg::ResultPtr result = co_await connection_->next_result();
    if (PQresultStatus(result.get()) == PGRES_PIPELINE_SYNC) break;
    accept_result(std::move(result));
  }
  unflushed_bytes_ = 0;
}

Awaitable<void> Pipeline::copy(const MappedTable& table, std::int64_t rows,
                               std::function<bool(std::vector<std::byte>&)> next) {
  if (!expected_.empty()) co_await settle();
  connection_->exit_pipeline();  // libpq has no COPY in it
  std::optional<Error> failure;
  std::int64_t loaded = 0;
  try {
    co_await connection_->start_copy_in(table.copy_sql);
    std::vector<std::byte> buffer;
    for (bool more = true; more;) {
      buffer.clear();
      more = next(buffer);
      co_await connection_->send_copy_data(buffer);
    }
    loaded = co_await connection_->finish_copy_in();
  } catch (const Error& error) {
    failure = error;
  }
  const Expected expected{.operation = Operation::Insert, .table = &table, .rows = rows, .net = true};
  if (failure) fail(expected, *failure);
  if (loaded != rows)
    fail(expected, Error{{ErrorKind::Divergence, Side::Target}, fmt::format("{} of {} rows went in", loaded, rows)});
  connection_->enter_pipeline();
}

void Pipeline::accept_result(pg::ResultPtr result) {
  // The last word of a server that ends the connection answers nothing that was sent.
  if (expected_.empty()) throw pg::error_of(result.get(), Side::Target);
  const Expected expected = std::move(expected_.front());
  expected_.pop_front();
  if (expected.open) --counts_open_;
  const ExecStatusType status = PQresultStatus(result.get());
  if (status != PGRES_COMMAND_OK && status != PGRES_TUPLES_OK) fail(expected, pg::error_of(result.get(), Side::Target));
  if (expected.operation == Operation::Control || expected.operation == Operation::Truncate) return;
  const std::int64_t rows = pg::Result{std::move(result)}.affected();
  if (rows == expected.rows) return;
  if (expected.operation == Operation::Advance) {
    throw Error{{ErrorKind::Divergence, Side::Target},
                "the table that keeps the position on the target did not take it"};
  }
  fail(expected, Error{{ErrorKind::Divergence, Side::Target},
                       rows == 0 ? "the target has no such row" : fmt::format("{} rows of the target fit it", rows)});
}

void Pipeline::fail(const Expected& expected, const Error& cause) const {
  // What passes by itself is retried as it is; what does not is a divergence at exactly this change.
  if (is_transient(cause)) throw cause;
  if (expected.guarded && cause.sqlstate() == division_by_zero)
    throw NetChangesRefused{expected.table->name, "a row was not there, or a column has another type"};
  if (expected.net) throw NetChangesRefused{expected.table->name, cause.what()};
  throw_change_error(expected, cause);
}

}  // namespace walferry::apply
