#include "engine/http/server.hpp"

#include <fmt/format.h>
#include <simdjson.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <array>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/core/basic_stream.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http/chunk_encode.hpp>
#include <boost/beast/http/empty_body.hpp>
#include <boost/beast/http/error.hpp>
#include <boost/beast/http/read.hpp>
#include <boost/beast/http/string_body.hpp>
#include <boost/beast/http/write.hpp>
#include <chrono>
#include <deque>
#include <exception>
#include <functional>
#include <set>
#include <string_view>
#include <system_error>
#include <utility>

#include "engine/error.hpp"
#include "engine/http/dashboard.hpp"
#include "engine/http/listener.hpp"
#include "engine/http/metrics.hpp"
#include "engine/http/status_json.hpp"

namespace walferry::http {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace bhttp = boost::beast::http;
using Protocol = asio::generic::stream_protocol;
using Stream = beast::basic_stream<Protocol>;

constexpr auto as_result = asio::as_tuple(asio::use_awaitable);

constexpr std::chrono::seconds idle_limit{30};
constexpr std::chrono::seconds stop_limit{2};
constexpr std::chrono::milliseconds accept_pause{100};
constexpr std::uint64_t body_bytes_max = 64 * 1024;
constexpr std::uint32_t header_bytes_max = 8 * 1024;
constexpr std::ptrdiff_t connections_max = 64;  // of each listener: a flood on TCP leaves the control socket free

constexpr std::string_view json_type = "application/json";
constexpr std::string_view text_type = "text/plain; charset=utf-8";

enum class Channel { Tcp, Control };

enum class Route { Dashboard, Health, Ready, Status, Metrics, Readiness, Cutover, Skip, Stop };

struct RouteEntry {
  std::string_view path;
  Route route;
};

constexpr std::array<RouteEntry, 9> routes{{{"/", Route::Dashboard},
                                            {"/healthz", Route::Health},
                                            {"/readyz", Route::Ready},
                                            {"/status", Route::Status},
                                            {"/metrics", Route::Metrics},
                                            {"/cutover-readiness", Route::Readiness},
                                            {"/cutover", Route::Cutover},
                                            {"/skip", Route::Skip},
                                            {"/stop", Route::Stop}}};

std::optional<Route> find_route(std::string_view target) {
  const std::string_view path = target.substr(0, target.find('?'));
  for (const RouteEntry& entry : routes) {
    if (entry.path == path) return entry.route;
  }
  return std::nullopt;
}

constexpr bool is_command(Route route) {
  return route == Route::Cutover || route == Route::Skip || route == Route::Stop;
}

using Request = bhttp::request<bhttp::string_body>;

std::string_view view(beast::string_view text) {
  return {text.data(), text.size()};
}
beast::string_view beast_view(std::string_view text) {
  return {text.data(), text.size()};
}

struct Answer {
  bhttp::status status = bhttp::status::ok;
  std::string_view content_type = json_type;
  std::string body;
  std::string_view allow = {};
};

Answer refuse(bhttp::status status, std::string_view reason) {
  return {.status = status, .content_type = json_type, .body = error_json(reason) + "\n"};
}

Answer refuse_method(std::string_view allowed) {
  Answer answer = refuse(bhttp::status::method_not_allowed, fmt::format("this path allows {}", allowed));
  answer.allow = allowed;
  return answer;
}

// One accepted socket, owned by its coroutine and known to Impl so that stop() can close it.
struct Connection {
  Connection(Protocol::socket socket, Channel from) : stream(std::move(socket)), channel(from) {}

  void close() { stream.close(); }

  Stream stream;
  beast::flat_buffer buffer;
  Channel channel;
  bool answering = false;
  bool watches_cutover = false;
};

// What a cutover has to say, until its connection has written it.
struct CutoverRun {
  explicit CutoverRun(const asio::any_io_executor& executor)
      : changed(executor, asio::steady_timer::time_point::max()) {}

  void say(std::string line) {
    if (!watched) return;
    lines.push_back(std::move(line));
    changed.cancel();
  }

  std::deque<std::string> lines;
  bool ended = false;          // the outcome is the last of the lines
  bool watched = true;         // the connection that asked is still there
  asio::steady_timer changed;  // never expires; cancelled to wake the connection
};

using CutoverRunPtr = std::shared_ptr<CutoverRun>;  // the cutover and the connection end in either order

std::string ready_reason(const Status& status) {
  if (status.apply_stopped) {
    return status.last_error ? "apply stopped: " + status.last_error->text : "apply stopped";
  }
  std::string reason;
  if (!status.source_connected) reason = "source not connected";
  if (!status.target_connected) reason += reason.empty() ? "target not connected" : ", target not connected";
  if (reason.empty()) reason = fmt::format("not ready in phase {}", to_string(status.phase));
  if (!status.activity.empty()) reason += ": " + status.activity;
  return reason;
}

// A raw line break can only be white space between JSON tokens; a line of NDJSON must not hold one.
std::string on_one_line(std::string json) {
  std::replace_if(
      json.begin(), json.end(), [](char c) { return c == '\n' || c == '\r'; }, ' ');
  return json;
}

std::string outcome_line(const CommandOutcome& outcome) {
  return fmt::format("{{\"outcome\":{{\"exit_code\":{},\"result\":{}}}}}\n", outcome.exit_code,
                     outcome.json.empty() ? "{}" : on_one_line(outcome.json));
}

std::chrono::milliseconds read_milliseconds(std::string_view key, simdjson::dom::element value) {
  std::int64_t number = 0;
  constexpr std::int64_t day = 86'400'000;
  if (value.get(number) != simdjson::SUCCESS || number < 0 || number > day) {
    throw Error{{.kind = ErrorKind::Usage}, fmt::format("{} must be a whole number from 0 to {}", key, day)};
  }
  return std::chrono::milliseconds{number};
}

CutoverOptions parse_cutover_options(const std::string& body) {
  CutoverOptions options;
  if (body.empty()) return options;
  simdjson::dom::parser parser;
  simdjson::dom::object members;
  if (parser.parse(body).get(members) != simdjson::SUCCESS) {
    throw Error{{.kind = ErrorKind::Usage}, "the body must be a JSON object"};
  }
  for (const auto [key, value] : members) {
    if (key == "timeout_ms") {
      options.timeout = read_milliseconds(key, value);
    } else if (key == "max_lag_ms") {
      options.max_lag = read_milliseconds(key, value);
    } else if (key == "dry_run") {
      if (value.get(options.dry_run) != simdjson::SUCCESS) {
        throw Error{{.kind = ErrorKind::Usage}, "dry_run must be true or false"};
      }
    } else if (key == "refresh_first") {
      if (value.get(options.refresh_first) != simdjson::SUCCESS) {
        throw Error{{.kind = ErrorKind::Usage}, "refresh_first must be true or false"};
      }
    } else if (key == "way_back") {
      if (value.get(options.way_back) != simdjson::SUCCESS) {
        throw Error{{.kind = ErrorKind::Usage}, "way_back must be true or false"};
      }
    } else {
      throw Error{{.kind = ErrorKind::Usage}, fmt::format("'{}' is not an option of cutover", key)};
    }
  }
  return options;
}

struct SkipRequest {
  Lsn lsn;
  std::string object;  // instead of the LSN
  std::string reason;
};

SkipRequest parse_skip_request(const std::string& body) {
  simdjson::dom::parser parser;
  simdjson::dom::element members;
  std::string_view lsn_text;
  std::string_view reason;
  if (parser.parse(body).get(members) == simdjson::SUCCESS && members["lsn"].get(lsn_text) == simdjson::SUCCESS &&
      members["reason"].get(reason) == simdjson::SUCCESS) {
    if (const auto lsn = Lsn::parse(lsn_text)) return {.lsn = *lsn, .object = {}, .reason = std::string{reason}};
  }
  std::string_view object;
  if (parser.parse(body).get(members) == simdjson::SUCCESS && members["object"].get(object) == simdjson::SUCCESS &&
      members["reason"].get(reason) == simdjson::SUCCESS) {
    return {.lsn = {}, .object = std::string{object}, .reason = std::string{reason}};
  }
  throw Error{{.kind = ErrorKind::Usage}, "the body must be a JSON object with lsn (X/Y), or object, and reason"};
}

// The answer to bytes that are not an acceptable request; none when the peer simply went away or said nothing.
std::optional<Answer> answer_to_read_error(const beast::error_code& error) {
  if (error == bhttp::error::body_limit) {
    return refuse(bhttp::status::payload_too_large, "the body is longer than 64 KiB");
  }
  if (error == bhttp::error::header_limit) {
    return refuse(bhttp::status::request_header_fields_too_large, "the header is longer than 8 KiB");
  }
  if (error == bhttp::error::end_of_stream || error == bhttp::error::partial_message) return std::nullopt;
  if (error.category() == bhttp::make_error_code(bhttp::error::bad_version).category()) {
    return refuse(bhttp::status::bad_request, "this is not HTTP/1.1");
  }
  return std::nullopt;
}

}  // namespace

// The coroutines are static and hold their Impl, because they may outlive the Server.
struct Server::Impl : std::enable_shared_from_this<Server::Impl> {
  using Self = std::shared_ptr<Impl>;
  using ConnectionPtr = std::shared_ptr<Connection>;  // shared by its coroutine and the set of connections

  Impl(asio::any_io_executor on, ControlHandler& answers, ServerOptions given)
      : executor(std::move(on)),
        handler(answers),
        options(std::move(given)),
        tcp(executor),
        control(executor),
        stop_timer(executor) {}

  static asio::awaitable<void> accept_loop(Self self, Channel channel);
  static asio::awaitable<void> serve(Self self, ConnectionPtr connection);
  // One request and its answer; whether the connection can carry another.
  static asio::awaitable<bool> serve_request(Self self, ConnectionPtr connection);
  static asio::awaitable<Answer> answer(Self self, Channel channel, Request request);
  static asio::awaitable<bool> write_answer(Self self, ConnectionPtr connection, Answer answer, Request request);
  // Runs a cutover and writes its steps as they come.
  static asio::awaitable<bool> serve_cutover(Self self, ConnectionPtr connection, Request request);
  static asio::awaitable<void> run_cutover(Self self, CutoverRunPtr run, CutoverOptions options);

  void start();
  void stop();
  void admit(Protocol::socket socket, Channel channel);
  void forget(const ConnectionPtr& connection);
  void close_all_but_cutovers();

  const asio::any_io_executor executor;
  ControlHandler& handler;
  const ServerOptions options;
  std::string tcp_address;
  Acceptor tcp;
  Acceptor control;
  asio::steady_timer stop_timer;
  std::set<ConnectionPtr> connections;
  bool started = false;
  bool stopped = false;
  bool cutover_running = false;
};

void Server::Impl::start() {
  control = listen_control(executor, options.control_socket);
  started = true;  // from here on the socket file is ours to remove
  if (options.listen) {
    tcp = listen_tcp(executor, *options.listen);
    tcp_address = local_address(tcp);
    asio::co_spawn(executor, accept_loop(shared_from_this(), Channel::Tcp), asio::detached);
  }
  asio::co_spawn(executor, accept_loop(shared_from_this(), Channel::Control), asio::detached);
}

void Server::Impl::stop() {
  if (stopped) return;
  stopped = true;
  beast::error_code ignored;
  tcp.close(ignored);
  control.close(ignored);
  std::error_code unlink_error;
  if (started) std::filesystem::remove(options.control_socket, unlink_error);
  for (const ConnectionPtr& connection : connections) {
    if (!connection->answering) connection->close();
  }
  if (connections.empty()) return;
  stop_timer.expires_after(stop_limit);
  stop_timer.async_wait([self = shared_from_this()](const beast::error_code& error) {
    if (!error) self->close_all_but_cutovers();
  });
}

void Server::Impl::admit(Protocol::socket socket, Channel channel) {
  const auto from_channel = [channel](const ConnectionPtr& connection) { return connection->channel == channel; };
  const auto open = std::count_if(connections.begin(), connections.end(), from_channel);
  if (open >= connections_max) {
    static constexpr std::string_view busy =
        "HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
    beast::error_code ignored;
    socket.non_blocking(true, ignored);
    socket.write_some(asio::buffer(busy), ignored);
    return;
  }
  const ConnectionPtr connection = std::make_shared<Connection>(std::move(socket), channel);
  connections.insert(connection);
  asio::co_spawn(executor, serve(shared_from_this(), connection), asio::detached);
}

void Server::Impl::forget(const ConnectionPtr& connection) {
  connections.erase(connection);
  if (stopped && connections.empty()) stop_timer.cancel();
}

void Server::Impl::close_all_but_cutovers() {
  for (const ConnectionPtr& connection : connections) {
    if (!connection->watches_cutover) connection->close();
  }
}

asio::awaitable<void> Server::Impl::accept_loop(Self self, Channel channel) {
  Acceptor& acceptor = channel == Channel::Tcp ? self->tcp : self->control;
  asio::steady_timer pause{self->executor};
  while (!self->stopped) {
    auto [error, socket] = co_await acceptor.async_accept(as_result);
    if (self->stopped) break;
    if (error) {
      // Mostly no file descriptor left: there will be one later.
      pause.expires_after(accept_pause);
      co_await pause.async_wait(as_result);
      continue;
    }
    self->admit(std::move(socket), channel);
  }
}

asio::awaitable<void> Server::Impl::serve(Self self, ConnectionPtr connection) {
  try {
    while (!self->stopped) {
      const bool again = co_await serve_request(self, connection);
      connection->answering = false;
      if (!again) break;
    }
    beast::error_code ignored;
    connection->stream.socket().shutdown(asio::socket_base::shutdown_send, ignored);
  } catch (const std::exception& failure) {
    spdlog::warn("a status connection ended with: {}", failure.what());
  }
  connection->close();
  self->forget(connection);
}

asio::awaitable<bool> Server::Impl::serve_request(Self self, ConnectionPtr connection) {
  bhttp::request_parser<bhttp::string_body> parser;
  parser.header_limit(header_bytes_max);
  parser.body_limit(body_bytes_max);
  connection->stream.expires_after(idle_limit);
  const auto [read_error, read_bytes] =
      co_await bhttp::async_read(connection->stream, connection->buffer, parser, as_result);
  connection->answering = true;
  if (read_error) {
    std::optional<Answer> refusal = answer_to_read_error(read_error);
    if (!refusal) co_return false;
    Request unread;
    unread.keep_alive(false);
    const bool written = co_await write_answer(self, connection, std::move(*refusal), std::move(unread));
    if (!written) spdlog::debug("the refusal of a bad request was not read");
    co_return false;
  }
  Request request = parser.release();
  const bool cutover = connection->channel == Channel::Control && request.method() == bhttp::verb::post &&
                       find_route(view(request.target())) == Route::Cutover;
  if (cutover) co_return co_await serve_cutover(self, connection, std::move(request));
  Answer reply = co_await answer(self, connection->channel, request);
  co_return co_await write_answer(self, connection, std::move(reply), std::move(request));
}

asio::awaitable<Answer> Server::Impl::answer(Self self, Channel channel, Request request) {
  const bool reads = request.method() == bhttp::verb::get || request.method() == bhttp::verb::head;
  const bool posts = request.method() == bhttp::verb::post;
  if (posts && channel == Channel::Tcp) {
    co_return refuse(bhttp::status::forbidden,
                     "this address is read-only; commands go through the control socket in the state directory: use "
                     "`walferry cutover --state-dir D`");
  }
  const std::optional<Route> route = find_route(view(request.target()));
  if (!route) co_return refuse(bhttp::status::not_found, "there is nothing at this path");
  if (is_command(*route) && !posts) co_return refuse_method("POST");
  if (!is_command(*route) && !reads) co_return refuse_method("GET, HEAD");
  Answer reply;
  try {
    switch (*route) {
      case Route::Dashboard:
        reply.content_type = "text/html; charset=utf-8";
        reply.body = dashboard_page;
        break;
      case Route::Health:
        reply.content_type = text_type;
        reply.body = "ok\n";
        break;
      case Route::Ready:
        reply.content_type = text_type;
        reply.body = "ready\n";
        if (!self->handler.ready()) {
          reply.status = bhttp::status::service_unavailable;
          reply.body = valid_utf8(ready_reason(self->handler.status())) + "\n";
        }
        break;
      case Route::Status:
        reply.body = status_json(self->handler.status()) + "\n";
        break;
      case Route::Metrics:
        reply.content_type = "text/plain; version=0.0.4; charset=utf-8";
        reply.body = metrics_text(self->handler.status());
        break;
      case Route::Readiness: {
        std::string blockers = co_await self->handler.cutover_readiness();
        reply.body = std::move(blockers) + "\n";
        break;
      }
      case Route::Skip: {
        const SkipRequest skip = parse_skip_request(request.body());
        if (skip.object.empty()) {
          reply.body = skip_json(self->handler.skip(skip.lsn, skip.reason)) + "\n";
        } else {
          self->handler.accept(skip.object, skip.reason);
          reply.body = acceptance_json(skip.object, skip.reason) + "\n";
        }
        break;
      }
      case Route::Stop:
        spdlog::info("asked to stop through the control socket");
        self->handler.stop();
        reply.status = bhttp::status::accepted;
        reply.body = "{\"stopping\":true}\n";
        break;
      case Route::Cutover:
        // Only POST comes here, and serve_request has taken that one.
        break;
    }
  } catch (const Error& failure) {
    const bool usage = failure.kind() == ErrorKind::Usage;
    const bool refused = failure.kind() == ErrorKind::Refused;
    if (!usage && !refused) spdlog::error("cannot answer {}: {}", std::string{view(request.target())}, failure.what());
    reply = refuse(usage     ? bhttp::status::bad_request
                   : refused ? bhttp::status::conflict
                             : bhttp::status::internal_server_error,
                   failure.what());
  } catch (const std::exception& failure) {
    spdlog::error("cannot answer {}: {}", std::string{view(request.target())}, failure.what());
    reply = refuse(bhttp::status::internal_server_error, failure.what());
  }
  co_return reply;
}

asio::awaitable<bool> Server::Impl::write_answer(Self self, ConnectionPtr connection, Answer answer, Request request) {
  bhttp::response<bhttp::string_body> response{answer.status, request.version()};
  response.set(bhttp::field::content_type, beast_view(answer.content_type));
  response.set(bhttp::field::cache_control, "no-store");
  response.set("X-Content-Type-Options", "nosniff");
  response.set("Content-Security-Policy", dashboard_policy);
  if (!answer.allow.empty()) response.set(bhttp::field::allow, beast_view(answer.allow));
  response.keep_alive(request.keep_alive() && !self->stopped);
  response.body() = std::move(answer.body);
  response.prepare_payload();
  // Content-Length stays that of the body which GET would bring.
  if (request.method() == bhttp::verb::head) response.body().clear();
  connection->stream.expires_after(idle_limit);
  const auto [error, bytes] = co_await bhttp::async_write(connection->stream, response, as_result);
  co_return !error && response.keep_alive();
}

asio::awaitable<bool> Server::Impl::serve_cutover(Self self, ConnectionPtr connection, Request request) {
  std::optional<Answer> refusal;
  CutoverOptions cutover_options;
  if (self->cutover_running) {
    refusal = refuse(bhttp::status::conflict, "a cutover is already running; see `walferry status`");
  } else if (request.version() < 11) {
    refusal =
        refuse(bhttp::status::http_version_not_supported, "a cutover is answered in chunks, which takes HTTP/1.1");
  } else {
    try {
      cutover_options = parse_cutover_options(request.body());
    } catch (const Error& error) {
      refusal = refuse(bhttp::status::bad_request, error.what());
    }
  }
  if (refusal) co_return co_await write_answer(self, connection, std::move(*refusal), std::move(request));

  self->cutover_running = true;
  connection->watches_cutover = true;
  const CutoverRunPtr run = std::make_shared<CutoverRun>(self->executor);
  asio::co_spawn(self->executor, run_cutover(self, run, cutover_options), asio::detached);

  bhttp::response<bhttp::empty_body> response{bhttp::status::ok, request.version()};
  response.set(bhttp::field::content_type, "application/x-ndjson");
  response.set(bhttp::field::cache_control, "no-store");
  response.keep_alive(request.keep_alive());
  response.chunked(true);
  bhttp::response_serializer<bhttp::empty_body> serializer{response};
  connection->stream.expires_after(idle_limit);
  auto [error, header_bytes] = co_await bhttp::async_write_header(connection->stream, serializer, as_result);
  while (!error) {
    if (run->lines.empty()) {
      if (run->ended) break;
      co_await run->changed.async_wait(as_result);
      continue;
    }
    const std::string line = std::move(run->lines.front());
    run->lines.pop_front();
    const auto chunk = bhttp::make_chunk(asio::buffer(line));
    connection->stream.expires_after(idle_limit);
    const auto [chunk_error, chunk_bytes] = co_await asio::async_write(connection->stream, chunk, as_result);
    error = chunk_error;
  }
  run->watched = false;
  connection->watches_cutover = false;
  if (error) {
    spdlog::warn("the client that asked for the cutover went away ({}); the cutover goes on without it",
                 error.message());
    co_return false;
  }
  const auto last_chunk = bhttp::make_chunk_last();
  const auto [last_error, last_bytes] = co_await asio::async_write(connection->stream, last_chunk, as_result);
  co_return !last_error && response.keep_alive();
}

asio::awaitable<void> Server::Impl::run_cutover(Self self, CutoverRunPtr run, CutoverOptions options) {
  CommandOutcome outcome;
  std::function<void(std::string)> on_step = [run](std::string step) {
    run->say(fmt::format("{{\"step\":{}}}\n", json_string(step)));
  };
  try {
    CommandOutcome finished = co_await self->handler.cutover(options, std::move(on_step));
    outcome = std::move(finished);
  } catch (const Error& error) {
    outcome.exit_code = exit_code(error);
    outcome.json = error_json(error.what());
  } catch (const std::exception& failure) {
    outcome.exit_code = 8;
    outcome.json = error_json(failure.what());
  }
  spdlog::info("the cutover command ended with exit code {}", outcome.exit_code);
  self->cutover_running = false;
  run->ended = true;
  run->say(outcome_line(outcome));
}

Server::Server(asio::any_io_executor executor, ControlHandler& handler, ServerOptions options)
    : impl_(std::make_shared<Impl>(std::move(executor), handler, std::move(options))) {}

Server::~Server() {
  impl_->stop();
}

void Server::start() {
  impl_->start();
}

void Server::stop() {
  impl_->stop();
}

std::string Server::tcp_address() const {
  return impl_->tcp_address;
}

}  // namespace walferry::http
