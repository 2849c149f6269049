#include "engine/schema/execute_item.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "engine/schema/item_settings.hpp"
#include "engine/schema/transaction.hpp"

namespace walferry::schema {
namespace {

// Whether a query that returns booleans says true in its first row.
bool says_true(pg::Session& session, const std::string& sql) {
  const pg::Result result = session.exec(sql);
  return result.rows() > 0 && result.flag(0, 0);
}

// The FROM item "c" (and "n") that is the relation `name`.
std::string relation_named(const QualifiedName& name) {
  return fmt::format(
      "(pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace AND n.nspname = {} AND "
      "c.relname = {})",
      pg::quote_literal(name.schema), pg::quote_literal(name.name));
}

std::string index_query(const PostDataItem& item, std::string_view condition) {
  return fmt::format(
      "SELECT true FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class x ON x.oid = i.indexrelid AND x.relname = {} "
      "JOIN {} ON c.oid = i.indrelid WHERE {}",
      pg::quote_literal(item.name), relation_named(*item.table), condition);
}

// A partitioned index is invalid until all its partitions are attached; an ordinary one was broken off.
bool index_is_there(pg::Session& target, const PostDataItem& item) {
  return says_true(target, index_query(item, "i.indisvalid OR x.relkind = 'I'"));
}

bool invalid_index_is_there(pg::Session& target, const PostDataItem& item) {
  return says_true(target, index_query(item, "NOT i.indisvalid AND x.relkind = 'i'"));
}

std::string constraint_query(const PostDataItem& item) {
  // A check inherited from a parent is not yet the table's own.
  return fmt::format(
      "SELECT true FROM pg_catalog.pg_constraint k JOIN {} ON c.oid = k.conrelid WHERE k.conname = {} "
      "AND (k.contype <> 'c' OR k.conislocal)",
      relation_named(*item.table), pg::quote_literal(item.name));
}

std::string domain_constraint_query(const PostDataItem& item) {
  return fmt::format(
      "SELECT true FROM pg_catalog.pg_constraint k JOIN pg_catalog.pg_type t ON t.oid = k.contypid AND t.typname = {} "
      "JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace AND n.nspname = {} WHERE k.conname = {}",
      pg::quote_literal(item.table->name), pg::quote_literal(item.table->schema), pg::quote_literal(item.name));
}

// `catalog` has a name column and one that points to the relation: pg_trigger(tgname, tgrelid) and its like.
struct OwnedObject {
  std::string_view catalog;
  std::string_view name_column;
  std::string_view relation_column;
};

std::string owned_query(const PostDataItem& item, const OwnedObject& object) {
  return fmt::format("SELECT true FROM pg_catalog.{} o JOIN {} ON c.oid = o.{} WHERE o.{} = {}", object.catalog,
                     relation_named(*item.table), object.relation_column, object.name_column,
                     pg::quote_literal(item.name));
}

std::string trigger_state_query(const PostDataItem& item, std::string_view also_good) {
  return owned_query(item, {"pg_trigger", "tgname", "tgrelid"}) +
         fmt::format(" AND o.tgenabled IN ({}{})", pg::quote_literal(std::string_view{&item.wanted_state, 1}),
                     also_good);
}

bool sets_replica_identity(const PostDataItem& item) {
  const std::vector<Token> tokens = first_statement(item.sql);
  return std::any_of(tokens.begin(), tokens.end(), [](const Token& token) { return token.is("REPLICA"); });
}

std::string attach_query(const PostDataItem& item) {
  return fmt::format(
      "SELECT true FROM pg_catalog.pg_inherits h JOIN {} ON c.oid = h.inhrelid JOIN pg_catalog.pg_class p ON p.oid = "
      "h.inhparent "
      "AND p.relname = {} JOIN pg_catalog.pg_namespace m ON m.oid = p.relnamespace AND m.nspname = {}",
      relation_named(*item.table), pg::quote_literal(item.name), pg::quote_literal(item.schema));
}

std::string statistics_query(const PostDataItem& item) {
  return fmt::format(
      "SELECT true FROM pg_catalog.pg_statistic_ext s JOIN pg_catalog.pg_namespace o ON o.oid = s.stxnamespace AND "
      "o.nspname = {} "
      "JOIN {} ON c.oid = s.stxrelid WHERE s.stxname = {}",
      pg::quote_literal(item.schema), relation_named(*item.table), pg::quote_literal(item.name));
}

// pg_dump writes CREATE FUNCTION; the same with OR REPLACE can be repeated.
std::string repeatable_sql(const PostDataItem& item) {
  static constexpr std::string_view create = "CREATE ";
  if (item.kind != ItemKind::Routine || !item.sql.starts_with(create) || item.sql.starts_with("CREATE OR "))
    return item.sql;
  return "CREATE OR REPLACE " + item.sql.substr(create.size());
}

void disable_if_always_firing(pg::Session& target, const PostDataItem& item) {
  if (item.kind == ItemKind::Trigger || item.kind == ItemKind::TriggerState) {
    // The partitions' copies of the trigger as well.
    const pg::Result rows = target.exec(fmt::format(
        "WITH RECURSIVE t AS (SELECT t.oid, t.tgrelid, t.tgname, t.tgenabled FROM pg_catalog.pg_trigger t JOIN {} "
        "ON c.oid = t.tgrelid WHERE t.tgname = {} AND NOT t.tgisinternal "
        "UNION ALL SELECT k.oid, k.tgrelid, k.tgname, k.tgenabled FROM t JOIN pg_catalog.pg_trigger k ON k.tgparentid "
        "= t.oid) "
        "SELECT m.nspname, r.relname, t.tgname FROM t JOIN pg_catalog.pg_class r ON r.oid = t.tgrelid "
        "JOIN pg_catalog.pg_namespace m ON m.oid = r.relnamespace WHERE t.tgenabled IN ('R', 'A')",
        relation_named(*item.table), pg::quote_literal(item.name)));
    for (int row = 0; row < rows.rows(); ++row) {
      target.exec(fmt::format("ALTER TABLE ONLY {} DISABLE TRIGGER {}",
                              pg::quote_name(rows.text(row, 0), rows.text(row, 1)), pg::quote_name(rows.text(row, 2))));
    }
  } else if (item.kind == ItemKind::Rule) {
    if (says_true(target,
                  owned_query(item, {"pg_rewrite", "rulename", "ev_class"}) + " AND o.ev_enabled IN ('R', 'A')")) {
      target.exec(fmt::format("ALTER TABLE {} DISABLE RULE {}", item.table->quoted(), pg::quote_name(item.name)));
    }
  } else if (item.kind == ItemKind::EventTrigger) {
    if (says_true(target,
                  fmt::format("SELECT evtenabled IN ('R', 'A') OR (evtevent = 'login' AND evtenabled <> 'D') FROM "
                              "pg_catalog.pg_event_trigger WHERE evtname = {}",
                              pg::quote_literal(item.name)))) {
      target.exec(fmt::format("ALTER EVENT TRIGGER {} DISABLE", pg::quote_name(item.name)));
    }
  }
}

// The trigger would fire always, and is kept from it already.
bool rests_disabled(pg::Session& target, const PostDataItem& item, const ExecuteOptions& options) {
  return options.disable_always_firing && item.kind == ItemKind::TriggerState &&
         (item.wanted_state == 'R' || item.wanted_state == 'A') &&
         says_true(target, trigger_state_query(item, ", 'D'"));
}

void execute_once(pg::Session& target, const PostDataItem& item, const ExecuteOptions& options) {
  Transaction transaction{target};
  hold_settings(target, item.settings);
  if (item.kind == ItemKind::Index && invalid_index_is_there(target, item)) {
    target.exec("DROP INDEX " + pg::quote_name(item.schema, item.name));
  }
  target.exec(repeatable_sql(item));
  if (options.disable_always_firing) disable_if_always_firing(target, item);
  transaction.commit();
}

}  // namespace

void prepare_build_session(pg::Session& target) {
  // The default is a quarter of it; who has set more means it.
  target.exec(
      "SELECT pg_catalog.set_config('maintenance_work_mem', '256MB', false) FROM pg_catalog.pg_settings WHERE name = "
      "'maintenance_work_mem' AND setting::pg_catalog.int8 < 262144");
  target.exec("SET check_function_bodies = off");
}

bool item_is_there(pg::Session& target, const PostDataItem& item) {
  switch (item.kind) {
    case ItemKind::Index:
      return index_is_there(target, item);
    case ItemKind::IndexSetting:
      return says_true(target,
                       index_query(item, sets_replica_identity(item) ? "i.indisreplident" : "i.indisclustered"));
    case ItemKind::Constraint:
    case ItemKind::CheckConstraint:
    case ItemKind::ForeignKey:
      return says_true(target, constraint_query(item));
    case ItemKind::DomainConstraint:
      return says_true(target, domain_constraint_query(item));
    case ItemKind::IndexAttach:
      return says_true(target, attach_query(item));
    case ItemKind::Statistics:
      return says_true(target, statistics_query(item));
    case ItemKind::Trigger:
      return says_true(target, owned_query(item, {"pg_trigger", "tgname", "tgrelid"}) + " AND NOT o.tgisinternal");
    case ItemKind::Rule:
      return says_true(target, owned_query(item, {"pg_rewrite", "rulename", "ev_class"}));
    case ItemKind::Policy:
      return says_true(target, owned_query(item, {"pg_policy", "polname", "polrelid"}));
    case ItemKind::RowSecurity:
      return says_true(target, "SELECT c.relrowsecurity FROM " + relation_named(*item.table));
    case ItemKind::EventTrigger:
      return says_true(target, fmt::format("SELECT true FROM pg_catalog.pg_event_trigger WHERE evtname = {}",
                                           pg::quote_literal(item.name)));
    case ItemKind::MatviewDefinition:
      return says_true(target, "SELECT c.relkind = 'm' FROM " + relation_named({item.schema, item.name}));
    case ItemKind::MatviewData:
      return says_true(target, "SELECT c.relispopulated FROM " + relation_named({item.schema, item.name}));
    case ItemKind::TriggerState:
      return says_true(target, trigger_state_query(item, ""));
    case ItemKind::View:
    case ItemKind::Routine:
    case ItemKind::Other:
      break;
  }
  return false;
}

ItemOutcome execute_item(pg::Session& target, const PostDataItem& item, const ExecuteOptions& options) {
  for (int attempt = 0;; ++attempt) {
    try {
      if (item_is_there(target, item)) return ItemOutcome::AlreadyThere;
      if (rests_disabled(target, item, options)) return ItemOutcome::AlreadyThere;
      execute_once(target, item, options);
      return ItemOutcome::Executed;
    } catch (const Error& error) {
      if (error.sqlstate() == "40P01" && attempt < options.deadlock_retries) continue;
      throw error.during("making " + item.text() + " on the target");
    }
  }
}

}  // namespace walferry::schema
