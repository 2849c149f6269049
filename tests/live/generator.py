"""Random statements over whatever schema a database has; a seed gives the same statements again.

A `Generator` reads the catalog and then decides everything by its dice: which session acts, what it does, on which
table, with which expressions. Rows are chosen inside the SQL (the n-th share of the table in key order) and values
come from the server's random(), which each transaction seeds, so that nothing depends on what a statement returned.
The sessions take turns in one thread: who waits for whom is part of the seed too, and a wait ends by lock_timeout.
`log` names the file with every statement sent.
"""

from __future__ import annotations

import collections
import random
from pathlib import Path

import psycopg2

from servers import Server
from workload import Column, Table, fresh_value, ident, invented_value, read_tables

_STEPS = {"update": 34, "insert": 22, "delete": 8, "key update": 7, "savepoint": 7, "rollback to": 4, "release": 3,
          "commit": 9, "rollback": 2, "large": 2, "truncate": 0.25, "message": 1, "draw": 1}


class Session:
    """One connection, whose open transaction may hold savepoints."""

    def __init__(self, connection):
        self.connection = connection
        self.savepoints: list[str] = []
        self.open = False
        self.left = 0  # steps until it commits


class Generator:
    """Sends steps to a database until told to end; `finish()` commits what is open."""

    def __init__(self, server: Server, database: str, seed: int, log: Path, sessions: int = 4,
                 wants=lambda table: True):
        self.dice = random.Random(seed)
        self.server, self.database = server, database
        self.file = open(log, "w", encoding="utf-8")
        self.counts: collections.Counter[str] = collections.Counter()
        self.refused: collections.Counter[str] = collections.Counter()
        self.sessions = [Session(self._connect(number)) for number in range(sessions)]
        with self.sessions[0].connection.cursor() as cursor:
            self.tables = [table for table in read_tables(cursor) if wants(table)]
            cursor.execute("SELECT c.oid::regclass::text FROM pg_class c WHERE relkind = 'S' AND relnamespace::regnamespace::text"
                           " NOT IN ('pg_catalog', 'walferry') ORDER BY 1")
            self.sequences = [name for (name,) in cursor.fetchall()]
        assert self.tables, "a database without a table that can be changed"

    def _connect(self, number: int):
        connection = psycopg2.connect(self.server.dsn(self.database), application_name=f"walferry-writer-{number}",
                                      options="-c lock_timeout=30ms -c statement_timeout=60s -c client_min_messages=error")
        connection.autocommit = True
        return connection

    def step(self) -> None:
        """One statement of one session."""
        session = self.dice.choice(self.sessions)
        kind = self.dice.choices(list(_STEPS), list(_STEPS.values()))[0]
        table = self.dice.choice(self.tables)
        if not session.open:
            self._send(session, "BEGIN")
            self._send(session, f"SELECT setseed({self.dice.random():.6f})")
            session.open, session.left = True, self.dice.choice([1, 1, 2, 3, 5, 10, 40, 150])
        session.left -= 1
        if kind in ("commit", "rollback") or session.left < 0:
            self._end(session, "ROLLBACK" if kind == "rollback" else "COMMIT")
        elif kind == "savepoint":
            session.savepoints.append(f"s{len(session.savepoints)}")
            self._send(session, f"SAVEPOINT {session.savepoints[-1]}")
        elif kind in ("rollback to", "release"):
            if session.savepoints:
                depth = self.dice.randrange(len(session.savepoints))
                word = "ROLLBACK TO" if kind == "rollback to" else "RELEASE"
                self._send(session, f"{word} SAVEPOINT {session.savepoints[depth]}")
                session.savepoints = session.savepoints[:depth + (kind == "rollback to")]
        else:
            self._try(session, kind, self._statement(kind, table))

    def finish(self) -> None:
        """Commits everything that is open, so that the two ends can be compared."""
        for session in self.sessions:
            if session.open:
                self._end(session, "COMMIT")
        self.file.flush()

    def close(self) -> None:
        for session in self.sessions:
            session.connection.close()
        self.file.close()

    # -- sending -------------------------------------------------------------------------------------------------

    def _send(self, session: Session, sql: str) -> int:
        number = self.sessions.index(session)
        self.file.write(f"/* {number} */ {sql.replace('%%', '%')};\n")
        with session.connection.cursor() as cursor:
            cursor.execute(sql, ())
            return cursor.rowcount

    def _end(self, session: Session, how: str) -> None:
        session.open, session.savepoints = False, []
        try:
            self._send(session, how)
            self.counts[how.lower()] += 1
        except psycopg2.Error as error:  # a deferred constraint: rolled back by the server
            self.refused[error.pgcode or "connection"] += 1
            if session.connection.closed:
                raise

    def _try(self, session: Session, kind: str, sql: str | None) -> None:
        """A statement that the schema refuses is undone alone."""
        if sql is None:
            return
        self._send(session, "SAVEPOINT attempt")
        try:
            if self._send(session, sql) != 0:
                self.counts[kind] += 1
            self._send(session, "RELEASE SAVEPOINT attempt")
        except psycopg2.Error as error:
            if session.connection.closed:
                raise
            self.refused[error.pgcode or "connection"] += 1
            self._send(session, "ROLLBACK TO SAVEPOINT attempt")

    # -- statements ----------------------------------------------------------------------------------------------

    def _statement(self, kind: str, table: Table) -> str | None:
        if kind == "insert":
            return self._insert(table, self.dice.choice([1, 1, 1, 2, 20]))
        if kind == "update":
            return self._update(table, self.dice.choice([1, 1, 1, 3, 50]))
        if kind == "delete":
            return f"DELETE FROM {table.sql} o WHERE {self._rows(table, self.dice.choice([1, 1, 2]))}"
        if kind == "key update":
            return self._update_key(table)
        if kind == "large":
            big = self.dice.randint(500, 3000)
            return self._insert(table, big // 5) if self.dice.random() < 0.4 else self._update(table, big)
        if kind == "truncate":
            return self._truncate()
        if kind == "message":
            text = "x" * self.dice.choice([1, 10, 5000])
            return f"SELECT pg_logical_emit_message({self.dice.choice(['true', 'false'])}, 'random', '{text}')"
        sequence = self.dice.choice(self.sequences).replace("'", "''").replace("%", "%%") if self.sequences else None
        return sequence and f"SELECT nextval('{sequence}')"

    def _ordered(self, table: Table, count: int) -> str:
        """FROM and what follows: `count` rows in key order, from a random share of the table on."""
        order = ", ".join(f"x.{ident(name)}" for name in table.key) or "x::text"
        return (f"FROM {table.sql} x ORDER BY {order} LIMIT {count} OFFSET"
                f" (SELECT floor({self.dice.random():.6f} * count(*))::bigint FROM {table.sql})")

    def _rows(self, table: Table, count: int) -> str:
        return f"(o.tableoid, o.ctid) IN (SELECT x.tableoid, x.ctid {self._ordered(table, count)})"

    def _insert(self, table: Table, count: int) -> str:
        """Clones of rows with fresh values where a key demands them; now and then a row from nothing."""
        invent = self.dice.random() < 0.05
        names, values = [], []
        for column in table.columns:
            if column.fixed or (column.keyed and column.defaulted):
                continue
            value = None
            if column.keyed or (column.reference is not None and self.dice.random() < 0.3) or self.dice.random() < 0.1:
                value = fresh_value(column, self.dice)
            if invent:
                value = value or invented_value(column).replace("%", "%%")
                value = value.replace(f"o.{ident(column.name)}", f"({invented_value(column)})".replace("%", "%%"))
            names.append(ident(column.name))
            values.append(value or f"o.{ident(column.name)}")
        if not names:
            return f"INSERT INTO {table.sql} DEFAULT VALUES"
        source = f"generate_series(1, {count})" if invent else f"(SELECT x.* {self._ordered(table, count)}) o"
        conflict = " ON CONFLICT DO NOTHING" if count > 1 else ""
        return f"INSERT INTO {table.sql} ({', '.join(names)}) SELECT {', '.join(values)} FROM {source}{conflict}"

    def _changed(self, columns: list[Column]) -> str | None:
        changes = []
        for column in columns:
            value = "NULL" if column.nullable and self.dice.random() < 0.08 else fresh_value(column, self.dice)
            if value is not None:
                changes.append(f"{ident(column.name)} = {value}")
        return ", ".join(changes) or None

    def _update(self, table: Table, count: int) -> str | None:
        free = [column for column in table.columns if not column.keyed and not column.fixed]
        if not free:
            return None
        changed = self._changed(self.dice.sample(free, min(len(free), self.dice.choice([1, 1, 2, 4]))))
        return changed and f"UPDATE {table.sql} o SET {changed} WHERE {self._rows(table, count)}"

    def _update_key(self, table: Table) -> str | None:
        movable = [column for column in table.columns if column.keyed and not column.fixed]
        if not movable:
            return None
        changed = self._changed([self.dice.choice(movable)])
        return changed and f"UPDATE {table.sql} o SET {changed} WHERE {self._rows(table, self.dice.choice([1, 1, 5]))}"

    def _truncate(self) -> str:
        """Empties one or two tables and, with CASCADE, what refers to them; later inserts invent new rows."""
        tables = self.dice.sample(self.tables, min(len(self.tables), self.dice.choice([1, 1, 2])))
        options = self.dice.choice(["", " RESTART IDENTITY"]) + self.dice.choice(["", "", "", " CASCADE"])
        return f"TRUNCATE {', '.join(table.sql for table in tables)}{options}"
