// Frames of CopyBoth, as the server sends them, with the payload decoded as the receiver would.
#include <variant>

#include "protocol/replication.hpp"
#include "tests/fuzz/check.hpp"

namespace walferry::test {
namespace {

std::vector<std::byte> encode_frame(const replication::Frame& frame) {
  std::vector<std::byte> out;
  Writer writer(out);
  if (const auto* data = std::get_if<replication::XLogDataView>(&frame)) {
    writer.u8('w');
    writer.u64(data->data_start.value);
    writer.u64(data->wal_end.value);
    writer.i64(data->send_time.microseconds);
    writer.bytes(data->payload);
  } else {
    const auto& keepalive = std::get<replication::Keepalive>(frame);
    writer.u8('k');
    writer.u64(keepalive.wal_end.value);
    writer.i64(keepalive.send_time.microseconds);
    writer.u8(keepalive.reply_requested ? 1 : 0);
  }
  return out;
}

}  // namespace

void check_input(Bytes bytes) {
  try {
    const replication::Frame frame = replication::decode(bytes);
    require(same_bytes(encode_frame(frame), bytes));
    if (const auto* data = std::get_if<replication::XLogDataView>(&frame)) check_pgoutput(data->payload, {});
  } catch (const ProtocolError&) {
    // Refused.
  }
}

}  // namespace walferry::test
