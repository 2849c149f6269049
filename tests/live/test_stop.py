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


def stop_at(migration, side: str, session: bytes, statement: bytes, *options: str) -> None:
    """The lock comes between everything that this session has said before and the statement, which waits for it."""
    daemon, server = migration.daemon, getattr(migration, side)
    direct = getattr(daemon, side)
    with HeldCommit(server, session, lambda data: statement in data) as held:
        setattr(daemon, side, held.dsn(migration.database))
        daemon.start(*options)
        held.await_held()
        with locked(server, migration.database):
            held.release()
            expect_stop(migration, server)
    setattr(daemon, side, direct)
    go_on(migration, *options)


def test_at_the_first_look_at_the_tables_to_be_copied(migrations):
    """The slot has been made, and the lock comes before the sizes of the tables are asked for."""
    migration = migrations("stop_copy")
    migration.load(sql=TABLE)
    migration.target.psql(migration.database, sql=TABLE.partition(";")[0])
    stop_at(migration, "source", b"walferry snapshot", b"pg_export_snapshot", "--no-schema")


@pytest.mark.tsan
@pytest.mark.parametrize("side, session, statement", [("source", b"walferry copy", b"TO STDOUT"),
                                                      ("target", b"walferry build", b"PRIMARY KEY")],
                         ids=["rows are copied", "an index is built"])
def test_while(migrations, side, session, statement):
    migration = migrations("stop_while")
    migration.load(sql=TABLE)
    stop_at(migration, side, session, statement)


@contextlib.contextmanager
def copy_held(migration, table: str, *options: str):
    """A daemon that was begun, and is held right before it reads the rows of this table."""
    is_copy = lambda data: f'"{table}"'.encode() in data and b"TO STDOUT" in data  # noqa: E731
    with HeldCommit(migration.source, b"walferry copy", is_copy) as held:
        direct, migration.daemon.source = migration.daemon.source, held.dsn(migration.database)
        migration.daemon.start(*options)
        migration.daemon.source = direct
        held.await_held()
        yield held


def test_a_table_that_goes_before_its_rows_were_copied_is_left_behind(migrations):
    """Its changes are in the stream, and its rows nowhere."""
    migration = migrations("gone_early")
    migration.load(sql=TABLE + """
        CREATE TABLE first (id int PRIMARY KEY, v text); INSERT INTO first SELECT g, 'v' FROM generate_series(1, 1000) g;
        CREATE TABLE jobs (id int PRIMARY KEY, v text); INSERT INTO jobs VALUES (1, 'v'); CREATE INDEX ON jobs (v);""")
    with copy_held(migration, "jobs", "--jobs", "1", "--on-ddl", "apply") as held:
        migration.source.execute(migration.database, "UPDATE jobs SET v = 'w'", "UPDATE t SET v = 'w' WHERE id = 1",
                                 "DROP TABLE jobs", "CREATE TABLE joined (id int PRIMARY KEY)",
                                 "INSERT INTO joined VALUES (1)")
        held.release()
        migration.daemon.await_exit()
    go_on(migration, "--on-ddl", "apply")
    assert migration.target.scalar(migration.database, "SELECT count(*) FROM joined") == 1


def test_a_table_that_is_replaced_before_its_rows_were_copied_has_the_rows_of_the_new_one(migrations):
    """The name is the same, and the old one's changes up to the next snapshot do not count; the new one's all do."""
    migration = migrations("replaced")
    migration.load(sql=TABLE + """
        CREATE TABLE first (id int PRIMARY KEY, v text); INSERT INTO first SELECT g, 'v' FROM generate_series(1, 1000) g;
        CREATE TABLE wide (id int PRIMARY KEY, v text); INSERT INTO wide VALUES (1, 'old'), (2, 'old');""")
    with copy_held(migration, "wide", "--jobs", "1", "--on-ddl", "apply") as held:
        migration.source.execute(migration.database, "UPDATE wide SET v = 'older' WHERE id = 1", "DROP TABLE wide",
                                 "CREATE TABLE wide (id int PRIMARY KEY, v text)", "INSERT INTO wide VALUES (3, 'new')")
        held.release()
        with contextlib.suppress(walferry.WalferryError):
            migration.daemon.await_phase("follow", 60)
    migration.daemon.terminate() if migration.daemon.alive() else None
    go_on(migration, "--on-ddl", "apply")
    assert migration.target.query(migration.database, "SELECT * FROM wide") == [(3, "new")]


def test_a_table_whose_name_went_to_another_before_its_rows_were_copied(migrations):
    """What was read under the name is not what the snapshot has under it."""
    migration = migrations("swapped")
    migration.load(sql=TABLE + "CREATE TABLE u (id int PRIMARY KEY, v text); INSERT INTO u VALUES (1, 'of u')")
    with copy_held(migration, "t", "--jobs", "1", "--on-ddl", "warn") as held:
        migration.source.execute(migration.database, "ALTER TABLE t RENAME TO x", "ALTER TABLE u RENAME TO t",
                                 "ALTER TABLE x RENAME TO u")
        held.release()
        migration.daemon.await_phase("follow", 60)
        assert "copied again under a new one: public.t" in migration.daemon.log_tail(200)
        migration.source.execute(migration.database, "UPDATE u SET v = 'was t' WHERE id = 1", "UPDATE t SET v = 'was u'")
        migration.await_applied()
        assert data_differences(*migration.ends) == []


def test_on_the_target(migrations):
    migration = migrations("stop_target")
    migration.load(sql=TABLE)
    migration.target.psql(migration.database, sql=TABLE.partition(";")[0])
    with locked(migration.target, migration.database):
        migration.daemon.start("--no-schema")
        expect_stop(migration, migration.target)
    go_on(migration, "--no-schema")


def test_while_a_schema_change_is_made_on_the_target(migrations):
    """The apply is given ten seconds for it."""
    migration = migrations("stop_change").follow(TABLE, "--on-ddl", "apply")
    with locked(migration.target, migration.database):
        migration.source.execute(migration.database, "ALTER TABLE t ADD COLUMN w int")
        expect_stop(migration, migration.target)
    go_on(migration, "--on-ddl", "apply")


def test_a_failure_is_told_though_it_ends_a_wait_elsewhere(migrations):
    """The stream's end for good, while the start waits for a lock."""
    migration = migrations("stop_failure").follow(TABLE)
    source, database, _, _ = migration.ends
    assert migration.daemon.terminate() == walferry.OK
    source.execute(database, f"DROP PUBLICATION walferry_{database}", "INSERT INTO t VALUES (101, 'of no publication')")
    with locked(source, database):
        migration.daemon.start()
        assert migration.daemon.await_exit(60) == walferry.SOURCE_FAILED, migration.report()
    assert "publication" in migration.daemon.status()["last_error"]["text"]


@pytest.mark.tsan
def test_when_it_is_started_again(migrations):
    """What is told of the source's tables waits for the lock, and the apply does not."""
    migration = migrations("stop_again").follow(TABLE + "CREATE TABLE other (id int PRIMARY KEY);")
    assert migration.daemon.terminate() == walferry.OK
    migration.source.execute(migration.database, "INSERT INTO t VALUES (101, 'meanwhile')", "INSERT INTO other VALUES (1)")
    with locked(migration.source, migration.database):
        migration.daemon.start()
        migration.await_applied()
        expect_stop(migration, migration.source)
    go_on(migration)
