#include "engine/stream/assembler.hpp"

#include <string_view>
#include <utility>

namespace walferry::stream {
namespace {

constexpr std::size_t block_bytes = std::size_t{256} << 10U;

char tag_of(Bytes payload) {
  return payload.empty() ? '\0' : static_cast<char>(payload.front());
}

// The relation of an Insert, Update or Delete; in a stream the xid stands before it.
RelationId relation_of(Bytes payload, bool in_stream = false) {
  Reader in{payload.subspan(1)};
  if (in_stream) static_cast<void>(in.u32("xid of a change"));
  return RelationId{in.u32("relation of a change")};
}

}  // namespace

void Assembler::reset() {
  block_ = {};
  ++block_number_;
  open_final_lsn_ = Lsn{};
  relations_.clear();
  streams_.clear();
  current_stream_ = nullptr;
}

void Assembler::accept(Bytes payload) {
  const char tag = tag_of(payload);
  if (current_stream_ != nullptr && tag != 'E') {
    accept_in_stream(payload);
    return;
  }
  switch (tag) {
    case 'I':
    case 'U':
    case 'D':
      ensure_relation(relation_of(payload));
      append(payload);
      return;
    default:
      accept_control(payload);
  }
}

void Assembler::accept_control(Bytes payload) {
  const pgoutput::Message message = pgoutput::decode(payload, {});
  if (const auto* begin = std::get_if<pgoutput::Begin>(&message)) {
    open_final_lsn_ = begin->final_lsn;
    append(payload);
  } else if (const auto* commit = std::get_if<pgoutput::Commit>(&message)) {
    // Not append(), which may cut the block: here the transaction ends, and its end belongs to the block that holds it.
    store::append_message(block_.messages, payload);
    open_final_lsn_ = Lsn{};
    block_.end_lsn = commit->end_lsn;
    block_.complete_bytes = block_.messages.size();
    if (block_.messages.size() >= block_bytes / 2) seal();
  } else if (const auto* relation = std::get_if<pgoutput::RelationView>(&message)) {
    KnownRelation& known = relations_[static_cast<std::uint32_t>(relation->id)];
    known.message.assign(payload.begin(), payload.end());
    known.order = ++order_;
    known.in_block = 0;
  } else if (const auto* truncate = std::get_if<pgoutput::TruncateView>(&message)) {
    for (const RelationId id : truncate->relations) ensure_relation(id);
    append(payload);
  } else if (std::get_if<pgoutput::LogicalMessageView>(&message) != nullptr) {
    // A non-transactional message stands outside Begin and Commit; nothing of walferry's is sent that way.
    if (in_transaction()) append(payload);
  } else if (const auto* start = std::get_if<pgoutput::StreamStart>(&message)) {
    auto [found, opened] = streams_.try_emplace(start->xid);
    if (opened != start->first_segment)
      throw ProtocolError{"Stream Start: the segment does not fit what was received before"};
    if (opened) found->second.id = spool_.open_stream(start->xid);
    flush();  // what committed before this piece can be applied before it
    current_stream_ = &found->second;
  } else if (std::get_if<pgoutput::StreamStop>(&message) != nullptr) {
    if (current_stream_ == nullptr) throw ProtocolError{"Stream Stop: no stream is open"};
    current_stream_ = nullptr;
  } else if (const auto* stream_commit = std::get_if<pgoutput::StreamCommit>(&message)) {
    commit_stream(*stream_commit);
  } else if (const auto* abort = std::get_if<pgoutput::StreamAbort>(&message)) {
    abort_stream(*abort);
  } else if (std::get_if<pgoutput::TypeView>(&message) != nullptr ||
             std::get_if<pgoutput::Origin>(&message) != nullptr) {
    // Type: values travel as text and are read by the target's own types. Origin: every origin is migrated alike.
  } else {
    throw ProtocolError{"a two-phase message arrived although two_phase was not asked for"};
  }
}

void Assembler::accept_in_stream(Bytes payload) {
  if (std::string_view{"RYIUDTMO"}.find(tag_of(payload)) == std::string_view::npos) {
    throw ProtocolError{"a message arrived inside a stream that cannot stand there"};
  }
  if (tag_of(payload) == 'R') {
    const pgoutput::Message message = pgoutput::decode(payload, {.in_stream = true});
    const auto& relation = std::get<pgoutput::RelationView>(message);
    // Kept without its xid: outside the stream, after its commit, it stands for later changes.
    KnownRelation& known = current_stream_->relations[relation.id];
    known.message.assign(payload.begin(), payload.begin() + 1);
    known.message.insert(known.message.end(), payload.begin() + 5, payload.end());
    known.order = ++order_;
    current_stream_->unused[relation.id].assign(payload.begin(), payload.end());
    return;
  }
  if (tag_of(payload) == 'Y' || tag_of(payload) == 'O') return;
  if (tag_of(payload) == 'T') {
    const pgoutput::Message message = pgoutput::decode(payload, {.in_stream = true});
    for (const RelationId id : std::get<pgoutput::TruncateView>(message).relations) use_in_stream(id);
  } else if (tag_of(payload) != 'M') {
    use_in_stream(relation_of(payload, true));
  }
  spool_.append_stream(current_stream_->id, payload);
}

void Assembler::use_in_stream(RelationId relation) {
  const auto description = current_stream_->unused.find(relation);
  if (description == current_stream_->unused.end()) return;
  spool_.append_stream(current_stream_->id, description->second);
  current_stream_->unused.erase(description);
}

void Assembler::commit_stream(const pgoutput::StreamCommit& commit) {
  const auto found = streams_.find(commit.xid);
  if (found == streams_.end()) throw ProtocolError{"Stream Commit: the transaction was never streamed"};
  Stream& stream = found->second;
  seal();  // what committed before it stays before it
  for (auto& [id, relation] : stream.relations) {
    KnownRelation& known = relations_[static_cast<std::uint32_t>(id)];
    if (known.order < relation.order) known = std::move(relation);
  }
  store::Block block;
  block.kind = store::Block::Kind::StreamedCommit;
  block.end_lsn = commit.end_lsn;
  block.streamed = {.stream = stream.id,
                    .xid = commit.xid,
                    .commit_lsn = commit.commit_lsn,
                    .end_lsn = commit.end_lsn,
                    .commit_time = commit.commit_time,
                    .chunks = spool_.close_stream(stream.id),
                    .aborted = std::move(stream.aborted)};
  streams_.erase(found);
  spool_.append(std::move(block));
}

void Assembler::abort_stream(const pgoutput::StreamAbort& abort) {
  const auto found = streams_.find(abort.xid);
  // A transaction whose first segment was never sent can still be reported as aborted.
  if (found == streams_.end()) return;
  if (abort.subxid != abort.xid) {
    found->second.aborted.push_back(abort.subxid);
    spool_.roll_back_part(found->second.id);
    return;
  }
  spool_.drop_stream(found->second.id);
  streams_.erase(found);
}

void Assembler::ensure_relation(RelationId relation) {
  const auto found = relations_.find(static_cast<std::uint32_t>(relation));
  if (found == relations_.end()) throw ProtocolError{"a change names a relation that was not described before"};
  KnownRelation& known = found->second;
  if (known.in_block == block_number_) return;
  store::append_message(block_.messages, known.message);
  known.in_block = block_number_;
}

void Assembler::append(Bytes payload) {
  store::append_message(block_.messages, payload);
  if (block_.messages.size() >= block_bytes && in_transaction()) seal();
}

void Assembler::flush() {
  if (block_.complete_bytes > 0) seal();
}

void Assembler::seal() {
  if (block_.messages.empty()) return;
  block_.open_final_lsn = open_final_lsn_;
  spool_.append(std::exchange(block_, {}));
  ++block_number_;
}

}  // namespace walferry::stream
