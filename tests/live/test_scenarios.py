"""The scenarios of scenarios/*.sql (see scenario.py) on every pair of versions found; docs/semantics.md says what for.

Many scenarios share one migration of a pair. It holds each of them twice: in a schema whose changes are made while the
migration follows, and in one whose changes are made while the daemon is down, so that they are applied as a backlog in
groups. Those that stop the apply or differ on purpose share another, one after the other; those that need something of their
own have a migration each.
`-k name` runs a single scenario.
"""

from __future__ import annotations

import contextlib
import os
import re
from concurrent.futures import ThreadPoolExecutor

import psycopg2
import pytest

import servers
import walferry
from compare import data_differences, schema_differences
from migration import Migration, version_case, without_pg_dump
from scenario import Place, Scenario, load_all

# WALFERRY_SCENARIO_PAIRS asks for others, such as "15-18 18-18".
PAIRS = [tuple(map(int, pair.split("-")))
         for pair in os.environ.get("WALFERRY_SCENARIO_PAIRS", "13-16 14-16 15-15 17-18").split()]
# Takes only those that none of the others can have.
LAST_PAIR = (18, 18)
SCENARIOS = load_all()
ALONE = [each for each in SCENARIOS if "alone" in each.values]
IN_TURN = [each for each in SCENARIOS if {"stops", "differs"} & set(each.values) and each not in ALONE]
SHARED = [each for each in SCENARIOS if each not in ALONE and each not in IN_TURN]
_FOUND = servers.find_binaries()


def _each(scenarios: list[Scenario]):
    """Every scenario on every pair of versions that can have it."""
    cases = []
    for pair in [*PAIRS, LAST_PAIR]:
        for scenario in scenarios:
            fits = scenario.why_not(*pair) is None
            if pair == LAST_PAIR and LAST_PAIR not in PAIRS:
                fits = fits and all(scenario.why_not(*other) for other in PAIRS)
            if fits:
                cases.append(version_case(pair, scenario, name=f"-{scenario.name}"))
    return pytest.mark.parametrize("ends, scenario", cases, indirect=["ends"])


on_every_pair = pytest.mark.parametrize("ends", [version_case(pair) for pair in PAIRS], indirect=True)


class Ends:
    """The two servers of a pair, and what its shared migrations found."""

    def __init__(self, source: int, target: int):
        # Large transactions are streamed from 64 kB on, so that small scenarios reach that path as well.
        self.source = servers.Server(_FOUND[source], "source", fsync=False,
                                     settings={"logical_decoding_work_mem": "64kB"}).start()
        self.target = servers.Server(_FOUND[target], "target", fsync=False).start()
        self.majors = source, target
        self.reason: str | None = None  # why nothing can be moved between them
        self.outcomes: dict[str, dict[str, list[str]]] = {}

    def remove(self) -> None:
        self.source.remove()
        self.target.remove()


@pytest.fixture(scope="module")
def made():
    """The pairs of servers that the file's tests share, made when first asked for."""
    pairs: dict[tuple[int, int], Ends] = {}
    yield pairs
    for pair in pairs.values():
        pair.remove()


@pytest.fixture
def ends(request, made):
    pair = request.param
    if pair not in made:
        made[pair] = Ends(*pair)
        made[pair].reason = without_pg_dump(made[pair].source, made[pair].target)
    if made[pair].reason:
        pytest.skip(made[pair].reason)
    return made[pair]


def _selected(request, scenarios: list[Scenario], ends: Ends) -> list[Scenario]:
    """Those of this run's tests (-k leaves some out) on this pair of versions."""
    asked = [getattr(getattr(item, "callspec", None), "params", {}) for item in request.session.items]
    wanted = {params["scenario"].name for params in asked if "scenario" in params and params["ends"] == ends.majors}
    return [each for each in scenarios if each.name in wanted]


class Findings:
    """What was found, by scenario: a text belongs to the scenarios whose schemas it names."""

    def __init__(self, places: list[Place]):
        self.places = places
        self.by_name: dict[str, list[str]] = {place.scenario.name: [] for place in places}

    def add(self, when: str, texts: list[str]) -> None:
        named: list[Place] = []
        for text in texts:
            # Lines that explain a difference follow it and name nothing.
            if not text.startswith("    "):
                named = [place for place in self.places if re.search(rf"\b{place.schema}\b", text)]
            for place in named or self.places[:1]:
                whose = "" if named else "(names no scenario) "
                self.by_name[place.scenario.name].append(f"{when}: {whose}{text}")

    def run(self, place: Place, server: servers.Server, *blocks: str) -> None:
        """Runs sections; SQL that fails is the fault of its own scenario only."""
        try:
            for block in blocks:
                place.run(server, block)
        except AssertionError as error:
            self.by_name[place.scenario.name].append(str(error))

    def add_error(self, when: str, error: BaseException) -> None:
        """Something broke for all; only those it names are to blame, the others could not be judged."""
        text = str(error)
        blamed = [place.scenario.name for place in self.places if re.search(rf"\b{place.schema}\b", text)]
        for name, found in self.by_name.items():
            if name in blamed or not blamed:
                found.append(f"{when}: {text}")
            else:
                found.append(f"{when}: not judged, because {', '.join(blamed)} broke the shared migration")


def _hunks(lines: list[str]) -> list[str]:
    """A unified diff as one text a hunk."""
    return [f"schema differs:\n{hunk}" for hunk in re.split(r"^@@.*\n", "\n".join(lines), flags=re.MULTILINE)[1:]]


def _extensions(migration: Migration, scenarios: list[Scenario]) -> None:
    for name in sorted({name for each in scenarios for name in each.extensions}):
        migration.source.execute(migration.database, f'CREATE EXTENSION IF NOT EXISTS "{name}" WITH SCHEMA public')


def _check_findings(migration: Migration, place: Place, found: list[dict]) -> list[str]:
    missing = []
    for wanted in place.scenario.values.get("check", []):
        name, _, text = wanted.partition(" ")
        if not any(each["id"] == name and (text or place.schema) in each["title"] + each["detail"] for each in found
                   if each["severity"] != "PASS"):
            missing.append(f"check has no finding {name} that names {text or place.schema}")
    return missing


def _move_all(ends: Ends, scenarios: list[Scenario]) -> dict[str, list[str]]:
    """The shared migration: follow, backlog, cutover, with everything compared after each."""
    migration = Migration(ends.source, ends.target, "scenarios", "--on-ddl", "apply")
    live = [Place(each, f"{each.name}_live", "scenarios") for each in scenarios]
    backlog = [Place(each, f"{each.name}_backlog", "scenarios") for each in scenarios]
    found = Findings(live + backlog)
    step = "loading"
    try:
        _extensions(migration, scenarios)
        for place in live + backlog:
            ends.source.execute("scenarios", f"CREATE SCHEMA {place.schema}")
            found.run(place, ends.source, "before")
        step = "check"
        checked = migration.daemon.check("--json").json()["findings"]
        for place in live:
            found.by_name[place.scenario.name] += _check_findings(migration, place, checked)
        step = "copy"
        migration.daemon.start()
        migration.daemon.await_phase("follow")
        for place in live:
            found.run(place, ends.target, "target")
            found.run(place, ends.source, "meanwhile")
        step = "following"
        _await_applied(migration)
        found.add(step, data_differences(*migration.ends, sequences=False))
        step = "backlog"
        assert migration.daemon.terminate() == walferry.OK
        for place in backlog:
            found.run(place, ends.target, "target")
            found.run(place, ends.source, "meanwhile")
        migration.daemon.start()
        _await_applied(migration)
        found.add(step, data_differences(*migration.ends, sequences=False))
        step = "cutover"
        migration.daemon.await_phase("follow")
        migration.switch("--timeout", "60s")
        step = "after the cutover"
        found.add(step, data_differences(*migration.ends, matviews=True))
        for place in live + backlog:
            found.by_name[place.scenario.name] += place.unmet(ends.target)
        # Without the fence, which is on the source only, the schemas are the same.
        finished = migration.daemon.finish("--lift-fence")
        assert finished.code == walferry.OK, str(finished)
        found.add(step, _hunks(schema_differences(*migration.ends)))
    except (AssertionError, TimeoutError, psycopg2.Error, servers.ServerError) as error:
        found.add_error(step, error)
    finally:
        migration.remove()
    return found.by_name


def _goal(migration: Migration) -> int:
    """The end of everything that was committed on the source, flushed by a synchronous commit after it."""
    migration.source.execute(migration.database, "SET synchronous_commit = on; SET default_transaction_read_only = off",
                             "SELECT pg_logical_emit_message(true, 'scenarios', 'all is said')")
    return walferry.parse_lsn(migration.source_lsn())


def _await_applied(migration: Migration) -> None:
    """Like Migration.await_applied, but a stopped apply ends the wait at once."""
    goal = _goal(migration)
    status = migration.daemon.await_status(
        lambda status: status["running"] and
        (status["apply_stopped"] or walferry.parse_lsn(status["applied_lsn"] or "0/0") >= goal), 90,
        "all changes on the target")
    assert not status["apply_stopped"], f"the apply stopped: {status['last_error']['text']}"


def _outcome(request, ends: Ends, kind: str, run, scenarios: list[Scenario]) -> dict[str, list[str]]:
    """Runs a shared migration once for all the tests that need it."""
    if kind not in ends.outcomes:
        ends.outcomes[kind] = run(ends, _selected(request, scenarios, ends))
    return ends.outcomes[kind]


def _judge(scenario: Scenario, faults) -> None:
    """A known defect must show itself."""
    found = faults()
    if scenario.value("defect"):
        assert found, f"{scenario.name} works now: take its `defect` away"
        pytest.xfail(scenario.value("defect"))
    assert not found, f"{scenario.file}: {scenario.name}:\n" + "\n".join(found[:40])


@pytest.mark.limit(300)
@_each(SHARED)
def test_shared(request, ends, scenario):
    _judge(scenario, lambda: _outcome(request, ends, "shared", _move_all, SHARED)[scenario.name])


def _move_in_turn(ends: Ends, scenarios: list[Scenario]) -> dict[str, list[str]]:
    """One migration for what differs on purpose or stops the apply: one scenario after the other, each judged by itself."""
    migration = Migration(ends.source, ends.target, "in_turn")
    places = [Place(each, each.name, "in_turn") for each in scenarios]
    outcome = {each.name: ["not judged: an earlier scenario left the apply stopped"] for each in scenarios}
    name = "none"
    try:
        _extensions(migration, scenarios)
        for place in places:
            name = place.scenario.name
            place.create(ends.source)
        migration.daemon.start()
        migration.daemon.await_phase("follow")
        for place in places:
            name = place.scenario.name
            try:
                outcome[name] = _take_turn(migration, place) + place.unmet(ends.target)
            except AssertionError as error:
                outcome[name] = [str(error)]
                status = migration.daemon.status()
                if status is None or status["apply_stopped"]:
                    raise  # the others have no chance
    except (AssertionError, TimeoutError, psycopg2.Error, servers.ServerError) as error:
        outcome[name] = [str(error)]
    finally:
        migration.remove()
    return outcome


def _take_turn(migration: Migration, place: Place) -> list[str]:
    """Follows a scenario; where it is to stop the apply it is repaired, and the apply must go on."""
    if "--no-schema" not in migration.daemon.options:
        place.run(migration.target, "target")
    place.run(migration.source, "meanwhile")
    stops = place.scenario.value("stops")
    if stops:
        goal = _goal(migration)
        status = migration.daemon.await_status(
            lambda status: status["apply_stopped"] or walferry.parse_lsn(status["applied_lsn"] or "0/0") >= goal, 60,
            "the apply to stop")
        if not status["apply_stopped"]:
            return [f"the apply did not stop; differences: {data_differences(*migration.ends, sequences=False)[:10]}"]
        error = status["last_error"]["text"]
        # A stop for another reason is repaired as well, so that the next scenario can have its turn.
        found = [] if re.search(stops.replace(":schema", place.schema), error) else [f"it stopped otherwise: {error}"]
        if "repair" not in place.scenario.blocks:
            return found
        place.run(migration.target, "repair")
        # Started again, it tries at once; by itself it would in a few seconds.
        migration.daemon.terminate()
        migration.daemon.start()
    else:
        found = []
    _await_applied(migration)
    if "differs" not in place.scenario.values:
        compared = Findings([place])
        compared.add("compared", data_differences(*migration.ends, sequences=False))
        found += [text for text in compared.by_name[place.scenario.name] if "(names no scenario)" not in text]
    return found


@pytest.mark.limit(300)
@_each(IN_TURN)
def test_in_turn(request, ends, scenario):
    _judge(scenario, lambda: _outcome(request, ends, "in turn", _move_in_turn, IN_TURN)[scenario.name])


def _create_databases(migration: Migration, options: str) -> None:
    """Makes the two databases anew with options such as an encoding."""
    for server, option in zip((migration.source, migration.target), options.split("|"), strict=True):
        server.drop_database(migration.database)
        server.execute("postgres", f'CREATE DATABASE "{migration.database}" TEMPLATE template0 {option}')


def _move_alone(ends: Ends, scenario: Scenario) -> list[str]:
    """A migration of its own: to the end, or to the refusal that is expected."""
    migration = Migration(ends.source, ends.target, scenario.name, *(scenario.value("alone") or "").split())
    place = Place(scenario, scenario.name, scenario.name)
    try:
        if scenario.value("databases"):
            _create_databases(migration, scenario.value("databases"))
        _extensions(migration, [scenario])
        place.create(ends.source)
        found = _check_findings(migration, place, migration.daemon.check("--json").json()["findings"])
        if scenario.value("refused"):
            code = migration.daemon.start().await_exit()
            text = migration.daemon.log_tail()
            if code == walferry.OK or not re.search(scenario.value("refused"), text):
                found.append(f"exit {code}, not refused as expected: {text}")
            return found
        if "--no-schema" in migration.daemon.options:
            place.run(ends.target, "target")
        migration.daemon.start()
        migration.daemon.await_phase("follow")
        if scenario.value("ends"):
            place.run(ends.source, "meanwhile")
            code = migration.daemon.await_exit()
            text = migration.daemon.log_tail()
            matches = code != walferry.OK and re.search(scenario.value("ends"), text)
            return found if matches else found + [f"exit {code}, expected {scenario.value('ends')}: {text}"]
        found += _take_turn(migration, place)
        if scenario.value("stops") or scenario.value("differs"):
            return found + place.unmet(ends.target)
        migration.switch("--timeout", "60s")
        found += data_differences(*migration.ends, matviews=True) + place.unmet(ends.target)
        finished = migration.daemon.finish("--lift-fence")
        assert finished.code == walferry.OK, str(finished)
        return found + schema_differences(*migration.ends)
    except (AssertionError, TimeoutError, psycopg2.Error, servers.ServerError) as error:
        return [str(error)]
    finally:
        for server in (ends.source, ends.target):
            with contextlib.suppress(psycopg2.Error):
                server.execute("postgres", f'ALTER DATABASE "{scenario.name}" RESET ALL')
        migration.remove()


def _move_each_alone(ends: Ends, scenarios: list[Scenario]) -> dict[str, list[str]]:
    """Some at a time: each waits more than it works."""
    with ThreadPoolExecutor(3) as pool:
        return dict(zip([each.name for each in scenarios],
                        pool.map(lambda each: _move_alone(ends, each), scenarios), strict=True))


@pytest.mark.limit(300)
@_each(ALONE)
def test_alone(request, ends, scenario):
    _judge(scenario, lambda: _outcome(request, ends, "alone", _move_each_alone, ALONE)[scenario.name])


@pytest.mark.limit(120)
@on_every_pair
def test_truncated_between_snapshot_and_copy(ends):
    """Points 49, 73: a snapshot from before a TRUNCATE finds the table empty, so such a table needs a later one.

    A lock on the target holds the copy up at the second table, while the third is changed and emptied on the source. The
    first is copied by then, and nothing of walferry's may keep the application from truncating that one either.
    """
    migration = Migration(ends.source, ends.target, "truncated", "--no-schema", "--jobs", "1")
    try:
        tables = "".join(f"CREATE TABLE {name} (id int PRIMARY KEY, v text);" for name in ("first", "second", "third"))
        migration.load(sql=tables + """
            INSERT INTO first SELECT g, repeat('x', 300) FROM generate_series(1, 3000) g;
            INSERT INTO second SELECT g, repeat('x', 300) FROM generate_series(1, 2000) g;
            INSERT INTO third SELECT g, repeat('x', 300) FROM generate_series(1, 1000) g;""")
        ends.target.psql("truncated", sql=tables)
        with ends.target.connect("truncated", autocommit=False) as connection, connection.cursor() as cursor:
            cursor.execute("LOCK TABLE second IN EXCLUSIVE MODE")
            migration.daemon.start()
            migration.daemon.await_status(
                lambda status: [table["state"] for table in status["tables"]].count("copied") == 1, 60, "the first table")
            ends.source.execute("truncated", "SET lock_timeout = '10s'", "UPDATE third SET v = 'y' WHERE id <= 10",
                                "TRUNCATE first", "TRUNCATE third", "INSERT INTO third VALUES (5, 'after')",
                                "INSERT INTO first VALUES (7, 'after')")
            # All of it is spooled meanwhile, so the source need not keep it.
            written = ends.source.scalar("truncated", "SELECT pg_current_wal_lsn()::text")
            servers.wait_until(lambda: ends.source.scalar("truncated", "SELECT confirmed_flush_lsn >= %s::pg_lsn FROM"
                                                                       " pg_replication_slots WHERE slot_name ="
                                                                       " 'walferry_truncated'", (written,)), 60,
                               "the slot to advance while the copy stands still")
            assert migration.daemon.phase() == "copy"
        migration.daemon.await_phase("follow")
        _await_applied(migration)
        found = data_differences(*migration.ends)
        assert not found, "\n".join(found)
        assert "copied again" in migration.daemon.log.read_text()
    finally:
        migration.remove()


@pytest.mark.limit(120)
@on_every_pair
def test_foreign_keys_of_a_target_that_was_made_beforehand(ends):
    """Points 38, 42: where a foreign key leads to a table TRUNCATE is refused, so the copy empties it otherwise."""
    migration = Migration(ends.source, ends.target, "beforehand", "--no-schema")
    try:
        tables = """
            CREATE TABLE parent (id int PRIMARY KEY, child_id int);
            CREATE TABLE child (id int PRIMARY KEY, parent_id int REFERENCES parent ON DELETE CASCADE);
            ALTER TABLE parent ADD FOREIGN KEY (child_id) REFERENCES child DEFERRABLE INITIALLY DEFERRED;
            CREATE TABLE tree (id int PRIMARY KEY, up int REFERENCES tree);
            CREATE UNLOGGED TABLE cached (id int PRIMARY KEY);
            CREATE UNLOGGED TABLE of_cached (id int REFERENCES cached);"""
        migration.load(sql=tables + """
            BEGIN;
            INSERT INTO parent SELECT g, 101 - g FROM generate_series(1, 100) g;
            INSERT INTO child SELECT g, g FROM generate_series(1, 100) g;
            COMMIT;
            INSERT INTO tree SELECT g, NULLIF(g / 2, 0) FROM generate_series(1, 50) g;
            INSERT INTO cached SELECT generate_series(1, 10);
            INSERT INTO of_cached SELECT generate_series(1, 10);""")
        ends.target.psql("beforehand", sql=tables)
        migration.daemon.start()
        migration.daemon.await_phase("follow")
        ends.source.psql("beforehand", sql="""
            BEGIN;
            INSERT INTO parent VALUES (200, 200);
            INSERT INTO child VALUES (200, 200);
            COMMIT;
            UPDATE parent SET child_id = NULL WHERE id = 100;
            DELETE FROM child WHERE id = 1;
            DELETE FROM tree WHERE id = 50;
            DELETE FROM of_cached WHERE id = 3;""")
        _await_applied(migration)
        migration.switch("--timeout", "60s")
        found = data_differences(*migration.ends)
        assert not found, "\n".join(found)
    finally:
        migration.remove()


@pytest.mark.limit(120)
@on_every_pair
def test_prepared_before_the_slot_and_during_the_copy(ends):
    """Points 71, 94: the slot waits for a transaction that is prepared already, and says so; one prepared during the
    copy arrives when it is committed, while following; one left open keeps the cutover from closing the source."""
    migration = Migration(ends.source, ends.target, "prepared", "--no-schema", "--jobs", "1")
    try:
        tables = "CREATE TABLE t (id int PRIMARY KEY, v text); CREATE TABLE held (id int PRIMARY KEY);"
        migration.load(sql=tables + """
            INSERT INTO t SELECT g, 'v' FROM generate_series(1, 10) g;
            INSERT INTO held SELECT generate_series(1, 5000);
            BEGIN; UPDATE t SET v = 'early' WHERE id = 1; PREPARE TRANSACTION 'early';""")
        ends.target.psql("prepared", sql=tables)
        with ends.target.connect("prepared", autocommit=False) as connection, connection.cursor() as cursor:
            cursor.execute("LOCK TABLE held IN EXCLUSIVE MODE")
            migration.daemon.start()
            servers.wait_until(lambda: ends.source.scalar(
                "prepared", "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'CREATE_REPLICATION_SLOT%'"
                            " AND wait_event_type = 'Lock'"), 30, "the slot to wait for the prepared transaction")
            migration.daemon.await_status(lambda status: "prepared transaction 'early' (postgres in database prepared" in
                                          status["activity"], 30, "the prepared transaction to be named")
            ends.source.execute("prepared", "COMMIT PREPARED 'early'")
            migration.daemon.await_phase("copy")
            with ends.source.connect("prepared") as preparing, preparing.cursor() as statement:
                for name, key in (("late", 2), ("open", 3), ("given up", 4)):
                    statement.execute("BEGIN")
                    statement.execute("UPDATE t SET v = %s WHERE id = %s", (name, key))
                    statement.execute("INSERT INTO t VALUES (%s, %s)", (100 + key, name))
                    statement.execute(f"PREPARE TRANSACTION '{name}'")
        migration.daemon.await_phase("follow")
        ends.source.execute("prepared", "COMMIT PREPARED 'late'", "ROLLBACK PREPARED 'given up'")
        _await_applied(migration)
        found = data_differences(*migration.ends)
        assert not found, "\n".join(found)
        refused = migration.daemon.cutover("--json")
        assert refused.code == walferry.REFUSED and "prepared" in refused.out, str(refused)
        ends.source.execute("prepared", "COMMIT PREPARED 'open'")
        migration.switch("--timeout", "60s")
        found = data_differences(*migration.ends)
        assert not found, "\n".join(found)
        assert ends.target.query("prepared", "SELECT v FROM t WHERE id < 5 ORDER BY id") == [
            ("early",), ("late",), ("open",), ("v",)]
    finally:
        for gid in ends.source.query("postgres", "SELECT gid FROM pg_prepared_xacts WHERE database = 'prepared'"):
            ends.source.execute("prepared", f"ROLLBACK PREPARED '{gid[0]}'")
        migration.remove()


def test_the_page_of_semantics_is_complete():
    """docs/semantics.md has one line a point, each names the point's scenarios, at least one test, and none made up."""
    page = (walferry.REPOSITORY / "docs/semantics.md").read_text()
    lines = {int(number): line for number, line in re.findall(r"^\| (\d+) (\|.*)$", page, re.MULTILINE)}
    assert sorted(lines) == list(range(1, 111))
    for scenario in SCENARIOS:
        for point in scenario.points:
            assert f"`{scenario.name}`" in lines[point], f"point {point} does not name {scenario.name}"
    sources = "".join(file.read_text() for file in (walferry.REPOSITORY / "tests/live").glob("test_*.py"))
    checks = "".join(file.read_text() for file in (walferry.REPOSITORY / "engine").rglob("*.cpp"))
    names = {scenario.name for scenario in SCENARIOS}
    for point, line in lines.items():
        named = re.findall(r"`([^`]*)`", line.split("|")[3])
        assert named, f"point {point} names no test"
        for name in named:
            if name.endswith("_test.cpp"):
                assert (walferry.REPOSITORY / "tests/unit" / name).exists(), f"point {point}: {name}"
            elif name.startswith("test_"):
                assert f"def {name}(" in sources, f"point {point}: {name}"
            elif "." in name:
                side, _, what = name.partition(".")
                assert f'"{name}"' in checks or f'"{{}}.{what}"' in checks, f"point {point}: {name}"
            else:
                assert name in names, f"point {point}: {name}"
