"""Scenarios: what is done on the source and what the target must hold, written as SQL in scenarios/*.sql.

A file is a list of scenarios, and a scenario a list of sections. Each begins with a comment line of its own:

    -- scenario: key_moves (points 6, 19; source >= 14; extension hstore)
    -- ...                      any further comment says what is at stake
    -- check: source.triggers   `walferry check` must have this finding, naming the scenario or the text that follows
    -- differs: why             source and target are meant to differ here: only `expect` judges
    -- alone: --option          a migration of its own, with these options of `run`
    -- databases: ENCODING ...  for `alone`: options of CREATE DATABASE of the source, and after a bar of the target
    -- defect: why              known not to work; it must fail, and the reason is printed
    -- before                   SQL on the source before the migration
    -- target                   SQL on the target just before `meanwhile`; under --no-schema before the migration
    -- meanwhile                SQL on the source while the migration follows
    -- session b                what follows is done by another session, called b
    -- stops: pattern           the apply must stop with an error that matches this
    -- repair                   SQL on the target, after which the apply must go on
    -- ends: pattern            the daemon must end with an error that matches this
    -- refused: pattern         the migration must not begin, for this reason
    -- expect                   queries on the target; lines "--> a | b" are the rows wanted

Each scenario lives in a schema of its own that is first on the search path. `:schema` and `:database` stand for the
names. Statements run one by one in autocommit unless the SQL says BEGIN.
"""

from __future__ import annotations

import contextlib
import io
import re
from dataclasses import dataclass, field
from pathlib import Path

import psycopg2

from compare import quote
from servers import Server

FOLDER = Path(__file__).resolve().parent / "scenarios"
_HEAD = re.compile(r"^-- scenario: (\w+) \(points? ([\d, -]+)((?:; [^;)]+)*)\)$")
_VALUED = ("check", "differs", "alone", "databases", "defect", "stops", "ends", "refused")
_BLOCKS = ("before", "target", "meanwhile", "repair", "expect")
_TOKEN = re.compile(r"[eE]'(?:[^'\\]|''|\\.)*'|'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|(\$\w*\$).*?\1|--[^\n]*|/\*.*?\*/|;", re.DOTALL)


@dataclass
class Scenario:
    """One scenario as written."""

    name: str
    file: str
    points: list[int]
    needs: list[str]
    values: dict[str, list[str]] = field(default_factory=dict)
    blocks: dict[str, str] = field(default_factory=dict)

    def value(self, key: str) -> str | None:
        return self.values[key][0] if key in self.values else None

    @property
    def extensions(self) -> list[str]:
        return [need.split()[1] for need in self.needs if need.startswith("extension ")]

    def why_not(self, source: int, target: int) -> str | None:
        """Why it does not apply to this pair of majors, or None."""
        for need in self.needs:
            wanted = re.fullmatch(r"(source|target) (>=|<=) (\d+)", need)
            if wanted is None:
                assert need.startswith("extension "), f"{self.file}: {self.name}: what is '{need}'?"
                continue
            major, limit = source if wanted[1] == "source" else target, int(wanted[3])
            if (major < limit) if wanted[2] == ">=" else (major > limit):
                return f"{self.name} needs {need}"
        return None


def _points(text: str) -> list[int]:
    found = []
    for part in text.split(","):
        first, _, last = part.strip().partition("-")
        found += range(int(first), int(last or first) + 1)
    return found


def parse(file: Path) -> list[Scenario]:
    """All scenarios of a file; a line that looks like a section but is none is an error."""
    found: list[Scenario] = []
    block = None
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        head = _HEAD.match(line)
        if head:
            needs = [part.strip() for part in head[3].split(";") if part.strip()]
            found.append(Scenario(head[1], file.name, _points(head[2]), needs))
            block = None
            continue
        word, colon, rest = line.removeprefix("-- ").partition(":")
        if line.startswith("-- scenario"):
            raise ValueError(f"{file.name}:{number}: cannot be read: {line}")
        if line.startswith("-- ") and colon and word in _VALUED:
            found[-1].values.setdefault(word, []).append(rest.strip())
        elif line.startswith("-- ") and line[3:] in _BLOCKS:
            block = line[3:]
            assert block not in found[-1].blocks, f"{file.name}:{number}: a second {block}"
            found[-1].blocks[block] = ""
        elif block:
            found[-1].blocks[block] += line + "\n"
        elif line.strip() and not line.startswith("--"):
            raise ValueError(f"{file.name}:{number}: SQL outside a section: {line}")
    return found


def load_all() -> list[Scenario]:
    found = [scenario for file in sorted(FOLDER.glob("*.sql")) for scenario in parse(file)]
    names = [scenario.name for scenario in found]
    assert len(names) == len(set(names)), "two scenarios have one name"
    return found


def split_statements(sql: str) -> list[tuple[str, str]]:
    """Statements, each with the lines that a COPY ... FROM STDIN reads (up to a line with a backslash and a dot)."""
    found = []
    start = position = 0
    while match := _TOKEN.search(sql, position):
        position = match.end()
        if match[0] != ";":
            continue
        statement, data = sql[start:match.start()].strip(), ""
        if re.search(r"^\s*COPY\b.*\bFROM\s+STDIN\b", _bare(statement), re.IGNORECASE | re.DOTALL):
            line_end = sql.index("\n", position) + 1
            end = sql.index("\\.\n", line_end)
            data, position = sql[line_end:end], end + 3
        start = position
        if _bare(statement):
            found.append((statement, data))
    assert not _bare(sql[start:]), f"a statement without its semicolon: {sql[start:][:200]}"
    return found


def _bare(statement: str) -> str:
    return re.sub(r"--[^\n]*|/\*.*?\*/", "", statement, flags=re.DOTALL).strip()


class Place:
    """A scenario's own schema in one database; runs its sections there."""

    def __init__(self, scenario: Scenario, schema: str, database: str):
        self.scenario = scenario
        self.schema = schema
        self.database = database

    def text(self, block: str) -> str:
        return (self.scenario.blocks.get(block, "").replace(":schema", self.schema).replace(":database", self.database))

    def run(self, server: Server, block: str) -> None:
        """Runs a section; its sessions take turns in the order written."""
        with contextlib.ExitStack() as stack:
            sessions: dict[str, object] = {}
            for part in re.split(r"^(?=-- session \w+$)", self.text(block), flags=re.MULTILINE):
                name = re.match(r"-- session (\w+)$", part, re.MULTILINE)
                key = name[1] if name else "a"
                if key not in sessions:
                    connection = stack.enter_context(server.connect(self.database))
                    sessions[key] = stack.enter_context(connection.cursor())
                    sessions[key].execute(f"SET search_path TO {quote(self.schema)}, public")
                for statement, data in split_statements(part):
                    try:
                        if data:
                            sessions[key].copy_expert(statement, io.StringIO(data))
                        else:
                            sessions[key].execute(statement)
                    except psycopg2.Error as error:
                        raise AssertionError(f"{self.scenario.file}: {self.scenario.name}, {block}: {error}"
                                             f"in: {statement[:300]}") from error

    def create(self, server: Server) -> None:
        server.execute(self.database, f"CREATE SCHEMA {quote(self.schema)}")
        self.run(server, "before")

    def unmet(self, target: Server) -> list[str]:
        """What `expect` asks of the target and does not get."""
        found = []
        if "expect" not in self.scenario.blocks:
            return found
        with target.connect(self.database) as connection, connection.cursor() as cursor:
            cursor.execute(f"SET search_path TO {quote(self.schema)}, public")
            for query, rows in re.findall(r"(.*?;)\n((?:-->[^\n]*\n)*)", self.text("expect"), re.DOTALL):
                wanted = [row[4:] for row in rows.splitlines()]
                cursor.execute(query)
                got = [" | ".join("NULL" if value is None else str(value) for value in row) for row in cursor.fetchall()]
                if got != wanted:
                    found.append(f"{query.strip()} gave {got} on the target, wanted {wanted}")
        return found
