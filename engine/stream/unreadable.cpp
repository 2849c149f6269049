#include "engine/stream/unreadable.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "protocol/pgoutput.hpp"
#include "protocol/replication.hpp"

namespace walferry::stream {
namespace {

constexpr std::size_t value_characters_max = 60;

// The bytes at fault may be in the key itself, and the text goes to a log.
std::string printable(std::string_view value) {
  std::string text;
  for (const char c : value.substr(0, value_characters_max)) text += c >= ' ' && c <= '~' ? c : '?';
  return text;
}

struct Row {
  RelationId relation{};
  pgoutput::TupleView tuple;
};

std::optional<Row> row_of(const pgoutput::Message& message) {
  if (const auto* insert = std::get_if<pgoutput::InsertView>(&message)) return Row{insert->relation, insert->row};
  if (const auto* update = std::get_if<pgoutput::UpdateView>(&message)) return Row{update->relation, update->row};
  if (const auto* remove = std::get_if<pgoutput::DeleteView>(&message)) return Row{remove->relation, remove->old.tuple};
  return std::nullopt;
}

std::string key_text(const std::vector<std::string>& key_columns, const pgoutput::TupleView& tuple) {
  std::string names;
  std::string values;
  std::size_t column = 0;
  for (const pgoutput::FieldView field : tuple) {
    if (column == key_columns.size()) break;
    const std::string& name = key_columns[column++];
    if (name.empty() || field.kind != pgoutput::FieldKind::Text) continue;
    if (!names.empty()) {
      names += ", ";
      values += ", ";
    }
    names += name;
    values += printable(as_text(field.value));
  }
  return names.empty() ? std::string{} : fmt::format(" ({})=({})", names, values);
}

}  // namespace

bool is_conversion_failure(std::string_view sqlstate) {
  return sqlstate == "22021" || sqlstate == "22P05";
}

std::optional<Lsn> failed_at(std::string_view message) {
  const std::size_t slash = message.rfind('/');
  if (slash == std::string_view::npos) return std::nullopt;
  constexpr std::string_view digits = "0123456789ABCDEFabcdef";
  const std::size_t before = message.find_last_not_of(digits, slash == 0 ? 0 : slash - 1);
  const std::size_t begin = before == std::string_view::npos ? 0 : before + 1;
  const std::size_t end = std::min(message.find_first_not_of(digits, slash + 1), message.size());
  return Lsn::parse(message.substr(begin, end - begin));
}

std::optional<std::string> UnreadableRow::look_at(Bytes frame) {
  const replication::Frame decoded = replication::decode(frame);
  const auto* data = std::get_if<replication::XLogDataView>(&decoded);
  if (data == nullptr) return std::nullopt;
  const pgoutput::Message message = pgoutput::decode(data->payload, {.in_stream = in_stream_});
  if (std::holds_alternative<pgoutput::StreamStart>(message)) in_stream_ = true;
  if (std::holds_alternative<pgoutput::StreamStop>(message)) in_stream_ = false;
  if (const auto* described = std::get_if<pgoutput::RelationView>(&message)) {
    Relation& relation = relations_[static_cast<std::uint32_t>(described->id)];
    relation = {.name = fmt::format("{}.{}", described->schema, described->name), .key_columns = {}};
    for (const pgoutput::ColumnView& column : described->columns)
      relation.key_columns.emplace_back(column.key ? column.name : std::string_view{});
  }
  const std::optional<Row> row = row_of(message);
  if (!row || data->data_start != lsn_) return std::nullopt;
  const auto relation = relations_.find(static_cast<std::uint32_t>(row->relation));
  if (relation == relations_.end()) return std::nullopt;
  return relation->second.name + key_text(relation->second.key_columns, row->tuple);
}

}  // namespace walferry::stream
