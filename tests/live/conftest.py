"""Fixtures of the live tests, the limit of time for each, and the summary of what could not be covered."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from pathlib import Path

import pytest

import servers
import walferry
from migration import Migration, choose_versions, without_pg_dump

SOURCE_MAJOR = int(os.environ.get("WALFERRY_TEST_SOURCE", "14"))
TARGET_MAJOR = int(os.environ.get("WALFERRY_TEST_TARGET", "16"))
DEFAULT_LIMIT_SECONDS = 240

_uncovered: list[str] = []
_notes: list[str] = []


def pytest_configure(config):
    # A run that is told to end still takes its servers and folders away.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    config.addinivalue_line("markers", "limit(seconds): the longest this test may take")
    config.addinivalue_line("markers", "tsan: belongs to the subset that runs under the thread sanitizer")
    config.addinivalue_line("markers", "long: a soak, run with WALFERRY_LONG=1 only")


def pytest_collection_modifyitems(config, items):
    if os.environ.get("WALFERRY_LONG") == "1":
        return
    soaks = [item for item in items if item.get_closest_marker("long")]
    if soaks:
        # Left out on purpose, so they count as not selected; a skip would say that something is not covered here.
        items[:] = [item for item in items if item not in soaks]
        config.hook.pytest_deselected(items=soaks)
        _notes.append(f"{len(soaks)} soaks were not selected; scripts/test --long runs them")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_call(item):
    """A test that hangs ends by itself, with a stack that shows where."""
    marker = item.get_closest_marker("limit")
    seconds = int((marker.args[0] if marker else DEFAULT_LIMIT_SECONDS) * servers.SLOWNESS)

    def expired(*_):
        raise TimeoutError(f"the test took more than its {seconds} s")

    previous = signal.signal(signal.SIGALRM, expired)
    signal.alarm(seconds)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, previous)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """A failure carries the ends of all logs."""
    outcome = yield
    report = outcome.get_result()
    if report.when == "call" and report.failed:
        for value in getattr(item, "funcargs", {}).values():
            for migration in getattr(value, "made", []):
                report.sections.append((f"migration {migration.database}", migration.report()))
    if report.skipped:
        known = getattr(report, "wasxfail", None)  # a known defect, with what is known of it
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        _uncovered.append(f"{item.nodeid}: {known.removeprefix('reason: ') if known else reason}")


def pytest_sessionfinish(session):
    """A worker of xdist hands what it has to say to the process that prints."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput.update(notes=_notes, uncovered=_uncovered)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node):
    output = getattr(node, "workeroutput", {})  # none of a worker that died
    _notes.extend(output.get("notes", []))
    _uncovered.extend(output.get("uncovered", []))


def pytest_terminal_summary(terminalreporter):
    for note in dict.fromkeys(_notes):
        terminalreporter.write_line(f"note: {note}")
    for line in dict.fromkeys(_uncovered):
        terminalreporter.write_line(f"not covered: {line}")


@pytest.fixture(scope="session")
def note():
    """Prints a measured value at the end of the run: note("...")."""
    return _notes.append


@pytest.fixture(scope="session")
def versions():
    """The server programs of source and target."""
    try:
        walferry.binary()
    except walferry.WalferryError as error:
        pytest.fail(str(error), pytrace=False)
    for tool in ("psql", "pg_dump", "setpriv"):
        if shutil.which(tool) is None:
            pytest.fail(f"{tool} not found; run scripts/install-packages", pytrace=False)
    source, target, uncovered = choose_versions(servers.find_binaries(), SOURCE_MAJOR, TARGET_MAJOR)
    if uncovered and os.environ.get("CI"):
        pytest.fail(f"in CI this must be covered: {uncovered}", pytrace=False)
    if source is None:
        pytest.skip(uncovered)
    if uncovered and uncovered not in _uncovered:
        _uncovered.append(uncovered)
    return source, target


class Pair:
    """A source and a target server for the tests of one file."""

    def __init__(self, versions):
        self.source = servers.Server(versions[0], "source").start()
        self.target = servers.Server(versions[1], "target").start()
        self.reason: str | None = None  # why nothing can be moved between them

    def remove(self) -> None:
        self.source.remove()
        self.target.remove()


@pytest.fixture(scope="module")
def pair(request, versions):
    """Of the run's majors; of others where migration.on_versions asks for them."""
    found = servers.find_binaries()
    asked = [found[major] for major in request.param] if hasattr(request, "param") else None
    made = Pair(asked or versions)
    if asked:
        made.reason = without_pg_dump(made.source, made.target)
    yield made
    made.remove()


class Migrations:
    """Makes migrations and takes them away at the end of the test."""

    def __init__(self, pair: Pair):
        self.pair = pair
        self.made: list[Migration] = []

    def __call__(self, database: str, *options: str, source: servers.Server | None = None,
                 target: servers.Server | None = None) -> Migration:
        migration = Migration(source or self.pair.source, target or self.pair.target, database, *options)
        self.made.append(migration)
        return migration


@pytest.fixture
def migrations(pair):
    if pair.reason:
        pytest.skip(pair.reason)
    factory = Migrations(pair)
    yield factory
    for migration in factory.made:
        migration.remove()


@pytest.fixture
def folder():
    """A folder that the servers can read; short, since a socket's path may have 107 bytes only."""
    with tempfile.TemporaryDirectory(prefix="wf-test-", dir="/tmp") as path:
        Path(path).chmod(0o755)
        yield Path(path)


@pytest.fixture
def asked_versions(request, versions):
    """Of the run, or of migration.on_versions."""
    asked = getattr(request.node, "callspec", None) and request.node.callspec.params.get("pair")
    found = servers.find_binaries()
    return [found[major] for major in asked] if asked else versions


@pytest.fixture
def server_made(asked_versions):
    """Makes further servers (other settings, TCP, own life) that are removed at the end of the test."""
    made: list[servers.Server] = []

    def make(which: str, **options) -> servers.Server:
        server = servers.Server(asked_versions[0 if which == "source" else 1], which, **options)
        made.append(server)
        return server.start()

    yield make
    for server in made:
        server.remove()


@pytest.fixture
def physical(asked_versions):
    """Physical copies of a source server, which only a server of the same major can be."""
    made: list[servers.Server] = []

    def make() -> servers.Server:
        made.append(servers.Server(asked_versions[0], "copy", copy=True))
        return made[-1]

    yield make
    for server in made:
        server.remove()
