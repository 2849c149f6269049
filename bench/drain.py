"""How fast a backlog drains: walferry beside the native subscription, from the same source, of the same changes.

Each work is written on the source while nobody reads; then each side drains it in turn, whoever is first changing from
pair to pair. Time runs from the moment the side's slot becomes active until the last transaction is visible on its
target. CPU is that of the walsender, of the apply's backend (or worker), and of walferry. After each run the tables
are compared; a run with a difference is an error.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY / "tests" / "live"))

import servers  # noqa: E402
import walferry  # noqa: E402

DATABASE = "bench"
TICKS = os.sysconf("SC_CLK_TCK")
SETTINGS = {"shared_buffers": "256MB", "max_wal_size": "8GB", "checkpoint_timeout": "1h", "autovacuum": "off",
            "wal_sender_timeout": "0"}
SCHEMA = """
CREATE TABLE public.big (id bigint PRIMARY KEY, n int NOT NULL, payload text NOT NULL, at timestamptz NOT NULL);
CREATE TABLE public.hot (id int PRIMARY KEY, n bigint NOT NULL);
CREATE TABLE public.done (id int PRIMARY KEY);
INSERT INTO public.hot SELECT g, 0 FROM generate_series(1, 1000) g;
ALTER TABLE public.pgbench_history ADD COLUMN id bigserial;
ALTER TABLE public.pgbench_history REPLICA IDENTITY FULL;
"""


@dataclass
class Run:
    work: str
    side: str
    changes: int
    seconds: float
    cpu_source: float
    cpu_target: float
    cpu_walferry: float
    wal_bytes: int


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


class Bench:
    """A source, and one target server with a database for each side."""

    def __init__(self, source_major: int, target_major: int, tcp: bool):
        found = servers.find_binaries()
        self.source = servers.Server(found[source_major], "bsource", tcp=tcp, settings=SETTINGS, fsync=False).start()
        self.target = servers.Server(found[target_major], "btarget", tcp=tcp, settings=SETTINGS, fsync=False).start()
        self.pgbench = next(Path("/usr/lib/postgresql").glob("*/bin/pgbench"))
        self.done = 0
        self.tcp = tcp
        self.folder = Path(tempfile.mkdtemp(prefix="wf-bench-", dir="/tmp"))

    def dsn(self, server: servers.Server, database: str) -> str:
        return server.uri(database) if self.tcp else server.dsn(database)

    def prepare(self, scale: int) -> None:
        self.source.create_database(DATABASE)
        self.source.execute(DATABASE, "SELECT 1")
        self.run_pgbench("-i", "-q", "-s", str(scale))
        self.source.psql(DATABASE, sql=SCHEMA)
        for database in ("native", "walferry"):
            self.target.create_database(database)
        dump = subprocess.run(["pg_dump", "-s", "-d", self.source.dsn(DATABASE)], capture_output=True, text=True,
                              check=True).stdout
        self.target.psql("native", sql=dump)
        self.source.execute(DATABASE, "CREATE PUBLICATION native FOR TABLES IN SCHEMA public")
        self.daemon = walferry.Daemon(self.dsn(self.source, DATABASE), self.dsn(self.target, "walferry"), self.folder)
        self.daemon.start()
        self.daemon.await_phase("follow", 300)
        self.slot = self.source.scalar(DATABASE, "SELECT slot_name FROM pg_replication_slots")
        self.daemon.terminate()
        with self.target.connect("native") as connection, connection.cursor() as cursor:
            cursor.execute(f"CREATE SUBSCRIPTION native CONNECTION '{self.dsn(self.source, DATABASE)}' PUBLICATION native"
                           " WITH (binary = true, streaming = on)")
        servers.wait_until(lambda: self.target.scalar("native", "SELECT bool_and(srsubstate = 'r') FROM"
                                                      " pg_subscription_rel"), 300, "the subscription's first copy")
        self.target.execute("native", "ALTER SUBSCRIPTION native DISABLE")
        self.await_inactive("native")
        self.target.execute("native", "ANALYZE")
        self.target.execute("walferry", "ANALYZE")

    def remove(self) -> None:
        self.daemon.remove()
        self.source.remove()
        self.target.remove()

    def run_pgbench(self, *options: str) -> None:
        subprocess.run([self.pgbench, *options, "-h", self.source.socket_dir, "-p", str(self.source.port), "-U",
                        servers.SUPERUSER, DATABASE], check=True, capture_output=True,
                       env={**os.environ, "PGOPTIONS": "-c synchronous_commit=off"})

    def active_pid(self, slot: str) -> int | None:
        return self.source.scalar(DATABASE, "SELECT active_pid FROM pg_replication_slots WHERE slot_name = %s", (slot,))

    def await_inactive(self, slot: str) -> None:
        servers.wait_until(lambda: self.active_pid(slot) is None, 60, f"slot {slot} to be free", 0.02)

    # -- one drain -----------------------------------------------------------------------------------------------

    def drain(self, work: str, side: str, changes: int) -> Run:
        database = side
        slot = "native" if side == "native" else self.slot
        self.target.execute("postgres", "CHECKPOINT")
        wal_before = self.target.scalar("postgres", "SELECT pg_current_wal_insert_lsn() - '0/0'")
        if side == "native":
            self.target.execute("native", "ALTER SUBSCRIPTION native ENABLE")
        else:
            self.daemon.start()
        with self.source.connect(DATABASE) as asked, asked.cursor() as source, \
                self.target.connect(database) as seen, seen.cursor() as target:
            def ask(cursor, sql: str):
                cursor.execute(sql)
                row = cursor.fetchone()
                return row and row[0]

            walsender = servers.wait_until(
                lambda: ask(source, f"SELECT active_pid FROM pg_replication_slots WHERE slot_name = '{slot}'"), 60,
                "the slot to be active", 0.005)
            started = time.monotonic()
            own = cpu_seconds(self.daemon.process.pid) if side != "native" else 0.0
            servers.wait_until(lambda: ask(target, f"SELECT 1 FROM public.done WHERE id = {self.done}"), 600,
                               f"{side} to drain {work}", 0.01)
            seconds = time.monotonic() - started
            target.execute("SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND "
                           + ("backend_type LIKE 'logical replication%%'" if side == "native"
                              else "application_name ~ '^walferry (apply|early) '"))
            workers = [pid for (pid,) in target.fetchall()]
            run = Run(work, side, changes, seconds, cpu_seconds(walsender), sum(map(cpu_seconds, workers)),
                      cpu_seconds(self.daemon.process.pid) - own if side != "native" else 0.0,
                      int(ask(target, "SELECT pg_current_wal_insert_lsn() - '0/0'") - wal_before))
        # Confirmed up to here, so that the next drain does not decode this one's WAL again.
        self.source.execute(DATABASE, "CHECKPOINT")
        wanted = self.source.scalar(DATABASE, "SELECT pg_current_wal_insert_lsn()::text")
        self.source.execute(DATABASE, "INSERT INTO public.done SELECT least(min(id), 0) - 1 FROM public.done")
        servers.wait_until(lambda: self.source.scalar(DATABASE, "SELECT confirmed_flush_lsn >= %s::pg_lsn FROM"
                                                      " pg_replication_slots WHERE slot_name = %s", (wanted, slot)),
                           60, f"{slot} to be confirmed")
        if side == "native":
            self.target.execute("native", "ALTER SUBSCRIPTION native DISABLE")
        else:
            self.daemon.terminate()
        self.await_inactive(slot)
        return run

    def compare(self) -> None:
        for (table,) in self.source.query(DATABASE, "SELECT quote_ident(tablename) FROM pg_tables WHERE schemaname ="
                                                    " 'public' AND tablename <> 'done'"):
            sql = f"SELECT count(*), sum(hashtextextended(t::text, 0)) FROM public.{table} t"
            wanted = self.source.query(DATABASE, sql)
            for database in ("native", "walferry"):
                if self.target.query(database, sql) != wanted:
                    raise SystemExit(f"{table} of {database} differs from the source: the run counts for nothing")

    def pair(self, work: str, number: int) -> list[Run]:
        changes = WORKS[work](self)
        self.done += 1
        self.source.execute(DATABASE, f"INSERT INTO public.done VALUES ({self.done})")
        sides = ["native", "walferry"] if number % 2 == 0 else ["walferry", "native"]
        runs = [self.drain(work, side, changes) for side in sides]
        self.compare()
        return runs


# -- works: each writes on the source and returns how many changes of rows it made ----------------------------------

SIZE = {"transactions": 160_000, "rows": 1_000_000, "hot": 100_000}


def tpcb(bench: Bench) -> int:
    bench.run_pgbench("-n", "-c", "4", "-t", str(SIZE["transactions"] // 4))
    return SIZE["transactions"] * 4


def inserts(bench: Bench) -> int:
    bench.source.execute(DATABASE, "TRUNCATE public.big",
                         "INSERT INTO public.big SELECT g, g, md5(g::text) || 'abcdefghijklmnopqr', now()"
                         f" FROM generate_series(1, {SIZE['rows']}) g")
    return SIZE["rows"]


def updates(bench: Bench) -> int:
    bench.source.execute(DATABASE, "UPDATE public.big SET n = n + 1, payload = md5(payload) || 'abcdefghijklmnopqr'")
    return SIZE["rows"]


def deletes(bench: Bench) -> int:
    bench.source.execute(DATABASE, "DELETE FROM public.big")
    return SIZE["rows"]


def hot_keys(bench: Bench) -> int:
    script = bench.folder / "hot.sql"
    script.write_text("\\set id random(1, 1000)\nUPDATE public.hot SET n = n + 1 WHERE id = :id;\n")
    bench.run_pgbench("-n", "-c", "4", "-t", str(SIZE["hot"] // 4), "-f", str(script))
    return SIZE["hot"]


WORKS = {"tpcb": tpcb, "inserts": inserts, "updates": updates, "deletes": deletes, "hot keys": hot_keys}


def table(runs: list[Run]) -> str:
    """Markdown: medians, and the native one's divided by ours."""
    lines = ["| work | changes | native s | walferry s | ratio | native CPU s (source + target) "
             "| walferry CPU s (source + target + own) | CPU ratio | own us per change | target WAL ratio |",
             "|---|---|---|---|---|---|---|---|---|---|"]
    for work in dict.fromkeys(run.work for run in runs):
        of = {side: [run for run in runs if run.work == work and run.side == side] for side in ("native", "walferry")}
        def median(side, value):
            return statistics.median(value(run) for run in of[side])
        def total(run):
            return run.cpu_source + run.cpu_target + run.cpu_walferry
        ratio = statistics.median(a.seconds / b.seconds for a, b in zip(of["native"], of["walferry"], strict=True))
        changes = of["walferry"][0].changes
        lines.append(
            f"| {work} | {changes:,} | {median('native', lambda r: r.seconds):.2f}"
            f" | {median('walferry', lambda r: r.seconds):.2f} | {ratio:.2f}"
            f" | {median('native', lambda r: r.cpu_source):.2f} + {median('native', lambda r: r.cpu_target):.2f}"
            f" | {median('walferry', lambda r: r.cpu_source):.2f} + {median('walferry', lambda r: r.cpu_target):.2f} +"
            f" {median('walferry', lambda r: r.cpu_walferry):.2f}"
            f" | {median('walferry', total) / median('native', total):.2f}"
            f" | {median('walferry', lambda r: r.cpu_walferry) / changes * 1e6:.2f}"
            f" | {median('walferry', lambda r: r.wal_bytes) / max(1, median('native', lambda r: r.wal_bytes)):.2f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tenth of the changes, two pairs")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--source", type=int, default=15, help="major version")
    parser.add_argument("--target", type=int, default=15, help="major version")
    parser.add_argument("--unix", action="store_true", help="Unix sockets instead of TCP")
    parser.add_argument("--only", action="append", choices=list(WORKS))
    parser.add_argument("--results", type=Path, default=REPOSITORY / "bench" / "results.json")
    options = parser.parse_args()
    if options.quick:
        SIZE.update({name: size // 10 for name, size in SIZE.items()})
        options.pairs = min(options.pairs, 2)
    works = options.only or list(WORKS)
    if set(works) & {"updates", "deletes"} and "inserts" not in works:
        parser.error("updates and deletes need the rows of inserts")
    bench = Bench(options.source, options.target, not options.unix)
    runs: list[Run] = []
    try:
        bench.prepare(scale=10)
        for number in range(options.pairs):
            for work in works:
                for run in bench.pair(work, number):
                    runs.append(run)
                    print(f"{run.work:9} {run.side:9} {run.seconds:6.2f} s, CPU source {run.cpu_source:.2f}"
                          f" target {run.cpu_target:.2f} walferry {run.cpu_walferry:.2f} s", file=sys.stderr, flush=True)
    finally:
        bench.remove()
    heading = {"processors": os.cpu_count(), "source": options.source, "target": options.target,
               "socket": "Unix" if options.unix else "TCP", "pairs": options.pairs}
    options.results.write_text(json.dumps({"machine": heading, "runs": [asdict(run) for run in runs]}, indent=1) + "\n")
    print(table(runs))


if __name__ == "__main__":
    main()
