"""Ends that do not answer, or not the truth: a target that stands still, connections that died without a word, a clock
that is wrong, a server that is gone."""

from __future__ import annotations

import pytest

import preload
import walferry
from compare import assert_equal, data_differences
from migration import changed, fingerprint
from proxy import SilencedProxy
from servers import wait_until

pytestmark = pytest.mark.limit(240)

TABLE = "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT g, 'v' FROM generate_series(1, 100) g;"
WALSENDER = "SELECT pid, backend_start FROM pg_stat_replication WHERE application_name = %s"


def await_confirmed(migration) -> None:
    """Until the source need not keep anything that it has written so far."""
    written, slot = migration.source_lsn(), f"walferry_{migration.database}"
    wait_until(lambda: migration.source.scalar(
        "postgres", "SELECT confirmed_flush_lsn >= %s::pg_lsn FROM pg_replication_slots WHERE slot_name = %s",
        (written, slot)), 60, "the slot to move on")


def test_a_target_that_stands_still_costs_disk_here_and_no_wal_on_the_source(migrations):
    migration = migrations("still").follow(TABLE)
    source, database, target, _ = migration.ends
    name = f"walferry walferry_{database}"
    walsender = source.query(database, WALSENDER, (name,))
    with target.frozen():
        # A few bytes that wait in memory do not keep the slot where it is while others write elsewhere.
        source.execute(database, "INSERT INTO t VALUES (998, 'waits')")
        migration.await_received()
        source.execute("postgres", "CREATE TABLE elsewhere AS SELECT generate_series(1, 10000)", "DROP TABLE elsewhere")
        await_confirmed(migration)
        # More than is kept in memory.
        source.execute(database, "INSERT INTO t SELECT g, repeat(md5(g::text), 100) FROM generate_series(1001, 31000) g",
                       *["UPDATE t SET v = v || 'x' WHERE id > 1000" for _ in range(2)], "INSERT INTO t VALUES (999, 'last')")
        written = migration.source_lsn()
        status = migration.await_received()
        assert walferry.parse_lsn(status["applied_lsn"]) < walferry.parse_lsn(written)
        await_confirmed(migration)
        # And the walsender hears of us all the time, or it would end the connection after wal_sender_timeout.
        since = source.scalar(database, "SELECT clock_timestamp()")
        wait_until(lambda: source.scalar(database, "SELECT reply_time > %s::timestamptz + interval '4 s' FROM"
                                                   " pg_stat_replication WHERE application_name = %s", (since, name)),
                   30, "replies to the walsender")
        assert migration.daemon.status()["lag_seconds"] > 3
    migration.await_applied(120)
    assert source.query(database, WALSENDER, (name,)) == walsender
    migration.switch()
    assert_equal(*migration.ends)


def test_connections_to_the_source_that_died_without_a_word_are_made_anew(migrations):
    """The kernel keeps such a connection alive here, so only walferry's own limit of 60 s finds it."""
    migration = migrations("forgotten")
    source, database, target, _ = migration.ends
    migration.load(sql=TABLE)
    with SilencedProxy(source) as proxy:
        migration.daemon.source = proxy.dsn(database)
        migration.daemon.start()
        migration.daemon.await_phase("follow", 60)
        migration.await_applied()
        proxy.silence()
        source.execute(database, "INSERT INTO t VALUES (1000, 'unheard')")
        told = migration.daemon.await_status(lambda status: "nothing was heard" in (status["last_error"] or {}).get("text", ""),
                                             90, "the silence to be told")
        assert told["phase"] == "follow" and not told["apply_stopped"], told
        migration.await_applied()
        assert target.scalar(database, "SELECT v FROM t WHERE id = 1000") == "unheard"
        # What is asked of the source beside the stream goes on as well.
        source.execute(database, "INSERT INTO t VALUES (1001, 'heard')")
        written = walferry.parse_lsn(migration.source_lsn())
        migration.daemon.await_status(lambda status: walferry.parse_lsn(status["slot"]["confirmed_flush_lsn"]) >= written,
                                      90, "the slot's position in the status")
        migration.switch()
        assert_equal(*migration.ends)


@pytest.mark.parametrize("shift", [-3600, 3600], ids=["behind", "ahead"])
def test_lag_is_told_by_the_sources_clock(migrations, server_made, folder, shift):
    clock = preload.build("shifted_clock.c", folder) | {"CLOCK_SHIFT_SECONDS": str(shift)}
    source = server_made("source", environment=clock)
    migration = migrations("clock", source=source)
    database, target = migration.database, migration.target
    apart = source.scalar("postgres", "SELECT clock_timestamp()") - target.scalar("postgres", "SELECT clock_timestamp()")
    assert abs(apart.total_seconds() - shift) < 60, "the source has the right clock: nothing is shown"
    migration.follow(TABLE)
    for value in range(5):
        source.execute(database, f"INSERT INTO t VALUES ({1000 + value}, 'v')")
        assert migration.await_applied()["lag_seconds"] < 60
    with target.frozen():
        source.execute(database, "INSERT INTO t VALUES (2000, 'waits')")
        status = migration.daemon.await_status(lambda status: status["lag_seconds"] > 2, 60, "lag")
        assert status["lag_seconds"] < 60
    migration.await_applied()
    migration.switch("--max-lag", "5s")
    assert_equal(*migration.ends)


def test_abort_without_the_target_leaves_the_source_as_it_was_found(migrations, server_made):
    target = server_made("target")
    migration = migrations("no_target", target=target)
    migration.load(sql=TABLE)
    before = fingerprint(migration.source, "no_target")
    migration.daemon.start()
    migration.daemon.await_phase("follow")
    migration.daemon.terminate()
    target.stop("immediate")
    answer = migration.daemon.abort()
    assert answer.code == walferry.TARGET_FAILED and "target: not cleaned" in answer.out + answer.err, answer
    assert changed(before, fingerprint(migration.source, "no_target")) == []
    target.start()
    assert migration.daemon.abort().code == walferry.OK
    assert target.query("no_target", "SELECT FROM pg_namespace WHERE nspname = 'walferry'") == []


def test_abort_without_the_source_cleans_the_target_and_the_source_later(migrations, server_made):
    source = server_made("source")
    migration = migrations("no_source", source=source)
    database, target = migration.database, migration.target
    migration.load(sql=TABLE + "CREATE TABLE always (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY);")
    before = fingerprint(source, database)
    migration.daemon.start()
    migration.daemon.await_phase("follow")
    migration.daemon.terminate()
    source.stop("immediate")
    answer = migration.daemon.abort()
    assert answer.code == walferry.SOURCE_FAILED and "source: not cleaned" in answer.out + answer.err, answer
    assert "stay as the stream needed them" in answer.out + answer.err, answer
    assert target.query(database, "SELECT FROM pg_namespace WHERE nspname = 'walferry'") == []
    source.start()
    again = migration.daemon.abort()
    assert again.code == walferry.OK, again
    assert changed(before, fingerprint(source, database)) == []
    assert target.scalar(database, "SELECT attidentity FROM pg_attribute WHERE attrelid = 'always'::regclass AND"
                                   " attname = 'id'") == "a"


def test_finish_without_the_source_cleans_the_target(migrations, server_made):
    source = server_made("source")
    migration = migrations("old_is_gone", source=source)
    migration.follow(TABLE)
    migration.switch()
    source.stop("immediate")
    answer = migration.daemon.finish()
    assert answer.code == walferry.SOURCE_FAILED and "source: not cleaned" in answer.out + answer.err, answer
    target = migration.target
    assert target.query("old_is_gone", "SELECT FROM pg_namespace WHERE nspname = 'walferry'") == []
    source.start()
    assert migration.daemon.finish().code == walferry.OK
    assert data_differences(*migration.ends) == []
