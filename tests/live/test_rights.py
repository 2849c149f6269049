"""As few rights as PostgreSQL allows, on both ends: what is missing is named with its price, and everything is put back.

The source's role has REPLICATION and owns the tables, the target's role owns its database; neither is a superuser.
"""

from __future__ import annotations

import contextlib

import psycopg2
import pytest

import walferry
from adoption import DumpedSlot, publish
from compare import data_differences
from migration import Migration, make_extension_table, on_versions

DATABASE = "rights"
SCHEMA = """
SET ROLE owner_of_all;
CREATE TABLE area (id integer PRIMARY KEY, name text NOT NULL UNIQUE);
CREATE TABLE place (id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY, area_id integer NOT NULL,
  changes integer NOT NULL DEFAULT 0, v text);
ALTER TABLE place ADD CONSTRAINT of_area FOREIGN KEY (area_id) REFERENCES area ON DELETE CASCADE;
COMMENT ON CONSTRAINT of_area ON place IS 'a place lies in an area';
CREATE TABLE loose (id integer PRIMARY KEY, area_id integer REFERENCES area DEFERRABLE INITIALLY DEFERRED);
INSERT INTO loose VALUES (1, NULL);
ALTER TABLE loose ADD CONSTRAINT not_valid FOREIGN KEY (id) REFERENCES area NOT VALID;
CREATE TABLE part (id integer, day date, area_id integer REFERENCES area, PRIMARY KEY (id, day)) PARTITION BY RANGE (day);
CREATE TABLE part_1 PARTITION OF part FOR VALUES FROM ('2024-01-01') TO ('2025-01-01');
CREATE TABLE part_2 PARTITION OF part DEFAULT;
CREATE TABLE log (id bigserial PRIMARY KEY, line text);
CREATE FUNCTION count_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN NEW.changes := NEW.changes + 1; RETURN NEW; END $$;
CREATE FUNCTION write_log() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN INSERT INTO public.log (line) VALUES (TG_TABLE_NAME || ' ' || TG_OP); RETURN NULL; END $$;
CREATE TRIGGER count_change BEFORE INSERT OR UPDATE ON place FOR EACH ROW EXECUTE FUNCTION count_change();
CREATE TRIGGER write_log AFTER INSERT OR UPDATE OR DELETE ON place FOR EACH ROW EXECUTE FUNCTION write_log();
CREATE TRIGGER off BEFORE UPDATE ON area FOR EACH ROW EXECUTE FUNCTION count_change();
ALTER TABLE area DISABLE TRIGGER off;
CREATE TRIGGER write_log AFTER INSERT ON part FOR EACH ROW EXECUTE FUNCTION write_log();
CREATE TABLE ruled (id integer PRIMARY KEY, v text);
CREATE RULE nothing AS ON DELETE TO ruled DO ALSO INSERT INTO log (line) VALUES ('ruled');
CREATE TABLE hidden (id integer PRIMARY KEY, v text);
ALTER TABLE hidden ENABLE ROW LEVEL SECURITY;
CREATE POLICY nobody ON hidden USING (false);
CREATE VIEW seen AS SELECT id, name FROM area;
CREATE TRIGGER on_seen INSTEAD OF INSERT ON seen FOR EACH ROW EXECUTE FUNCTION count_change();
CREATE TABLE keyless (v text);
CREATE TABLE indexed (a integer NOT NULL, b integer NOT NULL);
CREATE UNIQUE INDEX of_indexed ON indexed (a);
ALTER TABLE indexed REPLICA IDENTITY USING INDEX of_indexed;
INSERT INTO area SELECT g, 'area ' || g FROM generate_series(1, 50) g;
INSERT INTO place (area_id, v) SELECT g % 50 + 1, 'v' FROM generate_series(1, 1000) g;
INSERT INTO part SELECT g, '2024-06-01'::date + g, g % 50 + 1 FROM generate_series(1, 300) g;
INSERT INTO ruled SELECT g, 'v' FROM generate_series(1, 20) g;
INSERT INTO hidden SELECT g, 'v' FROM generate_series(1, 20) g;
INSERT INTO keyless VALUES ('twice'), ('twice'), (NULL);
INSERT INTO indexed SELECT g, g FROM generate_series(1, 20) g;
RESET ROLE;
"""
# Cascades, triggers, a rule, a swap of keys: each would do something twice if the target acted by itself.
CHANGES = """
SET ROLE owner_of_all;
DELETE FROM area WHERE id = 7 AND NOT EXISTS (SELECT FROM part WHERE area_id = 7);
DELETE FROM part WHERE area_id = 8;
DELETE FROM area WHERE id = 8;
UPDATE place SET v = 'changed' WHERE id % 3 = 0;
INSERT INTO place (area_id, v) VALUES (1, 'new');
BEGIN;
INSERT INTO loose VALUES (50, 60);
INSERT INTO area VALUES (60, 'late');
COMMIT;
UPDATE part SET day = '2030-01-01' WHERE id = 5;
INSERT INTO part VALUES (1000, '2024-02-02', 1);
DELETE FROM ruled WHERE id = 3;
UPDATE hidden SET v = 'changed';
DELETE FROM keyless WHERE ctid = (SELECT ctid FROM keyless WHERE v = 'twice' LIMIT 1);
UPDATE indexed SET b = b + 1;
RESET ROLE;
"""


def state(server, database: str = DATABASE) -> dict[str, list]:
    """What is switched off or dropped on a target for the time of a migration."""
    queries = {
        "keys": "SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid), convalidated,"
                " obj_description(oid, 'pg_constraint') FROM pg_constraint WHERE contype = 'f' AND conparentid = 0"
                " ORDER BY 1, 2",
        "triggers": "SELECT tgrelid::regclass::text, tgname, tgenabled FROM pg_trigger WHERE NOT tgisinternal"
                    " AND tgparentid = 0 AND tgname <> 'walferry_fence' ORDER BY 1, 2",
        "rules": "SELECT ev_class::regclass::text, rulename, ev_enabled FROM pg_rewrite WHERE rulename = 'nothing'",
        "identities": "SELECT attrelid::regclass::text, attname, attidentity FROM pg_attribute WHERE attidentity <> ''"
                      " ORDER BY 1, 2",
        "row security": "SELECT oid::regclass::text, relrowsecurity, relforcerowsecurity FROM pg_class"
                        " WHERE relrowsecurity ORDER BY 1",
        "replica identities": "SELECT oid::regclass::text, relreplident FROM pg_class WHERE relkind IN ('r', 'p')"
                              " AND relnamespace = 'public'::regnamespace ORDER BY 1",
    }
    return {name: server.query(database, sql) for name, sql in queries.items()}


@pytest.fixture
def poor(pair):
    """Databases and roles of their own; the daemon connects as roles without superuser."""
    made: list[Migration] = []

    def make(*options: str) -> Migration:
        migration = Migration(pair.source, pair.target, DATABASE, *options)
        made.append(migration)
        for server in (migration.source, migration.target):
            for role in ("mover", "owner_of_all"):
                if not server.query("postgres", "SELECT FROM pg_roles WHERE rolname = %s", (role,)):
                    server.execute("postgres", f"CREATE ROLE {role} LOGIN")
            server.execute(DATABASE, f"GRANT CREATE ON DATABASE {DATABASE} TO mover, owner_of_all",
                           "GRANT owner_of_all TO mover", "GRANT CREATE ON SCHEMA public TO mover, owner_of_all")
        migration.source.execute("postgres", "ALTER ROLE mover REPLICATION")
        migration.source.execute(DATABASE, f"ALTER DATABASE {DATABASE} OWNER TO owner_of_all")
        migration.target.execute(DATABASE, f"ALTER DATABASE {DATABASE} OWNER TO mover",
                                 "ALTER SCHEMA public OWNER TO mover")
        migration.daemon.source = migration.source.dsn(DATABASE, "mover")
        migration.daemon.target = migration.target.dsn(DATABASE, "mover")
        return migration

    yield make
    for migration in made:
        migration.remove()
        for server in (migration.source, migration.target):
            for role in ("mover", "owner_of_all"):
                server.execute("postgres", f"DROP ROLE IF EXISTS {role}")


@pytest.mark.tsan
def test_a_migration_without_superusers_on_either_end(poor):
    migration = poor("--no-owner", "--replica-identity-full", "--slot", "poor")
    source, target, daemon = migration.source, migration.target, migration.daemon
    migration.load(sql=SCHEMA)
    source.query(DATABASE, "SET ROLE owner_of_all; SELECT lo_from_bytea(4711, 'an object'), lo_create(4712)")
    before = state(source)

    answer = daemon.check("--no-owner", "--slot", "poor", "--json")
    assert answer.code == walferry.REFUSED, answer
    findings = {each["id"]: each for each in answer.json()["findings"] if each["severity"] != "PASS"}
    assert [each for each in findings.values() if each["severity"] == "FAIL"] == [findings["source.replica_identity"]]
    assert "keyless (no primary key)" in findings["source.replica_identity"]["detail"]
    assert "UPDATE and DELETE fail" in findings["source.replica_identity"]["detail"]
    for name, price in {"target.session_replication_role": "only in the cutover", "source.activity": "cannot be named",
                        "source.deadlock_timeout": "which of the two is ended",
                        "source.large_objects": "only a superuser may do"}.items():
        assert price in findings[name]["detail"], findings[name]

    daemon.start()
    daemon.await_phase("follow")
    assert state(source)["replica identities"] == [(table, "f" if table == "keyless" else letter)
                                                   for table, letter in before["replica identities"]]
    meanwhile = state(target)
    assert meanwhile["keys"] == []
    # Only a table's can be switched off, and a view's never acts on a change.
    assert {(table == "seen", letter) for table, _, letter in meanwhile["triggers"]} == {(False, "D"), (True, "O")}
    migration.load(sql=CHANGES)
    migration.await_applied()
    assert data_differences(*migration.ends, sequences=False) == []

    # Undone in the middle: the keys go again, and following goes on.
    target.execute(DATABASE, "ALTER TABLE ruled DISABLE ROW LEVEL SECURITY", "UPDATE ruled SET v = 'spoilt' WHERE id = 1")
    spoilt = daemon.cutover("--json")
    assert spoilt.code == walferry.DIFFERENT, spoilt
    target.execute(DATABASE, "UPDATE ruled SET v = 'v' WHERE id = 1")
    assert state(target)["keys"] == []
    migration.load(sql="SET ROLE owner_of_all; UPDATE place SET v = 'again' WHERE id < 10; DELETE FROM area WHERE id = 9 AND"
                       " NOT EXISTS (SELECT FROM part WHERE area_id = 9)")

    report = migration.switch()
    assert any("large objects could not be stopped" in note for note in report["notes"]), report["notes"]
    assert data_differences(*migration.ends) == []
    after = state(target)
    assert {key: value for key, value in after.items()} == before
    migration.expect_source_fenced()
    finished = daemon.finish("--source", daemon.source, "--target", daemon.target)
    assert finished.code == walferry.OK, finished
    assert state(source)["replica identities"] == before["replica identities"]
    assert target.query(DATABASE, "SELECT FROM pg_namespace WHERE nspname = 'walferry'") == []
    assert bytes(target.scalar(DATABASE, "SELECT lo_get(4711)")) == b"an object"


def test_a_schema_made_beforehand_gets_back_what_was_switched_off(poor):
    """With --no-schema the target's own triggers and keys are silenced during copy and apply, and put back by abort."""
    migration = poor("--no-schema", "--replica-identity-full", "--slot", "poor")
    source, target, daemon = migration.source, migration.target, migration.daemon
    migration.load(sql=SCHEMA)
    before = state(source)
    target.psql(DATABASE, sql="\n".join(line for line in SCHEMA.splitlines() if not line.startswith("INSERT"))
                .replace("RESET ROLE;", "ALTER TABLE hidden FORCE ROW LEVEL SECURITY;\nRESET ROLE;"))
    source.execute(DATABASE, "ALTER TABLE hidden FORCE ROW LEVEL SECURITY", "ALTER ROLE mover BYPASSRLS")
    wanted = state(target)
    daemon.start()
    daemon.await_phase("follow")
    migration.load(sql="ALTER ROLE owner_of_all BYPASSRLS;" + CHANGES + "ALTER ROLE owner_of_all NOBYPASSRLS")
    migration.await_applied()
    assert data_differences(*migration.ends, sequences=False) == []
    stopped = daemon.abort("--source", daemon.source, "--target", daemon.target)
    assert stopped.code == walferry.OK, stopped
    assert state(target) == wanted
    assert state(source)["replica identities"] == before["replica identities"]


def test_foreign_keys_that_were_left_out_go_with_their_table(poor):
    """The source drops a table whose keys the target is to get at the cutover."""
    migration = poor("--no-owner", "--replica-identity-full", "--slot", "poor", "--on-ddl", "apply")
    source, target, daemon = migration.source, migration.target, migration.daemon
    daemon.source = source.dsn(DATABASE)
    migration.load(sql=SCHEMA)
    daemon.start()
    daemon.await_phase("follow")
    source.execute(DATABASE, "DROP TABLE loose",
                   "ALTER TABLE place ADD CONSTRAINT brought FOREIGN KEY (area_id) REFERENCES area (id)",
                   "UPDATE place SET v = 'meanwhile' WHERE id < 5")
    migration.await_applied()
    assert state(target)["keys"] == []
    before = state(source)
    migration.switch()
    assert state(target)["keys"] == before["keys"] and "brought" in [key[1] for key in before["keys"]]
    assert data_differences(*migration.ends) == []


def test_configuration_rows_that_our_role_may_not_write_are_a_note(poor):
    """On managed servers the extensions, and with them their tables, belong to somebody else."""
    migration = poor("--no-owner", "--allow-nonempty-target", "--slot", "poor")
    migration.load(sql="SET ROLE owner_of_all; CREATE TABLE t (id integer PRIMARY KEY); INSERT INTO t VALUES (1)")
    for server in (migration.source, migration.target):
        make_extension_table(server, DATABASE)
    migration.source.execute(DATABASE, "INSERT INTO job VALUES ('of the user')", "GRANT SELECT ON job TO mover")
    migration.daemon.start()
    migration.daemon.await_phase("follow")
    report = migration.switch()
    assert any("configuration table public.job of extension pgcrypto, to which our role on the target may not write" in note
               for note in report["notes"]), report["notes"]
    assert migration.target.query(DATABASE, "SELECT command FROM job") == [("of the extension itself",)]


def test_a_dump_is_adopted_without_superusers(poor):
    """The publication must be ours to drop; keys and triggers that came with the dump are silenced and put back."""
    migration = poor("--slot", "poor", "--replica-identity-full")
    source, target, daemon = migration.source, migration.target, migration.daemon
    migration.load(sql=SCHEMA)
    publish(migration)
    lsn = DumpedSlot(migration).move()
    wanted = state(target)

    def failures() -> list[dict]:
        findings = daemon.check("--slot", "poor", "--adopt", lsn, "--json").json()["findings"]
        return [each for each in findings if each["severity"] == "FAIL"]

    refused = failures()
    assert [each["id"] for each in refused] == ["source.publication"], refused
    assert 'ALTER PUBLICATION "poor" OWNER TO "mover"' in refused[0]["remedy"], refused
    source.execute(DATABASE, "ALTER PUBLICATION poor OWNER TO mover")
    assert failures() == []
    daemon.start("--adopt", lsn)
    daemon.await_phase("follow")
    assert state(target)["keys"] == []
    migration.load(sql=CHANGES)
    migration.await_applied()
    assert data_differences(*migration.ends, sequences=False) == []
    stopped = daemon.abort("--source", daemon.source, "--target", daemon.target)
    assert stopped.code == walferry.OK, stopped
    assert state(target) == wanted
    assert source.query(DATABASE, "SELECT pubname FROM pg_publication") == []


def test_a_key_of_a_table_that_was_renamed_meanwhile_is_made_at_the_cutover(poor):
    """Left out until then for want of rights; in the words of that time it names a table that is not there."""
    migration = poor("--no-owner", "--on-ddl", "apply")
    source, target, daemon = migration.source, migration.target, migration.daemon
    daemon.source = source.dsn(DATABASE)  # whose schema changes are in the stream
    migration.load(sql="""
        CREATE TABLE area (id int PRIMARY KEY);
        CREATE TABLE place (id int PRIMARY KEY, area_id int REFERENCES area);""")
    daemon.start()
    daemon.await_phase("follow")
    source.execute(DATABASE, "ALTER TABLE place RENAME TO spot")
    migration.await_applied()
    migration.switch()
    keys = "SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint WHERE contype = 'f' ORDER BY 1"
    assert target.query(DATABASE, keys) == source.query(DATABASE, keys) and len(target.query(DATABASE, keys)) == 1


@on_versions((16, 17))
def test_memberships_keep_what_they_may_do(migrations):
    """From 16 on one may be without INHERIT or SET; and a group in between passes rights on, though it has none itself."""
    migration = migrations("members")
    source, database, target, _ = migration.ends
    roles = ("wf_app", "wf_between", "wf_readers", "wf_admin", "wf_unrelated")
    try:
        source.execute("postgres", *(f"CREATE ROLE {role}" for role in roles), "GRANT wf_between TO wf_app",
                       "GRANT wf_readers TO wf_between", "GRANT wf_admin TO wf_app WITH INHERIT FALSE, SET FALSE",
                       "GRANT wf_unrelated TO wf_app")
        migration.follow("CREATE TABLE t (id int PRIMARY KEY); GRANT SELECT ON t TO wf_readers; GRANT INSERT ON t TO wf_app;"
                         "GRANT DELETE ON t TO wf_admin")
        assert target.query(database, "SELECT roleid::regrole::text, member::regrole::text, inherit_option, set_option"
                                      " FROM pg_auth_members WHERE member::regrole::text LIKE 'wf\\_%' ORDER BY 1, 2") == [
            ("wf_admin", "wf_app", False, False), ("wf_between", "wf_app", True, True),
            ("wf_readers", "wf_between", True, True)]
        assert target.query(database, "SELECT has_table_privilege('wf_app', 't', p) FROM unnest('{SELECT,DELETE}'::text[]) p") \
            == [(True,), (False,)]
    finally:
        migration.remove()
        for server in (source, target):
            server.execute("postgres", *(f"DROP ROLE IF EXISTS {role}" for role in roles))


def test_a_way_back_without_the_rights_for_it_is_refused(poor):
    migration = poor("--no-owner")
    migration.source.execute(DATABASE, "CREATE SEQUENCE public.others", "GRANT SELECT ON public.others TO mover",
                             "CREATE MATERIALIZED VIEW public.seen AS SELECT 1 AS one", "GRANT SELECT ON public.seen TO mover",
                             "SELECT lo_create(4711)", "GRANT SELECT ON LARGE OBJECT 4711 TO mover",
                             "SET ROLE owner_of_all", "CREATE TABLE public.t (id int PRIMARY KEY)")
    migration.daemon.start()
    migration.daemon.await_phase("follow", 120)
    answer = migration.daemon.cutover("--way-back")
    assert answer.code == walferry.REFUSED, answer
    for missing in ("our role may not set session_replication_role", "our role on the target may not replicate",
                    "may not set sequences of the source: GRANT UPDATE ON SEQUENCE public.others",
                    "may not refresh materialized views of the source: GRANT their owner to ours: public.seen",
                    "belong to roles that ours is no member of, and could not be written: GRANT those roles to ours: 4711"):
        assert missing in answer.out, (missing, answer)
    migration.switch()


@on_versions((15, 16))
def test_a_role_that_was_made_beforehand_is_taken_on(pair, poor):
    """From 16 on whoever creates a role may administer it, and not yet own things in its name."""
    migration = poor()
    migration.target.execute("postgres", "ALTER ROLE mover CREATEROLE")
    source, target = migration.source, migration.target
    source.execute("postgres", "CREATE ROLE app")
    try:
        source.execute(DATABASE, "GRANT app TO mover", "GRANT CREATE ON SCHEMA public TO app", "CREATE TABLE t (id int PRIMARY KEY)", "ALTER TABLE t OWNER TO app")
        target.execute("postgres", "REVOKE owner_of_all FROM mover", "GRANT owner_of_all TO mover WITH ADMIN TRUE, INHERIT FALSE, SET FALSE")
        with contextlib.closing(psycopg2.connect(target.dsn("postgres", "mover"))) as connection, connection, \
                connection.cursor() as cursor:
            cursor.execute("CREATE ROLE app LOGIN")
        target.execute(DATABASE, "GRANT CREATE ON SCHEMA public TO app")
        findings = {each["id"]: each for each in migration.daemon.check("--json").json()["findings"]}
        assert findings["pair.roles"]["severity"] == "PASS" and "pair.owners" not in findings, findings.get("pair.owners")
        migration.daemon.start()
        migration.daemon.await_phase("follow")
        migration.switch()
        assert target.scalar(DATABASE, "SELECT tableowner FROM pg_tables WHERE tablename = 't'") == "app"
    finally:
        migration.remove()
        for server in (source, target):
            server.execute("postgres", "DROP ROLE IF EXISTS app")
