"""What happens on the source while a cutover is under way: nothing of it may be missing on the target of a switch."""

from __future__ import annotations

import threading

import psycopg2
import pytest

import walferry
from compare import assert_equal, data_differences
from held_commit import HeldCommit
from servers import wait_until
from slow_cutover import SlowCutover
from test_proof import TABLES

pytestmark = pytest.mark.limit(240)


def following(migrations, database: str, *options: str):
    return migrations(database).follow(TABLES, "--no-ddl-trigger", *options)


def slow_cutover(migration) -> SlowCutover:
    return SlowCutover(migration, "t").await_comparison().await_write_stop()


@pytest.mark.parametrize("change", ["ALTER TABLE pair ADD COLUMN vat int NOT NULL DEFAULT 19",
                                    "CREATE FUNCTION one() RETURNS int LANGUAGE sql AS 'SELECT 1'",
                                    "ALTER TABLE pair ADD CHECK (a > 0)"], ids=["column", "function", "check"])
def test_a_schema_change_that_the_stream_does_not_tell_of_refuses_the_switch(migrations, change):
    migration = following(migrations, "untold")
    source, database, target, _ = migration.ends
    slow = slow_cutover(migration)
    source.execute(database, change)
    answer = slow.release()
    assert answer.code != walferry.OK and "schema" in answer.json()["error"], answer
    source.execute(database, "INSERT INTO t VALUES (2000, 'still open')")
    target.execute(database, change)
    migration.await_applied()
    migration.switch()
    assert_equal(*migration.ends)


def test_rows_made_anew_behind_an_unchanged_definition_are_compared(migrations):
    migration = following(migrations, "anew")
    source, database, _, _ = migration.ends
    slow = slow_cutover(migration)
    source.execute(database, "ALTER TABLE pair ALTER a TYPE int USING a * 2")
    answer = slow.release()
    assert answer.code == walferry.DIFFERENT and "public.pair" in answer.json()["error"], answer
    source.execute(database, "INSERT INTO t VALUES (2000, 'still open')")


def test_a_partition_that_goes_while_its_root_is_compared_takes_its_rows_along(migrations):
    """The target has partitions of its own, so the stream knows the root alone and tells nothing of this."""
    migration = migrations("dropped_part")
    source, database, target, _ = migration.ends
    root = "CREATE TABLE t (id int PRIMARY KEY, v text); CREATE TABLE p (id int PRIMARY KEY) PARTITION BY RANGE (id);"
    source.psql(database, sql=root + """
        CREATE TABLE low PARTITION OF p FOR VALUES FROM (0) TO (100);
        CREATE TABLE high PARTITION OF p FOR VALUES FROM (100) TO (200);
        CREATE TABLE top PARTITION OF p FOR VALUES FROM (200) TO (300);
        INSERT INTO p SELECT generate_series(1, 150)""")
    target.psql(database, sql=root + "CREATE TABLE low PARTITION OF p FOR VALUES FROM (0) TO (1000)")
    direct = migration.daemon.target
    with HeldCommit(target, b"walferry verify", lambda data: b"::bit(128)" in data) as held:
        migration.daemon.target = held.dsn(database)
        migration.daemon.start("--no-ddl-trigger", "--no-schema")
        migration.daemon.await_phase("follow", 60)
        answers = []
        running = threading.Thread(target=lambda: answers.append(migration.daemon.cutover("--json")))
        running.start()
        held.await_held()
        source.execute(database, "DROP TABLE high")
        held.release()
        running.join()
        assert answers[0].code == walferry.DIFFERENT and "public.p" in answers[0].json()["error"], answers
        migration.daemon.terminate()
    migration.daemon.target = direct
    migration.daemon.start("--no-ddl-trigger", "--no-schema").await_phase("follow", 60)
    target.execute(database, "DELETE FROM p WHERE id >= 100")
    migration.switch()


@pytest.mark.parametrize("change", ["DROP TABLE pair", "SET (publish = 'insert')"], ids=["a table", "operations"])
def test_a_publication_that_is_altered_during_the_cutover_refuses_it(migrations, change):
    """What it left out meanwhile would be neither on the target nor among the rows to compare."""
    migration = migrations("narrowed")
    source, database, _, _ = migration.ends
    migration.load(sql=TABLES)
    source.execute(database, "CREATE PUBLICATION mine FOR TABLE t, pair")
    migration.daemon.start("--publication", "mine", "--no-ddl-trigger")
    migration.daemon.await_phase("follow", 60)
    slow = slow_cutover(migration)
    source.execute(database, f"ALTER PUBLICATION mine {change}", "UPDATE pair SET v = 'unseen' WHERE a = 7")
    answer = slow.release()
    assert answer.code == walferry.REFUSED and "publishes was changed" in answer.json()["error"], answer
    if change.startswith("DROP"):
        refused = migration.daemon.cutover("--json")
        assert refused.code == walferry.REFUSED, refused
        assert any("public.pair was copied, and the publications carry it no more" in each
                   for each in refused.json()["blockers"]), refused
    else:
        source.execute(database, "ALTER PUBLICATION mine SET (publish = 'insert, update, delete, truncate')")
        assert migration.daemon.cutover("--json").code == walferry.DIFFERENT


@pytest.mark.parametrize("ending", ["COMMIT", "ROLLBACK"])
def test_a_transaction_that_made_a_table_is_waited_for(migrations, ending):
    """No lock of ours stops it, nobody else sees its table, and its commit would come behind the switch."""
    migration = following(migrations, "maker")
    source, database, _, _ = migration.ends
    slow = slow_cutover(migration)
    with source.connect(database, autocommit=False) as maker, source.connect(database, autocommit=False) as hasty:
        maker.cursor().execute("CREATE TABLE late AS SELECT 1 AS id")
        answers = []
        running = threading.Thread(target=lambda: answers.append(slow.release()))
        running.start()
        wait_until(lambda: "which made a table" in migration.daemon.log.read_text(), 60, "the cutover to wait for it")
        # Nobody is held up by that.
        hasty.cursor().execute("SET LOCAL lock_timeout = '5s'; LOCK TABLE t IN ROW EXCLUSIVE MODE")
        hasty.rollback()
        maker.cursor().execute(ending)
        running.join()
    if ending == "COMMIT":
        assert answers[0].code == walferry.REFUSED and answers[0].json()["result"] == "rolled-back", answers
        source.execute(database, "INSERT INTO t VALUES (2000, 'still open')")
    else:
        assert answers[0].code == walferry.OK, answers
        assert_equal(*migration.ends)


def test_a_temporary_table_of_an_open_transaction_is_in_nobodys_way(migrations):
    migration = following(migrations, "temporary")
    slow = slow_cutover(migration)
    with migration.source.connect(migration.database, autocommit=False) as reader:
        reader.cursor().execute("CREATE TEMPORARY TABLE first (id int)")
        reader.commit()  # the first one makes the schema, and with it as much as any table
        reader.cursor().execute("CREATE TEMPORARY TABLE mine AS SELECT 1 AS id")
        assert slow.release().code == walferry.OK
    assert_equal(*migration.ends)


@pytest.mark.parametrize("schema", ["public", "of_its_own"])
def test_a_table_that_is_made_during_the_stop_refuses_the_switch(migrations, schema):
    migration = migrations("made_late").follow(TABLES + "CREATE SEQUENCE numbers;", "--no-ddl-trigger")
    source, database, target, _ = migration.ends
    with target.connect(database, autocommit=False) as holder:
        holder.cursor().execute("ALTER SEQUENCE numbers INCREMENT 1")
        answers = []
        running = threading.Thread(target=lambda: answers.append(migration.daemon.cutover("--json", "--timeout", "60s")))
        running.start()
        wait_until(lambda: target.scalar("postgres", "SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE NOT"
                                                     " granted AND application_name = 'walferry cutover'"), 60,
                   "the cutover to wait for the sequence")
        with source.connect(database, autocommit=False) as maker:
            maker.cursor().execute(f"CREATE SCHEMA IF NOT EXISTS {schema}; CREATE TABLE {schema}.late AS SELECT 1 AS id")
            holder.rollback()
            running.join()
            maker.rollback()
    assert answers[0].code == walferry.REFUSED and "being created" in answers[0].json()["error"], answers
    migration.switch()
    assert_equal(*migration.ends)


def test_the_first_large_object_refuses_the_switch(migrations):
    migration = following(migrations, "first_object")
    source, database, _, _ = migration.ends
    slow = slow_cutover(migration)
    source.execute(database, "SELECT lo_from_bytea(4711, 'an object')")
    answer = slow.release()
    assert answer.code != walferry.OK and "large objects" in answer.json()["error"], answer
    migration.switch()
    assert_equal(*migration.ends)


def test_a_part_that_was_switched_before_does_not_decide_for_another(migrations, tmp_path):
    """The fence of the first is there when the second one's cutover fails at its point of no return."""
    first = migrations("parts", "--include-table", "public.t", "--slot", "parts_first")
    source, database, target, _ = first.ends
    first.follow(TABLES)
    first.switch()
    assert first.daemon.finish().code == walferry.OK
    target.create_database("parts_second")
    try:
        with HeldCommit(source, b"walferry fence", lambda data: b"CREATE OR REPLACE FUNCTION" in data) as held:
            folder = first.folder / "second"
            folder.mkdir()
            second = walferry.Daemon(held.dsn(database), target.dsn("parts_second"), folder, "--include-table", "public.pair",
                                     "--slot", "parts_second")
            answers = []
            try:
                second.start()
                second.await_phase("follow", 60)
                running = threading.Thread(target=lambda: answers.append(second.cutover("--json")))
                running.start()
                held.await_held()
                held.cut()
                running.join()
                assert answers[0].json()["result"] == "rolled-back", answers
                assert second.phase() == "follow"
                source.execute(database, "UPDATE pair SET v = 'still open' WHERE a = 7")
                second.await_applied(source.scalar(database, "SELECT pg_current_wal_flush_lsn()::text"))
            finally:
                second.remove()
        # Taking the second away leaves the first one's source closed.
        second.source = first.daemon.source
        second.start()
        second.await_phase("follow", 60)
        second.terminate()
        assert second.abort().code == walferry.OK
        with pytest.raises(psycopg2.Error) as refused:
            source.execute(database, "INSERT INTO t VALUES (3000, 'closed')")
        assert refused.value.pgcode == "25006"
        source.execute(database, "INSERT INTO pair VALUES (3000, 'open', 'v')")
    finally:
        target.drop_database("parts_second")


def test_a_subscription_of_the_source_brings_nothing_after_the_switch(migrations):
    """Its worker fires no statement triggers, and was connected before the database became read-only."""
    migration = migrations("subscriber")
    source, database, target, _ = migration.ends
    migration.load(sql=TABLES)
    target.create_database("publisher")
    slot = "SELECT pg_create_logical_replication_slot('upstream', 'pgoutput')"
    try:
        target.execute("publisher", "CREATE TABLE t (id int PRIMARY KEY, v text)", "CREATE PUBLICATION up FOR TABLE t", slot)
        source.execute(database, f"CREATE SUBSCRIPTION down CONNECTION '{target.dsn('publisher')}' PUBLICATION up"
                                 " WITH (create_slot = false, slot_name = upstream, copy_data = false)")
        migration.daemon.start("--no-ddl-trigger")
        migration.daemon.await_phase("follow", 60)
        arrived = "SELECT count(*) FROM t WHERE id = {}"
        target.execute("publisher", "INSERT INTO t VALUES (7001, 'before')")
        wait_until(lambda: source.scalar(database, arrived.format(7001)), 60, "a row to come through the subscription")
        migration.await_applied()
        migration.switch()
        target.execute("publisher", "INSERT INTO t VALUES (7002, 'after')")
        wait_until(lambda: "was moved by walferry" in source.log_tail(400), 60, "the worker to be refused")
        assert source.scalar(database, arrived.format(7002)) == 0
        assert_equal(*migration.ends)
    finally:
        source.execute("postgres", f"ALTER DATABASE {database} RESET default_transaction_read_only")
        source.execute(database, "SET session_replication_role = replica", "ALTER SUBSCRIPTION down DISABLE",
                       "ALTER SUBSCRIPTION down SET (slot_name = NONE)", "DROP SUBSCRIPTION down")
        target.drop_database("publisher")


def test_a_cutover_that_fails_after_the_triggers_came_back_fires_none_of_them(migrations):
    """An audit trigger that fires always would note each applied row a second time."""
    migration = migrations("audited")
    source, database, target, _ = migration.ends
    migration.load(sql=TABLES + """
        CREATE TABLE audit (id bigserial PRIMARY KEY, what text);
        CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS
            $$BEGIN INSERT INTO public.audit (what) VALUES (NEW.v); RETURN NULL; END$$;
        CREATE TRIGGER note AFTER INSERT OR UPDATE ON t FOR EACH ROW EXECUTE FUNCTION note();
        ALTER TABLE t ENABLE ALWAYS TRIGGER note;""")
    source.execute("postgres", f"ALTER DATABASE {database} SET work_mem = '5MB'")
    direct = migration.daemon.target
    with HeldCommit(target, b"walferry cutover", lambda data: b"ALTER DATABASE" in data) as held:
        migration.daemon.target = held.dsn(database)
        migration.daemon.start("--no-ddl-trigger")
        migration.daemon.await_phase("follow", 60)
        answers = []
        running = threading.Thread(target=lambda: answers.append(migration.daemon.cutover("--json")))
        running.start()
        held.await_held()
        enabled = "SELECT tgenabled FROM pg_trigger WHERE tgname = 'note'"
        assert target.scalar(database, enabled) == "A", "the triggers are back"
        held.cut()
        running.join()
        assert answers[0].json()["result"] == "rolled-back", answers
        source.execute(database, "INSERT INTO t VALUES (2000, 'noted once')", "UPDATE t SET v = 'changed' WHERE id = 7")
        migration.await_applied()
        assert target.scalar(database, enabled) == "D"
        assert data_differences(*migration.ends, sequences=False) == []
        migration.switch()
        assert_equal(*migration.ends)
        assert target.scalar(database, enabled) == "A"
    migration.daemon.target = direct


def test_touched_keys_are_found_in_the_encoding_of_both_ends(migrations):
    migration = migrations("latin")
    source, database, target, _ = migration.ends
    for server in source, target:
        server.drop_database(database)
        server.execute("postgres", f"CREATE DATABASE {database} ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0")
    migration.follow(TABLES + "CREATE TABLE named (name text PRIMARY KEY, n int); INSERT INTO named VALUES ('caf\u00e9', 1);")
    slow = slow_cutover(migration)
    source.execute(database, "UPDATE named SET n = 2", "INSERT INTO named VALUES ('th\u00e9', 3)")
    answer = slow.release()
    assert answer.code == walferry.OK, answer
    assert answer.json()["touched_rows"] == 2, answer
    assert_equal(*migration.ends)


def test_a_publication_of_the_users_own_is_not_taken_for_walferrys(migrations):
    migration = migrations("own_name")
    source, database, _, _ = migration.ends
    migration.load(sql=TABLES)
    source.execute(database, "CREATE PUBLICATION mine FOR TABLE t")
    migration.daemon.start("--publication", "mine", "--slot", "mine")
    assert migration.daemon.await_exit(30) != walferry.OK
    assert "another --slot" in migration.daemon.log.read_text()
    assert source.scalar(database, "SELECT count(*) FROM pg_publication_tables WHERE pubname = 'mine'") == 1


NO_TRIGGERS = """
CREATE FUNCTION refuse() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no triggers here'; END $$;
CREATE EVENT TRIGGER refuse ON ddl_command_start WHEN TAG IN ('CREATE TRIGGER') EXECUTE FUNCTION refuse();
ALTER EVENT TRIGGER refuse ENABLE ALWAYS;
"""


def test_a_trigger_that_notes_down_schema_changes_does_not_meet_the_fence_that_is_being_made(migrations):
    """It writes to a table that has its fence already, in the transaction that makes the others."""
    migration = migrations("noting").follow(TABLES + """
        CREATE TABLE a_log (id int GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY, what text);
        CREATE FUNCTION note() RETURNS event_trigger LANGUAGE plpgsql AS
            $$ BEGIN INSERT INTO public.a_log (what) VALUES (tg_tag); END $$;
        CREATE EVENT TRIGGER note ON ddl_command_end WHEN TAG IN ('CREATE TRIGGER') EXECUTE FUNCTION note();
        ALTER EVENT TRIGGER note ENABLE ALWAYS;""", "--no-ddl-trigger")
    source, database, target, _ = migration.ends
    target.execute(database, "DROP EVENT TRIGGER note")  # of the restored schema: for walferry's changes it acts there
    source.execute(database, "DROP EVENT TRIGGER note", "CREATE EVENT TRIGGER note ON ddl_command_end WHEN TAG IN"
                             " ('CREATE TRIGGER') EXECUTE FUNCTION note()", "ALTER EVENT TRIGGER note ENABLE ALWAYS")
    migration.switch()
    assert source.scalar(database, "SELECT count(*) FROM a_log") > 0
    with pytest.raises(psycopg2.Error, match="was moved by walferry"):
        source.execute(database, "SET default_transaction_read_only = off", "INSERT INTO a_log (what) VALUES ('later')")


def test_an_apply_that_does_not_keep_up_does_not_cost_writers_their_time(migrations):
    """What holds it comes after the comparison: the cutover is given up before writes are stopped."""
    migration = migrations("late").follow(TABLES + "CREATE MATERIALIZED VIEW counted AS SELECT count(*) FROM t;",
                                          "--no-ddl-trigger")
    source, database, target, _ = migration.ends
    outcome = {}

    def cut_over():
        outcome["answer"] = migration.daemon.cutover("--refresh-first", "--timeout", "20s", "--json")

    with target.connect(database, autocommit=False) as view_reader:
        view_reader.cursor().execute("SELECT * FROM counted")
        cutover = threading.Thread(target=cut_over)
        cutover.start()
        migration.daemon.await_status(lambda status: status["activity"] == "prepare sessions", 60, "the comparison's end")
        with target.connect(database, autocommit=False) as holder:
            holder.cursor().execute("LOCK TABLE t IN SHARE MODE")
            source.execute(database, "INSERT INTO t VALUES (5000, 'waits on the target')")
            view_reader.rollback()
            cutover.join()
    answer = outcome["answer"]
    assert answer.code == walferry.TIMED_OUT, answer
    report = answer.json()
    assert report["result"] == "rolled-back" and "did not reach the target in time" in report["error"], answer
    assert report["writes_stopped_ms"] == 0 and report["writes_delayed_ms"] == 0, answer
    migration.await_applied()
    migration.switch()
    assert_equal(*migration.ends)


def test_a_daemon_that_is_stopped_during_the_comparison_did_not_switch(migrations):
    """And the command that asked for it says so, to whatever script goes on from there."""
    migration = following(migrations, "stopping")
    source, database, target, _ = migration.ends
    outcome = {}

    def cut_over():
        outcome["answer"] = migration.daemon.cutover("--timeout", "60s", "--json")

    with target.connect(database, autocommit=False) as holder:
        holder.cursor().execute("LOCK TABLE t IN ACCESS EXCLUSIVE MODE")
        cutover = threading.Thread(target=cut_over)
        cutover.start()
        wait_until(lambda: target.scalar("postgres", "SELECT count(*) FROM pg_stat_activity WHERE application_name ="
                                                     " 'walferry verify' AND wait_event_type = 'Lock'"),
                   60, "the comparison to wait")
        assert migration.daemon.terminate() == walferry.OK
        cutover.join()
    answer = outcome["answer"]
    assert answer.code == walferry.REFUSED, answer
    assert answer.json()["result"] == "rolled-back" and "is ending" in answer.json()["error"], answer
    source.execute(database, "INSERT INTO t VALUES (5000, 'still open')")
    migration.daemon.start()
    migration.daemon.await_phase("follow")
    migration.await_applied()
    migration.switch()
    assert_equal(*migration.ends)


def test_a_fence_that_gets_no_triggers_is_lifted_and_the_stream_goes_on(migrations):
    """What goes on beside the fence's triggers ends with them, however far it is."""
    migration = migrations("unarmed").follow(TABLES + NO_TRIGGERS, "--no-ddl-trigger")
    source, database, target, _ = migration.ends
    answer = migration.daemon.cutover("--json")
    assert answer.code == walferry.SOURCE_FAILED and "no triggers here" in answer.json()["error"], answer
    source.execute(database, "INSERT INTO t VALUES (2001, 'open again')")
    migration.await_applied()
    assert target.scalar(database, "SELECT count(*) FROM t WHERE id = 2001") == 1
    for server in (source, target):
        server.execute(database, "DROP EVENT TRIGGER refuse", "DROP FUNCTION refuse()")
    migration.switch()
    assert_equal(*migration.ends)
