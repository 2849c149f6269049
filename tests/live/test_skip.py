"""A change that cannot be applied stops the stream; a repair lets it go on, and a person may leave out exactly it."""

import json
import re

import pytest

import walferry
from compare import assert_equal, data_differences
from slow_cutover import SlowCutover

pytestmark = pytest.mark.limit(240)

TABLES = """
CREATE TABLE public.t (id int PRIMARY KEY, v text, n int UNIQUE);
INSERT INTO public.t SELECT g, 'value ' || g, g FROM generate_series(1, 100) g;
CREATE TABLE public.other (id int PRIMARY KEY, v text);
"""
COMMIT_LSN = re.compile(r"commit LSN ([0-9A-F]+/[0-9A-F]+)")


def following(migration, *options: str):
    return migration.follow(TABLES, *options)


def await_stop(migration) -> dict:
    """The status of an apply that stands still at one named place."""
    status = migration.daemon.await_status(lambda status: status["apply_stopped"] and status["stop"], 60, "a stop")
    assert status["stop"]["lsn"] in status["last_error"]["text"], status["last_error"]
    return status


def skip(migration, lsn: str, reason: str = "known to be harmless", *options: str) -> walferry.Answer:
    return walferry.command("skip", "--state-dir", migration.daemon.state_dir, "--lsn", lsn, "--reason", reason, *options)


def test_a_missing_row_stops_with_everything_named_and_a_repair_lets_it_go_on(migrations):
    migration = following(migrations("stop_repair"))
    source, database, target, _ = migration.ends
    target.execute(database, "DELETE FROM public.t WHERE id = 7")
    with source.connect(database, autocommit=False) as connection, connection.cursor() as cursor:
        cursor.execute("INSERT INTO public.other VALUES (1, 'same transaction')")
        cursor.execute("UPDATE public.t SET v = 'changed' WHERE id = 7")
        cursor.execute("SELECT pg_current_xact_id()::text")
        xid = cursor.fetchone()[0]
        connection.commit()
    status = await_stop(migration)
    text = status["last_error"]["text"]
    for part in ("public.t", "(id)=(7)", f"transaction {xid}", "no such row", "Remedy"):
        assert part in text, text
    assert COMMIT_LSN.search(text).group(1) == status["stop"]["lsn"]
    assert status["stop"]["what"] == "transaction" and status["stop"]["xid"] == int(xid)
    shown = walferry.command("status", "--state-dir", migration.daemon.state_dir)
    assert "apply stopped" in shown.out and "(id)=(7)" in " ".join(shown.out.split()), shown
    assert target.scalar(database, "SELECT count(*) FROM public.other") == 0, "half a transaction was applied"
    blocked = migration.daemon.cutover("--json")
    assert blocked.code == walferry.REFUSED and any("apply stands still" in each for each in blocked.json()["blockers"])
    target.execute(database, "INSERT INTO public.t VALUES (7, 'value 7', 7)")
    status = migration.daemon.await_status(lambda status: not status["apply_stopped"], 60, "the apply to go on")
    assert status["stop"] is None and status["skips"] == []
    migration.await_applied()
    report = migration.switch()
    assert report["skips"] == []
    assert_equal(*migration.ends)


@pytest.mark.parametrize("spoil, repair, cause", [
    ("INSERT INTO public.t VALUES (200, 'already there', 999)", "DELETE FROM public.t WHERE id = 200", "t_pkey"),
    ("INSERT INTO public.t VALUES (900, 'takes the unique value', 200)", "DELETE FROM public.t WHERE id = 900", "t_n_key"),
    ("ALTER TABLE public.t ADD CONSTRAINT small CHECK (n < 150)", "ALTER TABLE public.t DROP CONSTRAINT small", "small"),
], ids=["second row", "unique value", "constraint"])
def test_a_change_that_meets_a_constraint_stops_and_goes_on_after_the_repair(migrations, spoil, repair, cause):
    migration = following(migrations("stop_constraint"))
    source, database, target, _ = migration.ends
    target.execute(database, spoil)
    source.execute(database, "INSERT INTO public.other VALUES (1, 'before it')")
    source.execute(database, "INSERT INTO public.t VALUES (200, 'from the source', 200)")
    text = await_stop(migration)["last_error"]["text"]
    for part in ("insert into public.t", "(id)=(200)", cause, "commit LSN"):
        assert part in text, text
    # What committed before it on the source is there.
    assert target.scalar(database, "SELECT v FROM public.other WHERE id = 1") == "before it"
    target.execute(database, repair)
    migration.daemon.await_status(lambda status: not status["apply_stopped"], 60, "the apply to go on")
    migration.await_applied()
    assert data_differences(*migration.ends) == []


def test_a_change_that_fits_two_rows_stops(migrations):
    """The target's key is gone and a second row fits."""
    migration = following(migrations("stop_two"))
    source, database, target, _ = migration.ends
    target.execute(database, "ALTER TABLE public.other DROP CONSTRAINT other_pkey")
    source.execute(database, "INSERT INTO public.other VALUES (5, 'one')")
    migration.await_applied()
    target.execute(database, "INSERT INTO public.other VALUES (5, 'two')")
    source.execute(database, "DELETE FROM public.other WHERE id = 5")
    text = await_stop(migration)["last_error"]["text"]
    assert "2 rows" in text and "public.other" in text and "(id)=(5)" in text, text
    target.execute(database, "DELETE FROM public.other WHERE v = 'two'")
    migration.daemon.await_status(lambda status: not status["apply_stopped"], 60, "the apply to go on")
    migration.await_applied()
    assert target.scalar(database, "SELECT count(*) FROM public.other") == 0


@pytest.mark.tsan
def test_skip_leaves_out_exactly_one_transaction_and_the_report_says_so(migrations):
    migration = following(migrations("skip_running"))
    source, database, target, _ = migration.ends
    none = skip(migration, "0/1")
    assert none.code == walferry.REFUSED and "not stopped" in none.err, none
    target.execute(database, "DELETE FROM public.t WHERE id = 7")
    with source.connect(database, autocommit=False) as connection, connection.cursor() as cursor:
        cursor.execute("INSERT INTO public.other VALUES (1, 'goes with it')")
        cursor.execute("UPDATE public.t SET v = 'left out' WHERE id = 7")
        connection.commit()
    source.execute(database, "INSERT INTO public.other VALUES (2, 'follows')")
    lsn = await_stop(migration)["stop"]["lsn"]
    wrong = skip(migration, "0/1")
    assert wrong.code == walferry.REFUSED and lsn in wrong.err, wrong
    for arguments in (("--lsn", lsn), ("--lsn", "nonsense", "--reason", "r"), ("--lsn", lsn, "--reason", " ")):
        answer = walferry.command("skip", "--state-dir", migration.daemon.state_dir, *arguments)
        assert answer.code == walferry.USAGE, answer
    assert migration.daemon.status()["apply_stopped"]
    taken = skip(migration, lsn, "row 7 is rebuilt by a job", "--json")
    assert taken.code == walferry.OK, taken
    assert taken.json()["lsn"] == lsn and taken.json()["reason"] == "row 7 is rebuilt by a job"
    migration.await_applied()
    assert target.query(database, "SELECT id FROM public.other ORDER BY 1") == [(2,)]
    status = migration.daemon.status()
    assert not status["apply_stopped"] and [each["lsn"] for each in status["skips"]] == [lsn]
    # Made whole by hand, so that the cutover's proof holds.
    target.execute(database, "INSERT INTO public.other VALUES (1, 'goes with it')",
                   "INSERT INTO public.t VALUES (7, 'left out', 7)")
    report = migration.switch()
    assert [(each["lsn"], each["reason"]) for each in report["skips"]] == [(lsn, "row 7 is rebuilt by a job")]
    stored = json.loads((migration.daemon.state_dir / "report.json").read_text())
    assert stored["skips"] == report["skips"]
    assert_equal(*migration.ends)


def test_a_cutover_that_has_compared_sees_what_a_skip_left_out_since(migrations):
    migration = following(migrations("skip_compared"))
    source, database, target, _ = migration.ends
    cutover = SlowCutover(migration, "public.other").await_comparison().await_write_stop()
    target.execute(database, "DELETE FROM public.t WHERE id = 7")
    with source.connect(database, autocommit=False) as connection, connection.cursor() as cursor:
        cursor.execute("UPDATE public.t SET v = 'left out' WHERE id = 8")
        cursor.execute("UPDATE public.t SET v = 'left out' WHERE id = 7")
        connection.commit()
    lsn = await_stop(migration)["stop"]["lsn"]
    assert skip(migration, lsn).code == walferry.OK
    migration.await_applied()
    answer = cutover.release()
    assert answer.code == walferry.DIFFERENT and "public.t" in answer.json()["error"], answer
    target.execute(database, "INSERT INTO public.t VALUES (7, 'left out', 7)",
                   "UPDATE public.t SET v = 'left out' WHERE id = 8")
    migration.switch()
    assert_equal(*migration.ends)


def test_skip_works_on_a_state_directory_at_rest_and_outlives_restarts(migrations):
    migration = following(migrations("skip_at_rest"))
    source, database, target, _ = migration.ends
    assert migration.daemon.terminate() == walferry.OK
    target.execute(database, "DELETE FROM public.t WHERE id = 7")
    source.execute(database, "UPDATE public.t SET v = 'left out' WHERE id = 7")
    source.execute(database, "INSERT INTO public.other VALUES (2, 'follows')")
    migration.daemon.start("--until", "caught-up")
    assert migration.daemon.await_exit(60) == walferry.TARGET_FAILED
    offline = migration.daemon.status()
    assert not offline["running"] and offline["apply_stopped"]
    lsn = offline["stop"]["lsn"]
    assert skip(migration, "0/1").code == walferry.REFUSED
    taken = skip(migration, lsn)
    assert taken.code == walferry.OK and lsn in taken.out, taken
    for _ in range(2):
        migration.daemon.start()
        migration.daemon.await_phase("follow", 120)
        migration.await_applied()
        assert target.query(database, "SELECT id FROM public.other") == [(2,)]
        assert target.scalar(database, "SELECT count(*) FROM public.t WHERE id = 7") == 0
        migration.daemon.kill()
    assert [each["lsn"] for each in migration.daemon.status()["skips"]] == [lsn]


def test_skip_of_what_never_was_a_migration_is_refused(tmp_path):
    answer = walferry.command("skip", "--state-dir", tmp_path / "none", "--lsn", "0/1", "--reason", "r")
    assert answer.code != walferry.OK and answer.err, answer
    assert not (tmp_path / "none").exists()
    assert walferry.command("skip", "--help").code == walferry.OK
