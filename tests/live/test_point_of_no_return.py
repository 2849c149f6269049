"""The COMMIT that closes the source, and what dies around it: afterwards the source says what it was, and nothing else."""

from __future__ import annotations

import subprocess

import psycopg2
import pytest

import walferry
from compare import assert_equal
from held_commit import HeldCommit, is_plain_commit
from preload import FullDisk
from servers import wait_until

TABLES = """
CREATE TABLE public.t (id int PRIMARY KEY, v text);
INSERT INTO public.t SELECT g, 'v' || g FROM generate_series(1, 1000) g;
CREATE SEQUENCE public.s;
SELECT nextval('public.s') FROM generate_series(1, 40);
"""
FENCE = b"walferry.refuse_writes"  # what the session sends that closes the source


class Switching:
    """A cutover whose last COMMIT on the source is held back."""

    def __init__(self, migrations, name: str, delivered: bool, environment: dict[str, str] | None = None):
        self.migration = migrations(name)
        self.source, self.database, _, _ = self.migration.ends
        self.migration.load(sql=TABLES)
        self.daemon = self.migration.daemon
        self.direct = self.daemon.source
        self.held = HeldCommit(self.source, FENCE, is_plain_commit, delivered)
        if environment:
            self.daemon.environment = environment

    def __enter__(self) -> Switching:
        self.held.__enter__()
        self.daemon.source = self.held.dsn(self.database)
        self.daemon.start()
        self.daemon.await_phase("follow", 120)
        self.command = subprocess.Popen(
            [walferry.binary(), "cutover", "--state-dir", str(self.daemon.state_dir), "--json"],
            env=walferry.environment(), text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL)
        self.held.await_held()
        return self

    def __exit__(self, *exception) -> None:
        self.held.__exit__(*exception)
        if self.command.poll() is None:
            self.command.kill()
        self.command.communicate()

    def answer(self) -> walferry.Answer:
        out, err = self.command.communicate(timeout=150)
        return walferry.Answer(self.command.returncode, out, err, 0.0)

    def kill(self) -> None:
        self.daemon.kill()
        if self.command.poll() is None:
            assert self.answer().code != walferry.OK, "a command whose daemon died did not succeed"
        self.daemon.source = self.direct

    def write(self) -> None:
        self.source.execute(self.database, "INSERT INTO public.t SELECT max(id) + 1, 'after' FROM public.t")

    def is_closed(self) -> bool:
        return self.source.scalar(self.database, "SELECT EXISTS (SELECT FROM pg_proc WHERE proname LIKE 'refuse_writes%%')")

    def await_closed(self) -> None:
        wait_until(self.is_closed, 30, "the source to be closed")

    def expect_closed(self) -> None:
        with pytest.raises(psycopg2.errors.ReadOnlySqlTransaction):
            self.write()

    def expect_switched(self) -> None:
        self.daemon.await_phase("switched", 60)
        self.expect_closed()
        assert_equal(*self.migration.ends)
        assert self.daemon.finish().code == walferry.OK

    def expect_going_on(self) -> None:
        """As if there had been no cutover; and there can be another."""
        # await_phase() would take the phase of the last run, which stands behind it, for reached.
        self.daemon.await_status(lambda status: status["phase"] == "follow", 120, "phase follow")
        self.write()
        self.migration.await_applied()
        self.migration.switch()
        self.expect_closed()
        assert_equal(*self.migration.ends)


def test_killed_before_the_commit_arrives_the_source_is_open(migrations):
    with Switching(migrations, "killed_before", delivered=False) as switching:
        with pytest.raises(psycopg2.errors.LockNotAvailable):
            switching.source.execute(switching.database, "SET lock_timeout = '50ms'",
                                     "DELETE FROM public.t WHERE id = 1")
        switching.kill()
        switching.write()  # the lease went with the one who held it
        assert not switching.is_closed()
        switching.daemon.start()
        switching.expect_going_on()
        assert "was not completed" in switching.daemon.log.read_text()


def test_killed_after_the_commit_arrived_it_is_switched(migrations):
    with Switching(migrations, "killed_after", delivered=True) as switching:
        switching.await_closed()
        switching.kill()
        switching.expect_closed()
        switching.daemon.start()
        switching.expect_switched()


def test_a_lost_answer_to_the_commit_is_asked_for(migrations):
    with Switching(migrations, "answer_lost", delivered=True) as switching:
        switching.await_closed()
        switching.held.cut()
        answer = switching.answer()
        assert answer.code == walferry.OK and answer.json()["result"] == "switched", answer
        switching.expect_switched()


def test_a_commit_that_was_lost_is_rolled_back(migrations):
    with Switching(migrations, "commit_lost", delivered=False) as switching:
        switching.held.cut()
        answer = switching.answer()
        assert answer.code != walferry.OK and answer.json()["result"] == "rolled-back", answer
        switching.write()
        assert not switching.is_closed()
        switching.expect_going_on()


@pytest.mark.parametrize("delivered", [True, False], ids=["switched", "open"])
def test_when_the_source_cannot_be_asked_a_person_is_told_so_and_the_next_start_asks(migrations, delivered):
    with Switching(migrations, "undecided", delivered) as switching:
        if delivered:
            switching.await_closed()
        switching.held.refuses = True
        switching.held.cut()
        answer = switching.answer()
        assert answer.code == walferry.NEEDS_PERSON and answer.json()["result"] == "undecided", answer
        assert "it is not known whether the source is closed" in answer.json()["error"]
        switching.daemon.await_exit(60)
        switching.daemon.source = switching.direct
        switching.daemon.start()
        if delivered:
            switching.expect_switched()
        else:
            switching.expect_going_on()


def test_without_room_to_note_that_it_is_switched_nothing_is_undone(migrations, folder):
    disk = FullDisk(folder, "/rocksdb/")
    with Switching(migrations, "no_room", delivered=False, environment=disk.environment) as switching:
        disk.fill(0)
        switching.held.release()
        switching.await_closed()
        answer = switching.answer()
        assert answer.code == walferry.OK and answer.json()["result"] == "switched", answer
        assert "could not be written down" in str(answer.json()["notes"]), answer
        switching.expect_closed()
        switching.kill()
        early = switching.daemon.finish()
        assert early.code == walferry.REFUSED and "asks the source" in early.err, early
        disk.make_room()
        switching.daemon.source = switching.direct
        switching.daemon.start()
        switching.expect_switched()
