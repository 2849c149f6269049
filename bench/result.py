"""One measured run, and what several of them come to."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field


@dataclass
class Run:
    """`cpu` holds seconds by process: source, target, and own (walferry's or the peer's)."""

    work: str
    side: str
    seconds: float
    cpu: dict[str, float] = field(default_factory=dict)
    changes: int = 0  # rows or changes, whatever the section counts
    wal_bytes: int = 0  # written by the target
    more: dict[str, float] = field(default_factory=dict)

    @property
    def cpu_total(self) -> float:
        return sum(self.cpu.values())

    def as_json(self) -> dict:
        return asdict(self)

    def __str__(self) -> str:
        cpu = ", ".join(f"{name} {seconds:.2f}" for name, seconds in self.cpu.items())
        more = ", ".join(f"{name} {value:g}" for name, value in self.more.items())
        return f"{self.work:14} {self.side:22} {self.seconds:7.2f} s; CPU {cpu}" + (f"; {more}" if more else "")


def seconds_of(run: Run) -> float:
    return run.seconds


def cpu_of(run: Run) -> float:
    return run.cpu_total


class Runs:
    """The runs of a section: chosen by work and side, and brought down to medians."""

    def __init__(self, runs: Iterable[Run]):
        self.all = list(runs)

    def works(self) -> list[str]:
        return list(dict.fromkeys(run.work for run in self.all))

    def sides(self, work: str) -> list[str]:
        return list(dict.fromkeys(run.side for run in self.all if run.work == work))

    def of(self, work: str, side: str) -> list[Run]:
        return [run for run in self.all if run.work == work and run.side == side]

    def has(self, work: str, side: str) -> bool:
        return bool(self.of(work, side))

    def median(self, work: str, side: str, value: Callable[[Run], float] = seconds_of) -> float:
        return statistics.median(map(value, self.of(work, side)))

    def spread(self, work: str, side: str) -> str:
        """Median seconds with the fastest and the slowest run."""
        seconds = [run.seconds for run in self.of(work, side)]
        if len(seconds) == 1:
            return f"{seconds[0]:.2f}"
        return f"{statistics.median(seconds):.2f} ({min(seconds):.2f} to {max(seconds):.2f})"

    def ratio(self, work: str, side: str, beside: str, value: Callable[[Run], float] = seconds_of) -> float | None:
        """Median of `beside` divided by the median of `side`: how many times less `side` takes."""
        if not (self.has(work, side) and self.has(work, beside)):
            return None
        least = self.median(work, side, value)
        return self.median(work, beside, value) / least if least > 0 else None


def order(sides: list, number: int) -> list:
    """A B C, then C B A: what drifts during the runs falls on every side alike."""
    return list(sides) if number % 2 == 0 else list(reversed(sides))
