"""How fast a backlog drains: walferry, the native subscription, and receivers that throw everything away.

Each work is written on the source while nobody reads; then each side drains it in turn, in an order that is reversed from
one round to the next. Time runs from the moment the side's slot is active until the last transaction is visible on its
target, or has been received where there is none. After each run that has a target the rows are compared.
"""

from __future__ import annotations

import servers
from bench import null, workload
from bench.follower import Follower, Native, Walferry
from bench.result import Run, order
from bench.rig import Rig
from bench.show import Show

FLOOR = "null lazy"


class Drain:
    """The sides of one rig and the works that they drain."""

    def __init__(self, rig: Rig, size: workload.Size, show: Show, floors: bool = True):
        self.rig = rig
        self.size = size
        self.show = show
        self.done = 0
        self.native = Native(rig)
        self.walferry = Walferry(rig)
        self.followers: list[Follower] = [self.native, self.walferry]
        self.nulls: list[null.NullSide] = []
        if floors:
            self.followers.append(Walferry(rig, lanes=2))
            # Over a Unix socket there is no window to leave closed.
            manners = ["eager", "lazy", "paused"] if rig.tcp else ["eager"]
            self.nulls = [*(null.NullReceiver(rig, manner) for manner in manners), null.RecvLogical(rig)]

    def __enter__(self) -> Drain:
        try:
            workload.prepare(self.rig, self.size)
            self.native.prepare(self.rig.schema())
            for side in self.followers:
                if isinstance(side, Walferry):
                    side.prepare()
        except BaseException:
            self.remove()
            raise
        return self

    def __exit__(self, *exception) -> None:
        self.remove()

    def remove(self) -> None:
        for side in self.followers:
            side.remove()

    def write(self, work: workload.Work) -> int:
        """The work, and the row that tells its end."""
        changes = work.write(self.rig, self.size)
        self.done += 1
        self.rig.execute(f"INSERT INTO public.done VALUES ({self.done})")
        return changes

    def round(self, work: workload.Work, number: int) -> list[Run]:
        for side in self.nulls:
            side.make_slot()
        changes = self.write(work)
        until = self.rig.written()
        runs = []
        for side in order([*self.followers, *self.nulls], number):
            run = self.follow(side, work.name, changes) if isinstance(side, Follower) else \
                self.receive(side, work.name, changes, until)
            self.show.run(run)
            runs.append(run)
        return runs

    def follow(self, side: Follower, work: str, changes: int) -> Run:
        self.rig.checkpoint()
        with self.rig.watch(side.database) as watch:
            side.start()
            side.await_active(watch)
            own = side.own_cpu()
            meter = watch.meter()
            side.await_done(watch, self.done)
            reading = meter.read()
            run = Run(work, side.name, reading.seconds, reading.cpu | {"own": side.own_cpu() - own}, changes,
                      reading.wal_bytes, side.more())
        side.stop_confirmed()
        self.rig.compare(side.database, leave_out=("done",))
        return run

    def receive(self, side: null.NullSide, work: str, changes: int, until: str) -> Run:
        self.rig.checkpoint()
        active = f"SELECT active FROM pg_replication_slots WHERE slot_name = '{side.slot}'"
        with self.rig.watch(side.database) as watch:
            command = side.start(until)
            servers.wait_until(lambda: watch.ask_source(active) or command.ended(), 60,
                               f"{side.name} to begin", 0.002)
            meter = watch.meter()
            ended = command.wait(1200)
            reading = meter.read()
        side.drop_slot()
        return Run(work, side.name, reading.seconds, reading.cpu | {"own": ended.cpu}, changes, 0, null.report_of(ended))


def run(options, show: Show) -> list[Run]:
    works = [work for work in workload.WORKS if not options.works or work.name in options.works]
    runs = []
    with Rig(options.source, options.target, not options.unix, options.size.settings()) as rig, \
            Drain(rig, options.size, show) as drain:
        for number in range(options.pairs):
            for work in works:
                runs += drain.round(work, number)
    return runs
