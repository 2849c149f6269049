// Turns the payloads of one walsender connection into blocks for the spool.
//
// Owns the relation messages seen on this connection and the block being filled. Changes are only looked at as far as
// routing needs (tag, relation, stream); the apply decodes them. Invariant: each block holds the Relation message of
// every relation before its first change there, so that it can be decoded alone. Called by Receiver for each frame;
// appends to Spool.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <unordered_map>
#include <vector>

#include "engine/store/spool.hpp"
#include "protocol/pgoutput.hpp"

namespace walferry::stream {

class Assembler {
 public:
  explicit Assembler(store::Spool& spool) : spool_(spool) {}

  // A new connection: the source sends every relation, and every unfinished transaction, again.
  void reset();
  // One payload, in stream order. Throws ProtocolError on what walferry did not ask for.
  void accept(Bytes payload);
  // Nothing more is at hand: complete transactions are handed over without waiting for the block to fill.
  void flush();

  // Complete transactions that were not handed over yet.
  [[nodiscard]] bool holds_complete() const { return block_.complete_bytes > 0; }
  // Between Begin and Commit of a transaction that is not streamed.
  [[nodiscard]] bool in_transaction() const { return open_final_lsn_.value != 0; }

 private:
  struct KnownRelation {
    std::vector<std::byte> message;
    std::uint64_t order = 0;  // of receipt, over all relations and streams
    std::uint64_t in_block = 0;
  };
  struct Stream {
    store::StreamId id{};
    std::vector<Xid> aborted;
    std::map<RelationId, KnownRelation> relations;
    // As they came, until a change names them: where a root stands for its partitions theirs come too, and the target
    // need not have such tables.
    std::map<RelationId, std::vector<std::byte>> unused;
  };

  void accept_in_stream(Bytes payload);
  void use_in_stream(RelationId relation);
  void accept_control(Bytes payload);
  void ensure_relation(RelationId relation);
  void append(Bytes payload);
  void seal();
  void commit_stream(const pgoutput::StreamCommit& commit);
  void abort_stream(const pgoutput::StreamAbort& abort);

  store::Spool& spool_;
  store::Block block_;
  std::uint64_t block_number_ = 1;
  std::uint64_t order_ = 0;
  Lsn open_final_lsn_;
  std::unordered_map<std::uint32_t, KnownRelation> relations_;
  std::map<Xid, Stream> streams_;
  Stream* current_stream_ = nullptr;
};

}  // namespace walferry::stream
