"""THE ORACLE: a full comparison of two databases.

`differences(...)` returns a readable list, empty when the two are equal in
- the names of their tables, sequences and materialized views,
- every row of every table, by column name, whatever the order, duplicates counted,
- every sequence (last_value and is_called),
- every large object (contents),
- the schema dump of pg_dump.
It trusts nothing of walferry: own SQL, own hashing, rows read in text form under pinned settings.
"""

from __future__ import annotations

import collections
import difflib
import hashlib
import re
from dataclasses import dataclass, field

import psycopg2

from schema_dump import dump_schema
from servers import Server

# Text output must not depend on settings of the database or role.
_SETTINGS = {
    "search_path": "", "datestyle": "ISO, YMD", "intervalstyle": "postgres", "extra_float_digits": "3",
    "timezone": "UTC", "bytea_output": "hex", "row_security": "off", "lc_monetary": "C", "xmlbinary": "base64",
    "statement_timeout": "0", "lock_timeout": "0", "quote_all_identifiers": "off",
}
_ROWS_SHOWN = 5
# The announced write fence on the source is the one object of walferry's that a switched source has more.
_FENCE = re.compile(r"CREATE TRIGGER walferry_fence(?:_rows)? BEFORE .* EXECUTE FUNCTION walferry\.refuse_writes_\w+\(\);$")
# From 18 on NOT NULL is a constraint with a name, which an older source has none to give.
_NOT_NULL_NAME = re.compile(r' CONSTRAINT (?:"(?:[^"]|"")+"|\w+) NOT NULL')


def quote(name: str) -> str:
    """An SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


@dataclass
class Contents:
    """What one database holds, as digests."""

    tables: dict[str, tuple[list[str], int, int]] = field(default_factory=dict)   # name -> columns, rows, hash
    matviews: dict[str, tuple[list[str], int, int]] = field(default_factory=dict)
    sequences: dict[str, tuple[int, bool]] = field(default_factory=dict)
    large_objects: tuple[int, int] = (0, 0)


class Reader:
    """Reads one database in one snapshot."""

    def __init__(self, server: Server, database: str, exclude_schemas: tuple[str, ...]):
        self.connection = psycopg2.connect(server.dsn(database), application_name="walferry-oracle")
        self.connection.set_session(isolation_level="REPEATABLE READ", readonly=True)
        self.exclude = list(exclude_schemas)
        # Told to psycopg2 as well, which decodes names by it. Bytes without an encoding are read as they are.
        plain = self.connection.get_parameter_status("server_encoding") == "SQL_ASCII"
        self.connection.set_client_encoding("SQL_ASCII" if plain else "UTF8")
        with self.connection.cursor() as cursor:
            for key, value in _SETTINGS.items():
                cursor.execute("SELECT set_config(%s, %s, false)", (key, value))

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *exception) -> None:
        self.connection.close()

    def fetch(self, sql: str, parameters=None) -> list[tuple]:
        with self.connection.cursor() as cursor:
            cursor.execute(sql, parameters)
            return cursor.fetchall()

    def relations(self, kinds: str, unlogged: bool = False) -> list[tuple[int, str, str]]:
        """oid, schema, name of all permanent relations of these kinds outside system and excluded schemas."""
        return self.fetch(
            "SELECT c.oid, n.nspname, c.relname FROM pg_catalog.pg_class c"
            " JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
            " WHERE c.relkind = ANY (%s) AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'"
            " AND NOT n.nspname = ANY (%s) AND c.relpersistence = ANY (%s) ORDER BY 2, 3",
            (list(kinds), self.exclude, ["p", "u"] if unlogged else ["p"]))

    def columns(self, oid: int) -> list[str]:
        return [row[0] for row in self.fetch(
            "SELECT attname FROM pg_catalog.pg_attribute WHERE attrelid = %s AND attnum > 0 AND NOT attisdropped"
            " ORDER BY attname", (oid,))]

    def row_lines(self, schema: str, name: str, columns: list[str], only: bool, sink) -> None:
        """Feeds `sink` with every row as one COPY text line."""
        listed = ", ".join(quote(column) for column in columns)
        source = f"{'ONLY ' if only else ''}{quote(schema)}.{quote(name)}"
        with self.connection.cursor() as cursor:
            cursor.copy_expert(f"COPY (SELECT {listed} FROM {source}) TO STDOUT", sink)

    def digest(self, oid: int, schema: str, name: str, only: bool = True) -> tuple[list[str], int, int]:
        columns = self.columns(oid)
        sink = _HashSink()
        self.row_lines(schema, name, columns, only, sink)
        return columns, sink.rows, sink.total

    def sequence(self, schema: str, name: str) -> tuple[int, bool]:
        return self.fetch(f"SELECT last_value, is_called FROM {quote(schema)}.{quote(name)}")[0]

    def large_objects(self) -> tuple[int, int]:
        count = self.fetch("SELECT count(*) FROM pg_catalog.pg_largeobject_metadata")[0][0]
        sink = _HashSink()
        with self.connection.cursor() as cursor:
            cursor.copy_expert("COPY (SELECT loid, pageno, data FROM pg_catalog.pg_largeobject) TO STDOUT", sink)
        return count, sink.total

    def contents(self, matviews: bool, unlogged: bool) -> Contents:
        result = Contents()
        for oid, schema, name in self.relations("r", unlogged):
            result.tables[f"{quote(schema)}.{quote(name)}"] = self.digest(oid, schema, name)
        for oid, schema, name in self.relations("m") if matviews else []:
            populated = self.fetch("SELECT relispopulated FROM pg_catalog.pg_class WHERE oid = %s", (oid,))[0][0]
            result.matviews[f"{quote(schema)}.{quote(name)}"] = (
                self.digest(oid, schema, name, only=False) if populated else (["not populated"], 0, 0))
        for _, schema, name in self.relations("S", unlogged):
            result.sequences[f"{quote(schema)}.{quote(name)}"] = self.sequence(schema, name)
        result.large_objects = self.large_objects()
        return result


class _LineSink:
    """COPY text output has no raw newline inside a row, so lines are rows."""

    def __init__(self) -> None:
        self.rest = b""

    def write(self, data: bytes | str) -> None:
        pieces = (self.rest + (data.encode() if isinstance(data, str) else data)).split(b"\n")
        self.rest = pieces.pop()
        for piece in pieces:
            self.row(piece)

    def row(self, line: bytes) -> None:
        raise NotImplementedError


class _HashSink(_LineSink):
    """Order-free and duplicates-aware: the sum of the rows' 128-bit hashes, and their count."""

    def __init__(self) -> None:
        super().__init__()
        self.rows = 0
        self.total = 0

    def row(self, line: bytes) -> None:
        self.rows += 1
        self.total = (self.total + int.from_bytes(hashlib.blake2b(line, digest_size=16).digest(), "big")) % (1 << 128)


class _CountSink(_LineSink):
    """All rows with their number of occurrences, for showing what differs."""

    def __init__(self) -> None:
        super().__init__()
        self.counter: collections.Counter[bytes] = collections.Counter()

    def row(self, line: bytes) -> None:
        self.counter[line] += 1


def _explain_rows(source: Reader, target: Reader, name: str, columns: list[str], only: bool) -> list[str]:
    """The first few rows that one side has and the other has not."""
    counters = []
    for reader in (source, target):
        sink = _CountSink()
        schema, relation = re.fullmatch(r'"((?:[^"]|"")*)"\."((?:[^"]|"")*)"', name, re.S).groups()
        reader.row_lines(schema.replace('""', '"'), relation.replace('""', '"'), columns, only, sink)
        counters.append(sink.counter)
    lines = []
    for side, extra in (("source", counters[0] - counters[1]), ("target", counters[1] - counters[0])):
        total = sum(extra.values())
        for row, count in sorted(extra.items())[:_ROWS_SHOWN]:
            shown = row.decode(errors="replace")
            lines.append(f"    only on the {side} x{count}: {shown[:300]}")
        if len(extra) > _ROWS_SHOWN:
            lines.append(f"    ... {total} rows in all only on the {side}")
    return lines


def _compare_names(kind: str, source: dict, target: dict) -> list[str]:
    return ([f"{kind} {name} is missing on the target" for name in source if name not in target]
            + [f"{kind} {name} is only on the target" for name in target if name not in source])


def _compare_rows(kind: str, source: Reader, target: Reader, left: dict, right: dict, only: bool) -> list[str]:
    found = _compare_names(kind, left, right)
    for name in left:
        if name not in right or left[name] == right[name]:
            continue
        (columns, rows, _), (other_columns, other_rows, _) = left[name], right[name]
        if columns != other_columns:
            found.append(f"{kind} {name}: columns {columns} on the source, {other_columns} on the target")
            continue
        found.append(f"{kind} {name}: {rows} rows on the source, {other_rows} on the target, contents differ")
        found += _explain_rows(source, target, name, columns, only)
    return found


def data_differences(source: Server, source_database: str, target: Server, target_database: str,
                     exclude_schemas: tuple[str, ...] = ("walferry",), matviews: bool = False,
                     sequences: bool = True, unlogged: bool = False) -> list[str]:
    """Differences in rows, sequences and large objects. `unlogged`: of unlogged tables too, which come at the cutover."""
    with Reader(source, source_database, exclude_schemas) as left, \
            Reader(target, target_database, exclude_schemas) as right:
        a, b = left.contents(matviews, unlogged), right.contents(matviews, unlogged)
        if not a.tables:
            # An oracle that compares nothing with nothing must not say "equal".
            return [f"the source database {source_database} has no tables to compare"]
        found = _compare_rows("table", left, right, a.tables, b.tables, only=True)
        found += _compare_rows("materialized view", left, right, a.matviews, b.matviews, only=False)
    if sequences:
        found += _compare_names("sequence", a.sequences, b.sequences)
        found += [f"sequence {name}: (last_value, is_called) = {value} on the source, {b.sequences[name]} on the target"
                  for name, value in a.sequences.items() if name in b.sequences and b.sequences[name] != value]
    if a.large_objects != b.large_objects:
        found.append(f"large objects: {a.large_objects[0]} on the source, {b.large_objects[0]} on the target,"
                     " contents differ")
    return found


def schema_differences(source: Server, source_database: str, target: Server, target_database: str,
                       exclude_schemas: tuple[str, ...] = ("walferry",)) -> list[str]:
    """A unified diff of the normalised schema dumps, empty when equal."""
    left = [line for line in dump_schema(source, source_database, exclude_schemas) if not _FENCE.match(line)]
    right = dump_schema(target, target_database, exclude_schemas)
    if source.binaries.major < 14 <= target.binaries.major:
        # Range types have had a multirange type of their own since 14.
        right = re.sub(r",\n\s+multirange_type_name = [^\n,]+", "", "\n".join(right)).split("\n")
    if source.binaries.major < 18:
        right = [_NOT_NULL_NAME.sub(" NOT NULL", line) for line in right]
    return list(difflib.unified_diff(left, right, "source schema", "target schema", lineterm="", n=2))


def differences(source: Server, source_database: str, target: Server, target_database: str,
                exclude_schemas: tuple[str, ...] = ("walferry",), matviews: bool = False) -> list[str]:
    """Everything that differs between the two databases after a cutover."""
    return (data_differences(source, source_database, target, target_database, exclude_schemas, matviews, unlogged=True)
            + schema_differences(source, source_database, target, target_database, exclude_schemas))


def assert_equal(source: Server, source_database: str, target: Server, target_database: str, **options) -> None:
    """Fails the test with the readable list."""
    found = differences(source, source_database, target, target_database, **options)
    assert not found, f"{len(found)} difference lines:\n" + "\n".join(found[:80])
