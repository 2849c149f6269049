// Every received change that is not yet known to be durable on the target, in commit order.
//
//          released          read cursor            end
//   ---------|==================|====================|-------->  stream
//             retained: can be read again after rewind()
//
// The newest blocks stay in memory, up to memory_bytes_max and for a while. Older ones, and all while nobody reads (the
// copy), go to RocksDB, so that the slot on the source may advance: sync() says up to where. Streamed transactions
// stand beside it as chunks, the newest in memory as well, and at the place of their commit as one block. The receiver
// appends, the applier reads and releases; both live on the io thread, and so does the spool.
//
// Invariant: blocks on disk are a prefix-closed continuation of what the target holds: once one retained block is
// written, all earlier retained ones are written too. So [target's position, sync()) has no gap.
#pragma once

#include <chrono>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>

#include "engine/store/block.hpp"
#include "engine/store/database.hpp"

namespace walferry::store {

struct SpoolLimits {
  std::size_t memory_bytes_max = std::size_t{64} << 20U;  // of blocks
  std::size_t stream_bytes_max = std::size_t{48} << 20U;  // of streamed transactions
};

// A piece of a streamed transaction: messages as in Block.
using Chunk = std::shared_ptr<const std::vector<std::byte>>;

// A streamed transaction whose commit has not been received.
struct Arriving {
  StreamId stream{};
  Xid xid{};
  std::uint64_t chunks = 0;         // that can be read
  bool partly_rolled_back = false;  // changes of a subtransaction in it do not count
};

class Spool {
 public:
  using Moment = std::chrono::steady_clock::time_point;

  // Takes up what an earlier run left on disk; its incomplete last transaction and its unfinished streams are dropped.
  Spool(Database& database, SpoolLimits limits);

  // --- receiver
  // -------------------------------------------------------------------------------------------------------
  void append(Block block);
  [[nodiscard]] StreamId open_stream(Xid xid);
  void append_stream(StreamId stream, Bytes payload);
  // How many chunks the stream has; the rest of its buffer becomes the last one.
  [[nodiscard]] std::uint64_t close_stream(StreamId stream);
  void drop_stream(StreamId stream);
  // A subtransaction of it was rolled back.
  void roll_back_part(StreamId stream);
  // After a lost source connection: forgets the unfinished transaction at the end and all unfinished streams, which the
  // source will send again from their beginning.
  void discard_incomplete();
  // End of the last complete transaction in the spool; zero when it has been empty since the start.
  [[nodiscard]] Lsn end_lsn() const { return end_lsn_; }
  // What is retained goes on without a gap from a target that holds everything before this LSN.
  [[nodiscard]] Lsn begin_lsn() const { return begin_lsn_; }
  // Makes what is on disk durable and returns the end LSN of it; zero when nothing is on disk.
  [[nodiscard]] Lsn sync();
  // Everything retained that was appended until then goes to disk. For a target that stands still: a few bytes in
  // memory would keep the slot, and all WAL of the source, where they are.
  void write_appended_until(Moment moment);
  // While true (nobody applies) every block goes to disk at once.
  void set_disk_only(bool disk_only);
  [[nodiscard]] bool disk_only() const { return disk_only_; }
  // Whether what is appended now will be read some time later: many small transactions then make few blocks.
  [[nodiscard]] bool reader_is_far() const { return disk_only_ || entries_.size() - cursor_ > blocks_near; }

  // --- applier
  // -------------------------------------------------------------------------------------------------------- The block
  // at the cursor, or nullptr when the cursor is at the end.
  [[nodiscard]] std::shared_ptr<const Block> next();
  [[nodiscard]] bool has_next() const { return cursor_ < entries_.size(); }
  [[nodiscard]] Chunk stream_chunk(StreamId stream, std::uint64_t chunk) const;
  // In the order in which they began to arrive.
  [[nodiscard]] std::vector<Arriving> arriving() const;
  // It is arriving, or committed and still to be released; not once it was rolled back or comes again.
  [[nodiscard]] bool contains(StreamId stream) const { return streams_.contains(stream); }
  // Its commit has been received, and is still to be released.
  [[nodiscard]] bool is_committed(StreamId stream) const;
  void rewind();
  // Forgets every block that the target, durable through `lsn`, needs no more.
  void release(Lsn lsn);
  // True once after discard_incomplete() dropped messages that were already read: the reader must roll back and
  // rewind().
  [[nodiscard]] bool take_broken_off();

  // Forgets everything, on disk too, to begin anew with what follows `begin`, where the target stands.
  void clear(Lsn begin);

  // --- both
  // -----------------------------------------------------------------------------------------------------------
  [[nodiscard]] bool empty() const { return entries_.empty(); }
  [[nodiscard]] std::size_t memory_bytes() const { return memory_bytes_ + stream_bytes_; }
  [[nodiscard]] std::size_t disk_bytes() const { return disk_bytes_; }
  void on_append(std::function<void()> callback) { on_append_ = std::move(callback); }

 private:
  struct Entry {
    std::uint64_t sequence = 0;
    std::shared_ptr<const Block> block;  // null: on disk only
    bool on_disk = false;
    Moment appended;
    std::size_t bytes = 0;
    Lsn end_lsn;
    Lsn needed_until;
    std::optional<StreamId> stream;
  };
  // Of this run; those of an earlier one are known by their commit alone.
  struct Stream {
    Xid xid{};
    bool open = true;
    bool partly_rolled_back = false;
    bool on_disk = false;           // some of it
    std::vector<std::byte> buffer;  // the chunk being filled
    std::vector<Chunk> chunks;      // null: on disk only
  };

  static constexpr std::size_t blocks_near = 64;

  void load();
  void write_to_disk(Entry& entry);
  void write_retained_to_disk(std::size_t bytes_to_keep);
  void forget_front();
  void record_begin();
  void keep_complete(Entry& entry, const Block& block);
  void forget_memory(Entry& entry);
  void end_chunk(StreamId id, Stream& stream);
  void write_chunk(StreamId id, Stream& stream, std::size_t chunk);
  void erase_stream(StreamId id);
  Stream& find_open(StreamId stream);

  Database& database_;
  SpoolLimits limits_;
  std::deque<Entry> entries_;
  std::size_t cursor_ = 0;
  std::uint64_t next_sequence_ = 1;
  std::uint64_t next_stream_ = 1;
  std::map<StreamId, Stream> streams_;
  std::deque<std::pair<StreamId, std::size_t>> chunks_in_memory_;  // oldest first
  std::size_t stream_bytes_ = 0;                                   // in memory
  Lsn end_lsn_;
  Lsn begin_lsn_;
  Lsn recorded_begin_;
  bool disk_only_ = true;
  bool unsynced_ = false;
  bool unflushed_streams_ = false;
  bool broken_off_ = false;
  std::size_t memory_bytes_ = 0;
  std::size_t disk_bytes_ = 0;
  std::function<void()> on_append_;
};

}  // namespace walferry::store
