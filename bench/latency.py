"""Without a backlog: how long a commit on the source takes to be seen on the target, and what following costs the source.

Full load: pgbench as fast as the source can, with nobody following, with native, with walferry; they share the
processors, so a follower that falls behind costs the source less: the time to catch up afterwards stands beside. 30 % load:
that part of the throughput with native, and meanwhile one probe after the other, each a row of its own, looked for on the
target ten times a millisecond until it is there. Commits are synchronous, as they are by default: a walsender sends no commit
before its WAL is flushed, and an asynchronous one waits up to 0.2 s for that. That is the third load: what is sent late, but is
little. The probes' own commits are synchronous there too.
"""

from __future__ import annotations

import random
import re
import statistics
import threading
import time

import servers
from bench.drain import Drain
from bench.follower import Follower
from bench.result import Run, order
from bench.rig import Rig
from bench.show import Show

FULL, PART, LATE = "full load", "30 % load", "30 % load, asynchronous"
NOBODY = "nobody"


class Nobody(Follower):
    """The source alone."""

    name = NOBODY
    database = "postgres"


def transactions_per_second(report: str) -> float:
    found = re.search(r"^tps = ([0-9.]+)", report, re.MULTILINE)
    if not found:
        raise RuntimeError(f"pgbench did not report its rate:\n{report}")
    return float(found.group(1))


class Latency:
    """Loads of one rig, followed by one side at a time; what a side missed it carries before its next turn counts."""

    def __init__(self, pair: Drain, seconds: int):
        self.pair = pair
        self.rig = pair.rig
        self.seconds = seconds
        self.probe = 0

    def catch_up(self, side: Follower, watch) -> float:
        """Seconds until the target has everything that was written."""
        if side.name == NOBODY:
            return 0.0
        started = time.monotonic()
        self.pair.done += 1
        self.rig.execute(f"INSERT INTO public.done VALUES ({self.pair.done})")
        side.await_done(watch, self.pair.done)
        return time.monotonic() - started

    def measure(self, work: str, side: Follower, load) -> Run:
        """`load(watch)` returns what it found out."""
        self.rig.checkpoint()
        with self.rig.watch(side.database) as watch:
            if side.name != NOBODY:
                side.start()
                side.await_active(watch)
            self.catch_up(side, watch)
            own = side.own_cpu()
            meter = watch.meter()
            found = load(watch)
            reading = meter.read()
            cpu = reading.cpu | {"own": side.own_cpu() - own}
            found["catch_up_s"] = self.catch_up(side, watch)
        if side.name != NOBODY:
            side.stop_confirmed()
            self.rig.compare(side.database, leave_out=("done",))
        return Run(work, side.name, reading.seconds, cpu, 0, reading.wal_bytes, found)

    def full(self, side: Follower) -> Run:
        def load(watch) -> dict[str, float]:
            return {"tps": transactions_per_second(self.rig.pgbench("-n", "-c", "4", "-T", str(self.seconds),
                                                             durable=True))}
        return self.measure(FULL, side, load)

    def part(self, work: str, side: Follower, rate: float) -> Run:
        def load(watch) -> dict[str, float]:
            reports: list[str] = []
            background = threading.Thread(target=lambda: reports.append(
                self.rig.pgbench("-n", "-c", "4", "-R", f"{rate:.0f}", "-T", str(self.seconds),
                                 durable=work == PART)))
            background.start()
            milliseconds = []
            while background.is_alive():
                milliseconds.append(self.probed(watch) * 1e3)
                time.sleep(random.uniform(0.02, 0.05))  # probes do not march in step with anything
            background.join()
            ranks = statistics.quantiles(milliseconds, n=100)
            return {"tps": transactions_per_second(reports[0]), "probes": len(milliseconds), "p50_ms": ranks[49],
                    "p99_ms": ranks[98], "max_ms": max(milliseconds)}
        return self.measure(work, side, load)

    def probed(self, watch) -> float:
        """Seconds from the end of one commit on the source to its row's being seen on the target."""
        self.probe += 1
        watch.ask_source(f"INSERT INTO public.probe VALUES ({self.probe}) RETURNING id")
        committed = time.monotonic()
        servers.wait_until(lambda: watch.ask_target(f"SELECT 1 FROM public.probe WHERE id = {self.probe}"), 60,
                           "a probe to arrive", 0.0001)
        return time.monotonic() - committed


def run(options, show: Show) -> list[Run]:
    runs = []
    with Rig(options.source, options.target) as rig, Drain(rig, options.size, show, floors=False) as pair:
        latency = Latency(pair, 5 if options.quick else 30)
        rounds = min(options.pairs, 3)
        for number in range(rounds):
            for side in order([Nobody(rig), pair.native, pair.walferry], number):
                runs.append(latency.full(side))
                show.run(runs[-1])
        with_native = statistics.median(run.more["tps"] for run in runs if run.side == "native")
        for number in range(rounds):
            for work in (PART, LATE):
                for side in order([pair.native, pair.walferry], number):
                    runs.append(latency.part(work, side, 0.3 * with_native))
                    show.run(runs[-1])
    return runs
