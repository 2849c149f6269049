#include "engine/stream/assembler.hpp"

#include <doctest/doctest.h>
#include <fmt/format.h>

#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "engine/error.hpp"
#include "tests/fuzz/pgoutput_encode.hpp"
#include "tests/unit/pgoutput_samples.hpp"
#include "tests/unit/state_dir.hpp"
#include "tests/unit/wire_bytes.hpp"

using namespace walferry;
using namespace walferry::store;

namespace {

using Script = std::vector<std::string>;

constexpr std::size_t block_bytes = std::size_t{256} << 10U;
constexpr std::size_t message_overhead = 4;  // the length before each message in a block

// A message as a line of a script: "begin 90", "relation 1 t", "insert 1 text", "commit 100".
std::string line_of(Bytes payload, bool in_stream) {
  const pgoutput::Message message = pgoutput::decode(payload, {.in_stream = in_stream});
  if (const auto* begin = std::get_if<pgoutput::Begin>(&message))
    return fmt::format("begin {}", begin->final_lsn.value);
  if (const auto* commit = std::get_if<pgoutput::Commit>(&message))
    return fmt::format("commit {}", commit->end_lsn.value);
  if (const auto* relation = std::get_if<pgoutput::RelationView>(&message)) {
    return fmt::format("relation {} {}", static_cast<std::uint32_t>(relation->id), relation->name);
  }
  if (const auto* insert = std::get_if<pgoutput::InsertView>(&message)) {
    const std::string text{as_text((*insert->row.begin()).value)};
    return fmt::format("insert {} {}", static_cast<std::uint32_t>(insert->relation),
                       text.size() > 20 ? fmt::format("{} bytes", text.size()) : text);
  }
  if (const auto* truncate = std::get_if<pgoutput::TruncateView>(&message)) {
    std::string line = "truncate";
    for (const RelationId id : truncate->relations) line += fmt::format(" {}", static_cast<std::uint32_t>(id));
    return line;
  }
  if (const auto* marker = std::get_if<pgoutput::LogicalMessageView>(&message)) {
    return fmt::format("message {}", as_text(marker->content));
  }
  return fmt::format("tag {}", static_cast<char>(payload.front()));
}

Script script_of(Bytes messages, bool in_stream = false) {
  Script script;
  while (!messages.empty()) script.push_back(line_of(take_message(messages), in_stream));
  return script;
}

// A block can be decoded alone when each change is preceded, in the block, by the relation that it names.
void check_decodes_alone(const Block& block) {
  std::set<RelationId> described;
  Bytes rest = block.messages;
  while (!rest.empty()) {
    const pgoutput::Message message = pgoutput::decode(take_message(rest), {});
    if (const auto* relation = std::get_if<pgoutput::RelationView>(&message)) described.insert(relation->id);
    if (const auto* insert = std::get_if<pgoutput::InsertView>(&message)) CHECK(described.contains(insert->relation));
    if (const auto* update = std::get_if<pgoutput::UpdateView>(&message)) CHECK(described.contains(update->relation));
    if (const auto* remove = std::get_if<pgoutput::DeleteView>(&message)) CHECK(described.contains(remove->relation));
    if (const auto* truncate = std::get_if<pgoutput::TruncateView>(&message)) {
      for (const RelationId id : truncate->relations) CHECK(described.contains(id));
    }
  }
}

// A source that sends to an assembler, and the blocks that come out of it.
class Source {
 public:
  // --- outside streams
  Source& begin(std::uint64_t final) {
    return send(pgoutput::Begin{.final_lsn = Lsn{final}, .commit_time = {}, .xid = Xid{1}});
  }
  Source& commit(std::uint64_t end) {
    return send(pgoutput::Commit{.commit_lsn = Lsn{end - 10}, .end_lsn = Lsn{end}, .commit_time = {}});
  }
  Source& relation(std::uint32_t id, std::string_view name) {
    return send(pgoutput::RelationView{.stream_xid = stream_,
                                       .id = RelationId{id},
                                       .schema = "public",
                                       .name = name,
                                       .identity = pgoutput::ReplicaIdentity::Default,
                                       .columns = {{.key = true, .name = "id", .type = Oid{25}, .type_modifier = -1}}});
  }
  Source& insert(std::uint32_t id, std::string_view text) {
    std::vector<std::byte> fields;
    Writer out{fields};
    out.u8('t');
    out.u32(static_cast<std::uint32_t>(text.size()));
    out.bytes(as_bytes(text));
    return send(pgoutput::InsertView{.stream_xid = stream_, .relation = RelationId{id}, .row = {1, fields}});
  }
  Source& truncate(std::vector<RelationId> relations) {
    pgoutput::TruncateView message;
    message.stream_xid = stream_;
    message.relations = std::move(relations);
    return send(message);
  }
  Source& marker(std::string_view content) {
    return send(pgoutput::LogicalMessageView{.stream_xid = stream_,
                                             .transactional = true,
                                             .lsn = Lsn{1},
                                             .prefix = "walferry",
                                             .content = as_bytes(content)});
  }
  // A change so large that `left` bytes are missing to a full block; for the first block only.
  Source& fill_until(std::uint32_t id, std::size_t left) {
    constexpr std::size_t insert_overhead = message_overhead + 1 + 4 + 1 + 2 + 1 + 4;
    return insert(id, std::string(block_bytes - left - sent_bytes_ - insert_overhead, 'x'));
  }

  // --- streams
  Source& start(std::uint32_t xid, bool first = true) {
    send(pgoutput::StreamStart{.xid = Xid{xid}, .first_segment = first});
    stream_ = Xid{xid};
    return *this;
  }
  Source& again(std::uint32_t xid) { return start(xid, false); }
  Source& in_subtransaction(std::uint32_t subxid) {
    stream_ = Xid{subxid};
    return *this;
  }
  Source& stop() {
    stream_.reset();
    return send(pgoutput::StreamStop{});
  }
  Source& stream_commit(std::uint32_t xid, std::uint64_t end) {
    return send(pgoutput::StreamCommit{
        .xid = Xid{xid}, .commit_lsn = Lsn{end - 10}, .end_lsn = Lsn{end}, .commit_time = PgTime{7}});
  }
  Source& stream_abort(std::uint32_t xid, std::uint32_t subxid) {
    return send(pgoutput::StreamAbort{.xid = Xid{xid}, .subxid = Xid{subxid}, .abort_lsn = {}, .abort_time = {}});
  }

  Source& sample(std::string_view name) { return raw(test::wire(test::pgoutput_sample(name).notation)); }
  Source& raw(Bytes payload) {
    assembler.accept(payload);
    return *this;
  }
  bool refuses(std::string_view sample_name) {
    const std::vector<std::byte> payload = test::wire(test::pgoutput_sample(sample_name).notation);
    try {
      assembler.accept(payload);
      return false;
    } catch (const ProtocolError&) {
      return true;
    }
  }
  Source& flush() {
    assembler.flush();
    return *this;
  }
  // As after a lost connection.
  Source& reconnect() {
    stream_.reset();
    spool.discard_incomplete();
    assembler.reset();
    return *this;
  }

  // The next block, which decodes alone whatever it holds.
  std::shared_ptr<const Block> block() {
    auto next = spool.next();
    REQUIRE(next != nullptr);
    check_decodes_alone(*next);
    return next;
  }
  Script next_script() { return script_of(block()->messages); }
  Script streamed(const Block& block) {
    Script script;
    for (std::uint64_t chunk = 0; chunk < block.streamed.chunks; ++chunk) {
      const store::Chunk value = spool.stream_chunk(block.streamed.stream, chunk);
      for (std::string& line : script_of(*value, true)) script.push_back(std::move(line));
    }
    return script;
  }

 private:
  Source& send(const pgoutput::Message& message) {
    const std::vector<std::byte> payload = test::encode(message);
    sent_bytes_ += message_overhead + payload.size();
    return raw(payload);
  }

  test::StateDir dir_;
  Database database_ = Database::open(dir_.path(), Access::ReadWrite);
  std::optional<Xid> stream_;
  std::size_t sent_bytes_ = 0;

 public:
  Spool spool{database_, {}};
  stream::Assembler assembler{spool};
};

}  // namespace

TEST_CASE("complete transactions are handed over when nothing more is at hand") {
  Source source;
  source.begin(90).relation(1, "t").insert(1, "a").commit(100);
  CHECK(source.spool.empty());
  source.begin(190).insert(1, "b").commit(200).flush();
  const auto block = source.block();
  CHECK(script_of(block->messages) ==
        Script{"begin 90", "relation 1 t", "insert 1 a", "commit 100", "begin 190", "insert 1 b", "commit 200"});
  CHECK(block->kind == Block::Kind::Messages);
  CHECK(block->complete_bytes == block->messages.size());
  CHECK(block->end_lsn == Lsn{200});
  CHECK_FALSE(block->ends_open());
  CHECK_FALSE(source.spool.has_next());
}

TEST_CASE("a flush without a complete transaction waits for its commit") {
  Source source;
  source.flush().begin(90).relation(1, "t").insert(1, "a").flush();
  CHECK(source.assembler.in_transaction());
  CHECK(source.spool.empty());
  source.commit(100);
  CHECK_FALSE(source.assembler.in_transaction());
  source.flush();
  CHECK(source.next_script() == Script{"begin 90", "relation 1 t", "insert 1 a", "commit 100"});
}

TEST_CASE("a flush in the middle of a transaction says where the complete ones end") {
  Source source;
  source.begin(90).relation(1, "t").insert(1, "a").commit(100).begin(190).insert(1, "b").flush();
  const auto first = source.block();
  CHECK(first->end_lsn == Lsn{100});
  CHECK(first->open_final_lsn == Lsn{190});
  CHECK(script_of(Bytes{first->messages}.first(first->complete_bytes)) ==
        Script{"begin 90", "relation 1 t", "insert 1 a", "commit 100"});
  CHECK(script_of(Bytes{first->messages}.subspan(first->complete_bytes)) == Script{"begin 190", "insert 1 b"});
  source.insert(1, "c").commit(200).flush();
  const auto second = source.block();
  CHECK(script_of(second->messages) == Script{"relation 1 t", "insert 1 c", "commit 200"});
  CHECK(second->end_lsn == Lsn{200});
  CHECK_FALSE(second->ends_open());
}

TEST_CASE("a relation stands once in each block, before the first change that needs it") {
  Source source;
  source.begin(90).relation(1, "t").relation(2, "unused").insert(1, "a").insert(1, "b").commit(100).flush();
  source.begin(190).insert(2, "c").insert(1, "d").insert(2, "e").commit(200).flush();
  CHECK(source.next_script() == Script{"begin 90", "relation 1 t", "insert 1 a", "insert 1 b", "commit 100"});
  CHECK(source.next_script() == Script{"begin 190", "relation 2 unused", "insert 2 c", "relation 1 t", "insert 1 d",
                                       "insert 2 e", "commit 200"});
}

TEST_CASE("a relation that changed is described again in the same block") {
  Source source;
  source.begin(90).relation(1, "t").insert(1, "a").commit(100);
  source.begin(190).relation(1, "renamed").insert(1, "b").commit(200).flush();
  CHECK(source.next_script() == Script{"begin 90", "relation 1 t", "insert 1 a", "commit 100", "begin 190",
                                       "relation 1 renamed", "insert 1 b", "commit 200"});
}

TEST_CASE("a truncate has all of its relations before it") {
  Source source;
  source.begin(90).relation(1, "t").relation(2, "u").insert(1, "a");
  source.truncate({RelationId{1}, RelationId{2}}).commit(100).flush();
  CHECK(source.next_script() ==
        Script{"begin 90", "relation 1 t", "insert 1 a", "relation 2 u", "truncate 1 2", "commit 100"});
}

TEST_CASE("updates and deletes as PostgreSQL sends them are routed like inserts") {
  Source source;
  source.sample("begin").sample("relation").sample("relation_identity_full");
  source.sample("update_new_key").sample("delete_made_full").sample("commit").flush();
  CHECK(source.block()->end_lsn == Lsn{0x15480C0});
}

TEST_CASE("types, origins and messages outside a transaction are left out; a marker inside stays in its place") {
  Source source;
  source.sample("message_non_transactional").begin(90).sample("origin").sample("type").relation(1, "t");
  source.insert(1, "a").marker("fence").insert(1, "b").commit(100).flush();
  CHECK(source.next_script() ==
        Script{"begin 90", "relation 1 t", "insert 1 a", "message fence", "insert 1 b", "commit 100"});
}

TEST_CASE("an empty transaction is complete") {
  Source source;
  source.begin(90).commit(100).flush();
  CHECK(source.block()->end_lsn == Lsn{100});
}

TEST_CASE("a large transaction is split into open blocks that hold all of it, in order") {
  Source source;
  const std::string text(std::size_t{10} << 10U, 'x');
  source.begin(90).relation(1, "t").insert(1, "small").commit(100);
  source.begin(890);
  for (int i = 0; i < 100; ++i) source.insert(1, std::to_string(i)).insert(1, text);
  CHECK(source.spool.end_lsn() == Lsn{100});
  source.commit(900).flush();
  CHECK(source.spool.end_lsn() == Lsn{900});

  Script inserted;
  int blocks = 0;
  while (source.spool.has_next()) {
    const auto block = source.block();
    ++blocks;
    CHECK(block->messages.size() < block_bytes + text.size() + 100);
    const bool last = !source.spool.has_next();
    CHECK(block->ends_open() == !last);
    if (!last) CHECK(block->open_final_lsn == Lsn{890});
    CHECK(block->end_lsn == Lsn{blocks == 1 ? std::uint64_t{100} : last ? std::uint64_t{900} : std::uint64_t{0}});
    CHECK((block->complete_bytes > 0) == (blocks == 1 || last));
    for (std::string& line : script_of(block->messages)) {
      if (line.starts_with("insert")) inserted.push_back(std::move(line));
    }
  }
  CHECK(blocks >= 4);
  REQUIRE(inserted.size() == 201);
  CHECK(inserted.front() == "insert 1 small");
  for (std::size_t i = 0; i < 100; ++i) CHECK(inserted[1 + 2 * i] == fmt::format("insert 1 {}", i));
}

TEST_CASE("a transaction is complete whichever of its messages fills the block") {
  // Commit takes 4 + 26 bytes: around there it is the one that fills the block.
  for (const std::size_t left : {0U, 1U, 15U, 29U, 30U, 31U, 1'000U}) {
    CAPTURE(left);
    Source source;
    source.begin(90).relation(1, "t").fill_until(1, left).commit(100).flush();
    CHECK(source.spool.end_lsn() == Lsn{100});
    CHECK(source.spool.sync() == Lsn{100});
    // What was confirmed survives a lost connection, and a transaction begun behind it.
    source.begin(190).insert(1, "unfinished").reconnect();
    CHECK(source.spool.end_lsn() == Lsn{100});
    Script script;
    bool ends_open = false;
    while (source.spool.has_next()) {
      const auto block = source.block();
      ends_open = block->ends_open();
      for (std::string& line : script_of(block->messages)) script.push_back(std::move(line));
    }
    CHECK_FALSE(ends_open);
    REQUIRE_FALSE(script.empty());
    CHECK(script.front() == "begin 90");
    CHECK(script.back() == "commit 100");
  }
}

TEST_CASE("a confirmed transaction whose commit filled its block is not cut off with the large one behind it") {
  Source source;
  source.begin(90).relation(1, "t").fill_until(1, 10).commit(100);
  source.begin(890).insert(1, std::string(block_bytes, 'x'));
  const Lsn confirmed = source.spool.sync();
  source.reconnect();
  CHECK(source.spool.sync() >= confirmed);
  CHECK(source.spool.end_lsn() == Lsn{100});
  Script script;
  while (source.spool.has_next()) {
    for (std::string& line : source.next_script()) script.push_back(std::move(line));
  }
  REQUIRE(script.size() == 4);
  CHECK(script.back() == "commit 100");
}

TEST_CASE("a streamed transaction is kept apart and stands at the place of its commit") {
  Source source;
  source.start(700).relation(1, "t").insert(1, "s1").stop();
  source.begin(90).relation(1, "t").insert(1, "a").commit(100);
  source.again(700).insert(1, "s2").stop();
  source.stream_commit(700, 200);
  source.begin(290).insert(1, "b").commit(300).flush();

  CHECK(source.next_script() == Script{"begin 90", "relation 1 t", "insert 1 a", "commit 100"});
  const auto streamed = source.block();
  CHECK(streamed->kind == Block::Kind::StreamedCommit);
  CHECK(streamed->end_lsn == Lsn{200});
  CHECK(streamed->streamed.xid == Xid{700});
  CHECK(streamed->streamed.commit_lsn == Lsn{190});
  CHECK(streamed->streamed.end_lsn == Lsn{200});
  CHECK(streamed->streamed.commit_time == PgTime{7});
  CHECK(streamed->streamed.aborted.empty());
  CHECK(source.streamed(*streamed) == Script{"relation 1 t", "insert 1 s1", "insert 1 s2"});
  CHECK(source.next_script() == Script{"begin 290", "relation 1 t", "insert 1 b", "commit 300"});
}

TEST_CASE("streams that are interleaved, with rolled-back subtransactions, do not mix") {
  Source source;
  source.start(700).relation(1, "t").insert(1, "700 a").in_subtransaction(701).insert(1, "701").stop();
  source.start(800).relation(1, "t").insert(1, "800 a").in_subtransaction(801).insert(1, "801").stop();
  source.stream_abort(700, 701);
  source.again(700).insert(1, "700 b").in_subtransaction(702).insert(1, "702").stop();
  source.stream_abort(800, 801);
  source.stream_abort(700, 702);
  source.again(800).insert(1, "800 b").stop();
  source.stream_commit(800, 200).stream_commit(700, 300);

  const auto first = source.block();
  CHECK(first->streamed.xid == Xid{800});
  CHECK(first->streamed.aborted == std::vector{Xid{801}});
  CHECK(source.streamed(*first) == Script{"relation 1 t", "insert 1 800 a", "insert 1 801", "insert 1 800 b"});
  const auto second = source.block();
  CHECK(second->streamed.xid == Xid{700});
  CHECK(second->streamed.aborted == std::vector{Xid{701}, Xid{702}});
  CHECK(source.streamed(*second) ==
        Script{"relation 1 t", "insert 1 700 a", "insert 1 701", "insert 1 700 b", "insert 1 702"});
}

TEST_CASE("changes of a stream keep the subtransaction they belong to") {
  Source source;
  source.start(700).relation(1, "t").in_subtransaction(701).insert(1, "x").stop().stream_commit(700, 200);
  const auto block = source.block();
  const store::Chunk chunk = source.spool.stream_chunk(block->streamed.stream, 0);
  Bytes rest = *chunk;
  static_cast<void>(take_message(rest));
  const pgoutput::Message message = pgoutput::decode(take_message(rest), {.in_stream = true});
  CHECK(std::get<pgoutput::InsertView>(message).stream_xid == Xid{701});
}

TEST_CASE("a relation that no change of a stream names does not come into it") {
  // Of a partition that is carried by its root the description comes all the same.
  Source source;
  source.start(700)
      .relation(1, "root")
      .relation(2, "leaf")
      .relation(3, "other")
      .insert(1, "a")
      .truncate({RelationId{3}});
  source.insert(1, "b").stop().stream_commit(700, 200);
  source.begin(290).insert(2, "c").commit(300).flush();
  CHECK(source.streamed(*source.block()) ==
        Script{"relation 1 root", "insert 1 a", "relation 3 other", "truncate 3", "insert 1 b"});
  CHECK(source.next_script() == Script{"begin 290", "relation 2 leaf", "insert 2 c", "commit 300"});
}

TEST_CASE("a streamed transaction that is rolled back leaves nothing") {
  Source source;
  source.start(700).relation(1, "t").insert(1, std::string(2 * block_bytes, 'x')).stop().stream_abort(700, 700);
  CHECK(source.spool.empty());
  CHECK_THROWS_AS(source.stream_commit(700, 200), ProtocolError);
  // The same transaction id is not open any more.
  CHECK_THROWS_AS(source.again(700), ProtocolError);
}

TEST_CASE("the relations of a rolled-back stream are not known outside it") {
  Source source;
  source.start(700).relation(1, "t").insert(1, "x").stop().stream_abort(700, 700).begin(90);
  CHECK_THROWS_AS(source.insert(1, "a"), ProtocolError);
}

TEST_CASE("the rollback of a stream whose changes were never sent is no error") {
  Source source;
  source.stream_abort(700, 700).stream_abort(700, 701);
  CHECK(source.spool.empty());
}

TEST_CASE("a relation of a stream is unknown outside it before the commit and stands after it") {
  Source source;
  source.start(700).relation(1, "streamed").insert(1, "s").stop().begin(90);
  CHECK_THROWS_AS(source.insert(1, "a"), ProtocolError);
  source.commit(100).stream_commit(700, 200);
  source.begin(290).insert(1, "b").commit(300).flush();
  static_cast<void>(source.block());
  static_cast<void>(source.block());
  CHECK(source.next_script() == Script{"begin 290", "relation 1 streamed", "insert 1 b", "commit 300"});
}

TEST_CASE("a relation first described in a rolled-back subtransaction stands after the commit of its transaction") {
  // pgoutput marks a relation as sent for the whole streamed transaction, whichever subtransaction it was sent in.
  Source source;
  source.start(700).in_subtransaction(701).relation(1, "t").insert(1, "s").stop();
  source.stream_abort(700, 701).stream_commit(700, 200);
  source.begin(290).insert(1, "b").commit(300).flush();
  static_cast<void>(source.block());
  CHECK(source.next_script() == Script{"begin 290", "relation 1 t", "insert 1 b", "commit 300"});
}

TEST_CASE("of a relation of a stream and an ordinary one the newer stands") {
  Source source;
  source.start(700).relation(1, "of the stream").insert(1, "s").stop();
  SUBCASE("the ordinary one came later") {
    source.begin(90).relation(1, "ordinary").insert(1, "a").commit(100).stream_commit(700, 200);
    source.begin(290).insert(1, "b").commit(300).flush();
    static_cast<void>(source.block());
    static_cast<void>(source.block());
    CHECK(source.next_script() == Script{"begin 290", "relation 1 ordinary", "insert 1 b", "commit 300"});
  }
  SUBCASE("the stream described it once more") {
    source.begin(90).relation(1, "ordinary").insert(1, "a").commit(100);
    source.again(700).relation(1, "of the stream, again").insert(1, "s2").stop().stream_commit(700, 200);
    source.begin(290).insert(1, "b").commit(300).flush();
    static_cast<void>(source.block());
    static_cast<void>(source.block());
    CHECK(source.next_script() == Script{"begin 290", "relation 1 of the stream, again", "insert 1 b", "commit 300"});
  }
}

TEST_CASE("after a new connection everything begins again") {
  Source source;
  source.begin(90).relation(1, "t").insert(1, "a").commit(100).flush();
  source.start(700).relation(1, "t").insert(1, "s").stop();
  source.begin(190).insert(1, "unfinished").reconnect();
  CHECK_FALSE(source.assembler.in_transaction());
  CHECK_THROWS_AS(source.insert(1, "not described on this connection"), ProtocolError);
  CHECK_THROWS_AS(source.again(700), ProtocolError);
  source.reconnect();
  source.start(700).relation(1, "t").insert(1, "s").stop().stream_commit(700, 150);
  source.begin(190).relation(1, "t").insert(1, "b").commit(200).flush();
  CHECK(source.next_script() == Script{"begin 90", "relation 1 t", "insert 1 a", "commit 100"});
  const auto streamed = source.block();
  CHECK(source.streamed(*streamed) == Script{"relation 1 t", "insert 1 s"});
  CHECK(source.next_script() == Script{"begin 190", "relation 1 t", "insert 1 b", "commit 200"});
}

TEST_CASE("what walferry did not ask for is refused") {
  for (const std::string_view sample :
       {"begin_prepare", "prepare", "stream_prepare", "commit_prepared", "rollback_prepared", "stream_stop",
        "stream_commit", "stream_start_again", "insert_text", "update_new_key", "delete_by_key", "truncate"}) {
    CAPTURE(sample);
    Source source;
    CHECK(source.refuses(sample));
    CHECK(source.spool.empty());
  }
}

TEST_CASE("a stream that is started twice is refused") {
  Source source;
  source.start(700).stop();
  CHECK_THROWS_AS(source.start(700), ProtocolError);
}

TEST_CASE("empty and torn payloads and unknown tags are refused") {
  Source source;
  CHECK_THROWS_AS(source.raw({}), ProtocolError);
  CHECK_THROWS_AS(source.raw(test::wire("'?'")), ProtocolError);
  CHECK_THROWS_AS(source.raw(test::wire("'I' 0000")), ProtocolError);
  CHECK_THROWS_AS(source.raw(test::wire("'B' 0000000000000001")), ProtocolError);
}

TEST_CASE("messages that cannot stand inside a stream are refused there") {
  for (const std::string_view sample :
       {"begin", "commit", "stream_start_first", "stream_commit", "stream_abort", "prepare"}) {
    CAPTURE(sample);
    Source source;
    source.start(700);
    CHECK(source.refuses(sample));
  }
  Source source;
  source.start(700);
  CHECK_THROWS_AS(source.raw({}), ProtocolError);
  CHECK_THROWS_AS(source.raw(test::wire("'?'")), ProtocolError);
}
