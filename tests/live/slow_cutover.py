"""A cutover that stands still between its comparison and its write stop."""

from __future__ import annotations

import subprocess

import walferry
from servers import wait_until


class SlowCutover:
    """A cutover whose write stop waits until release(): somebody holds a lock on the source that does not write."""

    def __init__(self, migration, table: str, *options: str, timeout: str = "60s", command: str = "cutover"):
        self.migration = migration
        self.holder = migration.source.connect(migration.database, autocommit=False)
        self.connection = self.holder.__enter__()
        self.connection.cursor().execute(f"LOCK TABLE {table} IN ROW EXCLUSIVE MODE")
        self.process = subprocess.Popen(
            [walferry.binary(), command, "--state-dir", str(migration.daemon.state_dir), "--timeout", timeout, "--json",
             *options],
            env=walferry.environment(), text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL)

    def await_comparison(self) -> SlowCutover:
        """Until everything was compared once, and the write stop is next."""
        for line in self.process.stderr:
            if line.startswith("compare while writers go on"):
                return self
        raise AssertionError(f"the cutover ended before it had compared: {self.process.stdout.read()}")

    def await_write_stop(self) -> SlowCutover:
        """Until everything is prepared, and the fence wants its locks."""
        wait_until(lambda: self.migration.source.scalar(
            "postgres", "SELECT count(*) FROM pg_stat_activity WHERE starts_with(application_name, 'walferry fence ')"
                        " AND query ~ '^(LOCK TABLE|ROLLBACK|BEGIN;|WITH held|SELECT pg_catalog.pg_stat_clear)'"), 60, "the fence to want its locks")
        return self

    def release(self) -> walferry.Answer:
        self.connection.rollback()
        self.holder.__exit__(None, None, None)
        out, err = self.process.communicate(timeout=120)
        return walferry.Answer(self.process.returncode, out, err, 0.0)
