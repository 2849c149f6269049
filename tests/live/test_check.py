"""Findings of `walferry check`, each provoked, its remedy followed, and then gone.

Where a remedy is SQL it is run as it stands: what `check` proposes must be what helps.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

import psycopg2
import psycopg2.extras
import pytest

import servers
import walferry
from migration import on_versions
from servers import wait_until

DATABASE = "checked"
TABLE = "CREATE TABLE t (id int PRIMARY KEY, v text);"


@pytest.fixture(autouse=True)
def roles(pair):
    """On both ends: mover, which migrates where an end is `poor`, and holder, which owns. Gone after the databases."""
    pair.source.execute("postgres", "CREATE ROLE mover LOGIN REPLICATION", "CREATE ROLE holder")
    pair.target.execute("postgres", "CREATE ROLE mover LOGIN", "CREATE ROLE holder")
    yield
    for server in (pair.source, pair.target):
        server.execute("postgres", "DROP ROLE IF EXISTS mover, holder, stranger")


def be_poor(migration, end: str) -> None:
    """From now on walferry connects to this end as mover."""
    setattr(migration.daemon, end, getattr(migration, end).dsn(DATABASE, "mover"))


def asked(answer: walferry.Answer, name: str) -> list[dict]:
    """The findings of this id, of an answer whose exit code fits all of them."""
    document = answer.json()
    failed = any(each["severity"] == "FAIL" for each in document["findings"])
    assert answer.code == document["exit_code"] == (walferry.REFUSED if failed else walferry.OK), answer
    return [each for each in document["findings"] if each["id"] == name]


def finding(answer: walferry.Answer, name: str) -> dict:
    """The one finding of this id."""
    found = asked(answer, name)
    assert len(found) == 1, (name, found, answer)
    return found[0]


def expect(answer: walferry.Answer, name: str, severity: str, remedy: str = "", detail: str = "", title: str = "") -> None:
    """The one finding of this id is of this severity, has these pieces in remedy and detail, and its title begins so."""
    found = finding(answer, name)
    assert found["severity"] == severity and remedy in found["remedy"] and detail in found["detail"], found
    assert found["title"].startswith(title), found


def check_servers(pair, *options: str) -> walferry.Answer:
    """For what depends on no database of ours."""
    return walferry.command("check", "--source", pair.source.dsn("postgres"), "--target", pair.target.dsn("postgres"),
                            "--json", *options)


# -- what SQL provokes and SQL mends ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """One finding. The remedy's text is what is run at `at`, unless `cure` says what a person makes of it."""

    id: str
    severity: str
    remedy: str  # must be in the finding's, as `detail` in its detail
    at: str = "source"  # where the remedy is followed
    cure: str | None = None
    source: str = ""  # what provokes it there
    target: str = ""
    poor: str = ""  # the end to which walferry connects as mover
    options: tuple[str, ...] = ()
    detail: str = ""
    mute: bool = False  # without a problem there is no finding of this id, rather than a PASS

    def __str__(self) -> str:
        return f"{self.id}-{self.severity}"


CASES = [
    # Rights on the source.
    Case("source.select", "FAIL", 'GRANT USAGE ON SCHEMA closed TO "mover";\nGRANT SELECT ON closed.t TO "mover";\n'
                                  'GRANT SELECT ON public.counter TO "mover";\nGRANT SELECT ON public.t TO "mover";',
         source=TABLE + "ALTER TABLE t OWNER TO mover; REVOKE SELECT ON t FROM mover; CREATE SEQUENCE counter;"
                        "CREATE SCHEMA closed; CREATE TABLE closed.t (id int PRIMARY KEY)", poor="source",
         detail="\nno USAGE on schemas: closed\nno SELECT on: closed.t, public.counter, public.t"),
    Case("source.row_security", "FAIL", 'ALTER ROLE "mover" BYPASSRLS;',
         source=TABLE + "ALTER TABLE t ENABLE ROW LEVEL SECURITY; GRANT SELECT ON t TO mover", poor="source",
         detail="public.t"),
    Case("source.replication", "FAIL", 'ALTER ROLE "mover" REPLICATION;', source="ALTER ROLE mover NOREPLICATION",
         poor="source"),
    Case("source.publication", "FAIL", 'GRANT CREATE ON DATABASE "checked" TO "mover";\nGRANT holder TO "mover";',
         source=TABLE + "ALTER TABLE t OWNER TO holder", poor="source", detail="; owned by others: public.t"),
    Case("source.database_owner", "WARN", 'ALTER DATABASE "checked" OWNER TO "mover";', poor="source", mute=True),
    Case("source.write_stop", "WARN", 'GRANT CREATE ON DATABASE "checked" TO "mover"; GRANT <each owner> TO "mover";',
         cure='GRANT CREATE ON DATABASE "checked" TO "mover"; GRANT holder TO "mover"',
         source=TABLE + "ALTER TABLE t OWNER TO holder", poor="source",
         detail="; CREATE on the database is missing; tables of others: public.t"),
    # Rights on the target.
    Case("target.create", "FAIL", 'GRANT CREATE ON DATABASE "checked" TO "mover";\n'
                                  'GRANT CREATE ON SCHEMA public TO "mover";', at="target",
         target="REVOKE CREATE ON SCHEMA public FROM PUBLIC", poor="target"),
    Case("target.ownership", "FAIL", 'GRANT <owner> TO "mover"; on the target', at="target", cure="GRANT holder TO mover",
         target=TABLE + "ALTER TABLE t OWNER TO holder", poor="target", options=("--no-schema",),
         detail="public.t"),
    Case("pair.owners", "WARN", 'GRANT "holder" TO "mover";', at="target", poor="target", mute=True,
         source=TABLE + "ALTER TABLE t OWNER TO holder; ALTER SCHEMA public OWNER TO mover;"
                        "ALTER DATABASE checked OWNER TO mover"),
    Case("pair.owners", "WARN", "connect as a superuser, or give what postgres owns to another role",
         cure="ALTER DATABASE checked OWNER TO mover; ALTER SCHEMA public OWNER TO mover; ALTER TABLE t OWNER TO mover",
         source=TABLE, poor="target", mute=True),
    Case("pair.roles", "FAIL", """CREATE ROLE "stranger" LOGIN PASSWORD '...';""", at="target", poor="target",
         source=TABLE + "CREATE ROLE stranger; GRANT SELECT ON t TO stranger"),
    Case("pair.superuser_objects", "FAIL", "let an administrator create extensions on the target beforehand",
         cure="CREATE EXTENSION pageinspect", at="target", source="CREATE EXTENSION pageinspect", poor="target",
         detail="mover is none: extension pageinspect"),
    # Extensions: a name that no server has files of, since catalogs can be written to and shared folders should not.
    Case("pair.extensions", "FAIL", 'DROP EXTENSION "only_here";',
         source="CREATE EXTENSION pgstattuple; UPDATE pg_extension SET extname = 'only_here' WHERE extname = 'pgstattuple'"),
    Case("pair.extensions", "FAIL", 'CREATE EXTENSION "pgstattuple";', at="target", options=("--no-schema",),
         source="CREATE EXTENSION pgstattuple"),
    Case("pair.extensions", "WARN", """ALTER EXTENSION "pgstattuple" UPDATE TO '<version>';""",
         cure="ALTER EXTENSION pgstattuple UPDATE TO '1.5'", source="CREATE EXTENSION pgstattuple VERSION '1.4'"),
    # Names that are taken.
    Case("source.slot_name", "FAIL", "SELECT pg_drop_replication_slot('walferry_checked');",
         source="SELECT pg_create_logical_replication_slot('walferry_checked', 'pgoutput')"),
    Case("target.position", "FAIL", "DROP TABLE walferry.progress_walferry_checked;", at="target",
         target="CREATE SCHEMA walferry; CREATE TABLE walferry.progress_walferry_checked ()"),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_finding_is_gone_when_its_remedy_is_followed(migrations, case):
    migration = migrations(DATABASE, *case.options)
    for server, provoking in (migration.source, case.source), (migration.target, case.target):
        if provoking:
            server.execute(DATABASE, provoking)
    if case.poor:
        be_poor(migration, case.poor)
    expect(migration.daemon.check("--json", *case.options), case.id, case.severity, case.remedy, case.detail)
    getattr(migration, case.at).execute(DATABASE, case.remedy if case.cure is None else case.cure)
    left = asked(migration.daemon.check("--json", *case.options), case.id)
    assert [each["severity"] for each in left] == ([] if case.mute else ["PASS"]), left


def test_what_only_a_superuser_creates_is_named_to_other_roles(migrations):
    migration = migrations(DATABASE)
    migration.load(sql="""
        CREATE FOREIGN DATA WRAPPER wrapper;
        CREATE FUNCTION round_number() RETURNS double precision LANGUAGE internal AS 'dpi';
        CREATE FUNCTION harmless() RETURNS int LANGUAGE sql AS 'SELECT 1';
        CREATE TYPE word;
        CREATE FUNCTION word_in(cstring) RETURNS word LANGUAGE internal IMMUTABLE STRICT AS 'textin';
        CREATE FUNCTION word_out(word) RETURNS cstring LANGUAGE internal IMMUTABLE STRICT AS 'textout';
        CREATE TYPE word (INPUT = word_in, OUTPUT = word_out);
        CREATE FUNCTION on_ddl() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';
        CREATE EVENT TRIGGER watcher ON ddl_command_end EXECUTE FUNCTION on_ddl();""")
    rich = migration.daemon.check("--json")
    assert asked(rich, "pair.superuser_objects") == asked(rich, "pair.event_triggers") == []
    be_poor(migration, "target")
    answer = migration.daemon.check("--json")
    expect(answer, "pair.superuser_objects", "FAIL", "connect to the target as a superuser", title="5 objects ",
           detail="mover is none: foreign data wrapper wrapper, function public.round_number(), function"
                  " public.word_in(cstring), function public.word_out(public.word), type public.word")
    expect(answer, "pair.event_triggers", "WARN", "let an administrator create them after the cutover", "watcher")


# -- what options provoke --------------------------------------------------------------------------------------------


def test_a_folder_without_pg_dump_is_refused(pair, tmp_path):
    expect(check_servers(pair, "--pg-bin-dir", str(tmp_path)), "pair.pg_dump", "FAIL",
           f"postgresql-client-{pair.target.binaries.major} ", "found: none")
    # The remedy's two ways.
    folder = Path(servers.client("pg_dump", pair.source.binaries.major)).parent
    found = finding(check_servers(pair, "--pg-bin-dir", str(folder)), "pair.pg_dump")
    assert found["severity"] != "FAIL" and f"({folder}/pg_dump)" in found["title"], found
    assert asked(check_servers(pair, "--pg-bin-dir", str(tmp_path), "--no-schema"), "pair.pg_dump") == []


def test_more_jobs_than_the_target_has_connections_are_a_warning(pair):
    answer = check_servers(pair, "--jobs", "64")
    expect(answer, "target.connections", "WARN", "use fewer --jobs")
    expect(answer, "source.connections", "PASS")  # half as many are needed there
    expect(check_servers(pair, "--jobs", "8"), "target.connections", "PASS")


def test_sequences_are_counted(migrations):
    migration = migrations(DATABASE)
    expect(migration.daemon.check("--json"), "source.sequences", "PASS", title="0 sequences ")
    migration.source.execute(DATABASE, "CREATE TABLE t (id serial PRIMARY KEY, other int GENERATED ALWAYS AS IDENTITY);"
                                       "CREATE SEQUENCE counter; CREATE TEMPORARY SEQUENCE passing")
    expect(migration.daemon.check("--json"), "source.sequences", "PASS", title="3 sequences ")


# -- databases of another kind ---------------------------------------------------------------------------------------


LATIN1 = "ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C'"
AS_SOURCE = "CREATE DATABASE ... TEMPLATE template0 ENCODING 'UTF8';"
LOCALE = "CREATE DATABASE ... TEMPLATE template0 with the source's LC_COLLATE, LC_CTYPE"


@pytest.mark.parametrize("end, options, expected", [
    ("target", LATIN1, {"pair.encoding": (AS_SOURCE, "a character that the target's encoding lacks"),
                        "pair.locale": (LOCALE, "\ntarget: collate C, ctype C, provider libc")}),
    ("target", "ENCODING 'SQL_ASCII'", {"pair.encoding": (AS_SOURCE, "bytes of any encoding")}),
    ("target", "LC_COLLATE 'C'", {"pair.locale": (LOCALE, "\ntarget: collate C, ctype C.UTF-8")}),
    ("source", LATIN1, {"pair.encoding": ("nothing: every character exists in UTF8", "text is converted")}),
], ids=["to LATIN1", "to SQL_ASCII", "LC_COLLATE", "from LATIN1"])
def test_another_encoding_or_order_is_a_warning(pair, end, options, expected):
    server = getattr(pair, end)

    def check() -> walferry.Answer:
        ends = {"source": pair.source.dsn("postgres"), "target": pair.target.dsn("postgres"), end: server.dsn(DATABASE)}
        return walferry.command("check", "--source", ends["source"], "--target", ends["target"], "--json")

    try:
        server.execute("postgres", f"CREATE DATABASE {DATABASE} TEMPLATE template0 {options}")
        answer = check()
        for name, (remedy, detail) in expected.items():
            expect(answer, name, "WARN", remedy, detail)
        if end == "target":
            server.execute("postgres", f"DROP DATABASE {DATABASE}", AS_SOURCE.replace("...", DATABASE))
            answer = check()
            for name in expected:
                expect(answer, name, "PASS")
    finally:
        server.execute("postgres", f"DROP DATABASE IF EXISTS {DATABASE}")


# -- servers ---------------------------------------------------------------------------------------------------------


def shown(server, setting: str) -> str:
    return server.scalar("postgres", f"SHOW {setting}")


def reload(server, statements: str) -> None:
    """Runs statements, the last of which reloads, and returns when new sessions see what they say."""
    loaded = "SELECT pg_conf_load_time()"
    before = server.scalar("postgres", loaded)
    server.execute("postgres", *statements.removesuffix(";").split(";"))
    wait_until(lambda: server.scalar("postgres", loaded) != before, 20, f"{statements} to be read")


SYNCHRONOUS = "ALTER SYSTEM SET synchronous_standby_names = '<their names>'; SELECT pg_reload_conf();"
PATIENT = "ALTER SYSTEM SET wal_sender_timeout = '60s'; SELECT pg_reload_conf();"
KEEPING = "ALTER SYSTEM SET max_slot_wal_keep_size = '1024MB'; SELECT pg_reload_conf();"


@pytest.mark.parametrize("setting, value, remedy", [
    ("synchronous_standby_names", "*", SYNCHRONOUS), ("synchronous_standby_names", 'ANY 1 (s1, "walferry x")', SYNCHRONOUS),
    ("wal_sender_timeout", "0", PATIENT), ("wal_sender_timeout", "5s", PATIENT), ("max_slot_wal_keep_size", "100MB", KEEPING),
], ids=["every standby", "walferry a standby", "no timeout", "short timeout", "little WAL"])
def test_a_setting_that_endangers_the_stream_is_a_warning_until_a_reload(pair, setting, value, remedy):
    """Read-only between the two reloads: a commit on the source would wait for a standby."""
    source, name = pair.source, f"source.{setting}"
    try:
        reload(source, f"ALTER SYSTEM SET {setting} = '{value}'; SELECT pg_reload_conf()")
        answer = check_servers(pair, "--slot", "x")
        assert answer.code == walferry.OK, answer
        expect(answer, name, "WARN", remedy)
        reload(source, remedy.replace("<their names>", "standby_1, standby_2"))
        expect(check_servers(pair, "--slot", "x"), name, "PASS")
    finally:
        reload(source, f"ALTER SYSTEM RESET {setting}; SELECT pg_reload_conf()")


@on_versions((17, 18))
def test_a_standby_that_is_down_and_that_the_stream_waits_for_is_told(migrations):
    """The slot was made with FAILOVER: nothing is sent that the slots of synchronized_standby_slots do not have."""
    migration = migrations("standbys").follow(TABLE)
    source, name = migration.source, "source.synchronized_standby_slots"
    expect(check_servers(migration), name, "PASS")
    source.query("postgres", "SELECT pg_create_physical_replication_slot('down')")
    try:
        reload(source, "ALTER SYSTEM SET synchronized_standby_slots = 'down'; SELECT pg_reload_conf()")
        expect(check_servers(migration), name, "WARN", "start these standbys", title="synchronized_standby_slots names slots whose standbys are not there: down")
        source.execute(migration.database, "INSERT INTO t VALUES (1001)")
        waiting = migration.daemon.await_status(lambda status: status["slot"]["awaits_standbys"], 30, "the wait to be told")
        assert "synchronized_standby_slots" in waiting["activity"], waiting
        refused = migration.daemon.cutover("--json")
        assert refused.code == walferry.REFUSED and "start the one that is down" in refused.out, refused
    finally:
        reload(source, "ALTER SYSTEM RESET synchronized_standby_slots; SELECT pg_reload_conf()")
        source.query("postgres", "SELECT pg_drop_replication_slot('down')")
    migration.await_applied()
    migration.daemon.await_status(lambda status: not status["slot"]["awaits_standbys"] and not status["activity"], 30,
                                  "the end of the wait to be told")
    migration.switch()


def test_walsenders_and_slots_are_counted(migrations, server_made):
    """With one left a warning, with none a refusal; more of them need a restart."""
    server = server_made("source", settings={"max_wal_senders": "1", "max_replication_slots": "1"})
    migration = migrations(DATABASE, source=server)
    counted = {"source.walsenders": "max_wal_senders", "source.slots": "max_replication_slots"}
    answer = migration.daemon.check("--json")
    assert answer.code == walferry.OK, answer
    for name, setting in counted.items():
        expect(answer, name, "WARN", f"ALTER SYSTEM SET {setting} = 5; and restart the source server")

    server.query(DATABASE, "SELECT pg_create_physical_replication_slot('taken')")
    wait_until(lambda: not server.query("postgres", "SELECT FROM pg_stat_replication"), 20, "the check's walsender to end")
    walsender = psycopg2.connect(server.dsn("postgres"),
                                 connection_factory=psycopg2.extras.PhysicalReplicationConnection)
    with contextlib.closing(walsender):
        answer = migration.daemon.check("--json")
        for name, setting in counted.items():
            expect(answer, name, "FAIL", f"ALTER SYSTEM SET {setting} = 5;", title="0 of 1 ")
        # And it tries.
        expect(answer, "source.replication", "FAIL", "a free walsender")

    server.execute("postgres", *(f"ALTER SYSTEM SET {setting} = 5" for setting in counted.values()))
    server.restart()
    answer = migration.daemon.check("--json")
    for name in (*counted, "source.replication"):
        expect(answer, name, "PASS")


@on_versions((15, 15))
def test_a_publication_that_carries_some_rows_only_is_refused(migrations):
    """An update of a row that its condition leaves out is not sent, though the row was copied."""
    migration = migrations(DATABASE, "--publication", "partly")
    migration.load(sql=TABLE + "INSERT INTO t SELECT generate_series(1, 9); CREATE PUBLICATION partly FOR TABLE t WHERE (id > 5)")
    expect(migration.daemon.check("--json", "--publication", "partly"), "source.row_filter", "FAIL", "without WHERE", detail="public.t")
    migration.source.execute(DATABASE, "ALTER PUBLICATION partly SET TABLE t")
    migration.daemon.start()
    migration.daemon.await_phase("follow", 60)
    migration.source.execute(DATABASE, "ALTER PUBLICATION partly SET TABLE t WHERE (id > 5)")
    refused = migration.daemon.cutover("--json")
    assert refused.code == walferry.REFUSED and "only some rows or columns of public.t" in refused.out + refused.err, refused
    migration.source.execute(DATABASE, "ALTER PUBLICATION partly SET TABLE t")
    migration.switch()


@on_versions((15, 15))
def test_a_publication_that_carries_some_columns_only_is_refused(migrations):
    migration = migrations(DATABASE, "--publication", "partly")
    migration.load(sql="CREATE TABLE t (id int PRIMARY KEY, v text, w int GENERATED ALWAYS AS (id) STORED);"
                       "CREATE PUBLICATION partly FOR TABLE t (id)")
    expect(migration.daemon.check("--json", "--publication", "partly"), "source.row_filter", "FAIL", "list of columns",
           detail="public.t")
    migration.source.execute(DATABASE, "ALTER PUBLICATION partly SET TABLE t")
    expect(migration.daemon.check("--json", "--publication", "partly"), "source.publication", "PASS")


# -- a migration under way, and what goes on meanwhile ---------------------------------------------------------------


def test_a_state_directory_says_which_ends_and_which_position_are_its_own(migrations):
    migration = migrations(DATABASE)
    target, daemon = migration.target, migration.follow(TABLE).daemon

    def check(source: str, target: str, *options: str) -> walferry.Answer:
        return walferry.command("check", "--source", source, "--target", target, "--state-dir", daemon.state_dir, "--json",
                                *options)

    expect(check(daemon.target, daemon.source), "pair.direction", "FAIL", "exchange --source and --target",
           "going on would overwrite the source")
    expect(check(daemon.source, target.dsn("postgres")), "pair.direction", "FAIL",
           "correct --source and --target", "pinned: source database checked", title="the target is not what")
    answer = check(daemon.source, daemon.target)
    assert answer.code == walferry.OK, answer
    expect(answer, "pair.direction", "PASS", title="both ends are those")
    expect(answer, "target.position", "PASS", title="walferry.progress_walferry_checked keeps")


def test_a_transaction_that_has_been_open_for_over_a_minute_is_named(migrations):
    """The minute passes at once: in this database another function answers to the name by which `check` asks the time."""
    migration = migrations(DATABASE)
    source, name = migration.source, "source.long_transactions"
    source.execute(DATABASE, TABLE)
    with source.connect(DATABASE, autocommit=False) as connection, connection.cursor() as cursor:
        cursor.execute("INSERT INTO t VALUES (1, 'open')")
        expect(migration.daemon.check("--json"), name, "PASS")
        source.execute(DATABASE, "ALTER FUNCTION pg_catalog.clock_timestamp() RENAME TO true_clock_timestamp;"
                                 "CREATE FUNCTION pg_catalog.clock_timestamp() RETURNS timestamptz LANGUAGE sql AS"
                                 " $$SELECT pg_catalog.true_clock_timestamp() + interval '61 seconds'$$")
        pid = connection.info.backend_pid
        remedy = f"SELECT pg_terminate_backend({pid});"
        answer = migration.daemon.check("--json")
        assert answer.code == walferry.OK, answer
        expect(answer, name, "WARN", remedy, f"\npid {pid}: open for ", title="1 transaction has ")
        expect(answer, name, "WARN", remedy, " s, user postgres, database checked, idle in transaction, last statement began ")
        assert finding(answer, name)["detail"].endswith(", has written"), answer
        source.execute(DATABASE, remedy)
        wait_until(lambda: not source.query(DATABASE, "SELECT FROM pg_stat_activity WHERE pid = %s", (pid,)), 20,
                   "the transaction to be ended")
        expect(migration.daemon.check("--json"), name, "PASS")


def test_what_a_selection_leaves_out_concerns_nobody(migrations):
    migration = migrations(DATABASE)
    migration.load(sql=TABLE + "ALTER TABLE t ADD COLUMN n serial; GRANT SELECT ON ALL TABLES IN SCHEMA public TO mover;"
                               "GRANT SELECT ON ALL SEQUENCES IN SCHEMA public TO mover; ALTER TABLE t OWNER TO mover;"
                               f"GRANT CREATE ON DATABASE {DATABASE} TO mover;"
                               "CREATE TABLE u (id serial PRIMARY KEY); ALTER TABLE u ENABLE ROW LEVEL SECURITY;"
                               "ALTER TABLE u OWNER TO holder; GRANT SELECT ON u, u_id_seq TO mover;")
    be_poor(migration, "source")
    whole = migration.daemon.check("--json")
    expect(whole, "source.publication", "FAIL", detail="public.u")
    expect(whole, "source.row_security", "FAIL", detail="public.u")
    expect(whole, "source.sequences", "PASS", title="2 sequences are")
    part = migration.daemon.check("--json", "--include-table", "t")
    expect(part, "source.publication", "PASS")
    expect(part, "source.row_security", "PASS")
    expect(part, "source.sequences", "PASS", title="1 sequence is")


# -- verify ----------------------------------------------------------------------------------------------------------


CLOSED = "CREATE TABLE open (id int); CREATE TABLE closed (id int); GRANT SELECT ON open, closed TO mover"


@pytest.mark.parametrize("end", ["source", "target"])
def test_verify_gives_no_verdict_where_it_cannot_read(migrations, end):
    """Neither equal nor different, and the table is named; with the right it is equal."""
    migration = migrations(DATABASE)
    server, verify = getattr(migration, end), migration.daemon.verify
    migration.source.execute(DATABASE, CLOSED)
    migration.target.execute(DATABASE, CLOSED)
    be_poor(migration, end)
    server.execute(DATABASE, "REVOKE SELECT ON closed FROM mover")
    answer = verify("--json")
    assert answer.code == walferry.UNVERIFIED and answer.out == "", answer
    assert "permission denied for table closed" in answer.err and "GRANT SELECT" in answer.err, answer
    server.execute(DATABASE, "GRANT SELECT ON closed TO mover", "ALTER TABLE closed ENABLE ROW LEVEL SECURITY")
    answer = verify("--json")
    assert answer.code == walferry.UNVERIFIED and answer.out == "", answer
    for words in ("hashing", "public.closed", f"on the {end}", "BYPASSRLS"):
        assert words in answer.err, (words, answer)
    server.execute(DATABASE, "ALTER ROLE mover BYPASSRLS")
    assert verify("--json").code == walferry.OK


@on_versions((15, 15))
@pytest.mark.parametrize("source, target", [("GENERATED ALWAYS AS (id * 2) STORED", ""), ("", "GENERATED ALWAYS AS (id * 2) STORED")],
                         ids=["source", "target"])
def test_a_column_that_is_generated_on_one_end_only_is_refused(migrations, source, target):
    migration = migrations(DATABASE, "--no-schema")
    table = "CREATE TABLE t (id int PRIMARY KEY, twice int {})"
    migration.load(sql=table.format(source))
    migration.target.execute(DATABASE, table.format(target))
    expect(migration.daemon.check("--json", "--no-schema"), "pair.tables", "FAIL", "make the target's column as the source's is",
           "public.t.twice")
    migration.target.execute(DATABASE, "DROP TABLE t", table.format(source))
    expect(migration.daemon.check("--json", "--no-schema"), "pair.tables", "PASS")


@on_versions((18, 18))
def test_a_publication_that_carries_generated_columns_is_refused(migrations):
    migration = migrations(DATABASE, "--publication", "computed")
    migration.load(sql="CREATE TABLE t (id int PRIMARY KEY, g int GENERATED ALWAYS AS (id * 2) STORED);"
                       "CREATE PUBLICATION computed FOR TABLE t WITH (publish_generated_columns = stored)")
    expect(migration.daemon.check("--json", "--publication", "computed"), "source.row_filter", "FAIL",
           "publish_generated_columns = none", "public.t")
    migration.source.execute(DATABASE, "ALTER PUBLICATION computed SET (publish_generated_columns = none)")
    migration.daemon.start()
    migration.daemon.await_phase("follow", 60)
    migration.source.execute(DATABASE, "INSERT INTO t (id) VALUES (1)")
    migration.switch()
