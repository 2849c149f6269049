"""What a person sees while it runs, on stderr."""

from __future__ import annotations

import sys
import time

from bench.result import Run


class Show:
    def __init__(self):
        self.started = time.monotonic()

    def line(self, text: str) -> None:
        print(f"{time.monotonic() - self.started:6.0f} s  {text}", file=sys.stderr, flush=True)

    def run(self, run: Run) -> None:
        self.line(str(run))
