#include "protocol/replication.hpp"

#include <string>

namespace walferry::replication {
namespace {

bool read_bool(Reader& in, std::string_view field) {
  const std::uint8_t value = in.u8(field);
  if (value > 1) throw ProtocolError(std::string(field) + ": expected 0 or 1, found " + wire::describe_byte(value));
  return value == 1;
}

// The payload is everything that is left, so there is no end to check; pgoutput::decode checks its own.
XLogDataView read_xlog_data(Reader& in) {
  return {.data_start = Lsn{in.u64("XLogData data start")},
          .wal_end = Lsn{in.u64("XLogData WAL end")},
          .send_time = PgTime{in.i64("XLogData send time")},
          .payload = in.rest()};
}

Keepalive read_keepalive(Reader& in) {
  const Keepalive keepalive{.wal_end = Lsn{in.u64("Keepalive WAL end")},
                            .send_time = PgTime{in.i64("Keepalive send time")},
                            .reply_requested = read_bool(in, "Keepalive reply requested")};
  in.expect_end("Keepalive");
  return keepalive;
}

}  // namespace

Frame decode(Bytes frame) {
  Reader in(frame);
  const std::uint8_t tag = in.u8("replication frame tag");
  switch (tag) {
    case 'w':
      return read_xlog_data(in);
    case 'k':
      return read_keepalive(in);
    default:
      throw ProtocolError("replication frame: unknown tag " + wire::describe_byte(tag));
  }
}

void encode(const StatusUpdate& update, std::vector<std::byte>& out) {
  Writer writer(out);
  writer.u8('r');
  writer.u64(update.write.value);
  writer.u64(update.flush.value);
  writer.u64(update.apply.value);
  writer.i64(update.time.microseconds);
  writer.u8(update.reply_requested ? 1 : 0);
}

}  // namespace walferry::replication
