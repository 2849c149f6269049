#include "engine/pg/copy_out.hpp"

#include <fmt/format.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <system_error>

namespace walferry::pg {
namespace {

constexpr std::size_t buffer_bytes = std::size_t{256} << 10U;
// A server sends 8 KB at a time. Once so much has come, this many are left to gather before we are woken, for so long
// at most: the end may be shorter.
constexpr std::size_t large_bytes = std::size_t{1} << 20U;
constexpr int gathered_bytes = 128 << 10;
constexpr int gathering_ms = 2;
constexpr int for_ever = -1;

bool encrypted(PGconn* connection) {
  return PQsslInUse(connection) != 0 || PQgssEncInUse(connection) != 0;
}

}  // namespace

CopyOut::CopyOut(Session& session, const std::string& sql) : session_(session), borrowed_(!encrypted(session.raw())) {
  if (!borrowed_) {
    session_.start_copy_out(sql);
    return;
  }
  buffer_.resize(buffer_bytes);
  send(sql);
}

CopyOut::~CopyOut() {
  if (gathers_) gather(false);
}

bool CopyOut::read(std::string& rows, std::size_t wanted) {
  if (!borrowed_) {
    while (rows.size() < wanted) {
      const std::string_view row = session_.next_copy_row();
      if (row.data() == nullptr) return false;
      ++rows_;
      rows += row;
    }
    return true;
  }
  while (rows.size() < wanted) {
    take(rows);
    if (reader_.over()) {
      if (gathers_) gather(false);  // the socket is libpq's again
      if (const auto& failure = reader_.failure())
        throw make_error(session_.side(), failure->sqlstate, failure->message, failure->detail, failure->hint);
      return false;
    }
    receive();
  }
  return true;
}

void CopyOut::take(std::string& rows) {
  try {
    begin_ += reader_.take(Bytes{buffer_}.subspan(begin_, end_ - begin_), rows);
  } catch (const ProtocolError& error) {
    throw Error{
        {ErrorKind::Protocol, session_.side()},
        fmt::format("{}: the answer to a COPY cannot be understood: {}", to_string(session_.side()), error.what())};
  }
}

// Query: 'Q', length u32, text, NUL.
void CopyOut::send(const std::string& sql) {
  std::vector<std::byte> message;
  Writer out{message};
  out.u8('Q');
  out.u32(static_cast<std::uint32_t>(sizeof(std::uint32_t) + sql.size() + 1));
  out.c_string(sql);
  for (Bytes rest = message; !rest.empty();) {
    const ssize_t sent = ::send(PQsocket(session_.raw()), rest.data(), rest.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent >= 0) {
      rest = rest.subspan(static_cast<std::size_t>(sent));
    } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
      wait(POLLOUT, for_ever);
    } else if (errno != EINTR) {
      fail("sending a COPY");
    }
  }
}

void CopyOut::receive() {
  // What is left is part of one message.
  std::copy(buffer_.begin() + static_cast<std::ptrdiff_t>(begin_), buffer_.begin() + static_cast<std::ptrdiff_t>(end_),
            buffer_.begin());
  end_ -= begin_;
  begin_ = 0;
  if (end_ == buffer_.size()) buffer_.resize(2 * buffer_.size());  // a long error; CopyOutReader limits it
  for (;;) {
    const ssize_t received =
        ::recv(PQsocket(session_.raw()), buffer_.data() + end_, buffer_.size() - end_, MSG_DONTWAIT);
    if (received > 0) {
      end_ += static_cast<std::size_t>(received);
      received_bytes_ += static_cast<std::size_t>(received);
      if (!gathers_ && received_bytes_ >= large_bytes) gather(true);
      return;
    }
    if (received == 0) session_.fail("the server closed the connection during a COPY");
    if (errno == EAGAIN || errno == EWOULDBLOCK) {
      wait(POLLIN, gathers_ ? gathering_ms : for_ever);
    } else if (errno != EINTR) {
      fail("reading a COPY");
    }
  }
}

void CopyOut::gather(bool on) {
  const int bytes = on ? gathered_bytes : 1;
  // Only a matter of speed: a Unix socket does not heed it.
  gathers_ = ::setsockopt(PQsocket(session_.raw()), SOL_SOCKET, SO_RCVLOWAT, &bytes, sizeof bytes) == 0 && on;
}

void CopyOut::wait(short events, int milliseconds) {
  pollfd socket{.fd = PQsocket(session_.raw()), .events = events, .revents = 0};
  if (::poll(&socket, 1, milliseconds) < 0 && errno != EINTR) fail("waiting for a COPY");
}

void CopyOut::fail(const char* doing) const {
  session_.fail(fmt::format("{}: {}", doing, std::generic_category().message(errno)));
}

}  // namespace walferry::pg
