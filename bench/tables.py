"""Thousands of tables: what each step of a migration takes at three numbers of them, to see what grows faster than they do."""

from __future__ import annotations

import signal
import time

import servers
import walferry
from bench import cpu, status
from bench.migration import Migration, migration
from bench.result import Run
from bench.rig import Rig
from bench.show import Show

NUMBERS = (1_000, 3_000, 10_000)
ROWS_EACH = 10
AT_ONCE = 500  # tables made in one transaction
SETTINGS = {"max_locks_per_transaction": "512"}


def make(rig: Rig, tables: int) -> None:
    for first in range(1, tables + 1, AT_ONCE):
        rig.execute(f"""
            DO $$ BEGIN
              FOR i IN {first}..{min(first + AT_ONCE - 1, tables)} LOOP
                EXECUTE format('CREATE TABLE public.t%s (id int PRIMARY KEY, n int NOT NULL, body text)', i);
                EXECUTE format('INSERT INTO public.t%s SELECT g, g, md5(g::text) FROM generate_series(1, {ROWS_EACH}) g', i);
              END LOOP;
            END $$""")
    rig.execute("CREATE TABLE public.done (id int PRIMARY KEY)", "ANALYZE")


class Steps:
    """The steps of one migration of so many tables; each is a Run of its own."""

    def __init__(self, rig: Rig, tables: int, show: Show):
        self.rig = rig
        self.tables = tables
        self.show = show
        self.runs: list[Run] = []
        self.done = 0

    def note(self, step: str, seconds: float, **more: float) -> None:
        self.runs.append(Run(f"{self.tables:,} tables", step, seconds, {}, self.tables, 0, more))
        self.show.run(self.runs[-1])

    def change_every_table(self, step: str, own: Migration, database: str, transactions: str = "") -> None:
        """Written while walferry stands still, so that carrying alone is timed. `transactions`: COMMIT after each table."""
        own.daemon.process.send_signal(signal.SIGSTOP)
        self.rig.execute(f"DO $$ BEGIN FOR i IN 1..{self.tables} LOOP EXECUTE format('UPDATE public.t%s SET n = n + 1 WHERE"
                         f" id = 1', i); {transactions} END LOOP; END $$")
        self.done += 1
        self.rig.execute(f"INSERT INTO public.done VALUES ({self.done})")
        own.daemon.process.send_signal(signal.SIGCONT)
        started = time.monotonic()
        servers.wait_until(lambda: self.rig.target.query(database, f"SELECT 1 FROM public.done WHERE id = {self.done}"), 1200,
                           "a change in every table to arrive", 0.05)
        self.note(step, time.monotonic() - started)

    @staticmethod
    def past(phase: str) -> status.Condition:
        return lambda found: walferry.PHASES.index(found["phase"]) > walferry.PHASES.index(phase)

    def run(self, database: str) -> None:
        self.note("pg_dump -s (not ours)", cpu.run(
            [self.rig.tool("pg_dump"), "-s", "-f", "/dev/null", "-d", self.rig.source_address]).seconds)
        with migration(self.rig, database) as own:
            started = time.monotonic()
            own.daemon.check()
            self.note("check", time.monotonic() - started)

            started = time.monotonic()
            own.daemon.start()
            marks = [("start, up to the schema", self.past("init")), ("schema", self.past("schema")),
                     ("rows", self.past("copy")), ("indexes and constraints, up to following", self.past("catch-up"))]
            for step, reached in marks:
                own.await_status(reached, step, 0.1)
                now = time.monotonic()
                self.note(step, now - started, peak_rss_mib=own.daemon.peak_rss_bytes() / 2**20)
                started = now

            self.change_every_table("a change in every table, one transaction", own, database)
            self.change_every_table("a change in every table, a transaction each", own, database, "COMMIT;")
            started = time.monotonic()
            status.ask(own.daemon.state_dir)
            self.note("status", time.monotonic() - started)

            own.daemon.terminate(300)
            started = time.monotonic()
            own.daemon.start()
            own.await_status(lambda found: found["phase"] == "follow" and found["target_connected"]
                             and found["source_connected"], "following again", 0.1)
            self.note("started again, up to following", time.monotonic() - started)
            self.change_every_table("the first change in every table after it", own, database)
            self.rig.compare(database)
            self.cut_over(own)

    def cut_over(self, own: Migration) -> None:
        started = time.monotonic()
        report = own.cut_over()
        self.note("cutover", time.monotonic() - started)
        self.note("of it, writes stopped", report["writes_stopped_ms"] / 1000)
        begun = False
        for step in report["steps"]:
            begun = begun or step["name"].startswith("stop writes")
            if begun:
                self.note(f"- {step['name']}", step["ms"] / 1000)


def run(options, show: Show) -> list[Run]:
    runs = []
    for tables in NUMBERS:
        with Rig(options.source, options.target, settings=SETTINGS) as rig:
            make(rig, tables // options.divisor)
            with rig.target_database("many") as database:
                steps = Steps(rig, tables // options.divisor, show)
                steps.run(database)
                runs += steps.runs
    return runs
