// The messages of the pgoutput plugin, protocol versions 1 to 4 (doc page "Logical Replication Message Formats").
//
//   payload := tag u8, fields            one CopyData 'w' frame carries one payload
//   [xid]   := u32, present in R Y I U D T M only between Stream Start and Stream Stop
//   tuple   := column count u16, column*
//   column  := 'n' | 'u' | ('t' | 'b') length u32, bytes
//
// decode() turns one payload into one value, checks every length and flag, refuses unknown tags, kinds and trailing
// bytes, and allocates only for the columns of Relation and the relations of Truncate. Everything named ...View, and
// every string_view and Bytes inside a message, points into the payload and lives as long as it. Called by the
// assembler of engine/ and by the fuzz targets.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>
#include <variant>
#include <vector>

#include "protocol/bytes.hpp"
#include "protocol/lsn.hpp"

namespace walferry::pgoutput {

enum class FieldKind : char { Null = 'n', UnchangedToast = 'u', Text = 't', Binary = 'b' };

struct FieldView {
  FieldKind kind = FieldKind::Null;
  Bytes value;  // empty unless Text or Binary
};

// A checked tuple: its fields are walked in column order without allocation.
class TupleView {
 public:
  TupleView() = default;
  // `fields` must hold exactly `column_count` well-formed columns; read_tuple in pgoutput.cpp has checked that.
  TupleView(std::uint16_t column_count, Bytes fields) : column_count_(column_count), fields_(fields) {}

  [[nodiscard]] std::uint16_t column_count() const { return column_count_; }

  class Iterator {
   public:
    Iterator(const std::byte* at, std::uint16_t index) : at_(at), index_(index) {}
    [[nodiscard]] FieldView operator*() const {
      const auto kind = static_cast<FieldKind>(*at_);
      if (!has_value(kind)) return {kind, {}};
      return {kind, {at_ + 1 + length_bytes, value_length()}};
    }
    Iterator& operator++() {
      at_ += has_value(static_cast<FieldKind>(*at_)) ? 1 + length_bytes + value_length() : 1;
      ++index_;
      return *this;
    }
    [[nodiscard]] bool operator==(const Iterator& other) const { return index_ == other.index_; }

   private:
    static constexpr std::size_t length_bytes = 4;
    static bool has_value(FieldKind kind) { return kind == FieldKind::Text || kind == FieldKind::Binary; }
    // Only where has_value: the length follows the kind.
    std::size_t value_length() const { return wire::load<std::uint32_t>(at_ + 1); }

    const std::byte* at_;
    std::uint16_t index_;
  };
  [[nodiscard]] Iterator begin() const { return {fields_.data(), 0}; }
  [[nodiscard]] Iterator end() const { return {nullptr, column_count_}; }

 private:
  std::uint16_t column_count_ = 0;
  Bytes fields_;
};

// 'K' holds the key columns only (the others are sent as null and mean nothing), 'O' the whole old row (identity FULL).
enum class OldTupleKind : char { Key = 'K', Full = 'O' };

struct OldTupleView {
  OldTupleKind kind = OldTupleKind::Key;
  TupleView tuple;
};

struct Begin {
  Lsn final_lsn;  // the commit record's start
  PgTime commit_time;
  Xid xid{};
};
struct Commit {
  Lsn commit_lsn;
  Lsn end_lsn;  // where to go on: resuming here does not resend this transaction
  PgTime commit_time;
};
struct Origin {
  Lsn origin_lsn;
  std::string_view name;
};

enum class ReplicaIdentity : char { Default = 'd', Nothing = 'n', Full = 'f', Index = 'i' };

struct ColumnView {
  bool key = false;
  std::string_view name;
  Oid type{};
  std::int32_t type_modifier = -1;
};
struct RelationView {
  std::optional<Xid> stream_xid;
  RelationId id{};
  std::string_view schema;  // "" on the wire means pg_catalog
  std::string_view name;
  ReplicaIdentity identity = ReplicaIdentity::Default;
  std::vector<ColumnView> columns;
};
struct TypeView {
  std::optional<Xid> stream_xid;
  Oid id{};
  std::string_view schema;
  std::string_view name;
};
struct InsertView {
  std::optional<Xid> stream_xid;
  RelationId relation{};
  TupleView row;
};
struct UpdateView {
  std::optional<Xid> stream_xid;
  RelationId relation{};
  std::optional<OldTupleView> old;
  TupleView row;
};
struct DeleteView {
  std::optional<Xid> stream_xid;
  RelationId relation{};
  OldTupleView old;
};
struct TruncateView {
  std::optional<Xid> stream_xid;
  bool cascade = false;
  bool restart_identity = false;
  std::vector<RelationId> relations;
};
struct LogicalMessageView {
  std::optional<Xid> stream_xid;
  bool transactional = false;
  Lsn lsn;
  std::string_view prefix;
  Bytes content;
};

struct StreamStart {
  Xid xid{};
  bool first_segment = false;
};
struct StreamStop {};
struct StreamCommit {
  Xid xid{};
  Lsn commit_lsn;
  Lsn end_lsn;
  PgTime commit_time;
};
struct StreamAbort {
  Xid xid{};
  Xid subxid{};  // equal to xid: the whole transaction
  std::optional<Lsn> abort_lsn;
  std::optional<PgTime> abort_time;
};

struct BeginPrepare {
  Lsn prepare_lsn;
  Lsn end_lsn;
  PgTime prepare_time;
  Xid xid{};
  std::string_view gid;
};
// 'P', and 'p' (streamed = true).
struct Prepare {
  bool streamed = false;
  Lsn prepare_lsn;
  Lsn end_lsn;
  PgTime prepare_time;
  Xid xid{};
  std::string_view gid;
};
struct CommitPrepared {
  Lsn commit_lsn;
  Lsn end_lsn;
  PgTime commit_time;
  Xid xid{};
  std::string_view gid;
};
struct RollbackPrepared {
  Lsn prepare_end_lsn;
  Lsn rollback_end_lsn;
  PgTime prepare_time;
  PgTime rollback_time;
  Xid xid{};
  std::string_view gid;
};

using Message = std::variant<Begin, Commit, Origin, RelationView, TypeView, InsertView, UpdateView, DeleteView,
                             TruncateView, LogicalMessageView, StreamStart, StreamStop, StreamCommit, StreamAbort,
                             BeginPrepare, Prepare, CommitPrepared, RollbackPrepared>;

struct DecodeContext {
  bool in_stream = false;      // between Stream Start and Stream Stop
  bool abort_has_lsn = false;  // started with streaming 'parallel'
};

[[nodiscard]] Message decode(Bytes payload, DecodeContext context);

}  // namespace walferry::pgoutput
