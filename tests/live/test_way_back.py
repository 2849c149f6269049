"""The way back: after the switch the old source is kept up to date, and `walferry rollback` returns to it."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import psycopg2
import pytest

import walferry
from adoption import branch, make_slot, promote, publish
from compare import data_differences
from held_commit import HeldCommit, is_plain_commit
from migration import Migration, changed, fingerprint, on_versions
from servers import SLOWNESS, wait_until
from slow_cutover import SlowCutover
from workload import Workload, prepare

HERE = Path(__file__).parent
WRITERS = 3
TABLES = """
CREATE TABLE public.t (id int PRIMARY KEY, v text);
INSERT INTO public.t SELECT g, 'v' || g FROM generate_series(1, 1000) g;
CREATE SEQUENCE public.s;
SELECT nextval('public.s') FROM generate_series(1, 40);
"""
WRITABLE = "SET default_transaction_read_only = off"
FENCE = b"walferry.refuse_writes"  # what the session sends that closes an end


def rollback(migration: Migration, *options: str) -> walferry.Answer:
    return walferry.command("rollback", "--state-dir", migration.daemon.state_dir, *options)


def went_back(migration: Migration, *options: str) -> dict:
    answer = rollback(migration, "--json", *options)
    assert answer.code == walferry.OK, f"rollback failed: {answer}\n{migration.daemon.log_tail()}"
    report = answer.json()
    assert report["result"] == "switched" and report["back"], report
    return report


def await_way_back(migration: Migration) -> dict:
    """Until the way back follows with everything that the target has."""
    lsn = walferry.parse_lsn(migration.target.scalar(migration.database, "SELECT pg_current_wal_flush_lsn()::text"))
    return migration.daemon.await_status(
        lambda status: status["way_back_of"] and status["phase"] == "follow"
        and walferry.parse_lsn(status["applied_lsn"] or "0/0") >= lsn, 120, f"the way back to have applied {lsn}")


def switch_with_way_back(migration: Migration, *options: str) -> dict:
    report = migration.switch("--way-back", *options)
    assert report["way_back_begins"], report
    return report


def expect_refused(server, database: str, sql: str = "DELETE FROM public.t") -> None:
    """By the fence, whatever the session's own setting says."""
    with pytest.raises(psycopg2.errors.ReadOnlySqlTransaction, match="was moved by walferry to"):
        server.execute(database, WRITABLE, sql)


def all_rows(server, database: str) -> list[tuple]:
    return server.query(database, "SELECT * FROM public.t ORDER BY id")


def traces(migration: Migration) -> list:
    """Of a way back, on the target and in the state directory."""
    found = migration.target.query("postgres", "SELECT slot_name FROM pg_replication_slots WHERE slot_name LIKE '%%_back'")
    found += migration.target.query(migration.database, "SELECT pubname FROM pg_publication UNION ALL"
                                                        " SELECT evtname FROM pg_event_trigger WHERE evtname LIKE 'walferry%%'")
    return found + ([migration.daemon.state_dir / "back"] if (migration.daemon.state_dir / "back").exists() else [])


@on_versions((14, 16), (18, 17))
def test_there_and_back_under_load(migrations, note):
    """Writers go on all the time: at the source, at the target, at the source again; the daemon is killed in between."""
    migration = migrations("there_and_back")
    source, database, target, _ = migration.ends
    migration.load(HERE / "data/rich.sql")
    prepare(source, database, WRITERS)
    before = fingerprint(source, database)
    migration.daemon.start()
    migration.daemon.await_phase("follow", 180)
    with Workload(source.dsn(database), WRITERS, pause_seconds=0.01) as workload:
        workload.await_commits(100)
        migration.await_applied()
        there = switch_with_way_back(migration)
        workload.repoint(target.dsn(database))
        workload.await_commits(100)
        status = await_way_back(migration)
        assert status["way_back_of"] == f"walferry_{database}", status
        migration.expect_source_fenced()
        expect_refused(source, database, "DELETE FROM ledger.journal")
        assert source.query("postgres", "SELECT slot_name FROM pg_replication_slots WHERE slot_name = %s",
                            (f"walferry_{database}",)) == [], "the slot of the first direction still keeps WAL"
        migration.daemon.kill()
        workload.await_commits(100)
        target.restart("immediate")
        workload.await_commits(100)
        source.restart("immediate")
        migration.daemon.start()
        await_way_back(migration)
        back = went_back(migration)
        workload.repoint(source.dsn(database))
        workload.await_commits(100)
    assert workload.ledger_differences(source, database) == []
    expect_refused(target, database, "DELETE FROM ledger.journal")
    assert migration.daemon.phase() == "switched"
    note(f"there {there['writes_stopped_ms']:.0f} ms and back {back['writes_stopped_ms']:.0f} ms of write stop,"
         f" PostgreSQL {source.binaries.major} -> {target.binaries.major}")
    answer = migration.daemon.finish()
    assert answer.code == walferry.OK, answer
    assert changed(before, fingerprint(source, database)) == []
    expect_refused(target, database, "DELETE FROM ledger.journal")
    assert traces(migration) == [migration.daemon.state_dir / "back"]  # the records stay


@pytest.mark.tsan
def test_what_was_written_to_the_target_is_on_the_old_source(migrations):
    """Rows, keys, sequences; also what is in no stream: large objects and unlogged tables, at the return."""
    migration = migrations("rows_come_back").follow(
        TABLES + "CREATE UNLOGGED TABLE public.u (id int); INSERT INTO public.u VALUES (1); SELECT lo_from_bytea(7000, 'old');")
    source, database, target, _ = migration.ends
    switch_with_way_back(migration)
    target.execute(database, "UPDATE public.t SET v = 'new' WHERE id <= 500", "DELETE FROM public.t WHERE id > 900",
                   "UPDATE public.t SET id = id + 10000 WHERE id BETWEEN 600 AND 700",
                   "INSERT INTO public.t SELECT g, 'more' FROM generate_series(20001, 25000) g",
                   "SELECT nextval('public.s') FROM generate_series(1, 10)", "INSERT INTO public.u VALUES (2)",
                   "SELECT lo_from_bytea(7001, 'young')", "SELECT lo_put(7000, 0, 'OLD')")
    await_way_back(migration)
    assert all_rows(source, database) == all_rows(target, database)
    answer = rollback(migration, "--dry-run")
    assert answer.code == walferry.OK and "open old source" in answer.out, answer
    went_back(migration)
    assert data_differences(target, database, source, database, unlogged=True) == []
    source.execute(database, "INSERT INTO public.t VALUES (-1, 'written to the old source again')")
    assert source.scalar(database, "SELECT nextval('public.s')") == 51
    expect_refused(target, database)
    again = migration.daemon.cutover()
    assert again.code == walferry.REFUSED and "switched already" in again.err, again
    again = rollback(migration)
    assert again.code == walferry.REFUSED and "switched already" in again.out, again
    assert migration.daemon.finish("--lift-fence").code == walferry.OK
    target.execute(database, "DELETE FROM public.t")


def test_triggers_and_identities_of_the_old_source_are_as_they_were(migrations):
    schema = TABLES + """
CREATE TABLE public.log (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, what text);
CREATE FUNCTION public.note() RETURNS trigger LANGUAGE plpgsql AS
  $$BEGIN INSERT INTO public.log (what) VALUES (TG_OP); RETURN NULL; END$$;
CREATE TRIGGER always AFTER INSERT ON public.t FOR EACH ROW EXECUTE FUNCTION public.note();
ALTER TABLE public.t ENABLE ALWAYS TRIGGER always;
CREATE TABLE public.child (id int PRIMARY KEY, t int REFERENCES public.t ON DELETE CASCADE);
INSERT INTO public.child VALUES (1, 1);
"""
    for name, ending in (("back_and_done", "rollback"), ("no_return", "finish"), ("new_one_gone", "loss")):
        migration = migrations(name).follow(schema)
        source, database, target, _ = migration.ends
        switch_with_way_back(migration)
        target.execute(database, "INSERT INTO public.t VALUES (5000, 'one')", "DELETE FROM public.t WHERE id = 1")
        await_way_back(migration)
        if ending == "rollback":
            went_back(migration)
            assert source.scalar(database, "SELECT count(*) FROM public.log") == 1
            source.execute(database, "INSERT INTO public.t VALUES (5001, 'two')")
            assert source.scalar(database, "SELECT count(*) FROM public.log") == 2
            assert_equal_schema = source
        elif ending == "finish":
            assert migration.daemon.finish().code == walferry.OK
            assert_equal_schema = target
        else:
            assert migration.daemon.terminate() == walferry.OK
            source.execute(database, WRITABLE, "ALTER TABLE public.log RENAME TO logbook")
            target.stop("immediate")
            try:
                answer = migration.daemon.finish("--lift-fence")
            finally:
                target.start()
            assert answer.code in (walferry.SOURCE_FAILED, walferry.TARGET_FAILED), answer
            assert "sequences that feed no column stay as they were at the switch: public.s" in answer.out, answer
            assert "not put back, to be done by hand if it is wanted still: ALTER TABLE ONLY \"public\".\"log\" ALTER" in answer.out, answer
            source.execute(database, "ALTER TABLE public.logbook RENAME TO log", "ALTER TABLE public.log ALTER id SET GENERATED ALWAYS")
            source.execute(database, "INSERT INTO public.t VALUES (5001, 'two')")
            assert source.scalar(database, "SELECT count(*) FROM public.log") == 2
            assert_equal_schema = source
        for server in {source, assert_equal_schema}:
            assert server.query(database, "SELECT tgenabled FROM pg_trigger WHERE tgname = 'always'") == [("A",)]
            assert server.query(database, "SELECT attidentity FROM pg_attribute WHERE attidentity <> ''") == [("a",)]


class Exchanged:
    """A migration as its way back sees it."""

    def __init__(self, migration: Migration):
        self.source, self.target, self.database = migration.target, migration.source, migration.database
        self.daemon = migration.daemon


def test_a_cutover_that_fails_leaves_no_way_back(migrations):
    migration = migrations("no_way").follow(TABLES)
    held = SlowCutover(migration, "public.t", "--way-back", timeout=f"{8 * SLOWNESS:.0f}s").await_comparison()
    wait_until(lambda: traces(migration), 30, "the way back to be armed")
    answer = held.process.communicate(timeout=120)[0]
    assert held.process.returncode == walferry.TIMED_OUT, answer
    assert traces(migration) == []
    held.connection.rollback()
    answer = rollback(migration)
    assert answer.code == walferry.REFUSED and "there is no way back" in answer.err, answer
    migration.source.execute(migration.database, "INSERT INTO public.t VALUES (0, 'goes on')")
    migration.await_applied()
    switch_with_way_back(migration)  # nothing is in the way of the next one
    migration.target.execute(migration.database, "INSERT INTO public.t VALUES (-1, 'there')")
    await_way_back(migration)


def test_a_cutover_that_is_killed_leaves_no_way_back(migrations):
    migration = migrations("killed_arming").follow(TABLES)
    held = SlowCutover(migration, "public.t", "--way-back").await_write_stop()
    assert traces(migration)
    migration.daemon.kill()
    held.release()
    migration.daemon.start()
    migration.daemon.await_status(lambda status: status["phase"] == "follow", 60, "phase follow, after phase cutover")
    assert traces(migration) == []
    held = SlowCutover(migration, "public.t", "--way-back").await_write_stop()
    migration.daemon.kill()
    held.release()
    answer = migration.daemon.abort()
    assert answer.code == walferry.OK, answer
    assert traces(migration) == []


def test_a_way_back_that_could_not_be_removed_goes_with_the_next_cutover(migrations):
    """The target goes away while the cutover fails."""
    migration = migrations("not_removed").follow(TABLES)
    held = SlowCutover(migration, "public.t", "--way-back", timeout=f"{8 * SLOWNESS:.0f}s").await_write_stop()
    migration.target.stop("immediate")
    held.process.communicate(timeout=120)
    assert held.process.returncode not in (walferry.OK, walferry.REFUSED)
    held.connection.rollback()
    migration.target.start()
    assert traces(migration), "it was removed from a server that is down"
    wait_until(lambda: migration.daemon.cutover("--dry-run").code == walferry.OK, 60, "nothing in the way")
    assert migration.switch()["way_back_begins"] is None
    assert traces(migration) == []
    assert migration.daemon.finish().code == walferry.OK


def test_a_slot_that_somebody_removed_is_missed_before_the_switch(migrations):
    migration = migrations("slot_removed").follow(TABLES)
    held = SlowCutover(migration, "public.t", "--way-back").await_write_stop()
    assert migration.target.query("postgres", "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots"
                                              " WHERE active_pid IS NOT NULL") == []
    migration.target.query(migration.database, "SELECT pg_drop_replication_slot('walferry_slot_removed_back')")
    answer = held.release()
    assert answer.code == walferry.REFUSED and "the way back is gone again" in answer.json()["error"], answer
    migration.source.execute(migration.database, "INSERT INTO public.t VALUES (-1, 'goes on')")
    assert traces(migration) == []


def test_a_rollback_is_proven(migrations):
    """Somebody has changed the old source behind its fence: the target serves on, and a repaired one is taken."""
    migration = migrations("back_proven").follow(TABLES)
    source, database, target, _ = migration.ends
    switch_with_way_back(migration)
    passage = f"SET walferry.way_back = 'walferry_{database}'"
    source.execute(database, WRITABLE, passage, "UPDATE public.t SET v = 'mine' WHERE id = 7")
    await_way_back(migration)
    answer = rollback(migration)
    assert answer.code == walferry.DIFFERENT and "NOT SWITCHED BACK" in answer.out and "public.t" in answer.out, answer
    target.execute(database, "INSERT INTO public.t VALUES (-1, 'goes on')")
    expect_refused(source, database)
    source.execute(database, WRITABLE, passage, "UPDATE public.t SET v = 'v7' WHERE id = 7")
    await_way_back(migration)
    went_back(migration)
    assert all_rows(source, database) == all_rows(target, database)


def test_a_trigger_that_notes_down_schema_changes_does_not_meet_those_of_the_way_back(migrations):
    migration = migrations("noted_back")
    migration.load(sql=TABLES + """
CREATE TABLE public.ddl_log (id serial PRIMARY KEY, tag text);
CREATE FUNCTION public.note() RETURNS event_trigger LANGUAGE plpgsql AS
  $$BEGIN INSERT INTO public.ddl_log (tag) VALUES (tg_tag); END$$;
CREATE EVENT TRIGGER note ON ddl_command_end EXECUTE FUNCTION public.note();
CREATE TABLE public.noted (id int PRIMARY KEY);
""")
    migration.daemon.start()
    migration.daemon.await_phase("follow", 120)
    migration.await_applied()
    source, database, target, _ = migration.ends
    switch_with_way_back(migration)
    target.execute(database, "INSERT INTO public.noted VALUES (1)")
    await_way_back(migration)
    log = "SELECT * FROM public.ddl_log ORDER BY id"
    assert source.query(database, log) == target.query(database, log)
    went_back(migration)
    assert source.query(database, log) == target.query(database, log)
    source.execute(database, "CREATE TABLE public.noted_too (id int PRIMARY KEY)")


def test_a_table_made_on_the_target_joins_when_the_old_source_has_it_too(migrations):
    migration = migrations("joins_back").follow(TABLES, "--no-ddl-trigger")
    source, database, target, _ = migration.ends
    switch_with_way_back(migration)
    table = "CREATE TABLE public.young (id int PRIMARY KEY, v text)"
    target.execute(database, table, "INSERT INTO public.young SELECT g, 'v' FROM generate_series(1, 100) g")
    wait_until(lambda: rollback(migration, "--dry-run").code == walferry.REFUSED, 60, "the new table to be in the way")
    source.execute(database, WRITABLE, table)
    wait_until(lambda: rollback(migration, "--dry-run").code == walferry.OK, 60, "the new table to have joined")
    target.execute(database, "DELETE FROM public.young WHERE id > 50")
    went_back(migration)
    assert source.scalar(database, "SELECT count(*) FROM public.young") == 50


def test_finish_while_the_old_source_is_down_and_again(migrations):
    """The daemon waits for both ends before it takes the way back up: finish finds the way back all the same."""
    migration = migrations("finish_down").follow(TABLES)
    source, database, target, _ = migration.ends
    switch_with_way_back(migration)
    await_way_back(migration)
    migration.daemon.terminate()
    source.stop("immediate")
    migration.daemon.start()
    migration.daemon.await_status(lambda status: status["last_error"], 60, "the daemon to miss the old source")
    answer = rollback(migration)
    assert answer.code == walferry.REFUSED and "has not taken the way back up yet" in answer.err, answer
    answer = migration.daemon.finish()
    assert answer.code in (walferry.SOURCE_FAILED, walferry.TARGET_FAILED), answer
    assert [each for each in traces(migration) if each != migration.daemon.state_dir / "back"] == []
    source.start()
    assert migration.daemon.finish().code == walferry.OK
    expect_refused(source, database)
    assert migration.daemon.finish("--lift-fence").code == walferry.OK
    source.execute(database, "DELETE FROM public.t")
    assert source.query(database, "SELECT nspname FROM pg_namespace WHERE nspname = 'walferry'") == []


def test_a_reader_of_the_old_source_does_not_keep_it_closed(migrations):
    """Its lock is in the way of dropping the fence's triggers, not of opening it."""
    migration = migrations("read_meanwhile").follow(TABLES)
    source, database, target, _ = migration.ends
    switch_with_way_back(migration)
    await_way_back(migration)
    with source.connect(database, autocommit=False) as reader, reader.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM public.t")
        went_back(migration)
        source.execute(database, "INSERT INTO public.t VALUES (-1, 'open')")
        expect_refused(target, database)
        answer = migration.daemon.finish()
        assert answer.code == walferry.OK and "let everybody pass now, are left" in answer.out, answer
        assert "source: the write fence stays" not in answer.out, answer
        cursor.execute("ROLLBACK")
    assert source.query(database, "SELECT DISTINCT tgrelid::regclass::text FROM pg_trigger WHERE tgname LIKE 'walferry%%'") == [("t",)]
    assert migration.daemon.finish().code == walferry.OK
    assert source.query(database, "SELECT tgname FROM pg_trigger WHERE tgname LIKE 'walferry%%'") == []


def test_finish_again_leaves_a_later_migration_alone(migrations):
    migration = migrations("later").follow(TABLES)
    source, database, target, _ = migration.ends
    switch_with_way_back(migration)
    await_way_back(migration)
    went_back(migration)
    assert migration.daemon.finish("--lift-fence").code == walferry.OK
    target.execute(database, "DROP TABLE public.t", "DROP SEQUENCE public.s")
    folder = migration.folder / "later"
    folder.mkdir()
    later = walferry.Daemon(migration.daemon.source, migration.daemon.target, folder).start()
    try:
        later.await_phase("follow", 120)
        assert migration.daemon.finish("--lift-fence").code == walferry.OK
        source.execute(database, "INSERT INTO public.t VALUES (-1, 'carried')")
        later.await_applied(migration.source_lsn())
        assert all_rows(source, database) == all_rows(target, database)
    finally:
        later.remove()


def test_the_old_source_is_opened_where_the_new_server_is_lost(migrations):
    migration = migrations("lost").follow(TABLES)
    source, database, target, _ = migration.ends
    switch_with_way_back(migration)
    target.execute(database, "INSERT INTO public.t VALUES (-1, 'came back')")
    await_way_back(migration)
    held = SlowCutover(Exchanged(migration), "public.t", command="rollback").await_write_stop()
    migration.daemon.kill()
    target.stop("immediate")
    held.process.communicate(timeout=60)
    try:
        with source.connect(database, autocommit=False) as reader, reader.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM public.t")
            answer = migration.daemon.finish("--lift-fence")
        assert answer.code in (walferry.SOURCE_FAILED, walferry.TARGET_FAILED), answer
        assert source.query(database, "SELECT v FROM public.t WHERE id = -1") == [("came back",)]
        source.execute(database, "DELETE FROM public.t")
    finally:
        target.start()


def test_after_a_rollback_finish_may_open_the_target_later(migrations):
    migration = migrations("opened_later").follow(TABLES)
    source, database, target, _ = migration.ends
    switch_with_way_back(migration)
    await_way_back(migration)
    went_back(migration)
    answer = migration.daemon.finish()
    assert answer.code == walferry.OK and "target: the write fence stays" in answer.out, answer
    expect_refused(target, database)
    assert migration.daemon.finish("--lift-fence").code == walferry.OK
    target.execute(database, "DELETE FROM public.t")
    source.execute(database, "DELETE FROM public.t")


def kill_rollback_at_its_commit(migration: Migration, delivered: bool) -> None:
    """The daemon, when the COMMIT that closes the target is on its way there, or has been made."""
    switch_with_way_back(migration)
    migration.daemon.terminate()
    direct = migration.daemon.target
    with HeldCommit(migration.target, FENCE, is_plain_commit, delivered) as held:
        migration.daemon.target = held.dsn(migration.database)
        migration.daemon.start()
        await_way_back(migration)
        command = subprocess.Popen([walferry.binary(), "rollback", "--state-dir", str(migration.daemon.state_dir)],
                                   env=walferry.environment(), text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        held.await_held()
        migration.daemon.kill()
        command.communicate(timeout=60)
        assert command.returncode != walferry.OK
    migration.daemon.target = direct


@pytest.mark.parametrize("delivered", [False, True], ids=["lost", "answer lost"])
def test_a_rollback_that_is_killed_at_its_commit(migrations, delivered):
    """Either the target serves on, or the old source is opened when the daemon is there again."""
    migration = migrations(f"killed_back_{delivered}").follow(TABLES)
    source, database, target, _ = migration.ends
    kill_rollback_at_its_commit(migration, delivered)
    migration.daemon.start()
    if delivered:
        migration.daemon.await_status(lambda status: status["phase"] == "switched" and "old source serves" in status["activity"], 60,
                                      "the switch to be noted")
        source.execute(database, "INSERT INTO public.t VALUES (-1, 'open again')")
        expect_refused(target, database)
    else:
        target.execute(database, "INSERT INTO public.t VALUES (-1, 'goes on')")
        await_way_back(migration)
        expect_refused(source, database)
        went_back(migration)
    assert source.scalar(database, "SELECT count(*) FROM public.t") == 1001


def test_only_one_end_is_opened_where_a_rollback_could_not_open_the_old_source(migrations):
    migration = migrations("both_closed").follow(TABLES)
    source, database, target, _ = migration.ends
    kill_rollback_at_its_commit(migration, True)
    source.stop("immediate")
    ends = "--source", source.dsn(database), "--target", target.dsn(database)
    try:
        answer = walferry.command("finish", "--state-dir", migration.daemon.state_dir, "--lift-fence", *ends)
        assert answer.code in (walferry.SOURCE_FAILED, walferry.TARGET_FAILED), answer
        target.execute(database, "INSERT INTO public.t VALUES (-1, 'serves again')")
    finally:
        source.start()
    for _ in range(2):
        answer = walferry.command("finish", "--state-dir", migration.daemon.state_dir, "--lift-fence", *ends)
        assert answer.code == walferry.OK, answer
        target.execute(database, "DELETE FROM public.t WHERE id = -1")
        expect_refused(source, database)


def test_finish_without_the_journal_of_the_way_back_leaves_nothing(migrations):
    migration = migrations("journal_gone").follow(TABLES)
    source, database, target, _ = migration.ends
    switch_with_way_back(migration)
    await_way_back(migration)
    assert migration.daemon.terminate() == walferry.OK
    shutil.rmtree(migration.daemon.state_dir / "back")
    migration.daemon.start()
    assert migration.daemon.await_exit() == walferry.USAGE
    assert "the journal of the way back is not there" in migration.daemon.log_tail()
    answer = migration.daemon.finish()
    assert answer.code == walferry.OK and traces(migration) == [], answer
    assert source.query(database, "SELECT relname FROM pg_class WHERE relname LIKE 'progress%%'") == []
    assert "are to be put back by hand" in answer.out, answer
    expect_refused(source, database)
    target.execute(database, "DELETE FROM public.t")


def test_what_stands_in_the_way_is_said_before_anything_is_stopped(migrations):
    migration = migrations("no_way_there", "--allow-nonempty-target")
    migration.target.execute(migration.database, "CREATE TABLE public.own (id int)")
    migration.follow(TABLES)
    for options, code in ((["--dry-run"], walferry.REFUSED), ([], walferry.REFUSED)):
        answer = migration.daemon.cutover("--way-back", *options)
        assert answer.code == code and "no way back: the target may hold tables of its own" in answer.out, answer
    assert traces(migration) == []
    migration.switch()


def test_a_target_that_cannot_be_decoded_has_none(migrations, server_made):
    server = server_made("target", settings={"wal_level": "replica"})
    migration = migrations("no_decoding", target=server).follow(TABLES)
    answer = migration.daemon.cutover("--way-back", "--json")
    assert answer.code == walferry.REFUSED, answer
    assert [each for each in answer.json()["blockers"] if "wal_level of the target is replica" in each], answer
    migration.switch()


def test_a_promoted_copy_has_a_way_back(migrations, physical):
    """Both ends bear one identity."""
    copy = physical()
    migration = migrations("promoted_back", target=copy)
    source, database, _, _ = migration.ends
    migration.load(sql=TABLES)
    publish(migration)
    begins = make_slot(migration)
    copy.copy_of(source).start()
    source.execute(database, "INSERT INTO public.t VALUES (0, 'past the slot')")
    promote(copy, begins)
    migration.daemon.start("--adopt", branch(copy))
    migration.daemon.await_phase("follow", 120)
    migration.await_applied()
    switch_with_way_back(migration)
    copy.execute(database, "DELETE FROM public.t WHERE id > 500", "INSERT INTO public.t VALUES (-1, 'there')")
    await_way_back(migration)
    migration.daemon.kill()
    migration.daemon.start()
    await_way_back(migration)
    went_back(migration)
    assert data_differences(copy, database, source, database) == []
    source.execute(database, "DELETE FROM public.t")
    assert migration.daemon.finish("--lift-fence").code == walferry.OK
    for server in (source, copy):
        assert server.query("postgres", "SELECT slot_name FROM pg_replication_slots") == []
        assert server.query(database, "SELECT pubname FROM pg_publication") == []


def test_a_slot_of_somebody_else_is_left_alone(migrations):
    migration = migrations("slot_taken").follow(TABLES)
    slot = "walferry_slot_taken_back"
    migration.target.query(migration.database, "SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", (slot,))
    answer = migration.daemon.cutover("--way-back")
    assert answer.code == walferry.REFUSED and f"{slot} that is not of this migration" in answer.out, answer
    migration.switch()
    assert migration.daemon.finish().code == walferry.OK
    assert migration.target.query("postgres", "SELECT pg_drop_replication_slot(%s)", (slot,))


def test_tables_without_a_key_come_back_too(migrations):
    """REPLICA IDENTITY FULL stays on the target for as long as the way back is there, and goes with it."""
    migration = migrations("keyless_back").follow(
        TABLES + "CREATE TABLE public.keyless (v text); INSERT INTO public.keyless VALUES ('a'), ('a'), ('b');",
        "--replica-identity-full")
    source, database, target, _ = migration.ends
    switch_with_way_back(migration)
    target.execute(database, "UPDATE public.keyless SET v = 'c' WHERE v = 'b'", "INSERT INTO public.keyless VALUES ('d')")
    await_way_back(migration)
    went_back(migration)
    assert sorted(source.query(database, "SELECT v FROM public.keyless")) == [("a",), ("a",), ("c",), ("d",)]
    assert migration.daemon.finish().code == walferry.OK
    for server in (source, target):
        assert server.query(database, "SELECT relreplident FROM pg_class WHERE relname = 'keyless'") == [("d",)]


def test_a_schema_change_on_the_target_stops_the_way_back_at_its_place(migrations):
    migration = migrations("ddl_back").follow(TABLES)
    source, database, target, _ = migration.ends
    switch_with_way_back(migration)
    target.execute(database, "ALTER TABLE public.t ADD COLUMN w int DEFAULT 5", "INSERT INTO public.t VALUES (-1, 'x', 6)")
    status = migration.daemon.await_status(lambda status: status["apply_stopped"], 60, "the way back to stop")
    remedy = re.search(r"as its owner: (.*) -- then", status["last_error"]["text"]).group(1)
    source.execute(database, *remedy.split("; "))
    await_way_back(migration)
    went_back(migration)
    assert source.query(database, "SELECT v, w FROM public.t WHERE id = -1") == [("x", 6)]


def test_a_schema_change_on_the_target_is_applied_where_that_is_wanted(migrations):
    migration = migrations("ddl_applied_back").follow(TABLES, "--on-ddl", "apply")
    source, database, target, _ = migration.ends
    switch_with_way_back(migration)
    target.execute(database, "CREATE TABLE public.young (id int PRIMARY KEY)", "INSERT INTO public.young VALUES (1)",
                   "ALTER TABLE public.t ADD COLUMN w int DEFAULT 5", "INSERT INTO public.t VALUES (-1, 'x', 6)")
    await_way_back(migration)
    assert all_rows(source, database) == all_rows(target, database)
    went_back(migration)
    assert source.query(database, "SELECT id FROM public.young") == [(1,)]
    source.execute(database, "INSERT INTO public.young VALUES (2)")
    for table in ("public.t", "public.young"):
        expect_refused(target, database, f"DELETE FROM {table}")


def minds_sigterm(pid: int) -> bool:
    """Held back or handled; /proc shows signal n as bit n - 1."""
    masks = re.findall(r"^Sig(?:Blk|Cgt):\s+(\w+)$", Path(f"/proc/{pid}/status").read_text(), re.M)
    return any(int(mask, 16) >> (signal.SIGTERM - 1) & 1 for mask in masks)


def test_a_stop_is_heard_while_the_way_back_takes_over(migrations):
    migration = migrations("stop_heard").follow(TABLES)
    switch_with_way_back(migration)
    assert migration.daemon.terminate() == walferry.OK
    for milliseconds in range(0, 300, 15):
        migration.daemon.start()
        wait_until(lambda: minds_sigterm(migration.daemon.process.pid), 30, "the program to mind its signals")
        time.sleep(milliseconds / 1000)  # any moment of start and hand-over may be met
        assert migration.daemon.terminate() == walferry.OK


def test_stopped_and_started_in_between(migrations):
    """Each command finds the way back, whether the daemon runs or not; --until cutover leaves it to the next start."""
    migration = migrations("in_between")
    migration.follow(TABLES, "--until", "cutover")
    source, database, target, _ = migration.ends
    switch_with_way_back(migration)
    assert migration.daemon.await_exit(60) == walferry.OK
    status = migration.daemon.status()
    assert status["way_back_of"] and not status["running"], status
    target.execute(database, "INSERT INTO public.t VALUES (-1, 'while nothing ran')")
    answer = rollback(migration)
    assert answer.code == walferry.REFUSED and "walferry run" in answer.err, answer
    answer = migration.daemon.cutover()
    assert answer.code == walferry.REFUSED and "walferry rollback" in answer.err, answer
    migration.daemon.start()
    await_way_back(migration)
    assert migration.daemon.terminate() == walferry.OK
    assert migration.daemon.finish().code == walferry.OK
    assert source.scalar(database, "SELECT v FROM public.t WHERE id = -1") == "while nothing ran"
    expect_refused(source, database)
    target.execute(database, "DELETE FROM public.t")
    assert [each for each in traces(migration) if each != migration.daemon.state_dir / "back"] == []
