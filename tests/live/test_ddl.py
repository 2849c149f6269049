"""Schema changes on the source while the stream runs: never silently wrong, whatever the policy and the rights."""

import functools
import os
import random
import time

import psycopg2
import pytest

import walferry
from compare import assert_equal, data_differences
from migration import changed, fingerprint, on_versions
from servers import wait_until

pytestmark = pytest.mark.limit(300)

TABLES = """
CREATE SCHEMA app;
CREATE TYPE app.mood AS ENUM ('good', 'bad');
CREATE TABLE app.t (id int PRIMARY KEY, v text, n int);
INSERT INTO app.t SELECT g, 'value ' || g, g FROM generate_series(1, 200) g;
CREATE TABLE app.feelings (id int PRIMARY KEY, mood app.mood);
CREATE TABLE app.measured (id int, at date, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
CREATE TABLE app.measured_2024 PARTITION OF app.measured FOR VALUES FROM ('2024-01-01') TO ('2025-01-01');
"""


def following(migration, *options: str):
    return migration.follow(TABLES, *options)


def await_stop(migration) -> dict:
    return migration.daemon.await_status(lambda status: status["apply_stopped"] and status["stop"], 60, "a stop")


def await_going(migration) -> None:
    migration.daemon.await_status(lambda status: not status["apply_stopped"], 60, "the apply to go on")
    migration.await_applied()


def await_findings(migration, wanted) -> list[dict]:
    status = migration.daemon.await_status(lambda status: wanted(status["ddl"]["findings"]), 60, "the findings")
    return status["ddl"]["findings"]


def skip(migration, lsn: str, reason: str = "done by hand") -> walferry.Answer:
    return walferry.command("skip", "--state-dir", migration.daemon.state_dir, "--lsn", lsn, "--reason", reason)


def secret_of(source, database: str) -> str:
    """The sequence whose value tells the trigger's messages from everybody else's."""
    return source.scalar(database, "SELECT format('walferry.%I', relname) FROM pg_class"
                                   " WHERE relnamespace = 'walferry'::regnamespace AND relkind = 'S'")


def columns(server, database: str, table: str) -> list[tuple]:
    return server.query(database, "SELECT attname, format_type(atttypid, atttypmod), attnotnull FROM pg_attribute"
                                  " WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum", (table,))


# -- stop --------------------------------------------------------------------------------------------------------------


def test_stop_stands_exactly_before_the_change_and_goes_on_when_the_target_has_the_same(migrations):
    migration = following(migrations("ddl_stop"))
    source, database, target, _ = migration.ends
    assert migration.daemon.status()["ddl"] == {"policy": "stop", "trigger": True, "applied": 0, "passed": 0,
                                                "findings": []}
    source.execute(database, "UPDATE app.t SET v = 'before' WHERE id = 1")
    with source.connect(database, autocommit=False) as connection, connection.cursor() as cursor:
        cursor.execute("SET search_path = app")
        cursor.execute("INSERT INTO t VALUES (301, 'same transaction, before', 1)")
        cursor.execute("ALTER TABLE t ADD COLUMN extra text DEFAULT 'none'")
        cursor.execute("INSERT INTO t VALUES (302, 'same transaction, after', 1, 'more')")
        connection.commit()
    source.execute(database, "UPDATE app.t SET extra = 'later' WHERE id = 2")
    status = await_stop(migration)
    text = status["last_error"]["text"]
    for part in ("ALTER TABLE app.t", "SET search_path = app; ALTER TABLE t ADD COLUMN extra text DEFAULT 'none'",
                 f"--lsn {status['stop']['lsn']}", status["stop"]["commit_lsn"], "transaction"):
        assert part in text, text
    assert status["stop"]["what"] == "ddl"
    assert target.query(database, "SELECT v FROM app.t WHERE id IN (1, 301, 302)") == [("before",)]
    found = await_findings(migration, lambda findings: findings)
    assert [(each["object"], each["change"]) for each in found] == [("column app.t.extra", "added")]
    assert "ALTER TABLE app.t ADD COLUMN extra text DEFAULT 'none'::text" in found[0]["remedy"]
    refused = migration.daemon.cutover("--json")
    assert refused.code == walferry.REFUSED and "app.t" in str(refused.json()["blockers"]), refused
    target.execute(database, "ALTER TABLE app.t ADD COLUMN extra text DEFAULT 'none'")
    await_going(migration)
    await_findings(migration, lambda findings: not findings)
    migration.switch()
    assert_equal(*migration.ends)


def test_a_change_that_cannot_be_compared_waits_for_skip(migrations):
    migration = following(migrations("ddl_skip"))
    source, database, target, _ = migration.ends
    source.execute(database, "GRANT SELECT ON app.t TO pg_monitor")
    source.execute(database, "UPDATE app.t SET v = 'after' WHERE id = 1")
    stop = await_stop(migration)["stop"]
    assert "GRANT SELECT ON app.t TO pg_monitor" in stop["error"]
    assert skip(migration, "0/1").code == walferry.REFUSED and stop["lsn"] != stop["commit_lsn"]
    target.execute(database, "GRANT SELECT ON app.t TO pg_monitor")
    assert skip(migration, stop["lsn"], "granted by hand").code == walferry.OK
    await_going(migration)
    assert target.scalar(database, "SELECT v FROM app.t WHERE id = 1") == "after"
    report = migration.switch()
    assert [(each["what"], each["lsn"], each["reason"]) for each in report["skips"]] \
        == [("ddl", stop["lsn"], "granted by hand")]
    assert_equal(*migration.ends)


def test_a_change_made_on_the_target_first_does_not_stop(migrations):
    migration = following(migrations("ddl_before"))
    source, database, target, _ = migration.ends
    target.execute(database, "CREATE INDEX t_n ON app.t (n)", "ALTER TABLE app.t ADD CHECK (n > 0)")
    source.execute(database, "CREATE INDEX t_n ON app.t (n)", "ALTER TABLE app.t ADD CHECK (n > 0)")
    migration.await_applied()
    status = migration.daemon.status()
    assert not status["apply_stopped"] and status["ddl"]["passed"] == 2, status["last_error"]


@pytest.mark.parametrize("policy", ["stop", "apply"])
def test_a_new_table_joins_with_its_first_row(migrations, policy):
    migration = following(migrations("ddl_join"), "--on-ddl", policy)
    source, database, target, _ = migration.ends
    create = "CREATE TABLE app.fresh (id int PRIMARY KEY, v text)"
    with source.connect(database, autocommit=False) as connection, connection.cursor() as cursor:
        cursor.execute(create)
        cursor.execute("INSERT INTO app.fresh SELECT g, 'at birth' FROM generate_series(1, 50) g")
        connection.commit()
    source.execute(database, "INSERT INTO app.fresh VALUES (51, 'later')", "DELETE FROM app.fresh WHERE id = 1")
    if policy == "stop":
        assert create in await_stop(migration)["last_error"]["text"]
        target.execute(database, create)
    await_going(migration)
    assert target.scalar(database, "SELECT count(*) FROM app.fresh") == 50
    await_findings(migration, lambda findings: not findings)
    assert {"schema": "app", "name": "fresh"}.items() <= next(
        each for each in migration.daemon.status()["tables"] if each["name"] == "fresh").items()
    migration.switch()
    assert_equal(*migration.ends)


def test_a_new_table_without_a_key_blocks_the_cutover_and_hurts_nobody(migrations):
    migration = following(migrations("ddl_keyless"), "--on-ddl", "apply")
    source, database, target, _ = migration.ends
    source.execute(database, "CREATE TABLE app.keyless (v int)", "INSERT INTO app.keyless VALUES (1)",
                   "UPDATE app.keyless SET v = 2")
    migration.await_applied()
    refused = migration.daemon.cutover("--json")
    assert refused.code == walferry.REFUSED and "app.keyless" in str(refused.json()["blockers"]), refused


# -- apply -------------------------------------------------------------------------------------------------------------

APPLIED = [
    "ALTER TABLE app.t ADD COLUMN created timestamptz DEFAULT now()",
    "ALTER TABLE app.t ADD COLUMN doubled int GENERATED ALWAYS AS (id * 2) STORED",
    "UPDATE app.t SET v = 'x' WHERE id = 5",
    "CREATE INDEX CONCURRENTLY t_v ON app.t (v)",
    "CREATE INDEX t_n ON app.t (n)",
    "DROP INDEX CONCURRENTLY app.t_n",
    "ALTER TYPE app.mood ADD VALUE 'unknown'",
    "INSERT INTO app.feelings VALUES (1, 'unknown')",
    "CREATE TABLE app.measured_2025 PARTITION OF app.measured FOR VALUES FROM ('2025-01-01') TO ('2026-01-01')",
    "INSERT INTO app.measured VALUES (1, '2024-05-05'), (2, '2025-05-05')",
    "CREATE TABLE app.measured_2026 (LIKE app.measured_2025 INCLUDING ALL)",
    "INSERT INTO app.measured_2026 VALUES (3, '2026-05-05')",
    "ALTER TABLE app.measured ATTACH PARTITION app.measured_2026 FOR VALUES FROM ('2026-01-01') TO ('2027-01-01')",
    "INSERT INTO app.measured VALUES (4, '2026-06-06')",
    "ALTER TABLE app.measured DETACH PARTITION app.measured_2025",
    "DELETE FROM app.measured_2025",
    "ALTER TABLE app.t RENAME COLUMN v TO label",
    "UPDATE app.t SET label = 'renamed' WHERE id = 6",
    "ALTER TABLE app.feelings RENAME TO moods",
    "INSERT INTO app.moods VALUES (2, 'good')",
    "ALTER TABLE app.t ALTER COLUMN n TYPE bigint",
    "UPDATE app.t SET n = 5000000000 WHERE id = 7",
    "CREATE FUNCTION app.two() RETURNS int LANGUAGE sql AS 'SELECT 1; SELECT 2'",
    "CREATE VIEW app.seen AS SELECT id FROM app.t",
    "CREATE SEQUENCE app.numbers",
    "COMMENT ON TABLE app.t IS 'with a; semicolon'",
    # One string, several statements: each at its own place, and only once.
    "CREATE TABLE app.many (id int PRIMARY KEY); INSERT INTO app.many VALUES (1), (2); ALTER TABLE app.many ADD COLUMN v"
    " text DEFAULT 'd'; CREATE TEMP TABLE gone (id int); INSERT INTO app.many VALUES (3, 'three')",
    "CREATE TABLE IF NOT EXISTS app.many (id int PRIMARY KEY); CREATE TABLE IF NOT EXISTS app.other (id int PRIMARY KEY)",
    "DO $$ BEGIN FOR i IN 1..3 LOOP EXECUTE format('CREATE TABLE app.part_%s (id int PRIMARY KEY)', i);"
    " EXECUTE format('INSERT INTO app.part_%s VALUES (%s)', i, i); END LOOP; END $$",
    "DROP TABLE app.part_2",
    "ALTER TABLE app.many DROP COLUMN v",
    "CREATE EXTENSION IF NOT EXISTS plpgsql",
    "CREATE SCHEMA made CREATE TABLE inside (id int PRIMARY KEY) CREATE VIEW outside AS SELECT 1 AS one",
    "INSERT INTO made.inside VALUES (1)",
]


@pytest.mark.tsan
def test_apply_runs_each_change_at_its_place(migrations):
    migration = following(migrations("ddl_apply"), "--on-ddl", "apply")
    source, database, target, _ = migration.ends
    with source.connect(database) as connection, connection.cursor() as cursor:
        for statement in APPLIED:
            cursor.execute(statement)
        # A subtransaction that is rolled back leaves nothing, temporary objects are nobody's business.
        cursor.execute("BEGIN")
        cursor.execute("INSERT INTO app.moods VALUES (10, 'bad')")
        cursor.execute("SAVEPOINT s")
        cursor.execute("CREATE TABLE app.never (id int PRIMARY KEY)")
        cursor.execute("ROLLBACK TO s")
        cursor.execute("CREATE TEMP TABLE aside (id int)")
        cursor.execute("COMMIT")
        cursor.execute("SET search_path = made; CREATE TABLE by_path (id int PRIMARY KEY)")
        cursor.execute("INSERT INTO by_path VALUES (1)")
    migration.await_applied(120)
    status = migration.daemon.status()
    assert not status["apply_stopped"], status["last_error"]
    assert data_differences(*migration.ends) == []
    assert target.scalar(database, "SELECT count(DISTINCT created) FROM app.t") == 1
    await_findings(migration, lambda findings: not findings)
    report = migration.switch()
    assert report["skips"] == []
    assert_equal(*migration.ends)


def test_a_change_that_was_rolled_back_in_a_streamed_transaction_is_not_run(migrations):
    """Of a message the stream does not say in which subtransaction it was written, as it does of rows."""
    migration = migrations("ddl_streamed")
    migration.source.execute("postgres", "ALTER DATABASE ddl_streamed SET logical_decoding_work_mem = '64kB'")
    following(migration, "--on-ddl", "apply")
    source, database, target, _ = migration.ends
    rows = "INSERT INTO app.feelings SELECT g, 'good' FROM generate_series(%s, %s) g"
    with source.connect(database, autocommit=False) as connection, connection.cursor() as cursor:
        cursor.execute("SAVEPOINT undone")
        cursor.execute("DROP TABLE app.t")
        cursor.execute(rows, (1, 5000))
        cursor.execute("ROLLBACK TO undone")
        cursor.execute("SAVEPOINT released")
        cursor.execute("ALTER TABLE app.feelings ADD COLUMN kept int DEFAULT 7")
        cursor.execute(rows, (10001, 15000))
        cursor.execute("RELEASE released")
        cursor.execute(rows, (20001, 25000))
        connection.commit()
    migration.await_applied()
    assert not migration.daemon.status()["apply_stopped"], migration.report()
    assert source.scalar(database, "SELECT stream_txns FROM pg_stat_replication_slots") > 0
    assert target.scalar(database, "SELECT sum(kept) FROM app.feelings") == 70_000
    assert data_differences(*migration.ends) == []


def test_apply_happens_once_through_kills(migrations):
    migration = following(migrations("ddl_once"), "--on-ddl", "apply")
    source, database, target, _ = migration.ends
    for number in range(4):
        source.execute(database, f"ALTER TABLE app.t ADD COLUMN c{number} int DEFAULT {number}",
                       f"UPDATE app.t SET c{number} = 100 WHERE id = {number + 1}",
                       f"CREATE TABLE app.made_{number} (id int PRIMARY KEY)",
                       f"INSERT INTO app.made_{number} VALUES (1)")
        if number % 2:
            made = f"app.made_{number}"
            wait_until(lambda made=made: target.scalar(database, "SELECT to_regclass(%s) IS NOT NULL", (made,)), 60,
                       "the table to come")
        migration.daemon.kill()
        migration.daemon.start("--on-ddl", "apply")
    migration.daemon.await_phase("follow", 120)
    migration.await_applied()
    status = migration.daemon.status()
    assert not status["apply_stopped"], status["last_error"]
    assert data_differences(*migration.ends) == []
    migration.switch()
    assert_equal(*migration.ends)


@pytest.mark.parametrize("statement, reason", [
    ("CREATE TABLE app.counted AS SELECT count(*) FROM app.t", "from a query"),
    ("CREATE FUNCTION pg_temp.f() RETURNS void LANGUAGE sql AS 'CREATE TABLE app.hidden (id int PRIMARY KEY)';"
     " SELECT pg_temp.f()", "cannot be told apart"),
], ids=["table as", "in a function"])
def test_apply_stops_where_the_target_could_get_other_values(migrations, statement, reason):
    migration = following(migrations("ddl_volatile"), "--on-ddl", "apply")
    source, database, target, _ = migration.ends
    before = columns(target, database, "app.t")
    source.execute(database, statement)
    source.execute(database, "INSERT INTO app.t (id, v) VALUES (900, 'after')")
    assert reason in await_stop(migration)["last_error"]["text"], migration.daemon.status()["last_error"]
    assert columns(target, database, "app.t") == before
    assert target.scalar(database, "SELECT count(*) FROM app.t WHERE id = 900") == 0


@pytest.mark.parametrize("policy", ["apply", "stop"])
@pytest.mark.tsan
def test_a_table_whose_rows_were_made_anew_is_copied_again(migrations, policy):
    migration = migrations("ddl_recopy")
    migration.load(sql="CREATE SCHEMA app; CREATE TABLE app.parent (id int PRIMARY KEY, v text);"
                       "INSERT INTO app.parent SELECT g, 'p' FROM generate_series(1, 500) g;"
                       "CREATE TABLE app.child (id int PRIMARY KEY, parent int REFERENCES app.parent);"
                       "INSERT INTO app.child SELECT g, g FROM generate_series(1, 500) g;")
    migration.daemon.start("--on-ddl", policy)
    migration.daemon.await_phase("follow", 120)
    source, database, target, _ = migration.ends
    for statement in ("ALTER TABLE app.parent ADD COLUMN r double precision DEFAULT random()",
                      "ALTER TABLE app.parent ADD COLUMN s serial",
                      "ALTER TABLE app.child ALTER COLUMN parent TYPE bigint USING (parent + random() * 0)::bigint"):
        source.execute(database, statement, "UPDATE app.parent SET v = 'after' WHERE id % 7 = 0",
                       "INSERT INTO app.parent (id, v) SELECT max(id) + 1, 'new' FROM app.parent",
                       "DELETE FROM app.child WHERE id = (SELECT max(id) FROM app.child)")
        if policy == "stop":
            await_stop(migration)
            target.execute(database, statement)
        migration.await_applied()
    wait_until(lambda: data_differences(*migration.ends, sequences=False) == [], 60,
               "the tables to be copied again")
    assert "was copied again" in migration.daemon.log.read_text()
    source.execute(database, "UPDATE app.parent SET v = 'last'")
    migration.await_applied()
    wait_until(lambda: migration.daemon.cutover("--dry-run").code == walferry.OK, 60, "nothing in the way")
    migration.switch()
    assert_equal(*migration.ends)


def wide(rows: int) -> str:
    return ("CREATE SCHEMA app; CREATE TABLE app.wide (id int PRIMARY KEY, filler text, n int DEFAULT 0);"
            f"INSERT INTO app.wide SELECT g, repeat(md5(g::text), 20) FROM generate_series(1, {rows}) g;")


def test_kills_while_a_table_is_copied_again_lose_nothing(migrations, note):
    """kill -9 at random moments of the copy that follows a rewriting command; the next start begins it anew."""
    seed = int(os.environ.get("WALFERRY_CRASH_SEED", "0")) or random.randrange(1 << 30)
    dice = random.Random(seed)
    migration = migrations("ddl_recopy_kills")
    migration.load(sql=wide(30000) +
                       "CREATE TABLE app.beside (id int PRIMARY KEY, wide int REFERENCES app.wide);"
                       "INSERT INTO app.beside SELECT g, g FROM generate_series(1, 1000) g;")
    daemon = migration.daemon
    daemon.start("--on-ddl", "apply")
    daemon.await_phase("follow", 120)
    source, database, target, _ = migration.ends

    def write():
        source.execute(database, "UPDATE app.wide SET n = n + 1 WHERE id % 500 = 7",
                       "INSERT INTO app.wide (id, filler) SELECT max(id) + 1, 'new' FROM app.wide",
                       "DELETE FROM app.wide WHERE id = (SELECT max(id) - 5 FROM app.wide)",
                       "UPDATE app.beside SET wide = (SELECT max(id) FROM app.wide) WHERE id = 5")

    def copied() -> bool:
        return "app.wide was copied again" in daemon.log.read_text()

    interrupted = kills = 0
    while kills < 5 or (not interrupted and kills < 20):
        kills += 1
        source.execute(database, f"ALTER TABLE app.wide ADD COLUMN r{kills} double precision DEFAULT random()")
        write()
        daemon.await_status(lambda status: status["activity"] == "copying app.wide again" or copied(), 60,
                            "the table to be copied again")
        # The random moment: here a pause is the thing under test. Where the copy was always quicker it comes sooner.
        time.sleep(dice.random() * (0.6 if kills <= 5 else 0.1))
        write()
        daemon.kill()
        interrupted += not copied()
        daemon.start("--on-ddl", "apply")
    note(f"copies after a schema change: {kills} kills (seed {seed}), {interrupted} of them before the copy was done")
    assert interrupted > 0, f"seed {seed}: no kill met the copy"
    daemon.await_phase("follow", 120)
    migration.await_applied()
    wait_until(lambda: daemon.cutover("--dry-run").code == walferry.OK, 60, "nothing in the way")
    assert data_differences(*migration.ends) == [], f"seed {seed}"
    migration.switch()
    assert_equal(*migration.ends)


@pytest.mark.parametrize("how", ["warn", "skip"])
def test_rows_made_anew_come_by_a_copy_also_after_a_command_that_was_passed_over(migrations, how):
    migration = following(migrations("ddl_passed"), "--on-ddl", "warn" if how == "warn" else "stop")
    source, database, target, _ = migration.ends
    statement = "ALTER TABLE app.t ADD COLUMN r double precision DEFAULT random()"
    source.execute(database, statement)
    if how == "skip":
        assert skip(migration, await_stop(migration)["stop"]["lsn"]).code == walferry.OK
    migration.daemon.await_status(lambda status: status["ddl"]["passed"] == 1, 60, "the command to be passed over")
    refused = migration.daemon.cutover("--json")
    assert refused.code == walferry.REFUSED and "app.t waits to be copied again" in str(refused.json()["blockers"]), refused
    # Rows with the new column cannot be applied without it, and are not applied twice with it.
    source.execute(database, "UPDATE app.t SET v = 'after' WHERE id = 1", "INSERT INTO app.t VALUES (901, 'after')",
                   "DELETE FROM app.t WHERE id = 2")
    migration.daemon.await_status(lambda status: status["apply_stopped"], 60, "a stop at the missing column")
    target.execute(database, statement)
    await_going(migration)
    wait_until(lambda: migration.daemon.cutover("--dry-run").code == walferry.OK, 60, "nothing in the way")
    assert "app.t was copied again" in migration.daemon.log.read_text()
    assert data_differences(*migration.ends) == []
    migration.switch()
    assert_equal(*migration.ends)


def test_a_table_that_is_dropped_on_both_ends_is_not_waited_for(migrations):
    migration = following(migrations("ddl_gone_too"), "--on-ddl", "warn")
    source, database, target, _ = migration.ends
    source.execute(database, "ALTER TABLE app.t ADD COLUMN r double precision DEFAULT random()", "DROP TABLE app.t")
    migration.await_applied()
    refused = migration.daemon.cutover("--json")
    assert refused.code == walferry.REFUSED and "app.t waits to be copied again" in str(refused.json()["blockers"]), refused
    target.execute(database, "DROP TABLE app.t")
    wait_until(lambda: migration.daemon.cutover("--dry-run").code == walferry.OK, 60, "nothing in the way")
    migration.switch()
    assert_equal(*migration.ends)


def test_rows_made_anew_in_a_table_that_is_carried_by_its_root_refuse_the_cutover(migrations):
    """The target's partition of that name holds other rows: to copy it alone would lose some."""
    migration = migrations("ddl_recopy_root")
    source, database, target, _ = migration.ends
    table = "CREATE TABLE public.p (id int PRIMARY KEY, v text) PARTITION BY RANGE (id);"
    source.psql(database, sql=table + """
        CREATE TABLE public.low PARTITION OF public.p FOR VALUES FROM (0) TO (100);
        CREATE TABLE public.high PARTITION OF public.p FOR VALUES FROM (100) TO (200);
        INSERT INTO public.p SELECT g, 'v' FROM generate_series(1, 150) g;""")
    target.psql(database, sql=table + "CREATE TABLE public.low PARTITION OF public.p FOR VALUES FROM (0) TO (1000);")
    migration.daemon.start("--on-ddl", "apply", "--no-schema")
    migration.daemon.await_phase("follow", 120)
    source.execute(database, "ALTER TABLE public.p ADD COLUMN r float8 DEFAULT random()",
                   "UPDATE public.p SET v = 'after' WHERE id % 2 = 0")
    migration.await_applied()
    answer = migration.daemon.cutover("--json")
    assert answer.code == walferry.REFUSED, answer
    assert any("public.low waits to be copied again" in each and "begin anew" in each
               for each in answer.json()["blockers"]), answer
    assert target.scalar(database, "SELECT count(*) FROM public.p") == 150
    source.execute(database, "INSERT INTO public.p VALUES (160, 'still writable')")


RENAMES = {
    "table": ["ALTER TABLE app.wide RENAME TO broad", "UPDATE app.broad SET n = 7 WHERE id = 7"],
    "schema": ["ALTER SCHEMA app RENAME TO application", "DELETE FROM application.wide WHERE id = 7"],
    # What was there under the name goes on under another, and the other way round.
    "swap": ["BEGIN; ALTER TABLE app.wide RENAME TO old; ALTER TABLE app.like_it RENAME TO wide; COMMIT",
             "UPDATE app.wide SET n = 7 WHERE id = 7", "UPDATE app.old SET n = 8 WHERE id = 8"],
    "there and back": ["ALTER TABLE app.wide RENAME TO w", "UPDATE app.w SET n = n + 1 WHERE id = 3",
                       "ALTER TABLE app.w RENAME TO wide"],
    # What was under the second name before is not copied again: its changes must not be passed over.
    "into a name that another had": ["UPDATE app.like_it SET n = 5 WHERE id = 5",
                                     "ALTER TABLE app.like_it RENAME TO liked", "ALTER TABLE app.wide RENAME TO like_it",
                                     "UPDATE app.liked SET n = 6 WHERE id = 6", "DELETE FROM app.like_it WHERE id = 6"],
    "another after a drop": ["CREATE TABLE app.next (LIKE app.wide INCLUDING ALL)",
                             "INSERT INTO app.next SELECT * FROM app.wide WHERE id < 100", "DROP TABLE app.wide",
                             "ALTER TABLE app.next RENAME TO wide", "DELETE FROM app.wide WHERE id = 6"],
    "another in its place": ["ALTER TABLE app.wide RENAME TO old",
                             "CREATE TABLE app.wide (LIKE app.old INCLUDING ALL)",
                             "INSERT INTO app.wide SELECT * FROM app.old WHERE id < 100"],
}


@pytest.mark.parametrize("renames", RENAMES.values(), ids=RENAMES)
def test_a_table_is_copied_again_under_the_name_that_it_has_by_then(migrations, renames):
    """The apply is held up, so that the source is far ahead when the table is looked at."""
    migration = migrations("ddl_recopy_renamed")
    migration.load(sql=wide(5000) +
                       "CREATE TABLE app.like_it (id int PRIMARY KEY, filler text, n int, r float8 DEFAULT random());"
                       "INSERT INTO app.like_it SELECT g, 'other', g FROM generate_series(1, 3000) g;"
                       "CREATE TABLE public.gate (id int PRIMARY KEY); INSERT INTO public.gate VALUES (1);")
    daemon = migration.daemon
    daemon.start("--on-ddl", "apply")
    daemon.await_phase("follow", 120)
    source, database, target, _ = migration.ends
    with target.connect(database, autocommit=False) as hold:
        hold.cursor().execute("LOCK TABLE public.gate")
        source.execute(database, "ALTER TABLE app.wide ADD COLUMN r float8 DEFAULT random()",
                       "UPDATE app.wide SET n = 1 WHERE id % 5 = 0", "DELETE FROM public.gate",
                       *renames, "INSERT INTO public.gate VALUES (2)")
        daemon.kill()
        hold.rollback()
    daemon.start("--on-ddl", "apply")
    migration.await_applied()
    wait_until(lambda: daemon.cutover("--dry-run").code == walferry.OK, 60, "nothing in the way")
    assert data_differences(*migration.ends) == []
    migration.switch()
    assert_equal(*migration.ends)


def test_apply_that_the_target_refuses_stops_and_goes_on_when_the_cause_is_mended(migrations):
    migration = following(migrations("ddl_refused"), "--on-ddl", "apply")
    source, database, target, _ = migration.ends
    target.execute(database, "CREATE TABLE app.in_the_way (other text)")
    source.execute(database, "CREATE TABLE app.in_the_way (id int PRIMARY KEY)", "INSERT INTO app.in_the_way VALUES (1)")
    text = await_stop(migration)["last_error"]["text"]
    assert "the target refuses it" in text and "in_the_way" in text, text
    target.execute(database, "DROP TABLE app.in_the_way")
    await_going(migration)
    assert target.query(database, "SELECT id FROM app.in_the_way") == [(1,)]


ACTING = """
CREATE TABLE app.log (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, what text);
CREATE FUNCTION app.note() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN INSERT INTO app.log (what) VALUES (TG_OP || ' ' || NEW.id); RETURN NEW; END $$;
CREATE TRIGGER noted AFTER INSERT OR UPDATE ON app.t FOR EACH ROW EXECUTE FUNCTION app.note();
ALTER TABLE app.t ENABLE ALWAYS TRIGGER noted;
"""


@pytest.mark.parametrize("policy", ["apply", "stop"])
def test_what_a_change_brings_does_nothing_by_itself_before_the_switch(migrations, policy):
    """Whoever made it on the target: no trigger writes a row twice, no identity column refuses a value."""
    migration = following(migrations(f"ddl_acts_{policy}"), f"--on-ddl={policy}")
    source, database, target, _ = migration.ends
    if policy == "stop":
        target.execute(database, ACTING)
    source.execute(database, ACTING)
    source.execute(database, "UPDATE app.t SET n = n + 1 WHERE id <= 20", "INSERT INTO app.t VALUES (401, 'new', 1)",
                   "UPDATE app.log SET what = what || '!' WHERE id % 2 = 0")
    migration.await_applied()
    if policy == "apply":
        source.execute(database, "ALTER TABLE app.t RENAME TO u", "UPDATE app.u SET n = n + 1 WHERE id <= 10")
        migration.await_applied()
    assert data_differences(*migration.ends, sequences=False) == []
    migration.switch()
    assert_equal(*migration.ends)
    assert target.scalar(database, "SELECT tgenabled FROM pg_trigger WHERE tgname = 'noted'") == "A"
    assert target.scalar(database, "SELECT attidentity FROM pg_attribute WHERE attrelid = 'app.log'::regclass AND attnum = 1") == "a"


def test_the_owner_of_a_new_table_is_who_made_it(migrations):
    migration = migrations("ddl_owner")
    migration.source.execute("postgres", "DROP ROLE IF EXISTS ddl_maker", "CREATE ROLE ddl_maker")
    try:
        migration.load(sql="GRANT CREATE ON DATABASE ddl_owner TO ddl_maker; CREATE SCHEMA hers AUTHORIZATION ddl_maker;")
        following(migration, "--on-ddl", "apply")
        source, database, target, _ = migration.ends
        source.execute(database, "SET ROLE ddl_maker; CREATE TABLE hers.own (id int PRIMARY KEY)")
        with source.connect(database) as connection, connection.cursor() as cursor:
            cursor.execute("SET ROLE ddl_maker")
            cursor.execute("CREATE TABLE hers.own_too (id int PRIMARY KEY)")
        migration.await_applied()
        assert target.query(database, "SELECT tablename, tableowner FROM pg_tables WHERE schemaname = 'hers' ORDER BY 1") \
            == [("own", "ddl_maker"), ("own_too", "ddl_maker")]
    finally:
        migration.daemon.remove()
        for server in (migration.source, migration.target):
            server.drop_database("ddl_owner")
            server.execute("postgres", "DROP ROLE IF EXISTS ddl_maker")
            server.create_database("ddl_owner")


# -- warn, without a trigger, and what the trigger may never do -------------------------------------------------------


def test_warn_goes_on_and_the_cutover_still_wants_the_same_schema(migrations):
    migration = following(migrations("ddl_warn"), "--on-ddl", "warn")
    source, database, target, _ = migration.ends
    source.execute(database, "CREATE INDEX t_n ON app.t (n)", "UPDATE app.t SET v = 'after' WHERE id = 1")
    migration.await_applied()
    status = migration.daemon.status()
    assert not status["apply_stopped"] and status["ddl"]["passed"] == 1
    assert "CREATE INDEX t_n ON app.t (n)" in migration.daemon.log.read_text()


def test_without_a_trigger_the_catalogs_tell_and_the_cutover_waits(migrations):
    migration = following(migrations("ddl_digest"), "--no-ddl-trigger")
    source, database, target, _ = migration.ends
    assert source.query(database, "SELECT evtname FROM pg_event_trigger") == []
    assert migration.daemon.status()["ddl"]["trigger"] is False
    statements = ["CREATE INDEX t_n ON app.t (n)", "ALTER TYPE app.mood ADD VALUE 'new'",
                  "CREATE FUNCTION app.one() RETURNS int LANGUAGE sql AS 'SELECT 1'",
                  "ALTER TABLE app.t ADD CONSTRAINT positive CHECK (n > 0)", "ALTER TABLE app.feelings DROP COLUMN mood"]
    source.execute(database, *statements)
    found = await_findings(migration, lambda findings: len(findings) >= 5)
    assert {(each["object"], each["change"]) for each in found} == {
        ("index app.t_n", "added"), ("type app.mood", "changed"), ("function app.one()", "added"),
        ("constraint positive on app.t", "added"), ("column app.feelings.mood", "dropped")}
    shown = walferry.command("status", "--state-dir", migration.daemon.state_dir)
    assert "index app.t_n was added on the source" in " ".join(shown.out.split()), shown
    refused = migration.daemon.cutover("--json")
    assert refused.code == walferry.REFUSED
    for each in found:
        assert any(each["object"] in blocker for blocker in refused.json()["blockers"]), refused.json()["blockers"]
    target.execute(database, *statements)
    await_findings(migration, lambda findings: not findings)
    source.execute(database, "CREATE TABLE app.unseen (id int PRIMARY KEY)")
    await_findings(migration, lambda findings: [each["object"] for each in findings] == ["table app.unseen"])
    refused = migration.daemon.cutover("--json")
    assert refused.code == walferry.REFUSED and "app.unseen" in str(refused.json()["blockers"])
    source.execute(database, "DROP TABLE app.unseen")
    await_findings(migration, lambda findings: not findings)
    migration.switch()
    assert_equal(*migration.ends)


@pytest.mark.parametrize("policy", ["apply", "stop"])
def test_a_row_that_is_missing_before_a_change_of_its_transaction_is_named_itself(migrations, policy):
    """What a person would skip is the row's transaction, not the schema change behind it."""
    migration = following(migrations(f"ddl_behind_{policy}"), f"--on-ddl={policy}")
    source, database, target, _ = migration.ends
    target.execute(database, "DELETE FROM app.t WHERE id = 7")
    source.execute(database, "BEGIN; UPDATE app.t SET v = 'x' WHERE id = 7; ALTER TABLE app.t ADD COLUMN more text; COMMIT")
    stop = await_stop(migration)["stop"]
    assert stop["what"] == "transaction" and "the target has no such row" in stop["error"], stop
    target.execute(database, "INSERT INTO app.t VALUES (7, 'value 7', 7)")
    if policy == "stop":
        migration.daemon.await_status(lambda status: status["stop"] and status["stop"]["what"] == "ddl", 60, "the change")
        target.execute(database, "ALTER TABLE app.t ADD COLUMN more text")
    await_going(migration)
    assert data_differences(*migration.ends, sequences=False) == []


def test_a_table_that_takes_anothers_name_waits_for_the_target_to_follow(migrations):
    migration = following(migrations("ddl_rotated"), "--on-ddl=warn")
    source, database, target, _ = migration.ends
    rotate = "BEGIN; ALTER TABLE app.t RENAME TO t_old; CREATE TABLE app.t (LIKE app.t_old INCLUDING ALL); COMMIT"
    source.execute(database, rotate, "INSERT INTO app.t VALUES (1001, 'new', 1)", "UPDATE app.t_old SET n = 0 WHERE id = 3")
    assert "holds the rows of the one that had the name before" in await_stop(migration)["stop"]["error"]
    target.execute(database, rotate)
    await_going(migration)
    assert data_differences(*migration.ends, sequences=False) == []


EXCHANGE = ("BEGIN; ALTER TABLE app.live RENAME TO was_live; ALTER TABLE app.staging RENAME TO live;"
            " ALTER TABLE app.was_live RENAME TO staging; COMMIT")


@pytest.mark.parametrize("options", [["--no-ddl-trigger"], ["--on-ddl=warn"], ["--on-ddl=apply"]], ids=["untold", "warn", "apply"])
@pytest.mark.parametrize("known", ["described", "after a restart"])
def test_tables_that_exchange_their_names_are_not_taken_for_each_other(migrations, options, known):
    """A staging table becomes the live one: the same columns under both names."""
    migration = migrations("ddl_exchange")
    migration.follow("CREATE SCHEMA app; CREATE TABLE app.live (id int PRIMARY KEY, v text);"
                     "CREATE TABLE app.staging (LIKE app.live INCLUDING ALL);"
                     "INSERT INTO app.live SELECT g, 'live' FROM generate_series(1, 50) g;"
                     "INSERT INTO app.staging SELECT g, 'staged' FROM generate_series(1, 60) g", *options)
    source, database, target, _ = migration.ends
    if known == "described":
        source.execute(database, "UPDATE app.live SET v = v || '+' WHERE id < 5", "UPDATE app.staging SET v = v || '+' WHERE id < 9")
        migration.await_applied()
    else:
        migration.daemon.kill()
        migration.daemon.start(*options)
        migration.daemon.await_phase("follow")
    for _ in range(2):  # there, and back again
        source.execute(database, EXCHANGE, "UPDATE app.live SET v = v || '!' WHERE id < 20",
                       "INSERT INTO app.staging SELECT max(id) + 1, 'new' FROM app.staging")
        if "apply" not in options[0]:
            text = await_stop(migration)["last_error"]["text"]
            assert "the table that the target has as app." in text and "names were changed" in text, text
            target.execute(database, EXCHANGE)
            await_going(migration)
        migration.await_applied()
        assert data_differences(*migration.ends, sequences=False) == []
    migration.switch()
    assert_equal(*migration.ends)


def test_a_partition_that_is_dropped_where_its_root_carries_it_is_not_dropped_on_the_target(migrations):
    """The target's table of that name, if there is one, may hold other rows; and those of this one would stay."""
    migration = migrations("ddl_via_root")
    source, database, target, _ = migration.ends
    root = "CREATE TABLE public.event (id int PRIMARY KEY) PARTITION BY RANGE (id);"
    source.execute(database, root, "CREATE TABLE low PARTITION OF event FOR VALUES FROM (0) TO (100)",
                   "CREATE TABLE high PARTITION OF event FOR VALUES FROM (100) TO (200)",
                   "INSERT INTO event SELECT generate_series(0, 199)", "CREATE TABLE alone (id int PRIMARY KEY)")
    target.execute(database, root, "CREATE TABLE low PARTITION OF event FOR VALUES FROM (0) TO (1000)",
                   "CREATE TABLE alone (id int PRIMARY KEY)")
    migration.daemon.start("--no-schema", "--on-ddl", "apply")
    migration.daemon.await_phase("follow")
    source.execute(database, "DROP TABLE alone", "DROP TABLE low")
    stopped = await_stop(migration)
    assert "Partitioned tables are carried by the table at the top" in stopped["stop"]["error"], stopped
    assert target.query(database, "SELECT count(*), to_regclass('alone')::text FROM event") == [(200, None)]
    target.execute(database, "DELETE FROM event WHERE id < 100")
    assert skip(migration, stopped["stop"]["lsn"]).code == walferry.OK
    await_going(migration)
    migration.switch()
    assert target.scalar(database, "SELECT count(*) FROM event") == 100


def test_rows_that_a_command_made_anew_among_others_are_copied_again(migrations):
    """It cannot be told apart, so a person runs it; what it made on the source are other values."""
    migration = following(migrations("ddl_among"))
    source, database, target, _ = migration.ends
    change = "ALTER TABLE app.t ADD COLUMN token uuid DEFAULT gen_random_uuid()"
    source.psql(database, sql=f"SELECT 1 \\; {change};")
    lsn = await_stop(migration)["stop"]["lsn"]
    target.execute(database, change)
    await_going(migration)
    wait_until(lambda: data_differences(*migration.ends) == [], 60, f"the copy of the table whose change stood at {lsn}")


def test_a_type_that_changed_stops_before_a_value_is_rounded(migrations):
    migration = migrations("ddl_type")
    migration.load(sql="CREATE TABLE public.money (id int PRIMARY KEY, amount numeric(10, 2));")
    following(migration, "--no-ddl-trigger")
    source, database, target, _ = migration.ends
    # The first change of the table there is, and read by a daemon that has not seen the table before.
    migration.daemon.terminate()
    source.execute(database, "ALTER TABLE public.money ALTER COLUMN amount TYPE numeric(10, 4)",
                   "INSERT INTO public.money VALUES (2, 1.2345)")
    migration.daemon.start("--no-ddl-trigger")
    text = await_stop(migration)["last_error"]["text"]
    assert "column amount of public.money" in text and "numeric(10,2)" in text, text
    target.execute(database, "ALTER TABLE public.money ALTER COLUMN amount TYPE numeric(10, 4)")
    await_going(migration)
    assert data_differences(*migration.ends) == []


def test_a_broken_trigger_never_fails_the_application_and_the_catalogs_still_tell(migrations):
    migration = following(migrations("ddl_broken"))
    source, database, _, _ = migration.ends
    source.execute(database, f"SET application_name = 'walferry by hand'; DROP SEQUENCE {secret_of(source, database)}")
    source.execute(database, "CREATE INDEX t_n ON app.t (n)", "CREATE TABLE app.fine (id int PRIMARY KEY)",
                   "DROP TABLE app.fine", "ALTER TABLE app.t ADD COLUMN r float8 DEFAULT random()")
    found = await_findings(migration, lambda findings: len(findings) == 2)
    assert {each["object"] for each in found} == {"index app.t_n", "column app.t.r"}


def test_messages_that_somebody_else_wrote_do_nothing(migrations):
    migration = following(migrations("ddl_forged"), "--on-ddl", "apply")
    source, database, target, _ = migration.ends
    forged = ('{"secret": "guessed", "event": "ddl_command_end", "tag": "DROP TABLE", "role": "postgres", "query":'
              ' "DROP TABLE app.t", "context": "", "settings": {}, "objects": [{"type": "table", "identity": "app.t"}]}')
    for text in (forged, "no JSON", ""):
        source.query(database, "SELECT pg_logical_emit_message(true, 'walferry.ddl', %s)", (text,))
    source.execute(database, "UPDATE app.t SET v = 'after' WHERE id = 1")
    migration.await_applied()
    assert target.scalar(database, "SELECT v FROM app.t WHERE id = 1") == "after"
    with pytest.raises(psycopg2.Error):
        source.query(database, f"SET ROLE pg_monitor; SELECT last_value FROM {secret_of(source, database)}")


def test_other_subscribers_of_the_source_see_nothing_of_the_trigger(migrations):
    """A publication FOR ALL TABLES of somebody else's: a table of ours in its stream would stop its subscribers."""
    migration = migrations("ddl_others")
    source, database, target, _ = migration.ends
    source.execute(database, "CREATE PUBLICATION everything FOR ALL TABLES")
    source.query(database, "SELECT pg_create_logical_replication_slot('ddl_others_else', 'pgoutput')")
    try:
        migration.follow(TABLES, "--on-ddl", "apply")
        source.execute(database, "ALTER TABLE app.t ADD COLUMN w int", "UPDATE app.t SET w = 1 WHERE id = 1")
        migration.await_applied()
        seen = b"".join(bytes(row[0]) for row in source.query(
            database, "SELECT data FROM pg_logical_slot_peek_binary_changes('ddl_others_else', NULL, NULL,"
                      " 'proto_version', '1', 'publication_names', 'everything')"))
        assert b"measured_2024" not in seen and b"feelings" not in seen and b"t\x00" in seen
        assert b"walferry" not in seen
    finally:
        source.query(database, "SELECT pg_drop_replication_slot('ddl_others_else')")
    source.execute(database, "DROP PUBLICATION everything")


def test_the_first_change_after_a_crash_of_the_source_is_in_the_stream(migrations):
    migration = following(migrations("ddl_crash"), "--on-ddl", "apply")
    source, database, target, _ = migration.ends
    migration.daemon.terminate()  # nobody of walferry's comes between the crash and the change
    source.restart("immediate")
    source.execute(database, "ALTER TABLE app.t ADD COLUMN x int DEFAULT 5", "UPDATE app.t SET x = 6 WHERE id = 1")
    migration.daemon.start("--on-ddl", "apply")
    migration.await_applied()
    assert target.query(database, "SELECT x, count(*) FROM app.t GROUP BY x ORDER BY x") == [(5, 199), (6, 1)]


def test_abort_leaves_nothing_of_the_trigger(migrations):
    migration = migrations("ddl_gone")
    migration.load(sql=TABLES)
    before = fingerprint(migration.source, "ddl_gone")
    check = migration.daemon.check("--json")
    assert "source.ddl_trigger" in check.out and "event triggers" in check.out
    migration.daemon.start()
    migration.daemon.await_phase("follow", 120)
    assert len(migration.source.query("ddl_gone", "SELECT 1 FROM pg_event_trigger")) == 3
    assert migration.daemon.abort().code == walferry.OK
    assert changed(before, fingerprint(migration.source, "ddl_gone")) == []


# -- other versions ----------------------------------------------------------------------------------------------------

CORE = {
    "stop": test_stop_stands_exactly_before_the_change_and_goes_on_when_the_target_has_the_same,
    "apply": test_apply_runs_each_change_at_its_place,
    "copied again": functools.partial(test_a_table_whose_rows_were_made_anew_is_copied_again, policy="apply"),
}


@on_versions((15, 15), (17, 18))
@pytest.mark.parametrize("core", CORE)
def test_on_other_versions(migrations, core):
    CORE[core](migrations)


@on_versions((15, 15), (18, 18))
def test_a_new_table_whose_key_is_generated_stays_out(migrations):
    """No update or delete of it could be sent, and 18 refuses them on the source where it is published."""
    migration = following(migrations("ddl_generated_key"), "--on-ddl", "apply")
    source, database = migration.source, migration.database
    source.execute(database, "CREATE TABLE app.g (a int, k int GENERATED ALWAYS AS (a * 2) STORED PRIMARY KEY)",
                   "INSERT INTO app.g VALUES (1), (2)", "UPDATE app.g SET a = 3 WHERE a = 1", "DELETE FROM app.g WHERE a = 2")
    migration.await_applied()
    assert source.query(database, "SELECT tablename FROM pg_publication_tables WHERE tablename = 'g'") == []


@pytest.mark.parametrize("way", ["goes on by itself", "skip"])
def test_what_a_default_gave_to_rows_is_the_sources_whoever_adds_the_column(migrations, way):
    """DEFAULT now() is another time when a person runs the same command on the target."""
    migration = following(migrations("ddl_default"))
    source, database, target, _ = migration.ends
    source.execute(database, "UPDATE app.t SET v = 'early' WHERE id = 1", "ALTER TABLE app.t ADD COLUMN first int DEFAULT 7",
                   "ALTER TABLE app.t ADD COLUMN created timestamptz DEFAULT now()", "UPDATE app.t SET v = 'late' WHERE id = 2",
                   "UPDATE app.t SET created = '2000-01-01' WHERE id = 3", "DELETE FROM app.t WHERE id = 4",
                   "INSERT INTO app.t (id) VALUES (1001)")
    columns = ["first int DEFAULT 7", "created timestamptz DEFAULT now()"]
    stop = await_stop(migration)["stop"]
    if way == "skip":
        for number, column in enumerate(columns):
            target.execute(database, f"ALTER TABLE app.t ADD COLUMN {column}")
            assert walferry.command("skip", "--state-dir", migration.daemon.state_dir, "--lsn", stop["lsn"], "--reason",
                                    "made by hand").code == walferry.OK
            if number == 0:
                stop = migration.daemon.await_status(lambda status, lsn=stop["lsn"]: status["stop"] and status["stop"]["lsn"] != lsn,
                                                     60, "the next stop")["stop"]
    else:
        target.execute(database, *(f"ALTER TABLE app.t ADD COLUMN {column}" for column in columns))
    await_going(migration)
    assert data_differences(*migration.ends) == []
    migration.switch()


def test_what_a_default_gave_to_rows_below_a_parent_is_the_sources(migrations):
    migration = migrations("ddl_below").follow(TABLES + """
        INSERT INTO app.measured SELECT g, '2024-01-01'::date + g FROM generate_series(1, 50) g;
        CREATE TABLE app.parent (id int PRIMARY KEY); CREATE TABLE app.child (PRIMARY KEY (id)) INHERITS (app.parent);
        INSERT INTO app.parent VALUES (1); INSERT INTO app.child VALUES (2);""", "--on-ddl", "apply")
    source, database = migration.source, migration.database
    source.execute(database, "ALTER TABLE app.measured ADD COLUMN created timestamptz DEFAULT now()",
                   "ALTER TABLE app.parent ADD COLUMN created timestamptz DEFAULT now()",
                   "UPDATE app.measured SET created = '2000-01-01' WHERE id = 3", "INSERT INTO app.child VALUES (3)")
    migration.await_applied()
    assert data_differences(*migration.ends) == []
    migration.switch()


@on_versions((14, 16))
def test_what_has_other_words_on_the_target_is_accepted_by_a_person(migrations):
    """Without an event trigger the catalogs alone tell, and majors write the same view in other words."""
    migration = following(migrations("ddl_words"), "--no-ddl-trigger")
    source, database, target, _ = migration.ends
    for server in (source, target):
        server.execute(database, "CREATE VIEW app.seen AS SELECT v FROM app.t")
    await_findings(migration, lambda findings: [each["object"] for each in findings] == ["view app.seen"])

    def accept(name: str, *more: str) -> walferry.Answer:
        return walferry.command("skip", "--state-dir", migration.daemon.state_dir, "--object", name, "--reason", "the same", *more)

    refused = migration.daemon.cutover("--dry-run")
    assert "`walferry skip --object 'view app.seen' --reason ...`" in refused.out, refused
    answer = accept("view app.sen")
    assert answer.code == walferry.REFUSED and "'view app.seen'" in answer.err, answer
    assert accept("view app.seen").code == walferry.OK
    assert migration.daemon.cutover("--dry-run").code == walferry.OK
    # As it is now, and no further.
    source.execute(database, "CREATE OR REPLACE VIEW app.seen AS SELECT v || 'x' AS v FROM app.t")
    await_findings(migration, lambda findings: [each["object"] for each in findings] == ["view app.seen"])
    target.execute(database, "CREATE OR REPLACE VIEW app.seen AS SELECT v || 'x' AS v FROM app.t")
    assert accept("view app.seen", "--json").json() == {"object": "view app.seen", "reason": "the same"}
    report = migration.switch()
    assert "the schemas differ, as a person accepted: view app.seen: the same" in report["notes"], report["notes"]


def test_who_accepts_one_difference_of_a_table_accepts_no_other(migrations):
    migration = following(migrations("ddl_one"), "--no-ddl-trigger")
    source, database, target, _ = migration.ends
    source.execute(database, "ALTER TABLE app.t ADD CONSTRAINT positive CHECK (n > -1)", "CREATE INDEX t_n ON app.t (n)",
                   "ALTER TABLE app.t SET (fillfactor = 80)")
    target.execute(database, "ALTER TABLE app.t ADD CONSTRAINT positive CHECK (n >= 0)")
    found = {"constraint positive on app.t", "index app.t_n", "table app.t"}
    await_findings(migration, lambda findings: {each["object"] for each in findings} == found)
    for name in ("constraint positive on app.t", "table app.t"):
        answer = walferry.command("skip", "--state-dir", migration.daemon.state_dir, "--object", name, "--reason", "the same")
        assert answer.code == walferry.OK, answer
    refused = migration.daemon.cutover("--json")
    blockers = refused.json()["blockers"]
    assert refused.code == walferry.REFUSED and len(blockers) == 1 and blockers[0].startswith("index app.t_n was added"), refused
    await_findings(migration, lambda findings: {each["object"] for each in findings} == {"index app.t_n"})
    target.execute(database, "CREATE INDEX t_n ON app.t (n)")
    migration.switch()


def test_rows_that_were_copied_behind_the_added_column_keep_what_they_hold(migrations):
    """The table is copied again while the apply stands before the command that added the column."""
    migration = following(migrations("ddl_copied_behind"))
    source, database, target, _ = migration.ends
    source.execute(database, "ALTER TABLE app.t ADD COLUMN random float8 DEFAULT random()",
                   "ALTER TABLE app.t ADD COLUMN created timestamptz DEFAULT now()")
    stop = await_stop(migration)["stop"]
    target.execute(database, "ALTER TABLE app.t ADD COLUMN random float8 DEFAULT random()",
                   "ALTER TABLE app.t ADD COLUMN created timestamptz DEFAULT now()")
    source.execute(database, "INSERT INTO app.t (id) SELECT generate_series(1001, 1050)",
                   "UPDATE app.t SET created = '2000-01-01' WHERE id = 7")
    migration.daemon.await_status(lambda status: not status["stop"] or status["stop"]["lsn"] != stop["lsn"], 60, "the stop to pass")
    await_going(migration)
    wait_until(lambda: data_differences(*migration.ends) == [], 60, "the table to have been copied again")
    # The apply rests for a moment behind such a copy.
    wait_until(lambda: migration.daemon.cutover("--dry-run").code == walferry.OK, 60, "the apply to be at work again")
    migration.switch()


@on_versions((16, 17))
def test_a_partition_below_an_identity_is_the_same_on_majors_that_inherit_it(migrations):
    migration = following(migrations("ddl_identity"), "--no-ddl-trigger")
    source, database, target, _ = migration.ends
    parent = "CREATE TABLE app.root (id int GENERATED ALWAYS AS IDENTITY, k int, PRIMARY KEY (id, k)) PARTITION BY LIST (k)"
    for server in (source, target):
        server.execute(database, parent, "CREATE TABLE app.root_1 PARTITION OF app.root FOR VALUES IN (1)")
    wait_until(lambda: migration.daemon.cutover("--dry-run").code == walferry.OK, 60, "the cutover to be allowed")
    source.execute(database, "INSERT INTO app.root (k) VALUES (1)")
    migration.switch()
