// How far away the peer of a TCP connection is.
//
// Apart from Connection, because the kernel's own header, which knows the shortest round trip, and the C library's,
// which Asio takes, exclude each other.
#pragma once

#include <chrono>
#include <optional>

namespace walferry::pg {

// The shortest round trip measured so far; the average would tell how busy the machines are. nullopt: no TCP.
[[nodiscard]] std::optional<std::chrono::microseconds> shortest_round_trip(int socket);

}  // namespace walferry::pg
