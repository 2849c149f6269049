#include "engine/cutover/prepared.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "engine/ddl/schema_watch.hpp"
#include "engine/listed.hpp"
#include "engine/outside/left_out.hpp"
#include "engine/outside/materialized_views.hpp"
#include "engine/progress_line.hpp"

namespace walferry::cutover {
namespace {

namespace keys = store::journal_keys;

bool may_lock(pg::Session& source, const QualifiedName& table) {
  return source
      .exec(fmt::format("SELECT pg_catalog.has_table_privilege({}, 'UPDATE')", pg::quote_literal(table.quoted())))
      .flag(0, 0);
}

std::vector<std::string> missing_event_triggers(pg::Session& source, pg::Session& target) {
  constexpr const char* sql =
      "SELECT evtname FROM pg_catalog.pg_event_trigger t WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_depend e WHERE "
      "e.classid = 'pg_catalog.pg_event_trigger'::pg_catalog.regclass AND e.objid = t.oid AND e.deptype = 'e') AND "
      "evtname NOT LIKE 'walferry%' ORDER BY 1";
  std::set<std::string> there;
  const pg::Result of_target = target.exec(sql);
  for (int row = 0; row < of_target.rows(); ++row) there.insert(of_target.str(row, 0));
  std::vector<std::string> missing;
  const pg::Result of_source = source.exec(sql);
  for (int row = 0; row < of_source.rows(); ++row) {
    if (!there.contains(of_source.str(row, 0))) missing.push_back(of_source.str(row, 0));
  }
  return missing;
}

void list_unlogged(Prepared& prepared, const Catalog& catalog) {
  for (const Table& table : catalog.tables) {
    if (table.persistence != 'u' || !table.holds_rows()) continue;
    if (const Table* counterpart = prepared.target_catalog.find(table.name)) {
      prepared.unlogged.push_back(
          {.source = table, .target = counterpart, .counters = std::make_shared<CopyCounters>()});
    }
  }
}

// What belongs to no table of the user's, brought over only where walferry migrates the whole database.
void look_outside_the_stream(Prepared& prepared, const MigrationOptions& options) {
  outside::CommonExtensionTables of_extensions = outside::match_extension_tables(prepared.source, prepared.target);
  prepared.extension_tables = std::move(of_extensions.common);
  for (const std::string& left_out : of_extensions.left_out)
    prepared.notes.push_back(fmt::format("left out: configuration table {}", left_out));
  for (const outside::ExtensionTable& table : prepared.extension_tables) {
    if (!table.sequence && may_lock(prepared.source, table.name)) prepared.locked.push_back(table.name);
  }
  prepared.large_objects =
      outside::count_large_objects(prepared.source).objects > 0 || outside::has_large_object_record(prepared.target);
  if (!prepared.large_objects) return;
  const QualifiedName pages{"pg_catalog", "pg_largeobject"};
  if (may_lock(prepared.source, pages)) {
    prepared.locked.push_back(pages);
    prepared.locked.push_back({"pg_catalog", "pg_largeobject_metadata"});
  } else {
    prepared.notes.emplace_back(
        "writes to large objects could not be stopped, which only a superuser of the source may do: they were "
        "compared at the end, nothing was to write to them");
  }
  outside::copy_large_objects(prepared.source, prepared.target, {.owners = options.owners});
}

// With a publication of the user's own the source is closed as a whole, and no more than the publication was carried.
void note_what_is_not_published(Prepared& prepared, const Catalog& catalog, const std::set<QualifiedName>& published) {
  std::vector<std::string> tables;
  for (const Table& table : catalog.tables) {
    if (!table.holds_rows() || published.contains(table.name)) continue;
    if (table.partition && published.contains(table.root)) continue;
    tables.push_back(table.name.text());
  }
  if (!tables.empty())
    prepared.notes.push_back("left out: not in the publication, and closed on the source: " + listed(tables, 20));
  const std::int64_t objects = outside::count_large_objects(prepared.source).objects;
  if (objects > 0) prepared.notes.push_back(fmt::format("left out: {} large objects", objects));
  const std::vector<std::string> filled = outside::filled_extension_tables(prepared.source);
  if (!filled.empty())
    prepared.notes.push_back("left out: rows in configuration tables of extensions: " + listed(filled, 20));
}

}  // namespace

VerifyOptions what_to_compare(const MigrationOptions& options, const store::Journal& journal, pg::Session& source) {
  VerifyOptions verify{
      .jobs = options.jobs, .sequences = false, .allow_extra_on_target = options.allow_nonempty_target};
  verify.selection = options.selection;
  if (!options.selection.empty() || carries_everything(options, journal)) return verify;
  // The publications were made by somebody else and say what is migrated.
  verify.only = published_names(source, recorded_publications(journal));
  return verify;
}

std::vector<std::string> table_blockers(pg::Session& source, const Catalog& selected, const store::Journal& journal) {
  const bool every_table = journal.get(keys::own_publication).has_value();
  const bool via_root = journal.get(keys::via_root).has_value();
  std::vector<std::string> blockers;
  // A table that came after the migration began is not in the stream.
  const std::set<RelationId> copied = journal.copied_ids();
  const std::set<QualifiedName> published = published_names(source, recorded_publications(journal));
  for (const Table& table : selected.tables) {
    if (!(via_root ? !table.partition : table.holds_rows()) || table.persistence != 'p') continue;
    if (every_table && !published.contains(table.name)) {
      blockers.push_back(
          fmt::format("table {} was created after the migration began and is not part of it: it joins by itself "
                      "when the target has the same table, empty, and the source's has a primary key or REPLICA "
                      "IDENTITY FULL",
                      table.name.text()));
    } else if (published.contains(table.name) && !copied.contains(table.relation())) {
      blockers.push_back(fmt::format("table {} has not been copied", table.name.text()));
    }
  }
  // Nor is one that left the publications: what was written to it since did not come.
  for (const Table& table : selected.tables) {
    if (every_table || !copied.contains(table.relation()) || published.contains(table.name)) continue;
    if (!(via_root ? !table.partition : table.holds_rows()) || table.persistence != 'p') continue;
    blockers.push_back(
        fmt::format("table {} was copied, and the publications carry it no more: add it, and if it was written to "
                    "meanwhile `walferry abort` and begin anew",
                    table.name.text()));
  }
  for (const std::string& name : filtered_tables(source, recorded_publications(journal)))
    blockers.push_back(
        fmt::format("the publications carry only some rows or columns of {}: take WHERE and the list off there", name));
  for (const std::string& name : tables_with_generated_columns_published(source, recorded_publications(journal))) {
    blockers.push_back(fmt::format(
        "the publications carry generated columns of {}, which the target computes: SET (publish_generated_columns = "
        "none) there, and no such column in a list",
        name));
  }
  for (const auto& [id, mark] : journal.tables_to_copy_again()) {
    blockers.push_back(fmt::format(
        "table {} waits to be copied again after a schema change, or for the first time: wait, or see that the "
        "target's has the same columns{}",
        mark.table.text(),
        via_root
            ? " (a partition cannot be copied again where it is carried by its root: `walferry abort` and begin anew)"
            : ""));
  }
  return blockers;
}

std::shared_ptr<Prepared> prepare(const PrepareRequest& request) {
  const MigrationOptions& options = request.options;
  const pg::SessionOptions session{.application_name = "walferry cutover", .client_encoding = request.client_encoding};
  pg::SessionOptions quick = session;  // it looks while writers wait
  quick.settings = {"lock_timeout=1s", fmt::format("statement_timeout={}", request.time_limit.count())};
  pg::Session source = pg::Session::open(options.source, session);
  pg::Session target = pg::Session::open(options.target, session);
  // Somebody's exclusive lock must not hold up the preparation past the time limit.
  const std::string limit = fmt::format("SET statement_timeout = {}", request.time_limit.count());
  source.exec(limit);
  target.exec(limit);
  if (request.refresh_first) outside::refresh_materialized_views(target, outside::views_to_refresh(source, target));
  Fence fence = Fence::prepare(options.source, options.slot);
  Catalog catalog = read_selected_catalog(source, options.selection);
  std::vector<FencedTable> tables = fenced_tables(catalog);
  std::vector<QualifiedName> locked;
  for (const FencedTable& table : tables) locked.push_back(table.name);
  // The guards passed before everything was compared, which takes a while. Fence::make_durable() stands by this list.
  if (const std::vector<std::string> late = table_blockers(source, catalog, request.journal); !late.empty())
    throw Error{{ErrorKind::Refused, Side::Source}, "since the cutover began: " + late.front()};
  VerifyOptions verify_options = what_to_compare(options, request.journal, source);
  verify_options.statement_timeout = request.time_limit;
  verify_options.client_encoding = request.client_encoding;
  Catalog target_catalog = read_catalog(target);
  const bool everything = carries_everything(options, request.journal);
  std::vector<QualifiedName> others;
  if (!everything) {
    std::set<QualifiedName> carried;
    for (const Table& table : catalog.tables) {
      if (!verify_options.only || verify_options.only->contains(table.name)) carried.insert(table.name);
    }
    others = keep_sequences_of(carried, catalog, target_catalog, source);
  }
  // Neither do schema changes that the stream did not tell of.
  std::string schema_digest = ddl::read_digest(source);
  for (const DdlFinding& finding : ddl::SchemaWatch{options.source, options.target, request.journal}.compare()) {
    throw Error{
        {ErrorKind::Refused, Side::Source},
        fmt::format("since the cutover began: {} was {} on the source and the target does not have the same: {}",
                    finding.object, finding.change, finding.remedy)};
  }
  const std::optional<std::set<QualifiedName>> verify_only = verify_options.only;
  Verification verification = Verification::prepare(options.source, options.target, verify_options, std::stop_token{});
  verification.warm_up();
  auto prepared = std::make_shared<Prepared>(Prepared{.fence = std::move(fence),
                                                      .source = std::move(source),
                                                      .target = std::move(target),
                                                      .observer = pg::Session::open(options.source, quick),
                                                      .schema_digest = std::move(schema_digest),
                                                      .tables = std::move(tables),
                                                      .locked = std::move(locked),
                                                      .sequences = std::move(catalog.sequences),
                                                      .others_sequences = {others.begin(), others.end()},
                                                      .verification = std::move(verification),
                                                      .target_catalog = std::move(target_catalog)});
  if (const auto adopted = request.journal.get(keys::adopted); adopted && !request.journal.get(keys::way_back_of)) {
    prepared->notes.push_back(
        fmt::format("walferry did not copy the rows: the target held the data of {} already (--adopt)", *adopted));
  }
  for (const auto& [object, reason] : request.journal.entries(keys::ddl_accepted))
    prepared->notes.push_back(fmt::format("the schemas differ, as a person accepted: {}: {}", object, reason));
  for (const outside::LeftOut& left : outside::find_left_out(prepared->source, options.slot)) {
    if (!left.names.empty()) prepared->notes.push_back("left out: " + left.text());
  }
  if (!others.empty()) {
    prepared->notes.push_back(fmt::format(
        "left out: {} of tables that are not carried: they stay where they are on the target",
        others.size() == 1 ? "sequence " + others.front().text() : fmt::format("{} sequences", others.size())));
  }
  for (const std::string& name : missing_event_triggers(prepared->source, prepared->target))
    prepared->notes.push_back(fmt::format("left out: event trigger {}, which only a superuser may create", name));
  for (const std::string& key : keys_left_out(prepared->source, options.selection))
    prepared->notes.push_back(fmt::format("left out: foreign key {}, which is not selected", key));
  for (const std::string& reader : readers_left_out(prepared->source, options.selection))
    prepared->notes.push_back(fmt::format("left out: {}, which reads a table that is not selected", reader));
  if (request.journal.get(keys::own_publication)) list_unlogged(*prepared, catalog);
  prepared->everything = everything;
  if (everything) look_outside_the_stream(*prepared, options);
  if (!everything && options.selection.empty()) note_what_is_not_published(*prepared, catalog, *verify_only);
  prepared->source.exec("SET statement_timeout = 0");
  prepared->target.exec("SET statement_timeout = 0");
  return prepared;
}

void copy_unlogged_tables(Prepared& prepared, const MigrationOptions& options, const std::string& client_encoding) {
  prepared.source.exec("BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY");
  const std::string snapshot = prepared.source.exec("SELECT pg_catalog.pg_export_snapshot()").str(0, 0);
  copy::copy_tables({.source = options.source,
                     .target = options.target,
                     .client_encoding = client_encoding,
                     .snapshot = snapshot,
                     .jobs = options.jobs},
                    prepared.unlogged);
  prepared.source.exec("COMMIT");
}

std::string describe_large_objects(const MigrationOptions& options, std::chrono::milliseconds time_limit) {
  pg::Session source = pg::Session::open(options.source, {.application_name = "walferry cutover"});
  const outside::LargeObjects objects = outside::count_large_objects(source);
  if (objects.objects == 0) return {};
  source.exec(fmt::format("SET statement_timeout = {}", time_limit.count()));
  const auto begun = std::chrono::steady_clock::now();
  const DigestMethod method;
  static_cast<void>(digest_tables(source,
                                  {{{"pg_catalog", "pg_largeobject"},
                                    {"data", "loid", "pageno"},
                                    outside::large_object_rows(outside::may_read_pages(source), false)}},
                                  method));
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begun).count();
  // They are read and hashed twice: to find what still differs, and for the proof.
  return fmt::format(
      "{} large objects ({}): reading them took {:.1f} s just now; expect about {:.1f} s more of write stop, and the "
      "time "
      "to write those that differ by then",
      objects.objects, human_bytes(static_cast<double>(objects.bytes)), seconds, 2 * seconds);
}

}  // namespace walferry::cutover
