"""The goals of the project's performance work, and whether the results meet them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bench.result import Run, cpu_of
from bench.store import Results

Value = Callable[[Results], float | None]


@dataclass(frozen=True)
class Goal:
    """At least `wanted`, or with `at_most` at most. None for a value: its section was not run."""

    text: str
    value: Value
    wanted: float
    at_most: bool = False

    def met(self, value: float) -> bool:
        return value <= self.wanted if self.at_most else value >= self.wanted


def _speed(section: str, work: str, beside: str, value=None) -> Value:
    """How many times faster walferry is than `beside`."""
    return lambda results: results.runs(section).ratio(work, "walferry", beside, *([value] if value else []))


def _cpu_against_native(work: str) -> Value:
    def value(results: Results) -> float | None:
        ratio = results.runs("drain").ratio(work, "walferry", "native", cpu_of)
        return 1 / ratio if ratio else None
    return value


def _own_per_change(work: str) -> Value:
    def value(results: Results) -> float | None:
        runs = results.runs("drain")
        if not runs.has(work, "walferry"):
            return None
        changes = runs.of(work, "walferry")[0].changes
        return runs.median(work, "walferry", lambda run: run.cpu["own"]) / changes * 1e6
    return value


def _own_share_of_copy(results: Results) -> float | None:
    runs = results.runs("copy")
    works = [work for work in runs.works() if runs.has(work, "walferry")]
    shares = [runs.median(work, "walferry", lambda run: run.cpu["own"] / max(run.cpu_total, 0.01)) for work in works]
    return max(shares) * 100 if shares else None


def _best_pipe(parts: int) -> Value:
    """Against the fastest pipe with as many parts, over all tables."""
    def value(results: Results) -> float | None:
        runs = results.runs("copy")
        ratios = []
        for work in runs.works():
            pipes = [runs.ratio(work, "walferry", side) for side in runs.sides(work) if side.endswith(f"x{parts}")]
            ratios += [min(ratio for ratio in pipes if ratio is not None)] if pipes else []
        return min(ratios) if ratios else None
    return value


def _clone(prefix: str) -> Value:
    def value(results: Results) -> float | None:
        runs = results.runs("clone")
        sides = [side for side in runs.sides("clone") if side.startswith(prefix)]
        return runs.ratio("clone", "walferry", sides[0]) if sides else None
    return value


def _latency(name: str, work: str = "30 % load") -> Value:
    def value(results: Results) -> float | None:
        runs = results.runs("latency")
        if not (runs.has(work, "walferry") and runs.has(work, "native")):
            return None
        def of(run: Run) -> float:
            return run.more[name]
        return runs.median(work, "walferry", of) / max(0.01, runs.median(work, "native", of))
    return value


def _throughput(results: Results) -> float | None:
    """The source's transactions per second while walferry streams, divided by those while native does."""
    runs = results.runs("latency")
    if not (runs.has("full load", "walferry") and runs.has("full load", "native")):
        return None
    def of(run: Run) -> float:
        return run.more["tps"]
    return runs.median("full load", "walferry", of) / runs.median("full load", "native", of)


def _large(name: str) -> Value:
    def value(results: Results) -> float | None:
        runs = results.runs("large")
        return runs.median("one transaction", "walferry", lambda run: run.more[name]) \
            if runs.has("one transaction", "walferry") else None
    return value


def _large_against_small(results: Results) -> float | None:
    runs = results.runs("large")
    if not (runs.has("one transaction", "walferry") and runs.has("small transactions", "walferry")):
        return None
    return runs.median("one transaction", "walferry") / runs.median("small transactions", "walferry")


def _rtt(results: Results) -> float | None:
    """The worst over the works, with the delay on both servers."""
    runs = results.runs("rtt")
    ratios = [runs.ratio(work, "walferry no delay", "walferry both delayed") for work in runs.works()]
    return max((ratio for ratio in ratios if ratio), default=None)


def _lanes(results: Results) -> float | None:
    """The least gain from 1 to 2 lanes, by the CPU of the busiest backend, over the works that the target holds back."""
    runs = results.runs("lanes")
    def busiest(work: str, side: str) -> float:
        return runs.median(work, side, lambda run: run.more["busiest_s"])
    held_back = [work for work in runs.works()
                 if busiest(work, "1 lane") > runs.median(work, "1 lane", lambda run: run.cpu["source"])]
    return min((busiest(work, "1 lane") / busiest(work, "2 lanes") for work in held_back), default=None)


def _growth(results: Results) -> float | None:
    """The worst step that takes a second or more where there are most tables."""
    from bench import table

    runs = results.runs("tables")
    works = sorted(runs.works(), key=lambda work: runs.of(work, runs.sides(work)[0])[0].changes)
    if len(works) < 2:
        return None
    return max((table.growth(runs, works[0], works[-1], step) for step in runs.sides(works[-1])
                if "not ours" not in step and runs.median(works[-1], step) >= 1), default=None)


DRAINS = [("tpcb", 2.0), ("inserts", 1.8), ("updates", 1.8), ("deletes", 1.6), ("hot keys", 2.5)]
GOALS = [
    *(Goal(f"drain of {work}: speed / native", _speed("drain", work, "native"), wanted) for work, wanted in DRAINS),
    *(Goal(f"drain of {work}: speed / null lazy", _speed("drain", work, "null lazy"), 0.8) for work, _ in DRAINS),
    Goal("drain of tpcb: speed / pg_recvlogical", _speed("drain", "tpcb", "pg_recvlogical"), 1.0),
    *(Goal(f"drain of {work}, Unix sockets: speed / native", _speed("unix", work, "native"), 1.0) for work, _ in DRAINS),
    *(Goal(f"drain of {work}: all CPU / native's", _cpu_against_native(work), 0.6, at_most=True) for work, _ in DRAINS),
    *(Goal(f"drain of {work}: own CPU, us per change", _own_per_change(work), 1.0, at_most=True) for work, _ in DRAINS),
    Goal("copy: own share of all CPU, %", _own_share_of_copy, 4, at_most=True),
    Goal("copy: speed / best psql pipe of 2 parts", _best_pipe(2), 1.0),
    Goal("clone: speed / pgcopydb", _clone("pgcopydb"), 1.25),
    Goal("clone: speed / pg_dump, pg_restore", _clone("pg_dump"), 1.9),
    Goal("clone: speed / native initial sync", _clone("native"), 2.5),
    Goal("latency p50 / native's", _latency("p50_ms"), 1.0, at_most=True),
    Goal("latency p99 / native's", _latency("p99_ms"), 1.0, at_most=True),
    Goal("latency p50 / native's, asynchronous commits", _latency("p50_ms", "30 % load, asynchronous"), 1.0, at_most=True),
    Goal("source transactions per second / with native", _throughput, 1.0),
    Goal("10M rows at once: peak RSS, MiB", _large("peak_rss_mib"), 256, at_most=True),
    Goal("10M rows at once: time / in small transactions", _large_against_small, 1.1, at_most=True),
    Goal("10M rows at once: spilled on the source, MiB", _large("spill_mib"), 0, at_most=True),
    Goal("delay of both servers: time / without", _rtt, 1.1, at_most=True),
    Goal("2 lanes where the target holds a drain back: CPU of the busiest backend, 1 lane / 2", _lanes, 1.7),
    Goal("many tables: worst step's power", _growth, 1.1, at_most=True),
]


def table(results: Results) -> str:
    lines = ["| goal | wanted | measured | met |", "|---|---|---|---|"]
    for goal in GOALS:
        value = goal.value(results)
        if value is not None:
            wanted = f"{'<=' if goal.at_most else '>='} {goal.wanted:g}"
            lines.append(f"| {goal.text} | {wanted} | {value:.2f} | {'yes' if goal.met(value) else '**no**'} |")
    return "\n".join(lines)
