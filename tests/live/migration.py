"""One migration under test: a database on a source and a target server, the program's daemon, its leftovers."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import psycopg2
import pytest

import servers
import walferry
from servers import Server


class Migration:
    """Owns the two databases and the daemon; `remove()` takes all of it away whatever happened."""

    def __init__(self, source: Server, target: Server, database: str, *options: str):
        self.source = source
        self.target = target
        self.database = database
        # Short, because the control socket's path may have 107 bytes only.
        self.folder = Path(tempfile.mkdtemp(prefix="wf-run-", dir="/tmp"))
        for server in (source, target):
            if not server.running():
                continue  # a physical copy to come: it brings its database along
            server.drop_database(database)  # what a test that failed in its own clean-up may have left
            server.create_database(database)
        self.daemon = walferry.Daemon(source.dsn(database), target.dsn(database), self.folder, *options)

    def load(self, file: Path | None = None, sql: str | None = None) -> None:
        self.source.psql(self.database, file, sql)

    @property
    def ends(self) -> tuple[Server, str, Server, str]:
        """The arguments of the oracle."""
        return self.source, self.database, self.target, self.database

    def follow(self, sql: str, *options: str) -> Migration:
        """Loads the schema, starts the daemon and waits until it follows with everything applied."""
        self.load(sql=sql)
        self.daemon.start(*options)
        self.daemon.await_phase("follow", 120)
        self.await_applied()
        return self

    def source_lsn(self) -> str:
        return self.source.scalar(self.database, "SELECT pg_current_wal_flush_lsn()::text")

    def await_applied(self, deadline_seconds: float = 60) -> dict:
        """Waits until everything written on the source so far is on the target."""
        return self.daemon.await_applied(self.source_lsn(), deadline_seconds)

    def await_received(self, deadline_seconds: float = 60) -> dict:
        """Waits until walferry has received everything written on the source so far."""
        lsn = walferry.parse_lsn(self.source_lsn())
        return self.daemon.await_status(lambda status: walferry.parse_lsn(status["received_lsn"] or "0/0") >= lsn,
                                        deadline_seconds, f"received_lsn >= {lsn}")

    def switch(self, *options: str, deadline_seconds: float = 120) -> dict:
        """Cuts over, expects success, and returns the report."""
        answer = self.daemon.cutover("--json", *options, deadline_seconds=deadline_seconds)
        assert answer.code == walferry.OK, f"cutover failed: {answer}\n{self.daemon.log_tail()}"
        report = answer.json()
        assert report["result"] == "switched", report
        return report

    def expect_source_fenced(self) -> None:
        """A write on the source is refused with SQLSTATE 25006."""
        with self.source.connect(self.database) as connection, connection.cursor() as cursor:
            try:
                cursor.execute("CREATE TABLE public.must_not_be (id int)")
            except psycopg2.Error as error:
                assert error.pgcode == "25006", f"refused with {error.pgcode}, not 25006: {error}"
            else:
                raise AssertionError("the source accepted a write after the cutover")

    def remove(self) -> None:
        self.daemon.remove()
        shutil.rmtree(self.folder, ignore_errors=True)
        for server in (self.source, self.target):
            if server.running():
                server.drop_database(self.database)

    def report(self) -> str:
        """What helps when a test failed."""
        return (f"{self.daemon.log_tail(60)}\n--- source server ---\n{self.source.log_tail(15)}\n"
                f"--- target server ---\n{self.target.log_tail(15)}")


def fingerprint(server: Server, database: str) -> dict[str, list]:
    """Everything a migration might leave behind on a server, apart from rows."""
    queries = {
        "slots": "SELECT slot_name FROM pg_replication_slots ORDER BY 1",
        "origins": "SELECT roname FROM pg_replication_origin ORDER BY 1",
        "publications": "SELECT pubname FROM pg_publication ORDER BY 1",
        "schemas": "SELECT nspname, nspacl::text FROM pg_namespace WHERE nspname !~ '^pg_(toast_)?temp' ORDER BY 1",
        "relations": "SELECT relnamespace::regnamespace::text, relname, relkind, relreplident, relacl::text"
                     " FROM pg_class WHERE relnamespace::regnamespace::text !~ '^pg_toast|^pg_temp' ORDER BY 1, 2",
        "triggers": "SELECT tgrelid::regclass::text, tgname, tgenabled FROM pg_trigger WHERE NOT tgisinternal ORDER BY 1, 2",
        "event triggers": "SELECT evtname, evtenabled FROM pg_event_trigger ORDER BY 1",
        "functions": "SELECT oid::regprocedure::text FROM pg_proc WHERE pronamespace::regnamespace::text"
                     " NOT IN ('pg_catalog', 'information_schema') ORDER BY 1",
        "settings": "SELECT setdatabase, setrole, setconfig FROM pg_db_role_setting ORDER BY 1, 2",
        "roles": "SELECT rolname FROM pg_roles ORDER BY 1",
        "databases": "SELECT datname, datallowconn, datconnlimit, datacl::text FROM pg_database ORDER BY 1",
        "prepared": "SELECT gid FROM pg_prepared_xacts ORDER BY 1",
    }
    return {name: server.query(database, sql) for name, sql in queries.items()}


def changed(before: dict[str, list], after: dict[str, list]) -> list[str]:
    """The readable difference of two fingerprints."""
    found = []
    for name, rows in before.items():
        found += [f"{name}: {row} appeared" for row in after[name] if row not in rows]
        found += [f"{name}: {row} is gone" for row in rows if row not in after[name]]
    return found


def choose_versions(found: dict[int, servers.Binaries], source: int, target: int):
    """The wanted majors where they are installed, else the widest step that is; with what could not be covered."""
    if source in found and target in found:
        return found[source], found[target], None
    if not found:
        return None, None, f"PostgreSQL {source} -> {target}: no server binaries found"
    instead = found[min(found)], found[max(found)]
    return *instead, (f"PostgreSQL {source} -> {target} (ran {instead[0].major} -> {instead[1].major}; found majors"
                      f" {sorted(found)}; scripts/fetch-postgres {source} {target} brings them)")


def make_extension_table(server, database: str) -> None:
    """pg_extension_config_dump() may be called by an extension's script only; a superuser may write what it writes."""
    server.execute(database, "CREATE EXTENSION IF NOT EXISTS pgcrypto",
                   "CREATE TABLE job (command text PRIMARY KEY, built_in boolean NOT NULL DEFAULT false)",
                   "INSERT INTO job VALUES ('of the extension itself', true)", "ALTER EXTENSION pgcrypto ADD TABLE job",
                   "UPDATE pg_extension SET extconfig = ARRAY['job'::regclass::oid],"
                   " extcondition = ARRAY['WHERE NOT built_in'] WHERE extname = 'pgcrypto'")


def version_case(pair: tuple[int, int], *more, name: str = ""):
    """A case of pytest.mark.parametrize for a source and a target of these majors; skipped where they are not found."""
    absent = [major for major in pair if major not in servers.find_binaries()]
    reason = f"PostgreSQL {pair[0]} -> {pair[1]}: no binaries of {absent}; scripts/fetch-postgres brings them"
    if absent and os.environ.get("CI"):
        raise servers.ServerError(f"in CI this must be covered: {reason}")
    return pytest.param(pair, *more, id=f"{pair[0]}-{pair[1]}{name}", marks=[pytest.mark.skip(reason=reason)] if absent else [])


def on_versions(*pairs: tuple[int, int]):
    """For tests that use `pair` or `migrations`: they run on servers of these majors instead of the run's."""
    return pytest.mark.parametrize("pair", [version_case(pair) for pair in pairs], indirect=True)


def without_pg_dump(source: Server, target: Server) -> str | None:
    """What `check` says when no pg_dump serves the two servers."""
    source.create_database("probe")
    target.create_database("probe")
    answer = walferry.command("check", "--source", source.dsn("probe"), "--target", target.dsn("probe"), "--json")
    failed = [each["title"] for each in answer.json()["findings"]
              if each["id"] == "pair.pg_dump" and each["severity"] == "FAIL"]
    return f"PostgreSQL {source.binaries.major} -> {target.binaries.major}: {failed[0]}" if failed else None
