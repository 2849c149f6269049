"""kill -9 of walferry at random moments through copy, catch-up and follow; nothing is lost and nothing is there twice.

The seed is printed; WALFERRY_CRASH_SEED repeats a run's choices (the machine's timing stays its own), and
WALFERRY_CRASH_KILLS sets the number of kills.
"""

import collections
import os
import random
import time
from pathlib import Path

import pytest

from compare import assert_equal
from workload import Workload, prepare

HERE = Path(__file__).resolve().parent
WRITERS = 3
COPYING = ("init", "schema", "copy", "post-data")
# Enough bytes in several tables that a copy takes long enough to be hit many times; kept out of the writers' way.
BULK = """
CREATE SCHEMA bulk;
DO $$ BEGIN
  FOR i IN 1..6 LOOP
    EXECUTE format('CREATE TABLE bulk.b%s (id int PRIMARY KEY, a text, b text)', i);
    EXECUTE format('INSERT INTO bulk.b%s SELECT g, md5(g::text), repeat(md5(g::text), 12) FROM generate_series(1, %s) g',
                   i, 8000 * i);
  END LOOP;
END $$;
CREATE TABLE bulk.churn (id int PRIMARY KEY, n int NOT NULL, filler text);
INSERT INTO bulk.churn SELECT g, 0, repeat('x', 100) FROM generate_series(1, 6000) g;
"""
# A table of several parts (each at least 64 MiB), and one that takes transactions of any size.
MANY_PARTS = """
CREATE SCHEMA bulk;
CREATE TABLE bulk.large (id int PRIMARY KEY, filler text);
INSERT INTO bulk.large SELECT g, repeat(md5(g::text), 31) FROM generate_series(1, 150000) g;
CREATE TABLE bulk.swept (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, filler text);
"""
BLOCK_BYTES = 256 << 10  # of the spool


class Crasher:
    """Starts the daemon again and again, and kills it at random moments of a wanted stage."""

    def __init__(self, migration, dice: random.Random):
        self.migration = migration
        self.daemon = migration.daemon
        self.dice = dice
        self.kills = collections.Counter()
        self.target_restarts = 0

    def start(self) -> None:
        # One job makes the copy longer, so that more kills fall into it.
        self.daemon.start("--jobs", "1")

    def wait_random(self, longest_seconds: float) -> None:
        """The random moment: here a pause is the thing under test."""
        time.sleep(self.dice.random() * longest_seconds)

    def kill(self) -> None:
        """Kills it, counted under the phase it was last seen in."""
        phase = self.daemon.phase() or "starting"
        self.daemon.expect_alive()
        self.daemon.kill()
        self.kills[phase] += 1

    def restart_target(self) -> None:
        """An immediate shutdown, sometimes while walferry runs and sometimes while it is dead."""
        self.migration.target.restart("immediate")
        self.target_restarts += 1

    def pile_up(self) -> None:
        """Many changes while walferry is dead, so that its next start has to catch up."""
        for _ in range(self.dice.randint(2, 5)):
            self.migration.source.execute(self.migration.database, "UPDATE bulk.churn SET n = n + 1")


def crash_through_all_stages(migration, kills: int, seed: int, note) -> None:
    dice = random.Random(seed)
    source, database, target, _ = migration.ends
    migration.load(HERE / "data/rich.sql")
    migration.load(sql=BULK)
    prepare(source, database, WRITERS)
    crasher = Crasher(migration, dice)
    each = (kills + 2) // 3
    dsn = source.dsn(database)
    with Workload(dsn, WRITERS, seed=seed, pause_seconds=0.01,
                  wants=lambda table: table.schema != "bulk") as workload:
        workload.await_commits(50)

        # Copy: some kills at any time from the very first moment on, the others aimed at the rows' own copy. When the
        # copy is done before the moment comes, that kill belongs to a later stage; the sums are asserted at the end.
        for number in range(each):
            crasher.start()
            if number >= each // 3:
                migration.daemon.await_phase("copy", 120)
            if number % 4 == 3:
                crasher.wait_random(0.3)
                crasher.restart_target()
            crasher.wait_random(1.0 if number < each // 3 else 0.4)
            crasher.kill()

        # Catch-up: every start finds a backlog.
        crasher.start()
        migration.daemon.await_phase("catch-up", 180)
        for number in range(each):
            crasher.kill()
            if number % 4 == 1:
                crasher.restart_target()
            crasher.pile_up()
            crasher.start()
            if number % 4 == 3:
                crasher.wait_random(0.5)
                crasher.restart_target()
            crasher.wait_random(1.0)

        # Follow: at rest with the source, then killed within a second.
        for number in range(each):
            migration.daemon.await_phase("follow", 120)
            crasher.wait_random(1.0)
            if number % 5 == 4:
                crasher.restart_target()
            crasher.kill()
            crasher.start()

        migration.daemon.await_phase("follow", 120)
        workload.await_commits(100)
        migration.daemon.await_status(lambda status: status["phase"] == "follow" and status["lag_seconds"] < 0.9, 60,
                                      "a lag below 0.9 s")
        report = migration.switch("--timeout", "30s")
        workload.await_refused()
        assert_equal(*migration.ends)
        assert workload.ledger_differences(target, database) == []
        workload.repoint(target.dsn(database))
        workload.await_commits(100)
    assert workload.ledger_differences(target, database) == []

    total = sum(crasher.kills.values())
    note(f"crash test: seed {seed}, {total} kills {dict(crasher.kills)}, {crasher.target_restarts} immediate restarts of"
         f" the target, {workload.commits} commits, writes stopped {report['writes_stopped_ms']} ms")
    assert total >= kills
    assert crasher.target_restarts >= 1
    assert crasher.kills["copy"] + crasher.kills["post-data"] >= 2, crasher.kills
    before_follow = sum(crasher.kills[phase] for phase in (*COPYING, "starting", "catch-up"))
    assert before_follow >= kills // 4 and crasher.kills["follow"] >= kills // 6, crasher.kills


@pytest.mark.limit(420)
def test_thirty_kills_at_random_moments_lose_nothing_and_double_nothing(migrations, note):
    seed = int(os.environ.get("WALFERRY_CRASH_SEED", random.randrange(1 << 30)))
    print(f"seed {seed}; WALFERRY_CRASH_SEED={seed} repeats these choices")
    crash_through_all_stages(migrations("crash"), int(os.environ.get("WALFERRY_CRASH_KILLS", "30")), seed, note)


@pytest.mark.limit(420)
def test_kills_in_a_copy_of_many_parts_as_an_owner(migrations, note):
    """As an owner, no superuser: two jobs in one table, the source dies in the copy, odd-sized commits."""
    seed = int(os.environ.get("WALFERRY_CRASH_SEED", random.randrange(1 << 30)))
    dice = random.Random(seed)
    print(f"seed {seed}; WALFERRY_CRASH_SEED={seed} repeats these choices")
    migration = migrations("crash_parts", "--jobs", "2", "--split-tables", "yes")
    source, database, target, _ = migration.ends
    owner = "crash_owner"
    for server in (source, target):
        if not server.query("postgres", "SELECT 1 FROM pg_roles WHERE rolname = %s", (owner,)):
            server.execute("postgres", f"CREATE ROLE {owner} LOGIN")
    target.execute("postgres", f'ALTER DATABASE "{database}" OWNER TO {owner}',
                   f"GRANT SET ON PARAMETER session_replication_role TO {owner}")
    migration.daemon.target = target.dsn(database, owner)
    migration.load(sql=f"ALTER DATABASE {database} OWNER TO {owner}; ALTER SCHEMA public OWNER TO {owner};"
                       f" SET ROLE {owner};{MANY_PARTS}")
    target.execute(database, f"ALTER SCHEMA public OWNER TO {owner}")
    prepare(source, database, WRITERS, owner)
    daemon = migration.daemon
    kills = collections.Counter()

    def kill() -> None:
        kills[daemon.phase() or "starting"] += 1
        daemon.expect_alive()
        daemon.kill()

    with Workload(source.dsn(database), WRITERS, seed=seed, pause_seconds=0.01,
                  wants=lambda table: table.schema != "bulk") as workload:
        workload.await_commits(50)
        # In the copy: the program dies, then the source does while the program lives on.
        for number in range(6):
            daemon.start()
            daemon.await_phase("copy", 120)
            time.sleep(dice.random() * 0.6)
            if number % 3 == 2:
                source.restart("immediate")
            kill()
        daemon.start()
        daemon.await_phase("copy", 120)
        source.restart("immediate")
        daemon.await_phase("follow", 180)
        # Transactions of one insert each, whose sizes sweep across the end of a block of the spool, with and without
        # the program there to take them as they come.
        for number in range(4):
            kill()
            for step in range(-6, 7):
                source.query(database, "INSERT INTO bulk.swept (filler) VALUES (repeat('x', %s)) RETURNING id",
                             (BLOCK_BYTES + step * 24 - number,))
            daemon.start()
            time.sleep(dice.random() * 0.6)
        daemon.await_phase("follow", 120)
        for step in range(-6, 7):
            source.query(database, "INSERT INTO bulk.swept (filler) VALUES (repeat('y', %s)) RETURNING id",
                         (BLOCK_BYTES + step * 24 - 9,))
        migration.await_applied()
        daemon.await_status(lambda status: status["phase"] == "follow" and status["lag_seconds"] < 0.9, 120,
                            "a lag below 0.9 s")
        migration.switch("--timeout", "30s")
        workload.await_refused()
        assert_equal(*migration.ends)
    assert workload.ledger_differences(target, database) == []
    note(f"crash test of parts: seed {seed}, {sum(kills.values())} kills {dict(kills)}, {workload.commits} commits")
    assert kills["copy"] >= 2, kills


@pytest.mark.long
@pytest.mark.limit(7200)
@pytest.mark.parametrize("seed", range(1, 6))
def test_soak_of_kills(migrations, note, seed):
    crash_through_all_stages(migrations("crash"), 150, seed, note)


@pytest.mark.tsan
def test_a_killed_source_server_loses_nothing(migrations, note):
    """The source dies under the writers: what it acknowledged is on the target, what it did not acknowledge may be."""
    migration = migrations("source_crash")
    source, database, target, _ = migration.ends
    migration.load(sql=BULK)
    prepare(source, database, WRITERS)
    with Workload(source.dsn(database), WRITERS, pause_seconds=0.01) as workload:
        workload.await_commits(50)
        migration.daemon.start()
        migration.daemon.await_phase("follow", 120)
        for mode in ("immediate", "kill"):
            if mode == "kill":
                source.kill()
                source.start()
            else:
                source.restart(mode)
            workload.await_commits(100)
            migration.await_applied()
    migration.await_applied()
    assert workload.ledger_differences(target, database) == []
