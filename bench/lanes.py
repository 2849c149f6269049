"""The apply with one lane and with more: how long, and how much the busiest backend on the target has to do.

Where all processes share few processors the time says little of lanes. The accounting does: with a processor for each
backend a drain that the target holds back takes as long as its busiest backend works, so the CPU of the one backend of
one lane divided by that of the busiest of several is what they gain.
"""

from __future__ import annotations

from bench import cpu, workload
from bench.drain import Drain
from bench.result import Run, order
from bench.rig import Rig, Watch
from bench.show import Show

NUMBERS = (1, 2, 4)
# Transactions that are streamed while in progress are written early, by a connection of their own.
SETTINGS = {"logical_decoding_work_mem": "1GB"}
WORKS = ("tpcb", "inserts", "updates", "deletes")


def backends(watch: Watch) -> dict[str, float]:
    """CPU seconds of the apply's backends since they were begun."""
    pids = watch.ask_target("SELECT array_agg(pid) FROM pg_stat_activity WHERE application_name ~"
                            " '^walferry (apply|lane|early|ahead) '")
    seconds = [cpu.of_process(pid) for pid in pids]
    return {"busiest_s": max(seconds), "backends_s": sum(seconds), "backends": len(seconds)}


class Lanes:
    def __init__(self, drain: Drain):
        self.drain = drain
        self.rig = drain.rig
        self.side = drain.walferry

    def measure(self, work: str, changes: int, lanes: int) -> Run:
        self.rig.checkpoint()
        self.side.run_options = ("--apply-lanes", str(lanes))
        with self.rig.watch(self.side.database) as watch:
            self.side.start()
            self.side.await_active(watch)
            own = self.side.own_cpu()
            meter = watch.meter()
            self.side.await_done(watch, self.drain.done)
            reading = meter.read()
            more = backends(watch)
            more["split"] = self.side.daemon.status()["apply"]["split_transactions"]
            run = Run(work, f"{lanes} lane{'s' if lanes > 1 else ''}", reading.seconds,
                      reading.cpu | {"own": self.side.own_cpu() - own}, changes, reading.wal_bytes, more)
        self.side.stop_confirmed()
        self.rig.compare(self.side.database, leave_out=("done",))
        return run


def run(options, show: Show) -> list[Run]:
    """Each number of lanes carries a work of its own, written anew."""
    runs = []
    works = [work for work in workload.WORKS if work.name in WORKS]
    with Rig(options.source, options.target, settings=SETTINGS) as rig, \
            Drain(rig, options.size, show, floors=False) as drain:
        lanes = Lanes(drain)
        for number in range(min(options.pairs, 3)):
            for count in order(list(NUMBERS), number):
                for work in works:
                    runs.append(lanes.measure(work.name, drain.write(work), count))
                    show.run(runs[-1])
    return runs
