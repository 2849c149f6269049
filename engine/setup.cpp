#include "engine/setup.hpp"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <limits>
#include <random>
#include <set>

#include "engine/adoption.hpp"
#include "engine/apply/attachment.hpp"
#include "engine/apply/progress.hpp"
#include "engine/check/check.hpp"
#include "engine/ddl/schema_watch.hpp"
#include "engine/ddl/trigger.hpp"
#include "engine/full_identity.hpp"
#include "engine/outside/large_objects.hpp"
#include "engine/pg/event_triggers.hpp"
#include "engine/publication.hpp"
#include "engine/schema/roles.hpp"
#include "engine/schema_record.hpp"
#include "engine/slot.hpp"
#include "engine/stream/receiver.hpp"

namespace walferry {
namespace {

namespace keys = store::journal_keys;

constexpr int publication_attempts = 5;

void refuse_other_end(Side side, const DatabaseIdentity& pinned, const DatabaseIdentity& found,
                      const DatabaseIdentity& other_pinned) {
  const bool same_cluster = pinned.system_identifier == found.system_identifier;
  if (same_cluster && pinned.database_oid == found.database_oid) return;
  const bool swapped = found.same_database(other_pinned);
  throw Error{
      {ErrorKind::Refused, side},
      fmt::format("the {} is not the one this migration began with: {} (system identifier {}, database oid {}), pinned "
                  "{} (system identifier {}, database oid {}). {}Nothing was changed. Remedy: correct the connection "
                  "strings, or use another --state-dir for another migration",
                  to_string(side), found.database, found.system_identifier, found.database_oid, pinned.database,
                  pinned.system_identifier, pinned.database_oid, swapped ? "Source and target are swapped. " : "")};
}

// Both bear one system identifier. Only an adopted copy may, and only if it is another server.
void refuse_physical_copy(pg::Session& source, pg::Session& target, const Ends& ends, const MigrationOptions& options) {
  const bool same = same_server(source, target);
  if (options.adopt && !same) {
    require_end(source, Side::Source, options.slot);
    return require_end(target, Side::Target, options.slot);
  }
  throw Error{
      {ErrorKind::Refused},
      fmt::format("source and target are the same database: {} (system identifier {}, database oid {}){}. Nothing was "
                  "changed. Remedy: {}",
                  ends.source.database, ends.source.system_identifier, ends.source.database_oid,
                  same ? "" : ", on different servers: one is a physical copy of the other",
                  same ? "correct --source or --target"
                       : "`walferry run --adopt` says how a promoted copy is taken over without copying its rows; else "
                         "create the target with initdb")};
}

std::optional<Lsn> branch_of_target(pg::Session& source, const MigrationOptions& options) {
  try {
    pg::Session target = pg::Session::open(options.target, {.application_name = "walferry"});
    return branch_point(source, target);
  } catch (const Error& error) {
    spdlog::info("the target tells nothing of itself: {}", error.what());
    return {};  // it may be yet to come
  }
}

std::string failures_of(const std::vector<Finding>& findings) {
  std::string text;
  for (const Finding& finding : findings) {
    if (finding.severity != Severity::Fail) continue;
    if (!text.empty()) text += " | ";
    text += finding.title;
    if (!finding.detail.empty()) text += ": " + finding.detail;
    if (!finding.remedy.empty()) text += ". Remedy: " + finding.remedy;
  }
  return text;
}

bool exists(pg::Session& session, const std::string& sql) {
  return session.exec("SELECT EXISTS (" + sql + ")").flag(0, 0);
}

// The copy empties the tables it fills: it must never meet rows that it did not bring (G5).
void refuse_rows_on_target(const MigrationOptions& options) {
  pg::Session source = pg::Session::open(options.source, {.application_name = "walferry"});
  pg::Session target = pg::Session::open(options.target, {.application_name = "walferry"});
  const Catalog target_catalog = read_catalog(target);
  std::string names;
  const Catalog source_catalog = read_selected_catalog(source, options.selection);
  for (const Table& table : source_catalog.tables) {
    const Table* counterpart = target_catalog.find(table.name);
    if (!table.holds_rows() || counterpart == nullptr) continue;
    // A table without pages is empty, whether our role may look into it or not; a partitioned one has none ever.
    const bool partitioned = counterpart->kind == 'p';
    if (!partitioned && counterpart->pages == 0) continue;
    if (exists(target, (partitioned ? "SELECT 1 FROM " : "SELECT 1 FROM ONLY ") + counterpart->name.quoted()))
      names += (names.empty() ? "" : ", ") + table.name.text();
  }
  for (const QualifiedName& root : partitioned_differently(source_catalog, target_catalog)) {
    if (target_catalog.find(root) != nullptr && exists(target, "SELECT 1 FROM " + root.quoted()))
      names += (names.empty() ? "" : ", ") + root.text();
  }
  if (names.empty()) return;
  throw Error{
      {ErrorKind::Refused, Side::Target},
      fmt::format(
          "the target holds rows in tables that would be copied: {}. Nothing was changed. Remedy: empty them "
          "(TRUNCATE) if they are not needed, or name another target; if they are the source's own, `walferry run "
          "--adopt` says how to go on from them without a copy",
          names)};
}

bool slot_exists(pg::Session& source, const std::string& slot) {
  return exists(source, "SELECT 1 FROM pg_catalog.pg_replication_slots WHERE slot_name = " + pg::quote_literal(slot));
}

void set_full_identities(pg::Session& source, const Catalog& catalog, store::Journal& journal) {
  for (const Table& table : catalog.tables) {
    if (!table.holds_rows() || table.persistence != 'p' || table.has_usable_identity()) continue;
    // Give way rather than queue before the application's statements.
    source.exec(
        fmt::format("BEGIN; SET LOCAL lock_timeout = '2s'; {}; COMMIT", record_full_identity(source, table, journal)));
    spdlog::info("set REPLICA IDENTITY FULL on {} for the time of the migration", table.name.text());
  }
}

// With publish_via_partition_root a change bears the key of the table at the top.
void require_identity_of_roots(const Catalog& catalog) {
  for (const Table& table : catalog.tables) {
    if (table.kind != 'p' || table.partition || table.has_usable_identity()) continue;
    throw Error{
        {ErrorKind::Refused, Side::Source},
        fmt::format("the target partitions its tables differently, or by the hash of an enum, so changes must be "
                    "published by way of the partitioned table, and {} has no primary key. Nothing was changed. "
                    "Remedy: ALTER TABLE {} ADD PRIMARY KEY (...), or partition the target like the source",
                    table.name.text(), table.name.quoted())};
  }
}

struct OwnPublication {
  std::string name;
  bool via_root = false;
};

void create_publication(pg::Session& source, const OwnPublication& publication, const Catalog& catalog,
                        store::Journal& journal) {
  journal.put(keys::own_publication, publication.name);
  source.exec(fmt::format("DROP PUBLICATION IF EXISTS {}", pg::quote_name(publication.name)));
  source.exec(create_publication_sql(publication.name, catalog, publication.via_root));
}

// A positive bigint.
std::string new_secret() {
  std::random_device dice;
  return std::to_string(std::uniform_int_distribution<std::int64_t>{1, std::numeric_limits<std::int64_t>::max()}(dice));
}

bool publishes_via_root(pg::Session& source, const std::vector<std::string>& publications) {
  return exists(source,
                fmt::format("SELECT 1 FROM pg_catalog.pg_publication WHERE pubviaroot AND pubname = ANY ({}::text[])",
                            pg::quote_literal(pg::array_literal(publications))));
}

void record_addresses(const MigrationOptions& options, store::Journal& journal) {
  journal.put(keys::source, options.source.without_secrets());
  journal.put(keys::target, options.target.without_secrets());
}

std::string literals(const std::vector<std::string>& texts) {
  std::string list;
  for (const std::string& text : texts) list += (list.empty() ? "" : ", ") + pg::quote_literal(text);
  return list;
}

// Tables that the publications have in such a way: a condition on the groups of pg_publication_tables `p`, by table
// `c`.
std::vector<std::string> published_with(pg::Session& session, const std::vector<std::string>& publications,
                                        std::string_view condition) {
  std::vector<std::string> names;
  const pg::Result rows = session.exec(
      fmt::format("SELECT p.schemaname, p.tablename FROM pg_catalog.pg_publication_tables p JOIN "
                  "pg_catalog.pg_namespace n ON n.nspname = p.schemaname JOIN pg_catalog.pg_class c ON c.relnamespace "
                  "= n.oid AND c.relname = p.tablename WHERE p.pubname IN ({}) GROUP BY 1, 2 HAVING {} ORDER BY 1, 2",
                  literals(publications), condition));
  for (int row = 0; row < rows.rows(); ++row) names.push_back(QualifiedName{rows.str(row, 0), rows.str(row, 1)}.text());
  return names;
}

}  // namespace

void require_end(pg::Session& session, Side side, const std::string& slot) {
  const bool has_slot = slot_exists(session, slot);
  const bool has_position = apply::Progress::exists(session, slot);
  const bool other = side == Side::Source ? has_position && !has_slot : has_slot && !has_position;
  if (!other) return;
  throw Error{
      {ErrorKind::Refused, side},
      fmt::format("the {} is the other end of this migration: it has {} {}. Source and target are swapped, or both are "
                  "one. Nothing was changed. Remedy: correct the connection strings",
                  to_string(side), side == Side::Source ? "the position of" : "the slot", slot)};
}

std::string default_slot_name(std::string_view database) {
  std::string name = "walferry_";
  for (const char c : database.substr(0, 50)) {
    const bool fits = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
    const bool upper = c >= 'A' && c <= 'Z';
    name += fits ? c : upper ? static_cast<char>(c - 'A' + 'a') : '_';
  }
  return name;
}

std::vector<std::string> recorded_publications(const store::Journal& journal) {
  std::vector<std::string> names;
  std::string rest = journal.get(keys::publications).value_or("");
  while (!rest.empty()) {
    const std::size_t end = std::min(rest.find('\n'), rest.size());
    names.push_back(rest.substr(0, end));
    rest.erase(0, end + 1);
  }
  return names;
}

bool carries_everything(const MigrationOptions& options, const store::Journal& journal) {
  return options.selection.empty() && journal.get(keys::own_publication).has_value();
}

Catalog read_selected_catalog(pg::Session& source, const SelectionRules& rules, Sizes sizes) {
  Catalog catalog = read_catalog(source, sizes);
  keep_selected(catalog, source, rules);
  return catalog;
}

SelectionRules settled_selection(const store::Journal& journal, const SelectionRules& given) {
  if (!journal.get(keys::migration)) return given;
  SelectionRules recorded;
  recorded.add(journal.get(keys::selection).value_or(""));
  if (given.empty() || given == recorded) return recorded;
  throw Error{
      {ErrorKind::Refused},
      fmt::format("the migration was begun with another selection of tables:\n{}Nothing was changed. Remedy: leave "
                  "the options of the selection out, or abort and begin anew",
                  recorded.empty() ? "(all)\n" : recorded.text())};
}

std::optional<Lsn> settled_adoption(const store::Journal& journal, const std::optional<Lsn>& given) {
  if (!journal.get(keys::migration)) return given;
  const auto recorded = journal.get(keys::adopted);
  if (!recorded && !given) return {};
  const Lsn at = Lsn::parse(recorded.value_or("")).value_or(Lsn{});
  if (recorded && (!given || !*given || *given == at)) return at;
  throw Error{
      {ErrorKind::Refused},
      fmt::format("the migration was begun {}. Nothing was changed. Remedy: leave --adopt out, or abort and begin anew",
                  recorded ? "with --adopt " + *recorded : "with a copy of its own, not with --adopt")};
}

void require_adoption_point(const MigrationOptions& options) {
  if (!options.adopt || *options.adopt) return;
  pg::Session source = pg::Session::open(options.source, {.application_name = "walferry"});
  if (const auto left = branch_of_target(source, options)) {
    throw Error{
        {ErrorKind::Refused},
        fmt::format("--adopt names no LSN. Nothing was changed. Remedy: the target is a physical copy that left "
                    "the source's timeline at {0}: if slot {1} is older than that, --adopt {0}",
                    left->to_string(), options.slot)};
  }
  throw Error{{ErrorKind::Refused},
              fmt::format("--adopt wants the LSN of the source at which the target's data stands: what committed "
                          "before it is there already, what follows is streamed. Nothing was changed. Remedy: if there "
                          "is none, get one like this:\n{}",
                          how_to_adopt({.source = options.source,
                                        .target = options.target,
                                        .slot = options.slot,
                                        .own_publication = options.publications.empty(),
                                        .replica_identity_full = options.replica_identity_full},
                                       read_selected_catalog(source, options.selection)))};
}

Ends identify(const MigrationOptions& options, store::Journal& journal) {
  pg::Session source = pg::Session::open(options.source, {.application_name = "walferry"});
  pg::Session target = pg::Session::open(options.target, {.application_name = "walferry"});
  Ends ends{.source = read_identity(source), .target = read_identity(target), .client_encoding = {}};
  ends.client_encoding = common_encoding(ends.source, ends.target);
  if (ends.source.same_database(ends.target)) refuse_physical_copy(source, target, ends, options);
  const auto pinned_source = journal.pinned(Side::Source);
  const auto pinned_target = journal.pinned(Side::Target);
  if (pinned_source && pinned_target) {
    refuse_other_end(Side::Source, *pinned_source, ends.source, *pinned_target);
    refuse_other_end(Side::Target, *pinned_target, ends.target, *pinned_source);
    // It has no slot, or an old one; that says nothing about the migration.
    if (ends.source.in_recovery && journal.get(keys::source_timeline)) throw stream::standby_error();
    if (ends.target.in_recovery) throw apply::standby_error();
    record_addresses(options, journal);  // finish and abort take the way that led there last
  }
  return ends;
}

void guard_and_record(const MigrationOptions& options, const Ends& ends, store::Journal& journal) {
  if (!options.adopt && std::ranges::count(options.publications, options.slot) > 0) {
    throw Error{{ErrorKind::Usage},
                fmt::format("--publication {} has the name that walferry's own publication would have. Nothing was "
                            "changed. Remedy: another --slot",
                            options.slot)};
  }
  CheckOptions check_options;
  check_options.source = options.source;
  check_options.target = options.target;
  check_options.pg_bin_dir = options.pg_bin_dir;
  check_options.replica_identity_full = options.replica_identity_full;
  check_options.allow_nonempty_target = options.allow_nonempty_target;
  check_options.no_schema = !options.schema;
  check_options.slot = options.slot;
  check_options.publication = options.slot;
  check_options.publications = options.publications;
  check_options.application_name = "walferry " + options.slot;
  check_options.jobs = options.jobs;
  check_options.apply_lanes = static_cast<int>(options.apply_lanes);
  check_options.owners = options.owners;
  check_options.selection = options.selection;
  check_options.ddl_trigger = options.ddl_trigger;
  check_options.adopt = options.adopt;
  const std::string failures = failures_of(check_migration(check_options));
  if (!failures.empty()) {
    throw Error{{ErrorKind::Refused}, fmt::format("the migration cannot begin, nothing was changed: {}", failures)};
  }
  if (options.copy && !options.adopt) refuse_rows_on_target(options);
  if (options.schema) {
    // Of one of this name whose state directory is lost.
    pg::Session target = pg::Session::open(options.target, {.application_name = "walferry"});
    schema_record::forget(target, options.slot);
  }
  record_settings(options, ends, journal);
}

void record_settings(const MigrationOptions& options, const Ends& ends, store::Journal& journal) {
  if (options.allow_nonempty_target) journal.put(keys::nonempty_target, "1");
  if (!options.selection.empty()) journal.put(keys::selection, options.selection.text());
  if (!options.copy) journal.put(keys::without_copy, "1");
  if (options.adopt) journal.put(keys::adopted, options.adopt->to_string());
  record_addresses(options, journal);
  std::string publications;
  for (const std::string& name : options.publications) publications += (publications.empty() ? "" : "\n") + name;
  if (!options.schema) journal.put(keys::without_schema, "1");
  if (!options.owners) journal.put(keys::without_owners, "1");
  if (options.replica_identity_full) journal.put(keys::full_identities, "1");
  journal.put(keys::publications, publications.empty() ? options.slot : publications);
  journal.put(keys::migration, options.slot);  // from here on the rest is settled
  journal.pin(Side::Source, ends.source);
  journal.pin(Side::Target, ends.target);
}

std::vector<std::string> filtered_tables(pg::Session& session, const std::vector<std::string>& publications) {
  if (session.server_version() < 150'000) return {};
  return published_with(session, publications,
                        "pg_catalog.bool_and(p.rowfilter IS NOT NULL) OR pg_catalog.bool_and(EXISTS (SELECT FROM "
                        "pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped "
                        "AND a.attgenerated = '' AND a.attname <> ALL (p.attnames)))");
}

std::vector<std::string> tables_with_generated_columns_published(pg::Session& session,
                                                                 const std::vector<std::string>& publications) {
  if (session.server_version() < 180'000) return {};
  return published_with(session, publications,
                        "pg_catalog.bool_or(EXISTS (SELECT FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND "
                        "a.attgenerated <> '' AND a.attname = ANY (p.attnames)))");
}

std::vector<Table> published_tables(pg::Session& session, const std::vector<std::string>& publications, Sizes sizes) {
  const pg::Result rows = session.exec(
      fmt::format("SELECT DISTINCT schemaname, tablename FROM pg_catalog.pg_publication_tables WHERE pubname IN ({})",
                  literals(publications)));
  std::set<QualifiedName> published;
  for (int row = 0; row < rows.rows(); ++row) published.insert({rows.str(row, 0), rows.str(row, 1)});
  std::vector<Table> tables = read_catalog(session, sizes).tables;
  std::erase_if(tables, [&](const Table& table) { return !published.contains(table.name); });
  return tables;
}

std::set<QualifiedName> published_names(pg::Session& session, const std::vector<std::string>& publications) {
  std::set<QualifiedName> names;
  for (const Table& table : published_tables(session, publications, Sizes::LeaveOut)) names.insert(table.name);
  return names;
}

void make_ddl_trigger(pg::Session& source, const MigrationOptions& options, const std::string& publication,
                      store::Journal& journal) {
  // Of a selection it would tell too much: the target lacks what was left out.
  if (!options.ddl_trigger || !options.selection.empty() || !ddl::trigger_permitted(source)) {
    spdlog::info("no event trigger on the source: schema changes are seen in the catalogs and by what they do to rows");
    return;
  }
  const std::string secret = new_secret();
  journal.put(keys::ddl_secret, secret);
  journal.put(keys::ddl_trigger, publication);
  ddl::install_trigger(source, {.migration = options.slot, .publication = publication, .secret = secret});
}

copy::Snapshot publish_and_create_slot(const MigrationOptions& options, const Ends& ends, store::Journal& journal,
                                       std::function<void(const std::string&)> on_waiting) {
  pg::Session source = pg::Session::open(options.source, {.application_name = "walferry"});
  const std::vector<std::string> publications = recorded_publications(journal);
  const bool own_publication = publications == std::vector<std::string>{options.slot};
  bool via_root = false;
  if (own_publication) {
    pg::Session target = pg::Session::open(options.target, {.application_name = "walferry"});
    const Catalog catalog = read_selected_catalog(source, options.selection);
    via_root = !partitioned_differently(catalog, read_catalog(target)).empty();
    if (via_root) {
      require_identity_of_roots(catalog);
      journal.put(keys::via_root, "1");
      spdlog::info("partitioned tables are carried as a whole: not all have the same rows in the target's partitions");
    }
  } else if (publishes_via_root(source, publications)) {
    journal.put(keys::via_root, "1");
  }
  if (own_publication && options.replica_identity_full)
    set_full_identities(source, read_selected_catalog(source, options.selection), journal);

  make_ddl_trigger(source, options, own_publication ? publications.front() : std::string{}, journal);

  // The slot's snapshot must see the publication with every table in it: a table created in between means another
  // round.
  for (int attempt = 1;; ++attempt) {
    if (own_publication)
      create_publication(source, {.name = publications.front(), .via_root = via_root},
                         read_selected_catalog(source, options.selection), journal);
    // A slot left by a run that died here has no snapshot any more and is of no use.
    if (journal.get(keys::slot_begun) && slot_exists(source, options.slot)) {
      source.exec("SELECT pg_catalog.pg_drop_replication_slot(" + pg::quote_literal(options.slot) + ")");
    }
    journal.put(keys::slot_begun, "1");
    copy::Snapshot snapshot = copy::Snapshot::create({.source = options.source,
                                                      .client_encoding = ends.client_encoding,
                                                      .slot = options.slot,
                                                      .on_waiting = on_waiting});
    if (own_publication) {
      std::set<QualifiedName> wanted;
      const Catalog seen = read_selected_catalog(snapshot.holder(), options.selection);
      for (const Table* table : tables_to_publish(seen, via_root)) wanted.insert(table->name);
      if (wanted != published_names(snapshot.holder(), publications)) {
        if (attempt == publication_attempts) {
          throw Error{{ErrorKind::Schema, Side::Source},
                      "tables are being created or dropped on the source all the time. Remedy: start again when that "
                      "is over"};
        }
        spdlog::info("a table came or went while the slot was created: beginning again");
        continue;
      }
    }
    ddl::SchemaWatch::record_baseline(snapshot.holder(), journal);
    journal.record_source_types(store::SourceTypes::of(read_catalog(snapshot.holder(), Sizes::LeaveOut)));
    std::map<QualifiedName, RelationId> begun_with;
    for (const Table& table : published_tables(snapshot.holder(), publications, Sizes::LeaveOut))
      begun_with.emplace(table.name, table.relation());
    journal.record_slot_tables(begun_with);
    pg::Session target = pg::Session::open(options.target, {.application_name = "walferry"});
    pg::silence_event_triggers(target);
    apply::Progress::prepare(target, options.slot, snapshot.lsn());
    journal.put(keys::slot_lsn, snapshot.lsn().to_string());
    return snapshot;
  }
}

void adopt_slot(const MigrationOptions& options, const Ends& ends, store::Journal& journal) {
  pg::Session source = pg::Session::open(options.source, {.application_name = "walferry"});
  pg::Session target = pg::Session::open(options.target, {.application_name = "walferry"});
  const std::vector<std::string> publications = recorded_publications(journal);
  const bool own_publication = publications == std::vector<std::string>{options.slot};
  journal.put(keys::slot_begun, "1");
  if (own_publication) journal.put(keys::own_publication, publications.front());
  if (publishes_via_root(source, publications)) journal.put(keys::via_root, "1");
  pg::silence_event_triggers(target);
  if (const auto forward = journal.get(keys::way_back_of)) {
    // Its triggers are older than its slot. The old source need keep no WAL any more.
    drop_slot(target, *forward);
  } else {
    make_ddl_trigger(source, options, own_publication ? publications.front() : std::string{}, journal);
  }
  // A physical copy tells exactly how the source's schema was at the LSN. What a dump made has the same meaning but
  // not always the same words: there the schema of now must do.
  if (!journal.get(keys::way_back_of))
    ddl::SchemaWatch::record_baseline(ends.source.same_database(ends.target) ? target : source, journal);
  if (carries_everything(options, journal)) outside::adopt_large_objects(source, target, options.allow_nonempty_target);
  apply::Progress::prepare(target, options.slot, *options.adopt);
  journal.put(keys::slot_lsn, options.adopt->to_string());
}

}  // namespace walferry
