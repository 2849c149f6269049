#include "engine/ddl/command.hpp"

#include <fmt/format.h>
#include <simdjson.h>

#include <algorithm>
#include <array>
#include <string_view>

#include "engine/ddl/statement.hpp"
#include "engine/error.hpp"
#include "engine/schema/sql_script.hpp"

namespace walferry::ddl {
namespace {

using simdjson::dom::element;

std::string text_of(const element& object, const char* key) {
  std::string_view value;
  return object[key].get(value) == simdjson::SUCCESS ? std::string{value} : std::string{};
}

bool flag_of(const element& object, const char* key) {
  bool value = false;
  return object[key].get(value) == simdjson::SUCCESS && value;
}

RelationId relation_of(const element& object) {
  std::uint64_t oid = 0;
  if (object["oid"].get(oid) != simdjson::SUCCESS) oid = 0;
  return RelationId{static_cast<std::uint32_t>(oid)};
}

void read_added_values(const element& from, std::vector<AddedValues>& added) {
  simdjson::dom::object missing;
  if (from["missing"].get(missing) != simdjson::SUCCESS) return;
  AddedValues& of_table = added.emplace_back(
      AddedValues{.table = {text_of(from, "schema"), text_of(from, "name")}, .id = relation_of(from)});
  for (const auto [column, value] : missing) {
    std::string_view text;
    std::optional<std::string>& entry = of_table.values[std::string{column}];
    if (value.get(text) == simdjson::SUCCESS) entry = std::string{text};
  }
}

Object read_object(const element& from) {
  Object object;
  object.type = text_of(from, "type");
  object.identity = text_of(from, "identity");
  const std::string kind = text_of(from, "kind");
  if (kind.empty()) return object;
  object.id = relation_of(from);
  object.table = QualifiedName{text_of(from, "schema"), text_of(from, "name")};
  object.holds_rows = kind == "r" && text_of(from, "persistence") == "p";
  object.published = flag_of(from, "published");
  read_added_values(from, object.added);
  simdjson::dom::array below;
  if (from["below"].get(below) == simdjson::SUCCESS) {
    for (const element& table : below) read_added_values(table, object.added);
  }
  return object;
}

// "schema.\"Name\"", as pg_identify_object writes it.
std::optional<QualifiedName> parse_identity(const std::string& identity) {
  const std::vector<schema::Token> tokens = schema::first_statement(identity);
  if (tokens.size() != 3 || !tokens[0].is_name() || !tokens[1].is(".") || !tokens[2].is_name()) return std::nullopt;
  return QualifiedName{tokens[0].text, tokens[2].text};
}

// Streamed transactions say of rows, but not of messages, to which of their subtransactions they belong.
bool was_rolled_back(const element& message, const Place& place) {
  simdjson::dom::array transactions;
  if (message["transactions"].get(transactions) != simdjson::SUCCESS) return false;
  return std::ranges::any_of(transactions, [&](const element& transaction) {
    std::uint64_t xid = 0;
    return transaction.get(xid) == simdjson::SUCCESS &&
           std::ranges::binary_search(place.aborted, Xid{static_cast<std::uint32_t>(xid)});
  });
}

bool is_ddl_of_rows(const std::string& tag) {
  return tag == "CREATE TABLE AS" || tag == "SELECT INTO";
}

}  // namespace

std::string Command::title() const {
  std::string names;
  for (const Object& object : objects) {
    if (object.identity.empty()) continue;
    if (!names.empty()) names += ", ";
    names += object.identity;
    if (names.size() > 200) {
      names += " ...";
      break;
    }
  }
  return names.empty() ? tag : tag + " " + names;
}

bool Command::may_bring_actions() const {
  static constexpr std::array<std::string_view, 8> tags{"CREATE TABLE", "CREATE TABLE AS", "SELECT INTO",
                                                        "ALTER TABLE",  "CREATE TRIGGER",  "ALTER TRIGGER",
                                                        "CREATE RULE",  "CREATE SCHEMA"};
  return std::ranges::count(tags, tag) > 0;
}

std::vector<QualifiedName> Command::dropped_tables() const {
  std::vector<QualifiedName> tables;
  for (const Object& object : objects) {
    if (!object.dropped || object.type != "table") continue;
    if (const auto name = parse_identity(object.identity)) tables.push_back(*name);
  }
  return tables;
}

std::string Command::to_run() const {
  std::string path;
  for (const auto& [name, value] : settings) {
    if (name == "search_path") path = value;
  }
  return fmt::format("SET search_path = {}; {}", path.empty() ? "''" : path, statement ? *statement : query);
}

void Reader::reset() {
  dropped_.clear();
  rewritten_.clear();
  query_key_.clear();
  next_statement_ = 0;
}

std::optional<Command> Reader::accept(std::string_view content, const Place& place) {
  simdjson::dom::parser parser;
  element message;
  // Any role may write messages: what does not carry the secret, or is no JSON, is not ours.
  if (parser.parse(simdjson::padded_string{content}).get(message) != simdjson::SUCCESS) return std::nullopt;
  if (secret_.empty() || text_of(message, "secret") != secret_) return std::nullopt;

  if (was_rolled_back(message, place)) return std::nullopt;
  simdjson::dom::array objects;
  const std::string event = text_of(message, "event");
  if (message["objects"].get(objects) != simdjson::SUCCESS) {
    throw Error{{ErrorKind::Protocol, Side::Source},
                fmt::format("the schema change at {} cannot be read. Remedy: use the version of walferry that began "
                            "this migration",
                            place.lsn.to_string())};
  }
  if (event == "table_rewrite") {
    for (const element object : objects) {
      std::int64_t reason = 0;
      if (object["reason"].get(reason) != simdjson::SUCCESS) reason = ~std::int64_t{0};
      rewritten_.push_back(
          {.table = text_of(object, "identity"), .id = relation_of(object), .reason = static_cast<int>(reason & 0xFF)});
    }
    return std::nullopt;
  }
  if (event == "sql_drop") {
    for (const element object : objects) {
      dropped_.push_back(read_object(object));
      dropped_.back().dropped = true;
    }
    return std::nullopt;
  }

  Command command;
  command.lsn = place.lsn;
  command.commit_lsn = place.commit_lsn;
  command.xid = place.xid;
  command.tag = text_of(message, "tag");
  command.role = text_of(message, "role");
  command.query = text_of(message, "query");
  command.objects = std::exchange(dropped_, {});
  const auto rewritten = std::exchange(rewritten_, {});
  for (const element object : objects) command.objects.push_back(read_object(object));
  simdjson::dom::object settings;
  if (message["settings"].get(settings) == simdjson::SUCCESS) {
    for (const auto [name, value] : settings) {
      std::string_view text;
      if (value.get(text) == simdjson::SUCCESS) command.settings.emplace_back(name, text);
    }
  }

  double at = 0;
  if (message["at"].get(at) != simdjson::SUCCESS) at = 0;
  const std::string context = text_of(message, "context");
  const std::optional<std::string> text = command_text(command.query, context);
  // With standard_conforming_strings off a backslash moves where strings end, which is not followed here.
  const bool plain_strings =
      std::ranges::find(command.settings, std::pair<std::string, std::string>{"standard_conforming_strings", "off"}) ==
      command.settings.end();
  if (text && (plain_strings || text->find('\\') == std::string::npos)) {
    const std::string key = fmt::format("{} {} {}", at, context.substr(context.find('\n') + 1), *text);
    if (key != query_key_) next_statement_ = 0;
    query_key_ = key;
    if (const auto found = find_statement(*text, command.tag, next_statement_)) {
      command.statement = for_transaction(found->statement);
      next_statement_ = found->next;
    }
  }
  if (command.objects.empty()) return std::nullopt;  // of temporary objects, or it changed nothing

  if (!command.statement) {
    command.not_executable = "it ran among other statements or inside a function and cannot be told apart from them";
  } else if (is_ddl_of_rows(command.tag)) {
    command.not_executable = "it fills the table from a query, whose rows are not in the stream";
  }
  for (const auto& [table, id, reason] : rewritten) {
    // A command that cannot be told apart may have made any values.
    const std::string doubt = command.statement ? rewrite_doubt(*command.statement, reason) : command.not_executable;
    if (doubt.empty()) continue;
    if (const auto name = parse_identity(table)) {
      command.rewritten.push_back({.name = *name, .id = id});
    } else if (command.statement) {
      command.not_executable = fmt::format("it rewrites {}: {}", table, doubt);
    }
  }
  return command;
}

}  // namespace walferry::ddl
