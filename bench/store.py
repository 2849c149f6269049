"""bench/results.json: the runs of each section with the machine they were made on. A section replaces its own runs only."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path

from bench import REPOSITORY
from bench.result import Run, Runs


def machine(options) -> dict:
    """What a reader must know of where the numbers come from."""
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=REPOSITORY, capture_output=True,
                            text=True).stdout.strip()
    model = next((line.split(":", 1)[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
                  if line.startswith("model name")), "unknown")
    return {"commit": commit, "processors": os.cpu_count(), "model": model, "source": options.source,
            "target": options.target, "socket": "Unix" if options.unix else "TCP loopback", "pairs": options.pairs,
            "quick": options.quick, "load_before": round(os.getloadavg()[0], 2),
            "at": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())}


class Results:
    """The file; written after each section, so that a later failure loses nothing."""

    def __init__(self, path: Path):
        self.path = path
        self.sections: dict[str, dict] = json.loads(path.read_text())["sections"] if path.exists() else {}

    def put(self, section: str, heading: dict, runs: list[Run]) -> None:
        self.sections[section] = {"machine": heading | {"load_after": round(os.getloadavg()[0], 2)},
                                  "runs": [run.as_json() for run in runs]}
        self.path.write_text(json.dumps({"sections": self.sections}, indent=1) + "\n")

    def runs(self, section: str) -> Runs:
        return Runs(Run(**run) for run in self.sections.get(section, {"runs": []})["runs"])

    def heading(self, section: str) -> dict:
        return self.sections[section]["machine"]
