"""A private source and target with what every section asks of them: connections, pgbench, WAL, CPU, comparison."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import psycopg2
import servers
from bench import REPOSITORY, cpu, tools

SOURCE_DATABASE = "bench"
SETTINGS = {"shared_buffers": "256MB", "max_wal_size": "16GB", "checkpoint_timeout": "1h", "autovacuum": "off",
            "wal_sender_timeout": "0", "max_replication_slots": "30", "max_wal_senders": "30"}


class Different(Exception):
    """The target does not hold what the source holds: the run counts for nothing."""


def program(name: str) -> Path:
    """A program of the build."""
    path = REPOSITORY / "build" / "release" / "bench" / name
    if not os.access(path, os.X_OK):
        raise FileNotFoundError(f"{path} does not exist; build it: cmake --build --preset release --target {name}")
    return path


class Watch:
    """Two open connections that look on while something runs; their backends' CPU is nobody's."""

    def __init__(self, rig: Rig, target_database: str):
        self.rig = rig
        self._connections = [psycopg2.connect(rig.source.dsn(SOURCE_DATABASE), application_name="bench"),
                             psycopg2.connect(rig.target.dsn(target_database), application_name="bench")]
        self._cursors = []
        for connection in self._connections:
            connection.autocommit = True
            self._cursors.append(connection.cursor())
        self.backends = {connection.info.backend_pid for connection in self._connections}

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *exception) -> None:
        for connection in self._connections:
            connection.close()

    def _ask(self, cursor, sql: str):
        cursor.execute(sql)
        row = cursor.fetchone()
        return row and row[0]

    def ask_source(self, sql: str):
        return self._ask(self._cursors[0], sql)

    def ask_target(self, sql: str):
        return self._ask(self._cursors[1], sql)

    def meter(self) -> Meter:
        return Meter(self)


@dataclass
class Reading:
    seconds: float
    cpu: dict[str, float] = field(default_factory=dict)
    wal_bytes: int = 0


class Meter:
    """Wall, CPU of both servers, and WAL of the target since it was made."""

    def __init__(self, watch: Watch):
        self.watch = watch
        self.begun = self._read()

    def _read(self) -> Reading:
        rig, apart = self.watch.rig, self.watch.backends
        now = time.monotonic()
        return Reading(now, {"source": cpu.of_server(rig.source.pid, apart), "target": cpu.of_server(rig.target.pid, apart)},
                       int(self.watch.ask_target("SELECT pg_current_wal_insert_lsn() - '0/0'")))

    def read(self) -> Reading:
        now, then = self._read(), self.begun
        return Reading(now.seconds - then.seconds, {name: now.cpu[name] - then.cpu[name] for name in now.cpu},
                       now.wal_bytes - then.wal_bytes)


class Rig:
    """The two servers. Between server and client TCP unless said otherwise; the bench itself uses the Unix sockets."""

    def __init__(self, source_major: int, target_major: int, tcp: bool = True, settings: dict[str, str] | None = None):
        found = servers.find_binaries()
        for major in (source_major, target_major):
            if major not in found:
                raise SystemExit(f"no PostgreSQL {major} here; found: {sorted(found)} (scripts/fetch-postgres brings others)")
        self.tcp = tcp
        self.folder = Path(tempfile.mkdtemp(prefix="wf-bench-", dir="/tmp"))
        self.folder.chmod(0o755)
        self.source, self.target = (
            servers.Server(found[major], name, tcp=tcp, settings=SETTINGS | (settings or {}), fsync=False)
            for major, name in ((source_major, "bsource"), (target_major, "btarget")))

    def __enter__(self) -> Rig:
        self.source.start()
        self.target.start()
        self.source.create_database(SOURCE_DATABASE)
        return self

    def __exit__(self, *exception) -> None:
        self.source.remove()
        self.target.remove()
        shutil.rmtree(self.folder, ignore_errors=True)

    def address(self, server: servers.Server, database: str) -> str:
        return server.uri(database) if self.tcp else server.dsn(database)

    @property
    def source_address(self) -> str:
        return self.address(self.source, SOURCE_DATABASE)

    # -- the source ----------------------------------------------------------------------------------------------

    def execute(self, *statements: str) -> None:
        self.source.execute(SOURCE_DATABASE, *statements)

    def ask(self, sql: str, parameters=None):
        return self.source.scalar(SOURCE_DATABASE, sql, parameters)

    def pgbench(self, *options: str, durable: bool = False) -> str:
        """Its report. Commits do not wait for the disk unless that is what is measured."""
        found = sorted(Path("/usr/lib/postgresql").glob("*/bin/pgbench"))
        if not found:
            raise FileNotFoundError("pgbench is not installed (Debian: postgresql-client-15 or postgresql-15)")
        return subprocess.run(
            [found[-1], *options, "-h", self.source.socket_dir, "-p", str(self.source.port), "-U", servers.SUPERUSER,
             SOURCE_DATABASE], check=True, capture_output=True, text=True,
            env=os.environ | {"PGOPTIONS": "" if durable else "-c synchronous_commit=off"}).stdout

    def tool(self, name: str) -> Path:
        """pg_dump or pg_restore for these two servers."""
        return tools.find(name, self.source.binaries.major, self.target.binaries.major)

    def schema(self, *options: str) -> str:
        """The source's objects as SQL."""
        return subprocess.run([self.tool("pg_dump"), "-s", *options, "-d", self.source.dsn(SOURCE_DATABASE)],
                              capture_output=True, text=True, check=True).stdout

    def publish(self, publication: str) -> None:
        """All tables of schema public, one by one: what walferry keeps on the source for itself is not for others."""
        tables = self.ask("SELECT string_agg(format('public.%I', tablename), ', ') FROM pg_tables WHERE schemaname = 'public'")
        self.execute(f"CREATE PUBLICATION {publication} FOR TABLE {tables}")

    def written(self) -> str:
        """Where its WAL ends now."""
        return self.ask("SELECT pg_current_wal_insert_lsn()::text")

    def await_free(self, slot: str) -> None:
        sql = "SELECT NOT active FROM pg_replication_slots WHERE slot_name = %s"
        servers.wait_until(lambda: self.ask(sql, (slot,)), 60, f"slot {slot} to be free", 0.02)

    # -- the target ----------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def target_database(self, name: str):
        self.target.create_database(name)
        try:
            yield name
        finally:
            self.target.drop_database(name)

    def checkpoint(self) -> None:
        """Now, so that none falls into what is measured."""
        for server in (self.source, self.target):
            server.execute("postgres", "CHECKPOINT")

    def watch(self, target_database: str) -> Watch:
        return Watch(self, target_database)

    # -- both ----------------------------------------------------------------------------------------------------

    def compare(self, database: str, leave_out: tuple[str, ...] = ()) -> None:
        """Every table of schema public, row for row. Throws Different."""
        tables = [name for (name,) in self.source.query(
            SOURCE_DATABASE, "SELECT quote_ident(tablename) FROM pg_tables WHERE schemaname = 'public'")]
        for table in tables:
            if table in leave_out:
                continue
            sql = (f"SELECT count(*), sum(hashtextextended(t::text, 0)), sum(hashtextextended(t::text, 1))"
                   f" FROM public.{table} t")
            wanted, found = self.source.query(SOURCE_DATABASE, sql), self.target.query(database, sql)
            if wanted != found:
                raise Different(f"public.{table} of {database}: the source has {wanted[0][0]} rows, the target"
                                f" {found[0][0]}, and they are not the same: the run counts for nothing")
