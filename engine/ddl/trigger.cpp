#include "engine/ddl/trigger.hpp"

#include <fmt/format.h>

#include <string>

namespace walferry::ddl {
namespace {

// Everything is qualified, operators too: the function keeps the search_path of the statement it reports.
// {0} function, {1} helper, {2} sequence with the secret, {3} publication as literal.
constexpr std::string_view functions = R"sql(
CREATE SCHEMA IF NOT EXISTS walferry;
CREATE SEQUENCE IF NOT EXISTS {2};
REVOKE ALL ON SEQUENCE {2} FROM PUBLIC;

CREATE OR REPLACE FUNCTION {1}(relation pg_catalog.oid) RETURNS pg_catalog.jsonb LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp SET "TimeZone" = 'UTC' SET "DateStyle" = 'ISO, MDY' SET "IntervalStyle" = 'postgres'
SET extra_float_digits = 1 SET bytea_output = 'hex' SET lc_monetary = 'C' AS $missing$
  SELECT jsonb_object_agg(a.attname, (a.attmissingval::text::text[])[1])
  FROM pg_attribute a WHERE a.attrelid = relation AND a.attnum > 0 AND NOT a.attisdropped AND a.atthasmissing
$missing$;
REVOKE ALL ON FUNCTION {1}(pg_catalog.oid) FROM PUBLIC;

CREATE OR REPLACE FUNCTION {0}() RETURNS event_trigger LANGUAGE plpgsql SECURITY DEFINER
SET lc_messages = 'C' SET lock_timeout = '1s' AS $note$
DECLARE
  publication CONSTANT pg_catalog.text := {3};
  secret pg_catalog.text;
  command record;
  objects pg_catalog.jsonb := '[]';
  transactions pg_catalog.jsonb;
  object pg_catalog.jsonb;
  context pg_catalog.text;
  full_name pg_catalog.text;
  empty pg_catalog.bool;
BEGIN
  IF pg_catalog.current_setting('application_name') OPERATOR(pg_catalog.~) '^walferry( |$)'
     OR tg_tag OPERATOR(pg_catalog.~) '(PUBLICATION|SUBSCRIPTION|REINDEX|REFRESH MATERIALIZED VIEW)$' THEN
    RETURN;
  END IF;
  GET DIAGNOSTICS context = PG_CONTEXT;
  SELECT s.last_value INTO secret FROM {2} s;

  IF tg_event OPERATOR(pg_catalog.=) 'table_rewrite' THEN
    SELECT pg_catalog.jsonb_build_array(pg_catalog.jsonb_build_object(
             'type', 'table', 'identity', i.identity, 'reason', pg_catalog.pg_event_trigger_table_rewrite_reason(),
             'oid', pg_catalog.pg_event_trigger_table_rewrite_oid()::pg_catalog.int8))
      INTO objects
      FROM pg_catalog.pg_identify_object(1259, pg_catalog.pg_event_trigger_table_rewrite_oid(), 0) i
      WHERE i.schema IS NOT NULL AND i.schema OPERATOR(pg_catalog.!~) '^(pg_temp|pg_toast_temp|walferry$)';
    IF objects IS NULL THEN RETURN; END IF;
  ELSIF tg_event OPERATOR(pg_catalog.=) 'sql_drop' THEN
    SELECT pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object('type', d.object_type, 'identity', d.object_identity))
      INTO objects
      FROM pg_catalog.pg_event_trigger_dropped_objects() d
      WHERE d.original AND NOT d.is_temporary
        AND (d.schema_name IS NULL OR d.schema_name OPERATOR(pg_catalog.<>) 'walferry');
    IF objects IS NULL THEN RETURN; END IF;
  ELSE
    FOR command IN SELECT * FROM pg_catalog.pg_event_trigger_ddl_commands() LOOP
      IF command.in_extension THEN RETURN; END IF;
      CONTINUE WHEN command.schema_name OPERATOR(pg_catalog.~) '^(pg_temp|walferry$)';
      -- The cutover carries them with their owners, grants and comments.
      CONTINUE WHEN pg_catalog.lower(command.object_type) OPERATOR(pg_catalog.=) 'large object';
      object := pg_catalog.jsonb_build_object('type', pg_catalog.lower(command.object_type),
                                              'identity', command.object_identity, 'tag', command.command_tag);
      IF command.classid OPERATOR(pg_catalog.=) '1259'::pg_catalog.oid
         AND command.object_type OPERATOR(pg_catalog.=) 'table' THEN
        SELECT object OPERATOR(pg_catalog.||) pg_catalog.jsonb_build_object(
                 'schema', n.nspname, 'name', c.relname, 'oid', c.oid::pg_catalog.int8, 'kind', c.relkind, 'persistence', c.relpersistence,
                 'missing', {1}(c.oid),
                 'below', CASE WHEN c.relhassubclass THEN (
                   WITH RECURSIVE below(relation) AS (
                     SELECT i.inhrelid FROM pg_catalog.pg_inherits i WHERE i.inhparent OPERATOR(pg_catalog.=) c.oid
                     UNION SELECT i.inhrelid FROM below b JOIN pg_catalog.pg_inherits i
                       ON i.inhparent OPERATOR(pg_catalog.=) b.relation)
                   SELECT pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
                            'schema', m.nspname, 'name', d.relname, 'oid', d.oid::pg_catalog.int8, 'missing', v.missing))
                   FROM below b JOIN pg_catalog.pg_class d ON d.oid OPERATOR(pg_catalog.=) b.relation
                   JOIN pg_catalog.pg_namespace m ON m.oid OPERATOR(pg_catalog.=) d.relnamespace
                   CROSS JOIN LATERAL (SELECT {1}(d.oid) AS missing) v
                   WHERE d.relkind OPERATOR(pg_catalog.=) 'r' AND d.relpersistence OPERATOR(pg_catalog.=) 'p'
                     AND v.missing IS NOT NULL) END,
                 'published', EXISTS (SELECT 1 FROM pg_catalog.pg_publication_rel r
                                      JOIN pg_catalog.pg_publication p ON p.oid OPERATOR(pg_catalog.=) r.prpubid
                                      WHERE r.prrelid OPERATOR(pg_catalog.=) c.oid
                                        AND p.pubname OPERATOR(pg_catalog.=) publication))
          INTO object
          FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
          WHERE c.oid OPERATOR(pg_catalog.=) command.objid;
        -- A new table joins before anybody can have written to it. Without a key it does not: its updates and deletes
        -- would be refused on the source.
        IF publication OPERATOR(pg_catalog.<>) '' AND NOT (object OPERATOR(pg_catalog.->>) 'published')::pg_catalog.bool
           AND object OPERATOR(pg_catalog.->>) 'kind' OPERATOR(pg_catalog.=) 'r'
           AND object OPERATOR(pg_catalog.->>) 'persistence' OPERATOR(pg_catalog.=) 'p'
           AND EXISTS (SELECT 1 FROM pg_catalog.pg_index i
                       JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) i.indrelid
                       WHERE i.indrelid OPERATOR(pg_catalog.=) command.objid AND i.indimmediate AND i.indisvalid
                         AND ((c.relreplident OPERATOR(pg_catalog.=) 'd' AND i.indisprimary)
                              OR (c.relreplident OPERATOR(pg_catalog.=) 'i' AND i.indisreplident))
                         AND NOT EXISTS (SELECT 1 FROM pg_catalog.pg_attribute g
                                         WHERE g.attrelid OPERATOR(pg_catalog.=) i.indrelid
                                           AND g.attgenerated OPERATOR(pg_catalog.<>) ''
                                           AND g.attnum OPERATOR(pg_catalog.=) ANY (i.indkey::pg_catalog.int2[]))) THEN
          BEGIN
            full_name := pg_catalog.format('%I.%I', object OPERATOR(pg_catalog.->>) 'schema',
                                           object OPERATOR(pg_catalog.->>) 'name');
            EXECUTE pg_catalog.format('SELECT NOT EXISTS (SELECT 1 FROM ONLY %s)', full_name) INTO empty;
            IF empty THEN
              EXECUTE pg_catalog.format('ALTER PUBLICATION %I ADD TABLE ONLY %s', publication, full_name);
              object := object OPERATOR(pg_catalog.||) '{{"published": true, "joined": true}}'::pg_catalog.jsonb;
            END IF;
          EXCEPTION WHEN OTHERS THEN
            object := object OPERATOR(pg_catalog.||) pg_catalog.jsonb_build_object('not_published', SQLERRM);
          END;
        END IF;
      END IF;
      objects := objects OPERATOR(pg_catalog.||) pg_catalog.jsonb_build_array(object);
    END LOOP;
    -- The end of a DROP belongs to the list of what it dropped; in a string of several statements each must be counted.
    IF pg_catalog.jsonb_array_length(objects) OPERATOR(pg_catalog.=) 0
       AND tg_tag OPERATOR(pg_catalog.!~) '^DROP'
       AND pg_catalog.current_query() OPERATOR(pg_catalog.!~) ';\s*\S'
       AND context OPERATOR(pg_catalog.!~) ';\s*\S' THEN
      RETURN;
    END IF;
  END IF;

  -- A streamed message is not said to be of a subtransaction that is rolled back later: it names those that it is in
  -- itself. This block is one of them, and has a number once it has written something.
  PERFORM pg_catalog.pg_logical_emit_message(true, 'walferry.ddl', ''::pg_catalog.text);
  SELECT pg_catalog.jsonb_agg(l.transactionid::pg_catalog.text::pg_catalog.int8) INTO transactions
    FROM pg_catalog.pg_locks l
    WHERE l.locktype OPERATOR(pg_catalog.=) 'transactionid' AND l.granted AND l.pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid();
  PERFORM pg_catalog.pg_logical_emit_message(true, 'walferry.ddl', pg_catalog.convert_to(pg_catalog.jsonb_build_object(
    'secret', secret, 'event', tg_event, 'tag', tg_tag, 'objects', objects, 'transactions', transactions,
    'at', pg_catalog.date_part('epoch', pg_catalog.statement_timestamp()),
    'query', pg_catalog.current_query(), 'context', context,
    'role', CASE WHEN pg_catalog.current_setting('role') OPERATOR(pg_catalog.=) 'none' THEN session_user::pg_catalog.text
                 ELSE pg_catalog.current_setting('role') END,
    'settings', pg_catalog.jsonb_build_object(
      'search_path', pg_catalog.current_setting('search_path'),
      'TimeZone', pg_catalog.current_setting('TimeZone'),
      'DateStyle', pg_catalog.current_setting('DateStyle'),
      'IntervalStyle', pg_catalog.current_setting('IntervalStyle'),
      'standard_conforming_strings', pg_catalog.current_setting('standard_conforming_strings'),
      'check_function_bodies', pg_catalog.current_setting('check_function_bodies'),
      'xmloption', pg_catalog.current_setting('xmloption'),
      'bytea_output', pg_catalog.current_setting('bytea_output'),
      'extra_float_digits', pg_catalog.current_setting('extra_float_digits')))::pg_catalog.text, 'UTF8'));
  -- A message counts as standing at the end of its record, where the next row begins, and this block is a subtransaction:
  -- decoding would be free to put that row first. An empty message keeps them apart.
  PERFORM pg_catalog.pg_logical_emit_message(true, 'walferry.ddl', ''::pg_catalog.text);
EXCEPTION WHEN OTHERS THEN
  RAISE LOG 'walferry could not note a schema change: %', SQLERRM;
END
$note$;
)sql";

std::string suffixed(const std::string& migration, std::string_view what) {
  return migration.substr(0, 48) + "_" + std::string{what};
}

// The secret's home. A function's text is for everybody to read, a table may be in somebody else's publication FOR ALL
// TABLES, whose subscribers lack it, and an unlogged one is empty after a crash. The value of a sequence is none of it.
std::string secret_sequence(const std::string& migration) {
  return "walferry." + pg::quote_name(suffixed(migration, "secret"));
}

struct Event {
  std::string_view event;
  std::string_view suffix;
};
constexpr Event events[] = {{"ddl_command_end", "ddl"}, {"sql_drop", "ddl_drop"}, {"table_rewrite", "ddl_rewrite"}};

}  // namespace

bool trigger_permitted(pg::Session& source) {
  return source.server_version() >= 140'000 &&
         source.exec("SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user").flag(0, 0);
}

void install_trigger(pg::Session& source, const TriggerOptions& options) {
  const std::string function = "walferry." + pg::quote_name(suffixed(options.migration, "note"));
  const std::string helper = "walferry." + pg::quote_name(suffixed(options.migration, "missing"));
  std::string sql = "BEGIN; SET LOCAL lock_timeout = '10s';";
  const std::string sequence = secret_sequence(options.migration);
  sql += fmt::format(functions, function, helper, sequence, pg::quote_literal(options.publication));
  sql += fmt::format("SELECT pg_catalog.setval({}, {});", pg::quote_literal(sequence), options.secret);
  for (const Event& event : events) {
    const std::string name = pg::quote_name(suffixed(options.migration, event.suffix));
    sql += fmt::format(
        "DROP EVENT TRIGGER IF EXISTS {0}; CREATE EVENT TRIGGER {0} ON {1} EXECUTE FUNCTION {2}(); "
        "ALTER EVENT TRIGGER {0} ENABLE ALWAYS;",
        name, event.event, function);
  }
  source.exec(sql + "COMMIT");
}

void remove_trigger(pg::Session& source, const std::string& migration) {
  if (!source.exec("SELECT pg_catalog.to_regnamespace('walferry') IS NOT NULL").flag(0, 0)) return;
  std::string sql = "BEGIN; SET LOCAL lock_timeout = '10s';";
  for (const Event& event : events)
    sql += fmt::format("DROP EVENT TRIGGER IF EXISTS {};", pg::quote_name(suffixed(migration, event.suffix)));
  sql += fmt::format(
      "DROP FUNCTION IF EXISTS walferry.{}(); DROP FUNCTION IF EXISTS walferry.{}(pg_catalog.oid); "
      "DROP SEQUENCE IF EXISTS {};",
      pg::quote_name(suffixed(migration, "note")), pg::quote_name(suffixed(migration, "missing")),
      secret_sequence(migration));
  source.exec(sql + "COMMIT");
  const bool in_use = source
                          .exec(
                              "SELECT EXISTS (SELECT 1 FROM pg_catalog.pg_depend WHERE refclassid = "
                              "'pg_catalog.pg_namespace'::pg_catalog.regclass AND refobjid = "
                              "pg_catalog.to_regnamespace('walferry'))")
                          .flag(0, 0);
  if (!in_use) source.exec("DROP SCHEMA walferry");
}

bool trigger_installed(pg::Session& source, const std::string& migration) {
  return source
      .exec(fmt::format("SELECT EXISTS (SELECT 1 FROM pg_catalog.pg_event_trigger WHERE evtname = {} AND evtenabled = "
                        "'A')",
                        pg::quote_literal(suffixed(migration, "ddl"))))
      .flag(0, 0);
}

}  // namespace walferry::ddl
