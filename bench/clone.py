"""A whole database, schema, rows, indexes and statistics: walferry beside every tool that is at hand.

pgbench's tables with one more index. Each side starts from an empty database and ends when the target could serve:
keys and indexes there, statistics gathered (by vacuumdb where the tool does not). The native subscription loads into
tables that have their indexes, because it has no other way.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable

import servers
from bench import cpu
from bench.migration import migration
from bench.result import Run, order
from bench.rig import SOURCE_DATABASE, Rig, Watch
from bench.show import Show

JOBS = 2


class Peer:
    """`work` does all of it and returns the CPU of its own processes."""

    def __init__(self, name: str, work: Callable[[Rig, str], float]):
        self.name = name
        self.work = work

    def run(self, rig: Rig, rows: int) -> Run:
        database = "cloned"
        with rig.target_database(database):
            rig.checkpoint()
            with rig.watch(database) as watch:
                meter = watch.meter()
                own = self.work(rig, database)
                reading = meter.read()
            rig.compare(database)
            self.clean_up(rig, database)
        return Run("clone", self.name, reading.seconds, reading.cpu | {"own": own}, rows, reading.wal_bytes)

    def clean_up(self, rig: Rig, database: str) -> None: ...


def analyze(rig: Rig, database: str) -> float:
    return cpu.run(["vacuumdb", "-q", "--analyze-only", "-j", str(JOBS), "-d", rig.address(rig.target, database)]).cpu


def dump_and_restore(rig: Rig, database: str) -> float:
    folder = rig.folder / "dump"
    dumped = cpu.run([rig.tool("pg_dump"), "-Fd", "-Z0", "-j", str(JOBS), "-f", folder, "-d", rig.source_address])
    restored = cpu.run([rig.tool("pg_restore"), "-j", str(JOBS), "-d", rig.address(rig.target, database), folder])
    shutil.rmtree(folder)
    return dumped.cpu + restored.cpu + analyze(rig, database)


def pgcopydb_version() -> str | None:
    """Of the one on PATH, if any."""
    if shutil.which("pgcopydb") is None:
        return None
    answer = subprocess.run(["pgcopydb", "--version"], capture_output=True, text=True)
    words = (answer.stdout + answer.stderr).split()
    return next((word for word in words if word[0].isdigit()), "of an unknown version")


def pgcopydb(rig: Rig, database: str) -> float:
    """As the servers' user: it refuses what root owns."""
    folder = rig.folder / "pgcopydb"
    folder.mkdir()
    if user := servers.unprivileged_user():
        shutil.chown(folder, user)
    words = ["pgcopydb", "clone", "--source", rig.source_address, "--target", rig.address(rig.target, database), "--dir",
             str(folder / "work"), "--table-jobs", str(JOBS), "--index-jobs", str(JOBS)]
    ended = cpu.run(servers.as_unprivileged(words), stdout=subprocess.DEVNULL, cwd="/",
                    env=os.environ | {"XDG_RUNTIME_DIR": str(folder), "TMPDIR": str(folder)})
    shutil.rmtree(folder)
    return ended.cpu


class NativeSync(Peer):
    def __init__(self):
        super().__init__("native initial sync", self.copy)

    @staticmethod
    def copy(rig: Rig, database: str) -> float:
        dump = cpu.Command([rig.tool("pg_dump"), "-s", "--no-publications", "-d", rig.source_address])
        load = cpu.Command(["psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", rig.address(rig.target, database)],
                           stdin=dump.process.stdout, stdout=subprocess.DEVNULL)
        dump.process.stdout.close()
        dump.process.stdout = None
        spent = dump.wait(300).cpu + load.wait(300).cpu
        rig.publish("cloning")
        binary = "true" if min(rig.source.binaries.major, rig.target.binaries.major) >= 16 else "false"
        with rig.target.connect(database) as connection, connection.cursor() as cursor:
            cursor.execute(f"CREATE SUBSCRIPTION cloning CONNECTION '{rig.source_address}' PUBLICATION cloning"
                           f" WITH (binary = {binary})")
        servers.wait_until(lambda: rig.target.scalar(
            database, "SELECT bool_and(srsubstate IN ('s', 'r')) FROM pg_subscription_rel"), 1200, "the native copy", 0.02)
        return spent + analyze(rig, database)

    def clean_up(self, rig: Rig, database: str) -> None:
        rig.target.execute(database, "DROP SUBSCRIPTION cloning")
        rig.execute("DROP PUBLICATION cloning")


class Walferry(Peer):
    """The copy of `run`; following is asked for no more."""

    def __init__(self):
        super().__init__("walferry", lambda rig, database: 0.0)

    def run(self, rig: Rig, rows: int) -> Run:
        with rig.target_database("cloned") as database, migration(rig, database, "--jobs", str(JOBS)) as own:
            rig.checkpoint()
            with rig.watch(database) as watch:
                return self.measured(rig, database, own, watch, rows)

    def measured(self, rig: Rig, database: str, own, watch: Watch, rows: int) -> Run:
        meter = watch.meter()
        own.daemon.start("--until", "copied")
        process = own.daemon.process
        # Waited for here, so that the kernel tells its CPU; the daemon object is told how it ended.
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        reading = meter.read()
        if process.returncode != 0:
            raise RuntimeError(f"walferry run ended with {process.returncode}:\n{own.daemon.log_tail()}")
        rig.compare(database)
        return Run("clone", self.name, reading.seconds, reading.cpu | {"own": used.ru_utime + used.ru_stime}, rows,
                   reading.wal_bytes)


def run(options, show: Show) -> list[Run]:
    runs = []
    with Rig(options.source, options.target) as rig:
        scale = max(1, 40 // options.divisor)
        rig.pgbench("-i", "-q", "-s", str(scale))
        rig.source.psql(SOURCE_DATABASE, sql="CREATE INDEX ON public.pgbench_accounts (bid);"
                                             " ALTER TABLE public.pgbench_history ADD COLUMN id bigserial PRIMARY KEY;"
                                             " VACUUM ANALYZE;")
        peers: list[Peer] = [Walferry(), Peer(f"pg_dump -j{JOBS}, pg_restore -j{JOBS}", dump_and_restore), NativeSync()]
        if version := pgcopydb_version():
            peers.append(Peer(f"pgcopydb {version}", pgcopydb))
        else:
            show.line("pgcopydb is not on PATH: it is left out (Debian's package is an old version)")
        for number in range(options.pairs):
            for peer in order(peers, number):
                made = peer.run(rig, scale * 100_000)
                show.run(made)
                runs.append(made)
    return runs
