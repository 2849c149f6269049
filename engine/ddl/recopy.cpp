#include "engine/ddl/recopy.hpp"

#include <fmt/format.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <map>

#include "engine/copy/snapshot.hpp"
#include "engine/pg/copy_out.hpp"

namespace walferry::ddl {
namespace {

constexpr std::size_t send_bytes = std::size_t{64} << 10U;

// Name and type of each column that the copy carries, in an order of its own.
std::string shape_of(const Table& table) {
  std::map<std::string, std::string> columns;
  for (const Column& column : table.columns) {
    if (!column.generated) columns.emplace(column.name, column.type_name);
  }
  std::string shape = "(";
  for (const auto& [name, type] : columns) shape += pg::quote_name(name) + " " + type + ", ";
  return shape;
}

std::string column_list(const Table& table) {
  std::string list;
  for (const Column& column : table.columns) {
    if (column.generated) continue;
    list += (list.empty() ? "" : ", ") + pg::quote_name(column.name);
  }
  return list;
}

// A table that was rewritten or truncated after the snapshot looks empty to it. The lock, held to the end of the
// transaction, keeps that from happening from here on.
bool is_whole(pg::Session& source, const QualifiedName& table, RelationId id) {
  try {
    source.exec(fmt::format("LOCK TABLE ONLY {} IN ACCESS SHARE MODE", table.quoted()));
  } catch (const Error& error) {
    if (error.sqlstate() != "42P01") throw;
    return false;  // renamed or dropped meanwhile
  }
  // The catalog is read as of the snapshot, the function tells what is now.
  const pg::Result row = source.exec(fmt::format(
      "SELECT c.relfilenode = pg_catalog.pg_relation_filenode(c.oid) FROM pg_catalog.pg_class c WHERE c.oid = "
      "pg_catalog.to_regclass({}) AND c.oid = {}",
      pg::quote_literal(table.quoted()), static_cast<std::uint32_t>(id)));
  return row.rows() == 1 && row.flag(0, 0);
}

}  // namespace

bool same_columns(const Table* source, const Table* target) {
  return source != nullptr && target != nullptr && shape_of(*source) == shape_of(*target);
}

std::optional<CopiedAgain> copy_again(const RecopyRequest& request) {
  // The apply rests meanwhile: whoever holds a table in the way is not waited for long.
  const pg::SessionOptions session_options{
      .application_name = "walferry copy", .client_encoding = request.client_encoding, .settings = {"lock_timeout=5s"}};
  pg::Session target = pg::Session::open(request.target, session_options);
  copy::Snapshot snapshot =
      copy::Snapshot::create({.source = request.source,
                              .client_encoding = request.client_encoding,
                              .slot = fmt::format("{}_{}_{:x}", request.slot.substr(0, 36), ::getpid(),
                                                  std::chrono::steady_clock::now().time_since_epoch().count()),
                              .temporary = true,
                              .deadline = request.deadline});
  request.require_followed(snapshot.history(), snapshot.lsn());
  pg::Session source = pg::Session::open(request.source, session_options);
  pg::use_snapshot(source, snapshot.id());
  const Catalog on_source = read_catalog(source);
  const Catalog on_target = read_catalog(target);
  const Table* table = on_source.find(request.table);
  const Table* counterpart = on_target.find(request.table);
  if (!same_columns(table, counterpart)) return std::nullopt;

  if (!is_whole(source, request.table, request.id)) return std::nullopt;

  try {
    target.exec("SET session_replication_role = replica");
  } catch (const Error& error) {
    if (error.sqlstate() != "42501") throw;  // then there are neither triggers nor foreign keys (target_state.cpp)
  }
  // TRUNCATE would be refused where foreign keys lead to the table.
  target.exec(fmt::format("BEGIN; DELETE FROM {}{}", counterpart->kind == 'p' ? "" : "ONLY ", request.table.quoted()));
  const std::string columns = column_list(*table);
  const std::string named = columns.empty() ? "" : fmt::format(" ({})", columns);
  target.start_copy_in(fmt::format("COPY {}{} FROM STDIN", request.table.quoted(), named));
  pg::CopyOut rows{source, fmt::format("COPY (SELECT {} FROM ONLY {}) TO STDOUT", columns, request.table.quoted())};
  std::string buffer;
  for (bool more = true; more;) {
    buffer.clear();
    more = rows.read(buffer, send_bytes);
    if (!buffer.empty()) target.put_copy_data(buffer);
  }
  target.finish_copy_in();
  request.require_followed(snapshot.history(), snapshot.lsn());
  target.exec("COMMIT");
  return CopiedAgain{snapshot.lsn(), snapshot.history(), *table};
}

Waiting look_at_waiting(const pg::ConnInfo& source, const pg::ConnInfo& target, const store::TablesToCopyAgain& tables,
                        Lsn applied, bool via_root) {
  const pg::SessionOptions session_options{.application_name = "walferry copy", .settings = {"lock_timeout=5s"}};
  pg::Session source_session = pg::Session::open(source, session_options);
  pg::Session target_session = pg::Session::open(target, session_options);
  const Catalog on_source = read_catalog(source_session);
  const Lsn seen_at = source_session.exec("SELECT pg_catalog.pg_current_wal_insert_lsn()").lsn(0, 0);
  const Catalog on_target = read_catalog(target_session);
  Waiting waiting;
  for (const auto& [id, mark] : tables) {
    const Table* counterpart = on_target.find(mark.table);
    const auto table =
        std::ranges::find_if(on_source.tables, [id = id](const Table& each) { return each.relation() == id; });
    if (table == on_source.tables.end()) {
      if (counterpart == nullptr || (mark.dropped && mark.not_before <= applied)) {
        waiting.gone.emplace(id, mark);
      } else if (!mark.dropped && on_source.find(mark.table) != nullptr) {
        waiting.to_record.emplace(id, store::CopyAgain{.table = mark.table, .not_before = seen_at, .dropped = true});
      }
    } else if (table->name != mark.table) {
      waiting.to_record.emplace(id, store::CopyAgain{.table = table->name, .not_before = seen_at});
    } else if (mark.not_before <= applied && !(via_root && table->partition) && same_columns(&*table, counterpart)) {
      waiting.ready.emplace(id, mark);
    }
  }
  return waiting;
}

}  // namespace walferry::ddl
