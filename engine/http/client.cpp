#include "engine/http/client.hpp"

#include <fmt/format.h>
#include <poll.h>
#include <simdjson.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <boost/asio/buffer.hpp>
#include <boost/beast/core/buffers_range.hpp>
#include <boost/beast/core/error.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http/error.hpp>
#include <boost/beast/http/read.hpp>
#include <boost/beast/http/string_body.hpp>
#include <boost/beast/http/write.hpp>
#include <cerrno>
#include <chrono>
#include <cstring>

#include "engine/error.hpp"
#include "engine/http/socket_path.hpp"
#include "engine/http/status_json.hpp"

namespace walferry::http {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace bhttp = boost::beast::http;

using Milliseconds = std::chrono::milliseconds;

constexpr Milliseconds answer_limit{10'000};
constexpr Milliseconds no_limit{-1};  // as poll() takes it
constexpr std::uint64_t answer_bytes_max = 256ULL << 20;

beast::error_code last_error() {
  return {errno, boost::system::system_category()};
}

// A connected unix socket with a limit on every wait: Beast's SyncReadStream and SyncWriteStream.
class BlockingStream {
 public:
  BlockingStream(int descriptor, Milliseconds limit) : descriptor_(descriptor), limit_(limit) {}
  ~BlockingStream() { ::close(descriptor_); }
  BlockingStream(const BlockingStream&) = delete;
  BlockingStream& operator=(const BlockingStream&) = delete;

  template <typename Buffers>
  std::size_t read_some(const Buffers& buffers, beast::error_code& error) {
    for (const asio::mutable_buffer buffer : beast::buffers_range_ref(buffers)) {
      if (buffer.size() == 0) continue;
      if (!wait(POLLIN, error)) return 0;
      const ssize_t received = ::recv(descriptor_, buffer.data(), buffer.size(), 0);
      if (received < 0) error = last_error();
      if (received == 0) error = asio::error::eof;
      return received > 0 ? static_cast<std::size_t>(received) : 0;
    }
    return 0;
  }

  template <typename Buffers>
  std::size_t read_some(const Buffers& buffers) {
    return checked([&](beast::error_code& error) { return read_some(buffers, error); });
  }

  template <typename Buffers>
  std::size_t write_some(const Buffers& buffers, beast::error_code& error) {
    for (const asio::const_buffer buffer : beast::buffers_range_ref(buffers)) {
      if (buffer.size() == 0) continue;
      if (!wait(POLLOUT, error)) return 0;
      const ssize_t sent = ::send(descriptor_, buffer.data(), buffer.size(), MSG_NOSIGNAL);
      if (sent < 0) error = last_error();
      return sent > 0 ? static_cast<std::size_t>(sent) : 0;
    }
    return 0;
  }

  template <typename Buffers>
  std::size_t write_some(const Buffers& buffers) {
    return checked([&](beast::error_code& error) { return write_some(buffers, error); });
  }

 private:
  template <typename Operation>
  std::size_t checked(Operation operation) {
    beast::error_code error;
    const std::size_t bytes = operation(error);
    if (error) throw beast::system_error{error};
    return bytes;
  }

  bool wait(short events, beast::error_code& error) const {
    error = {};
    pollfd entry{.fd = descriptor_, .events = events, .revents = 0};
    for (;;) {
      const int ready = ::poll(&entry, 1, static_cast<int>(limit_.count()));
      if (ready > 0) return true;
      if (ready < 0 && errno == EINTR) continue;
      error = ready == 0 ? beast::error_code{asio::error::timed_out} : last_error();
      return false;
    }
  }

  int descriptor_;
  Milliseconds limit_;
};

// A connected descriptor, or -1 when nobody listens.
int connect_to(const std::filesystem::path& socket) {
  std::error_code ignored;
  if (!std::filesystem::exists(socket, ignored) && !ignored) return -1;
  const SocketPath path{socket};
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.text().size() >= sizeof(address.sun_path)) {
    throw Error{{.kind = ErrorKind::State}, fmt::format("the name of the socket {} is too long", socket.string())};
  }
  std::memcpy(address.sun_path, path.text().data(), path.text().size());
  const int descriptor = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  int result = -1;
  if (descriptor >= 0) {
    // The socket API takes every address as a sockaddr.
    result = ::connect(descriptor, reinterpret_cast<const sockaddr*>(&address), sizeof(address));
  }
  if (result == 0) return descriptor;
  const int reason = errno;
  if (descriptor >= 0) ::close(descriptor);
  if (reason == ENOENT || reason == ECONNREFUSED) return -1;
  throw Error{{.kind = ErrorKind::State},
              fmt::format("cannot open the control socket {}: {}; only the user who runs the migration may use it",
                          socket.string(), std::strerror(reason))};
}

bhttp::request<bhttp::string_body> make_request(bhttp::verb verb, std::string_view target, std::string body) {
  bhttp::request<bhttp::string_body> request{verb, beast::string_view{target.data(), target.size()}, 11};
  request.set(bhttp::field::host, "walferry");
  request.set(bhttp::field::user_agent, "walferry");
  request.keep_alive(false);
  if (!body.empty()) request.set(bhttp::field::content_type, "application/json");
  request.body() = std::move(body);
  request.prepare_payload();
  return request;
}

std::optional<Response> exchange(const std::filesystem::path& socket, bhttp::verb verb, std::string_view target,
                                 std::string body = {}) {
  const int descriptor = connect_to(socket);
  if (descriptor < 0) return std::nullopt;
  BlockingStream stream{descriptor, answer_limit};
  const bhttp::request<bhttp::string_body> request = make_request(verb, target, std::move(body));
  beast::error_code error;
  beast::flat_buffer buffer;
  bhttp::response_parser<bhttp::string_body> parser;
  parser.body_limit(answer_bytes_max);
  bhttp::write(stream, request, error);
  if (!error) bhttp::read(stream, buffer, parser, error);
  if (error) {
    throw Error{{.kind = ErrorKind::Connection},
                fmt::format("no answer from the running migration at {}: {}", socket.string(), error.message())};
  }
  return Response{.status = parser.get().result_int(), .body = std::move(parser.get().body())};
}

// The text of {"error": "..."}, or the body as it is.
std::string error_text(const std::string& body) {
  simdjson::dom::parser parser;
  std::string_view text;
  if (parser.parse(body)["error"].get(text) == simdjson::SUCCESS) return std::string{text};
  return body;
}

// What one line of the answer to /cutover says: a step is reported, the outcome is returned.
std::optional<CommandOutcome> read_line(std::string_view line, const std::function<void(std::string_view)>& on_step) {
  const simdjson::padded_string json{line};
  simdjson::ondemand::parser parser;
  simdjson::ondemand::document document;
  if (parser.iterate(json).get(document) != simdjson::SUCCESS) return std::nullopt;
  std::string_view step;
  if (document["step"].get(step) == simdjson::SUCCESS) {
    if (on_step) on_step(step);
    return std::nullopt;
  }
  std::int64_t exit_code = 0;
  simdjson::ondemand::object outcome;
  simdjson::ondemand::object result;
  std::string_view result_json;
  if (document["outcome"].get(outcome) != simdjson::SUCCESS ||
      outcome["exit_code"].get(exit_code) != simdjson::SUCCESS || outcome["result"].get(result) != simdjson::SUCCESS ||
      result.raw_json().get(result_json) != simdjson::SUCCESS) {
    return std::nullopt;
  }
  return CommandOutcome{.exit_code = static_cast<int>(exit_code), .json = std::string{result_json}};
}

// Takes the complete lines off the front of `body`.
std::optional<CommandOutcome> read_lines(std::string& body, const std::function<void(std::string_view)>& on_step) {
  std::optional<CommandOutcome> outcome;
  std::size_t begin = 0;
  for (std::size_t end = body.find('\n'); end != std::string::npos; end = body.find('\n', begin)) {
    std::optional<CommandOutcome> found = read_line(std::string_view{body}.substr(begin, end - begin), on_step);
    if (found) outcome = std::move(found);
    begin = end + 1;
  }
  body.erase(0, begin);
  return outcome;
}

}  // namespace

std::optional<Response> get(const std::filesystem::path& socket, std::string_view target) {
  return exchange(socket, bhttp::verb::get, target);
}

bool request_stop(const std::filesystem::path& socket) {
  const std::optional<Response> response = exchange(socket, bhttp::verb::post, "/stop");
  if (!response) return false;
  if (response->status / 100 != 2) {
    throw Error{{.kind = ErrorKind::Refused},
                fmt::format("the running migration does not stop: {}", error_text(response->body))};
  }
  return true;
}

namespace {

std::optional<std::string> post_skip(const std::filesystem::path& socket, const std::string& body) {
  std::optional<Response> response = exchange(socket, bhttp::verb::post, "/skip", body);
  if (!response) return std::nullopt;
  if (response->status / 100 == 2) return std::move(response->body);
  throw Error{{.kind = response->status == 400 ? ErrorKind::Usage : ErrorKind::Refused}, error_text(response->body)};
}

}  // namespace

std::optional<std::string> request_skip(const std::filesystem::path& socket, Lsn lsn, std::string_view reason) {
  return post_skip(socket,
                   fmt::format("{{\"lsn\":{},\"reason\":{}}}", json_string(lsn.to_string()), json_string(reason)));
}

std::optional<std::string> request_acceptance(const std::filesystem::path& socket, std::string_view object,
                                              std::string_view reason) {
  return post_skip(socket, fmt::format("{{\"object\":{},\"reason\":{}}}", json_string(object), json_string(reason)));
}

CommandOutcome request_cutover(const std::filesystem::path& socket, const CutoverOptions& options,
                               const std::function<void(std::string_view)>& on_step) {
  const int descriptor = connect_to(socket);
  if (descriptor < 0) {
    throw Error{{.kind = ErrorKind::Refused},
                fmt::format("no migration is running on {}; start it with `walferry run --state-dir {}` and try again",
                            socket.parent_path().string(), socket.parent_path().string())};
  }
  // No limit here: the migration keeps the cutover's own, and if it dies the socket is closed.
  BlockingStream stream{descriptor, no_limit};
  const bhttp::request<bhttp::string_body> request = make_request(
      bhttp::verb::post, "/cutover",
      fmt::format("{{\"timeout_ms\":{},\"max_lag_ms\":{},\"dry_run\":{},\"refresh_first\":{},\"way_back\":{}}}",
                  options.timeout.count(), options.max_lag.count(), options.dry_run, options.refresh_first,
                  options.way_back));
  beast::error_code error;
  beast::flat_buffer buffer;
  bhttp::response_parser<bhttp::string_body> parser;
  parser.body_limit(answer_bytes_max);
  bhttp::write(stream, request, error);
  if (!error) bhttp::read_header(stream, buffer, parser, error);
  std::optional<CommandOutcome> outcome;
  const bool accepted = !error && parser.get().result() == bhttp::status::ok;
  while (!error && !parser.is_done()) {
    bhttp::read_some(stream, buffer, parser, error);
    if (!accepted) continue;
    std::optional<CommandOutcome> found = read_lines(parser.get().body(), on_step);
    if (found) outcome = std::move(found);
  }
  if (outcome) return std::move(*outcome);
  if (!error && !accepted) {
    throw Error{{.kind = ErrorKind::Refused},
                fmt::format("the running migration does not begin a cutover: {}", error_text(parser.get().body()))};
  }
  throw Error{
      {.kind = ErrorKind::Connection},
      fmt::format("the connection to the running migration was lost before the outcome of the cutover was known "
                  "({}); the cutover does not depend on it: see `walferry status --state-dir {}` and the log",
                  error ? error.message() : "no outcome in the answer", socket.parent_path().string())};
}

}  // namespace walferry::http
