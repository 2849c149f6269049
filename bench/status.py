"""Follows the phases of a `walferry run` from outside, through its control socket."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Callable
from pathlib import Path


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path):
        super().__init__("walferry", timeout=10)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def ask(state_dir: Path) -> dict | None:
    """The status, or None while nobody answers."""
    connection = _UnixConnection(state_dir / "control.sock")
    try:
        connection.request("GET", "/status")
        return json.loads(connection.getresponse().read())
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def rows_are_in(status: dict) -> bool:
    """Every table's rows are committed on the target."""
    return bool(status["tables"]) and all(table["state"] in ("copied", "indexing", "ready") for table in status["tables"])


def rows_have_begun(status: dict) -> bool:
    return any(table["state"] not in ("pending",) for table in status["tables"])


Condition = Callable[[dict], bool]
