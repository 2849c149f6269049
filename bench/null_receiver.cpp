// Reads a slot from its confirmed position to a given LSN and throws everything away: what the source alone can do.
//
// The session, START_REPLICATION and the frames are the engine's; the socket is read here, borrowed from libpq between
// two statements, so that nothing stands between the manner of reading and the walsender. Confirms nothing: the slot
// can be read again. Prints one JSON object. Called by bench/drain.py.
#include <fmt/format.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include <boost/program_options.hpp>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "bench/program.hpp"
#include "engine/pg/session.hpp"
#include "engine/stream/receiver.hpp"
#include "protocol/pgoutput.hpp"
#include "protocol/replication.hpp"

namespace walferry {
namespace {

namespace po = boost::program_options;
using Clock = std::chrono::steady_clock;

// Eager: at once whatever comes. Lazy: when the kernel holds half of what it lets the server send ahead. Paused: every
// 20 ms.
enum class Manner { Eager, Lazy, Paused };

constexpr int pause_ms = 20;
constexpr int status_ms = 1'000;
constexpr std::size_t worth_reading_bytes = 16U << 10U;
constexpr std::size_t header_bytes = 1 + 4;

[[noreturn]] void fail(std::string_view doing) {
  throw std::runtime_error(fmt::format("{}: {}", doing, std::strerror(errno)));
}

Manner parse_manner(const std::string& text) {
  if (text == "eager") return Manner::Eager;
  if (text == "lazy") return Manner::Lazy;
  if (text == "paused") return Manner::Paused;
  throw po::error("--manner " + text + ": eager, lazy or paused is wanted");
}

double cpu_seconds() {
  rusage used{};
  ::getrusage(RUSAGE_SELF, &used);
  const auto seconds = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) / 1e6;
  };
  return seconds(used.ru_utime) + seconds(used.ru_stime);
}

// A socket that libpq has authenticated, read and written past it.
class BorrowedSocket {
 public:
  BorrowedSocket(int socket, Manner manner, int clamp_bytes) : socket_(socket), manner_(manner) {
    if (manner != Manner::Lazy) return;
    // The window is closed before the mark would be missed, and the timer of wait() ends every wait.
    const int mark = clamp_bytes / 2;
    if (::setsockopt(socket, IPPROTO_TCP, TCP_WINDOW_CLAMP, &clamp_bytes, sizeof clamp_bytes) != 0 ||
        ::setsockopt(socket, SOL_SOCKET, SO_RCVLOWAT, &mark, sizeof mark) != 0) {
      fail("setting a low-water mark, which needs TCP");
    }
  }

  // Until it is time to read, by the manner.
  void wait() {
    if (manner_ == Manner::Paused) {
      ::poll(nullptr, 0, pause_ms);
      return;
    }
    pollfd waited{.fd = socket_, .events = POLLIN, .revents = 0};
    if (::poll(&waited, 1, manner_ == Manner::Lazy ? pause_ms : status_ms) < 0 && errno != EINTR) fail("waiting");
  }

  // What there is, appended to `buffer`.
  void read(std::vector<std::byte>& buffer, std::size_t& filled) {
    for (;;) {
      if (buffer.size() - filled < read_bytes) buffer.resize(filled + read_bytes);
      const ssize_t got = ::recv(socket_, buffer.data() + filled, buffer.size() - filled, MSG_DONTWAIT);
      if (got == 0) throw std::runtime_error("the server closed the connection");
      if (got < 0) {
        if (errno == EAGAIN || errno == EINTR) return;
        fail("reading");
      }
      filled += static_cast<std::size_t>(got);
      if (manner_ != Manner::Paused || static_cast<std::size_t>(got) < worth_reading_bytes) return;
    }
  }

  void write(Bytes bytes) const {
    while (!bytes.empty()) {
      const ssize_t sent = ::send(socket_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (sent >= 0) {
        bytes = bytes.subspan(static_cast<std::size_t>(sent));
        continue;
      }
      if (errno != EAGAIN && errno != EINTR) fail("writing");
      pollfd waited{.fd = socket_, .events = POLLOUT, .revents = 0};
      ::poll(&waited, 1, status_ms);
    }
  }

 private:
  static constexpr std::size_t read_bytes = 1U << 20U;

  int socket_;
  Manner manner_;
};

// message := type u8, length u32 (of itself and the body), body
std::vector<std::byte> message(char type, Bytes body) {
  std::vector<std::byte> out;
  Writer writer{out};
  writer.u8(static_cast<std::uint8_t>(type));
  writer.u32(static_cast<std::uint32_t>(body.size() + 4));
  writer.bytes(body);
  return out;
}

class NullReceiver {
 public:
  NullReceiver(BorrowedSocket socket, Lsn until) : socket_(socket), until_(until) {}

  void run(const std::string& start_replication) {
    const std::string_view with_nul{start_replication.c_str(), start_replication.size() + 1};
    socket_.write(message('Q', as_bytes(with_nul)));
    std::size_t filled = 0;
    auto next_status = Clock::now();
    while (!reached_) {
      socket_.wait();
      socket_.read(buffer_, filled);
      const std::size_t used = take_messages(Bytes{buffer_.data(), filled});
      std::memmove(buffer_.data(), buffer_.data() + used, filled - used);
      filled -= used;
      if (reply_requested_ || Clock::now() >= next_status) {
        send_status();
        next_status = Clock::now() + std::chrono::milliseconds{status_ms};
      }
    }
  }

  [[nodiscard]] std::uint64_t messages() const { return messages_; }
  [[nodiscard]] std::uint64_t bytes() const { return bytes_; }

 private:
  std::size_t take_messages(Bytes bytes) {
    std::size_t used = 0;
    while (bytes.size() - used >= header_bytes && !reached_) {
      const std::size_t length = 1 + wire::load<std::uint32_t>(bytes.data() + used + 1);
      if (length < header_bytes) throw ProtocolError("a message shorter than its header");
      if (bytes.size() - used < length) break;
      handle(static_cast<char>(bytes[used]), bytes.subspan(used + header_bytes, length - header_bytes));
      used += length;
    }
    return used;
  }

  void handle(char type, Bytes body) {
    switch (type) {
      case 'd':
        return take_frame(body);
      case 'W':  // CopyBothResponse: the stream begins
      case 'N':
      case 'S':
        return;
      default:
        throw std::runtime_error(fmt::format("the server answered with message '{}': {}", type, printable(body)));
    }
  }

  void take_frame(Bytes body) {
    const replication::Frame frame = replication::decode(body);
    if (const auto* data = std::get_if<replication::XLogDataView>(&frame)) {
      ++messages_;
      bytes_ += data->payload.size();
      const char tag = data->payload.empty() ? '\0' : static_cast<char>(data->payload.front());
      if (tag != 'C' && tag != 'c') return;
      const pgoutput::Message end = pgoutput::decode(data->payload, {});
      if (const auto* commit = std::get_if<pgoutput::Commit>(&end)) reached_ = commit->end_lsn >= until_;
      if (const auto* commit = std::get_if<pgoutput::StreamCommit>(&end)) reached_ = commit->end_lsn >= until_;
      return;
    }
    const auto& keepalive = std::get<replication::Keepalive>(frame);
    reply_requested_ = reply_requested_ || keepalive.reply_requested;
    reached_ = keepalive.wal_end >= until_;
  }

  void send_status() {
    reply_requested_ = false;
    std::vector<std::byte> update;
    replication::encode({.write = {}, .flush = {}, .apply = {}, .time = {}, .reply_requested = false}, update);
    socket_.write(message('d', update));
  }

  static std::string printable(Bytes body) {
    std::string text{as_text(body)};
    for (char& c : text) c = c >= ' ' && c <= '~' ? c : ' ';
    return text;
  }

  BorrowedSocket socket_;
  Lsn until_;
  std::vector<std::byte> buffer_;
  std::uint64_t messages_ = 0;
  std::uint64_t bytes_ = 0;
  bool reply_requested_ = false;
  bool reached_ = false;
};

po::options_description described() {
  po::options_description options{"bench_null_receiver: reads a slot and throws everything away"};
  auto add = options.add_options();
  add("source", po::value<std::string>()->required(), "connection string");
  add("slot", po::value<std::string>()->required(), "logical slot of pgoutput");
  add("publication", po::value<std::string>()->required(), "its publication");
  add("until", po::value<std::string>()->required(), "LSN to stop at");
  add("manner", po::value<std::string>()->default_value("lazy"), "eager, lazy or paused");
  add("clamp-kb", po::value<int>()->default_value(256), "lazy: window clamp; half of it is the low-water mark");
  add("text", po::bool_switch(), "text instead of binary columns");
  return options;
}

int run(int count, char** words) {
  po::variables_map given;
  const po::options_description options = described();
  po::store(po::parse_command_line(count, words, options), given);
  po::notify(given);
  const Manner manner = parse_manner(given["manner"].as<std::string>());
  const auto until = Lsn::parse(given["until"].as<std::string>());
  if (!until) throw po::error("--until is no LSN");

  pg::forget_ambient_connection_settings();
  const pg::Session session =
      pg::Session::open(pg::ConnInfo::parse(given["source"].as<std::string>(), Side::Source),
                        {.application_name = "bench null receiver", .kind = pg::SessionKind::Replication});
  if (PQsslInUse(session.raw()) != 0 || PQgssEncInUse(session.raw()) != 0)
    throw std::runtime_error(
        "an encrypted connection cannot be read past libpq: use sslmode=disable gssencmode=disable");
  std::string sql = stream::start_replication_sql(session.server_version(), given["slot"].as<std::string>(), Lsn{},
                                                  {given["publication"].as<std::string>()});
  if (!given["text"].as<bool>() && sql.find("binary '") == std::string::npos)
    sql.insert(sql.size() - 1, ", binary 'true'");

  NullReceiver receiver{{PQsocket(session.raw()), manner, given["clamp-kb"].as<int>() << 10}, *until};
  const double cpu_before = cpu_seconds();
  const auto started = Clock::now();
  receiver.run(sql);
  const double seconds = std::chrono::duration<double>(Clock::now() - started).count();
  fmt::print(R"({{"messages": {}, "bytes": {}, "seconds": {:.4f}, "cpu_seconds": {:.4f}}})"
             "\n",
             receiver.messages(), receiver.bytes(), seconds, cpu_seconds() - cpu_before);
  return 0;
}

}  // namespace
}  // namespace walferry

int main(int count, char** words) {
  return walferry::run_program("bench_null_receiver", [&] { return walferry::run(count, words); });
}
