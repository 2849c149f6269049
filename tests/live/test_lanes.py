"""Several lanes write a backlog together (`run --apply-lanes`): every row goes in once, whatever dies in between."""

import os
import random
import time

import pytest

from compare import assert_equal, data_differences
from held_commit import HeldCommit, is_apply_commit
from servers import wait_until

pytestmark = pytest.mark.limit(300)

SCHEMA = """
    CREATE TABLE public.t (id bigint PRIMARY KEY, n int NOT NULL DEFAULT 0, payload text);
    CREATE TABLE public.pairs (a int, b text, n int NOT NULL DEFAULT 0, PRIMARY KEY (a, b));
    CREATE TABLE public.slots (id int PRIMARY KEY, place int UNIQUE);
    CREATE TABLE public.whole (id int PRIMARY KEY, n int NOT NULL DEFAULT 0);
    ALTER TABLE public.whole REPLICA IDENTITY FULL;
    CREATE TABLE public.log (at timestamptz DEFAULT now(), n int);
    ALTER TABLE public.log REPLICA IDENTITY FULL;
    INSERT INTO public.t (id, payload) SELECT g, repeat('x', g % 50) FROM generate_series(1, 3000) g;
    INSERT INTO public.pairs SELECT g, 'b' || g FROM generate_series(1, 500) g;
    INSERT INTO public.slots SELECT g, g FROM generate_series(1, 100) g;
    INSERT INTO public.whole SELECT g FROM generate_series(1, 100) g;
"""


class Lanes:
    """A migration that follows, and is then stopped so that a backlog grows."""

    def __init__(self, migrations, name: str, *options: str):
        self.migration = migrations(name, *options)
        self.source, self.database, self.target, self.copy = self.migration.ends
        self.migration.load(sql=SCHEMA)
        self.daemon = self.migration.daemon
        self.daemon.start()
        self.daemon.await_phase("follow", 120)
        self.daemon.terminate()

    def write(self, dice: random.Random, transactions: int) -> None:
        """Changes of every kind but those that no group is split with."""
        for _ in range(transactions):
            low = dice.randrange(1, 3000)
            top = self.source.scalar(self.database, "SELECT max(id) FROM public.t")
            self.source.execute(
                self.database, "BEGIN",
                f"INSERT INTO public.t (id, payload) SELECT g, 'new' FROM generate_series({top + 1}, {top + 200}) g",
                f"UPDATE public.t SET n = n + 1, payload = payload || 'y' WHERE id BETWEEN {low} AND {low + 300}",
                f"DELETE FROM public.t WHERE id % 97 = {dice.randrange(97)}",
                f"UPDATE public.pairs SET n = n + 1 WHERE a % 5 = {dice.randrange(5)}",
                f"UPDATE public.slots SET place = place + {dice.choice([1000, -1000])} WHERE id = {dice.randrange(1, 100)}",
                f"UPDATE public.whole SET n = n + 1 WHERE id = {dice.randrange(1, 100)}",
                f"INSERT INTO public.log (n) VALUES ({low})",
                "COMMIT")

    def await_backlog(self) -> None:
        """Until what was written counts as late by the source's own clock when it is sent."""
        written = self.source.scalar(self.database, "SELECT clock_timestamp()")
        wait_until(lambda: self.source.scalar(self.database, "SELECT clock_timestamp() - %s > '0.5 s'", (written,)), 10,
                   "the changes to be late")

    def switch(self) -> None:
        self.daemon.await_phase("follow", 60)
        self.migration.switch()
        assert_equal(*self.migration.ends)

    def split_transactions(self) -> int:
        return self.daemon.status()["apply"]["split_transactions"]

    def expect_equal(self) -> None:
        self.migration.await_applied(120)
        assert data_differences(*self.migration.ends, sequences=False) == []

    def positions(self) -> list[int]:
        """The lanes that have one."""
        table = f"walferry.progress_walferry_{self.database}"
        if not self.target.scalar(self.copy, "SELECT to_regclass(%s) IS NOT NULL", (table,)):
            return []
        return [lane for lane, in self.target.query(self.copy, f"SELECT DISTINCT lane FROM {table} ORDER BY 1")]


@pytest.mark.tsan
def test_a_backlog_is_written_by_all_lanes(migrations):
    lanes = Lanes(migrations, "lanes")
    lanes.write(random.Random(1), 20)
    lanes.daemon.start("--apply-lanes", "3")
    lanes.expect_equal()
    assert lanes.split_transactions() > 0
    assert lanes.positions() == [0, 1, 2]
    # Without a backlog one lane does it, and fewer or more of them go on from there.
    split = lanes.split_transactions()
    lanes.source.execute(lanes.database, "UPDATE public.t SET n = n + 1 WHERE id = 5")
    lanes.expect_equal()
    assert lanes.split_transactions() == split
    for wanted in ("1", "4", "2"):
        lanes.daemon.terminate()
        lanes.write(random.Random(2), 5)
        lanes.daemon.start("--apply-lanes", wanted)
        lanes.expect_equal()
        assert (lanes.split_transactions() > 0) == (wanted != "1")
    lanes.switch()
    assert lanes.daemon.finish().code == 0
    assert lanes.positions() == []


class Partly(Lanes):
    """Lanes 1 and 2 have committed a group, lane 0 has not: kill -9 when its COMMIT was sent and has not arrived."""

    def __init__(self, migrations, name: str):
        super().__init__(migrations, name)
        self.source.execute(
            self.database, "BEGIN",
            "INSERT INTO public.t (id, n) SELECT g, 1 FROM generate_series(10001, 12000) g",
            "DELETE FROM public.t WHERE id <= 1000",
            "UPDATE public.t SET n = n + 1 WHERE id BETWEEN 1001 AND 3000",
            "INSERT INTO public.log (n) VALUES (1)",
            "COMMIT")
        count = "SELECT count(*) FROM public.t WHERE id > 10000"
        self.await_backlog()
        direct = self.daemon.target
        with HeldCommit(self.target, b"application_name\0walferry apply ", is_apply_commit) as held:
            self.daemon.target = held.dsn(self.copy)
            self.daemon.start("--apply-lanes", "3")
            held.await_held()
            assert 0 < self.target.scalar(self.copy, count) < 2000, "a part of the group, and not lane 0's"
            self.daemon.kill()
            self.daemon.target = direct


@pytest.mark.parametrize("then", ["1", "3", "5"])
def test_a_group_that_some_lanes_have_committed_goes_in_once(migrations, then):
    lanes = Partly(migrations, "lanes_partly")
    # More behind it: it is read together with what is half there.
    lanes.source.execute(
        lanes.database, "UPDATE public.t SET n = n + 10 WHERE id % 3 = 0", "DELETE FROM public.t WHERE id = 11500",
        "INSERT INTO public.t (id, n) VALUES (1, 7)", "UPDATE public.pairs SET n = 3",
        "UPDATE public.t SET id = id + 50000 WHERE id = 2001", "TRUNCATE public.whole")
    lanes.daemon.start("--apply-lanes", then)
    lanes.expect_equal()
    assert lanes.target.scalar(lanes.copy, "SELECT count(*) FROM public.log") == 1
    lanes.switch()


class InProgress(Lanes):
    """A migration that follows with three lanes, and streams transactions soon."""

    CHANGES = ("INSERT INTO public.t (id, n, payload) SELECT g, 1, repeat('z', 100) FROM generate_series(10001, 30000) g",
               "UPDATE public.t SET n = n + 1, payload = payload || 'w' WHERE id <= 2500",
               "DELETE FROM public.t WHERE id BETWEEN 1000 AND 2000",
               "UPDATE public.pairs SET n = n + 1",
               "INSERT INTO public.log (n) VALUES (1)")

    def __init__(self, migrations, name: str):
        super().__init__(migrations, name)
        self.source.execute("postgres", f"ALTER DATABASE {self.database} SET logical_decoding_work_mem = '64kB'")

    def start(self) -> None:
        self.daemon.start("--apply-lanes", "3")
        self.daemon.await_phase("follow", 60)

    def counts(self) -> tuple[int, int]:
        """Transactions written early, and by several lanes."""
        apply = self.daemon.status()["apply"]
        return apply["early_transactions"], apply["split_transactions"]

    def writing(self) -> int:
        return self.target.scalar("postgres", "SELECT count(*) FROM pg_stat_activity WHERE datname = %s AND"
                                              " application_name ~ '^walferry (early|ahead) ' AND backend_xid IS NOT NULL",
                                  (self.copy,))


@pytest.mark.tsan
def test_a_transaction_in_progress_is_written_by_all_lanes(migrations):
    lanes = InProgress(migrations, "lanes_early")
    lanes.start()
    for _ in range(2):
        before = lanes.counts()
        with lanes.source.connect(lanes.database, autocommit=False) as connection, connection.cursor() as cursor:
            for statement in lanes.CHANGES:
                cursor.execute(statement)
            wait_until(lambda: lanes.writing() == 3, 60, "rows written early by three lanes")
            lanes.source.execute(lanes.database, "UPDATE public.whole SET n = n + 1")  # committed before it
            lanes.migration.await_applied(60)
            assert lanes.target.scalar(lanes.copy, "SELECT count(*) FROM public.t WHERE id > 10000") == 0
            connection.commit()
        lanes.expect_equal()
        assert lanes.counts() == (before[0] + 1, before[1] + 1)
        lanes.source.execute(lanes.database, "DELETE FROM public.t WHERE id > 10000")
        lanes.expect_equal()
    # A truncation comes first: one lane writes it.
    before = lanes.counts()
    with lanes.source.connect(lanes.database, autocommit=False) as connection, connection.cursor() as cursor:
        cursor.execute("TRUNCATE public.pairs")
        cursor.execute(lanes.CHANGES[0])
        wait_until(lambda: lanes.writing() == 1, 60, "rows written early by one lane")
        connection.commit()
    lanes.expect_equal()
    assert lanes.counts() == (before[0] + 1, before[1])
    # Part of it moves to keys of other lanes: it is begun again by one.
    lanes.source.execute(lanes.database, "DELETE FROM public.t WHERE id > 10000")
    lanes.expect_equal()
    before = lanes.counts()
    with lanes.source.connect(lanes.database, autocommit=False) as connection, connection.cursor() as cursor:
        cursor.execute(lanes.CHANGES[0])
        wait_until(lambda: lanes.writing() == 3, 60, "rows written early by three lanes")
        cursor.execute("UPDATE public.t SET id = id + 100000 WHERE id % 10 = 0")
        wait_until(lambda: lanes.writing() == 1, 60, "the rows to be written early by one lane")
        connection.commit()
    lanes.expect_equal()
    assert lanes.counts() == (before[0] + 1, before[1])
    lanes.switch()


@pytest.mark.parametrize("why", ["rolled back", "comes again"])
def test_a_transaction_that_is_gone_before_its_first_row_could_be_written_early(migrations, why):
    """While the connections for it are opened on the target."""
    lanes = InProgress(migrations, f"lanes_early_{why[:5]}")
    direct = lanes.daemon.target
    with HeldCommit(lanes.target, b"application_name\0walferry early ", lambda startup: True) as held:
        lanes.daemon.target = held.dsn(lanes.copy)
        lanes.start()
        with lanes.source.connect(lanes.database, autocommit=False) as connection, connection.cursor() as cursor:
            cursor.execute(lanes.CHANGES[0])
            held.await_held()
            if why == "rolled back":
                connection.rollback()
                lanes.source.execute(lanes.database, "UPDATE public.whole SET n = n + 1")
                lanes.migration.await_received()
            else:
                slot = f"walferry_{lanes.database}"
                pid = "SELECT active_pid FROM pg_replication_slots WHERE slot_name = %s"
                lanes.source.query("postgres", f"SELECT pg_terminate_backend(({pid}))", (slot,))
                wait_until(lambda: lanes.daemon.log.read_text().count("streaming from slot") == 2, 60, "the stream again")
            held.release()
            connection.commit()
        lanes.expect_equal()
        lanes.switch()
    lanes.daemon.target = direct


class Committing(InProgress):
    """A transaction written early by three lanes is being committed, and one session's COMMIT is held back."""

    def __init__(self, migrations, name: str, session: bytes, delivered: bool = False):
        super().__init__(migrations, name)
        self.held = HeldCommit(self.target, b"application_name\0walferry " + session, is_apply_commit, delivered)
        self.direct = self.daemon.target

    def __enter__(self):
        self.held.__enter__()
        self.daemon.target = self.held.dsn(self.copy)
        self.start()
        with self.source.connect(self.database, autocommit=False) as connection, connection.cursor() as cursor:
            for statement in self.CHANGES:
                cursor.execute(statement)
            wait_until(lambda: self.writing() == 3, 60, "rows written early by three lanes")
            connection.commit()
        self.held.await_held()
        return self

    def __exit__(self, *exception) -> None:
        self.held.__exit__(*exception)

    def arrived(self) -> int:
        return self.target.scalar(self.copy, "SELECT count(*) FROM public.t WHERE id > 10000")

    def go_on(self) -> None:
        self.source.execute(
            self.database, "UPDATE public.t SET n = n + 10 WHERE id % 3 = 0", "DELETE FROM public.t WHERE id = 11500",
            "UPDATE public.pairs SET n = n + 3", "UPDATE public.t SET id = id + 50000 WHERE id = 2001")

    def expect_once(self) -> None:
        self.expect_equal()
        assert self.target.scalar(self.copy, "SELECT count(*) FROM public.log") == 1
        self.switch()


@pytest.mark.parametrize("then", ["1", "3", "4"])
def test_a_transaction_written_early_that_some_lanes_have_committed_goes_in_once(migrations, then):
    """kill -9 when the COMMIT of lane 0 was sent and has not arrived."""
    with Committing(migrations, "lanes_early_partly", b"early ") as lanes:
        assert 0 < lanes.arrived() < 20000, "a part of the transaction, and not lane 0's"
        lanes.daemon.kill()
    lanes.daemon.target = lanes.direct
    lanes.go_on()
    lanes.daemon.start("--apply-lanes", then)
    lanes.expect_once()


@pytest.mark.parametrize("delivered", [False, True])
def test_a_lane_whose_commit_fails_or_is_not_known_is_asked(migrations, delivered):
    """One lane's session ends in its COMMIT, while the other lane has committed; the process goes on."""
    with Committing(migrations, "lanes_early_cut", b"ahead ", delivered) as lanes:
        lanes.go_on()
        lanes.held.cut()
        lanes.expect_once()


def test_a_target_that_crashes_between_the_commits_of_the_lanes_gets_the_rest(migrations):
    with Committing(migrations, "lanes_early_crash", b"early ") as lanes:
        lanes.target.restart("immediate")
        lanes.go_on()
        lanes.expect_once()


def test_what_lane_0_has_not_on_disk_is_not_planned_anew(migrations):
    """The next run has other lanes, catches up, and the target loses lane 0's last commits."""
    lanes = Partly(migrations, "lanes_lost")
    lanes.target.execute("postgres", "ALTER SYSTEM SET wal_writer_delay = '10s'",
                         "ALTER SYSTEM SET wal_writer_flush_after = '1GB'", "SELECT pg_reload_conf()")
    try:
        lanes.write(random.Random(7), 10)
        lanes.daemon.start("--apply-lanes", "4")
        lanes.migration.await_applied(60)
        caught_up = lanes.target.scalar("postgres", "SELECT pg_current_wal_insert_lsn()::text")
        # Groups that four lanes may share, once the plan is another.
        lanes.source.execute(lanes.database, "UPDATE public.t SET n = n + 1, payload = repeat('z', 300)")
        lanes.source.execute(lanes.database, "UPDATE public.t SET n = n + 1, payload = repeat('y', 300)")
        lanes.migration.await_applied(60)
        on_disk = lanes.target.scalar("postgres", "SELECT pg_current_wal_flush_lsn() >= %s::pg_lsn", (caught_up,))
        assert on_disk or lanes.split_transactions() == 0
        lanes.target.restart("immediate")
        lanes.source.execute(lanes.database, "INSERT INTO public.log (n) VALUES (2)")  # goes in behind what was lost
        lanes.expect_equal()
    finally:
        lanes.target.execute("postgres", "ALTER SYSTEM RESET ALL", "SELECT pg_reload_conf()")
    lanes.switch()


def test_abort_leaves_no_position_of_a_lane(migrations):
    lanes = Lanes(migrations, "lanes_aborted")
    lanes.write(random.Random(6), 10)
    with HeldCommit(lanes.target, b"application_name\0walferry apply ", is_apply_commit) as held:
        lanes.daemon.target = held.dsn(lanes.copy)
        lanes.daemon.start("--apply-lanes", "3")
        held.await_held()
        lanes.daemon.kill()
        assert len(lanes.positions()) == 3
        assert lanes.daemon.abort("--drop-target-objects").code == 0
    assert lanes.positions() == []


BARRIERS = {
    "truncation": ["TRUNCATE public.pairs", "INSERT INTO public.pairs VALUES (1, 'again')"],
    "a key that moves": ["UPDATE public.t SET id = id + 100000 WHERE id % 10 = 0"],
    "unique values that change places": ["UPDATE public.slots SET place = place + 5000 WHERE id <= 50",
                                         "UPDATE public.slots SET place = place - 50 WHERE id > 50",
                                         "UPDATE public.slots SET place = place - 4950 WHERE id <= 50"],
    "a schema change": ["ALTER TABLE public.pairs ADD COLUMN c int DEFAULT 5", "UPDATE public.pairs SET c = 6"],
    "an identity that changes": ["ALTER TABLE public.t REPLICA IDENTITY FULL",
                                 "UPDATE public.t SET n = n + 1 WHERE id % 2 = 0"],
    "another unique index": ["CREATE UNIQUE INDEX ON public.t ((id + 1))", "DELETE FROM public.t WHERE id % 5 = 0"],
}


@pytest.mark.parametrize("statements", BARRIERS.values(), ids=BARRIERS)
def test_what_concerns_all_lanes_is_written_by_one(migrations, statements):
    lanes = Lanes(migrations, "lanes_barrier", "--on-ddl", "apply")
    lanes.write(random.Random(3), 3)
    lanes.source.execute(lanes.database, "BEGIN", "UPDATE public.t SET n = n + 1", *statements,
                         "UPDATE public.t SET n = n + 1 WHERE id % 2 = 1", "COMMIT")
    lanes.write(random.Random(4), 3)
    lanes.daemon.start("--apply-lanes", "3")
    lanes.expect_equal()
    assert not lanes.daemon.status()["apply_stopped"]
    lanes.switch()


def test_a_divergence_stops_all_lanes_and_goes_on_when_it_is_mended(migrations):
    lanes = Lanes(migrations, "lanes_diverged")
    lanes.write(random.Random(5), 3)
    lanes.source.execute(lanes.database, "UPDATE public.t SET n = -1 WHERE id BETWEEN 1 AND 3000")
    missing = lanes.source.scalar(lanes.database, "SELECT max(id) FROM public.t WHERE id < 3000")
    lanes.target.execute(lanes.copy, f"DELETE FROM public.t WHERE id = {missing}")
    lanes.daemon.start("--apply-lanes", "3")
    status = lanes.daemon.await_status(lambda status: status["apply_stopped"], 60, "the apply to stop")
    assert f"(id)=({missing})" in status["last_error"]["text"], status["last_error"]
    lanes.target.execute(lanes.copy, "SET session_replication_role = replica; "
                                     f"INSERT INTO public.t (id) VALUES ({missing})")
    lanes.expect_equal()


def test_kills_while_lanes_write_lose_nothing(migrations, note):
    seed = int(os.environ.get("WALFERRY_CRASH_SEED", "0")) or random.randrange(1 << 30)
    dice = random.Random(seed)
    lanes = Lanes(migrations, "lanes_killed")
    beyond = 0
    for number in range(12):
        lanes.write(dice, 12)
        lanes.daemon.start("--apply-lanes", str(dice.choice([2, 3, 4])))
        lanes.daemon.await_status(lambda status: status["target_connected"], 60, "the apply to begin")
        time.sleep(dice.random() * 0.15)  # the random moment of the kill
        lanes.daemon.kill()
        table = f"walferry.progress_walferry_{lanes.database}"
        beyond += lanes.target.scalar(lanes.copy, f"SELECT max(lsn) > max(lsn) FILTER (WHERE lane = 0) FROM {table}")
        if number % 4 == 3:
            lanes.target.restart("immediate")
    lanes.daemon.start("--apply-lanes", "2")
    lanes.daemon.await_phase("follow", 120)
    lanes.expect_equal()
    lanes.switch()
    note(f"kills while lanes write: seed {seed}, {beyond} of 12 with lanes at different positions")
