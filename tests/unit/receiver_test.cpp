#include "engine/stream/receiver.hpp"

#include <doctest/doctest.h>

#include <string>

#include "engine/stream/unreadable.hpp"
#include "protocol/replication.hpp"
#include "tests/unit/pgoutput_samples.hpp"
#include "tests/unit/wire_bytes.hpp"

using namespace walferry;
using stream::start_replication_sql;

namespace {

// An XLogData frame at this LSN around a sample of pgoutput.
std::vector<std::byte> frame(std::uint64_t lsn, std::string_view sample) {
  std::vector<std::byte> bytes;
  Writer out{bytes};
  out.u8('w');
  out.u64(lsn);
  out.u64(lsn);
  out.i64(0);
  out.bytes(test::wire(test::pgoutput_sample(sample).notation));
  return bytes;
}

}  // namespace

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

TEST_CASE("a file without a name is a race of the server's, other internal errors are not") {
  const auto error = [](const std::string& sqlstate, const std::string& text) {
    return Error{{ErrorKind::Sql, Side::Source, sqlstate}, text};
  };
  CHECK(stream::is_unmapped_file(
      error("XX000", "source: could not map filenode \"base/16384/16396\" to relation OID (SQLSTATE XX000)")));
  CHECK(stream::is_unmapped_file(error("XX000", "could not map filenumber \"base/5/1\" to relation OID")));
  CHECK_FALSE(stream::is_unmapped_file(error("XX000", "unexpected table_index_fetch_tuple call")));
  CHECK_FALSE(stream::is_unmapped_file(error("58P01", "could not map file")));
}

TEST_CASE("the LSN of a failure is read from its context, whatever the language") {
  CHECK(stream::failed_at("source: invalid byte sequence for encoding \"UTF8\": 0xff (SQLSTATE 22021); slot \"s/1\", "
                          "output plugin \"pgoutput\", in the change callback, associated LSN 16/B374D848") ==
        Lsn{0x16B374D848});
  CHECK(stream::failed_at("Slot ..., zugeordnete LSN 0/1A2B3C8\nund mehr") == Lsn{0x1A2B3C8});
  CHECK_FALSE(stream::failed_at("no position at all"));
  CHECK_FALSE(stream::failed_at("/"));
}

TEST_CASE("the row at the LSN of a failure is named by its table and key, no other is") {
  stream::UnreadableRow row{Lsn{0x200}};
  CHECK_FALSE(row.look_at(frame(0x0, "relation")));
  CHECK_FALSE(row.look_at(frame(0x100, "insert_text")));
  const auto found = row.look_at(frame(0x200, "insert_text"));
  REQUIRE(found);
  CHECK(*found == "public.t (id)=(1)");
  // Without the relation's description nothing can be said.
  stream::UnreadableRow undescribed{Lsn{0x200}};
  CHECK_FALSE(undescribed.look_at(frame(0x200, "insert_text")));
}
