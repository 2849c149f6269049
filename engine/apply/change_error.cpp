#include "engine/apply/change_error.hpp"

#include <fmt/format.h>

#include <array>

namespace walferry::apply {
namespace {

constexpr std::size_t key_characters_max = 200;

// " (id)=(42)": the key of the change, decoded again from its message.
std::string key_text(const Expected& expected) {
  if (expected.origin.payload.empty()) return {};
  const pgoutput::Message message = pgoutput::decode(expected.origin.payload, {.in_stream = expected.origin.in_stream});
  pgoutput::TupleView tuple;
  if (const auto* insert = std::get_if<pgoutput::InsertView>(&message)) {
    tuple = insert->row;
  } else if (const auto* update = std::get_if<pgoutput::UpdateView>(&message)) {
    tuple = update->old ? update->old->tuple : update->row;
  } else if (const auto* remove = std::get_if<pgoutput::DeleteView>(&message)) {
    tuple = remove->old.tuple;
  } else {
    return {};
  }
  std::string names;
  std::string values;
  std::size_t index = 0;
  for (const pgoutput::FieldView field : tuple) {
    const MappedColumn& column = expected.table->columns[index++];
    if (!column.key) continue;
    if (!names.empty()) {
      names += ", ";
      values += ", ";
    }
    names += column.name;
    values += field.kind == pgoutput::FieldKind::Null ? std::string_view{"NULL"}
                                                      : as_text(field.value).substr(0, key_characters_max);
  }
  return names.empty() ? std::string{} : fmt::format(" ({})=({})", names, values);
}

// Where the row is the cause: none or several were met, its values do not fit, a trigger of the target's own refuses
// it.
std::string remedy_for(const std::string& sqlstate, const std::string& lsn) {
  const bool of_the_row = sqlstate.empty() || sqlstate.starts_with("22") || sqlstate.starts_with("23") ||
                          sqlstate.starts_with("21") || sqlstate.starts_with("P0");
  if (sqlstate == "42501") return "GRANT what the target's role lacks; walferry then goes on by itself";
  if (!of_the_row) return "mend the cause on the target's server; walferry then goes on by itself";
  return fmt::format(
      "make the target's row what the source's was before this change; walferry then goes on by itself. Only if the "
      "whole transaction may be left out: `walferry skip --lsn {} --reason ...`",
      lsn);
}

}  // namespace

void throw_change_error(const Expected& expected, const Error& cause) {
  static constexpr std::array<std::string_view, 6> names{
      "a statement of walferry's own", "moving the position", "insert into", "update of", "delete from", "truncate of"};
  const std::string_view doing = names[static_cast<std::size_t>(expected.operation)];
  const std::string lsn = expected.origin.final_lsn.to_string();
  std::string text;
  if (expected.operation == Operation::Control || expected.operation == Operation::Advance) {
    text = fmt::format("{}{} failed: {}", doing, expected.table == nullptr ? "" : " for " + expected.table->name.text(),
                       cause.what());
  } else {
    text = fmt::format(
        "{} {}{} of transaction {} (commit LSN {}) cannot be applied: {}. Nothing of this transaction was applied "
        "and nothing is lost. Remedy: {}",
        doing, expected.table->name.text(), key_text(expected), static_cast<std::uint32_t>(expected.origin.xid), lsn,
        cause.what(), remedy_for(cause.sqlstate(), lsn));
  }
  if (!expected.origin.final_lsn) throw Error{{ErrorKind::Divergence, Side::Target, cause.sqlstate()}, text};
  throw Stop{Side::Target,
             {.what = StopPoint::What::Transaction,
              .lsn = expected.origin.final_lsn,
              .commit_lsn = expected.origin.final_lsn,
              .xid = expected.origin.xid,
              .error = text},
             cause.sqlstate()};
}

}  // namespace walferry::apply
