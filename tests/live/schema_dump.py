"""`pg_dump --schema-only` of both ends by one pg_dump, normalised for comparison.

The newest pg_dump found is taken: scripts/fetch-clients brings 17 and 18. Debian 12 itself has 15 only, and pg_dump
refuses any newer server by its version number alone. So for a server newer than the newest pg_dump the dump goes
through a proxy that changes one thing: the server_version reported at connection start. The catalogs pg_dump 15 reads
still exist in 16 to 18; new kinds of objects would be missed, but then the source is one that pg_dump 15 knows, so there
are none.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import socket
import struct
import subprocess
from pathlib import Path

from proxy import Proxy
from servers import Server, client_bindirs


class DumpError(Exception):
    """pg_dump failed."""


def find_pg_dump() -> tuple[str, int]:
    """The newest pg_dump installed or fetched, and its major version."""
    places = [folder / "pg_dump" for folder in client_bindirs()]
    places += list(Path("/usr/lib/postgresql").glob("[0-9]*/bin/pg_dump"))
    if shutil.which("pg_dump"):
        places.append(Path(shutil.which("pg_dump")))
    found = []
    for place in places:
        if place.exists():
            answer = subprocess.run([place, "--version"], text=True, capture_output=True, check=True).stdout
            found.append((int(re.search(r"\) (\d+)", answer).group(1)), str(place)))
    if not found:
        raise DumpError("no pg_dump found; scripts/install-packages installs postgresql-client-15")
    major, place = max(found)
    return place, major


class VersionMask(Proxy):
    """In front of a server that is to report another server_version."""

    def __init__(self, server: Server, version: str):
        super().__init__(server)
        self.version = version.encode()

    def carry_back(self, server: socket.socket, client: socket.socket) -> None:
        """Messages up to the first ReadyForQuery are looked at, everything after passes as bytes."""
        stream = server.makefile("rb")
        while True:
            head = stream.read(5)
            if len(head) < 5:
                return
            body = stream.read(struct.unpack("!I", head[1:])[0] - 4)
            if head[:1] == b"S" and body.startswith(b"server_version\0"):
                body = b"server_version\0" + self.version + b"\0"
            client.sendall(head[:1] + struct.pack("!I", len(body) + 4) + body)
            if head[:1] == b"Z":
                break
        while chunk := stream.read1(65536):
            client.sendall(chunk)


def dump_schema(server: Server, database: str, exclude_schemas: tuple[str, ...] = ("walferry",)) -> list[str]:
    """The normalised schema dump: statements only, no comments, settings or version lines."""
    program, major = find_pg_dump()
    with contextlib.ExitStack() as stack:
        host = str(server.socket_dir)
        if server.binaries.major > major:
            host = str(stack.enter_context(VersionMask(server, f"{major}.99")).folder)
        command = [program, "--schema-only", "--no-publications", "--no-subscriptions", "--encoding=UTF8",
                   *(f"--exclude-schema={name}" for name in exclude_schemas),
                   "-d", f"host={host} port={server.port} user=postgres sslmode=disable gssencmode=disable"
                         f" dbname='{database}' options='-c quote_all_identifiers=off'"]
        result = subprocess.run(command, text=True, capture_output=True, timeout=300, stdin=subprocess.DEVNULL)
    if result.returncode != 0:
        raise DumpError(f"pg_dump of {server.name}/{database} failed:\n{result.stderr}")
    return normalise(result.stdout)


_NOISE = re.compile(r"^(--|SET |SELECT pg_catalog\.set_config|\\(un)?restrict |$)")
# The write fence that a cutover leaves on the source is walferry's own, not the application's schema.
_FENCE = re.compile(r"^(CREATE TRIGGER walferry_fence(?:_rows)? [^;]*|ALTER TABLE [^;]* ENABLE ALWAYS TRIGGER walferry_fence(?:_rows)?);$", re.MULTILINE)
# So are the event triggers that tell of schema changes.
_DDL_TRIGGER = re.compile(r"^(CREATE EVENT TRIGGER \S+ ON \w+\s+EXECUTE FUNCTION walferry\.[^;]*"
                          r"|ALTER EVENT TRIGGER \S+_ddl(_drop|_rewrite)? [^;]*);$", re.MULTILINE)
# The servers of August 2026 keep a counter of their own among a column's options; a pg_dump that does not know it shows it.
_COUNTER = re.compile(r'^ALTER (?:FOREIGN )?TABLE (?:"(?:[^"]|"")*"|[^";])*? SET \(pg_attver=\d+\);$', re.MULTILINE)
_VIEW = re.compile(r"^CREATE (MATERIALIZED )?VIEW ")
_QUALIFIER = re.compile(r'(?:"(?:[^"]|"")+"|\b[a-z_]\w*)\.(?=["\w*])')
_TABLES_NAMED = re.compile(r"\b(FROM|JOIN|VIEW)\b")


def normalise(dump: str) -> list[str]:
    """Drops comments, SET lines, psql meta lines and empty lines; keeps the order of everything else."""
    lines = []
    in_body = False  # inside a dollar-quoted function body every line counts
    in_view = False
    for line in _COUNTER.sub("", _DDL_TRIGGER.sub("", _FENCE.sub("", dump))).splitlines():
        in_view = in_view or bool(_VIEW.match(line))
        if in_body or not _NOISE.match(line):
            # PostgreSQL 16 no longer qualifies columns in views of one table; joins keep their table names below FROM.
            lines.append(_QUALIFIER.sub("", line.rstrip()) if in_view and not _TABLES_NAMED.search(line) else line.rstrip())
        in_view = in_view and not line.endswith(";")
        if line.count("$$") % 2 or line.count("$_$") % 2:
            in_body = not in_body
    return lines
