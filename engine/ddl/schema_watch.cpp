#include "engine/ddl/schema_watch.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <set>

namespace walferry::ddl {
namespace {

namespace keys = store::journal_keys;

pg::Session open(const pg::ConnInfo& info) {
  // Somebody's exclusive lock must not hold a thread for long: there is a next time.
  return pg::Session::open(
      info, {.application_name = "walferry schema", .settings = {"lock_timeout=3s", "statement_timeout=60s"}});
}

// "column public.t.c" is about "public.t.c".
bool names(const std::string& object, const std::string& identity) {
  return !identity.empty() && object.size() > identity.size() && object.ends_with(identity) &&
         object[object.size() - identity.size() - 1] == ' ';
}

// Not an object of its own but a part of its owner.
bool is_part(const Difference& difference) {
  static constexpr std::array<std::string_view, 7> parts{"column ", "constraint ", "index ",     "trigger ",
                                                         "rule ",   "policy ",     "statistics "};
  return std::ranges::any_of(parts, [&](std::string_view part) { return difference.object.starts_with(part); });
}

bool same(const Inventory& left, const Inventory& right, const std::string& object) {
  const auto in_left = left.find(object);
  const auto in_right = right.find(object);
  if (in_left == left.end() || in_right == right.end()) return in_left == left.end() && in_right == right.end();
  return in_left->second == in_right->second;
}

// What belongs to an object: itself and its parts.
Inventory part_of(const Inventory& inventory, const std::string& identity) {
  Inventory part;
  for (const auto& [object, entry] : inventory) {
    if (entry.owner == identity || names(object, identity)) part.emplace(object, entry);
  }
  return part;
}

std::string remedy_of(const Difference& difference) {
  const std::string_view kind = std::string_view{difference.object}.substr(0, difference.object.find(' '));
  const std::string name = difference.object.substr(difference.object.find(' ') + 1);
  if (difference.change == "dropped") {
    if (kind == "column") {
      return fmt::format("on the target: ALTER TABLE {} DROP COLUMN {}", difference.owner,
                         name.substr(std::min(difference.owner.size() + 1, name.size())));
    }
    if (kind == "constraint") {
      return fmt::format("on the target: ALTER TABLE {} DROP CONSTRAINT {}", difference.owner,
                         name.substr(0, name.rfind(" on ")));
    }
    std::string word{kind};
    std::ranges::transform(word, word.begin(),
                           [](char c) { return static_cast<char>(std::toupper(static_cast<unsigned char>(c))); });
    return fmt::format("on the target: DROP {} {}", word, name);
  }
  if (kind == "column" && difference.change == "added") {
    return fmt::format("on the target: ALTER TABLE {} ADD COLUMN {} {}", difference.owner,
                       name.substr(std::min(difference.owner.size() + 1, name.size())), difference.definition);
  }
  if (kind == "constraint" && difference.change == "added") {
    return fmt::format("on the target: ALTER TABLE {} ADD CONSTRAINT {} {}", difference.owner,
                       name.substr(0, name.rfind(" on ")), difference.definition);
  }
  if (kind == "index" || kind == "trigger" || kind == "rule" || kind == "statistics" || kind == "function" ||
      kind == "procedure") {
    return "on the target: " + difference.definition;
  }
  if (kind == "schema" || kind == "extension")
    return fmt::format("on the target: CREATE {} {}", kind == "schema" ? "SCHEMA" : "EXTENSION", name);
  return fmt::format("make the same change on the target{}",
                     difference.definition.empty() ? "" : "; it is now: " + difference.definition);
}

// What a person has seen of an object; its definition is in it, where it has one.
std::string seen(const DdlFinding& finding) {
  return finding.change + "\n" + finding.remedy;
}

std::set<std::string> read_keys(const store::Journal& journal, std::string_view below) {
  std::set<std::string> found;
  for (const auto& [key, value] : journal.entries(below)) found.insert(key);
  return found;
}

bool is_passed(const std::set<std::string>& passed, const Difference& difference) {
  return passed.contains(difference.owner) ||
         std::ranges::any_of(passed, [&](const std::string& identity) { return names(difference.object, identity); });
}

// How the inventory names the tables that were copied.
std::set<std::string> selected_tables(pg::Session& source, const store::Journal& journal) {
  std::vector<std::string> schemas;
  std::vector<std::string> tables;
  for (const auto& [name, lsn] : journal.copied_tables()) {
    schemas.push_back(name.schema);
    tables.push_back(name.name);
  }
  const pg::Result rows = source.exec(
      fmt::format("SELECT pg_catalog.format('%I.%I', s, t) FROM unnest({}::text[], {}::text[]) AS n(s, t)",
                  pg::quote_literal(pg::array_literal(schemas)), pg::quote_literal(pg::array_literal(tables))));
  std::set<std::string> names;
  for (int row = 0; row < rows.rows(); ++row) names.insert(rows.str(row, 0));
  return names;
}

}  // namespace

void SchemaWatch::record_baseline(pg::Session& source, store::Journal& journal) {
  journal.put(keys::ddl_baseline, encode(read_inventory(source)));
}

std::vector<DdlFinding> SchemaWatch::compare() {
  pg::Session source = open(source_);
  const std::string digest = read_digest(source);
  if (digest == settled_digest_) return {};
  const auto recorded = journal_->get(keys::ddl_baseline);
  if (!recorded) {
    // Begun by a walferry that kept none: from now on.
    record_baseline(source, *journal_);
    return {};
  }
  Inventory baseline = decode_inventory(*recorded);
  const Inventory now = read_inventory(source);
  std::vector<Difference> changed = differences(baseline, now);
  if (journal_->get(keys::selection)) {
    // What else there is may be left out on the target, and nobody asked for it.
    const std::set<std::string> selected = selected_tables(source, *journal_);
    std::erase_if(changed, [&](const Difference& difference) { return !selected.contains(difference.owner); });
  }
  if (changed.empty()) {
    settled_digest_ = digest;
    return {};
  }
  pg::Session target = open(target_);
  const Inventory there = read_inventory(target);
  const std::set<std::string> passed = read_keys(*journal_, keys::ddl_passed);
  const auto accepted = journal_->entries(keys::ddl_accept);
  std::vector<Difference> open_differences;
  bool settled = false;
  const auto settle = [&](const Difference& difference) {
    baseline.erase(difference.object);
    if (const auto entry = now.find(difference.object); entry != now.end()) baseline.insert(*entry);
    settled = true;
  };
  for (const Difference& difference : changed) {
    const bool agreed = same(now, there, difference.object);
    if (!agreed && !is_passed(passed, difference)) {
      open_differences.push_back(difference);
      continue;
    }
    // Should its message still come, the apply finds here that it is done.
    if (agreed) journal_->put(std::string{keys::ddl_agreed} + difference.owner, "1");
    settle(difference);
  }
  std::set<std::string> whole;  // objects that came or went as a whole stand for their parts
  for (const Difference& difference : open_differences) {
    if (difference.change != "changed" && !is_part(difference)) whole.insert(difference.owner);
  }
  const auto stands_for = [&](const Difference& finding, const Difference& difference) {
    return finding.object == difference.object || (is_part(difference) && !is_part(finding) &&
                                                   finding.owner == difference.owner && whole.contains(finding.owner));
  };
  std::vector<DdlFinding> findings;
  for (const Difference& difference : open_differences) {
    if (is_part(difference) && whole.contains(difference.owner)) continue;
    DdlFinding finding{.object = difference.object, .change = difference.change, .remedy = remedy_of(difference)};
    if (std::ranges::count(accepted, std::pair{finding.object, seen(finding)}) == 0) {
      findings.push_back(std::move(finding));
      continue;
    }
    for (const Difference& part : open_differences) {
      if (stands_for(difference, part)) settle(part);
    }
  }
  // First: an interruption between the two asks the person again.
  for (const auto& [object, what] : accepted) journal_->erase(std::string{keys::ddl_accept} + object);
  if (settled) journal_->put(keys::ddl_baseline, encode(baseline));
  if (findings.empty()) {
    for (const std::string& identity : passed) journal_->erase(std::string{keys::ddl_passed} + identity);
  }
  return findings;
}

bool SchemaWatch::target_has(pg::Session& target, const Command& command) {
  pg::Session source = open(source_);
  const Inventory now = read_inventory(source);
  const Inventory there = read_inventory(target);
  const Inventory baseline = decode_inventory(journal_->get(keys::ddl_baseline).value_or(""));
  bool compared = false;
  bool left_a_trace = command.tag.starts_with("CREATE ") || command.tag.starts_with("DROP ");
  for (const Object& object : command.objects) {
    if (object.identity.empty()) return false;
    const Inventory on_source = part_of(now, object.identity);
    const Inventory on_target = part_of(there, object.identity);
    if (object.dropped ? !on_target.empty() : on_source.empty() || on_source != on_target) {
      journal_->put(keys::ddl_differed, command.lsn.to_string());
      return false;
    }
    compared = true;
    left_a_trace = left_a_trace || part_of(baseline, object.identity) != on_source ||
                   journal_->get(std::string{keys::ddl_agreed} + object.identity);
  }
  return compared && (left_a_trace || journal_->get(keys::ddl_differed) == command.lsn.to_string());
}

void SchemaWatch::passed(const Command& command) {
  for (const Object& object : command.objects) {
    if (!object.identity.empty()) journal_->put(std::string{keys::ddl_passed} + object.identity, "1");
  }
}

void SchemaWatch::accept(store::Journal& journal, const DdlFinding& finding, const std::string& reason) {
  journal.put(std::string{keys::ddl_accepted} + finding.object, reason);
  journal.put(std::string{keys::ddl_accept} + finding.object, seen(finding));
}

}  // namespace walferry::ddl
