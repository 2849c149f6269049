"""A streamed transaction is written to the target while it is in progress: it becomes visible at its commit alone, stands
in nobody's way, and at the first sign of trouble it is applied at its commit as if nothing had been tried."""

import contextlib

import pytest

import walferry
from compare import data_differences
from servers import wait_until
from slow_cutover import SlowCutover

pytestmark = pytest.mark.limit(240)

SCHEMA = """
    CREATE TABLE public.t (id bigint PRIMARY KEY, n int NOT NULL DEFAULT 0, payload text);
    CREATE TABLE public.small (id int PRIMARY KEY, n int NOT NULL);
    CREATE TABLE public.slots (id int PRIMARY KEY, place int UNIQUE);
    CREATE TABLE public.lists (id int PRIMARY KEY, place int, UNIQUE (place) DEFERRABLE);
    CREATE TABLE public.amounts (id int PRIMARY KEY, amount numeric(10, 2));
    INSERT INTO public.t (id, payload) SELECT g, 'old' FROM generate_series(1, 2000) g;
    INSERT INTO public.small SELECT g, 0 FROM generate_series(1, 10) g;
    INSERT INTO public.slots SELECT g, g FROM generate_series(1, 10) g;
    INSERT INTO public.lists SELECT g, g FROM generate_series(1, 10) g;
"""
ROWS = 20_000  # about 3 MB, streamed long before its commit
LARGE = f"INSERT INTO public.t (id, payload) SELECT g, repeat(md5(g::text), 4) FROM generate_series(10001, {10000 + ROWS}) g"


class Early:
    def __init__(self, migrations, name: str, *run_options: str):
        self.migration = migrations(name)
        self.source, self.database, self.target, self.copy = self.migration.ends
        self.migration.load(sql=SCHEMA)
        # So that a transaction is streamed when it is a few hundred kilobytes large.
        self.source.execute("postgres", f"ALTER DATABASE {self.database} SET logical_decoding_work_mem = '64kB'")
        self.daemon = self.migration.daemon
        self.daemon.start(*run_options)
        self.daemon.await_phase("follow", 120)

    @contextlib.contextmanager
    def transaction(self):
        """One on the source that neither commits nor rolls back by itself."""
        with self.source.connect(self.database, autocommit=False) as connection, connection.cursor() as cursor:
            yield connection, cursor

    def commit(self, *statements: str) -> None:
        self.source.execute(self.database, *statements)

    def writing(self) -> bool:
        """Whether a transaction that is not committed on the source holds rows on the target."""
        return self.target.scalar("postgres", "SELECT count(*) FROM pg_stat_activity WHERE datname = %s AND"
                                              " application_name LIKE 'walferry early %%' AND backend_xid IS NOT NULL",
                                  (self.copy,)) > 0

    def await_writing(self, wanted: bool = True) -> None:
        wait_until(lambda: self.writing() == wanted, 60, "rows written early" if wanted else "early rows rolled back")

    def early_transactions(self) -> int:
        return self.daemon.status()["apply"]["early_transactions"]

    def expect_equal(self) -> None:
        self.migration.await_applied(60)
        assert data_differences(*self.migration.ends, sequences=False) == []


@pytest.mark.tsan
def test_it_is_written_early_and_seen_at_its_commit(migrations):
    early = Early(migrations, "early")
    with early.transaction() as (connection, cursor):
        cursor.execute(LARGE)
        cursor.execute("UPDATE public.t SET n = 1, payload = 'new' WHERE id <= 1000")
        cursor.execute(LARGE.replace("10001", "50001").replace(str(10000 + ROWS), str(50000 + ROWS)))
        early.await_writing()
        # Others commit meanwhile, before and behind it, and are not held up.
        for n in range(20):
            early.commit(f"UPDATE public.small SET n = {n} WHERE id = {n % 10 + 1}")
        early.migration.await_applied(30)
        assert early.writing()
        assert early.target.scalar(early.copy, "SELECT count(*) FROM public.t") == 2000
        cursor.execute("DELETE FROM public.t WHERE id BETWEEN 500 AND 600")
        connection.commit()
    early.expect_equal()
    assert early.early_transactions() == 1
    # Kept for the next one.
    with early.transaction() as (connection, cursor):
        cursor.execute("UPDATE public.t SET n = n + 1")
        early.await_writing()
        connection.commit()
    early.expect_equal()
    assert early.early_transactions() == 2


def test_what_has_arrived_does_not_wait_for_more(migrations):
    """Less than is gathered before it is written goes to the target too when nothing follows it."""
    early = Early(migrations, "early_rest")
    with early.transaction() as (connection, cursor):
        cursor.execute(LARGE.replace(str(10000 + ROWS), "12000"))
        early.await_writing()
        connection.commit()
    early.expect_equal()
    assert early.early_transactions() == 1


def test_it_is_rolled_back_with_the_source(migrations):
    early = Early(migrations, "early_undone")
    with early.transaction() as (connection, cursor):
        cursor.execute("UPDATE public.t SET n = -1, payload = repeat('x', 400)")
        cursor.execute(LARGE)
        early.await_writing()
        connection.rollback()
    # The same rows, by others, at once.
    early.commit("UPDATE public.t SET n = 7", "DELETE FROM public.t WHERE id = 1")
    early.expect_equal()
    assert early.early_transactions() == 0 and not early.writing()


def test_a_savepoint_rolled_back_frees_its_rows_for_others(migrations):
    early = Early(migrations, "early_part")
    with early.transaction() as (connection, cursor):
        cursor.execute("UPDATE public.t SET n = 1 WHERE id BETWEEN 1 AND 1000")
        cursor.execute("SAVEPOINT s")
        cursor.execute("UPDATE public.t SET n = -1, payload = repeat('x', 900) WHERE id BETWEEN 1001 AND 2000")
        cursor.execute(LARGE)
        early.await_writing()
        cursor.execute("ROLLBACK TO SAVEPOINT s")
        # Committed before the large one, on rows that it had changed.
        early.commit("UPDATE public.t SET n = 5 WHERE id BETWEEN 1001 AND 1500", "INSERT INTO public.t VALUES (10001)")
        early.migration.await_applied(60)
        assert early.target.scalar(early.copy, "SELECT count(*) FROM public.t WHERE n = 5") == 500
        cursor.execute("UPDATE public.t SET n = 2 WHERE id <= 500")
        connection.commit()
    early.expect_equal()
    assert early.early_transactions() == 0


def test_what_cannot_be_written_early_is_applied_at_its_commit(migrations):
    early = Early(migrations, "early_refused")
    # Unique values change places: as a set they collide.
    with early.transaction() as (connection, cursor):
        cursor.execute("UPDATE public.slots SET place = place + 100 WHERE id <= 5")
        cursor.execute("UPDATE public.slots SET place = place - 5 WHERE id > 5")
        cursor.execute("UPDATE public.slots SET place = place - 95 WHERE id <= 5")
        cursor.execute(LARGE)
        connection.commit()
    early.expect_equal()
    # A deferrable constraint: what stands together decides.
    with early.transaction() as (connection, cursor):
        cursor.execute("SET CONSTRAINTS ALL DEFERRED")
        cursor.execute(LARGE.replace("10001", "50001").replace(str(10000 + ROWS), str(50000 + ROWS)))
        cursor.execute("UPDATE public.lists SET place = 11 - place")
        connection.commit()
    early.expect_equal()
    # A schema change inside: the policy's business, which must not wait for rows that are held early.
    early.target.execute(early.copy, "ALTER TABLE public.t ADD COLUMN added int")
    with early.transaction() as (connection, cursor):
        cursor.execute("UPDATE public.t SET n = n + 1")
        early.await_writing()
        cursor.execute("ALTER TABLE public.t ADD COLUMN added int")
        cursor.execute("UPDATE public.t SET added = n")
        connection.commit()
    early.expect_equal()


def test_a_type_that_changed_stops_a_transaction_that_is_streamed(migrations):
    """Nobody tells of the change but the description of the relation, which the small transactions had another one of."""
    early = Early(migrations, "early_type", "--no-ddl-trigger")
    early.commit("INSERT INTO public.amounts SELECT g, g FROM generate_series(1, 3) g")
    early.migration.await_applied()
    early.commit("ALTER TABLE public.amounts ALTER COLUMN amount TYPE numeric(12, 4)")
    with early.transaction() as (connection, cursor):
        cursor.execute("INSERT INTO public.amounts SELECT g, 0.0001 * g FROM generate_series(10, 30000) g")
        cursor.execute("UPDATE public.t SET n = 1")
        connection.commit()
    status = early.daemon.await_status(lambda status: status["apply_stopped"] and status["last_error"], 60, "the stop")
    assert "another type on the source" in status["last_error"]["text"], status["last_error"]
    assert early.target.scalar(early.copy, "SELECT count(*) FROM public.amounts") == 3
    early.target.execute(early.copy, "ALTER TABLE public.amounts ALTER COLUMN amount TYPE numeric(12, 4)")
    early.expect_equal()


def test_a_lock_that_only_the_target_knows_holds_nobody_up(migrations):
    early = Early(migrations, "early_lock")
    # On the target alone the large transaction's rows and another's meet in one unique index.
    early.target.execute(early.copy, "CREATE UNIQUE INDEX ON public.t ((id % 1000000)) WHERE id > 9000")
    with early.transaction() as (connection, cursor):
        cursor.execute(LARGE)
        early.await_writing()
        early.commit("INSERT INTO public.t VALUES (1010001, 3)")
        early.await_writing(False)
        early.target.execute(early.copy, "DROP INDEX public.t_expr_idx")
        early.migration.await_applied(60)
        connection.commit()
    early.expect_equal()


@pytest.mark.tsan
def test_a_kill_in_the_middle_leaves_nothing_and_loses_nothing(migrations):
    early = Early(migrations, "early_kill")
    with early.transaction() as (connection, cursor):
        cursor.execute(LARGE)
        early.await_writing()
        early.daemon.kill()
        early.await_writing(False)
        early.commit("UPDATE public.small SET n = 9")
        early.daemon.start()
        early.await_writing()
        # The source's connection breaks: all of it comes again.
        early.source.execute("postgres", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type ="
                                         " 'walsender'")
        cursor.execute("UPDATE public.t SET n = 3")
        connection.commit()
    early.expect_equal()


def test_the_proof_compares_what_was_written_early(migrations):
    early = Early(migrations, "early_proof")
    cutover = SlowCutover(early.migration, "public.small").await_comparison()
    with early.transaction() as (connection, cursor):
        cursor.execute(LARGE)
        early.await_writing()
        connection.commit()
    early.migration.await_applied(60)
    assert early.early_transactions() == 1
    early.target.execute(early.copy, "UPDATE public.t SET n = 13 WHERE id = 10001")
    answer = cutover.release()
    assert answer.code == walferry.DIFFERENT, answer
    assert "public.t" in answer.json()["error"]
    early.target.execute(early.copy, "UPDATE public.t SET n = 0 WHERE id = 10001")
    # One that was begun early before the record of changes was, and ends while it is kept.
    with early.transaction() as (connection, cursor):
        cursor.execute("UPDATE public.t SET n = n + 1")
        early.await_writing()
        cutover = SlowCutover(early.migration, "public.small")
        early.await_writing(False)
        connection.commit()
    cutover.await_comparison()
    answer = cutover.release()
    assert answer.code == walferry.OK, answer
    assert data_differences(*early.migration.ends) == []
