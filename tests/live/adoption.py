"""What a person does so that a target can be adopted: publication, slot, dump or promotion."""

from __future__ import annotations

import os
import re
import subprocess

import psycopg2
import psycopg2.extras

import servers
import walferry
from migration import Migration
from servers import Server, wait_until


def run(migration: Migration, *options: str, state: str = "other") -> walferry.Answer:
    """A run that is expected to be refused, with a state directory of its own."""
    return walferry.command("run", "--source", migration.daemon.source, "--target", migration.daemon.target,
                            "--state-dir", str(migration.folder / state), *migration.daemon.options, *options,
                            deadline_seconds=120)


def instructions(migration: Migration) -> str:
    """What `run --adopt` says without an LSN."""
    answer = run(migration, "--adopt", state="asked")
    assert answer.code == walferry.REFUSED, answer
    return answer.err


def publish(migration: Migration) -> None:
    """Step 1 of the instructions, pasted."""
    statements = re.findall(r"^ +((?:CREATE PUBLICATION|ALTER TABLE) .*;)$", instructions(migration), re.M)
    assert any(statement.startswith("CREATE PUBLICATION") for statement in statements), statements
    migration.source.execute(migration.database, *statements)


def make_slot(migration: Migration) -> str:
    """For a physical copy: the LSN at which the slot begins."""
    return migration.source.scalar(migration.database, "SELECT lsn::text FROM pg_create_logical_replication_slot"
                                                       "(%s, 'pgoutput')", (slot_of(migration),))


def slot_of(migration: Migration) -> str:
    options = migration.daemon.options
    return options[options.index("--slot") + 1] if "--slot" in options else f"walferry_{migration.database}"


class DumpedSlot:
    """A slot with its exported snapshot, and the dump that is made and restored under it."""

    def __init__(self, migration: Migration):
        self.migration = migration
        self.connection = psycopg2.connect(migration.source.dsn(migration.database),
                                           connection_factory=psycopg2.extras.LogicalReplicationConnection)
        with self.connection.cursor() as cursor:
            cursor.execute(f'CREATE_REPLICATION_SLOT "{slot_of(migration)}" LOGICAL pgoutput EXPORT_SNAPSHOT')
            _, self.lsn, self.snapshot, _ = cursor.fetchone()

    def move(self) -> str:
        """The LSN, once the data are on the target."""
        move_by_dump(self.migration, self.migration.source, "--snapshot", self.snapshot)
        self.connection.close()
        return self.lsn


def move_by_dump(migration: Migration, server: Server, *options: str) -> None:
    """pg_dump of `server`, pg_restore to the target."""
    archive = str(migration.folder / "data.dump")
    major = server.binaries.major
    dump = [servers.client("pg_dump", major), "-d", server.dsn(migration.database), "--no-publications",
            "--no-subscriptions", "-Fd", "-j", "2", "-f", archive, *options]
    restore = [servers.client("pg_restore", major), "-d", migration.target.dsn(migration.database), "-j", "2", archive]
    for command in (dump, restore):
        result = subprocess.run(command, text=True, capture_output=True, timeout=200, env={**os.environ, "PGOPTIONS": ""})
        assert result.returncode == 0, f"{command}: {result.stderr[-3000:]}"


def await_replay(copy: Server, past: str) -> None:
    wait_until(lambda: copy.scalar("postgres", "SELECT pg_last_wal_replay_lsn() > %s::pg_lsn", (past,)), 60,
               f"the copy to replay past {past}")


def pause(copy: Server, past: str) -> str:
    """Lets the copy replay past the LSN and stand still there, between the primary's exclusive locks: one that was
    replayed, a TRUNCATE's say, is held as long as the pause, and a dump would wait for it for ever. The LSN at which
    it stands."""
    await_replay(copy, past)

    def stands_unlocked() -> bool:
        copy.query("postgres", "SELECT pg_wal_replay_pause()")
        wait_until(lambda: copy.scalar("postgres", "SELECT pg_get_wal_replay_pause_state()") == "paused", 60,
                   "the replay to be paused")
        # On a standby nobody but the replay can hold this lock.
        if copy.scalar("postgres", "SELECT count(*) FROM pg_locks WHERE mode = 'AccessExclusiveLock'") == 0:
            return True
        copy.query("postgres", "SELECT pg_wal_replay_resume()")
        return False

    wait_until(stands_unlocked, 60, "a pause without an exclusive lock")
    return copy.scalar("postgres", "SELECT pg_last_wal_replay_lsn()::text")


def promote(copy: Server, past: str) -> None:
    """Lets the copy replay past the LSN and promotes it."""
    await_replay(copy, past)
    assert copy.scalar("postgres", "SELECT pg_promote(true, 60)")


def branch(copy: Server) -> str:
    """Where the copy left timeline 1."""
    history = copy.scalar("postgres", "SELECT pg_read_file('pg_wal/00000002.history')")
    return re.search(r"^1\s+(\S+)", history, re.M).group(1)
