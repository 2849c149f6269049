"""CPU seconds: of a whole server, of a running process, of commands that ended.

A server's CPU is that of its postmaster, of every living child, and of every child that has exited (the postmaster's
cutime). Backends that belong to the measurement itself are left out; they must live from one reading to the next. All
of it is the kernel's count in ticks of 10 ms.
"""

from __future__ import annotations

import os
import select
import subprocess
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


def _stat(pid: int) -> tuple[float, float]:
    """Seconds of the process itself, and of its children that it has waited for."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    user, system, children_user, children_system = map(int, fields[11:15])
    return (user + system) / TICKS, (children_user + children_system) / TICKS


def of_process(pid: int) -> float:
    """With the children that it has waited for."""
    return sum(_stat(pid))


def of_server(postmaster: int, apart_from: Collection[int] = ()) -> float:
    """See above. A child that exits while this reads would be counted twice or not at all, so then it reads again."""
    while True:
        own, exited = _stat(postmaster)
        children = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()
        try:
            living = sum(of_process(pid) for pid in map(int, children) if pid not in apart_from)
        except (FileNotFoundError, ProcessLookupError):
            continue
        if _stat(postmaster)[1] == exited:
            return own + exited + living


@dataclass
class Ended:
    """How a command ended."""

    seconds: float
    cpu: float
    out: str


class Command:
    """A program whose CPU is known when it ends, children that it waited for included."""

    def __init__(self, words: list[str], **settings):
        self.words = list(map(str, words))
        self.started = time.monotonic()
        self.process = subprocess.Popen(self.words, **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE,
                                                       "stdin": subprocess.DEVNULL} | settings)
        self._handle = os.pidfd_open(self.process.pid)

    def ended(self, wait_seconds: float = 0) -> bool:
        """Whether it has; it is not taken from the kernel by asking."""
        return bool(select.select([self._handle], [], [], wait_seconds)[0])

    def wait(self, deadline_seconds: float) -> Ended:
        """Throws when it failed. Its output must fit a pipe (64 KB)."""
        if not self.ended(deadline_seconds):
            self.process.kill()
            raise TimeoutError(f"{self.words[0]} did not end within {deadline_seconds:.0f} s")
        seconds = time.monotonic() - self.started
        _, status, used = os.wait4(self.process.pid, 0)
        os.close(self._handle)
        self.process.returncode = os.waitstatus_to_exitcode(status)
        texts = []
        for pipe in (self.process.stdout, self.process.stderr):
            texts.append(pipe.read().decode(errors="replace") if pipe else "")
            if pipe:
                pipe.close()
        out, problem = texts
        if self.process.returncode != 0:
            raise RuntimeError(f"{' '.join(self.words)} ended with {self.process.returncode}: {problem[-2000:]}")
        return Ended(seconds, used.ru_utime + used.ru_stime, out)


def run(words: list[str], deadline_seconds: float = 1200, **settings) -> Ended:
    return Command(words, **settings).wait(deadline_seconds)
