#include "engine/adoption.hpp"

#include <fmt/format.h>

#include <charconv>
#include <random>

#include "engine/publication.hpp"
#include "engine/timeline.hpp"

namespace walferry {
namespace {

// The first eight digits of a WAL file's name. pg_control_checkpoint() would lag behind a promotion.
std::uint32_t current_timeline(pg::Session& session) {
  const std::string digits =
      session.exec("SELECT pg_catalog.substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()), 1, 8)")
          .str(0, 0);
  std::uint32_t timeline = 0;
  std::from_chars(digits.data(), digits.data() + digits.size(), timeline, 16);
  return timeline;
}

TimelineHistory read_history(pg::Session& session) {
  TimelineHistory history;
  history.timeline = current_timeline(session);
  if (history.timeline <= 1) return history;
  history.file =
      session.exec(fmt::format("SELECT pg_catalog.pg_read_file('pg_wal/{:08X}.history')", history.timeline)).str(0, 0);
  return history;
}

std::string shell_word(const std::string& text) {
  std::string word = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\' || c == '$' || c == '`') word += '\\';
    word += c;
  }
  return word + '"';
}

}  // namespace

bool same_server(pg::Session& one, pg::Session& other) {
  std::random_device dice;
  const std::uint32_t first = dice() >> 1U;
  const std::uint32_t second = dice() >> 1U;
  one.exec(fmt::format("BEGIN; SELECT pg_catalog.pg_advisory_xact_lock({}, {})", first, second));
  const bool seen =
      other
          .exec(fmt::format("SELECT EXISTS (SELECT 1 FROM pg_catalog.pg_locks WHERE locktype = 'advisory' "
                            "AND classid = {} AND objid = {} AND objsubid = 2)",
                            first, second))
          .flag(0, 0);
  one.exec("ROLLBACK");
  return seen;
}

std::optional<Lsn> branch_point(pg::Session& source, pg::Session& target) {
  if (!read_identity(source).same_database(read_identity(target))) return {};
  try {
    return branch_point(read_history(source), read_history(target));
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::Sql) throw;
    return {};  // a standby, or a role that may not read the file: the caller says what follows from not knowing
  }
}

std::string how_to_adopt(const AdoptionPlan& plan, Catalog catalog) {
  const std::string source = shell_word(plan.source.without_secrets());
  const std::string target = shell_word(plan.target.without_secrets());
  const std::string dump = plan.source.get("dbname").value_or("source") + ".dump";
  std::string before;
  if (plan.replica_identity_full) {
    for (Table& table : catalog.tables) {
      if (!table.holds_rows() || table.persistence != 'p' || table.has_usable_identity()) continue;
      table.replica_identity = 'f';
      if (table.has_usable_identity())
        before += fmt::format("   ALTER TABLE {} REPLICA IDENTITY FULL;\n", table.name.quoted());
    }
  }
  if (plan.own_publication)
    before += fmt::format("   {};\n", create_publication_sql(plan.slot, catalog, !hashed_by_oids(catalog).empty()));
  return fmt::format(
      "1. On the source, first of all, in  psql {source}\n{before}"
      "2. Either a dump. Make the slot in a session of its own and leave it open, idle, until pg_dump has ended:\n"
      "   psql {replication}\n"
      "   CREATE_REPLICATION_SLOT {slot_name} LOGICAL pgoutput EXPORT_SNAPSHOT;\n"
      "   It answers with consistent_point, which is the LSN, and with snapshot_name. Then, elsewhere:\n"
      "   pg_dump -d {source} --snapshot=SNAPSHOT_NAME --no-publications --no-subscriptions -Fd -j 2 -f {dump}\n"
      "   pg_restore -d {target} -j 2 {dump}\n"
      "   vacuumdb -d {target} -j 2 --analyze-in-stages\n"
      "   Let nothing be truncated on the source before pg_dump has ended.\n"
      "3. Or a physical copy: a standby, or a restored backup. On the source:\n"
      "   SELECT lsn FROM pg_create_logical_replication_slot({slot_literal}, 'pgoutput');\n"
      "   Let the copy replay until pg_last_wal_replay_lsn() there is past that lsn, then promote it:\n"
      "   SELECT pg_promote();\n"
      "   `walferry check --adopt` with the same options then names the LSN at which it left the source.\n"
      "4. Start  walferry run --adopt LSN  with the same options. Make no schema changes in between",
      fmt::arg("source", source), fmt::arg("target", target), fmt::arg("before", before), fmt::arg("dump", dump),
      fmt::arg("replication", shell_word(plan.source.without_secrets() + " replication=database")),
      fmt::arg("slot_name", pg::quote_name(plan.slot)), fmt::arg("slot_literal", pg::quote_literal(plan.slot)));
}

}  // namespace walferry
