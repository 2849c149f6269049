"""The main job with real input: a live schema moves from one major to the next under load, and nothing differs.

NetBox's own demo data where it is at hand (../shared/data beside the repository, or WALFERRY_NETBOX_SQL), and always
the project's schema of like richness, data/rich.sql.
"""

import os
from pathlib import Path

import pytest

import walferry
from compare import assert_equal, data_differences
from migration import Migration
from workload import Workload, prepare

HERE = Path(__file__).resolve().parent
NETBOX = Path(os.environ.get("WALFERRY_NETBOX_SQL",
                             walferry.REPOSITORY.parent / "shared/data/netbox-demo-v3.7.sql"))
WRITERS = 4


def move_under_load(migration: Migration, owner: str, note) -> None:
    """run -> follow -> cutover, with writers on every table from before the start to after the switch."""
    source, database, target, _ = migration.ends
    daemon = migration.daemon
    source_dsn, target_dsn = source.dsn(database, owner), target.dsn(database, owner)
    prepare(source, database, WRITERS, owner)
    with Workload(source_dsn, WRITERS) as workload:
        workload.await_commits(200)
        daemon.start()
        daemon.await_phase("follow", 180)
        workload.await_commits(600)

        # The guard on lag may refuse while a burst drains, so the switch waits for a small lag as an operator would.
        daemon.await_status(lambda status: status["lag_seconds"] is not None and status["lag_seconds"] < 0.9
                            and status["phase"] == "follow", 60, "a lag below 0.9 s")
        report = migration.switch("--timeout", "30s")
        workload.await_refused()

        # Nobody can write now: the source refuses, and the writers still go there.
        migration.expect_source_fenced()
        assert_equal(*migration.ends)
        assert workload.ledger_differences(target, database) == []
        untouched = {table.qualified for table in workload.writers[0].tables} - workload.touched()
        assert len(untouched) < len(workload.writers[0].tables) / 4, f"the writers left out {sorted(untouched)}"

        assert daemon.status()["phase"] == "switched"
        assert report["writes_stopped_ms"] < 30_000
        assert report["steps"] and all(step["ms"] >= 0 for step in report["steps"])
        assert report["tables"] and all(table["equal"] for table in report["tables"]), report["tables"]
        assert sum(table["rows_source"] for table in report["tables"]) == \
            sum(table["rows_target"] for table in report["tables"]) > 0
        assert report["sequences"]
        verified = daemon.verify()
        assert verified.code == walferry.OK, verified

        # Roles travel without a password; giving them their right to log in is the operator's step.
        target.execute(database, f'ALTER ROLE "{owner}" LOGIN')
        workload.repoint(target_dsn)
        workload.await_commits(300)
    assert workload.ledger_differences(target, database) == []
    note(f"{database}: {workload.summary()}; writes stopped for {report['writes_stopped_ms']} ms by the report,"
         f" {workload.write_gap_ms(source_dsn, target_dsn):.0f} ms with the oracle's comparison between")

    finished = daemon.finish()
    assert finished.code == walferry.OK, finished
    for server in (source, target):
        assert server.query(database, "SELECT slot_name FROM pg_replication_slots") == []
    assert source.query(database, "SELECT pubname FROM pg_publication") == []
    assert target.query(database, "SELECT nspname FROM pg_namespace WHERE nspname = 'walferry'") == []
    # What was written after the switch makes the two differ: the oracle was not comparing one database with itself.
    assert data_differences(*migration.ends) != []


@pytest.mark.limit(420)
def test_a_live_netbox_moves_without_a_difference(migrations, note):
    if not NETBOX.exists():
        pytest.skip(f"NetBox's demo data is not at {NETBOX}; the schema of our own covers the same path")
    migration = migrations("netbox")
    migration.source.execute("postgres", "CREATE ROLE netbox LOGIN")
    migration.load(NETBOX)
    migration.source.execute("netbox", "GRANT ALL ON SCHEMA public TO netbox")
    move_under_load(migration, "netbox", note)


@pytest.mark.tsan
@pytest.mark.limit(420)
def test_a_live_schema_of_every_kind_moves_without_a_difference(migrations, note):
    migration = migrations("rich")
    migration.load(HERE / "data/rich.sql")
    move_under_load(migration, "postgres", note)
