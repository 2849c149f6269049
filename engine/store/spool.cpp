#include "engine/store/spool.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "engine/error.hpp"

namespace walferry::store {
namespace {

using Family = Database::Family;
using Durability = Database::Durability;

constexpr std::string_view begin_key = "spool-begin";  // of Family::State
constexpr std::size_t chunk_bytes = std::size_t{256} << 10U;

std::string key_of(std::uint64_t number) {
  std::string key(8, '\0');
  for (std::size_t i = 0; i < 8; ++i) key[i] = static_cast<char>(number >> (56 - 8 * i));
  return key;
}

std::uint64_t number_of(std::string_view key) {
  std::uint64_t number = 0;
  for (const char c : key.substr(0, 8)) number = number << 8U | static_cast<std::uint8_t>(c);
  return number;
}

std::string chunk_key(StreamId stream, std::uint64_t chunk) {
  return key_of(static_cast<std::uint64_t>(stream)) + key_of(chunk);
}

Error unreadable_block(const Database& database, std::string_view why, std::string_view remedy) {
  return Error{{ErrorKind::State},
               fmt::format("state directory {}: a spooled block cannot be read: {}. Remedy: {}",
                           database.directory().string(), why, remedy)};
}

// As it stands in the state directory.
Block decode_stored(const Database& database, std::string_view value) {
  try {
    return decode_block(value);
  } catch (const ProtocolError& error) {
    throw unreadable_block(database, error.what(),
                           "go on with the version of walferry that wrote it, or abort and begin anew");
  }
}

std::shared_ptr<const Block> read_block(const Database& database, std::uint64_t sequence) {
  const std::optional<std::string> value = database.get(Family::Blocks, key_of(sequence));
  if (!value) throw unreadable_block(database, "it is missing", "the directory was damaged: abort and begin anew");
  return std::make_shared<const Block>(decode_stored(database, *value));
}

}  // namespace

Spool::Spool(Database& database, SpoolLimits limits) : database_(database), limits_(limits) {
  load();
}

void Spool::load() {
  begin_lsn_ = recorded_begin_ = Lsn::parse(database_.get(Family::State, begin_key).value_or("")).value_or(Lsn{});
  std::vector<StreamId> wanted;
  database_.for_each(Family::Blocks, [&](std::string_view key, std::string_view value) {
    const Block block = decode_stored(database_, value);
    Entry entry;
    entry.sequence = number_of(key);
    entry.on_disk = true;
    entry.bytes = value.size();
    entry.end_lsn = block.end_lsn;
    entry.needed_until = block.needed_until();
    if (block.kind == Block::Kind::StreamedCommit) {
      entry.stream = block.streamed.stream;
      wanted.push_back(block.streamed.stream);
      next_stream_ = std::max(next_stream_, static_cast<std::uint64_t>(block.streamed.stream) + 1);
    }
    next_sequence_ = entry.sequence + 1;
    disk_bytes_ += entry.bytes;
    entries_.push_back(std::move(entry));
  });
  // Streams whose commit did not reach the spool come again from the source.
  std::vector<std::uint64_t> unfinished;
  database_.for_each(Family::Streams, [&](std::string_view key, std::string_view) {
    const std::uint64_t stream = number_of(key);
    next_stream_ = std::max(next_stream_, stream + 1);
    const bool kept = std::find(wanted.begin(), wanted.end(), StreamId{stream}) != wanted.end();
    if (!kept && (unfinished.empty() || unfinished.back() != stream)) unfinished.push_back(stream);
  });
  for (const std::uint64_t stream : unfinished) {
    database_.erase_range(Family::Streams, key_of(stream), key_of(stream + 1));
  }
  discard_incomplete();
  broken_off_ = false;
  // Only now: what was dropped must not be claimed.
  for (const Entry& entry : entries_) end_lsn_ = std::max(end_lsn_, entry.end_lsn);
}

void Spool::append(Block block) {
  Entry entry;
  entry.sequence = next_sequence_++;
  entry.appended = std::chrono::steady_clock::now();
  entry.bytes = block.size_bytes();
  entry.end_lsn = block.end_lsn;
  entry.needed_until = block.needed_until();
  if (block.kind == Block::Kind::StreamedCommit) entry.stream = block.streamed.stream;
  end_lsn_ = std::max(end_lsn_, block.end_lsn);
  entry.block = std::make_shared<const Block>(std::move(block));
  memory_bytes_ += entry.bytes;
  entries_.push_back(std::move(entry));
  write_retained_to_disk(disk_only_ ? 0 : limits_.memory_bytes_max);
  if (on_append_) on_append_();
}

void Spool::write_to_disk(Entry& entry) {
  if (entry.stream) {
    // A commit on disk must not be durable before its changes.
    const auto found = streams_.find(*entry.stream);
    const std::size_t chunks = found == streams_.end() ? 0 : found->second.chunks.size();
    for (std::size_t chunk = 0; chunk < chunks; ++chunk) write_chunk(*entry.stream, found->second, chunk);
    if (unflushed_streams_) database_.flush(Family::Streams);
    unflushed_streams_ = false;
  }
  record_begin();
  const std::string value = encode(*entry.block);
  database_.put(Family::Blocks, key_of(entry.sequence), value, Durability::Logged);
  entry.on_disk = true;
  disk_bytes_ += entry.bytes;
  unsynced_ = true;
  forget_memory(entry);
}

// Until memory holds no more than `bytes_to_keep`. The oldest go first: a gap on disk would make sync() a lie.
void Spool::write_retained_to_disk(std::size_t bytes_to_keep) {
  if (memory_bytes_ <= bytes_to_keep) return;
  auto first = std::ranges::partition_point(entries_, &Entry::on_disk);
  for (; first != entries_.end() && memory_bytes_ > bytes_to_keep; ++first) write_to_disk(*first);
}

void Spool::write_appended_until(Moment moment) {
  auto first = std::ranges::partition_point(entries_, &Entry::on_disk);
  for (; first != entries_.end() && first->appended <= moment; ++first) write_to_disk(*first);
}

void Spool::forget_memory(Entry& entry) {
  if (!entry.block) return;
  memory_bytes_ -= entry.bytes;
  entry.block.reset();
}

StreamId Spool::open_stream(Xid xid) {
  const StreamId id{next_stream_++};
  streams_[id].xid = xid;
  return id;
}

Spool::Stream& Spool::find_open(StreamId stream) {
  const auto found = streams_.find(stream);
  if (found == streams_.end() || !found->second.open)
    throw Error{{ErrorKind::Protocol}, "a streamed transaction is unknown to the spool"};
  return found->second;
}

void Spool::append_stream(StreamId stream, Bytes payload) {
  Stream& open = find_open(stream);
  append_message(open.buffer, payload);
  if (open.buffer.size() < chunk_bytes) return;
  end_chunk(stream, open);
  if (on_append_) on_append_();
}

// The oldest chunks in memory make room for the new one.
void Spool::end_chunk(StreamId id, Stream& stream) {
  stream_bytes_ += stream.buffer.size();
  chunks_in_memory_.emplace_back(id, stream.chunks.size());
  stream.chunks.push_back(std::make_shared<const std::vector<std::byte>>(std::exchange(stream.buffer, {})));
  while (stream_bytes_ > limits_.stream_bytes_max && !chunks_in_memory_.empty()) {
    const auto [oldest, chunk] = chunks_in_memory_.front();
    chunks_in_memory_.pop_front();
    const auto found = streams_.find(oldest);
    if (found != streams_.end()) write_chunk(oldest, found->second, chunk);
  }
}

void Spool::write_chunk(StreamId id, Stream& stream, std::size_t chunk) {
  const Chunk held = std::exchange(stream.chunks[chunk], nullptr);
  if (!held) return;
  database_.put(Family::Streams, chunk_key(id, chunk), as_text(*held), Durability::Unlogged);
  stream_bytes_ -= held->size();
  stream.on_disk = true;
  unflushed_streams_ = true;
}

std::uint64_t Spool::close_stream(StreamId stream) {
  Stream& open = find_open(stream);
  if (!open.buffer.empty()) end_chunk(stream, open);
  open.open = false;
  return open.chunks.size();
}

void Spool::drop_stream(StreamId stream) {
  static_cast<void>(find_open(stream));
  erase_stream(stream);
}

void Spool::erase_stream(StreamId id) {
  const auto found = streams_.find(id);
  if (found == streams_.end() || found->second.on_disk) {
    const auto number = static_cast<std::uint64_t>(id);
    database_.erase_range(Family::Streams, key_of(number), key_of(number + 1));
  }
  if (found == streams_.end()) return;
  for (const Chunk& chunk : found->second.chunks) stream_bytes_ -= chunk ? chunk->size() : 0;
  std::erase_if(chunks_in_memory_, [id](const auto& chunk) { return chunk.first == id; });
  streams_.erase(found);
}

void Spool::roll_back_part(StreamId stream) {
  find_open(stream).partly_rolled_back = true;
}

std::vector<Arriving> Spool::arriving() const {
  std::vector<Arriving> list;
  for (const auto& [id, stream] : streams_) {
    if (stream.open) list.push_back({id, stream.xid, stream.chunks.size(), stream.partly_rolled_back});
  }
  return list;
}

bool Spool::is_committed(StreamId stream) const {
  const auto found = streams_.find(stream);
  return found != streams_.end() && !found->second.open;
}

void Spool::discard_incomplete() {
  for (const Arriving& each : arriving()) drop_stream(each.stream);
  while (!entries_.empty()) {
    Entry& last = entries_.back();
    const std::shared_ptr<const Block> block = last.block ? last.block : read_block(database_, last.sequence);
    if (!block->ends_open()) return;
    if (cursor_ == entries_.size()) broken_off_ = true;
    if (block->complete_bytes > 0) {
      keep_complete(last, *block);
      return;
    }
    if (last.on_disk) {
      database_.erase(Family::Blocks, key_of(last.sequence), Durability::Logged);
      disk_bytes_ -= last.bytes;
      unsynced_ = true;
    }
    forget_memory(last);
    entries_.pop_back();
    cursor_ = std::min(cursor_, entries_.size());
  }
}

// Cuts off the unfinished transaction at the end of a block whose complete ones may have been confirmed: in place, with
// one write.
void Spool::keep_complete(Entry& entry, const Block& block) {
  Block whole = block;
  whole.messages.resize(whole.complete_bytes);
  whole.open_final_lsn = Lsn{};
  entry.needed_until = whole.needed_until();
  const std::size_t bytes = whole.size_bytes();
  if (entry.on_disk) {
    database_.put(Family::Blocks, key_of(entry.sequence), encode(whole), Durability::Logged);
    disk_bytes_ = disk_bytes_ - entry.bytes + bytes;
    unsynced_ = true;
  } else {
    memory_bytes_ = memory_bytes_ - entry.bytes + bytes;
    entry.block = std::make_shared<const Block>(std::move(whole));
  }
  entry.bytes = bytes;
}

Lsn Spool::sync() {
  if (unsynced_) {
    database_.sync_log();
    unsynced_ = false;
  }
  Lsn durable;
  for (auto entry = entries_.rbegin(); entry != entries_.rend(); ++entry) {
    if (!entry->on_disk) continue;
    durable = std::max(durable, entry->end_lsn);
    if (durable) break;
  }
  return durable;
}

void Spool::set_disk_only(bool disk_only) {
  disk_only_ = disk_only;
  if (disk_only) write_retained_to_disk(0);
}

std::shared_ptr<const Block> Spool::next() {
  if (!has_next()) return nullptr;
  Entry& entry = entries_[cursor_++];
  if (entry.block) return entry.block;
  return read_block(database_, entry.sequence);
}

Chunk Spool::stream_chunk(StreamId stream, std::uint64_t chunk) const {
  const auto found = streams_.find(stream);
  if (found != streams_.end() && chunk < found->second.chunks.size() && found->second.chunks[chunk])
    return found->second.chunks[chunk];
  const auto value = database_.get(Family::Streams, chunk_key(stream, chunk));
  if (!value) throw Error{{ErrorKind::State}, "a chunk of a streamed transaction is missing from the state directory"};
  const Bytes bytes = as_bytes(*value);
  return std::make_shared<const std::vector<std::byte>>(bytes.begin(), bytes.end());
}

void Spool::rewind() {
  cursor_ = 0;
  broken_off_ = false;
}

void Spool::forget_front() {
  Entry& front = entries_.front();
  if (front.on_disk) {
    database_.erase(Family::Blocks, key_of(front.sequence), Durability::Logged);
    disk_bytes_ -= front.bytes;
  }
  if (front.stream) erase_stream(*front.stream);
  forget_memory(front);
  entries_.pop_front();
}

// Before what is on disk begins there.
void Spool::record_begin() {
  if (recorded_begin_ == begin_lsn_) return;
  database_.put(Family::State, begin_key, begin_lsn_.to_string(), Durability::Logged);
  recorded_begin_ = begin_lsn_;
}

void Spool::release(Lsn lsn) {
  while (cursor_ > 0 && !entries_.empty() && entries_.front().needed_until <= lsn) {
    begin_lsn_ = std::max(begin_lsn_, entries_.front().needed_until);
    if (entries_.front().on_disk) record_begin();
    // A piece in the middle of a large transaction has an end LSN of zero but is needed until that transaction is
    // durable.
    forget_front();
    --cursor_;
  }
}

bool Spool::take_broken_off() {
  return std::exchange(broken_off_, false);
}

void Spool::clear(Lsn begin) {
  for (const Arriving& each : arriving()) drop_stream(each.stream);
  while (!entries_.empty()) forget_front();
  cursor_ = 0;
  end_lsn_ = Lsn{};
  begin_lsn_ = begin;
  broken_off_ = false;
}

}  // namespace walferry::store
