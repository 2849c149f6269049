// Stands between a client and a server and delivers every byte, in both directions, a fixed time after it came: a
// longer wire, where the kernel has no netem.
//
// It adds latency and nothing else: no loss, no limit of bandwidth but 32 MB on their way in each direction. What the
// two kernels see is loopback all the same: their own round-trip times and windows are not those of a long wire. Prints
// its port. Ends when its standard input does. Called by bench/rtt.py.
#include <fmt/format.h>
#include <unistd.h>

#include <array>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/write.hpp>
#include <boost/program_options.hpp>
#include <cstdio>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "bench/program.hpp"
#include "engine/async.hpp"

namespace walferry {
namespace {

namespace po = boost::program_options;
using asio::ip::tcp;
using Clock = std::chrono::steady_clock;

constexpr std::size_t on_their_way_max_bytes = std::size_t{32} << 20U;
constexpr std::size_t chunk_bytes = std::size_t{256} << 10U;

struct Chunk {
  Deadline due;
  std::vector<char> bytes;  // empty: the sender closed
};

// One direction of one connection; shared by the coroutine that reads and the one that writes, whichever ends last.
struct Direction {
  explicit Direction(const asio::any_io_executor& executor) : came(executor), left(executor) {}

  std::deque<Chunk> chunks;
  std::size_t bytes = 0;
  bool broken = false;  // the writer is gone
  Event came;
  Event left;
};

using DirectionPtr = std::shared_ptr<Direction>;
using SocketPtr = std::shared_ptr<tcp::socket>;

Awaitable<void> read_all(SocketPtr from, DirectionPtr direction, std::chrono::microseconds delay) {
  std::vector<char> buffer(chunk_bytes);
  while (!direction->broken) {
    while (direction->bytes > on_their_way_max_bytes && !direction->broken) co_await direction->left.wait();
    boost::system::error_code failure;
    const std::size_t got =
        co_await from->async_read_some(asio::buffer(buffer), asio::redirect_error(asio::use_awaitable, failure));
    direction->chunks.push_back({Clock::now() + delay, {buffer.data(), buffer.data() + got}});
    direction->bytes += got;
    direction->came.notify();
    if (failure) break;  // end of file or a reset: the other end is told after what came before
  }
}

Awaitable<void> write_all(SocketPtr to, DirectionPtr direction) {
  asio::steady_timer timer{to->get_executor()};
  for (;;) {
    while (direction->chunks.empty()) co_await direction->came.wait();
    timer.expires_at(direction->chunks.front().due);
    co_await timer.async_wait(asio::use_awaitable);
    const Chunk chunk = std::move(direction->chunks.front());
    direction->chunks.pop_front();
    boost::system::error_code failure;
    if (!chunk.bytes.empty()) {
      co_await asio::async_write(*to, asio::buffer(chunk.bytes), asio::redirect_error(asio::use_awaitable, failure));
    }
    direction->bytes -= chunk.bytes.size();
    direction->left.notify();
    if (!failure && !chunk.bytes.empty()) continue;
    direction->broken = true;
    to->shutdown(failure ? tcp::socket::shutdown_both : tcp::socket::shutdown_send, failure);
    co_return;
  }
}

Awaitable<void> accept_all(tcp::acceptor acceptor, tcp::endpoint server, std::chrono::microseconds delay) {
  const asio::any_io_executor executor = acceptor.get_executor();
  for (;;) {
    const auto client = std::make_shared<tcp::socket>(executor);
    co_await acceptor.async_accept(*client, asio::use_awaitable);
    const auto upstream = std::make_shared<tcp::socket>(executor);
    boost::system::error_code failure;
    co_await upstream->async_connect(server, asio::redirect_error(asio::use_awaitable, failure));
    if (failure) continue;  // the client sees its connection closed
    client->set_option(tcp::no_delay{true});
    upstream->set_option(tcp::no_delay{true});
    const auto up = std::make_shared<Direction>(executor);
    const auto down = std::make_shared<Direction>(executor);
    asio::co_spawn(executor, read_all(client, up, delay), asio::detached);
    asio::co_spawn(executor, write_all(upstream, up), asio::detached);
    asio::co_spawn(executor, read_all(upstream, down, delay), asio::detached);
    asio::co_spawn(executor, write_all(client, down), asio::detached);
  }
}

Awaitable<void> end_with(asio::posix::stream_descriptor input, asio::io_context& context) {
  std::array<char, 1> ignored{};
  boost::system::error_code end;
  while (!end) {
    co_await input.async_read_some(asio::buffer(ignored), asio::redirect_error(asio::use_awaitable, end));
  }
  context.stop();
}

int run(int count, char** words) {
  po::options_description options{"bench_delay_proxy: a longer wire to a server on loopback"};
  auto add = options.add_options();
  add("port", po::value<unsigned short>()->required(), "the server's port on 127.0.0.1");
  add("delay-us", po::value<int>()->required(), "of each direction, in microseconds");
  po::variables_map given;
  po::store(po::parse_command_line(count, words, options), given);
  po::notify(given);

  asio::io_context context{1};
  const auto loopback = asio::ip::address_v4::loopback();
  tcp::acceptor acceptor{context, {loopback, 0}};
  fmt::print("{}\n", acceptor.local_endpoint().port());
  std::fflush(stdout);
  const tcp::endpoint server{loopback, given["port"].as<unsigned short>()};
  const std::chrono::microseconds delay{given["delay-us"].as<int>()};
  asio::co_spawn(context, accept_all(std::move(acceptor), server, delay), asio::detached);
  asio::posix::stream_descriptor input{context, STDIN_FILENO};
  asio::co_spawn(context, end_with(std::move(input), context), asio::detached);
  context.run();
  return 0;
}

}  // namespace
}  // namespace walferry

int main(int count, char** words) {
  return walferry::run_program("bench_delay_proxy", [&] { return walferry::run(count, words); });
}
