// A block: a run of raw pgoutput payloads, the unit in which the stream is kept and handed to the apply.
//
//   messages := (length u32 big endian, payload)*
//
// Invariant: a block can be decoded alone. Whoever fills it puts the Relation message of every relation before the
// first change of that relation in the same block (BlockBuilder in stream/), so a reader may start at any block after a
// restart. A block may begin or end inside a transaction; complete_bytes and open_final_lsn say so.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "protocol/bytes.hpp"
#include "protocol/lsn.hpp"

namespace walferry::store {

enum class StreamId : std::uint64_t {};

// A transaction that was streamed while in progress, at the place of its commit; its messages are chunks in the Spool.
struct StreamedCommit {
  StreamId stream{};
  Xid xid{};
  Lsn commit_lsn;
  Lsn end_lsn;
  PgTime commit_time;
  std::uint64_t chunks = 0;
  std::vector<Xid> aborted;  // subtransactions that were rolled back: their changes do not count
};

struct Block {
  enum class Kind : std::uint8_t { Messages, StreamedCommit };

  Kind kind = Kind::Messages;
  std::vector<std::byte> messages;
  std::size_t complete_bytes =
      0;                    // messages[0, complete_bytes) ends with the last Commit in the block; 0: there is none
  Lsn end_lsn;              // of that last Commit; zero: there is none
  Lsn open_final_lsn;       // the block ends inside the transaction with this commit LSN; zero: it does not
  StreamedCommit streamed;  // Kind::StreamedCommit only

  [[nodiscard]] bool ends_open() const { return open_final_lsn.value != 0; }

  // The target must hold everything before this LSN before the block may be forgotten.
  [[nodiscard]] Lsn needed_until() const { return ends_open() ? Lsn{open_final_lsn.value + 1} : end_lsn; }

  [[nodiscard]] std::size_t size_bytes() const { return messages.size() + sizeof(Block); }
};

// Appends one length-prefixed message.
void append_message(std::vector<std::byte>& messages, Bytes payload);

// Takes the next payload off `rest`; throws ProtocolError when the block is torn.
[[nodiscard]] Bytes take_message(Bytes& rest);

// The form of a block in RocksDB, and back. A value that was not written by encode() is a ProtocolError.
[[nodiscard]] std::string encode(const Block& block);
[[nodiscard]] Block decode_block(std::string_view value);

}  // namespace walferry::store
