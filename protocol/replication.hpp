// The frames inside CopyBoth of a walsender (doc page "Streaming Replication Protocol").
//
//   'w' := data start i64, WAL end i64, send time i64, payload      XLogData, server to client
//   'k' := WAL end i64, send time i64, reply requested u8           Primary keepalive, server to client
//   'r' := write i64, flush i64, apply i64, time i64, reply u8      Standby status update, client to server
//
// Called by the receiver of engine/. Views point into the frame.
#pragma once

#include <variant>
#include <vector>

#include "protocol/bytes.hpp"
#include "protocol/lsn.hpp"

namespace walferry::replication {

struct XLogDataView {
  Lsn data_start;  // zero on messages that are not the last of a group (Relation, Type ...)
  Lsn wal_end;
  PgTime send_time;
  Bytes payload;
};
struct Keepalive {
  Lsn wal_end;  // decoded up to here; all earlier commits were sent before
  PgTime send_time;
  bool reply_requested = false;
};
using Frame = std::variant<XLogDataView, Keepalive>;

[[nodiscard]] Frame decode(Bytes frame);

// Only `flush` moves the slot: it promises that everything before it may be forgotten by the source.
struct StatusUpdate {
  Lsn write;
  Lsn flush;
  Lsn apply;
  PgTime time;
  bool reply_requested = false;
};

void encode(const StatusUpdate& update, std::vector<std::byte>& out);

}  // namespace walferry::replication
