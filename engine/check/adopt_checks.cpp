// What --adopt asks for: a slot and a publication that were made before the target's data, and data that stand exactly
// at the LSN. What the proof at the cutover would find late is looked for here, as far as the catalogs can tell.
#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <set>

#include "engine/adoption.hpp"
#include "engine/check/sections.hpp"
#include "engine/publication.hpp"

namespace walferry::check {
namespace {

constexpr std::string_view anew = "begin with a new slot and new data; `walferry run --adopt` says how";

std::vector<std::string> publications_of(const CheckOptions& options) {
  return options.publications.empty() ? std::vector<std::string>{options.publication} : options.publications;
}

std::string text_array(const std::vector<std::string>& values) {
  return pg::quote_literal(pg::array_literal(values)) + "::text[]";
}

// Unlike elsewhere, what cannot be examined is refused: these questions guard against lost changes.
void demand(Findings& findings, const std::string& id, const std::function<void()>& question) {
  try {
    question();
  } catch (const Error& error) {
    if (error.kind() == ErrorKind::Connection || error.kind() == ErrorKind::Stopped) throw;
    findings.fail(id, {.title = "this could not be examined",
                       .detail = error.what(),
                       .remedy = "let the role read the catalogs and the tables of both ends"});
  }
}

void check_lsn_named(End& source, const CheckOptions& options, Findings& findings) {
  findings.fail(
      "source.adopt",
      {.title = "--adopt names no LSN",
       .detail = "the target's data must be tied to the stream: what committed before the LSN is there, what follows "
                 "is streamed",
       .remedy = how_to_adopt({.source = options.source,
                               .target = options.target,
                               .slot = options.slot,
                               .own_publication = options.publications.empty(),
                               .replica_identity_full = options.replica_identity_full},
                              source.catalog)});
}

struct AdoptedSlot {
  Lsn confirmed;
  Lsn source_end;
};

AdoptedSlot read_slot(End& source, const std::string& slot) {
  const pg::Result row = source.session.exec(fmt::format(
      "SELECT confirmed_flush_lsn, CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_replay_lsn() "
      "ELSE pg_catalog.pg_current_wal_insert_lsn() END FROM pg_catalog.pg_replication_slots WHERE slot_name = {}",
      pg::quote_literal(slot)));
  if (row.rows() == 0) return {};
  return {.confirmed = row.is_null(0, 0) ? Lsn{} : row.lsn(0, 0), .source_end = row.lsn(0, 1)};
}

// Why the slot cannot serve, whatever the LSN; empty if it can.
Findings::Problem why_no_slot(End& source, const std::string& slot) {
  const pg::Result row = source.session.exec(fmt::format(
      "SELECT slot_type, coalesce(plugin, ''), coalesce(database, ''), coalesce(active_pid, 0), active, "
      "coalesce(wal_status, ''), confirmed_flush_lsn IS NULL FROM pg_catalog.pg_replication_slots WHERE slot_name = {}",
      pg::quote_literal(slot)));
  if (row.rows() == 0) {
    return {.title = fmt::format("there is no slot {} on the source", slot),
            .detail = "only a slot that was made before the dump or the backup keeps every change that followed",
            .remedy = fmt::format("name it with --slot; if there was none, {}", anew)};
  }
  if (row.text(0, 0) != "logical" || row.text(0, 1) != "pgoutput") {
    return {.title = fmt::format("slot {} is {}", slot,
                                 row.text(0, 0) != "logical" ? std::string{"a physical one"}
                                                             : fmt::format("of plugin {}", row.text(0, 1))),
            .detail = "walferry reads a logical slot of plugin pgoutput",
            .remedy = fmt::format("name another with --slot, or {}", anew)};
  }
  if (row.text(0, 2) != source.identity.database) {
    return {.title = fmt::format("slot {} belongs to database {}", slot, row.text(0, 2)),
            .detail = fmt::format("a logical slot tells of one database, and this is {}", source.identity.database),
            .remedy = fmt::format("name another with --slot, or {}", anew)};
  }
  if (row.flag(0, 4)) {
    return {.title = fmt::format("slot {} is in use by pid {}", slot, row.text(0, 3)),
            .detail =
                "whoever reads from it uses up changes that this migration needs; a temporary slot belongs to "
                "the session that made it",
            .remedy = "end that reader first. If it has confirmed anything, the check will say so"};
  }
  if (row.text(0, 5) == "lost" || row.flag(0, 6)) {
    return {.title = fmt::format("slot {} is lost", slot),
            .detail = "the source has removed WAL that it needed, or it was never made ready",
            .remedy = fmt::format("raise max_slot_wal_keep_size on the source, then {}", anew)};
  }
  return {};
}

void check_slot(End& source, const CheckOptions& options, Findings& findings) {
  const std::string id = "source.adopted_slot";
  Findings::Problem problem = why_no_slot(source, options.slot);
  if (!problem.title.empty()) return findings.fail(id, std::move(problem));
  const AdoptedSlot slot = read_slot(source, options.slot);
  const Lsn adopted = *options.adopt;
  if (slot.confirmed > adopted) {
    return findings.fail(
        id,
        {.title = fmt::format("slot {} begins at {}, after {}, where the target's data end", options.slot,
                              slot.confirmed.to_string(), adopted.to_string()),
         .detail = "what committed in between would be lost: the slot was made too late, or somebody has read from "
                   "it or advanced it",
         .remedy = fmt::format("correct --adopt if the data are newer (a physical copy that is still a standby: let "
                               "it replay past {} before it is promoted); else {}",
                               slot.confirmed.to_string(), anew)});
  }
  if (adopted > slot.source_end) {
    return findings.fail(id,
                         {.title = fmt::format("{} is in the source's future: its WAL ends at {}", adopted.to_string(),
                                               slot.source_end.to_string()),
                          .detail = "changes up to there would be taken for part of the target's data",
                          .remedy = "name the LSN at which the data stand; look whether --source is the right one"});
  }
  findings.pass(id, fmt::format("slot {} keeps what follows {}", options.slot, adopted.to_string()));
}

// Tables that joined a publication by a later statement than the one that made it, and perhaps after the slot: decoding
// sees each catalog as it was at the change. That the publication itself was there, the stream's first change proves.
std::vector<std::string> late_members(End& source, const std::vector<std::string>& publications,
                                      const std::string& slot) {
  const auto late = [&](std::string_view catalog, std::string_view publication, std::string_view name) {
    return fmt::format(
        "SELECT {2} FROM pg_catalog.{0} m JOIN pg_catalog.pg_publication p ON p.oid = m.{1} JOIN "
        "pg_catalog.pg_replication_slots s ON s.slot_name = {3} WHERE p.pubname = ANY ({4}) AND "
        "pg_catalog.age(m.xmin) < pg_catalog.age(p.xmin) AND pg_catalog.age(m.xmin) <= pg_catalog.age(s.catalog_xmin)",
        catalog, publication, name, pg::quote_literal(slot), text_array(publications));
  };
  std::string sql = late("pg_publication_rel", "prpubid", "m.prrelid::pg_catalog.regclass::text");
  if (source.major() >= 15)
    sql += " UNION ALL " + late("pg_publication_namespace", "pnpubid", "m.pnnspid::pg_catalog.regnamespace::text");
  return source.texts(sql + " ORDER BY 1");
}

void check_publications(End& source, const CheckOptions& options, Findings& findings) {
  const std::string id = "source.publication";
  const std::vector<std::string> names = publications_of(options);
  const pg::Result rows = source.session.exec(
      fmt::format("SELECT pubname, pubinsert AND pubupdate AND pubdelete AND pubtruncate, pubviaroot FROM "
                  "pg_catalog.pg_publication WHERE pubname = ANY ({})",
                  text_array(names)));
  if (static_cast<std::size_t>(rows.rows()) < names.size()) {
    return findings.fail(
        id,
        {.title = fmt::format("publication {} does not exist", listed(names)),
         .detail = "it must be older than the slot: the stream sees the catalogs as they were at each change",
         .remedy = fmt::format("name existing ones with --publication; if there was none before the slot, {}", anew)});
  }
  bool whole = true;
  bool via_root = false;
  for (int row = 0; row < rows.rows(); ++row) {
    whole = whole && rows.flag(row, 1);
    via_root = via_root || rows.flag(row, 2);
  }
  if (!whole) {
    return findings.fail(id,
                         {.title = fmt::format("publication {} leaves out some kinds of changes", listed(names)),
                          .detail = "inserts, updates, deletes and truncates are all needed, or the ends drift apart",
                          .remedy = std::string{anew}});
  }
  const pg::Result published = source.session.exec(fmt::format(
      "SELECT DISTINCT schemaname, tablename FROM pg_catalog.pg_publication_tables WHERE pubname = ANY ({})",
      text_array(names)));
  std::set<QualifiedName> there;
  for (int row = 0; row < published.rows(); ++row) there.insert({published.str(row, 0), published.str(row, 1)});
  std::vector<std::string> absent;
  for (const Table* table : tables_to_publish(source.catalog, via_root)) {
    if (!there.contains(table->name)) absent.push_back(table->name.text());
  }
  if (!absent.empty()) {
    findings.add(
        options.publications.empty() ? Severity::Fail : Severity::Warn, id,
        {.title = fmt::format("publication {} leaves out {}", listed(names), counted(absent.size(), "table", "tables")),
         .detail = "their changes do not arrive: " + listed(absent, 40),
         .remedy = options.publications.empty() ? fmt::format("leave them out with --exclude-table; else {}", anew)
                                                : "nothing, if they are to be left out"});
  }
  const std::vector<std::string> others =
      source.texts(fmt::format("SELECT pubname FROM pg_catalog.pg_publication WHERE pubname = ANY ({}) AND NOT "
                               "pg_catalog.pg_has_role(current_user, pubowner, 'USAGE')",
                               text_array(names)));
  const bool ours = others.empty() || !options.publications.empty();
  if (!ours) {
    findings.fail(id,
                  {.title = fmt::format("publication {} belongs to a role that ours is no member of", listed(others)),
                   .detail = "it is to be walferry's, which drops it at the end",
                   .remedy = fmt::format("ALTER PUBLICATION {0} OWNER TO {1};   or keep it: --publication {0}",
                                         pg::quote_name(others.front()), pg::quote_name(source.role))});
  }
  const std::vector<std::string> late = late_members(source, names, options.slot);
  if (!late.empty()) {
    findings.fail(id,
                  {.title = fmt::format("publication {} was given {} later than it was made", listed(names),
                                        counted(late.size(), "table or schema", "tables or schemas")),
                   .detail = "if that was after the slot, changes in between are not in the stream: " + listed(late),
                   .remedy = fmt::format("publish all of them in the statement that makes the publication: {}", anew)});
  }
  if (absent.empty() && late.empty() && ours)
    findings.pass(id, fmt::format("publication {} carries every table and every kind of change", listed(names)));
}

// What only a person knows is said, what the servers know is compared.
void check_position(End& source, End& target, const CheckOptions& options, Findings& findings) {
  const std::string id = "pair.adopted_position";
  const Lsn adopted = *options.adopt;
  if (source.identity.same_database(target.identity)) {
    const std::optional<Lsn> left = branch_point(source.session, target.session);
    if (left && *left == adopted)
      return findings.pass(id, fmt::format("the physical copy left the source's timeline at {}", left->to_string()));
    if (left) {
      return findings.fail(id, {.title = fmt::format("the physical copy left the source's timeline at {}, not at {}",
                                                     left->to_string(), adopted.to_string()),
                                .detail = *left < adopted ? "what committed in between would be lost"
                                                          : "what committed in between would be "
                                                            "applied a second time",
                                .remedy = fmt::format("--adopt {}", left->to_string())});
    }
    return findings.warn(id, {.title = "where the physical copy left the source cannot be read",
                              .detail = "it was not promoted on a timeline of its own, or the history of its timelines "
                                        "(pg_read_file) is closed to our role: the LSN is taken as given",
                              .remedy = "it must be the one up to which the copy had replayed: the last line of its "
                                        "pg_wal/*.history, or pg_last_wal_replay_lsn() just before it was promoted"});
  }
  const Lsn slot = read_slot(source, options.slot).confirmed;
  if (!slot || slot > adopted) return;  // has been told
  if (slot == adopted)
    return findings.pass(id, fmt::format("{} is where slot {} begins", adopted.to_string(), options.slot));
  findings.warn(
      id, {.title = fmt::format("{} lies {} after the beginning of slot {}, {}", adopted.to_string(),
                                bytes_text(static_cast<std::int64_t>(adopted.value - slot.value)), options.slot,
                                slot.to_string()),
           .detail = "that is right for a dump of a standby whose replay was paused there, or of a source that was "
                     "not written to. What committed in between must be in the data: it is not streamed",
           .remedy = fmt::format("for a dump under the slot's own snapshot: --adopt {}", slot.to_string())});
}

// Rows that are older than the slot and still there are in any data that stand after it.
void check_rows(End& source, End& target, const CheckOptions& options, Findings& findings) {
  const std::string id = "pair.adopted_rows";
  const std::vector<std::string> with_rows = tables_with_rows(target);
  const std::set<std::string> filled{with_rows.begin(), with_rows.end()};
  std::vector<std::string> empty;
  for (const Table& table : source.catalog.tables) {
    if (!table.holds_rows() || table.persistence != 'p' || table.pages == 0) continue;
    if (target.catalog.find(table.name) == nullptr || filled.contains(table.name.text())) continue;
    const bool has_old_rows =
        source.session
            .exec(
                fmt::format("SELECT EXISTS (SELECT 1 FROM ONLY {} t WHERE pg_catalog.age(t.xmin) > (SELECT "
                            "pg_catalog.age(catalog_xmin) FROM pg_catalog.pg_replication_slots WHERE slot_name = {}))",
                            table.name.quoted(), pg::quote_literal(options.slot)))
            .flag(0, 0);
    if (has_old_rows) empty.push_back(table.name.text());
  }
  // Tables of the source that are not selected may have come with the dump.
  const Catalog everything = read_catalog(source.session);
  std::set<std::string> known;
  for (const Table& table : everything.tables) known.insert(table.name.text());
  std::vector<std::string> own;
  std::ranges::copy_if(with_rows, std::back_inserter(own),
                       [&](const std::string& name) { return !known.contains(name); });
  if (!empty.empty()) {
    findings.fail(id, {.title = counted(empty.size(), "table is", "tables are") +
                                " empty on the target and held rows on the source before the slot was made",
                       .detail = "the data are not whole: " + listed(empty, 40),
                       .remedy = "load them from the same dump or backup, or leave them out with --exclude-table"});
  }
  if (!own.empty()) {
    findings.add(options.allow_nonempty_target ? Severity::Warn : Severity::Fail, id,
                 {.title = counted(own.size(), "table", "tables") + " with rows on the target that the source has not",
                  .detail = "this may be another database than the one whose data are meant: " + listed(own, 40),
                  .remedy = options.allow_nonempty_target ? "allowed by --allow-nonempty-target"
                                                          : "correct --target, or say --allow-nonempty-target"});
  }
  if (empty.empty() && own.empty())
    findings.pass(id, fmt::format("{} with rows to adopt", counted(filled.size(), "table", "tables")));
}

void check_partitions(End& source, End& target, const CheckOptions& options, Findings& findings) {
  std::set<QualifiedName> roots = partitioned_differently(source.catalog, target.catalog);
  if (source.identity.same_database(target.identity)) {
    for (const QualifiedName& root : hashed_by_oids(source.catalog)) roots.erase(root);  // a copy has the same oids
  }
  if (roots.empty()) return;
  const bool via_root = source.number(fmt::format("SELECT count(*) FROM pg_catalog.pg_publication WHERE NOT pubviaroot "
                                                  "AND pubname = ANY ({})",
                                                  text_array(publications_of(options)))) == 0;
  if (via_root) return;
  findings.fail("pair.adopted_partitions",
                {.title = "the target is partitioned differently, and the publication names the source's partitions",
                 .detail = "changes would arrive under names that the target does not have",
                 .remedy = fmt::format("partition the target like the source; or make the publication WITH "
                                       "(publish_via_partition_root = true), and {}",
                                       anew)});
}

// What a physical copy brings along and what then acts by itself.
void check_companions(End& target, Findings& findings) {
  const std::string id = "target.adopted_companions";
  std::vector<std::string> remedies;
  for (const std::string& gid : target.texts("SELECT gid FROM pg_catalog.pg_prepared_xacts WHERE database = "
                                             "pg_catalog.current_database() ORDER BY 1"))
    remedies.push_back(fmt::format("ROLLBACK PREPARED {};", pg::quote_literal(gid)));
  if (target.superuser) {
    for (const std::string& name : target.texts(
             "SELECT pg_catalog.quote_ident(subname) FROM pg_catalog.pg_subscription WHERE subenabled AND subdbid = "
             "(SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()) ORDER BY 1"))
      remedies.push_back(fmt::format(
          "ALTER SUBSCRIPTION {0} DISABLE; ALTER SUBSCRIPTION {0} SET (slot_name = NONE); DROP SUBSCRIPTION {0};",
          name));
  }
  if (remedies.empty()) return findings.pass(id, "nothing came with the data that would act by itself on the target");
  findings.fail(id,
                {.title = "prepared transactions or enabled subscriptions came with the data",
                 .detail = "a prepared transaction holds its locks and arrives once more when the source commits it; "
                           "a subscription takes changes away from the source's own",
                 .remedy = "on the target:\n" + listed(remedies, 40, "\n")});
}

}  // namespace

void check_adopted_source(End& source, const CheckOptions& options, Findings& findings) {
  if (!*options.adopt) return check_lsn_named(source, options, findings);
  demand(findings, "source.adopted_slot", [&] { check_slot(source, options, findings); });
  demand(findings, "source.publication", [&] { check_publications(source, options, findings); });
}

void check_adopted_target(End& source, End& target, const CheckOptions& options, Findings& findings) {
  if (!*options.adopt) {
    if (const auto left = branch_point(source.session, target.session)) {
      findings.pass("pair.adopted_position",
                    fmt::format("the target is a physical copy that left the source's timeline "
                                "at {0}: --adopt {0}",
                                left->to_string()));
    }
    return;
  }
  demand(findings, "pair.adopted_position", [&] { check_position(source, target, options, findings); });
  demand(findings, "pair.adopted_rows", [&] { check_rows(source, target, options, findings); });
  demand(findings, "pair.adopted_partitions", [&] { check_partitions(source, target, options, findings); });
  demand(findings, "target.adopted_companions", [&] { check_companions(target, findings); });
}

}  // namespace walferry::check
