#include "protocol/pgoutput.hpp"

#include <string>
#include <utility>

namespace walferry::pgoutput {
namespace {

[[noreturn]] void refuse(std::string_view field, std::string_view what, std::uint8_t found) {
  throw ProtocolError(std::string(field) + ": " + std::string(what) + " " + wire::describe_byte(found));
}

[[noreturn]] void refuse_column(std::string_view tuple, std::uint16_t column, std::string_view what) {
  throw ProtocolError(std::string(tuple) + " column " + std::to_string(column) + ": " + std::string(what));
}

Lsn read_lsn(Reader& in, std::string_view field) {
  return Lsn{in.u64(field)};
}
PgTime read_time(Reader& in, std::string_view field) {
  return PgTime{in.i64(field)};
}
Xid read_xid(Reader& in, std::string_view field) {
  return Xid{in.u32(field)};
}
RelationId read_relation_id(Reader& in, std::string_view field) {
  return RelationId{in.u32(field)};
}

std::optional<Xid> read_stream_xid(Reader& in, DecodeContext context, std::string_view field) {
  if (!context.in_stream) return std::nullopt;
  return read_xid(in, field);
}

// A flag byte of which only the bits of `known` may be set: a bit that is not known could change what the message
// means.
std::uint8_t read_flags(Reader& in, std::uint8_t known, std::string_view field) {
  const std::uint8_t flags = in.u8(field);
  if ((flags & ~known) != 0) refuse(field, "unknown flags", flags);
  return flags;
}

void expect_no_flags(Reader& in, std::string_view field) {
  static_cast<void>(read_flags(in, 0, field));
}

// Lengths are signed on the wire; PostgreSQL never sends one of 2 GB or more, so a set sign bit is damage.
constexpr std::uint32_t length_max = 0x7FFF'FFFF;

// Walks every column once, so that TupleView can walk them again without checks.
TupleView read_tuple(Reader& in, std::string_view tuple) {
  const std::uint16_t column_count = in.u16(tuple);
  const Bytes from_first_column = in.rest();
  for (std::uint16_t column = 0; column < column_count; ++column) {
    if (in.remaining() == 0) refuse_column(tuple, column, "no kind");
    const std::uint8_t kind = in.u8(tuple);
    switch (kind) {
      case 'n':
      case 'u':
        break;
      case 't':
      case 'b': {
        if (in.remaining() < sizeof(std::uint32_t)) refuse_column(tuple, column, "no length");
        const std::uint32_t length = in.u32(tuple);
        if (length > length_max) refuse_column(tuple, column, "negative length");
        if (length > in.remaining()) refuse_column(tuple, column, "value cut short");
        static_cast<void>(in.take(length, tuple));
        break;
      }
      default:
        refuse_column(tuple, column, "unknown kind " + wire::describe_byte(kind));
    }
  }
  return {column_count, from_first_column.first(from_first_column.size() - in.remaining())};
}

// `marker` is the byte already read in front of the tuple.
OldTupleView read_old_tuple(Reader& in, std::uint8_t marker, std::string_view tuple) {
  switch (marker) {
    case 'K':
      return {.kind = OldTupleKind::Key, .tuple = read_tuple(in, tuple)};
    case 'O':
      return {.kind = OldTupleKind::Full, .tuple = read_tuple(in, tuple)};
    default:
      refuse(tuple, "unknown marker", marker);
  }
}

Begin read_begin(Reader& in) {
  return {.final_lsn = read_lsn(in, "Begin final LSN"),
          .commit_time = read_time(in, "Begin commit time"),
          .xid = read_xid(in, "Begin xid")};
}

Commit read_commit(Reader& in) {
  expect_no_flags(in, "Commit flags");
  return {.commit_lsn = read_lsn(in, "Commit LSN"),
          .end_lsn = read_lsn(in, "Commit end LSN"),
          .commit_time = read_time(in, "Commit time")};
}

Origin read_origin(Reader& in) {
  return {.origin_lsn = read_lsn(in, "Origin LSN"), .name = in.c_string("Origin name")};
}

ReplicaIdentity read_replica_identity(Reader& in) {
  const std::uint8_t letter = in.u8("Relation replica identity");
  switch (letter) {
    case 'd':
      return ReplicaIdentity::Default;
    case 'n':
      return ReplicaIdentity::Nothing;
    case 'f':
      return ReplicaIdentity::Full;
    case 'i':
      return ReplicaIdentity::Index;
    default:
      refuse("Relation replica identity", "unknown letter", letter);
  }
}

ColumnView read_column(Reader& in) {
  constexpr std::uint8_t key_flag = 1;
  return {.key = read_flags(in, key_flag, "Relation column flags") == key_flag,
          .name = in.c_string("Relation column name"),
          .type = Oid{in.u32("Relation column type")},
          .type_modifier = static_cast<std::int32_t>(in.u32("Relation column type modifier"))};
}

RelationView read_relation(Reader& in, DecodeContext context) {
  // Flags, an empty name, type and type modifier: what the shortest column takes.
  constexpr std::size_t column_bytes_min = 1 + 1 + 4 + 4;
  RelationView relation;
  relation.stream_xid = read_stream_xid(in, context, "Relation stream xid");
  relation.id = read_relation_id(in, "Relation id");
  relation.schema = in.c_string("Relation schema");
  relation.name = in.c_string("Relation name");
  relation.identity = read_replica_identity(in);
  const std::uint16_t column_count = in.u16("Relation column count");
  if (column_count > in.remaining() / column_bytes_min) {
    wire::throw_too_short("Relation columns", column_count * column_bytes_min, in.remaining());
  }
  relation.columns.reserve(column_count);
  for (std::uint16_t column = 0; column < column_count; ++column) relation.columns.push_back(read_column(in));
  return relation;
}

TypeView read_type(Reader& in, DecodeContext context) {
  return {.stream_xid = read_stream_xid(in, context, "Type stream xid"),
          .id = Oid{in.u32("Type id")},
          .schema = in.c_string("Type schema"),
          .name = in.c_string("Type name")};
}

InsertView read_insert(Reader& in, DecodeContext context) {
  const std::optional<Xid> stream_xid = read_stream_xid(in, context, "Insert stream xid");
  const RelationId relation = read_relation_id(in, "Insert relation");
  in.expect('N', "Insert new tuple");
  return {.stream_xid = stream_xid, .relation = relation, .row = read_tuple(in, "Insert new tuple")};
}

UpdateView read_update(Reader& in, DecodeContext context) {
  UpdateView update;
  update.stream_xid = read_stream_xid(in, context, "Update stream xid");
  update.relation = read_relation_id(in, "Update relation");
  std::uint8_t marker = in.u8("Update tuple marker");
  if (marker != 'N') {
    update.old = read_old_tuple(in, marker, "Update old tuple");
    marker = in.u8("Update new tuple");
  }
  if (marker != 'N') wire::throw_unexpected("Update new tuple", 'N', marker);
  update.row = read_tuple(in, "Update new tuple");
  return update;
}

DeleteView read_delete(Reader& in, DecodeContext context) {
  const std::optional<Xid> stream_xid = read_stream_xid(in, context, "Delete stream xid");
  const RelationId relation = read_relation_id(in, "Delete relation");
  const std::uint8_t marker = in.u8("Delete tuple marker");
  return {.stream_xid = stream_xid, .relation = relation, .old = read_old_tuple(in, marker, "Delete old tuple")};
}

TruncateView read_truncate(Reader& in, DecodeContext context) {
  constexpr std::uint8_t cascade_flag = 1;
  constexpr std::uint8_t restart_identity_flag = 2;
  TruncateView truncate;
  truncate.stream_xid = read_stream_xid(in, context, "Truncate stream xid");
  const std::uint32_t relation_count = in.u32("Truncate relation count");
  const std::uint8_t flags = read_flags(in, cascade_flag | restart_identity_flag, "Truncate flags");
  truncate.cascade = (flags & cascade_flag) != 0;
  truncate.restart_identity = (flags & restart_identity_flag) != 0;
  if (relation_count > length_max) throw ProtocolError("Truncate relation count: negative");
  if (relation_count > in.remaining() / sizeof(std::uint32_t)) {
    wire::throw_too_short("Truncate relations", std::size_t{relation_count} * sizeof(std::uint32_t), in.remaining());
  }
  truncate.relations.reserve(relation_count);
  for (std::uint32_t index = 0; index < relation_count; ++index) {
    truncate.relations.push_back(read_relation_id(in, "Truncate relation"));
  }
  return truncate;
}

LogicalMessageView read_logical_message(Reader& in, DecodeContext context) {
  constexpr std::uint8_t transactional_flag = 1;
  LogicalMessageView message;
  message.stream_xid = read_stream_xid(in, context, "Message stream xid");
  message.transactional = read_flags(in, transactional_flag, "Message flags") == transactional_flag;
  message.lsn = read_lsn(in, "Message LSN");
  message.prefix = in.c_string("Message prefix");
  const std::uint32_t length = in.u32("Message content length");
  if (length > length_max) throw ProtocolError("Message content length: negative");
  message.content = in.take(length, "Message content");
  return message;
}

StreamStart read_stream_start(Reader& in) {
  constexpr std::uint8_t first_segment_flag = 1;
  return {.xid = read_xid(in, "Stream Start xid"),
          .first_segment = read_flags(in, first_segment_flag, "Stream Start first segment") == first_segment_flag};
}

StreamCommit read_stream_commit(Reader& in) {
  const Xid xid = read_xid(in, "Stream Commit xid");
  expect_no_flags(in, "Stream Commit flags");
  return {.xid = xid,
          .commit_lsn = read_lsn(in, "Stream Commit LSN"),
          .end_lsn = read_lsn(in, "Stream Commit end LSN"),
          .commit_time = read_time(in, "Stream Commit time")};
}

StreamAbort read_stream_abort(Reader& in, DecodeContext context) {
  StreamAbort abort;
  abort.xid = read_xid(in, "Stream Abort xid");
  abort.subxid = read_xid(in, "Stream Abort subxid");
  if (context.abort_has_lsn) {
    abort.abort_lsn = read_lsn(in, "Stream Abort LSN");
    abort.abort_time = read_time(in, "Stream Abort time");
  }
  return abort;
}

BeginPrepare read_begin_prepare(Reader& in) {
  return {.prepare_lsn = read_lsn(in, "Begin Prepare LSN"),
          .end_lsn = read_lsn(in, "Begin Prepare end LSN"),
          .prepare_time = read_time(in, "Begin Prepare time"),
          .xid = read_xid(in, "Begin Prepare xid"),
          .gid = in.c_string("Begin Prepare gid")};
}

Prepare read_prepare(Reader& in) {
  expect_no_flags(in, "Prepare flags");
  return {.streamed = false,
          .prepare_lsn = read_lsn(in, "Prepare LSN"),
          .end_lsn = read_lsn(in, "Prepare end LSN"),
          .prepare_time = read_time(in, "Prepare time"),
          .xid = read_xid(in, "Prepare xid"),
          .gid = in.c_string("Prepare gid")};
}

Prepare read_stream_prepare(Reader& in) {
  expect_no_flags(in, "Stream Prepare flags");
  return {.streamed = true,
          .prepare_lsn = read_lsn(in, "Stream Prepare LSN"),
          .end_lsn = read_lsn(in, "Stream Prepare end LSN"),
          .prepare_time = read_time(in, "Stream Prepare time"),
          .xid = read_xid(in, "Stream Prepare xid"),
          .gid = in.c_string("Stream Prepare gid")};
}

CommitPrepared read_commit_prepared(Reader& in) {
  expect_no_flags(in, "Commit Prepared flags");
  return {.commit_lsn = read_lsn(in, "Commit Prepared LSN"),
          .end_lsn = read_lsn(in, "Commit Prepared end LSN"),
          .commit_time = read_time(in, "Commit Prepared time"),
          .xid = read_xid(in, "Commit Prepared xid"),
          .gid = in.c_string("Commit Prepared gid")};
}

RollbackPrepared read_rollback_prepared(Reader& in) {
  expect_no_flags(in, "Rollback Prepared flags");
  return {.prepare_end_lsn = read_lsn(in, "Rollback Prepared prepare end LSN"),
          .rollback_end_lsn = read_lsn(in, "Rollback Prepared end LSN"),
          .prepare_time = read_time(in, "Rollback Prepared prepare time"),
          .rollback_time = read_time(in, "Rollback Prepared time"),
          .xid = read_xid(in, "Rollback Prepared xid"),
          .gid = in.c_string("Rollback Prepared gid")};
}

// Every reader ends here, so no message can carry bytes that nobody looked at.
template <typename Decoded>
Message finish(const Reader& in, std::string_view name, Decoded&& message) {
  in.expect_end(name);
  return std::forward<Decoded>(message);
}

}  // namespace

Message decode(Bytes payload, DecodeContext context) {
  Reader in(payload);
  const std::uint8_t tag = in.u8("pgoutput tag");
  switch (tag) {
    case 'I':
      return finish(in, "Insert", read_insert(in, context));
    case 'U':
      return finish(in, "Update", read_update(in, context));
    case 'D':
      return finish(in, "Delete", read_delete(in, context));
    case 'B':
      return finish(in, "Begin", read_begin(in));
    case 'C':
      return finish(in, "Commit", read_commit(in));
    case 'O':
      return finish(in, "Origin", read_origin(in));
    case 'R':
      return finish(in, "Relation", read_relation(in, context));
    case 'Y':
      return finish(in, "Type", read_type(in, context));
    case 'T':
      return finish(in, "Truncate", read_truncate(in, context));
    case 'M':
      return finish(in, "Message", read_logical_message(in, context));
    case 'S':
      return finish(in, "Stream Start", read_stream_start(in));
    case 'E':
      return finish(in, "Stream Stop", StreamStop{});
    case 'c':
      return finish(in, "Stream Commit", read_stream_commit(in));
    case 'A':
      return finish(in, "Stream Abort", read_stream_abort(in, context));
    case 'b':
      return finish(in, "Begin Prepare", read_begin_prepare(in));
    case 'P':
      return finish(in, "Prepare", read_prepare(in));
    case 'p':
      return finish(in, "Stream Prepare", read_stream_prepare(in));
    case 'K':
      return finish(in, "Commit Prepared", read_commit_prepared(in));
    case 'r':
      return finish(in, "Rollback Prepared", read_rollback_prepared(in));
    default:
      refuse("pgoutput", "unknown tag", tag);
  }
}

}  // namespace walferry::pgoutput
