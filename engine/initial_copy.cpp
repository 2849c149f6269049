#include "engine/initial_copy.hpp"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>

#include "engine/copy/table_copy.hpp"
#include "engine/outside/large_objects.hpp"
#include "engine/pg/event_triggers.hpp"
#include "engine/schema/archive.hpp"
#include "engine/schema/roles.hpp"
#include "engine/schema/target_prepare.hpp"
#include "engine/schema_record.hpp"
#include "engine/target_state.hpp"

namespace walferry {
namespace {

namespace keys = store::journal_keys;

std::set<QualifiedName> names_of(const std::map<QualifiedName, Lsn>& copied) {
  std::set<QualifiedName> names;
  for (const auto& [name, lsn] : copied) names.insert(name);
  return names;
}

// Those of the copied tables that went through the stream since, where tables were copied at different moments.
std::set<QualifiedName> gone_since(std::set<QualifiedName> copied, pg::Session& target) {
  for (const Table& table : read_table_list(target).tables) copied.erase(table.name);
  return copied;
}

std::vector<schema::PostDataItem> without(const std::set<QualifiedName>& gone,
                                          std::span<const schema::PostDataItem> items) {
  std::vector<schema::PostDataItem> kept{items.begin(), items.end()};
  std::erase_if(kept, [&](const schema::PostDataItem& item) { return item.table && gone.contains(*item.table); });
  return kept;
}

}  // namespace

// The receiver writes down where it has moved to, then looks at what was copied; here it is the other way round. So one
// of the two sees rows that the new primary does not have.
void InitialCopy::record_copied(const Table& table) {
  journal_.record_copied(table.name, table.relation(), snapshot_->lsn());
  try {
    copy::require_shared_past(snapshot_->history(), snapshot_->lsn(), journal_.get(keys::source_timeline));
  } catch (...) {
    journal_.forget_copied(table.name);
    throw;
  }
}

copy::Snapshot& InitialCopy::snapshot() {
  if (snapshot_ && snapshot_->alive()) return *snapshot_;
  snapshot_.reset();
  watch_.on_activity("taking a new snapshot of the source");
  copy::Snapshot snapshot = copy::Snapshot::create({.source = options_.source,
                                                    .client_encoding = ends_.client_encoding,
                                                    .slot = copy::temporary_slot_name(options_.slot),
                                                    .temporary = true});
  copy::require_shared_past(snapshot.history(), snapshot.lsn(), journal_.get(keys::source_timeline));
  snapshot_ = std::move(snapshot);
  return *snapshot_;
}

schema::PgTools InitialCopy::pg_tools() const {
  const schema::Majors majors{.source = schema::major_of(ends_.source.server_version),
                              .target = schema::major_of(ends_.target.server_version)};
  const auto tools = schema::find_pg_tools(options_.pg_bin_dir, majors);
  if (tools) return *tools;
  throw Error{
      {ErrorKind::Schema},
      fmt::format("no pg_dump serves a source of major {}; found: {}. Remedy: install postgresql-client-{} or name the "
                  "folder with --pg-bin-dir",
                  majors.source, schema::describe_pg_tools(schema::list_pg_tools(options_.pg_bin_dir)), majors.target)};
}

schema::PostDataPlan InitialCopy::read_plan(const std::set<QualifiedName>& tables) const {
  return {schema::read_section(pg_tools(), archive_path(), schema::Section::PostData,
                               {.owners = options_.owners, .privileges = options_.owners}, options_.source.stop()),
          tables};
}

copy::IndexBuilderOptions InitialCopy::build_options() const {
  return {.target = options_.target,
          .migration = options_.slot,
          .client_encoding = ends_.client_encoding,
          .jobs = options_.jobs};
}

void InitialCopy::move_schema() {
  const std::string snapshot_id = snapshot().id();
  watch_.on_activity("copying the schema");
  pg::Session target =
      pg::Session::open(options_.target, {.application_name = "walferry", .client_encoding = ends_.client_encoding});
  pg::Session source = pg::Session::open(options_.source, {.application_name = "walferry"});
  if (!schema_record::stands(target, options_.slot)) {
    journal_.put(keys::target_public_grants, schema::public_schema_state(target));
    if (options_.owners) {
      for (const schema::CreatedRole& role : schema::create_missing_roles(source, target)) {
        for (const std::string& remark : role.remarks) spdlog::warn("role {}: {}", role.name, remark);
      }
    }
    const schema::PgTools tools = pg_tools();
    try {
      schema::dump_schema(tools, options_.source, archive_path(),
                          {.snapshot = snapshot_id, .encoding = ends_.client_encoding}, options_.source.stop());
    } catch (const Error& error) {
      if (error.kind() != ErrorKind::Schema || snapshot_->alive()) throw;
      // pg_dump failed because the snapshot went with its holder: the next attempt takes a new one.
      throw Error{{ErrorKind::Sql, Side::Source, std::string{pg::snapshot_gone}}, error.what()};
    }
    schema::select_entries(tools, archive_path(), objects_left_out(source, options_.selection), options_.source.stop());
    const std::size_t entries =
        schema::restore_pre_data(tools, target, archive_path(),
                                 {.ownership = {.owners = options_.owners, .privileges = options_.owners},
                                  .record = schema_record::statements(options_.slot)},
                                 options_.source.stop());
    spdlog::info("schema: {} objects made on the target before the rows", entries);
  }
  relax_target(source, target, journal_);
}

std::vector<Table> InitialCopy::tables() {
  if (options_.adopt) {
    pg::Session source = pg::Session::open(options_.source, {.application_name = "walferry"});
    return published_tables(source, recorded_publications(journal_));
  }
  return published_tables(snapshot().holder(), recorded_publications(journal_));
}

void InitialCopy::copy(const std::vector<Table>& tables) {
  const auto copied = journal_.copied_tables();
  if (options_.adopt) {
    for (const Table& table : tables) journal_.record_copied(table.name, table.relation(), *options_.adopt);
    return;
  }
  if (!options_.copy) {
    // Everything since the slot counts, whatever snapshot lists the tables.
    const Lsn slot_lsn = Lsn::parse(journal_.get(keys::slot_lsn).value_or("")).value_or(Lsn{});
    for (const Table& table : tables) journal_.record_copied(table.name, table.relation(), slot_lsn);
    snapshot_.reset();
    return;
  }
  pg::Session target = pg::Session::open(options_.target, {.client_encoding = ends_.client_encoding});
  const Catalog target_catalog = read_catalog(target);
  std::set<QualifiedName> names;
  std::vector<copy::TableToCopy> to_copy;
  leave_out_what_went(tables);
  const bool own_publication = journal_.get(keys::own_publication).has_value();
  std::set<RelationId> begun_with;
  for (const auto& [name, id] : journal_.slot_tables()) begun_with.insert(id);
  for (const Table& table : tables) {
    // One that joined since the slot was made was empty then: all its rows are in the stream.
    if (own_publication && !begun_with.empty() && !begun_with.contains(table.relation())) continue;
    if (table.holds_rows()) names.insert(table.name);
    if (copied.contains(table.name)) continue;
    const Table* counterpart = target_catalog.find(table.name);
    if (counterpart == nullptr) {
      throw Error{{ErrorKind::Schema, Side::Target},
                  fmt::format("the target has no table {}. Remedy: create it there{}", table.name.text(),
                              options_.schema ? "" : "; or `walferry abort`, and begin anew without --no-schema")};
    }
    to_copy.push_back({.source = table, .target = counterpart, .counters = watch_.counters(table.name)});
  }
  if (!options_.schema) {
    // A schema made beforehand has its triggers and foreign keys.
    pg::Session source = pg::Session::open(options_.source, {.application_name = "walferry"});
    relax_target(source, target, journal_);
  }
  // Indexes of finished tables are built while others are copied.
  std::optional<schema::PostDataPlan> plan;
  std::optional<copy::IndexBuilder> builder;
  if (options_.schema) {
    plan = read_plan(names);
    copy::end_earlier_builds(build_options());
    builder.emplace(build_options());
  }
  try {
    copy::copy_tables({.source = options_.source,
                       .target = options_.target,
                       .client_encoding = ends_.client_encoding,
                       .snapshot = snapshot_->id(),
                       .jobs = options_.jobs,
                       .split = options_.split_tables,
                       .on_started = [&](const Table& table) { watch_.on_table(table.name, TableState::Copying); },
                       .on_copied =
                           [&](const Table& table) {
                             record_copied(table);
                             watch_.on_table(table.name, TableState::Copied);
                             if (builder) builder->add(plan->table_items(table.name));
                           }},
                      std::move(to_copy));
  } catch (const Error& error) {
    if (error.sqlstate() == pg::snapshot_gone) snapshot_.reset();  // the next attempt takes a new one
    throw;
  }
  // The snapshot holds back vacuum on the source: it goes as soon as the last row is copied.
  snapshot_.reset();
  watch_.on_activity("building the indexes of the tables that were copied last");
  if (builder) builder->finish();
}

// Tables of the slot that are not there any more have no rows at this snapshot: what was done to them before it does
// not count.
void InitialCopy::leave_out_what_went(const std::vector<Table>& tables) {
  const auto copied = journal_.copied_tables();
  for (const auto& [name, id] : journal_.slot_tables()) {
    if (copied.contains(name) || std::ranges::count(tables, id, &Table::relation) > 0) continue;
    spdlog::info("{} went on the source before its rows were copied: it stays empty on the target", name.text());
    journal_.record_copied(name, id, snapshot_->lsn());
  }
}

void InitialCopy::build_indexes() {
  // A partitioned table that stands for its partitions has no rows of its own, and its indexes none to be built from.
  const std::set<QualifiedName> copied = names_of(journal_.copied_tables());
  pg::Session target = pg::Session::open(options_.target, {.application_name = "walferry"});
  std::set<QualifiedName> names;
  for (const Table& table : read_table_list(target).tables) {
    if (table.holds_rows() && copied.contains(table.name)) names.insert(table.name);
  }
  plan_ = read_plan(names);
  copy::end_earlier_builds(build_options());
  copy::IndexBuilder builder{build_options()};
  for (const QualifiedName& name : plan_->tables()) builder.add(plan_->table_items(name));
  builder.finish();
  copy::execute_in_order(build_options(), without(gone_since(copied, target), plan_->remaining()));
}

std::optional<Lsn> InitialCopy::common_moment() const {
  const auto copied = journal_.copied_tables();
  if (copied.empty()) return {};
  const auto [earliest, latest] =
      std::ranges::minmax_element(copied, {}, [](const auto& entry) { return entry.second; });
  if (earliest->second == latest->second) return {};
  return latest->second;
}

void InitialCopy::build_the_rest() {
  pg::Session target = pg::Session::open(options_.target, {.application_name = "walferry"});
  const TargetRights rights = read_target_rights(target);
  std::set<QualifiedName> copied = names_of(journal_.copied_tables());
  const std::set<QualifiedName> gone = gone_since(copied, target);
  const std::vector<schema::PostDataItem> foreign_keys = without(gone, plan_->foreign_keys());
  if (rights.replication_role) {
    copy::end_earlier_builds(build_options());
    copy::IndexBuilder builder{build_options()};
    builder.add(foreign_keys);
    builder.finish();
  } else {
    // They would act on the changes to come; the cutover makes them.
    for (const schema::PostDataItem& item : foreign_keys)
      defer_foreign_key(journal_, item.table->quoted() + "." + pg::quote_name(item.name), item.sql);
  }
  std::vector<schema::PostDataItem> last = without(gone, plan_->last());
  if (!rights.superuser) {
    std::erase_if(last, [](const schema::PostDataItem& item) {
      if (item.kind != schema::ItemKind::EventTrigger) return false;
      spdlog::warn("{} is left out: only a superuser may create it on the target", item.text());
      return true;
    });
  }
  copy::execute_in_order(build_options(), last);
  for (const QualifiedName& name : gone) copied.erase(name);
  copy_large_objects();
  copy::analyze_tables(build_options(), {copied.begin(), copied.end()});
}

// Nearly all of what a cutover would have to bring while writers wait.
void InitialCopy::copy_large_objects() {
  if (!options_.copy || !carries_everything(options_, journal_)) return;
  pg::Session source = pg::Session::open(options_.source, {.application_name = "walferry copy"});
  if (outside::count_large_objects(source).objects == 0) return;
  watch_.on_activity("copying large objects");
  pg::Session target = pg::Session::open(options_.target, {.application_name = "walferry copy"});
  pg::silence_event_triggers(target);
  outside::copy_large_objects(source, target, {.owners = options_.owners});
}

}  // namespace walferry
