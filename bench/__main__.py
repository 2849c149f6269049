"""scripts/bench: runs the sections asked for, keeps their results, writes the tables."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path

from bench import REPOSITORY, clone, copying, drain, lanes, latency, large, micro, rtt, table, tables, workload
from bench.show import Show
from bench.store import Results, machine

SECTIONS = {"drain": drain, "unix": drain, "copy": copying, "clone": clone, "latency": latency, "rtt": rtt, "lanes": lanes,
            "tables": tables, "large": large, "micro": micro}
# What takes long and needs the disk is left to a full run.
NOT_IN_QUICK = {"unix", "large"}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("--quick", action="store_true",
                        help="small and few, to see that all of it works; docs/performance.md is left alone")
    parser.add_argument("--only", type=lambda text: text.split(","), default=[], metavar="SECTION,...",
                        help=f"of {', '.join(SECTIONS)}")
    parser.add_argument("--pairs", type=int, help="rounds of every comparison (5, quick 2 of the drain and 1 of the others)")
    parser.add_argument("--works", type=lambda text: text.split(","), default=[], metavar="WORK,...",
                        help=f"of the drain: {', '.join(work.name for work in workload.WORKS)}")
    parser.add_argument("--source", type=int, default=15, help="major version (15)")
    parser.add_argument("--target", type=int, default=15, help="major version (15)")
    parser.add_argument("--large-rows", type=int, help="rows of the large transaction (10 million)")
    parser.add_argument("--rtt-ms", type=float, default=5.0, help="round trip that is added to each server (5)")
    parser.add_argument("--results", type=Path, default=REPOSITORY / "bench" / "results.json")
    parser.add_argument("--docs", type=Path, default=REPOSITORY / "docs" / "performance.md",
                        help="the page whose tables are written anew")
    options = parser.parse_args()
    unknown = set(options.only) - set(SECTIONS) | set(options.works) - {work.name for work in workload.WORKS}
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    if set(options.works) & {"updates", "deletes"} and "inserts" not in options.works:
        parser.error("updates and deletes need the rows of inserts")
    options.rounds_asked = options.pairs
    options.divisor = 10 if options.quick else 1
    options.size = workload.Size().divided(options.divisor)
    options.large_rows = options.large_rows or 10_000_000 // options.divisor
    return options


def main() -> None:
    options = arguments()
    # psql, pg_dump and the others get their servers by argument alone.
    for name in [name for name in os.environ if name.startswith("PG")]:
        del os.environ[name]
    # Ended from outside it takes its servers and folders with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    show = Show()
    results = Results(options.results)
    sections = options.only or [name for name in SECTIONS if not (options.quick and name in NOT_IN_QUICK)]
    for section in sections:
        show.line(f"section {section}")
        options.unix = section == "unix"
        options.pairs = options.rounds_asked or (5 if not options.quick else 2 if section == "drain" else 1)
        heading = machine(options)
        results.put(section, heading, SECTIONS[section].run(options, show))
    text = table.whole(results)
    if options.quick:
        show.line(f"quick mode: {options.docs} is left as it is")
    else:
        table.put_into(options.docs, text)
    print(text)


if __name__ == "__main__":
    try:
        main()
    except (FileNotFoundError, RuntimeError, TimeoutError) as error:
        sys.exit(f"scripts/bench: {error}")
