"""The real program under test: starts it, asks it, waits for it, kills it.

The binary is WALFERRY_BIN, by default build/release/walferry. The program gets a clean environment: no PG* and no
WALFERRY_* variable of the test run reaches it, but for WALFERRY_PG_BINDIRS, which names the fetched pg_dump programs.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from servers import SLOWNESS, client_bindirs, wait_until

REPOSITORY = Path(__file__).resolve().parents[2]
PHASES = ["init", "schema", "copy", "post-data", "catch-up", "follow", "cutover", "switched", "finished"]

# Exit codes: the contract of every command.
OK, USAGE, REFUSED, DIFFERENT, UNVERIFIED, SOURCE_FAILED, TARGET_FAILED, TIMED_OUT, NEEDS_PERSON = range(9)


class WalferryError(AssertionError):
    """The program did not do what the test needs; the text carries its log."""


def binary() -> Path:
    """The program's path; a test run without it cannot prove anything, so its absence is an error."""
    path = Path(os.environ.get("WALFERRY_BIN", REPOSITORY / "build/release/walferry"))
    path = path if path.is_absolute() else REPOSITORY / path
    if not os.access(path, os.X_OK):
        raise WalferryError(f"{path} does not exist; build it (cmake --preset release && cmake --build --preset release)"
                            " or name it in WALFERRY_BIN")
    return path


def environment(**extra: str) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("PG", "WALFERRY_"))}
    clients = ":".join(map(str, client_bindirs()))
    return kept | {"NO_COLOR": "1", "LC_ALL": "C.UTF-8", "WALFERRY_PG_BINDIRS": clients} | extra


@dataclass
class Answer:
    """What a finished command left."""

    code: int
    out: str
    err: str
    seconds: float

    def json(self) -> dict:
        try:
            return json.loads(self.out)
        except ValueError as error:
            raise WalferryError(f"stdout is not one JSON value ({error}):\n{self.out[:2000]}\nstderr:\n{self.err[-2000:]}") \
                from error

    def __str__(self) -> str:
        return f"exit {self.code} after {self.seconds:.1f} s\nstdout:\n{self.out[-3000:]}\nstderr:\n{self.err[-3000:]}"


def command(*arguments: str, deadline_seconds: float = 120, env: dict[str, str] | None = None) -> Answer:
    """Runs one command to its end, with nothing on stdin."""
    started = time.monotonic()
    try:
        result = subprocess.run([binary(), *map(str, arguments)], env=environment(**(env or {})), text=True,
                                capture_output=True, stdin=subprocess.DEVNULL, timeout=deadline_seconds * SLOWNESS)
    except subprocess.TimeoutExpired as error:
        raise WalferryError(f"walferry {' '.join(map(str, arguments))} did not end within {error.timeout:.0f} s\n"
                            f"stdout: {error.stdout}\nstderr: {error.stderr}") from error
    return Answer(result.returncode, result.stdout, result.stderr, time.monotonic() - started)


def parse_lsn(text: str) -> int:
    high, low = text.split("/")
    return int(high, 16) << 32 | int(low, 16)


class Daemon:
    """`walferry run` of one migration with its state directory; it may be started again and again."""

    def __init__(self, source: str, target: str, folder: Path, *options: str):
        self.source = source
        self.target = target
        self.folder = folder
        self.state_dir = folder / "state"
        self.options = list(options)
        self.environment: dict[str, str] = {}  # beside the usual one
        self.process: subprocess.Popen | None = None
        self.starts = 0
        self.log = folder / "run-0.log"

    # -- the daemon ----------------------------------------------------------------------------------------------

    def start(self, *options: str) -> Daemon:
        """Starts `run`; its stdout and stderr go to a file of this start."""
        assert not self.alive(), "it is running already"
        self.starts += 1
        self.log = self.folder / f"run-{self.starts}.log"
        # Killed with us, so that an aborted test run leaves nothing running.
        arguments = ["setpriv", "--pdeathsig=KILL", str(binary()), "run", "--source", self.source,
                     "--target", self.target, "--state-dir", str(self.state_dir), *self.options, *options]
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(arguments, env=environment(**self.environment), stdout=log, stderr=subprocess.STDOUT,
                                            stdin=subprocess.DEVNULL, start_new_session=True)
        return self

    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def expect_alive(self) -> None:
        if not self.alive():
            code = None if self.process is None else self.process.returncode
            raise WalferryError(f"walferry run (start {self.starts}) ended with exit code {code}:\n{self.log_tail()}")

    def await_exit(self, deadline_seconds: float = 120) -> int:
        """Its exit code, once it ended by itself."""
        try:
            return self.process.wait(deadline_seconds * SLOWNESS)
        except subprocess.TimeoutExpired:
            raise WalferryError(f"walferry run did not end within {deadline_seconds:.0f} s; status"
                                f" {self.status()}\n{self.log_tail()}") from None

    def terminate(self, deadline_seconds: float = 30) -> int:
        """SIGTERM: it must stop at a commit boundary and exit 0."""
        self.expect_alive()
        self.process.send_signal(signal.SIGTERM)
        return self.await_exit(deadline_seconds)

    def kill(self) -> None:
        """kill -9, the crash test's tool."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(30)

    def remove(self) -> None:
        """Ends whatever runs, whatever its state."""
        if self.alive():
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
            self.process.wait(30)

    def peak_rss_bytes(self) -> int:
        """VmHWM: the most memory it ever held, as the kernel counted."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
        raise WalferryError("no VmHWM in /proc")

    def log_tail(self, lines: int = 40) -> str:
        with contextlib.suppress(OSError):
            return f"--- end of {self.log.name} ---\n" + "\n".join(
                self.log.read_text(errors="replace").splitlines()[-lines:])
        return "(no log)"

    # -- its status ----------------------------------------------------------------------------------------------

    def status(self) -> dict | None:
        """`status --json`, or None while the control socket does not answer."""
        answer = command("status", "--state-dir", self.state_dir, "--json", deadline_seconds=20)
        if answer.code != OK:
            return None
        return answer.json()

    def phase(self) -> str | None:
        status = self.status()
        return status and status.get("phase")

    def await_status(self, condition, deadline_seconds: float, what: str) -> dict:
        """Polls the status until `condition(status)`; fails at once when the daemon has ended."""
        last: dict = {}

        def met():
            self.expect_alive()
            status = self.status()
            if status is not None:
                last.update(status)
            return status if status is not None and condition(status) else None

        try:
            return wait_until(met, deadline_seconds, what, 0.1)
        except TimeoutError as error:
            brief = {key: value for key, value in last.items() if key != "tables"}
            raise WalferryError(f"{error}; last status {brief}\n{self.log_tail()}") from None

    def await_phase(self, phase: str, deadline_seconds: float = 120) -> dict:
        """Waits until this phase or a later one is reached."""
        return self.await_status(lambda status: _reached(status, phase), deadline_seconds, f"phase {phase}")

    def await_applied(self, lsn: str, deadline_seconds: float = 60) -> dict:
        """Waits until the target holds everything up to `lsn`."""
        return self.await_status(lambda status: parse_lsn(status["applied_lsn"] or "0/0") >= parse_lsn(lsn),
                                 deadline_seconds, f"applied_lsn >= {lsn}")

    # -- commands ------------------------------------------------------------------------------------------------

    def cutover(self, *options: str, deadline_seconds: float = 120) -> Answer:
        return command("cutover", "--state-dir", self.state_dir, *options, deadline_seconds=deadline_seconds)

    def finish(self, *options: str) -> Answer:
        return command("finish", "--state-dir", self.state_dir, *options)

    def abort(self, *options: str) -> Answer:
        return command("abort", "--state-dir", self.state_dir, *options)

    def verify(self, *options: str) -> Answer:
        return command("verify", "--source", self.source, "--target", self.target, *options, deadline_seconds=300)

    def check(self, *options: str) -> Answer:
        return command("check", "--source", self.source, "--target", self.target, *options)


def _reached(status: dict, phase: str) -> bool:
    current = status.get("phase") if status.get("running", True) else None
    return current in PHASES and PHASES.index(current) >= PHASES.index(phase)
