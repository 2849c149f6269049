"""What is written on the source for the sides to carry: the works of the drain, and the tables that they need."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bench.rig import Rig

SCHEMA = """
CREATE TABLE public.big (id bigint PRIMARY KEY, n int NOT NULL, payload text NOT NULL, at timestamptz NOT NULL);
CREATE TABLE public.hot (id int PRIMARY KEY, n bigint NOT NULL);
CREATE TABLE public.probe (id bigint PRIMARY KEY);
CREATE TABLE public.done (id int PRIMARY KEY);
INSERT INTO public.hot SELECT g, 0 FROM generate_series(1, 1000) g;
ALTER TABLE public.pgbench_history ADD COLUMN id bigserial;
ALTER TABLE public.pgbench_history REPLICA IDENTITY FULL;
"""


@dataclass(frozen=True)
class Size:
    """How much of each."""

    transactions: int = 160_000
    rows: int = 1_000_000
    hot: int = 100_000
    scale: int = 10
    decoding_mb: int = 64  # PostgreSQL's default: larger transactions are streamed before they end

    def divided(self, by: int) -> Size:
        """Smaller, and streamed where the whole would be."""
        return Size(self.transactions // by, self.rows // by, self.hot // by, max(1, self.scale // by),
                    max(1, self.decoding_mb // by))

    def settings(self) -> dict[str, str]:
        """Of the source's server."""
        return {"logical_decoding_work_mem": f"{self.decoding_mb}MB"}


def prepare(rig: Rig, size: Size) -> None:
    """The tables. `done` gets one row when a work is complete: whoever has it has all of the work."""
    rig.pgbench("-i", "-q", "-s", str(size.scale))
    rig.source.psql("bench", sql=SCHEMA)


@dataclass(frozen=True)
class Work:
    """`write` returns the number of row changes."""

    name: str
    write: Callable[[Rig, Size], int]


def tpcb(rig: Rig, size: Size) -> int:
    rig.pgbench("-n", "-c", "4", "-t", str(size.transactions // 4))
    return size.transactions // 4 * 4 * 4


def inserts(rig: Rig, size: Size) -> int:
    rig.execute("TRUNCATE public.big", insert_rows(1, size.rows))
    return size.rows


def insert_rows(first: int | str, last: int | str) -> str:
    """The numbers, or SQL that gives them."""
    return ("INSERT INTO public.big SELECT g, g % 2000000000, md5(g::text) || 'abcdefghijklmnopqr', now()"
            f" FROM generate_series({first}, {last}) g")


def updates(rig: Rig, size: Size) -> int:
    rig.execute("UPDATE public.big SET n = n + 1, payload = md5(payload) || 'abcdefghijklmnopqr'")
    return size.rows


def deletes(rig: Rig, size: Size) -> int:
    rig.execute("DELETE FROM public.big")
    return size.rows


def hot_keys(rig: Rig, size: Size) -> int:
    """A hundred changes to each of the keys."""
    script = rig.folder / "hot.sql"
    script.write_text(f"\\set id random(1, {max(1, size.hot // 100)})\nUPDATE public.hot SET n = n + 1 WHERE id = :id;\n")
    rig.pgbench("-n", "-c", "4", "-t", str(size.hot // 4), "-f", str(script))
    return size.hot // 4 * 4


# In this order: updates and deletes take the rows of inserts.
WORKS = [Work("tpcb", tpcb), Work("inserts", inserts), Work("updates", updates), Work("deletes", deletes),
         Work("hot keys", hot_keys)]
