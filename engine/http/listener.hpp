// The two listening sockets: one TCP address and one unix-domain socket that only its owner may open.
//
// Both come back as the same generic acceptor, so that connections are served by one piece of code. A socket file that
// a dead process left behind is replaced; one that answers, or another kind of file, never is. Called by Server::start.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/basic_socket_acceptor.hpp>
#include <boost/asio/generic/stream_protocol.hpp>
#include <filesystem>
#include <string>

namespace walferry::http {

using Acceptor = boost::asio::basic_socket_acceptor<boost::asio::generic::stream_protocol>;

// `listen` is "host:port" or "[v6]:port". Throws Error{Usage} naming the address and what to do.
[[nodiscard]] Acceptor listen_tcp(const boost::asio::any_io_executor& executor, const std::string& listen);

// Throws Error{Refused} when another process answers there, Error{State} when the socket cannot be made.
[[nodiscard]] Acceptor listen_control(const boost::asio::any_io_executor& executor, const std::filesystem::path& path);

// "127.0.0.1:9187" or "[::1]:9187": what a TCP acceptor is bound to.
[[nodiscard]] std::string local_address(const Acceptor& acceptor);

}  // namespace walferry::http
