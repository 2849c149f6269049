"""Where the target stands is said by what it holds, whatever becomes of a commit, and by a table that stays small."""

import threading

import pytest

from compare import assert_equal, data_differences
from held_commit import HeldCommit, is_apply_commit
from servers import wait_until
from test_lanes import Committing, Lanes

pytestmark = pytest.mark.limit(300)


def end_behind_the_position(server, database: str, session: str) -> None:
    """The session has moved the position, and ends before it can commit."""
    state = ("SELECT pid FROM pg_stat_activity WHERE datname = %s AND starts_with(application_name, %s)"
             " AND state = 'active' AND wait_event = 'ClientRead' AND query ~ 'progress_'")
    found = wait_until(lambda: server.query("postgres", state, (database, f"walferry {session} ")), 30,
                       f"the position to be moved by {session}")
    server.query("postgres", "SELECT pg_terminate_backend(%s)", found[0])
    wait_until(lambda: not server.query("postgres", "SELECT 1 FROM pg_stat_activity WHERE pid = %s", found[0]), 30,
               "the backend to be gone")


def test_a_commit_that_fails_moves_nothing(migrations):
    """From PostgreSQL 16 on a replication origin would be moved by the transaction that is rolled back."""
    migration = migrations("position").follow("CREATE TABLE public.t (id int PRIMARY KEY, n int)")
    source, database, target, copy = migration.ends
    migration.daemon.terminate()
    direct = migration.daemon.target
    with HeldCommit(target, b"application_name\0walferry apply ", is_apply_commit) as held:
        migration.daemon.target = held.dsn(copy)
        migration.daemon.start()
        migration.daemon.await_phase("follow", 60)
        source.execute(database, "INSERT INTO public.t VALUES (1, 1)")
        held.await_held()
        end_behind_the_position(target, copy, "apply")
        source.execute(database, "INSERT INTO public.t VALUES (2, 1)")
        migration.await_applied(60)
        assert data_differences(*migration.ends, sequences=False) == []
        migration.switch()
    migration.daemon.target = direct
    assert_equal(*migration.ends)


@pytest.mark.parametrize("session", ["early", "ahead"])
def test_a_transaction_written_early_whose_commit_fails_moves_nothing(migrations, session):
    with Committing(migrations, f"position_{session}", session.encode() + b" ") as lanes:
        end_behind_the_position(lanes.target, lanes.copy, session)
        lanes.go_on()
        lanes.expect_once()


def test_a_lane_whose_commit_fails_moves_nothing(migrations):
    lanes = Lanes(migrations, "position_lane")
    lanes.source.execute(lanes.database, "INSERT INTO public.t (id, payload) SELECT g, repeat('z', 200) FROM"
                         " generate_series(10001, 20000) g")
    lanes.await_backlog()
    direct = lanes.daemon.target
    with HeldCommit(lanes.target, b"application_name\0walferry lane ", is_apply_commit) as held:
        lanes.daemon.target = held.dsn(lanes.copy)
        lanes.daemon.start("--apply-lanes", "3")
        held.await_held()
        end_behind_the_position(lanes.target, lanes.copy, "lane")
        lanes.source.execute(lanes.database, "UPDATE public.t SET n = n + 1 WHERE id > 11000")
        lanes.expect_equal()
        lanes.switch()
    lanes.daemon.target = direct


def test_the_table_that_keeps_the_position_stays_small_and_waits_for_nobody(migrations):
    """While a backup of the target reads it, it grows; then it makes room."""
    migration = migrations("position_rows").follow(
        "CREATE TABLE public.t (id int PRIMARY KEY, n int); INSERT INTO public.t VALUES (1, 0)")
    source, database, target, copy = migration.ends
    table = f"walferry.progress_walferry_{database}"

    def rows() -> int:
        return target.scalar(copy, f"SELECT count(*) FROM {table}")

    def write_until(condition, what: str) -> None:
        """One commit at a time, so that none is gathered with others."""
        done = threading.Event()

        def write() -> None:
            with source.connect(database) as connection, connection.cursor() as cursor:
                while not done.is_set():
                    cursor.execute("UPDATE public.t SET n = n + 1")

        writer = threading.Thread(target=write)
        writer.start()
        try:
            wait_until(condition, 120, what)
        finally:
            done.set()
            writer.join()

    with target.connect(copy, autocommit=False) as backup, backup.cursor() as cursor:
        cursor.execute(f"LOCK TABLE {table} IN ACCESS SHARE MODE")
        write_until(lambda: rows() > 24_000, "the table to grow past the point where it makes room")
        migration.await_applied(60)
    write_until(lambda: rows() < 10_000, "the table to make room")
    migration.await_applied(60)
    assert data_differences(*migration.ends, sequences=False) == []
    migration.switch()
    assert migration.daemon.finish().code == 0
    assert target.scalar(copy, "SELECT to_regnamespace('walferry') IS NULL")
