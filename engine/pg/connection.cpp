#include "engine/pg/connection.hpp"

#include <fmt/format.h>
#include <sys/ioctl.h>

#include <boost/asio/experimental/awaitable_operators.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/system/system_error.hpp>

#include "engine/pg/round_trip.hpp"

namespace walferry::pg {

using namespace asio::experimental::awaitable_operators;
namespace {

constexpr auto near = std::chrono::milliseconds{1};

}  // namespace

Connection::Connection(const asio::any_io_executor& executor, Session session)
    : session_(std::move(session)), side_(session_.side()), descriptor_(executor), timer_(executor) {
  if (PQsetnonblocking(raw(), 1) != 0) fail("switching to non-blocking");
}

Connection::~Connection() {
  alarm_->wait = 0;
  unwatch();
}

Awaitable<void> Connection::wait_for(Descriptor::wait_type what) {
  watch();
  co_await descriptor_.async_wait(what, asio::use_awaitable);
}

void Connection::watch() {
  if (!descriptor_.is_open()) descriptor_.assign(PQsocket(raw()));
}

void Connection::unwatch() {
  if (descriptor_.is_open()) descriptor_.release();
}

void Connection::fail(std::string_view doing) const {
  std::string reason = PQerrorMessage(raw());
  while (!reason.empty() && reason.back() == '\n') reason.pop_back();
  if (reason.empty()) reason = "the connection was closed";
  throw Error{{ErrorKind::Connection, side_}, fmt::format("{}: {}: {}", to_string(side_), doing, reason)};
}

void Connection::consume_input() {
  if (PQconsumeInput(raw()) != 1) fail("reading");
  // A record of TLS or GSS may hold 16 KB and libpq always has room for 8: the rest of it is inside the library, and
  // the socket would not show it.
  if (encrypted() && PQconsumeInput(raw()) != 1) fail("reading");
}

bool Connection::encrypted() const {
  return PQsslInUse(raw()) != 0 || PQgssEncInUse(raw()) != 0;
}

bool Connection::gathers_unread() const {
  if (encrypted()) return false;  // each flush is a record of its own, which has to be read by itself whenever it comes
  // A Unix socket holds too little to be left alone.
  const auto round_trip = shortest_round_trip(PQsocket(raw()));
  return round_trip && *round_trip < near;
}

std::size_t Connection::bytes_waiting() const {
  int bytes = 0;
  return ::ioctl(PQsocket(raw()), FIONREAD, &bytes) == 0 && bytes > 0 ? static_cast<std::size_t>(bytes) : 0;
}

Awaitable<void> Connection::pause_until(Deadline deadline) {
  unwatch();
  timer_.expires_at(deadline);
  co_await timer_.async_wait(asio::use_awaitable);
}

Awaitable<bool> Connection::wait_readable(Deadline deadline) {
  // The timer ends the wait for the socket. Two waits side by side would cost an exception each time.
  const std::shared_ptr<Alarm> alarm = alarm_;
  const std::uint64_t mine = ++waits_;
  alarm->wait = mine;
  alarm->rang = false;
  timer_.expires_at(deadline);
  timer_.async_wait([this, alarm, mine](const boost::system::error_code& cancelled) {
    if (cancelled || alarm->wait != mine) return;
    alarm->rang = true;
    descriptor_.cancel();
  });
  watch();
  boost::system::error_code error;
  co_await descriptor_.async_wait(Descriptor::wait_read, asio::redirect_error(asio::use_awaitable, error));
  if (alarm->wait != mine) throw boost::system::system_error{asio::error::operation_aborted};  // we are gone
  alarm->wait = 0;
  timer_.cancel();
  if (!error) co_return true;
  if (!alarm->rang) throw boost::system::system_error{error};
  co_return false;
}

Awaitable<void> Connection::flush() {
  for (;;) {
    const int pending = PQflush(raw());
    if (pending < 0) fail("writing");
    if (pending == 0) co_return;
    watch();
    const auto first = co_await (descriptor_.async_wait(Descriptor::wait_write, asio::use_awaitable) ||
                                 descriptor_.async_wait(Descriptor::wait_read, asio::use_awaitable));
    if (first.index() == 1) consume_input();
  }
}

Awaitable<Result> Connection::exec(std::string sql) {
  if (PQsendQuery(raw(), sql.c_str()) != 1) fail("sending a statement");
  co_await flush();
  co_return co_await last_result();
}

Awaitable<Result> Connection::exec_until(std::string sql, Deadline deadline) {
  if (PQsendQuery(raw(), sql.c_str()) != 1) fail("sending a statement");
  co_await flush();
  co_return co_await last_result(deadline);
}

// Reads to the end of the query, or to where a COPY begins; throws its first error.
Awaitable<Result> Connection::last_result(std::optional<Deadline> deadline) {
  ResultPtr last;
  std::optional<Error> failure;
  for (;;) {
    while (PQisBusy(raw()) != 0) {
      if (deadline) {
        const bool readable = co_await wait_readable(*deadline);
        if (!readable) throw Error{{ErrorKind::Connection, side_}, fmt::format("{}: no answer came", to_string(side_))};
      } else {
        co_await wait_for(Descriptor::wait_read);
      }
      consume_input();
    }
    ResultPtr result{PQgetResult(raw())};
    if (!result) break;
    const ExecStatusType status = PQresultStatus(result.get());
    if (status == PGRES_FATAL_ERROR || status == PGRES_BAD_RESPONSE) {
      if (!failure) failure = error_of(result.get(), side_);
      if (PQstatus(raw()) != CONNECTION_OK) break;
      continue;
    }
    last = std::move(result);
    if (status == PGRES_COPY_BOTH || status == PGRES_COPY_IN) break;
  }
  if (failure) throw *failure;
  co_return Result{std::move(last)};
}

Awaitable<void> Connection::start_copy_both(std::string sql) {
  const Result result = co_await exec(std::move(sql));
  if (PQresultStatus(result.get()) != PGRES_COPY_BOTH) {
    throw Error{{ErrorKind::Protocol, side_},
                fmt::format("{}: START_REPLICATION did not start a stream", to_string(side_))};
  }
}

std::optional<Bytes> Connection::take_copy_data() {
  char* data = nullptr;
  const int length = PQgetCopyData(raw(), &data, 1);
  if (!session_.fatal_notice().empty()) {
    PQfreemem(data);
    throw Error{
        {ErrorKind::Refused, side_},
        fmt::format(
            "{}: {}: rows would be left out silently. Remedy: create the publication again as it was, and start "
            "walferry again",
            to_string(side_), session_.fatal_notice())};
  }
  copy_data_.reset(data);
  if (length > 0) return Bytes{reinterpret_cast<const std::byte*>(data), static_cast<std::size_t>(length)};
  if (length == 0) return std::nullopt;
  if (length == -2) fail("reading the stream");
  // -1: the server ended the stream, in order or with an error. All results are taken: a statement may follow.
  std::optional<Error> failure;
  while (ResultPtr result{PQgetResult(raw())}) {
    if (PQresultStatus(result.get()) == PGRES_FATAL_ERROR && !failure) {
      failure = error_of(result.get(), side_);
      // A walsender's context says at which LSN it failed.
      if (const char* context = PQresultErrorField(result.get(), PG_DIAG_CONTEXT))
        failure.emplace(ErrorOrigin{failure->kind(), failure->side(), failure->sqlstate()},
                        fmt::format("{}; {}", failure->what(), context));
    }
    if (PQstatus(raw()) != CONNECTION_OK) break;
  }
  if (failure) throw *failure;
  throw Error{{ErrorKind::Connection, side_}, fmt::format("{}: the server ended the stream", to_string(side_))};
}

Awaitable<void> Connection::send_copy_data(Bytes data) {
  for (;;) {
    const int sent = PQputCopyData(raw(), reinterpret_cast<const char*>(data.data()), static_cast<int>(data.size()));
    if (sent < 0) fail("writing to the stream");
    if (sent == 1) break;
    co_await wait_for(Descriptor::wait_write);
  }
  co_await flush();
}

Awaitable<void> Connection::start_copy_in(std::string sql) {
  const Result result = co_await exec(std::move(sql));
  if (PQresultStatus(result.get()) != PGRES_COPY_IN) {
    throw Error{{ErrorKind::Protocol, side_}, fmt::format("{}: COPY did not start", to_string(side_))};
  }
}

Awaitable<std::int64_t> Connection::finish_copy_in() {
  for (;;) {
    const int sent = PQputCopyEnd(raw(), nullptr);
    if (sent < 0) fail("ending a COPY");
    if (sent == 1) break;
    co_await wait_for(Descriptor::wait_write);
  }
  co_await flush();
  const Result result = co_await last_result();
  co_return result.affected();
}

void Connection::enter_pipeline() {
  if (PQenterPipelineMode(raw()) != 1) fail("entering pipeline mode");
}

void Connection::exit_pipeline() {
  // One null stands behind the last result; libpq wants it taken.
  while (const ResultPtr result{PQgetResult(raw())}) {
  }
  if (PQexitPipelineMode(raw()) != 1) fail("leaving pipeline mode");
}

void Connection::send_prepare(const std::string& name, const std::string& sql) {
  if (PQsendPrepare(raw(), name.c_str(), sql.c_str(), 0, nullptr) != 1) fail("preparing a statement");
}

void Connection::send_prepared(const std::string& name, std::span<const char* const> values) {
  if (PQsendQueryPrepared(raw(), name.c_str(), static_cast<int>(values.size()), values.data(), nullptr, nullptr, 0) !=
      1) {
    fail("sending a change");
  }
}

void Connection::send_prepared_binary(const std::string& name, std::span<const std::string_view> values) {
  values_.clear();
  lengths_.clear();
  for (const std::string_view value : values) {
    values_.push_back(value.data());
    lengths_.push_back(static_cast<int>(value.size()));
  }
  formats_.assign(values.size(), 1);
  if (PQsendQueryPrepared(raw(), name.c_str(), static_cast<int>(values.size()), values_.data(), lengths_.data(),
                          formats_.data(), 0) != 1) {
    fail("sending a set of changes");
  }
}

void Connection::send_statement(const std::string& sql) {
  if (PQsendQueryParams(raw(), sql.c_str(), 0, nullptr, nullptr, nullptr, nullptr, 0) != 1) fail("sending a statement");
}

void Connection::send_sync() {
  if (PQpipelineSync(raw()) != 1) fail("ending a pipeline");
}

void Connection::send_flush_request() {
  if (PQsendFlushRequest(raw()) != 1) fail("asking for results");
}

ResultPtr Connection::take_result() {
  // libpq puts one null between the results of two statements; two in a row mean that nothing is outstanding.
  for (int nulls = 0; nulls < 3 && PQisBusy(raw()) == 0; ++nulls) {
    if (ResultPtr result{PQgetResult(raw())}) return result;
  }
  return nullptr;
}

Awaitable<ResultPtr> Connection::next_result() {
  for (;;) {
    if (ResultPtr result = take_result()) co_return result;
    if (PQstatus(raw()) != CONNECTION_OK) fail("waiting for results");
    co_await flush();  // may read as well
    if (PQisBusy(raw()) == 0) {
      if (ResultPtr result = take_result()) co_return result;
      throw Error{{ErrorKind::Protocol, side_}, "a result was awaited with no statement outstanding"};
    }
    co_await wait_for(Descriptor::wait_read);
    consume_input();
  }
}

}  // namespace walferry::pg
