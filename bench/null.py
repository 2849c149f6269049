"""Who reads the stream and throws it away: the floor under every drain.

Each reads a slot of its own, made before the work and dropped after it, up to the LSN where the work ended.
"""

from __future__ import annotations

import json
import subprocess

from bench import cpu
from bench.rig import Rig, program


class NullSide:
    """One way of reading. Wall and CPU of the servers are taken by the caller, from the moment the slot is active."""

    database = "postgres"

    def __init__(self, rig: Rig, name: str):
        self.rig = rig
        self.name = name
        self.slot = "".join(c if c.isalnum() else "_" for c in name.lower())

    def command(self, until: str) -> list[str]:
        raise NotImplementedError

    def make_slot(self) -> None:
        self.rig.execute(f"SELECT pg_create_logical_replication_slot('{self.slot}', 'pgoutput')")

    def drop_slot(self) -> None:
        self.rig.await_free(self.slot)
        self.rig.execute(f"SELECT pg_drop_replication_slot('{self.slot}')")

    def start(self, until: str) -> cpu.Command:
        return cpu.Command(self.command(until), stdout=subprocess.PIPE)


class NullReceiver(NullSide):
    """Ours (null_receiver.cpp)."""

    def __init__(self, rig: Rig, manner: str, text: bool = False):
        super().__init__(rig, f"null {manner}" + (" text" if text else ""))
        self.manner = manner
        self.text = text

    def command(self, until: str) -> list[str]:
        return [str(program("bench_null_receiver")), "--source", self.rig.source_address, "--slot", self.slot,
                "--publication", "native", "--until", until, "--manner", self.manner, *(["--text"] if self.text else [])]


class RecvLogical(NullSide):
    """PostgreSQL's pg_recvlogical into /dev/null."""

    def __init__(self, rig: Rig):
        super().__init__(rig, "pg_recvlogical")
        major = rig.source.binaries.major
        self.options = ["proto_version=" + ("1" if major < 14 else "2"), "publication_names=native"]
        if major >= 14:
            self.options += ["binary=true", "streaming=on"]

    def command(self, until: str) -> list[str]:
        words = ["pg_recvlogical", "--start", "--no-loop", "--slot", self.slot, "--endpos", until, "--file", "/dev/null",
                 "--fsync-interval", "0", "--dbname", self.rig.source_address]
        for option in self.options:
            words += ["--option", option]
        return words


def report_of(ended: cpu.Ended) -> dict[str, float]:
    """What our receiver printed; nothing of others."""
    return {name: value for name, value in json.loads(ended.out).items() if name in ("messages", "bytes")} if ended.out else {}
