// One connection driven by a coroutine on the io thread: statements, the walsender's CopyBoth, and pipelines of
// prepared statements.
//
// Made from an opened Session, which has authenticated and pinned the settings. One coroutine owns it and nobody else
// touches it. libpq owns the socket: the descriptor is declared after the PGconn and released before it is finished.
#pragma once

#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/steady_timer.hpp>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/async.hpp"
#include "engine/pg/session.hpp"
#include "protocol/bytes.hpp"

namespace walferry::pg {

class Connection {
 public:
  Connection(const asio::any_io_executor& executor, Session session);
  ~Connection();
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  // One simple-protocol query string; the result of its last statement. Throws Error{Sql}.
  Awaitable<Result> exec(std::string sql);
  // The same; throws Error{Connection} when there is no answer by then: the connection is of no more use.
  Awaitable<Result> exec_until(std::string sql, Deadline deadline);

  // --- CopyBoth (START_REPLICATION)
  // -----------------------------------------------------------------------------------
  Awaitable<void> start_copy_both(std::string sql);
  // The next CopyData that is already here; empty when none is whole yet. The view lives until the next call.
  // Throws when the server ended the stream.
  [[nodiscard]] std::optional<Bytes> take_copy_data();
  // Reads what the socket holds, without waiting.
  void consume_input();
  // Whether the kernel holds megabytes that nobody reads and hands them over as fast as they are asked for: TCP, and
  // the server near. Farther away the window would not grow for a reader that pauses.
  [[nodiscard]] bool gathers_unread() const;
  // What the socket holds unread.
  [[nodiscard]] std::size_t bytes_waiting() const;
  // Waits for the deadline alone. The socket is not watched meanwhile: a watched one wakes the thread, and holds up the
  // sender, at every packet, whether anybody waits for it or not.
  Awaitable<void> pause_until(Deadline deadline);
  // Waits until the socket is readable or the deadline has passed; false: it has passed.
  Awaitable<bool> wait_readable(Deadline deadline);
  // Sends one CopyData and waits until the kernel has all of it.
  Awaitable<void> send_copy_data(Bytes data);

  // Lends the session to a blocking step on the pool, outside the pipeline. Only when every result has been taken;
  // after an exception the connection is of no more use.
  template <typename T>
  Awaitable<T> lend(asio::thread_pool& pool, std::function<T(Session&)> work) {
    const bool in_pipeline = PQpipelineStatus(raw()) != PQ_PIPELINE_OFF;
    if (in_pipeline) exit_pipeline();
    if (PQsetnonblocking(raw(), 0) != 0) fail("switching to blocking");
    std::function<T()> step = [this, work = std::move(work)] { return work(session_); };
    lent_ = true;  // for good after an exception
    T result = co_await run_blocking<T>(pool, std::move(step));
    lent_ = false;
    if (PQsetnonblocking(raw(), 1) != 0) fail("switching to non-blocking");
    if (in_pipeline) enter_pipeline();
    co_return result;
  }

  // Ends the wait of whoever has the session now.
  void interrupt_lent() {
    if (lent_) session_.interrupt();
  }

  // --- COPY ... FROM STDIN: start, send_copy_data(), then the number of rows. Throws Error{Sql} when the server
  // refuses.
  Awaitable<void> start_copy_in(std::string sql);
  Awaitable<std::int64_t> finish_copy_in();

  // --- pipeline of prepared statements
  // --------------------------------------------------------------------------------
  void enter_pipeline();
  // Only when every result has been taken.
  void exit_pipeline();
  void send_prepare(const std::string& name, const std::string& sql);
  // Parameters in text form; null pointers are NULL.
  void send_prepared(const std::string& name, std::span<const char* const> values);
  // Parameters in binary form.
  void send_prepared_binary(const std::string& name, std::span<const std::string_view> values);
  // One statement without parameters.
  void send_statement(const std::string& sql);
  // Ends a unit: after an error the server skips to here.
  void send_sync();
  // Asks the server to send the results it has so far.
  void send_flush_request();
  // The next result that is already here; nullptr when it is still to come. Only while results are outstanding.
  [[nodiscard]] ResultPtr take_result();
  // The same, waiting for it. Throws Error{Connection} when the connection is lost.
  Awaitable<ResultPtr> next_result();
  // Hands everything queued to the kernel, reading meanwhile so that neither side can block the other for ever.
  Awaitable<void> flush();

  [[nodiscard]] Side side() const { return side_; }
  [[nodiscard]] int server_version() const { return session_.server_version(); }
  [[nodiscard]] PGconn* raw() const { return session_.raw(); }

 private:
  using Descriptor = asio::posix::stream_descriptor;
  // Of the wait that its timer may end; outlives the connection.
  struct Alarm {
    std::uint64_t wait = 0;  // 0: none
    bool rang = false;
  };

  Awaitable<Result> last_result(std::optional<Deadline> deadline = std::nullopt);
  Awaitable<void> wait_for(Descriptor::wait_type what);
  void watch();
  void unwatch();
  [[nodiscard]] bool encrypted() const;
  [[noreturn]] void fail(std::string_view doing) const;

  Session session_;
  bool lent_ = false;
  Side side_;
  Descriptor descriptor_;  // after the session: released first
  asio::steady_timer timer_;
  std::shared_ptr<Alarm> alarm_ = std::make_shared<Alarm>();
  std::uint64_t waits_ = 0;

  struct FreePq {
    void operator()(char* memory) const { PQfreemem(memory); }
  };
  std::unique_ptr<char, FreePq> copy_data_;

  // Of the statement being sent with binary parameters.
  std::vector<const char*> values_;
  std::vector<int> lengths_;
  std::vector<int> formats_;
};

}  // namespace walferry::pg
