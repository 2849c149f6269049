// One blocking connection: open, ask, copy. Used by worker threads and by commands; the stream and the apply use
// Connection.
//
// Every session pins the settings that decide how values are written and read (DateStyle, IntervalStyle,
// extra_float_digits, bytea_output, TimeZone, lc_monetary, search_path ...) and switches off every timeout, because a
// setting made on the source's database or role would otherwise change data silently. A session is used by one thread
// at a time; interrupt() alone may be called from another. Where its ConnInfo has a stop token, a stop ends the wait
// that the session is in, and what it throws from then on is Error{Stopped}.
#pragma once

#include <libpq-fe.h>

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/pg/conninfo.hpp"
#include "engine/pg/result.hpp"

namespace walferry::pg {

struct FinishConnection {
  void operator()(PGconn* connection) const { PQfinish(connection); }
};
using ConnectionPtr = std::unique_ptr<PGconn, FinishConnection>;

enum class SessionKind { Ordinary, Replication };

struct SessionOptions {
  std::string application_name = "walferry";
  SessionKind kind = SessionKind::Ordinary;
  std::string client_encoding = "UTF8";
  // Every transaction. Set once connected: target_session_attrs=read-write looks at what the startup packet asked for.
  bool read_only = false;
  // Further settings sent with the startup packet, "name=value" each.
  std::vector<std::string> settings = {};
};

class Session {
 public:
  Session(Session&& other) noexcept;
  Session& operator=(Session&& other) noexcept;
  ~Session();

  // Connects, authenticates and pins the settings. Throws Error{Connection} naming the server, never the password.
  [[nodiscard]] static Session open(const ConnInfo& info, const SessionOptions& options = {});

  // One simple-protocol query string, which may hold several statements; the last result. Throws Error{Sql}.
  Result exec(const std::string& sql);
  // One statement with text parameters; nullopt is NULL.
  Result exec_params(const std::string& sql, std::span<const std::optional<std::string>> parameters);
  // As exec(), and calls `look` each time when so long has passed without an answer; what that throws ends the session.
  Result exec_watched(const std::string& sql, std::chrono::milliseconds interval, const std::function<void()>& look);

  // COPY ... TO STDOUT: start, then one row (or binary chunk) after the other until empty. The view lives until the
  // next call.
  void start_copy_out(const std::string& sql);
  [[nodiscard]] std::string_view next_copy_row();
  // COPY ... FROM STDIN. finish_copy_in returns the number of rows; fail_copy_in makes the server forget them.
  void start_copy_in(const std::string& sql);
  void put_copy_data(std::string_view data);
  std::int64_t finish_copy_in();
  void fail_copy_in(const std::string& reason) noexcept;

  [[nodiscard]] int server_version() const { return PQserverVersion(connection_.get()); }
  [[nodiscard]] int backend_pid() const { return PQbackendPID(connection_.get()); }
  [[nodiscard]] Side side() const { return side_; }
  [[nodiscard]] bool in_transaction() const { return PQtransactionStatus(connection_.get()) != PQTRANS_IDLE; }

  // Makes a blocking call of the owning thread return with an error: asks the server to cancel, then shuts the socket.
  void interrupt() noexcept;
  // The connection broke: throws Error{Connection}, or Error{Stopped} where that was asked for.
  [[noreturn]] void fail(std::string_view reason) const;

  [[nodiscard]] PGconn* raw() const { return connection_.get(); }
  // A notice that must not be passed over was received; its text. PostgreSQL 18 only warns of a missing publication and
  // leaves its rows out (SQLSTATE 55000).
  [[nodiscard]] const std::string& fatal_notice() const { return notices_->fatal; }

 private:
  struct Notices {
    Side side = Side::None;
    std::string fatal;
  };

  class StopGuard;

  Session(ConnectionPtr connection, const ConnInfo& info);
  static void receive_notice(void* notices, const PGresult* result);
  Result finish(ResultPtr result);
  [[noreturn]] void fail(const Error& failure) const;

  struct FreePq {
    void operator()(char* memory) const { PQfreemem(memory); }
  };

  std::unique_ptr<Notices> notices_;  // libpq keeps its address: it outlives the connection
  ConnectionPtr connection_;
  Side side_ = Side::None;
  std::unique_ptr<char, FreePq> copy_row_;
  std::unique_ptr<StopGuard> guard_;  // none without a stop token
};

// A server behind a Unix socket, or at the address that we have: its processors are ours.
[[nodiscard]] bool is_here(Session& server);

// SQLSTATE (class 72, snapshot failure) under which use_snapshot() reports that the exporting session is gone:
// transient, but only a new snapshot helps.
inline constexpr std::string_view snapshot_gone = "72000";

// Begins a transaction that sees exactly `snapshot` (from pg_export_snapshot or a slot's creation), read only.
void use_snapshot(Session& session, const std::string& snapshot);

}  // namespace walferry::pg
