#include "tests/fuzz/pgoutput_encode.hpp"

namespace walferry::test {
namespace {

using namespace pgoutput;

// One overload a message, each the mirror of its reader.
class Encoder {
 public:
  explicit Encoder(std::vector<std::byte>& out) : out_(out) {}

  void operator()(const Begin& m) {
    tag('B');
    lsn(m.final_lsn);
    time(m.commit_time);
    xid(m.xid);
  }
  void operator()(const Commit& m) {
    tag('C');
    out_.u8(0);
    lsn(m.commit_lsn);
    lsn(m.end_lsn);
    time(m.commit_time);
  }
  void operator()(const Origin& m) {
    tag('O');
    lsn(m.origin_lsn);
    out_.c_string(m.name);
  }
  void operator()(const RelationView& m) {
    tag('R');
    stream_xid(m.stream_xid);
    relation(m.id);
    out_.c_string(m.schema);
    out_.c_string(m.name);
    tag(static_cast<char>(m.identity));
    out_.u16(static_cast<std::uint16_t>(m.columns.size()));
    for (const ColumnView& column : m.columns) {
      out_.u8(column.key ? 1 : 0);
      out_.c_string(column.name);
      out_.u32(static_cast<std::uint32_t>(column.type));
      out_.u32(static_cast<std::uint32_t>(column.type_modifier));
    }
  }
  void operator()(const TypeView& m) {
    tag('Y');
    stream_xid(m.stream_xid);
    out_.u32(static_cast<std::uint32_t>(m.id));
    out_.c_string(m.schema);
    out_.c_string(m.name);
  }
  void operator()(const InsertView& m) {
    tag('I');
    stream_xid(m.stream_xid);
    relation(m.relation);
    tag('N');
    tuple(m.row);
  }
  void operator()(const UpdateView& m) {
    tag('U');
    stream_xid(m.stream_xid);
    relation(m.relation);
    if (m.old) old_tuple(*m.old);
    tag('N');
    tuple(m.row);
  }
  void operator()(const DeleteView& m) {
    tag('D');
    stream_xid(m.stream_xid);
    relation(m.relation);
    old_tuple(m.old);
  }
  void operator()(const TruncateView& m) {
    tag('T');
    stream_xid(m.stream_xid);
    out_.u32(static_cast<std::uint32_t>(m.relations.size()));
    out_.u8(static_cast<std::uint8_t>((m.cascade ? 1 : 0) + (m.restart_identity ? 2 : 0)));
    for (const RelationId id : m.relations) relation(id);
  }
  void operator()(const LogicalMessageView& m) {
    tag('M');
    stream_xid(m.stream_xid);
    out_.u8(m.transactional ? 1 : 0);
    lsn(m.lsn);
    out_.c_string(m.prefix);
    out_.u32(static_cast<std::uint32_t>(m.content.size()));
    out_.bytes(m.content);
  }
  void operator()(const StreamStart& m) {
    tag('S');
    xid(m.xid);
    out_.u8(m.first_segment ? 1 : 0);
  }
  void operator()(const StreamStop&) { tag('E'); }
  void operator()(const StreamCommit& m) {
    tag('c');
    xid(m.xid);
    out_.u8(0);
    lsn(m.commit_lsn);
    lsn(m.end_lsn);
    time(m.commit_time);
  }
  void operator()(const StreamAbort& m) {
    tag('A');
    xid(m.xid);
    xid(m.subxid);
    if (m.abort_lsn) lsn(*m.abort_lsn);
    if (m.abort_time) time(*m.abort_time);
  }
  void operator()(const BeginPrepare& m) {
    tag('b');
    lsn(m.prepare_lsn);
    lsn(m.end_lsn);
    time(m.prepare_time);
    xid(m.xid);
    out_.c_string(m.gid);
  }
  void operator()(const Prepare& m) {
    tag(m.streamed ? 'p' : 'P');
    out_.u8(0);
    lsn(m.prepare_lsn);
    lsn(m.end_lsn);
    time(m.prepare_time);
    xid(m.xid);
    out_.c_string(m.gid);
  }
  void operator()(const CommitPrepared& m) {
    tag('K');
    out_.u8(0);
    lsn(m.commit_lsn);
    lsn(m.end_lsn);
    time(m.commit_time);
    xid(m.xid);
    out_.c_string(m.gid);
  }
  void operator()(const RollbackPrepared& m) {
    tag('r');
    out_.u8(0);
    lsn(m.prepare_end_lsn);
    lsn(m.rollback_end_lsn);
    time(m.prepare_time);
    time(m.rollback_time);
    xid(m.xid);
    out_.c_string(m.gid);
  }

 private:
  void tag(char letter) { out_.u8(static_cast<std::uint8_t>(letter)); }
  void lsn(Lsn value) { out_.u64(value.value); }
  void time(PgTime value) { out_.i64(value.microseconds); }
  void xid(Xid value) { out_.u32(static_cast<std::uint32_t>(value)); }
  void relation(RelationId value) { out_.u32(static_cast<std::uint32_t>(value)); }
  void stream_xid(const std::optional<Xid>& value) {
    if (value) xid(*value);
  }
  void tuple(const TupleView& view) {
    out_.u16(view.column_count());
    for (const FieldView field : view) {
      tag(static_cast<char>(field.kind));
      if (field.kind != FieldKind::Text && field.kind != FieldKind::Binary) continue;
      out_.u32(static_cast<std::uint32_t>(field.value.size()));
      out_.bytes(field.value);
    }
  }
  void old_tuple(const OldTupleView& old) {
    tag(static_cast<char>(old.kind));
    tuple(old.tuple);
  }

  Writer out_;
};

}  // namespace

std::vector<std::byte> encode(const Message& message) {
  std::vector<std::byte> out;
  std::visit(Encoder(out), message);
  return out;
}

}  // namespace walferry::test
