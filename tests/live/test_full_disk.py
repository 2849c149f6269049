"""Full disks: walferry waits for room on the target and says why; without room for its own state it ends and loses nothing."""

from __future__ import annotations

import pytest

import walferry
from compare import assert_equal, data_differences
from preload import FullDisk

pytestmark = pytest.mark.limit(240)

MESSAGE = "No space left on device"


@pytest.fixture
def full_target(folder, server_made, migrations):
    """A migration into a server of its own, and that server's disk."""
    place = FullDisk(folder, "/data/base/")
    return migrations("full", target=server_made("target", environment=place.environment)), place


def await_complaint(migration, phase: str) -> None:
    status = migration.daemon.await_status(
        lambda status: MESSAGE in ((status["last_error"] or {}).get("text") or ""), 60, "the full disk to be told")
    assert status["phase"] == phase and not status["apply_stopped"], status
    assert "SQLSTATE 53100" in status["last_error"]["text"], status["last_error"]


def test_the_apply_waits_for_room_on_the_target(full_target):
    migration, place = full_target
    migration.follow("CREATE TABLE t (id int PRIMARY KEY, v text)")
    place.fill()
    migration.source.execute(migration.database, "INSERT INTO t SELECT g, repeat('x', 100) FROM generate_series(1, 60000) g",
                             "UPDATE t SET v = 'y' WHERE id <= 10")
    await_complaint(migration, "follow")
    place.make_room()
    migration.await_applied(60)
    migration.switch()
    assert_equal(*migration.ends)


LARGE = {
    "rows": "CREATE TABLE t (id int PRIMARY KEY, v text);"
            "INSERT INTO t SELECT g, repeat('x', 100) FROM generate_series(1, 60000) g",
    "index": "CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t SELECT generate_series(1, 20000);"
             "CREATE INDEX ON t (rpad(id::text, 400, 'x'))",  # built while the last rows are copied
}


@pytest.mark.parametrize("schema", LARGE.values(), ids=LARGE)
def test_the_copy_and_its_indexes_wait_for_room_on_the_target(full_target, schema):
    migration, place = full_target
    migration.load(sql=schema)
    place.fill()
    migration.daemon.start()
    await_complaint(migration, "copy")
    migration.source.execute(migration.database, "INSERT INTO t VALUES (100001)")
    place.make_room()
    migration.daemon.await_phase("follow", 60)
    migration.switch()
    assert_equal(*migration.ends)


def test_without_room_for_its_state_the_daemon_ends_and_goes_on_later(folder, migrations):
    migration = migrations("full_state")
    place = FullDisk(folder, "/rocksdb/")
    migration.daemon.environment = place.environment
    migration.follow("CREATE TABLE t (id int PRIMARY KEY, v text)")
    place.fill(0)
    migration.source.execute(migration.database, "INSERT INTO t SELECT g, repeat('x', 100) FROM generate_series(1, 1000) g")
    assert migration.daemon.await_exit(60) == walferry.USAGE
    log = migration.daemon.log.read_text()
    assert MESSAGE in log and f"state directory {migration.daemon.state_dir}" in log and "Remedy: " in log, log
    expect_that_it_goes_on(migration, place)


def expect_that_it_goes_on(migration, place) -> None:
    place.make_room()
    migration.daemon.start()
    migration.daemon.await_phase("follow", 60)
    migration.await_applied(60)
    assert data_differences(*migration.ends, sequences=False) == []


@pytest.mark.parametrize("phase", ["copy", "follow"])
def test_what_the_spool_holds_in_memory_does_not_keep_a_daemon_without_room(folder, migrations, phase):
    """It cannot be written, at the end no more than before: the daemon ends all the same, and the source sends it again."""
    migration = migrations(f"full_{phase}")
    place = FullDisk(folder, "/rocksdb/")
    daemon = migration.daemon
    daemon.environment = place.environment
    migration.load(sql="CREATE TABLE t (id int PRIMARY KEY, v text); CREATE TABLE u (id int PRIMARY KEY);"
                       "INSERT INTO t SELECT g, repeat('x', 100) FROM generate_series(1, 1500000) g")
    daemon.start()
    daemon.await_phase(phase, 60)
    with migration.target.connect(migration.database, autocommit=False) as holder, holder.cursor() as cursor:
        if phase == "follow":
            cursor.execute("LOCK TABLE u")  # the apply waits, and the spool does not become empty
        place.fill(0)
        migration.source.execute(migration.database, "INSERT INTO u VALUES (1)")
        assert daemon.await_exit(60) == walferry.USAGE
    assert MESSAGE in daemon.log.read_text()
    expect_that_it_goes_on(migration, place)
