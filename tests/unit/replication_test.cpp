#include "protocol/replication.hpp"

#include <doctest/doctest.h>

#include <variant>

#include "tests/unit/wire_bytes.hpp"

namespace walferry::replication {
namespace {

using test::hex;
using test::wire;

constexpr std::string_view keepalive_notation = "'k' 000000000154caa0 000303bc95beef10 01";
constexpr std::string_view xlog_data_notation = "'w' 0000000001547de8 0000000001547de9 000303bc95beef10";

TEST_CASE("XLogData carries two positions, a time and a payload that points into the frame") {
  auto frame = wire(xlog_data_notation);
  Writer(frame).bytes(as_bytes("payload"));
  const auto data = std::get<XLogDataView>(decode(frame));
  CHECK(data.data_start == Lsn{0x1547DE8});
  CHECK(data.wal_end == Lsn{0x1547DE9});
  CHECK(data.send_time == PgTime{0x303BC95BEEF10});
  CHECK(as_text(data.payload) == "payload");
  CHECK(data.payload.data() == frame.data() + 25);
}

TEST_CASE("XLogData without a payload is a frame with an empty payload") {
  CHECK(std::get<XLogDataView>(decode(wire(xlog_data_notation))).payload.empty());
}

TEST_CASE("a keepalive says how far the source has decoded and whether it wants an answer") {
  const auto asking = std::get<Keepalive>(decode(wire(keepalive_notation)));
  CHECK(asking.wal_end == Lsn{0x154CAA0});
  CHECK(asking.send_time == PgTime{0x303BC95BEEF10});
  CHECK(asking.reply_requested);
  CHECK_FALSE(std::get<Keepalive>(decode(wire("'k' 000000000154caa0 000303bc95beef10 00"))).reply_requested);
}

TEST_CASE("a time before 2000 is negative") {
  CHECK(std::get<Keepalive>(decode(wire("'k' 0000000000000000 ffffffffffffffff 00"))).send_time == PgTime{-1});
}

TEST_CASE("every proper prefix of a frame is refused") {
  for (const std::string_view notation : {keepalive_notation, xlog_data_notation}) {
    const auto frame = wire(notation);
    for (std::size_t length = 0; length < frame.size(); ++length) {
      CAPTURE(length);
      CHECK_THROWS_AS(static_cast<void>(decode(Bytes(frame).first(length))), ProtocolError);
    }
  }
}

TEST_CASE("a byte after a keepalive is refused") {
  auto frame = wire(keepalive_notation);
  frame.push_back(std::byte{0});
  CHECK_THROWS_WITH_AS(static_cast<void>(decode(frame)), "Keepalive: 1 bytes after its end", ProtocolError);
}

TEST_CASE("a reply flag other than 0 and 1 is refused") {
  CHECK_THROWS_WITH_AS(static_cast<void>(decode(wire("'k' 000000000154caa0 000303bc95beef10 02"))),
                       "Keepalive reply requested: expected 0 or 1, found 0x02", ProtocolError);
}

TEST_CASE("every other tag is refused by name, also the one that only the client sends") {
  for (int tag = 0; tag < 256; ++tag) {
    if (tag == 'w' || tag == 'k') continue;
    CAPTURE(tag);
    auto frame = wire(xlog_data_notation);
    frame[0] = static_cast<std::byte>(tag);
    CHECK_THROWS_AS(static_cast<void>(decode(frame)), ProtocolError);
  }
  CHECK_THROWS_WITH_AS(static_cast<void>(decode(wire("'r' 00"))), "replication frame: unknown tag 'r'", ProtocolError);
}

// The server's side of 'r', written here so that encode() has something to agree with.
StatusUpdate read_status_update(Bytes frame) {
  Reader in(frame);
  in.expect('r', "tag");
  const StatusUpdate update{.write = Lsn{in.u64("write")},
                            .flush = Lsn{in.u64("flush")},
                            .apply = Lsn{in.u64("apply")},
                            .time = PgTime{in.i64("time")},
                            .reply_requested = in.u8("reply") == 1};
  in.expect_end("StatusUpdate");
  return update;
}

TEST_CASE("a status update is 34 bytes: write, flush, apply, time, reply flag") {
  const StatusUpdate update{.write = Lsn{0x16'B374'D848},
                            .flush = Lsn{0x16'B374'D000},
                            .apply = Lsn{0x16'B374'D400},
                            .time = PgTime{-2},
                            .reply_requested = true};
  std::vector<std::byte> frame;
  encode(update, frame);
  CHECK(hex(frame) == hex(wire("'r' 00000016b374d848 00000016b374d000 00000016b374d400 fffffffffffffffe 01")));
  CHECK(frame.size() == 34);
}

TEST_CASE("a status update comes back as it went in") {
  for (const bool reply_requested : {false, true}) {
    const StatusUpdate sent{.write = Lsn{3},
                            .flush = Lsn{1},
                            .apply = Lsn{2},
                            .time = PgTime{0x303BC95BEEF10},
                            .reply_requested = reply_requested};
    std::vector<std::byte> frame;
    encode(sent, frame);
    const StatusUpdate received = read_status_update(frame);
    CHECK(received.write == sent.write);
    CHECK(received.flush == sent.flush);
    CHECK(received.apply == sent.apply);
    CHECK(received.time == sent.time);
    CHECK(received.reply_requested == sent.reply_requested);
  }
}

TEST_CASE("encode appends and leaves what was in the buffer") {
  auto buffer = wire("'x'");
  encode(StatusUpdate{}, buffer);
  CHECK(buffer.size() == 35);
  CHECK(buffer[0] == std::byte{'x'});
}

}  // namespace
}  // namespace walferry::replication
