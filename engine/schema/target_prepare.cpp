#include "engine/schema/target_prepare.hpp"

#include <fmt/format.h>

#include <map>
#include <string_view>

#include "engine/catalog.hpp"

namespace walferry::schema {
namespace {

// What is compared: one state letter an object. Table and schema are empty for event triggers.
enum class Kind { IdentityColumn, Trigger, Rule, EventTrigger, ForcedRowSecurity };

struct Key {
  Kind kind;
  QualifiedName table;
  std::string name;

  auto operator<=>(const Key&) const = default;
};

struct State {
  char letter = ' ';         // attidentity, tgenabled, ev_enabled, evtenabled
  bool partitioned = false;  // the table is a partitioned parent
  bool partition = false;
  Oid relation{};  // zero for event triggers
  bool at_login = false;
};

using States = std::map<Key, State>;

void read_states_of_tables(pg::Session& session, Kind kind, const std::string& from, States& states) {
  const pg::Result rows = session.exec(
      fmt::format("SELECT n.nspname, c.relname, o.name, o.state, c.relkind = 'p', c.relispartition, c.oid FROM ({}) o "
                  "JOIN pg_catalog.pg_class c ON c.oid = o.relation JOIN pg_catalog.pg_namespace n ON n.oid = "
                  "c.relnamespace WHERE c.relkind NOT IN ('v', 'm') AND {} AND {}",
                  from, user_schema_condition("n"), no_extension_condition("c")));
  for (int row = 0; row < rows.rows(); ++row) {
    states.emplace(Key{kind, {rows.str(row, 0), rows.str(row, 1)}, rows.str(row, 2)},
                   State{rows.text(row, 3).front(), rows.flag(row, 4), rows.flag(row, 5), Oid{rows.u32(row, 6)}});
  }
}

States read_states(pg::Session& session) {
  States states;
  read_states_of_tables(
      session, Kind::IdentityColumn,
      "SELECT attrelid AS relation, attname AS name, attidentity AS state FROM pg_catalog.pg_attribute "
      "WHERE attidentity <> '' AND attnum > 0 AND NOT attisdropped",
      states);
  // Before 15 the copies of a trigger on partitions count as internal; those of foreign keys and deferrable keys always
  // do.
  read_states_of_tables(
      session, Kind::Trigger,
      "SELECT tgrelid AS relation, tgname AS name, tgenabled AS state FROM pg_catalog.pg_trigger t "
      "WHERE NOT tgisinternal OR (tgparentid <> 0 AND NOT EXISTS (SELECT FROM pg_catalog.pg_constraint k "
      "WHERE k.oid = t.tgconstraint AND k.contype = 'f'))",
      states);
  read_states_of_tables(session, Kind::Rule,
                        "SELECT ev_class AS relation, rulename AS name, ev_enabled AS state FROM pg_catalog.pg_rewrite "
                        "WHERE rulename <> '_RETURN'",
                        states);
  read_states_of_tables(session, Kind::ForcedRowSecurity,
                        "SELECT oid AS relation, '' AS name, CASE WHEN relforcerowsecurity THEN 'f' ELSE '-' END AS "
                        "state FROM pg_catalog.pg_class WHERE relkind IN ('r', 'p') AND relpersistence <> 't'",
                        states);
  const pg::Result rows = session.exec(
      "SELECT evtname, evtenabled, evtevent = 'login' FROM pg_catalog.pg_event_trigger t WHERE NOT EXISTS (SELECT FROM "
      "pg_catalog.pg_depend e "
      "WHERE e.classid = 'pg_catalog.pg_event_trigger'::pg_catalog.regclass AND e.objid = t.oid AND e.deptype = 'e')");
  for (int row = 0; row < rows.rows(); ++row) {
    states.emplace(Key{Kind::EventTrigger, {}, rows.str(row, 0)},
                   State{.letter = rows.text(row, 1).front(), .at_login = rows.flag(row, 2)});
  }
  return states;
}

bool fires_always(char letter) {
  return letter == 'R' || letter == 'A';
}

std::string_view switch_word(char letter) {
  if (letter == 'D') return "DISABLE";
  if (letter == 'R') return "ENABLE REPLICA";
  return letter == 'A' ? "ENABLE ALWAYS" : "ENABLE";
}

// Brings one object into the state `letter`. From 17 on a partitioned table's identity belongs to the whole tree.
std::string change_statement(const Key& key, const State& current, char letter) {
  const std::string name = pg::quote_name(key.name);
  switch (key.kind) {
    case Kind::IdentityColumn:
      return fmt::format("ALTER TABLE {}{} ALTER COLUMN {} SET GENERATED {}", current.partitioned ? "" : "ONLY ",
                         key.table.quoted(), name, letter == 'a' ? "ALWAYS" : "BY DEFAULT");
    case Kind::Trigger:
      return fmt::format("ALTER TABLE ONLY {} {} TRIGGER {}", key.table.quoted(), switch_word(letter), name);
    case Kind::Rule:
      return fmt::format("ALTER TABLE {} {} RULE {}", key.table.quoted(), switch_word(letter), name);
    case Kind::ForcedRowSecurity:
      return fmt::format("ALTER TABLE ONLY {} {} ROW LEVEL SECURITY", key.table.quoted(),
                         letter == 'f' ? "FORCE" : "NO FORCE");
    case Kind::EventTrigger:
      break;
  }
  return fmt::format("ALTER EVENT TRIGGER {} {}", name, switch_word(letter));
}

bool belongs_to_its_parent(pg::Session& target, const Key& key, const State& state) {
  return key.kind == Kind::IdentityColumn && state.partition && target.server_version() >= 170000;
}

// Whether it would do something by itself when rows of the source are applied.
bool acts(const Key& key, const State& state, const RelaxOptions& options) {
  if (key.kind == Kind::IdentityColumn) return state.letter == 'a';
  if (key.kind == Kind::ForcedRowSecurity) return options.forced_row_security && state.letter == 'f';
  if (state.at_login) return state.letter != 'D';  // the role of a session is set after its login
  return fires_always(state.letter) ||
         (options.ordinary_triggers && key.kind != Kind::EventTrigger && state.letter == 'O');
}

Relaxation relaxation_of(const Key& key, const State& state) {
  const char relaxed = key.kind == Kind::IdentityColumn ? 'd' : key.kind == Kind::ForcedRowSecurity ? '-' : 'D';
  return {.relaxes = change_statement(key, state, relaxed), .restores = change_statement(key, state, state.letter)};
}

void execute_all(pg::Session& target, const std::vector<std::string>& statements, std::string_view doing) {
  for (const std::string& statement : statements) {
    try {
      // One by one: each holds its lock for a moment only, and what is done need not be done again.
      target.exec(statement);
    } catch (const Error& error) {
      throw error.during(fmt::format("{} ({})", doing, statement));
    }
  }
}

void relax_all(pg::Session& target, const std::vector<Relaxation>& relaxations, std::string_view doing,
               const OnRelaxations& note) {
  if (relaxations.empty()) return;
  note(relaxations);
  std::vector<std::string> statements;
  for (const Relaxation& relaxation : relaxations) statements.push_back(relaxation.relaxes);
  execute_all(target, statements, doing);
}

}  // namespace

void relax_target(pg::Session& source, pg::Session& target, const RelaxOptions& options, const OnRelaxations& note) {
  const States wanted = read_states(source);
  std::vector<Relaxation> relaxations;
  for (const auto& [key, state] : read_states(target)) {
    const auto there = wanted.find(key);
    if (there == wanted.end() || belongs_to_its_parent(target, key, state) || !acts(key, state, options)) continue;
    if (key.kind == Kind::IdentityColumn && there->second.letter != 'a') continue;  // of the target's own making
    relaxations.push_back(relaxation_of(key, state));
  }
  relax_all(target, relaxations, "preparing the target for the stream", note);
}

ActingObjects read_acting_objects(pg::Session& target, const RelaxOptions& options) {
  ActingObjects found;
  for (const auto& [key, state] : read_states(target)) {
    if (!acts(key, state, options) || belongs_to_its_parent(target, key, state)) continue;
    found.emplace(fmt::format("{} {} {} {}", static_cast<int>(key.kind), static_cast<std::uint32_t>(state.relation),
                              state.letter, key.name),
                  relaxation_of(key, state));
  }
  return found;
}

void relax_new_objects(pg::Session& target, const ActingObjects& before, const RelaxOptions& options,
                       const OnRelaxations& note) {
  std::vector<Relaxation> relaxations;
  for (const auto& [identity, relaxation] : read_acting_objects(target, options)) {
    if (!before.contains(identity)) relaxations.push_back(relaxation);
  }
  relax_all(target, relaxations, "preparing what a schema change brought for the stream", note);
}

void restore_target(pg::Session& source, pg::Session& target) {
  const States wanted = read_states(source);
  std::vector<std::string> statements;
  for (const auto& [key, state] : read_states(target)) {
    const auto there = wanted.find(key);
    if (there == wanted.end() || there->second.letter == state.letter || belongs_to_its_parent(target, key, state))
      continue;
    statements.push_back(change_statement(key, state, there->second.letter));
  }
  execute_all(target, statements, "putting the target into the source's state");
}

std::string public_schema_state(pg::Session& target) {
  const pg::Result state = target.exec(
      "SELECT pg_catalog.format('ALTER SCHEMA public OWNER TO %I', pg_catalog.pg_get_userbyid(n.nspowner)), "
      "(SELECT pg_catalog.string_agg(pg_catalog.format('; GRANT %s ON SCHEMA public TO %s%s', g.privilege_type, "
      "CASE g.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(g.grantee)) END, "
      "CASE WHEN g.is_grantable AND g.grantee <> n.nspowner THEN ' WITH GRANT OPTION' ELSE '' END), '' ORDER BY "
      "g.grantee <> n.nspowner) "
      "FROM pg_catalog.aclexplode(coalesce(n.nspacl, pg_catalog.acldefault('n', n.nspowner))) g) "
      "FROM pg_catalog.pg_namespace n WHERE n.nspname = 'public'");
  if (state.rows() == 0) return {};
  // Whatever was granted meanwhile goes first, by name, whoever it was granted to.
  return "DO $revoke$ DECLARE grantee text; BEGIN FOR grantee IN SELECT DISTINCT CASE g.grantee WHEN 0 THEN 'PUBLIC' "
         "ELSE "
         "pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(g.grantee)) END FROM pg_catalog.pg_namespace n, "
         "pg_catalog.aclexplode(n.nspacl) g WHERE n.nspname = 'public' LOOP "
         "EXECUTE 'REVOKE ALL ON SCHEMA public FROM ' || grantee; END LOOP; END $revoke$; " +
         state.str(0, 0) + (state.is_null(0, 1) ? std::string{} : state.str(0, 1));
}

}  // namespace walferry::schema
