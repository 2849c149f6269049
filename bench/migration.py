"""One whole `walferry run` into a fresh database of the target, and the removal of what it leaves."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from pathlib import Path

import servers
import walferry
from bench import cpu, status
from bench.rig import Rig


class Migration:
    """A daemon with its state directory; CPU is that of the process and the pg_dump and pg_restore it started."""

    def __init__(self, rig: Rig, database: str, *options: str):
        self.rig = rig
        self.folder = Path(tempfile.mkdtemp(prefix="migration-", dir=rig.folder))
        self.daemon = walferry.Daemon(rig.source_address, rig.address(rig.target, database), self.folder, *options)
        self.switched = False

    def await_status(self, condition: status.Condition, what: str, interval_seconds: float = 0.01,
                     deadline_seconds: float = 1200) -> dict:
        def met():
            found = status.ask(self.daemon.state_dir)
            if found is None:
                self.daemon.expect_alive()
            return found if found is not None and condition(found) else None

        return servers.wait_until(met, deadline_seconds, what, interval_seconds)

    def own_cpu(self) -> float:
        return cpu.of_process(self.daemon.process.pid)

    def cut_over(self) -> dict:
        """Its report."""
        answer = self.daemon.cutover("--json", deadline_seconds=1200)
        if answer.code != walferry.OK:
            raise RuntimeError(f"walferry cutover: {answer}")
        self.switched = True
        return answer.json()

    def remove(self) -> None:
        """Nothing of it is left on the source; the target's database is the caller's."""
        if self.daemon.alive() and not self.switched:
            self.daemon.terminate(120)
        answer = self.daemon.finish("--lift-fence") if self.switched else self.daemon.abort()
        if answer.code != walferry.OK:
            raise RuntimeError(f"walferry {'finish' if self.switched else 'abort'}: {answer}")
        shutil.rmtree(self.folder, ignore_errors=True)


@contextlib.contextmanager
def migration(rig: Rig, database: str, *options: str):
    one = Migration(rig, database, *options)
    try:
        yield one
        one.remove()
    finally:
        one.daemon.remove()
