// The status endpoint and the control socket: HTTP/1.1 on an optional TCP address and on a unix socket in the state
// directory.
//
// TCP is read-only; commands (cutover, stop) come through the unix socket, which only its owner may open. Every
// connection is one coroutine on the io thread, bounded in time, size and number. A cutover runs in a coroutine of its
// own: a client that goes away does not take it along. Owned by Migration, which is the ControlHandler; all calls on
// the io thread.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>

#include "engine/control.hpp"

namespace walferry::http {

struct ServerOptions {
  std::optional<std::string> listen = {};  // "host:port" or "[v6]:port"; port 0 takes any free one; absent: no TCP
  std::filesystem::path control_socket;
};

class Server {
 public:
  // The handler must outlive the server and every cutover that it has begun.
  Server(boost::asio::any_io_executor executor, ControlHandler& handler, ServerOptions options);
  ~Server();
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  // Binds and begins to serve. Throws Error{Usage} for an address that cannot be used, Error{Refused} when another
  // process answers on the control socket, Error{State} when the socket cannot be made.
  void start();

  // Closes listeners and idle connections and removes the socket file; answers under way are still written, for 2
  // seconds at most except that of a cutover. io_context::run() can return once they are.
  void stop();

  // "127.0.0.1:9187", with the port that was really taken; empty without TCP.
  [[nodiscard]] std::string tcp_address() const;

 private:
  struct Impl;
  // Shared with the coroutines of connections, which may end after the Server.
  std::shared_ptr<Impl> impl_;
};

}  // namespace walferry::http
