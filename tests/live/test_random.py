"""Random statements over a rich schema while walferry is killed and its connections are cut; the ends stay equal.

The seed is printed; WALFERRY_RANDOM_SEED repeats a run's statements (the moments of the kills stay the machine's own),
WALFERRY_RANDOM_SECONDS sets how long it goes on, WALFERRY_RANDOM_LANES=3 gives every run so many lanes, and the statements
and the logs are kept in the folder that a failure names.
"""

import collections
import os
import random
import shutil
import signal
import time
from pathlib import Path

import pytest

import walferry
from compare import assert_equal, data_differences
from generator import Generator

HERE = Path(__file__).resolve().parent
SECONDS = float(os.environ.get("WALFERRY_RANDOM_SECONDS", "60"))
LANES = os.environ.get("WALFERRY_RANDOM_LANES")
ROUND_SECONDS = 15
_CUT = ("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name LIKE 'walferry%%'"
        " AND application_name NOT LIKE 'walferry-%%' AND datname = %s AND random() < 0.7")


class Trouble:
    """What may happen at any time: kill -9, SIGSTOP, an orderly stop, cut connections on either side, and now and then a
    target that crashes."""

    KINDS = ["kill", "kill", "pause", "stop", "cut source", "cut target", "cut both", "cut both", "crash target"]

    def __init__(self, migration, dice: random.Random):
        self.migration = migration
        self.dice = dice
        self.counts = collections.Counter()
        self.next = time.monotonic() + 1
        self.paused = False

    def maybe(self) -> None:
        if time.monotonic() < self.next:
            return
        self.next = time.monotonic() + self.dice.uniform(0.5, 4)
        kind = self.dice.choice(self.KINDS)
        daemon = self.migration.daemon
        self.resume()
        if not daemon.alive():
            daemon.start("--apply-lanes", LANES or str(self.dice.choice([1, 1, 2, 3])))
            return
        if kind == "kill":
            daemon.kill()  # the next turn starts it again: meanwhile a backlog grows
        elif kind == "pause":
            daemon.process.send_signal(signal.SIGSTOP)  # until the next turn
            self.paused = True
        elif kind == "stop":
            daemon.terminate()
        elif kind == "crash target":
            self.migration.target.restart("immediate")
        for side, server in (("source", self.migration.source), ("target", self.migration.target)):
            if kind in (f"cut {side}", "cut both"):
                server.query("postgres", _CUT, (self.migration.database,))
        self.counts[kind] += 1

    def resume(self) -> None:
        if self.paused:
            self.migration.daemon.process.send_signal(signal.SIGCONT)
        self.paused = False


UNREADABLE = "could not map filenode"


def source_gave_up(migration) -> bool:
    """A defect of servers before 15: they cannot read their WAL from the slot's beginning. The daemon says so and ends."""
    daemon = migration.daemon
    return (migration.source.binaries.major < 15 and not daemon.alive() and UNREADABLE in daemon.log_tail(20)
            and daemon.process.returncode == walferry.SOURCE_FAILED)


def keep_traces(seed: int, log: Path, generator: Generator, migration) -> None:
    kept = Path("/tmp") / f"walferry-random-{seed}"
    kept.mkdir(exist_ok=True)
    generator.file.flush()
    for file in (log, *migration.daemon.folder.glob("run-*.log")):
        shutil.copy(file, kept)
    for side, server in (("source", migration.source), ("target", migration.target)):
        shutil.copy(server.log, kept / f"{side}.log")
    print(f"seed {seed}: the statements and everybody's logs are in {kept}")


def run_random(migration, schema: str, seed: int, seconds: float, note) -> None:
    source, database, target, _ = migration.ends
    migration.load(HERE / schema)
    # So that large transactions are streamed, and written, while they are in progress.
    source.execute("postgres", f"ALTER DATABASE {database} SET logical_decoding_work_mem = '64kB'")
    log = migration.folder / "statements.sql"
    generator = Generator(source, database, seed, log)
    trouble = Trouble(migration, random.Random(seed + 1))
    daemon = migration.daemon.start("--apply-lanes", LANES or "1")
    deadline = time.monotonic() + seconds
    rounds = 0
    try:
        while time.monotonic() < deadline:
            round_ends = min(deadline, time.monotonic() + ROUND_SECONDS)
            while time.monotonic() < round_ends:
                generator.step()
                trouble.maybe()
            generator.finish()
            trouble.resume()
            if not daemon.alive():
                daemon.start("--apply-lanes", LANES or "1")
            # The cuts may have hit a moment in which an error is final, such as the very first connection.
            daemon.await_phase("follow", 180)
            migration.await_applied(120)
            rounds += 1
            found = data_differences(*migration.ends, sequences=False)
            assert not found, f"seed {seed}, after round {rounds}:\n" + "\n".join(found[:40])
        streamed = source.scalar("postgres", "SELECT sum(stream_txns) FROM pg_stat_replication_slots WHERE slot_name = %s",
                                 (f"walferry_{database}",))
        migration.switch("--timeout", "60s")
        assert_equal(*migration.ends)
    except walferry.WalferryError:
        if not source_gave_up(migration):
            keep_traces(seed, log, generator, migration)
            raise
        note(f"random workload on {schema}: seed {seed}, {rounds} rounds, then the source could not decode: {UNREADABLE}")
        return
    except BaseException:
        keep_traces(seed, log, generator, migration)
        raise
    finally:
        generator.close()
    note(f"random workload on {schema}: seed {seed}, {rounds} rounds, {dict(generator.counts)}, {streamed} streamed, refused"
         f" {dict(generator.refused)}, troubles {dict(trouble.counts)}")
    assert generator.counts["commit"] > 20 and generator.counts["update"] > 50, generator.counts
    assert sum(trouble.counts.values()) >= seconds / 10, trouble.counts


def _seed() -> int:
    seed = int(os.environ.get("WALFERRY_RANDOM_SEED", random.randrange(1 << 30)))
    print(f"seed {seed}; WALFERRY_RANDOM_SEED={seed} repeats these statements")
    return seed


SCHEMAS = pytest.mark.parametrize("schema", ["data/rich.sql", "data/shop.sql"])


@SCHEMAS
@pytest.mark.limit(int(SECONDS) + 300)
def test_random_statements_and_troubles_leave_the_ends_equal(migrations, note, schema):
    run_random(migrations("random"), schema, _seed(), SECONDS, note)


def test_a_seed_gives_the_same_statements_again(pair, tmp_path):
    """Otherwise a failure could not be looked into."""
    logs = []
    for run in range(2):
        pair.source.create_database("random_again")
        try:
            pair.source.psql("random_again", HERE / "data/shop.sql")
            generator = Generator(pair.source, "random_again", 7, tmp_path / f"{run}.sql")
            for _ in range(400):
                generator.step()
            generator.finish()
            generator.close()
            logs.append((tmp_path / f"{run}.sql").read_text())
        finally:
            pair.source.drop_database("random_again")
    assert logs[0] == logs[1]


@pytest.mark.long
@pytest.mark.limit(5400)
@SCHEMAS
def test_soak_of_random_statements(migrations, note, schema):
    run_random(migrations("random"), schema, _seed(), float(os.environ.get("WALFERRY_RANDOM_SECONDS", "1800")), note)
