"""PostgreSQL's client programs of a major that serves both servers."""

from __future__ import annotations

import functools
import re
import subprocess
from pathlib import Path

import servers


@functools.cache
def _majors(program: str) -> dict[int, Path]:
    """Where each major's is; what scripts/fetch-clients brought, and the distribution's."""
    found: dict[int, Path] = {}
    for folder in servers.client_bindirs() + sorted(Path("/usr/lib/postgresql").glob("[0-9]*/bin")):
        if (folder / program).exists():
            answer = subprocess.run([folder / program, "--version"], capture_output=True, text=True).stdout
            if match := re.search(r"\) (\d+)", answer):
                found.setdefault(int(match.group(1)), folder / program)
    return found


def find(program: str, source_major: int, target_major: int) -> Path:
    """The target's major if it can read the source, else the lowest that can: walferry's own rule."""
    found = {major: path for major, path in _majors(program).items() if major >= source_major}
    if not found:
        raise FileNotFoundError(f"no {program} that reads PostgreSQL {source_major} (scripts/fetch-clients brings newer ones)")
    return found.get(target_major) or found[min(found)]
