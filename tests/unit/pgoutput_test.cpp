#include "protocol/pgoutput.hpp"

#include <doctest/doctest.h>

#include <string>
#include <variant>
#include <vector>

#include "tests/fuzz/pgoutput_encode.hpp"
#include "tests/unit/pgoutput_samples.hpp"
#include "tests/unit/wire_bytes.hpp"

namespace walferry::pgoutput {
namespace {

using test::hex;
using test::pgoutput_sample;
using test::pgoutput_samples;
using test::PgoutputSample;
using test::wire;

constexpr DecodeContext plain{};
constexpr DecodeContext in_stream{.in_stream = true, .abort_has_lsn = false};

constexpr RelationId relation_t{0x400A};
constexpr RelationId relation_f{0x4011};
constexpr Xid stream_xid{0x2E3};

// A decoded message together with the bytes it points into.
template <typename Expected>
struct Decoded {
  std::vector<std::byte> bytes;
  Expected message;

  const Expected* operator->() const { return &message; }
};

template <typename Expected>
Decoded<Expected> decode_sample(std::string_view name) {
  const PgoutputSample& sample = pgoutput_sample(name);
  Decoded<Expected> decoded{.bytes = wire(sample.notation), .message = {}};
  decoded.message = std::get<Expected>(decode(decoded.bytes, sample.context));
  return decoded;
}

std::string error_of(std::string_view notation, DecodeContext context) {
  const auto bytes = wire(notation);
  try {
    static_cast<void>(decode(bytes, context));
  } catch (const ProtocolError& error) {
    return error.what();
  }
  return "no error";
}

// A tuple as one readable line: n and u stand for themselves, values carry their kind.
std::string describe(const TupleView& tuple) {
  std::string line;
  for (const FieldView field : tuple) {
    if (!line.empty()) line += ' ';
    line += static_cast<char>(field.kind);
    if (field.kind == FieldKind::Text) line += ":" + std::string(as_text(field.value));
    if (field.kind == FieldKind::Binary) line += ":" + hex(field.value);
  }
  return line;
}

TEST_CASE("every sample decodes and is written back byte for byte") {
  for (const PgoutputSample& sample : pgoutput_samples()) {
    CAPTURE(sample.name);
    const auto bytes = wire(sample.notation);
    CHECK(hex(test::encode(decode(bytes, sample.context))) == hex(bytes));
  }
}

TEST_CASE("the samples hold every message") {
  std::vector<bool> seen(std::variant_size_v<Message>);
  for (const PgoutputSample& sample : pgoutput_samples()) {
    seen[decode(wire(sample.notation), sample.context).index()] = true;
  }
  for (std::size_t index = 0; index < seen.size(); ++index) {
    CAPTURE(index);
    CHECK(seen[index]);
  }
}

TEST_CASE("every proper prefix of every message is refused") {
  for (const PgoutputSample& sample : pgoutput_samples()) {
    CAPTURE(sample.name);
    const auto bytes = wire(sample.notation);
    for (std::size_t length = 0; length < bytes.size(); ++length) {
      CAPTURE(length);
      CHECK_THROWS_AS(static_cast<void>(decode(Bytes(bytes).first(length), sample.context)), ProtocolError);
    }
  }
}

TEST_CASE("a byte after any message is refused") {
  for (const PgoutputSample& sample : pgoutput_samples()) {
    CAPTURE(sample.name);
    auto bytes = wire(sample.notation);
    bytes.push_back(std::byte{0});
    CHECK_THROWS_AS(static_cast<void>(decode(bytes, sample.context)), ProtocolError);
  }
  CHECK(error_of("'E' 00", plain) == "Stream Stop: 1 bytes after its end");
}

TEST_CASE("an unknown tag is refused") {
  constexpr std::string_view known = "BCORYIUDTMSEcAbPpKr";
  for (int tag = 0; tag < 256; ++tag) {
    if (known.find(static_cast<char>(tag)) != std::string_view::npos) continue;
    CAPTURE(tag);
    auto bytes = wire(pgoutput_sample("begin").notation);
    bytes[0] = static_cast<std::byte>(tag);
    CHECK_THROWS_AS(static_cast<void>(decode(bytes, plain)), ProtocolError);
  }
  CHECK(error_of("'X'", plain) == "pgoutput: unknown tag 'X'");
  CHECK(error_of("80", plain) == "pgoutput: unknown tag 0x80");
  CHECK(error_of("", plain) == "pgoutput tag: needs 1 bytes, 0 left");
}

TEST_CASE("Begin carries the commit record's start, the commit time and the xid") {
  const auto begin = decode_sample<Begin>("begin");
  CHECK(begin->final_lsn == Lsn{0x1548090});
  CHECK(begin->commit_time == PgTime{0x303BC95BEEF10});
  CHECK(begin->xid == Xid{0x2DD});
}

TEST_CASE("Commit keeps the commit LSN apart from the end LSN") {
  const auto commit = decode_sample<Commit>("commit");
  CHECK(commit->commit_lsn == Lsn{0x1548090});
  CHECK(commit->end_lsn == Lsn{0x15480C0});
  CHECK(commit->commit_time == PgTime{0x303BC95BEEF10});
}

TEST_CASE("Origin carries the commit LSN of the first source and the origin's name") {
  const auto origin = decode_sample<Origin>("origin");
  CHECK(origin->origin_lsn == Lsn{0x16'B374'D848});
  CHECK(origin->name == "other");
}

TEST_CASE("Relation carries names, identity and columns in order") {
  const auto relation = decode_sample<RelationView>("relation");
  CHECK_FALSE(relation->stream_xid.has_value());
  CHECK(relation->id == relation_t);
  CHECK(relation->schema == "public");
  CHECK(relation->name == "t");
  CHECK(relation->identity == ReplicaIdentity::Default);
  REQUIRE(relation->columns.size() == 3);
  CHECK(relation->columns[0].key);
  CHECK(relation->columns[0].name == "id");
  CHECK(relation->columns[0].type == Oid{23});
  CHECK(relation->columns[0].type_modifier == -1);
  CHECK_FALSE(relation->columns[1].key);
  CHECK(relation->columns[1].name == "body");
  CHECK(relation->columns[2].type == Oid{0x4002});
}

TEST_CASE("a relation may have no columns, and the schema pg_catalog is sent empty") {
  CHECK(decode_sample<RelationView>("relation_without_columns")->columns.empty());
  const auto catalog = decode_sample<RelationView>("relation_made_catalog_schema");
  CHECK(catalog->schema.empty());
  CHECK(catalog->columns.at(0).type_modifier == 0x80006);
}

TEST_CASE("all four replica identities are known and no fifth") {
  struct Case {
    std::string_view notation;
    ReplicaIdentity identity;
  };
  for (const Case& c : {Case{"'R' 00000001 's' 00 't' 00 'd' 0000", ReplicaIdentity::Default},
                        Case{"'R' 00000001 's' 00 't' 00 'n' 0000", ReplicaIdentity::Nothing},
                        Case{"'R' 00000001 's' 00 't' 00 'f' 0000", ReplicaIdentity::Full},
                        Case{"'R' 00000001 's' 00 't' 00 'i' 0000", ReplicaIdentity::Index}}) {
    CHECK(std::get<RelationView>(decode(wire(c.notation), plain)).identity == c.identity);
  }
  CHECK(error_of("'R' 00000001 's' 00 't' 00 'x' 0000", plain) == "Relation replica identity: unknown letter 'x'");
}

TEST_CASE("Type carries the oid and name of a type") {
  const auto type = decode_sample<TypeView>("type");
  CHECK(type->id == Oid{0x4002});
  CHECK(type->schema == "app");
  CHECK(type->name == "mood");
}

TEST_CASE("Insert carries a row, as text or binary") {
  const auto text = decode_sample<InsertView>("insert_text");
  CHECK(text->relation == relation_t);
  CHECK(text->row.column_count() == 3);
  CHECK(describe(text->row) == "t:1 t:h\xC3\xA9llo t:ok");
  CHECK(describe(decode_sample<InsertView>("insert_binary")->row) == "b:00000001 b:68c3a96c6c6f b:6f6b");
}

TEST_CASE("NULL and empty text differ, and a row may have no columns") {
  CHECK(describe(decode_sample<InsertView>("insert_nulls")->row) == "t:2 n n");
  CHECK(describe(decode_sample<InsertView>("insert_made_empty_text")->row) == "t:");
  const auto no_columns = decode_sample<InsertView>("insert_without_columns");
  CHECK(no_columns->row.column_count() == 0);
  CHECK(no_columns->row.begin() == no_columns->row.end());
}

TEST_CASE("an update of other columns carries no old tuple") {
  const auto update = decode_sample<UpdateView>("update_same_key");
  CHECK(update->relation == relation_t);
  CHECK_FALSE(update->old.has_value());
  CHECK(describe(update->row) == "t:1 t:x t:ok");
}

TEST_CASE("an update of the key carries the old key") {
  const auto update = decode_sample<UpdateView>("update_new_key");
  REQUIRE(update->old.has_value());
  CHECK(update->old->kind == OldTupleKind::Key);
  CHECK(describe(update->old->tuple) == "t:1 n n");
  CHECK(describe(update->row) == "t:3 t:x t:ok");
}

TEST_CASE("an update under identity full carries the old row, and unchanged toast stays a kind of its own") {
  const auto update = decode_sample<UpdateView>("update_made_full_with_unchanged_toast");
  REQUIRE(update->old.has_value());
  CHECK(update->old->kind == OldTupleKind::Full);
  CHECK(describe(update->old->tuple) == "t:1 t:aaaa");
  CHECK(describe(update->row) == "t:2 u");
}

TEST_CASE("Delete carries the old key or the old row") {
  const auto by_key = decode_sample<DeleteView>("delete_by_key");
  CHECK(by_key->relation == relation_t);
  CHECK(by_key->old.kind == OldTupleKind::Key);
  CHECK(describe(by_key->old.tuple) == "t:3 n n");
  const auto full = decode_sample<DeleteView>("delete_made_full");
  CHECK(full->relation == relation_f);
  CHECK(full->old.kind == OldTupleKind::Full);
  CHECK(describe(full->old.tuple) == "t:2 t:aaaa");
}

TEST_CASE("Truncate carries its flags and all its relations") {
  const auto both = decode_sample<TruncateView>("truncate");
  CHECK(both->cascade);
  CHECK(both->restart_identity);
  CHECK(both->relations == std::vector{relation_t, relation_f});
  const auto neither = decode_sample<TruncateView>("truncate_made_without_flags");
  CHECK_FALSE(neither->cascade);
  CHECK_FALSE(neither->restart_identity);
  CHECK(std::get<TruncateView>(decode(wire("'T' 00000000 01"), plain)).cascade);
  CHECK(std::get<TruncateView>(decode(wire("'T' 00000000 02"), plain)).restart_identity);
}

TEST_CASE("a logical message carries its place, prefix and content, and whether it belongs to a transaction") {
  const auto message = decode_sample<LogicalMessageView>("message");
  CHECK(message->transactional);
  CHECK(message->lsn == Lsn{0x154CAA0});
  CHECK(message->prefix == "walferry");
  CHECK(as_text(message->content) == "marker 1");
  const auto alone = decode_sample<LogicalMessageView>("message_non_transactional");
  CHECK_FALSE(alone->transactional);
  CHECK(alone->content.empty());
}

TEST_CASE("Stream Start tells the first segment from the later ones") {
  const auto first = decode_sample<StreamStart>("stream_start_first");
  CHECK(first->xid == stream_xid);
  CHECK(first->first_segment);
  CHECK_FALSE(decode_sample<StreamStart>("stream_start_again")->first_segment);
}

TEST_CASE("Stream Commit carries what Commit does, and the xid") {
  const auto commit = decode_sample<StreamCommit>("stream_commit");
  CHECK(commit->xid == stream_xid);
  CHECK(commit->commit_lsn == Lsn{0x15F2EE8});
  CHECK(commit->end_lsn == Lsn{0x15F2F20});
  CHECK(commit->commit_time == PgTime{0x303BC95BF094E});
}

TEST_CASE("Stream Abort has LSN and time exactly when the stream was started with streaming parallel") {
  const auto without = decode_sample<StreamAbort>("stream_abort");
  CHECK(without->xid == stream_xid);
  CHECK(without->subxid == Xid{0x2E4});
  CHECK_FALSE(without->abort_lsn.has_value());
  CHECK_FALSE(without->abort_time.has_value());
  const auto with = decode_sample<StreamAbort>("stream_abort_made_parallel");
  CHECK(with->abort_lsn == Lsn{0x159CEB0});
  CHECK(with->abort_time == PgTime{0x303BC95BF094E});
  CHECK(error_of("'A' 000002e3 000002e4", {.in_stream = false, .abort_has_lsn = true}) ==
        "Stream Abort LSN: needs 8 bytes, 0 left");
  CHECK(error_of("'A' 000002e3 000002e4 000000000159ceb0 000303bc95bf094e", plain) ==
        "Stream Abort: 16 bytes after its end");
}

TEST_CASE("the messages of two-phase commit carry their positions and the gid") {
  const auto begin = decode_sample<BeginPrepare>("begin_prepare");
  CHECK(begin->prepare_lsn == Lsn{0x15F32D0});
  CHECK(begin->end_lsn == Lsn{0x15F33C8});
  CHECK(begin->prepare_time == PgTime{0x303BC95BF0C32});
  CHECK(begin->xid == Xid{0x2E8});
  CHECK(begin->gid == "gid 1");

  const auto prepare = decode_sample<Prepare>("prepare");
  CHECK_FALSE(prepare->streamed);
  CHECK(prepare->prepare_lsn == begin->prepare_lsn);
  CHECK(prepare->end_lsn == begin->end_lsn);
  CHECK(prepare->prepare_time == begin->prepare_time);
  CHECK(prepare->xid == begin->xid);
  CHECK(prepare->gid == "gid 1");

  const auto streamed = decode_sample<Prepare>("stream_prepare");
  CHECK(streamed->streamed);
  CHECK(streamed->prepare_lsn == Lsn{0x16495E8});
  CHECK(streamed->end_lsn == Lsn{0x16496E0});
  CHECK(streamed->gid == "gid 3");

  const auto commit = decode_sample<CommitPrepared>("commit_prepared");
  CHECK(commit->commit_lsn == Lsn{0x15F33C8});
  CHECK(commit->end_lsn == Lsn{0x15F3400});
  CHECK(commit->commit_time == PgTime{0x303BC95BF0C5D});
  CHECK(commit->xid == Xid{0x2E8});
  CHECK(commit->gid == "gid 1");

  const auto rollback = decode_sample<RollbackPrepared>("rollback_prepared");
  CHECK(rollback->prepare_end_lsn == Lsn{0x15F3580});
  CHECK(rollback->rollback_end_lsn == Lsn{0x15F35B8});
  CHECK(rollback->prepare_time == PgTime{0x303BC95BF0CAC});
  CHECK(rollback->rollback_time == PgTime{0x303BC95BF0CC9});
  CHECK(rollback->xid == Xid{0x2E9});
  CHECK(rollback->gid == "gid 2");
}

TEST_CASE("inside a stream R Y I U D T M carry the xid of their transaction or subtransaction") {
  CHECK(decode_sample<RelationView>("stream_relation")->stream_xid == Xid{0x2E5});
  CHECK(decode_sample<TypeView>("stream_type")->stream_xid == stream_xid);
  CHECK(decode_sample<InsertView>("stream_insert")->stream_xid == stream_xid);
  CHECK(decode_sample<UpdateView>("stream_made_update")->stream_xid == stream_xid);
  CHECK(decode_sample<DeleteView>("stream_made_delete")->stream_xid == stream_xid);
  CHECK(decode_sample<TruncateView>("stream_made_truncate")->stream_xid == stream_xid);
  CHECK(decode_sample<LogicalMessageView>("stream_made_message")->stream_xid == stream_xid);
}

TEST_CASE("the fields after a stream xid are the same as without one") {
  const auto insert = decode_sample<InsertView>("stream_insert");
  CHECK(insert->relation == relation_t);
  CHECK(describe(insert->row) == "t:50 t:big t:sad");
  const auto truncate = decode_sample<TruncateView>("stream_made_truncate");
  CHECK(truncate->cascade);
  CHECK(truncate->relations == std::vector{relation_t, relation_f});
}

TEST_CASE("inside a stream the other messages carry no xid") {
  const auto origin = decode_sample<Origin>("stream_made_origin");
  CHECK(origin->origin_lsn == Lsn{});
  CHECK(origin->name == "other");
  CHECK(std::holds_alternative<StreamStop>(decode(wire("'E'"), in_stream)));
}

TEST_CASE("strings and values point into the payload") {
  const auto begin_of = [](const std::vector<std::byte>& bytes) { return reinterpret_cast<const char*>(bytes.data()); };
  const auto relation = decode_sample<RelationView>("relation");
  CHECK(relation->schema.data() == begin_of(relation.bytes) + 5);
  const auto insert = decode_sample<InsertView>("insert_text");
  CHECK((*insert->row.begin()).value.data() == insert.bytes.data() + 13);
}

TEST_CASE("unknown flags are refused by name in every message that has flags") {
  struct Case {
    std::string_view notation;
    std::string_view error;
  };
  const std::vector<Case> cases{
      {"'C' 01 0000000000000001 0000000000000002 0000000000000003", "Commit flags: unknown flags 0x01"},
      {"'R' 00000001 's' 00 't' 00 'd' 0001 02 'c' 00 00000017 ffffffff", "Relation column flags: unknown flags 0x02"},
      {"'R' 00000001 's' 00 't' 00 'd' 0001 81 'c' 00 00000017 ffffffff", "Relation column flags: unknown flags 0x81"},
      {"'T' 00000001 04 00000001", "Truncate flags: unknown flags 0x04"},
      {"'T' 00000001 83 00000001", "Truncate flags: unknown flags 0x83"},
      {"'M' 02 0000000000000001 'p' 00 00000000", "Message flags: unknown flags 0x02"},
      {"'S' 00000001 02", "Stream Start first segment: unknown flags 0x02"},
      {"'S' 00000001 ff", "Stream Start first segment: unknown flags 0xFF"},
      {"'c' 00000001 01 0000000000000001 0000000000000002 0000000000000003", "Stream Commit flags: unknown flags 0x01"},
      {"'P' 01 0000000000000001 0000000000000002 0000000000000003 00000004 'g' 00",
       "Prepare flags: unknown flags 0x01"},
      {"'p' 80 0000000000000001 0000000000000002 0000000000000003 00000004 'g' 00",
       "Stream Prepare flags: unknown flags 0x80"},
      {"'K' 01 0000000000000001 0000000000000002 0000000000000003 00000004 'g' 00",
       "Commit Prepared flags: unknown flags 0x01"},
      {"'r' 01 0000000000000001 0000000000000002 0000000000000003 0000000000000004 00000005 'g' 00",
       "Rollback Prepared flags: unknown flags 0x01"},
  };
  for (const Case& c : cases) {
    CAPTURE(c.notation);
    CHECK(error_of(c.notation, plain) == c.error);
  }
}

TEST_CASE("a damaged tuple is refused with message, column and cause") {
  struct Case {
    std::string_view notation;
    std::string_view error;
  };
  const std::vector<Case> cases{
      {"'I' 00000001 'K' 0000", "Insert new tuple: expected 'N', found 'K'"},
      {"'I' 00000001 'N' 00", "Insert new tuple: needs 2 bytes, 1 left"},
      {"'I' 00000001 'N' 0002 'n'", "Insert new tuple column 1: no kind"},
      {"'I' 00000001 'N' ffff", "Insert new tuple column 0: no kind"},
      {"'I' 00000001 'N' 0002 'n' 'x'", "Insert new tuple column 1: unknown kind 'x'"},
      {"'I' 00000001 'N' 0001 't' 000000", "Insert new tuple column 0: no length"},
      {"'I' 00000001 'N' 0001 't' 00000002 'a'", "Insert new tuple column 0: value cut short"},
      {"'I' 00000001 'N' 0001 't' 7fffffff 'a'", "Insert new tuple column 0: value cut short"},
      {"'I' 00000001 'N' 0001 't' ffffffff", "Insert new tuple column 0: negative length"},
      {"'I' 00000001 'N' 0001 'b' 80000000", "Insert new tuple column 0: negative length"},
      {"'U' 00000001 'X' 0000 'N' 0000", "Update old tuple: unknown marker 'X'"},
      {"'U' 00000001 'K' 0001 'x' 'N' 0000", "Update old tuple column 0: unknown kind 'x'"},
      {"'U' 00000001 'K' 0000 'K' 0000", "Update new tuple: expected 'N', found 'K'"},
      {"'U' 00000001 'O' 0000", "Update new tuple: needs 1 bytes, 0 left"},
      {"'D' 00000001 'N' 0000", "Delete old tuple: unknown marker 'N'"},
  };
  for (const Case& c : cases) {
    CAPTURE(c.notation);
    CHECK(error_of(c.notation, plain) == c.error);
  }
}

TEST_CASE("a count or length that the payload cannot hold is refused before anything is allocated") {
  CHECK(error_of("'R' 00000001 's' 00 't' 00 'd' ffff", plain) == "Relation columns: needs 655350 bytes, 0 left");
  CHECK(error_of("'R' 00000001 's' 00 't' 00 'd' 0002 00 'c' 00 00000017 ffffffff", plain) ==
        "Relation columns: needs 20 bytes, 11 left");
  CHECK(error_of("'T' 7fffffff 00 00000001", plain) == "Truncate relations: needs 8589934588 bytes, 4 left");
  CHECK(error_of("'T' ffffffff 00", plain) == "Truncate relation count: negative");
  CHECK(error_of("'M' 00 0000000000000001 'p' 00 7fffffff", plain) ==
        "Message content: needs 2147483647 bytes, 0 left");
  CHECK(error_of("'M' 00 0000000000000001 'p' 00 ffffffff", plain) == "Message content length: negative");
}

}  // namespace
}  // namespace walferry::pgoutput
