#include "engine/pg/round_trip.hpp"

#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/socket.h>

namespace walferry::pg {

std::optional<std::chrono::microseconds> shortest_round_trip(int socket) {
  tcp_info info{};
  socklen_t length = sizeof info;
  if (::getsockopt(socket, IPPROTO_TCP, TCP_INFO, &info, &length) != 0) return std::nullopt;
  if (info.tcpi_min_rtt == 0) return std::nullopt;  // a kernel that does not measure it
  return std::chrono::microseconds{info.tcpi_min_rtt};
}

}  // namespace walferry::pg
