"""Drains over a longer wire: a proxy before each server delivers every byte half a round trip later.

Without delay the bytes go through the same proxies, so that what is compared is the delay alone. The proxies' own CPU is
not counted. What the kernels see is loopback still: windows and their own round-trip times are not those of a long wire.
"""

from __future__ import annotations

import subprocess

import servers
from bench import workload
from bench.drain import Drain
from bench.result import Run, order
from bench.rig import SOURCE_DATABASE, Rig, program
from bench.show import Show

WORKS = ("tpcb", "inserts")
QUICK_WORKS = ("tpcb",)


class Proxy:
    """One server's wire."""

    def __init__(self, server: servers.Server, round_trip_ms: float):
        self.process = subprocess.Popen([program("bench_delay_proxy"), "--port", str(server.port), "--delay-us",
                                         f"{round_trip_ms * 500:.0f}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.port = int(self.process.stdout.readline())

    def address(self, database: str) -> str:
        return f"postgresql://{servers.SUPERUSER}@127.0.0.1:{self.port}/{database}"

    def end(self) -> None:
        self.process.stdin.close()
        self.process.wait(30)
        self.process.stdout.close()


class Wires:
    """Each server with and without delay."""

    def __init__(self, rig: Rig, round_trip_ms: float):
        self.proxies = {(end, delayed): Proxy(server, round_trip_ms if delayed else 0.0)
                        for end, server in (("source", rig.source), ("target", rig.target)) for delayed in (False, True)}

    def __enter__(self) -> Wires:
        return self

    def __exit__(self, *exception) -> None:
        for proxy in self.proxies.values():
            proxy.end()

    def source(self, delayed: bool) -> str:
        return self.proxies["source", delayed].address(SOURCE_DATABASE)

    def target(self, delayed: bool, database: str) -> str:
        return self.proxies["target", delayed].address(database)


# Which ends are delayed. Native is one of its ends, so it has the source's wire only.
CASES = {"no delay": (False, False), "source delayed": (True, False), "target delayed": (False, True),
         "both delayed": (True, True)}


def run(options, show: Show) -> list[Run]:
    works = [work for work in workload.WORKS if work.name in (QUICK_WORKS if options.quick else WORKS)]
    runs = []
    with Rig(options.source, options.target, settings=options.size.settings()) as rig, \
            Drain(rig, options.size, show, floors=False) as pair, Wires(rig, options.rtt_ms) as wires:
        for number in range(options.pairs):
            for work in works:
                for case, (source, target) in order(list(CASES.items()), number):
                    changes = pair.write(work)
                    pair.walferry.connect_by(wires.source(source), wires.target(target, pair.walferry.database))
                    pair.native.connect_by(wires.source(source))
                    of_native = "source delayed" if source else "no delay"
                    for side, name in order([(pair.native, of_native), (pair.walferry, case)], number):
                        made = pair.follow(side, work.name, changes)
                        made.side = f"{side.name} {name}"
                        show.run(made)
                        runs.append(made)
    return runs
