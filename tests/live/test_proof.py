"""The cutover's proof: everything while writers go on, and in the write stop what was touched since."""

from __future__ import annotations

import subprocess

import pytest

import walferry
from compare import assert_equal
from servers import wait_until
from slow_cutover import SlowCutover

TABLES = """
CREATE TABLE t (id int PRIMARY KEY, v text);
INSERT INTO t SELECT g, 'v' || g FROM generate_series(1, 1000) g;
CREATE TABLE pair (a int, b text, v text, PRIMARY KEY (b, a));
INSERT INTO pair SELECT g, 'k"\\,{}''' || g, 'v' FROM generate_series(1, 100) g;
CREATE TABLE keyless (v text);
ALTER TABLE keyless REPLICA IDENTITY FULL;
INSERT INTO keyless SELECT 'same' FROM generate_series(1, 50);
CREATE TABLE emptied (id int PRIMARY KEY);
INSERT INTO emptied SELECT generate_series(1, 100);
"""
# Hashed for a second each, the first one first.
LARGE = """
CREATE TABLE first (id int PRIMARY KEY, v text);
CREATE TABLE second (LIKE first INCLUDING ALL);
INSERT INTO first SELECT g, repeat('x', 100) FROM generate_series(1, 400000) g;
INSERT INTO second SELECT g, repeat('x', 80) FROM generate_series(1, 400000) g;
"""
READS = ("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'walferry verify' AND state = 'active'"
         " AND query LIKE '%\"{}\"%'")


def following(migrations, database):
    migration = migrations(database)
    migration.load(sql=TABLES)
    migration.daemon.start()
    migration.daemon.await_phase("follow")
    return migration


def steps(report: dict) -> list[str]:
    return [step["name"] for step in report["steps"]]


def test_a_difference_is_found_before_anybody_waits(migrations):
    migration = following(migrations, "found_early")
    migration.target.execute("found_early", "UPDATE t SET v = 'planted' WHERE id = 7")
    answer = migration.daemon.cutover("--json")
    assert answer.code == walferry.DIFFERENT, answer
    report = answer.json()
    assert report["result"] == "rolled-back" and "public.t" in report["error"], report
    assert report["writes_stopped_ms"] == 0 and "stop writes (lease)" not in steps(report), report
    migration.source.execute("found_early", "INSERT INTO t VALUES (2000, 'writable')")
    migration.target.execute("found_early", "UPDATE t SET v = 'v7' WHERE id = 7")
    migration.switch()
    assert_equal(*migration.ends)


@pytest.mark.tsan
def test_rows_touched_after_the_comparison_are_compared_again(migrations):
    migration = following(migrations, "touched")
    source, target = migration.source, migration.target
    slow = SlowCutover(migration, "t").await_comparison()
    source.execute("touched", "UPDATE t SET v = 'touched' WHERE id = 7", "UPDATE t SET id = 5000 WHERE id = 8",
                   "DELETE FROM t WHERE id = 9", "INSERT INTO t VALUES (6000, 'new')",
                   "UPDATE pair SET v = 'touched' WHERE a < 10", "UPDATE pair SET b = b || '-moved' WHERE a = 50",
                   "INSERT INTO keyless VALUES ('one more')", "TRUNCATE emptied", "INSERT INTO emptied VALUES (1), (2)")
    answer = slow.release()
    assert answer.code == walferry.OK, answer
    report = answer.json()
    tables = {table["name"]: table for table in report["tables"]}
    # Row 7, 8 and 5000, 9, 6000; nine pairs, and one before and after; the other two are compared whole.
    assert report["touched_rows"] == 16, report
    assert all(table["equal"] for table in tables.values()), report
    assert "5 rows touched since were compared again" in tables["public.t"]["note"], tables["public.t"]
    assert tables["public.keyless"]["rows_source"] == 51 and tables["public.emptied"]["rows_target"] == 2, tables
    assert_equal(source, "touched", target, "touched")


def test_a_difference_in_a_touched_row_rolls_back(migrations):
    migration = following(migrations, "found_late")
    source, target = migration.source, migration.target
    for table, touch, plant, mend in (
            ("t", "UPDATE t SET v = 'touched' WHERE id = 7", "UPDATE t SET v = 'planted' WHERE id = 7",
             "UPDATE t SET v = 'touched' WHERE id = 7"),
            ("t", "UPDATE t SET id = 5000 WHERE id = 8", "INSERT INTO t VALUES (8, 'v8')", "DELETE FROM t WHERE id = 8"),
            ("pair", "UPDATE pair SET v = 'touched' WHERE a = 3", "DELETE FROM pair WHERE a = 3",
             "INSERT INTO pair VALUES (3, 'k\"\\,{}''3', 'touched')"),
            ("keyless", "INSERT INTO keyless VALUES ('one more')", "INSERT INTO keyless VALUES ('planted')",
             "DELETE FROM keyless WHERE v = 'planted'"),
            ("emptied", "TRUNCATE emptied", "INSERT INTO emptied VALUES (1)", "DELETE FROM emptied")):
        slow = SlowCutover(migration, "t").await_comparison()
        source.execute("found_late", touch)
        migration.await_applied()
        target.execute("found_late", plant)
        answer = slow.release()
        assert answer.code == walferry.DIFFERENT, (touch, answer)
        report = answer.json()
        assert report["result"] == "rolled-back" and f"public.{table}" in report["error"], (touch, report)
        assert report["writes_stopped_ms"] > 0, report
        target.execute("found_late", mend)
        migration.daemon.await_phase("follow")
    migration.switch()
    assert_equal(*migration.ends)


def test_a_table_truncated_after_the_snapshot_is_no_difference(migrations):
    """A snapshot sees what was truncated after it as empty: on the source already, on the target not yet."""
    migration = migrations("truncated")
    source, target, daemon = migration.source, migration.target, migration.daemon
    migration.load(sql=TABLES + LARGE)
    daemon.start("--jobs", "1")  # the largest table is read first, and alone
    daemon.await_phase("follow")
    process = subprocess.Popen(
        [walferry.binary(), "cutover", "--state-dir", str(daemon.state_dir), "--timeout", "60s", "--json"],
        env=walferry.environment(), text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL)
    wait_until(lambda: source.scalar("truncated", READS.format("first")), 60, "the first table to be read", 0.005)
    with target.connect("truncated", autocommit=False) as hold:
        hold.cursor().execute("LOCK TABLE pair IN SHARE MODE")  # the apply waits, who reads does not
        source.execute("truncated", "UPDATE pair SET v = 'first'", "TRUNCATE emptied", "INSERT INTO emptied VALUES (1)")
        wait_until(lambda: "rows touched since" in daemon.log.read_text(), 60, "the end of the first comparison")
        hold.rollback()
    out, err = process.communicate(timeout=120)
    assert process.returncode == walferry.OK, (out, err)
    assert "cutover: not equal yet" in daemon.log.read_text(), "the table was not truncated in time"
    assert_equal(*migration.ends)


def test_the_comparison_holds_no_lock_on_what_it_has_read(migrations):
    """An application's TRUNCATE or ALTER would wait for it, and everybody behind that."""
    migration = migrations("lock_free")
    source = migration.source
    migration.load(sql=LARGE)
    migration.daemon.start()
    migration.daemon.await_phase("follow")
    reads_second = READS.format("second")
    with source.connect("lock_free") as connection, connection.cursor() as cursor:
        cursor.execute("SET lock_timeout = '100ms'")
        for _ in range(20):
            process = subprocess.Popen(
                [walferry.binary(), "verify", "--source", migration.daemon.source, "--target", migration.daemon.target,
                 "--jobs", "1"], env=walferry.environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                stdin=subprocess.DEVNULL)
            wait_until(lambda process=process: process.poll() is not None
                       or source.scalar("lock_free", reads_second), 60, "the second table to be read", 0.005)
            cursor.execute("BEGIN; LOCK TABLE first IN ACCESS EXCLUSIVE MODE; ROLLBACK")
            in_time = source.scalar("lock_free", reads_second)
            err = process.communicate(timeout=120)[1]
            assert process.returncode == walferry.OK, err
            if in_time:
                return
    raise AssertionError("the second table was never seen being read")


def test_the_comparison_waits_for_no_table_while_it_holds_another(migrations):
    """Or an application that truncates several tables would deadlock with it, and be the one that is ended."""
    migration = migrations("deadlock_free")
    source = migration.source
    migration.load(sql=TABLES + LARGE)
    migration.daemon.start()
    migration.daemon.await_phase("follow")
    process = subprocess.Popen(
        [walferry.binary(), "verify", "--source", migration.daemon.source, "--target", migration.daemon.target,
         "--jobs", "1"], env=walferry.environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL)
    with source.connect("deadlock_free", autocommit=False) as connection, connection.cursor() as cursor:
        wait_until(lambda: source.scalar("deadlock_free", READS.format("first")), 60, "the catalogs to be read", 0.005)
        cursor.execute("LOCK TABLE keyless IN ACCESS EXCLUSIVE MODE")
        wait_until(lambda: source.scalar("deadlock_free", "SELECT count(*) FROM pg_locks WHERE NOT granted AND"
                                         " relation = 'keyless'::regclass AND mode = 'AccessShareLock'"),
                   60, "the comparison to wait for the locked table", 0.005)
        cursor.execute("LOCK TABLE t, pair, emptied, first, second IN ACCESS EXCLUSIVE MODE NOWAIT")
        connection.rollback()
    err = process.communicate(timeout=120)[1]
    assert process.returncode == walferry.OK, err
