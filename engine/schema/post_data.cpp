#include "engine/schema/post_data.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>

namespace walferry::schema {
namespace {

// Reads the tokens of a statement from left to right; every take leaves the position alone when it does not fit.
class TokenReader {
 public:
  explicit TokenReader(std::span<const Token> tokens) : tokens_(tokens) {}

  bool word(std::string_view expected) {
    if (at_ >= tokens_.size() || !tokens_[at_].is(expected)) return false;
    ++at_;
    return true;
  }
  bool words(std::initializer_list<std::string_view> expected) {
    const std::size_t begin = at_;
    for (const std::string_view each : expected) {
      if (!word(each)) {
        at_ = begin;
        return false;
      }
    }
    return true;
  }
  std::string name() {
    if (at_ >= tokens_.size() || !tokens_[at_].is_name()) return {};
    return tokens_[at_++].text;
  }
  // "schema.name"; a name alone has no schema.
  QualifiedName qualified_name() {
    std::string first = name();
    if (!word(".")) return {"", std::move(first)};
    return {std::move(first), name()};
  }
  // "(name, ...)" and nothing behind it, as a range of the statement's text; empty where something else stands here.
  std::pair<std::size_t, std::size_t> last_name_list() {
    std::size_t at = at_;
    const auto is = [&](std::string_view symbol) { return at < tokens_.size() && tokens_[at].is(symbol); };
    if (!is("(")) return {};
    do {
      if (++at >= tokens_.size() || !tokens_[at].is_name()) return {};
      ++at;
    } while (is(","));
    if (!is(")") || at + 1 != tokens_.size()) return {};
    return {tokens_[at_].begin, tokens_[at].end};
  }
  // Moves behind the next such word outside parentheses.
  bool skip_behind(std::string_view expected) {
    int depth = 0;
    for (std::size_t at = at_; at < tokens_.size(); ++at) {
      if (tokens_[at].is("(")) ++depth;
      if (tokens_[at].is(")")) --depth;
      if (depth == 0 && tokens_[at].is(expected)) {
        at_ = at + 1;
        return true;
      }
    }
    return false;
  }

 private:
  std::span<const Token> tokens_;
  std::size_t at_ = 0;
};

void name_as(PostDataItem& item, QualifiedName name) {
  item.schema = std::move(name.schema);
  item.name = std::move(name.name);
}

void read_index(TokenReader& in, PostDataItem& item) {
  item.name = in.name();
  if (!in.word("ON")) return;
  in.word("ONLY");
  item.table = in.qualified_name();
  item.schema = item.table->schema;
  item.kind = ItemKind::Index;
}

// "ENABLE REPLICA TRIGGER" and its like, as the letter of pg_trigger.tgenabled; ' ' for anything else.
char read_trigger_state(TokenReader& in) {
  if (in.words({"DISABLE", "TRIGGER"})) return 'D';
  if (in.words({"ENABLE", "REPLICA", "TRIGGER"})) return 'R';
  if (in.words({"ENABLE", "ALWAYS", "TRIGGER"})) return 'A';
  return in.words({"ENABLE", "TRIGGER"}) ? 'O' : ' ';
}

void read_alter_table(TokenReader& in, PostDataItem& item) {
  in.word("ONLY");
  const QualifiedName table = in.qualified_name();
  item.schema = table.schema;
  if (in.words({"ADD", "CONSTRAINT"})) {
    item.name = in.name();
    item.kind = ItemKind::Constraint;
    if (in.words({"FOREIGN", "KEY"})) item.kind = ItemKind::ForeignKey;
    if (in.word("CHECK") || in.words({"NOT", "NULL"})) item.kind = ItemKind::CheckConstraint;
  } else if (in.words({"ENABLE", "ROW", "LEVEL", "SECURITY"})) {
    item.kind = ItemKind::RowSecurity;
    item.name = table.name;
  } else if ((item.wanted_state = read_trigger_state(in)) != ' ') {
    item.kind = ItemKind::TriggerState;
    item.name = in.name();
  } else {
    return;
  }
  item.table = table;
}

void read_trigger(TokenReader& in, PostDataItem& item) {
  item.name = in.name();
  // Column names of UPDATE OF cannot be mistaken: one called "on" is quoted.
  if (!in.skip_behind("ON")) return;
  item.table = in.qualified_name();
  item.schema = item.table->schema;
  item.kind = ItemKind::Trigger;
}

void read_rule(TokenReader& in, PostDataItem& item) {
  item.name = in.name();
  if (!in.words({"AS", "ON"}) || !in.skip_behind("TO")) return;
  item.table = in.qualified_name();
  item.schema = item.table->schema;
  item.kind = ItemKind::Rule;
}

void read_statistics(TokenReader& in, PostDataItem& item) {
  name_as(item, in.qualified_name());
  if (!in.skip_behind("FROM")) return;
  item.table = in.qualified_name();
  item.kind = ItemKind::Statistics;
}

void read_create(TokenReader& in, PostDataItem& item) {
  in.words({"OR", "REPLACE"});
  if (in.words({"UNIQUE", "INDEX"}) || in.word("INDEX")) return read_index(in, item);
  if (in.words({"CONSTRAINT", "TRIGGER"}) || in.word("TRIGGER")) return read_trigger(in, item);
  if (in.word("RULE")) return read_rule(in, item);
  if (in.word("STATISTICS")) return read_statistics(in, item);
  if (in.words({"EVENT", "TRIGGER"})) {
    item.kind = ItemKind::EventTrigger;
    item.name = in.name();
  } else if (in.word("POLICY")) {
    item.kind = ItemKind::Policy;
    item.name = in.name();
    if (in.word("ON")) item.table = in.qualified_name();
    if (item.table) item.schema = item.table->schema;
  } else if (in.words({"MATERIALIZED", "VIEW"})) {
    item.kind = ItemKind::MatviewDefinition;
    name_as(item, in.qualified_name());
  } else if (in.word("VIEW")) {
    item.kind = ItemKind::View;
    name_as(item, in.qualified_name());
  } else if (in.word("FUNCTION") || in.word("PROCEDURE")) {
    item.kind = ItemKind::Routine;
    name_as(item, in.qualified_name());
  }
}

void read_attach(TokenReader& in, PostDataItem& item) {
  name_as(item, in.qualified_name());
  if (!in.words({"ATTACH", "PARTITION"})) return;
  item.table = in.qualified_name();
  item.kind = ItemKind::IndexAttach;
}

void read_alter_domain(TokenReader& in, PostDataItem& item) {
  item.table = in.qualified_name();
  item.schema = item.table->schema;
  if (!in.words({"ADD", "CONSTRAINT"})) return;
  item.name = in.name();
  item.kind = ItemKind::DomainConstraint;
}

bool is_remark(const PostDataItem& item) {
  return item.sql.starts_with("COMMENT ON ") || item.sql.starts_with("SECURITY LABEL ");
}

Stage stage_by_kind(ItemKind kind) {
  switch (kind) {
    case ItemKind::Index:
    case ItemKind::Constraint:
    case ItemKind::Statistics:
      return Stage::Table;
    case ItemKind::IndexSetting:
    case ItemKind::CheckConstraint:  // reaches into child tables, whose copy may still run
    case ItemKind::DomainConstraint:
    case ItemKind::IndexAttach:
      return Stage::Remaining;
    case ItemKind::ForeignKey:
      return Stage::ForeignKeys;
    case ItemKind::Trigger:
    case ItemKind::TriggerState:
    case ItemKind::Rule:
    case ItemKind::Policy:
    case ItemKind::RowSecurity:
    case ItemKind::EventTrigger:
    case ItemKind::View:
    case ItemKind::MatviewDefinition:
    case ItemKind::MatviewData:
    case ItemKind::Routine:
    case ItemKind::Other:
      break;
  }
  return Stage::Last;
}

// Takes "ALTER TABLE ... CLUSTER ON / REPLICA IDENTITY USING INDEX" out of an index's item: two such items of one table
// in parallel would deadlock after the index was built, each holding the lock of CREATE INDEX.
std::vector<PostDataItem> take_settings(PostDataItem& index) {
  std::vector<PostDataItem> settings;
  if (index.kind != ItemKind::Index) return settings;
  std::string kept;
  for (std::string& statement : split_statements(index.sql)) {
    if (statement.starts_with("ALTER TABLE ")) {
      PostDataItem setting = index;
      setting.kind = ItemKind::IndexSetting;
      setting.stage = std::max(index.stage, Stage::Remaining);
      setting.sql = std::move(statement);
      settings.push_back(std::move(setting));
    } else {
      kept += (kept.empty() ? "" : "\n\n") + statement;
    }
  }
  index.sql = std::move(kept);
  return settings;
}

// Takes the index out of a primary key's or unique constraint's item, which then only takes the index over: to add the
// constraint locks the table, and no other index of it could be built at the same time. Only of what CREATE INDEX says
// in the same words: columns, and nothing else.
std::optional<PostDataItem> take_key_index(PostDataItem& constraint) {
  const std::vector<Token> tokens = first_statement(constraint.sql);
  TokenReader in{tokens};
  if (!in.words({"ALTER", "TABLE"})) return {};
  in.word("ONLY");
  in.qualified_name();
  if (!in.words({"ADD", "CONSTRAINT"})) return {};
  in.name();
  if (!in.words({"PRIMARY", "KEY"}) && !in.word("UNIQUE")) return {};
  const auto [begin, end] = in.last_name_list();
  if (begin == end) return {};
  PostDataItem index = constraint;
  index.kind = ItemKind::Index;
  index.sql = fmt::format("CREATE UNIQUE INDEX {} ON {} USING btree {};", pg::quote_name(index.name),
                          index.table->quoted(), constraint.sql.substr(begin, end - begin));
  constraint.sql.replace(begin, end - begin, "USING INDEX " + pg::quote_name(constraint.name));
  constraint.stage = Stage::Remaining;
  return index;
}

bool builds_index(const PostDataItem& item) {
  return item.stage == Stage::Table && item.kind != ItemKind::Statistics;
}

// The stage of `item` beside one that it depends on.
Stage stage_after(const PostDataItem& item, const PostDataItem& needed) {
  if (needed.stage == Stage::Last) return Stage::Last;
  if (needed.stage == Stage::ForeignKeys) return Stage::Last;  // never beside it: that stage is parallel
  // pg_dump lets a partition's index depend on its parent's for the order alone; the attachment is an item of its own.
  if (needed.table != item.table && item.stage == Stage::Table) return Stage::Table;
  return std::max(item.stage, Stage::Remaining);
}

}  // namespace

std::string_view to_string(ItemKind kind) {
  switch (kind) {
    case ItemKind::Index:
      return "index";
    case ItemKind::IndexSetting:
      return "table setting by index";
    case ItemKind::Constraint:
      return "constraint";
    case ItemKind::CheckConstraint:
      return "check constraint";
    case ItemKind::DomainConstraint:
      return "domain constraint";
    case ItemKind::ForeignKey:
      return "foreign key";
    case ItemKind::IndexAttach:
      return "index attachment";
    case ItemKind::Statistics:
      return "statistics object";
    case ItemKind::Trigger:
      return "trigger";
    case ItemKind::TriggerState:
      return "state of trigger";
    case ItemKind::Rule:
      return "rule";
    case ItemKind::Policy:
      return "policy";
    case ItemKind::RowSecurity:
      return "row security";
    case ItemKind::EventTrigger:
      return "event trigger";
    case ItemKind::View:
      return "view";
    case ItemKind::MatviewDefinition:
      return "materialized view";
    case ItemKind::MatviewData:
      return "rows of materialized view";
    case ItemKind::Routine:
      return "routine";
    case ItemKind::Other:
      break;
  }
  return "item";
}

std::string PostDataItem::text() const {
  std::string what = fmt::format("{} {}", to_string(kind), schema.empty() ? name : schema + "." + name);
  if (kind == ItemKind::IndexAttach && table) return what + " of " + table->text();
  if (table && table->name != name) what += " on " + table->text();
  return what;
}

PostDataItem make_item(const ScriptEntry& entry) {
  PostDataItem item;
  item.dump_id = entry.dump_id;
  item.depends_on = entry.depends_on;
  item.settings = entry.settings;
  item.sql = entry.sql;
  const std::vector<Token> tokens = first_statement(entry.sql);
  TokenReader in{tokens};
  if (in.word("CREATE")) {
    read_create(in, item);
  } else if (in.words({"ALTER", "TABLE"})) {
    read_alter_table(in, item);
  } else if (in.words({"ALTER", "INDEX"})) {
    read_attach(in, item);
  } else if (in.words({"ALTER", "DOMAIN"})) {
    read_alter_domain(in, item);
  } else if (in.words({"REFRESH", "MATERIALIZED", "VIEW"})) {
    item.kind = ItemKind::MatviewData;
    name_as(item, in.qualified_name());
  }
  if (item.kind == ItemKind::Other) item.name = entry.type + " " + entry.tag;
  item.stage = stage_by_kind(item.kind);
  return item;
}

PostDataPlan::PostDataPlan(std::span<const ScriptEntry> entries, const std::set<QualifiedName>& copied) {
  std::vector<PostDataItem> items;
  items.reserve(entries.size());
  std::map<int, std::size_t> position;  // of the item of a dump id
  for (const ScriptEntry& entry : entries) {
    PostDataItem item = make_item(entry);
    item.order = static_cast<int>(&entry - entries.data());
    if (item.stage == Stage::Table && !(item.table && copied.contains(*item.table))) item.stage = Stage::Remaining;
    PostDataItem* owner = nullptr;
    for (const int dump_id : item.depends_on) {
      const auto needed = position.find(dump_id);
      if (needed == position.end()) continue;
      owner = &items[needed->second];
      if (!is_remark(item)) item.stage = std::max(item.stage, stage_after(item, *owner));
    }
    if (owner != nullptr && is_remark(item)) {
      owner->sql += "\n\n" + item.sql;
      continue;
    }
    position.emplace(item.dump_id, items.size());
    std::vector<PostDataItem> settings = take_settings(item);
    items.push_back(std::move(item));
    std::move(settings.begin(), settings.end(), std::back_inserter(items));
  }
  std::map<QualifiedName, int> builds;
  for (const PostDataItem& item : items) {
    if (builds_index(item)) ++builds[*item.table];
  }
  for (PostDataItem& item : items) {
    if (builds_index(item) && builds[*item.table] > 1) {
      if (auto index = take_key_index(item)) table_items_[*item.table].push_back(*std::move(index));
    }
    switch (item.stage) {
      case Stage::Table:
        table_items_[*item.table].push_back(std::move(item));
        break;
      case Stage::Remaining:
        remaining_.push_back(std::move(item));
        break;
      case Stage::ForeignKeys:
        foreign_keys_.push_back(std::move(item));
        break;
      case Stage::Last:
        last_.push_back(std::move(item));
        break;
    }
  }
}

std::span<const PostDataItem> PostDataPlan::table_items(const QualifiedName& table) const {
  const auto found = table_items_.find(table);
  return found == table_items_.end() ? std::span<const PostDataItem>{} : found->second;
}

std::vector<QualifiedName> PostDataPlan::tables() const {
  std::vector<QualifiedName> names;
  for (const auto& [table, items] : table_items_) names.push_back(table);
  return names;
}

std::size_t PostDataPlan::size() const {
  std::size_t count = remaining_.size() + foreign_keys_.size() + last_.size();
  for (const auto& [table, items] : table_items_) count += items.size();
  return count;
}

}  // namespace walferry::schema
