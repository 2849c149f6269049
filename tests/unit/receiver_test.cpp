#include "engine/stream/receiver.hpp"

#include <doctest/doctest.h>

#include <string>

using namespace walferry;
using stream::start_replication_sql;

TEST_CASE("each server is asked for what its version understands") {
  const std::string before = R"(START_REPLICATION SLOT "walferry_shop" LOGICAL 16/B374D848 )";
  const auto sql = [](int server_version) {
    return start_replication_sql(server_version, "walferry_shop", Lsn{0x16B374D848}, {"walferry_shop"});
  };
  CHECK(sql(100'023) == before + R"((proto_version '1', publication_names '"walferry_shop"'))");
  CHECK(sql(130'014) == before + R"((proto_version '1', publication_names '"walferry_shop"'))");
  CHECK(sql(140'000) ==
        before + R"((proto_version '2', publication_names '"walferry_shop"', messages 'true', streaming 'on'))");
  CHECK(sql(150'020) ==
        before + R"((proto_version '3', publication_names '"walferry_shop"', messages 'true', streaming 'on'))");
  for (const int newer : {160'000, 170'004, 180'000}) {
    CAPTURE(newer);
    CHECK(sql(newer) ==
          before + R"((proto_version '4', publication_names '"walferry_shop"', messages 'true', streaming 'on'))");
  }
}

TEST_CASE("without a position the slot's own is asked for") {
  CHECK(start_replication_sql(130'000, "s", Lsn{}, {"p"}).find("LOGICAL 0/0 ") != std::string::npos);
}

TEST_CASE("publications and slot are quoted twice: as names, and as the literal around them") {
  const std::string sql = start_replication_sql(130'000, "odd\"slot", Lsn{1}, {"plain", "it's", "a,\"b\""});
  CHECK(sql == R"(START_REPLICATION SLOT "odd""slot" LOGICAL 0/1 )"
               R"((proto_version '1', publication_names '"plain","it''s","a,""b"""'))");
}
