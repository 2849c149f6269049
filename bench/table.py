"""Results as Markdown: one table a section, one of the goals, and their place in docs/performance.md."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from bench import goals
from bench.result import Runs, cpu_of
from bench.store import Results

BEGIN = "<!-- scripts/bench writes from here -->"
END = "<!-- to here -->"
MIB = 2**20


def markdown(heading: list[str], rows: list[list[str]]) -> str:
    lines = [heading, ["---"] * len(heading), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def times(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.2f}"


def cpu_columns(runs: Runs, work: str, side: str) -> list[str]:
    return [f"{runs.median(work, side, lambda run: run.cpu.get(name, 0.0)):.2f}" for name in ("source", "target", "own")]


def wal_column(runs: Runs, work: str, side: str) -> str:
    wal = runs.median(work, side, lambda run: run.wal_bytes)
    return f"{wal / MIB:.0f}" if wal else ""


def more_of(runs: Runs, work: str, side: str, name: str) -> float:
    return runs.median(work, side, lambda run: run.more.get(name, 0.0))


def drain(runs: Runs) -> str:
    """Speed: how many times faster than native, and which part of the floor's speed."""
    rows = []
    for work in runs.works():
        for side in runs.sides(work):
            changes = runs.of(work, side)[0].changes
            rows.append([work, side, runs.spread(work, side), times(runs.ratio(work, side, "native")),
                         times(runs.ratio(work, side, "null lazy")), *cpu_columns(runs, work, side),
                         f"{runs.median(work, side, cpu_of) / changes * 1e6:.2f}", wal_column(runs, work, side)])
    return markdown(["work", "side", "s (fastest to slowest)", "speed / native", "speed / null lazy", "CPU s source", "target",
                     "own", "CPU s per M changes", "target WAL MiB"], rows)


def copy(runs: Runs) -> str:
    rows = []
    for work in runs.works():
        for side in runs.sides(work):
            total = runs.median(work, side, cpu_of)
            own = runs.median(work, side, lambda run: run.cpu.get("own", 0.0))
            rows.append([work, f"{runs.of(work, side)[0].changes:,}", side, runs.spread(work, side),
                         times(runs.ratio(work, "walferry", side)), *cpu_columns(runs, work, side),
                         f"{own / total:.1%}" if total else "", wal_column(runs, work, side)])
    return markdown(["work", "rows", "side", "s (fastest to slowest)", "its s / walferry's", "CPU s source", "target", "own",
                     "own share", "target WAL MiB"], rows)


def latency(runs: Runs) -> str:
    rows = []
    for work in runs.works():
        for side in runs.sides(work):
            rows.append([work, side, *(f"{more_of(runs, work, side, name):.{digits}f}" if runs.of(work, side)[0].more.get(name)
                                       is not None else "" for name, digits in
                                       (("p50_ms", 2), ("p99_ms", 2), ("max_ms", 1), ("tps", 0), ("catch_up_s", 2))),
                         *cpu_columns(runs, work, side)])
    return markdown(["load", "side", "p50 ms", "p99 ms", "max ms", "source transactions / s", "s to catch up afterwards",
                     "CPU s source", "target", "own"], rows)


def large(runs: Runs) -> str:
    rows = []
    for work in runs.works():
        for side in runs.sides(work):
            rows.append([work, f"{runs.of(work, side)[0].changes:,}", side, runs.spread(work, side),
                         *cpu_columns(runs, work, side), f"{more_of(runs, work, side, 'peak_rss_mib'):.0f}",
                         f"{more_of(runs, work, side, 'spill_mib'):.0f}", f"{more_of(runs, work, side, 'stream_mib'):.0f}"])
    return markdown(["rows in", "rows", "side", "s (fastest to slowest)", "CPU s source", "target", "own", "peak RSS MiB",
                     "spilled on the source MiB", "streamed MiB"], rows)


def rtt(runs: Runs) -> str:
    rows = []
    for work in runs.works():
        for side in runs.sides(work):
            whose = side.split()[0]
            rows.append([work, side, runs.spread(work, side), times(runs.ratio(work, f"{whose} no delay", side)),
                         *cpu_columns(runs, work, side)])
    return markdown(["work", "side", "s (fastest to slowest)", "s / without delay", "CPU s source", "target", "own"], rows)


def lanes(runs: Runs) -> str:
    rows = []
    for work in runs.works():
        alone = more_of(runs, work, "1 lane", "busiest_s") if runs.has(work, "1 lane") else 0.0
        for side in runs.sides(work):
            busiest = more_of(runs, work, side, "busiest_s")
            rows.append([work, side, runs.spread(work, side), f"{busiest:.2f}",
                         f"{more_of(runs, work, side, 'backends_s'):.2f}", times(alone / busiest if busiest else None),
                         f"{more_of(runs, work, side, 'split'):.0f}", *cpu_columns(runs, work, side)])
    return markdown(["work", "side", "s (fastest to slowest)", "CPU s of the busiest apply backend", "of all of them",
                     "gain where the target has a processor for each", "groups split", "CPU s source", "target", "own"], rows)


def tables(runs: Runs) -> str:
    works = sorted(runs.works(), key=lambda work: runs.of(work, runs.sides(work)[0])[0].changes)
    steps = list(dict.fromkeys(side for work in works for side in runs.sides(work)))
    rows = []
    for step in steps:
        row = [step]
        for work in works:
            row.append(f"{runs.median(work, step):.2f}" if runs.has(work, step) else "")
        if len(works) > 1 and runs.has(works[0], step) and runs.has(works[-1], step):
            row.append(f"{growth(runs, works[0], works[-1], step):.2f}")
        else:
            row.append("")
        rows.append(row)
    return markdown(["step, s"] + [f"{work}" for work in works] + ["time grows as tables to the power"], rows)


def growth(runs: Runs, few: str, many: str, step: str) -> float:
    """The exponent between the two: 1 is linear."""
    from math import log

    tables_few, tables_many = (runs.of(work, step)[0].changes for work in (few, many))
    least = 0.01  # what cannot be measured does not grow
    return log(max(least, runs.median(many, step)) / max(least, runs.median(few, step))) / log(tables_many / tables_few)


def micro(runs: Runs) -> str:
    return markdown(["operation", "ns"], [[work, f"{runs.median(work, 'walferry', lambda run: run.more['ns']):.1f}"]
                                          for work in runs.works()])


TABLES: dict[str, tuple[str, Callable[[Runs], str]]] = {
    "drain": ("Drain of a backlog, TCP", drain),
    "unix": ("Drain of a backlog, Unix sockets", drain),
    "copy": ("Rows of one table", copy),
    "clone": ("A whole database", copy),
    "latency": ("Without a backlog", latency),
    "large": ("Ten million rows in one transaction", large),
    "rtt": ("With a round trip of milliseconds", rtt),
    "lanes": ("Lanes of the apply", lanes),
    "tables": ("Many tables", tables),
    "micro": ("Micro benchmarks", micro),
}


def described(heading: dict) -> str:
    quick = " **Quick mode: small and few, not for comparison.**" if heading["quick"] else ""
    return (f"{heading['at']}, {heading['commit']}; {heading['processors']} processors ({heading['model']}); PostgreSQL"
            f" {heading['source']} -> {heading['target']}; {heading['pairs']} rounds; load average {heading['load_before']}"
            f" before, {heading['load_after']} after.{quick}")


def whole(results: Results) -> str:
    """All sections that have runs."""
    parts = ["### Goals", goals.table(results)]
    for section, (title, write) in TABLES.items():
        if section in results.sections:
            parts += [f"### {title}", described(results.heading(section)), write(results.runs(section))]
    return "\n\n".join(parts)


def put_into(page: Path, text: str) -> None:
    """Between the two marks, which the page must have."""
    before, begin, rest = page.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise SystemExit(f"{page}: the lines '{BEGIN}' and '{END}' are missing, so there is no place for the tables")
    page.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}")
