"""SIGTERM while the program waits for a lock that somebody holds on one of the ends: it ends, and so does what it began
on the server; and the next run goes on from there."""

from __future__ import annotations

import contextlib

import pytest

import walferry
from compare import data_differences
from held_commit import HeldCommit
from servers import Server, wait_until

pytestmark = pytest.mark.limit(180)

TABLE = "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT g, 'v' FROM generate_series(1, 100) g;"
WAITING = ("SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'walferry%%' AND wait_event_type = 'Lock'"
           " AND datname = %s")


@contextlib.contextmanager
def locked(server: Server, database: str):
    """The table, exclusively; what looks at its size, its rows or its columns waits."""
    with server.connect(database, autocommit=False) as holder:
        holder.cursor().execute("LOCK TABLE t IN ACCESS EXCLUSIVE MODE")
        yield


def expect_stop(migration, server: Server) -> None:
    """While the lock is there."""
    wait_until(lambda: server.scalar("postgres", WAITING, (migration.database,)) > 0, 60, "a session that waits for the lock")
    assert migration.daemon.terminate() == walferry.OK, migration.report()
    wait_until(lambda: server.scalar("postgres", WAITING, (migration.database,)) == 0, 30, "the server to give up the wait")


def go_on(migration, *options: str) -> None:
    migration.daemon.start(*options)
    migration.daemon.await_phase("follow", 60)
    migration.await_applied()
    migration.switch()
    assert data_differences(*migration.ends) == []


def test_before_anything_was_made(migrations):
    migration = migrations("stop_first")
    migration.load(sql=TABLE)
    with locked(migration.source, migration.database):
        migration.daemon.start()
        expect_stop(migration, migration.source)
    go_on(migration)


def test_at_the_first_look_at_the_tables_to_be_copied(migrations):
    """The slot has been made, and the lock comes before the sizes of the tables are asked for."""
    migration = migrations("stop_copy")
    source, database, target, _ = migration.ends
    direct = migration.daemon.source
    migration.load(sql=TABLE)
    target.psql(database, sql=TABLE.partition(";")[0])
    with HeldCommit(source, b"walferry snapshot", lambda data: b"pg_export_snapshot" in data) as held:
        migration.daemon.source = held.dsn(database)
        migration.daemon.start("--no-schema")
        held.await_held()
        with locked(source, database):
            held.release()
            expect_stop(migration, source)
    migration.daemon.source = direct
    go_on(migration, "--no-schema")


def test_on_the_target(migrations):
    migration = migrations("stop_target")
    migration.load(sql=TABLE)
    migration.target.psql(migration.database, sql=TABLE.partition(";")[0])
    with locked(migration.target, migration.database):
        migration.daemon.start("--no-schema")
        expect_stop(migration, migration.target)
    go_on(migration, "--no-schema")


def test_when_it_is_started_again(migrations):
    migration = migrations("stop_again").follow(TABLE)
    assert migration.daemon.terminate() == walferry.OK
    migration.source.execute(migration.database, "INSERT INTO t VALUES (101, 'meanwhile')")
    with locked(migration.source, migration.database):
        migration.daemon.start()
        expect_stop(migration, migration.source)
    go_on(migration)
