"""Rows alone, one table at a time: walferry beside pipes of two psqls with as many parts, in text and in binary.

The target's table has no index while rows go in, on any side. A pipe's time is from its start to the end of its last
psql; walferry's from the moment its table begins until its rows are committed, as its status tells (every 10 ms).
"""

from __future__ import annotations

import subprocess

from bench import cpu, status
from bench.migration import migration
from bench.result import Run, order
from bench.rig import SOURCE_DATABASE, Rig
from bench.show import Show

# Name: columns and the rows' expressions over g.
SHAPES = {
    "accounts": ("aid int, bid int, abalance int, filler char(84)", "g, g / 100000 + 1, 0, ''"),
    "numbers and dates": ("id bigint, amount numeric(12, 2), day date, at timestamptz, who uuid, share float8",
                          "g, (g % 1000000) / 100.0, date '2020-01-01' + g % 2000, timestamptz '2020-01-01 UTC' + g * interval"
                          " '1 s', md5(g::text)::uuid, g / 7.0"),
}
PARTS = 2


class Pipe:
    """psql COPY TO | psql COPY FROM, once for each part of the table's pages, all at a time."""

    def __init__(self, rig: Rig, parts: int, binary: bool, freeze: bool = False):
        self.rig = rig
        self.parts = parts
        self.form = " (FORMAT binary)" if binary else ""
        self.freeze = freeze
        self.name = f"psql {'binary' if binary else 'text'}" + (" FREEZE" if freeze else "") + f" x{parts}"
        self.into = "WITH (" + ", ".join((["FORMAT binary"] if binary else []) + (["FREEZE"] if freeze else [])) + ")" \
            if binary or freeze else ""

    def psql(self, address: str, *statements: str, **pipes) -> cpu.Command:
        words = ["psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", address]
        for statement in statements:
            words += ["-c", statement]
        return cpu.Command(words, **pipes)

    def start_part(self, database: str, first_page: int, end_page: int | None) -> list[cpu.Command]:
        where = f"ctid >= '({first_page},0)'" + (f" AND ctid < '({end_page},0)'" if end_page is not None else "")
        out = f"COPY (SELECT * FROM public.rows WHERE {where}) TO STDOUT{self.form}" if self.parts > 1 else \
            f"COPY public.rows TO STDOUT{self.form}"
        reader = self.psql(self.rig.source_address, out)
        copy = f"COPY public.rows FROM STDIN {self.into}"
        # FREEZE wants the table emptied in the same transaction.
        statements = ["BEGIN", "TRUNCATE public.rows", copy, "COMMIT"] if self.freeze else [copy]
        writer = self.psql(self.rig.address(self.rig.target, database), *statements, stdin=reader.process.stdout,
                           stdout=subprocess.DEVNULL)
        reader.process.stdout.close()
        reader.process.stdout = None
        return [reader, writer]

    def run(self, work: str, rows: int) -> Run:
        with self.rig.target_database("piped") as database:
            self.rig.target.psql(database, sql=self.rig.schema("--section=pre-data"))
            pages = self.rig.ask("SELECT pg_relation_size('public.rows') / 8192")
            edges = [pages * part // self.parts for part in range(self.parts)] + [None]
            self.rig.checkpoint()
            with self.rig.watch(database) as watch:
                meter = watch.meter()
                commands = [command for part in range(self.parts)
                            for command in self.start_part(database, edges[part], edges[part + 1])]
                own = sum(command.wait(1200).cpu for command in commands)
                reading = meter.read()
            self.rig.compare(database)
        return Run(work, self.name, reading.seconds, reading.cpu | {"own": own}, rows, reading.wal_bytes)


def run_walferry(rig: Rig, work: str, rows: int) -> Run:
    with rig.target_database("copied") as database:
        rig.checkpoint()
        with migration(rig, database, "--jobs", str(PARTS), "--until", "copied") as own, rig.watch(database) as watch:
            own.daemon.start()
            own.await_status(status.rows_have_begun, "the copy to begin", 0.005)
            cpu_before = own.own_cpu()
            meter = watch.meter()
            own.await_status(status.rows_are_in, "the rows to be in")
            reading = meter.read()
            spent = own.own_cpu() - cpu_before
            own.daemon.await_exit(1200)
            rig.compare(database)
    return Run(work, "walferry", reading.seconds, reading.cpu | {"own": spent}, rows, reading.wal_bytes)


def run(options, show: Show) -> list[Run]:
    rows = 4_000_000 // options.divisor
    runs = []
    with Rig(options.source, options.target) as rig:
        pipes = [Pipe(rig, parts, binary) for parts in (1, PARTS) for binary in (False, True)]
        pipes.append(Pipe(rig, 1, True, freeze=True))
        for shape, (columns, values) in SHAPES.items():
            rig.source.psql(SOURCE_DATABASE, sql=f"""
                DROP TABLE IF EXISTS public.rows;
                CREATE TABLE public.rows ({columns});
                INSERT INTO public.rows SELECT {values} FROM generate_series(1, {rows}) g;
                ALTER TABLE public.rows ADD PRIMARY KEY ({columns.split()[0]});
                VACUUM ANALYZE public.rows;""")
            for number in range(options.pairs):
                for side in order([run_walferry, *pipes], number):
                    made = side.run(shape, rows) if isinstance(side, Pipe) else side(rig, shape, rows)
                    show.run(made)
                    runs.append(made)
    return runs
