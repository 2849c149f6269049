#include "engine/store/journal.hpp"

#include <fmt/format.h>

#include <charconv>
#include <sstream>

namespace walferry::store {
namespace {

using Family = Database::Family;
using Durability = Database::Durability;

constexpr std::string_view copied_prefix = "copied/";

// schema and name are told apart by a NUL, which no identifier can hold.
std::string table_key(std::string_view prefix, const QualifiedName& table) {
  std::string key{prefix};
  key += table.schema;
  key += '\0';
  key += table.name;
  return key;
}

// What is kept of one table: "<relation> <LSN>" under its schema and name.
struct TableRecord {
  QualifiedName table;
  RelationId id{};
  Lsn lsn;
};

std::string record_text(RelationId id, Lsn lsn) {
  return fmt::format("{} {}", static_cast<std::uint32_t>(id), lsn.to_string());
}

std::string relation_key(RelationId id) {
  return std::string{journal_keys::recopy} + std::to_string(static_cast<std::uint32_t>(id));
}

std::optional<RelationId> parse_relation(std::string_view text) {
  std::uint32_t id = 0;
  const auto [end, failure] = std::from_chars(text.data(), text.data() + text.size(), id);
  if (failure != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return RelationId{id};
}

Error unreadable(const Database& database, std::string_view what = "a copy record") {
  return Error{{ErrorKind::State},
               fmt::format("state directory {}: {} cannot be read", database.directory().string(), what)};
}

TableRecord read_record(const Database& database, const std::string& name, const std::string& value) {
  const std::size_t split = name.find('\0');
  const std::size_t space = value.find(' ');
  if (split == std::string::npos || space == std::string::npos) throw unreadable(database);
  const auto id = parse_relation(std::string_view{value}.substr(0, space));
  const auto lsn = Lsn::parse(value.substr(space + 1));
  if (!id || !lsn) throw unreadable(database);
  return {.table = {name.substr(0, split), name.substr(split + 1)}, .id = *id, .lsn = *lsn};
}

}  // namespace

Phase Journal::phase() const {
  const auto text = get("phase");
  if (!text) return Phase::Init;
  const auto phase = parse_phase(*text);
  if (!phase) {
    throw Error{{ErrorKind::State},
                fmt::format("state directory {}: unknown phase \"{}\"; it was written by a newer walferry. "
                            "Remedy: use that version",
                            database_.directory().string(), *text)};
  }
  return *phase;
}

void Journal::set_phase(Phase phase) {
  put("phase", to_string(phase));
}

std::optional<std::string> Journal::get(std::string_view key) const {
  return database_.get(Family::State, key);
}

void Journal::put(std::string_view key, std::string_view value) {
  database_.put(Family::State, key, value, Durability::Synced);
}

void Journal::erase(std::string_view key) {
  database_.erase(Family::State, key, Durability::Synced);
}

std::vector<std::pair<std::string, std::string>> Journal::entries(std::string_view prefix) const {
  auto found = database_.scan(Family::State, prefix);
  for (auto& [key, value] : found) key.erase(0, prefix.size());
  return found;
}

std::optional<DatabaseIdentity> Journal::pinned(Side side) const {
  const std::string prefix = fmt::format("pinned/{}/", to_string(side));
  const auto system_identifier = get(prefix + "system-identifier");
  if (!system_identifier) return std::nullopt;
  const auto number = [&](std::string_view name) {
    const std::string text = get(prefix + std::string{name}).value_or("0");
    std::uint32_t value = 0;
    std::from_chars(text.data(), text.data() + text.size(), value);
    return value;
  };
  DatabaseIdentity identity;
  identity.system_identifier = *system_identifier;
  identity.database_oid = number("database-oid");
  identity.timeline = number("timeline");
  identity.server_version = static_cast<int>(number("server-version"));
  identity.database = get(prefix + "database").value_or("");
  identity.encoding = get(prefix + "encoding").value_or("");
  return identity;
}

void Journal::pin(Side side, const DatabaseIdentity& identity) {
  const std::string prefix = fmt::format("pinned/{}/", to_string(side));
  put(prefix + "database-oid", std::to_string(identity.database_oid));
  put(prefix + "timeline", std::to_string(identity.timeline));
  put(prefix + "server-version", std::to_string(identity.server_version));
  put(prefix + "database", identity.database);
  put(prefix + "encoding", identity.encoding);
  put(prefix + "system-identifier", identity.system_identifier);  // last: it marks the pin as whole
}

std::map<QualifiedName, Lsn> Journal::copied_tables() const {
  std::map<QualifiedName, Lsn> tables;
  for (const auto& [name, value] : entries(copied_prefix)) {
    const TableRecord record = read_record(database_, name, value);
    tables.emplace(record.table, record.lsn);
  }
  return tables;
}

std::map<QualifiedName, RelationId> Journal::copied_relations() const {
  std::map<QualifiedName, RelationId> relations;
  for (const auto& [name, value] : entries(copied_prefix)) {
    const TableRecord record = read_record(database_, name, value);
    relations.emplace(record.table, record.id);
  }
  return relations;
}

std::set<RelationId> Journal::copied_ids() const {
  std::set<RelationId> ids;
  for (const auto& [name, id] : copied_relations()) ids.insert(id);
  return ids;
}

void Journal::record_copied(const QualifiedName& table, RelationId id, Lsn copy_lsn) {
  put(table_key(copied_prefix, table), record_text(id, copy_lsn));
}

void Journal::forget_copied(const QualifiedName& table) {
  erase(table_key(copied_prefix, table));
}

TablesToCopyAgain Journal::tables_to_copy_again() const {
  TablesToCopyAgain tables;
  for (const auto& [name, value] : entries(journal_keys::recopy)) {
    const std::size_t space = value.find(' ');
    const std::size_t split = value.find('\0');
    const auto id = parse_relation(name);
    const auto not_before = Lsn::parse(value.substr(0, space));
    if (!id || !not_before || split == std::string::npos || split < space + 2) throw unreadable(database_);
    tables.emplace(*id, CopyAgain{.table = {value.substr(space + 2, split - space - 2), value.substr(split + 1)},
                                  .not_before = *not_before,
                                  .dropped = value[space + 1] == 'd'});
  }
  return tables;
}

void Journal::record_copy_again(RelationId id, const CopyAgain& mark) {
  put(relation_key(id), fmt::format("{} {}{}{}{}", mark.not_before.to_string(), mark.dropped ? 'd' : '-',
                                    mark.table.schema, '\0', mark.table.name));
}

void Journal::forget_copy_again(RelationId id) {
  erase(relation_key(id));
}

std::map<RelationId, Oid> Journal::table_homes() const {
  std::map<RelationId, Oid> homes;
  std::istringstream text{get(journal_keys::table_homes).value_or("")};
  std::vector<std::uint32_t> numbers;
  for (std::uint32_t number = 0; text >> number;) numbers.push_back(number);
  if (!text.eof() || numbers.size() % 2 != 0)
    throw unreadable(database_, "which tables of the two ends belong together");
  for (std::size_t i = 0; i < numbers.size(); i += 2) homes.emplace(RelationId{numbers[i]}, Oid{numbers[i + 1]});
  return homes;
}

void Journal::record_table_homes(const std::map<RelationId, Oid>& homes) {
  std::string text;
  for (const auto& [relation, table] : homes)
    text += fmt::format("{} {}\n", static_cast<std::uint32_t>(relation), static_cast<std::uint32_t>(table));
  put(journal_keys::table_homes, text);
}

IdleStretch Journal::idle_stretch() const {
  const auto text = get(journal_keys::idle_confirmed);
  if (!text) return {};
  const std::size_t split = std::min(text->find(' '), text->size());
  const auto begin = Lsn::parse(std::string_view{*text}.substr(0, split));
  const auto end = Lsn::parse(std::string_view{*text}.substr(std::min(split + 1, text->size())));
  if (!begin || !end) throw unreadable(database_, "what was confirmed to the source");
  return {.begin = *begin, .end = *end};
}

void Journal::record_idle_stretch(const IdleStretch& stretch) {
  put(journal_keys::idle_confirmed, stretch.begin.to_string() + " " + stretch.end.to_string());
}

std::map<QualifiedName, RelationId> Journal::slot_tables() const {
  std::map<QualifiedName, RelationId> tables;
  const std::string text = get(journal_keys::slot_tables).value_or("");
  const auto broken = [&] { return unreadable(database_, "the tables that the stream began with"); };
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t space = text.find(' ', at);
    const std::size_t schema_end = space == std::string::npos ? space : text.find('\0', space);
    const std::size_t name_end = schema_end == std::string::npos ? schema_end : text.find('\0', schema_end + 1);
    if (name_end == std::string::npos) throw broken();
    std::uint32_t id = 0;
    if (std::from_chars(text.data() + at, text.data() + space, id).ptr != text.data() + space) throw broken();
    tables.emplace(QualifiedName{text.substr(space + 1, schema_end - space - 1),
                                 text.substr(schema_end + 1, name_end - schema_end - 1)},
                   RelationId{id});
    at = name_end + 1;
  }
  return tables;
}

void Journal::record_slot_tables(const std::map<QualifiedName, RelationId>& tables) {
  std::string text;
  for (const auto& [name, id] : tables)
    text += fmt::format("{} {}{}{}{}", static_cast<std::uint32_t>(id), name.schema, '\0', name.name, '\0');
  put(journal_keys::slot_tables, text);
}

SourceTypes Journal::source_types() const {
  const auto text = get(journal_keys::source_types);
  if (!text) return {};
  auto types = SourceTypes::parse(*text);
  for (const auto& [key, one] : entries(journal_keys::changed_types)) {
    auto changed = SourceTypes::parse(one);
    if (!types || !changed) break;
    for (auto& [relation, columns] : changed->tables) types->tables.insert_or_assign(relation, std::move(columns));
  }
  if (!types) throw unreadable(database_, "the types of the source's columns");
  return *std::move(types);
}

void Journal::record_source_types(const SourceTypes& types) {
  put(journal_keys::source_types, types.text());
}

void Journal::record_source_types(RelationId relation, const ColumnTypes& types) {
  put(fmt::format("{}{}", journal_keys::changed_types, static_cast<std::uint32_t>(relation)),
      SourceTypes{.tables = {{relation, types}}}.text());
}

LanePlan Journal::lane_plan() const {
  const auto text = get(journal_keys::lane_plan);
  if (!text) return {};
  auto plan = LanePlan::parse(*text);
  if (!plan) throw unreadable(database_, "the plan of the apply's lanes");
  return *std::move(plan);
}

void Journal::record_lane_plan(const LanePlan& plan) {
  put(journal_keys::lane_plan, plan.text());
}

}  // namespace walferry::store
