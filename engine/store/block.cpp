#include "engine/store/block.hpp"

namespace walferry::store {
namespace {

constexpr std::uint8_t format_version = 1;

}  // namespace

void append_message(std::vector<std::byte>& messages, Bytes payload) {
  Writer out{messages};
  out.u32(static_cast<std::uint32_t>(payload.size()));
  out.bytes(payload);
}

Bytes take_message(Bytes& rest) {
  Reader in{rest};
  const std::uint32_t length = in.u32("message length");
  const Bytes payload = in.take(length, "message");
  rest = in.rest();
  return payload;
}

std::string encode(const Block& block) {
  std::vector<std::byte> bytes;
  bytes.reserve(block.messages.size() + 128);
  Writer out{bytes};
  out.u8(format_version);
  out.u8(static_cast<std::uint8_t>(block.kind));
  out.u64(block.complete_bytes);
  out.u64(block.end_lsn.value);
  out.u64(block.open_final_lsn.value);
  if (block.kind == Block::Kind::StreamedCommit) {
    out.u64(static_cast<std::uint64_t>(block.streamed.stream));
    out.u32(static_cast<std::uint32_t>(block.streamed.xid));
    out.u64(block.streamed.commit_lsn.value);
    out.u64(block.streamed.end_lsn.value);
    out.i64(block.streamed.commit_time.microseconds);
    out.u64(block.streamed.chunks);
    out.u32(static_cast<std::uint32_t>(block.streamed.aborted.size()));
    for (const Xid xid : block.streamed.aborted) out.u32(static_cast<std::uint32_t>(xid));
  }
  out.u64(block.messages.size());
  out.bytes(block.messages);
  return std::string{as_text(bytes)};
}

Block decode_block(std::string_view value) {
  Reader in{as_bytes(value)};
  if (in.u8("block format") != format_version)
    throw ProtocolError{"a spooled block was written by another version of walferry"};
  Block block;
  const std::uint8_t kind = in.u8("block kind");
  if (kind > static_cast<std::uint8_t>(Block::Kind::StreamedCommit)) {
    throw ProtocolError{"a spooled block is of an unknown kind"};
  }
  block.kind = static_cast<Block::Kind>(kind);
  block.complete_bytes = in.u64("complete bytes");
  block.end_lsn = Lsn{in.u64("end LSN")};
  block.open_final_lsn = Lsn{in.u64("open final LSN")};
  if (block.kind == Block::Kind::StreamedCommit) {
    block.streamed.stream = StreamId{in.u64("stream")};
    block.streamed.xid = Xid{in.u32("xid")};
    block.streamed.commit_lsn = Lsn{in.u64("commit LSN")};
    block.streamed.end_lsn = Lsn{in.u64("end LSN")};
    block.streamed.commit_time = PgTime{in.i64("commit time")};
    block.streamed.chunks = in.u64("chunks");
    const std::uint32_t aborted = in.u32("aborted count");
    for (std::uint32_t i = 0; i < aborted; ++i) block.streamed.aborted.push_back(Xid{in.u32("aborted xid")});
  }
  const std::uint64_t length = in.u64("messages length");
  const Bytes messages = in.take(length, "messages");
  in.expect_end("spooled block");
  if (block.complete_bytes > messages.size()) {
    throw ProtocolError{"a spooled block is shorter than its complete transactions"};
  }
  block.messages.assign(messages.begin(), messages.end());
  return block;
}

}  // namespace walferry::store
