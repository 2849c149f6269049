#include "engine/store/block.hpp"

#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "tests/unit/wire_bytes.hpp"

using namespace walferry;
using namespace walferry::store;
using test::hex;

namespace {

Block block_of(const std::vector<std::string_view>& payloads) {
  Block block;
  for (const std::string_view payload : payloads) append_message(block.messages, as_bytes(payload));
  return block;
}

// The end of one transaction and the beginning of a larger one.
Block ordinary_block() {
  Block block = block_of({"begin", "insert", "commit"});
  block.complete_bytes = block.messages.size();
  append_message(block.messages, as_bytes("begin of a large one"));
  block.end_lsn = Lsn{0x16B374D848};
  block.open_final_lsn = Lsn{0x1700000000};
  return block;
}

Block streamed_block() {
  Block block;
  block.kind = Block::Kind::StreamedCommit;
  block.end_lsn = Lsn{0x2000};
  block.streamed = {.stream = StreamId{7},
                    .xid = Xid{739},
                    .commit_lsn = Lsn{0x1FF0},
                    .end_lsn = Lsn{0x2000},
                    .commit_time = PgTime{-5},
                    .chunks = 3,
                    .aborted = {Xid{740}, Xid{0xFFFFFFFF}}};
  return block;
}

}  // namespace

TEST_CASE("messages are length-prefixed and come back in order") {
  Block block = block_of({"one", "", "three"});
  CHECK(hex(block.messages) == hex(test::wire("00000003 'one' 00000000 00000005 'three'")));
  Bytes rest = block.messages;
  CHECK(as_text(take_message(rest)) == "one");
  CHECK(as_text(take_message(rest)).empty());
  CHECK(as_text(take_message(rest)) == "three");
  CHECK(rest.empty());
}

TEST_CASE("a torn message is refused and leaves the rest alone") {
  for (const std::string_view torn : {"", "00", "000000", "00000003 'on'", "ffffffff 'one'"}) {
    CAPTURE(torn);
    const std::vector<std::byte> bytes = test::wire(torn);
    Bytes rest = bytes;
    CHECK_THROWS_AS(static_cast<void>(take_message(rest)), ProtocolError);
    CHECK(rest.size() == bytes.size());
  }
}

TEST_CASE("a block of messages comes back as it was") {
  const Block block = ordinary_block();
  const Block read = decode_block(encode(block));
  CHECK(read.kind == Block::Kind::Messages);
  CHECK(hex(read.messages) == hex(block.messages));
  CHECK(read.complete_bytes == block.complete_bytes);
  CHECK(read.end_lsn == block.end_lsn);
  CHECK(read.open_final_lsn == block.open_final_lsn);
  CHECK(read.ends_open());
}

TEST_CASE("a streamed commit comes back with every field") {
  const Block block = streamed_block();
  const Block read = decode_block(encode(block));
  CHECK(read.kind == Block::Kind::StreamedCommit);
  CHECK(read.messages.empty());
  CHECK(read.end_lsn == block.end_lsn);
  CHECK_FALSE(read.ends_open());
  CHECK(read.streamed.stream == block.streamed.stream);
  CHECK(read.streamed.xid == block.streamed.xid);
  CHECK(read.streamed.commit_lsn == block.streamed.commit_lsn);
  CHECK(read.streamed.end_lsn == block.streamed.end_lsn);
  CHECK(read.streamed.commit_time == block.streamed.commit_time);
  CHECK(read.streamed.chunks == block.streamed.chunks);
  CHECK(read.streamed.aborted == block.streamed.aborted);
}

TEST_CASE("every proper prefix of a kept block is refused") {
  for (const Block& block : {ordinary_block(), streamed_block()}) {
    const std::string value = encode(block);
    for (std::size_t length = 0; length < value.size(); ++length) {
      CAPTURE(length);
      CHECK_THROWS_AS(static_cast<void>(decode_block(std::string_view{value}.substr(0, length))), ProtocolError);
    }
  }
}

TEST_CASE("bytes behind a kept block are refused") {
  CHECK_THROWS_AS(static_cast<void>(decode_block(encode(ordinary_block()) + "x")), ProtocolError);
  CHECK_THROWS_AS(static_cast<void>(decode_block(encode(streamed_block()) + "x")), ProtocolError);
}

TEST_CASE("a format or a kind that walferry never wrote is refused") {
  std::string another_format = encode(ordinary_block());
  another_format[0] = 99;
  CHECK_THROWS_AS(static_cast<void>(decode_block(another_format)), ProtocolError);
  std::string another_kind = encode(ordinary_block());
  another_kind[1] = 2;
  CHECK_THROWS_AS(static_cast<void>(decode_block(another_kind)), ProtocolError);
}

TEST_CASE("a complete prefix longer than the messages is refused") {
  Block block = ordinary_block();
  block.complete_bytes = block.messages.size() + 1;
  CHECK_THROWS_AS(static_cast<void>(decode_block(encode(block))), ProtocolError);
}

TEST_CASE("a block is needed until its last commit, or until the transaction that it leaves open") {
  Block whole = block_of({"begin", "commit"});
  whole.end_lsn = Lsn{100};
  CHECK(whole.needed_until() == Lsn{100});
  whole.open_final_lsn = Lsn{200};
  CHECK(whole.needed_until() == Lsn{201});
}
