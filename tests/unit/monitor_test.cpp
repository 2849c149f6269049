#include "engine/monitor.hpp"

#include <doctest/doctest.h>

#include <boost/asio/io_context.hpp>

using namespace walferry;

namespace {

// A monitor that has asked the source nothing yet.
struct Watched {
  asio::io_context io;
  asio::thread_pool pool{1};
  stream::Position position;
  Status status;
  Monitor monitor{io.get_executor(), pool, {}, position, status};
};

}  // namespace

TEST_CASE("what was applied has been written: the lag is never negative") {
  Watched watched;
  watched.status.source_lsn = Lsn{1'000};
  watched.position.applied = Lsn{7'312};
  watched.monitor.refresh();
  CHECK(watched.status.lag_bytes == 0);
  CHECK(watched.status.source_lsn == Lsn{7'312});
}

TEST_CASE("the lag is what the source wrote beyond what was applied") {
  Watched watched;
  watched.position.applied = Lsn{1'000};
  watched.position.source_wal_end = Lsn{1'500};
  watched.monitor.refresh();
  CHECK(watched.status.lag_bytes == 500);
}
