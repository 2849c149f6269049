"""Private PostgreSQL servers for the live tests.

A `Server` is a cluster of its own in a temporary folder, reached over a Unix socket in that folder (and over a free
loopback port where a test asks for TCP). It is never a cluster that the user owns. Binaries are looked for in
WALFERRY_PG_BINDIRS (colon separated), then in the cache that scripts/fetch-postgres fills, then in the
distribution's /usr/lib/postgresql. As root every server process runs as an unprivileged user.
"""

from __future__ import annotations

import contextlib
import functools
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import psycopg2

SUPERUSER = "postgres"


class ServerError(Exception):
    """A server did not do what was asked; the text carries the end of its log."""


@dataclass(frozen=True)
class Binaries:
    """The server programs of one major version."""

    major: int
    bindir: Path

    def environment(self) -> dict[str, str]:
        """The fetched binaries need their own lib folder; the distribution's must not get it."""
        environment = {key: value for key, value in os.environ.items() if not key.startswith("PG")}
        environment.update(LC_ALL="C.UTF-8", TZ="UTC")
        lib = self.bindir.parent / "lib"
        if (self.bindir.parent / "pg-symlinks.json").exists() or (self.bindir.parent / "VERSION").exists():
            environment["LD_LIBRARY_PATH"] = str(lib)
        return environment


def cache_folder() -> Path:
    """The same rule as in scripts/fetch-postgres."""
    if os.environ.get("WALFERRY_CACHE"):
        return Path(os.environ["WALFERRY_CACHE"])
    if os.geteuid() == 0:
        return Path("/var/cache/walferry")
    return Path.home() / ".cache" / "walferry"


def client_bindirs() -> list[Path]:
    """Folders with a pg_dump that may be newer than the distribution's: named ones, then those of scripts/fetch-clients."""
    named = [Path(name) for name in os.environ.get("WALFERRY_PG_BINDIRS", "").split(":") if name]
    return named + sorted(cache_folder().glob("clients/[0-9]*/bin"))


def client(name: str, major: int) -> str:
    """The oldest client program that serves this major; a newer pg_restore writes settings that older servers lack."""
    found = []
    for program in (folder / name for folder in [*client_bindirs(), *Path("/usr/lib/postgresql").glob("[0-9]*/bin")]):
        if program.exists():
            answer = subprocess.run([program, "--version"], text=True, capture_output=True, check=True).stdout
            found.append((int(re.search(r"\) (\d+)", answer).group(1)), str(program)))
    serving = sorted(each for each in found if each[0] >= major)
    if not serving:
        raise ServerError(f"no {name} serves PostgreSQL {major}; found {found}; scripts/fetch-clients brings newer ones")
    return serving[0][1]


def _candidate_bindirs() -> list[Path]:
    named = [Path(name) for name in os.environ.get("WALFERRY_PG_BINDIRS", "").split(":") if name]
    fetched = sorted(cache_folder().glob("postgres/[0-9]*/bin"))
    system = sorted(Path("/usr/lib/postgresql").glob("[0-9]*/bin"))
    return named + fetched + system


@functools.cache
def find_binaries() -> dict[int, Binaries]:
    """Every major version that can be started here; the first place that has it wins."""
    found: dict[int, Binaries] = {}
    for bindir in _candidate_bindirs():
        if not (bindir / "initdb").exists() or not (bindir / "postgres").exists():
            continue
        candidate = Binaries(0, bindir)
        try:
            answer = subprocess.run([bindir / "postgres", "--version"], env=candidate.environment(), text=True,
                                    capture_output=True, timeout=20, check=True).stdout
        except (OSError, subprocess.SubprocessError):
            continue
        match = re.search(r"PostgreSQL\) (\d+)", answer)
        if match:
            found.setdefault(int(match.group(1)), Binaries(int(match.group(1)), bindir))
    return found


def unprivileged_user() -> str | None:
    """Who the server runs as when we are root, else nobody but ourselves (None)."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            pwd.getpwnam(name)
            return name
    raise ServerError("running as root, and neither the user postgres nor nobody exists")


def as_unprivileged(command: list[str], death_signal: str | None = None) -> list[str]:
    """The command line that runs `command` as the unprivileged user; with a signal it dies when we die."""
    prefix = ["setpriv"]
    user = unprivileged_user()
    if user is not None:
        entry = pwd.getpwnam(user)
        prefix += [f"--reuid={entry.pw_uid}", f"--regid={entry.pw_gid}", "--clear-groups"]
    if death_signal is not None:
        prefix.append(f"--pdeathsig={death_signal}")
    return prefix + command if len(prefix) > 1 else command


def free_port() -> int:
    """A loopback port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


# A sanitized program is several times slower: scripts/test sets this for the thread sanitizer's run.
SLOWNESS = float(os.environ.get("WALFERRY_TEST_SLOWNESS", "1"))


def wait_until(condition, deadline_seconds: float, what: str, interval_seconds: float = 0.05):
    """Polls until `condition()` is truthy and returns it; raises TimeoutError naming what was awaited."""
    deadline_seconds *= SLOWNESS
    deadline = time.monotonic() + deadline_seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() >= deadline:
            raise TimeoutError(f"waited {deadline_seconds:.0f} s in vain for: {what}")
        time.sleep(interval_seconds)


class Server:
    """One private cluster. Create it, `start()` it, `stop()` it, `remove()` it; or use `with`."""

    def __init__(self, binaries: Binaries, name: str, tcp: bool = False, settings: dict[str, str] | None = None,
                 hba: list[str] | None = None, fsync: bool = True, copy: bool = False,
                 environment: dict[str, str] | None = None):
        self.binaries = binaries
        self.environment = binaries.environment() | (environment or {})  # of the server, not of its making
        self.name = name
        # Directly under /tmp: a socket path may have 107 bytes, and TMPDIR of a CI job can be long.
        self.root = Path(tempfile.mkdtemp(prefix=f"wf-{name}-", dir="/tmp"))
        self.data = self.root / "data"
        self.log = self.root / "log"
        self.socket_dir = self.root
        self.port = free_port() if tcp else 5432
        self.tcp = tcp
        self.process: subprocess.Popen | None = None
        user = unprivileged_user()
        self.root.chmod(0o755)
        if user is not None:
            shutil.chown(self.root, user)
        self.copy = copy  # filled by copy_of()
        if not copy:
            self._initdb(settings or {}, hba or [], fsync)

    def __enter__(self) -> Server:
        return self.start()

    def __exit__(self, *exception) -> None:
        self.remove()

    def _initdb(self, settings: dict[str, str], hba: list[str], fsync: bool) -> None:
        command = [str(self.binaries.bindir / "initdb"), "-D", str(self.data), "-U", SUPERUSER, "-A", "trust",
                   "-E", "UTF8", "--locale=C.UTF-8", "--no-sync"]
        result = subprocess.run(as_unprivileged(command), env=self.binaries.environment(), cwd="/", text=True,
                                capture_output=True, timeout=120)
        if result.returncode != 0:
            raise ServerError(f"initdb of {self.name} failed:\n{result.stdout}{result.stderr}")
        values = self._address() | {
            "wal_level": "logical",
            "max_replication_slots": "20",
            "max_wal_senders": "20",
            "max_connections": "100",
            "max_prepared_transactions": "10",
            "shared_buffers": "64MB",
            "max_wal_size": "2GB",
            "fsync": "on" if fsync else "off",
            "logging_collector": "off",
            "log_line_prefix": "%m [%p] %q%a@%d ",
            "timezone": "UTC",
            "log_timezone": "UTC",
        } | settings
        self._append_settings(values)
        hba_file = self.data / "pg_hba.conf"
        hba_file.write_text("\n".join(hba) + "\n" + hba_file.read_text())

    def _address(self) -> dict[str, str]:
        return {"port": str(self.port), "listen_addresses": "127.0.0.1" if self.tcp else "",
                "unix_socket_directories": str(self.socket_dir)}

    def _append_settings(self, values: dict[str, str]) -> None:
        with open(self.data / "postgresql.conf", "a", encoding="utf-8") as file:
            for key, value in values.items():
                escaped = value.replace("'", "''")
                file.write(f"{key} = '{escaped}'\n")

    def copy_of(self, source: Server) -> Server:
        """Fills a server made with copy=True by a base backup; started, it is a standby of `source`."""
        begin, end = (("pg_backup_start('copy', true)", "pg_backup_stop(false)") if self.binaries.major >= 15 else
                      ("pg_start_backup('copy', true, false)", "pg_stop_backup(false, false)"))
        with source.connect("postgres") as connection, connection.cursor() as cursor:
            cursor.execute(f"SELECT {begin}")
            self._copy_files(source.data)
            cursor.execute(f"SELECT labelfile FROM {end}")
            label = cursor.fetchone()[0]
        (self.data / "backup_label").write_text(label)
        (self.data / "standby.signal").touch()
        self._append_settings(self._address() | {"primary_conninfo": source.dsn("postgres")})
        for path in (self.data, *self.data.rglob("*")):
            if unprivileged_user() is not None:
                shutil.chown(path, unprivileged_user())
        return self

    def _copy_files(self, data: Path) -> None:
        """As pg_basebackup does: without WAL, slots, and what belongs to the running server; files may vanish meanwhile."""
        left_out = {"pg_wal", "pg_replslot", "pg_stat_tmp", "pg_dynshmem", "pg_notify", "pg_serial", "pg_snapshots",
                    "pg_subtrans", "postmaster.pid", "postmaster.opts"}
        for folder, folders, files in os.walk(data):
            place = self.data / Path(folder).relative_to(data)
            place.mkdir(mode=0o700)
            if place.name in left_out:
                folders.clear()
                continue
            for name in files:
                if name not in left_out:
                    with contextlib.suppress(FileNotFoundError):
                        shutil.copy2(Path(folder) / name, place / name)

    # -- life ----------------------------------------------------------------------------------------------------

    def start(self, deadline_seconds: float = 60) -> Server:
        """Starts the server and waits until it accepts connections."""
        deadline = time.monotonic() + deadline_seconds
        while True:
            self._spawn()
            try:
                self._wait_ready(deadline)
                return self
            except ServerError:
                # After a kill -9 the old backends need a moment to let go of the shared memory.
                if "shared memory block" not in self.log_tail(20) or time.monotonic() >= deadline:
                    raise

    def _spawn(self) -> None:
        # Killed with us: a test run that is killed leaves no server behind (SIGQUIT is the immediate shutdown).
        command = as_unprivileged([str(self.binaries.bindir / "postgres"), "-D", str(self.data)], "QUIT")
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(command, env=self.environment, cwd="/", stdout=log,
                                            stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                                            start_new_session=True)

    def _wait_ready(self, deadline: float) -> None:
        while True:
            if self.process is None or self.process.poll() is not None:
                raise ServerError(f"server {self.name} did not start:\n{self.log_tail()}")
            try:
                psycopg2.connect(self.dsn("postgres"), connect_timeout=5).close()
                return
            except psycopg2.OperationalError as error:
                if time.monotonic() >= deadline:
                    raise ServerError(f"server {self.name} is not ready: {error}\n{self.log_tail()}") from error
            time.sleep(0.03)

    @property
    def pid(self) -> int:
        """The postmaster's pid (setpriv replaces itself by it)."""
        assert self.process is not None
        return self.process.pid

    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def stop(self, mode: str = "fast", deadline_seconds: float = 60) -> None:
        """Stops by pid: smart, fast or immediate; falls back to immediate when the deadline passes."""
        if not self.running():
            return
        self.process.send_signal(
            {"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}[mode])
        try:
            self.process.wait(deadline_seconds)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGCONT)
            self.process.send_signal(signal.SIGQUIT)
            self.process.wait(30)
            if mode != "immediate":
                raise ServerError(f"server {self.name} did not stop in mode {mode}:\n{self.log_tail()}") from None

    def kill(self) -> None:
        """kill -9 of the postmaster; its backends notice and leave."""
        self.process.kill()
        self.process.wait(30)

    def restart(self, mode: str = "fast") -> None:
        self.stop(mode)
        self.start()

    @contextlib.contextmanager
    def frozen(self):
        """The postmaster and all its backends stand still (SIGSTOP) inside the block."""
        pids = self._process_tree()
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

    def _process_tree(self) -> list[int]:
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        return [self.pid, *map(int, children)]

    def remove(self) -> None:
        """Stops at once and deletes every trace."""
        if self.running():
            self.process.send_signal(signal.SIGCONT)
            with contextlib.suppress(ServerError):
                self.stop("immediate", 30)
        shutil.rmtree(self.root, ignore_errors=True)

    def log_tail(self, lines: int = 40) -> str:
        """The last lines of the server's log, for error texts, without what writers provoke and refused early connects."""
        try:
            kept = [line for line in self.log.read_text(errors="replace").splitlines()
                    if "walferry-writer-" not in line and "not yet" not in line]
            return "\n".join(kept[-lines:])
        except OSError as error:
            return f"(no log: {error})"

    # -- access --------------------------------------------------------------------------------------------------

    def dsn(self, database: str, user: str = SUPERUSER) -> str:
        """A keyword/value connection string over the Unix socket."""
        return f"host={self.socket_dir} port={self.port} user={user} dbname={_quote_value(database)}"

    def uri(self, database: str, user: str = SUPERUSER, password: str | None = None) -> str:
        """A URI over TCP; only for servers made with tcp=True."""
        assert self.tcp, "this server listens on its Unix socket only"
        secret = f":{password}" if password else ""
        return f"postgresql://{user}{secret}@127.0.0.1:{self.port}/{database}"

    @contextlib.contextmanager
    def connect(self, database: str, autocommit: bool = True):
        """A psycopg2 connection that is closed at the end of the block."""
        connection = psycopg2.connect(self.dsn(database), application_name="walferry-test")
        connection.autocommit = autocommit
        try:
            yield connection
        finally:
            connection.close()

    def execute(self, database: str, *statements: str) -> None:
        """Runs statements one by one, each in its own transaction."""
        with self.connect(database) as connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)

    def query(self, database: str, sql: str, parameters=None) -> list[tuple]:
        with self.connect(database) as connection, connection.cursor() as cursor:
            cursor.execute(sql, parameters)
            return cursor.fetchall()

    def scalar(self, database: str, sql: str, parameters=None):
        return self.query(database, sql, parameters)[0][0]

    def create_database(self, name: str) -> None:
        self.execute("postgres", f'CREATE DATABASE {_quote_name(name)} TEMPLATE template0')

    def drop_database(self, name: str) -> None:
        """Drops the database with its slots, whoever still uses them."""
        for slot, pid in self.query("postgres", "SELECT slot_name, active_pid FROM pg_replication_slots"
                                                " WHERE database = %s", (name,)):
            if pid is not None:
                self.query("postgres", "SELECT pg_terminate_backend(%s)", (pid,))
            wait_until(lambda slot=slot: self._drop_slot(slot), 20, f"slot {slot} to be dropped")
        self.execute("postgres", f'DROP DATABASE IF EXISTS {_quote_name(name)} WITH (FORCE)')

    def _drop_slot(self, slot: str) -> bool:
        try:
            self.query("postgres", "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots"
                                   " WHERE slot_name = %s", (slot,))
            return True
        except psycopg2.errors.ObjectInUse:
            return False

    def psql(self, database: str, file: Path | str | None = None, sql: str | None = None,
             deadline_seconds: float = 300) -> None:
        """Loads a script with the distribution's psql; stops at the first error."""
        command = ["psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", self.dsn(database)]
        # Text goes in as a script too: with -c all of it would be one transaction.
        command += ["-f", str(file) if file is not None else "-"]
        result = subprocess.run(command, text=True, capture_output=True, timeout=deadline_seconds, input=sql or "", env={**os.environ, "PGOPTIONS": "-c client_min_messages=warning"})
        if result.returncode != 0:
            raise ServerError(f"psql {file or sql} on {self.name} failed:\n{result.stderr[-2000:]}")


def _quote_name(name: str) -> str:
    """An SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def _quote_value(value: str) -> str:
    """A value of a keyword/value connection string."""
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'" if re.search(r"[\s'\\]", value) or not value else value
