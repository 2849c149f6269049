"""Dockerfile and docker-compose.yml hold what they promise, found out without containers: the packages of the image have
every library of the program, and the compose file's own commands, run one after the other, migrate its shop."""

from __future__ import annotations

import re
import shlex
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
import yaml

import servers
import walferry
from compare import assert_equal
from servers import wait_until

pytestmark = pytest.mark.limit(180)

REPOSITORY = walferry.REPOSITORY
STATE_DIR = "/var/lib/walferry/state"


def output(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_the_runtime_packages_bring_every_library_of_the_program():
    listed = output(str(REPOSITORY / "scripts/install-packages"), "--runtime-only", "--list").split()
    brought = set(output("apt-cache", "depends", "--recurse", "--installed", "--no-recommends", "--no-suggests",
                         "--no-conflicts", "--no-breaks", "--no-replaces", "--no-enhances", *listed).split())
    assert set(listed) <= brought, "every package of the list exists"
    libraries = [Path(path).resolve() for path in re.findall(r"=> (/\S+)", output("ldd", str(walferry.binary())))]
    assert any("librocksdb" in library.name for library in libraries), libraries
    unknown = []
    for library in libraries:
        # A package may have been made before /lib became a link to /usr/lib.
        names = [str(library), str(library).removeprefix("/usr")]
        owners = subprocess.run(["dpkg", "-S", *names], capture_output=True, text=True).stdout
        packages = {owner.split(":")[0] for owner in owners.splitlines()}
        if not packages & brought:
            unknown.append((library.name, packages))
    assert unknown == [], "libraries that the image would lack"


def services() -> dict:
    return yaml.safe_load((REPOSITORY / "docker-compose.yml").read_text())["services"]


def steps_of_the_comment(service: str) -> list[list[str]]:
    """What the comment at the top has run in a container of the service, as arguments of its program."""
    lines = re.findall(rf"^#   docker compose (?:exec|run --rm) {service} (.*)$",
                       (REPOSITORY / "docker-compose.yml").read_text(), re.MULTILINE)
    return [shlex.split(line.split("     ")[0]) for line in lines]


class Application:
    """The image `writer`: its folder alone, by the system's Python."""

    def __init__(self, folder: Path, translate):
        shutil.copytree(REPOSITORY / "tests/live", folder, ignore=shutil.ignore_patterns("__pycache__"))
        self.program = ["/usr/bin/python3", str(folder / "write.py")]
        self.translate = translate

    def start(self, arguments: list[str]) -> subprocess.Popen:
        return subprocess.Popen(["setpriv", "--pdeathsig=KILL", *self.program, *map(self.translate, arguments)],
                                env=walferry.environment(), stdout=subprocess.PIPE, text=True)

    @staticmethod
    def stop(process: subprocess.Popen) -> None:
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0


def test_the_commands_of_the_compose_file_migrate_its_shop(migrations, tmp_path):
    migration = migrations("shop")
    source, database, target, _ = migration.ends
    compose = services()
    port = servers.free_port()
    places = {"host=source user=postgres dbname=shop": source.dsn(database),
              "host=target user=postgres dbname=shop": target.dsn(database),
              STATE_DIR: str(migration.daemon.state_dir), "0.0.0.0:8080": f"127.0.0.1:{port}"}

    def translate(argument: str) -> str:
        return places.get(argument, argument)

    for server in "source", "target":
        assert "wal_level=logical" in compose[server]["command"]
    application = Application(tmp_path / "app", translate)
    assert application.start(compose["load"]["command"]).wait(60) == 0
    writer = application.start(compose["writer"]["command"])

    run = compose["walferry"]["command"]
    assert run[:7] == ["run", "--source", run[2], "--target", run[4], "--state-dir", STATE_DIR], run
    assert run[2] in places and run[4] in places
    migration.daemon.start(*map(translate, run[7:]))
    migration.daemon.await_phase("follow", 120)
    health = compose["walferry"]["healthcheck"]["test"]
    assert health[:2] == ["CMD", "walferry"]
    assert walferry.command(*map(translate, health[2:])).code == walferry.OK
    page = output("curl", "-s", f"http://127.0.0.1:{port}/healthz")
    assert "ok" in page, page

    commands = [step[1:] for step in steps_of_the_comment("walferry")]
    assert [command[0] for command in commands] == ["status", "cutover", "finish"], commands
    for command in commands[:2]:
        answer = walferry.command(*(translate(each) for each in command if each != "--watch"))
        assert answer.code == walferry.OK, answer
    application.stop(writer)  # its writes are refused since then
    assert_equal(*migration.ends)
    moved = application.start(steps_of_the_comment("writer")[0])
    rows = "SELECT count(*) FROM ledger.walferry_ledger"
    before = target.scalar(database, rows)
    wait_until(lambda: target.scalar(database, rows) > before, 60, "the application to write to the target")
    application.stop(moved)
    answer = walferry.command(*map(translate, commands[2]))
    assert answer.code == walferry.OK, answer
