#include "engine/store/journal.hpp"

#include <fmt/format.h>

#include <charconv>

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
  for (const auto& [key, value] : database_.scan(Family::State, copied_prefix)) {
    const std::string_view rest = std::string_view{key}.substr(copied_prefix.size());
    const std::size_t split = rest.find('\0');
    const auto lsn = Lsn::parse(value);
    if (split == std::string_view::npos || !lsn) {
      throw Error{{ErrorKind::State},
                  fmt::format("state directory {}: a copy record cannot be read", database_.directory().string())};
    }
    tables.emplace(QualifiedName{std::string{rest.substr(0, split)}, std::string{rest.substr(split + 1)}}, *lsn);
  }
  return tables;
}

void Journal::record_copied(const QualifiedName& table, Lsn copy_lsn) {
  put(table_key(copied_prefix, table), copy_lsn.to_string());
  const std::string again = table_key(journal_keys::recopy, table);
  if (get(again)) erase(again);
}

std::vector<QualifiedName> Journal::tables_to_copy_again() const {
  std::vector<QualifiedName> tables;
  for (const auto& [name, value] : entries(journal_keys::recopy)) {
    const std::size_t split = name.find('\0');
    if (split != std::string::npos) tables.push_back({name.substr(0, split), name.substr(split + 1)});
  }
  return tables;
}

void Journal::record_copy_again(const QualifiedName& table) {
  put(table_key(journal_keys::recopy, table), "1");
}

void Journal::forget_copy_again(const QualifiedName& table) {
  erase(table_key(journal_keys::recopy, table));
}

void Journal::forget_copied(const QualifiedName& table) {
  erase(table_key(copied_prefix, table));
}

}  // namespace walferry::store
