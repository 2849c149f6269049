#include "engine/http/listener.hpp"

#include <fmt/format.h>
#include <sys/stat.h>

#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <cerrno>
#include <cstring>
#include <exception>
#include <string_view>
#include <system_error>

#include "engine/error.hpp"
#include "engine/http/socket_path.hpp"

namespace walferry::http {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using Protocol = asio::generic::stream_protocol;
using Unix = asio::local::stream_protocol;

struct Target {
  std::string host;
  std::string port;
};

Target parse_listen(const std::string& listen) {
  const std::size_t colon = listen.rfind(':');
  Target target;
  if (colon != std::string::npos) {
    target.host = listen.substr(0, colon);
    target.port = listen.substr(colon + 1);
  }
  if (target.host.size() > 2 && target.host.front() == '[' && target.host.back() == ']') {
    target.host = target.host.substr(1, target.host.size() - 2);
  } else if (target.host.find(':') != std::string::npos) {
    target.host.clear();
  }
  const bool numeric = !target.port.empty() && target.port.size() <= 5 &&
                       target.port.find_first_not_of("0123456789") == std::string::npos &&
                       std::stoi(target.port) <= 65'535;
  if (target.host.empty() || !numeric) {
    throw Error{
        {.kind = ErrorKind::Usage},
        fmt::format("'{}' is not an address to listen on; --listen takes HOST:PORT, for example 127.0.0.1:9187, "
                    "0.0.0.0:9187 for all interfaces, or [::1]:0 for any free port",
                    listen)};
  }
  return target;
}

[[noreturn]] void fail_control(const std::filesystem::path& path, std::string_view reason) {
  throw Error{
      {.kind = ErrorKind::State},
      fmt::format("cannot make the control socket {}: {}; the state directory must be writable and on a local file "
                  "system",
                  path.string(), reason)};
}

// Removes the socket file of a process that is gone; refuses when one answers.
void remove_stale_socket(const asio::any_io_executor& executor, const std::filesystem::path& path,
                         const Unix::endpoint& endpoint) {
  std::error_code file_error;
  const std::filesystem::file_status file = std::filesystem::symlink_status(path, file_error);
  if (file.type() == std::filesystem::file_type::not_found) return;
  if (file.type() != std::filesystem::file_type::socket) fail_control(path, "something else has that name");
  Unix::socket probe{executor};
  boost::system::error_code error;
  probe.connect(endpoint, error);
  if (!error) {
    throw Error{{.kind = ErrorKind::Refused},
                fmt::format("another walferry already answers on {}: one migration runs per state directory; see "
                            "`walferry status --state-dir {}`",
                            path.string(), path.parent_path().string())};
  }
  if (error != asio::error::connection_refused) fail_control(path, error.message());
  std::filesystem::remove(path, file_error);
  if (file_error) fail_control(path, file_error.message());
}

}  // namespace

Acceptor listen_tcp(const asio::any_io_executor& executor, const std::string& listen) {
  const Target target = parse_listen(listen);
  tcp::resolver resolver{executor};
  boost::system::error_code error;
  const auto found = resolver.resolve(target.host, target.port, tcp::resolver::passive, error);
  if (error) {
    throw Error{{.kind = ErrorKind::Usage},
                fmt::format("cannot listen on {}: {}; name an address of this machine with --listen HOST:PORT", listen,
                            error.message())};
  }
  for (const auto& entry : found) {
    const tcp::endpoint endpoint = entry.endpoint();
    Acceptor acceptor{executor};
    acceptor.open(Protocol{endpoint.protocol()}, error);
    if (!error) acceptor.set_option(Acceptor::reuse_address{true}, error);
    if (!error) acceptor.bind(Protocol::endpoint{endpoint}, error);
    if (!error) acceptor.listen(asio::socket_base::max_listen_connections, error);
    if (!error) return acceptor;
  }
  throw Error{
      {.kind = ErrorKind::Usage},
      fmt::format("cannot listen on {}: {}; choose another address with --listen HOST:PORT (port 0 takes any free "
                  "one) or end the program that uses this one",
                  listen, error.message())};
}

Acceptor listen_control(const asio::any_io_executor& executor, const std::filesystem::path& path) {
  const SocketPath short_path{path};
  boost::system::error_code error;
  Unix::endpoint endpoint;
  try {
    endpoint = Unix::endpoint{short_path.text()};
  } catch (const std::exception& failure) {
    fail_control(path, failure.what());
  }
  remove_stale_socket(executor, path, endpoint);
  Acceptor acceptor{executor};
  acceptor.open(Protocol{endpoint.protocol()}, error);
  if (!error) acceptor.bind(Protocol::endpoint{endpoint}, error);
  if (error) fail_control(path, error.message());
  // Before listen() nobody can connect, so there is no moment in which another user could.
  if (::chmod(path.c_str(), S_IRUSR | S_IWUSR) != 0) fail_control(path, std::strerror(errno));
  acceptor.listen(asio::socket_base::max_listen_connections, error);
  if (error) fail_control(path, error.message());
  return acceptor;
}

std::string local_address(const Acceptor& acceptor) {
  const Protocol::endpoint generic = acceptor.local_endpoint();
  tcp::endpoint endpoint;
  std::memcpy(endpoint.data(), generic.data(), generic.size());
  endpoint.resize(generic.size());
  const std::string address = endpoint.address().to_string();
  return endpoint.address().is_v6() ? fmt::format("[{}]:{}", address, endpoint.port())
                                    : fmt::format("{}:{}", address, endpoint.port());
}

}  // namespace walferry::http
