#include "engine/pg/session.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <spdlog/spdlog.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <stop_token>
#include <system_error>
#include <utility>

namespace walferry::pg {
namespace {

// The settings of every session. A backslash keeps the blank inside a value of the startup packet's "options".
constexpr std::string_view pinned_settings =
    "-c datestyle=ISO -c intervalstyle=postgres -c extra_float_digits=3 -c bytea_output=hex -c timezone=UTC "
    "-c lc_monetary=C -c synchronous_commit=on -c xmlbinary=base64 -c xmloption=content "
    "-c statement_timeout=0 -c lock_timeout=0 -c idle_in_transaction_session_timeout=0 "
    "-c default_transaction_read_only=off -c default_transaction_isolation=read\\ committed "
    "-c default_transaction_deferrable=off -c synchronize_seqscans=off -c quote_all_identifiers=off "
    "-c standard_conforming_strings=on -c array_nulls=on -c client_min_messages=warning";

std::string escaped_option(std::string_view setting) {
  std::string out;
  for (const char c : setting) {
    if (c == ' ' || c == '\\') out += '\\';
    out += c;
  }
  return out;
}

std::string trimmed(std::string text) {
  for (char& c : text) {
    if (c == '\n') c = ' ';
  }
  while (!text.empty() && (text.back() == ' ')) text.pop_back();
  return text;
}

// libpq's text for a failed connection attempt holds "FATAL:  ..." but no SQLSTATE; these are the two that no retry
// mends.
std::string sqlstate_of_failed_connect(std::string_view text) {
  for (const std::string_view sign :
       {"password authentication failed", "no password supplied", "no pg_hba.conf entry", "authentication failed",
        "fe_sendauth", "permission denied", "must be superuser", "is not permitted to log in"}) {
    if (text.find(sign) != std::string_view::npos) return "28000";
  }
  if (text.find("role \"") != std::string_view::npos && text.find("does not exist") != std::string_view::npos)
    return "28000";
  if (text.find("database \"") != std::string_view::npos && text.find("does not exist") != std::string_view::npos)
    return "3D000";
  if (text.find("starting up") != std::string_view::npos || text.find("shutting down") != std::string_view::npos)
    return "57P03";
  if (text.find("too many") != std::string_view::npos) return "53300";
  return "";
}

// Settings that not every major knows cannot travel in the startup packet. Compiling a catalog query takes longer than
// running it, and their estimated costs are high enough for that.
// Those that an older server does not know, and those that are none of a login trigger's business (from 17).
std::vector<std::string> later_settings(int server_version) {
  std::vector<std::string> statements{"SET search_path = ''", "SET row_security = off", "SET jit = off"};
  if (server_version >= 140'000) statements.emplace_back("SET idle_session_timeout = 0");
  if (server_version >= 170'000) statements.emplace_back("SET transaction_timeout = 0");
  return statements;
}

struct FreeCancel {
  void operator()(PGcancel* cancel) const { PQfreeCancel(cancel); }
};

// Best effort: spares the server the rest of the work.
void cancel_statement(PGcancel* cancel) noexcept {
  char reason[256];
  if (cancel != nullptr) PQcancel(cancel, reason, sizeof reason);
}

Error stopped(Side side) {
  return Error{{ErrorKind::Stopped, side}, fmt::format("{}: stopped", to_string(side))};
}

}  // namespace

// Whoever asks to stop only shuts the socket, through a descriptor that libpq does not close; the thread that waited
// for it, woken by that, cancels what the server may still be doing, a wait for a lock, say.
class Session::StopGuard {
 public:
  StopGuard(PGconn* connection, Side side, const std::stop_token& stop)
      : cancel_(PQgetCancel(connection)),
        socket_(::fcntl(PQsocket(connection), F_DUPFD_CLOEXEC, 0)),
        stop_(stop),
        on_stop_(stop, Shut{socket_.number}) {
    if (socket_.number < 0) {
      throw Error{{ErrorKind::Connection, side},
                  fmt::format("{}: its socket: {}", to_string(side), std::generic_category().message(errno))};
    }
  }

  [[nodiscard]] bool stopped() const { return stop_.stop_requested(); }
  void cancel() noexcept { cancel_statement(std::exchange(cancel_, nullptr).get()); }

 private:
  struct Descriptor {
    int number;
    explicit Descriptor(int given) : number(given) {}
    Descriptor(const Descriptor&) = delete;
    Descriptor& operator=(const Descriptor&) = delete;
    ~Descriptor() { ::close(number); }
  };
  struct Shut {
    int socket;
    void operator()() const noexcept { ::shutdown(socket, SHUT_RDWR); }
  };

  std::unique_ptr<PGcancel, FreeCancel> cancel_;
  Descriptor socket_;
  std::stop_token stop_;
  std::stop_callback<Shut> on_stop_;
};

Session::Session(Session&& other) noexcept = default;
Session& Session::operator=(Session&& other) noexcept = default;
Session::~Session() = default;

Session Session::open(const ConnInfo& info, const SessionOptions& options) {
  if (info.stop().stop_requested()) throw stopped(info.side());
  std::string settings{pinned_settings};
  for (const std::string& setting : options.settings) settings += " -c " + escaped_option(setting);
  if (const auto own = info.get("options")) settings = *own + " " + settings;

  std::vector<std::pair<std::string, std::string>> parameters;
  bool has_keepalives = false;
  bool has_timeout = false;
  for (const auto& [key, value] : info.parameters()) {
    if (key == "options" || key == "application_name" || key == "client_encoding" || key == "replication") continue;
    has_keepalives = has_keepalives || key.starts_with("keepalives") || key == "tcp_user_timeout";
    has_timeout = has_timeout || key == "connect_timeout";
    parameters.emplace_back(key, value);
  }
  parameters.emplace_back("options", settings);
  parameters.emplace_back("application_name", options.application_name);
  parameters.emplace_back("client_encoding", options.client_encoding);
  if (options.kind == SessionKind::Replication) parameters.emplace_back("replication", "database");
  if (!has_timeout) parameters.emplace_back("connect_timeout", "10");
  if (!has_keepalives) {
    // A half-open connection must be noticed within about half a minute, in both directions.
    parameters.emplace_back("keepalives_idle", "10");
    parameters.emplace_back("keepalives_interval", "5");
    parameters.emplace_back("keepalives_count", "4");
    parameters.emplace_back("tcp_user_timeout", "30000");
  }
  std::vector<const char*> keywords;
  std::vector<const char*> values;
  for (const auto& [key, value] : parameters) {
    keywords.push_back(key.c_str());
    values.push_back(value.c_str());
  }
  keywords.push_back(nullptr);
  values.push_back(nullptr);

  ConnectionPtr connection{PQconnectdbParams(keywords.data(), values.data(), 0)};
  if (!connection) throw Error{{ErrorKind::Connection, info.side()}, "out of memory while connecting"};
  if (PQstatus(connection.get()) != CONNECTION_OK) {
    const std::string reason = trimmed(PQerrorMessage(connection.get()));
    const std::string sqlstate = sqlstate_of_failed_connect(reason);
    std::string remedy = "check that the server runs and that host and port are right";
    if (sqlstate == "28000") {
      remedy = "check user, password (PGPASSFILE, service file or connection string) and pg_hba.conf of that server";
    } else if (sqlstate == "3D000") {
      remedy = "check the database name, or create the database first";
    } else if (sqlstate == "53300") {
      remedy = "end other sessions there, or raise its limit of connections";
    } else if (sqlstate == "57P03") {
      remedy = "wait until the server has started, or see why it does not";
    } else if (reason.find("SSL") != std::string::npos || reason.find("certificate") != std::string::npos) {
      remedy = "check sslmode, sslrootcert and sslcert, and from when to when the certificates are valid";
    } else if (reason.find("unsupported startup parameter") != std::string::npos) {
      remedy = "connect to the server itself: a pooler answers there";
    }
    throw Error{{ErrorKind::Connection, info.side(), sqlstate},
                fmt::format("cannot connect to the {} at {}: {}. Remedy: {}", to_string(info.side()), info.redacted(),
                            reason, remedy)};
  }
  Session session{std::move(connection), info};
  // A walsender decodes inside transactions of its server, too. It takes one statement at a time: older minors no more.
  const std::vector<std::string> settings_after_login = later_settings(session.server_version());
  if (options.kind == SessionKind::Ordinary) {
    session.exec(fmt::format("{}", fmt::join(settings_after_login, "; ")));
  } else {
    for (const std::string& statement : settings_after_login) session.exec(statement);
  }
  if (options.read_only) session.exec("SET default_transaction_read_only = on");
  return session;
}

Session::Session(ConnectionPtr connection, const ConnInfo& info)
    : notices_(std::make_unique<Notices>()), connection_(std::move(connection)), side_(info.side()) {
  notices_->side = side_;
  PQsetNoticeReceiver(raw(), receive_notice, notices_.get());
  if (info.stop().stop_possible()) guard_ = std::make_unique<StopGuard>(raw(), side_, info.stop());
}

// To the log, without row data: PostgreSQL puts none into the primary message of a notice.
void Session::receive_notice(void* notices, const PGresult* result) {
  auto& received = *static_cast<Notices*>(notices);
  const char* message = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);
  const char* sqlstate = PQresultErrorField(result, PG_DIAG_SQLSTATE);
  const std::string_view text = message == nullptr ? std::string_view{} : message;
  if (sqlstate != nullptr && std::string_view{sqlstate} == "55000" &&
      text.find("publication") != std::string_view::npos) {
    received.fatal = text;
  }
  spdlog::debug("{} says: {}", to_string(received.side), text);
}

Result Session::finish(ResultPtr result) {
  switch (PQresultStatus(result.get())) {
    case PGRES_COMMAND_OK:
    case PGRES_TUPLES_OK:
    case PGRES_EMPTY_QUERY:
    case PGRES_COPY_IN:
    case PGRES_COPY_OUT:
    case PGRES_COPY_BOTH:
      return Result{std::move(result)};
    case PGRES_BAD_RESPONSE:
    case PGRES_NONFATAL_ERROR:
    case PGRES_FATAL_ERROR:
    case PGRES_SINGLE_TUPLE:
    case PGRES_PIPELINE_SYNC:
    case PGRES_PIPELINE_ABORTED:
      break;
  }
  if (!result) fail(PQerrorMessage(raw()));
  fail(error_of(result.get(), side_));
}

void Session::fail(const Error& failure) const {
  if (!guard_ || !guard_->stopped()) throw failure;
  guard_->cancel();
  throw stopped(side_);
}

void Session::fail(std::string_view reason) const {
  fail(Error{{ErrorKind::Connection, side_}, fmt::format("{}: {}", to_string(side_), trimmed(std::string{reason}))});
}

Result Session::exec(const std::string& sql) {
  return finish(ResultPtr{PQexec(raw(), sql.c_str())});
}

Result Session::exec_params(const std::string& sql, std::span<const std::optional<std::string>> parameters) {
  std::vector<const char*> values;
  values.reserve(parameters.size());
  for (const auto& parameter : parameters) values.push_back(parameter ? parameter->c_str() : nullptr);
  return finish(ResultPtr{
      PQexecParams(raw(), sql.c_str(), static_cast<int>(values.size()), nullptr, values.data(), nullptr, nullptr, 0)});
}

Result Session::exec_watched(const std::string& sql, std::chrono::milliseconds interval,
                             const std::function<void()>& look) {
  if (PQsendQuery(raw(), sql.c_str()) != 1) fail(PQerrorMessage(raw()));
  while (PQisBusy(raw()) != 0) {
    pollfd socket{.fd = PQsocket(raw()), .events = POLLIN, .revents = 0};
    const int ready = ::poll(&socket, 1, static_cast<int>(interval.count()));
    if (ready > 0) {
      if (PQconsumeInput(raw()) != 1) break;
      continue;
    }
    try {
      look();
    } catch (...) {
      interrupt();
      throw;
    }
  }
  // What exec() returns: the failure, else the last.
  ResultPtr last;
  while (ResultPtr result{PQgetResult(raw())}) {
    if (!last || PQresultStatus(last.get()) != PGRES_FATAL_ERROR) last = std::move(result);
  }
  return finish(std::move(last));
}

void Session::start_copy_out(const std::string& sql) {
  exec(sql);
}

std::string_view Session::next_copy_row() {
  char* row = nullptr;
  const int length = PQgetCopyData(raw(), &row, 0);
  copy_row_.reset(row);
  if (length > 0) return {row, static_cast<std::size_t>(length)};
  if (length == -2) fail(PQerrorMessage(raw()));
  // -1: the copy is over; its outcome follows, and libpq wants all results read.
  std::optional<Error> failure;
  while (ResultPtr result{PQgetResult(raw())}) {
    if (PQresultStatus(result.get()) == PGRES_FATAL_ERROR && !failure) failure = error_of(result.get(), side_);
  }
  if (failure) fail(*failure);
  return {};
}

void Session::start_copy_in(const std::string& sql) {
  exec(sql);
}

void Session::put_copy_data(std::string_view data) {
  if (PQputCopyData(raw(), data.data(), static_cast<int>(data.size())) != 1) fail(PQerrorMessage(raw()));
}

std::int64_t Session::finish_copy_in() {
  if (PQputCopyEnd(raw(), nullptr) != 1) fail(PQerrorMessage(raw()));
  std::optional<Error> failure;
  std::int64_t rows = 0;
  while (ResultPtr result{PQgetResult(raw())}) {
    if (PQresultStatus(result.get()) == PGRES_FATAL_ERROR) {
      if (!failure) failure = error_of(result.get(), side_);
      if (PQstatus(raw()) != CONNECTION_OK) break;
    } else {
      rows = Result{std::move(result)}.affected();
    }
  }
  if (failure) fail(*failure);
  return rows;
}

void Session::fail_copy_in(const std::string& reason) noexcept {
  if (PQputCopyEnd(raw(), reason.c_str()) != 1) return;
  while (ResultPtr result{PQgetResult(raw())}) {
    if (PQstatus(raw()) != CONNECTION_OK) break;
  }
}

void Session::interrupt() noexcept {
  const std::unique_ptr<PGcancel, FreeCancel> cancel{PQgetCancel(raw())};
  cancel_statement(cancel.get());
  ::shutdown(PQsocket(raw()), SHUT_RDWR);
}

bool is_here(Session& server) {
  return server.exec("SELECT pg_catalog.inet_server_addr() IS NOT DISTINCT FROM pg_catalog.inet_client_addr()")
      .flag(0, 0);
}

void use_snapshot(Session& session, const std::string& snapshot) {
  session.exec("BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY");
  try {
    session.exec("SET TRANSACTION SNAPSHOT " + quote_literal(snapshot));
  } catch (const Error& error) {
    if (error.sqlstate() != "22023" && error.sqlstate() != "42704") throw;
    throw Error{
        {ErrorKind::Sql, session.side(), std::string{snapshot_gone}},
        fmt::format("{}: the snapshot {} is gone with the session that held it", to_string(session.side()), snapshot)};
  }
}

}  // namespace walferry::pg
