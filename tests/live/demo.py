#!/usr/bin/env python3
"""The main job on an embedded default; scripts/demo builds everything and then runs this.

Two private servers, a shop with data, four writers that never stop; the real program moves it, the switch happens under
load, the writers go to the target, and every write that was acknowledged to them is looked for there.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path

import servers
import walferry
import write
from migration import choose_versions
from servers import wait_until
from workload import Workload

DATABASE = "shop"
COLOURED = sys.stdout.isatty() and not os.environ.get("NO_COLOR")


def say(text: str, heading: bool = False) -> None:
    if heading:
        text = f"\n\033[1m{text}\033[0m" if COLOURED else f"\n{text}"
    print(text, flush=True)


def size(count: float | None) -> str:
    count = float(count or 0)
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


class StatusLines(threading.Thread):
    """Prints a line of walferry's status whenever the phase changes, and one a second."""

    def __init__(self, daemon: walferry.Daemon, workload: Workload):
        super().__init__(daemon=True)
        self.source = daemon
        self.workload = workload
        self.done = threading.Event()

    def run(self) -> None:
        shown = (None, 0.0)
        while not self.done.wait(0.1):
            status = self.source.status() if self.source.alive() else None
            if status is None or self.done.is_set():
                continue
            phase = status["phase"]
            if phase != shown[0] or time.monotonic() - shown[1] >= 1:
                shown = (phase, time.monotonic())
                copied = status.get("copy") or {}
                fraction = f"  copied {100 * (copied.get('fraction_done') or 0):3.0f} %" if phase == "copy" else ""
                say(f"  {phase:<10} lag {size(status['lag_bytes']):>8} / {status['lag_seconds'] or 0:.1f} s"
                    f"   writers committed {self.workload.commits}{fraction}")

    def stop(self) -> None:
        self.done.set()
        self.join(30)


def move(source: servers.Server, target: servers.Server, folder: Path) -> bool:
    """The whole job; True when nothing is missing."""
    for server in (source, target):
        server.create_database(DATABASE)
    source_dsn, target_dsn = source.dsn(DATABASE), target.dsn(DATABASE)
    write.load(source_dsn)
    amount = source.scalar(DATABASE, "SELECT pg_database_size(current_database())")
    say(f"  loaded {size(amount)} into the source; {write.WRITERS} writers start and do not stop any more")
    daemon = walferry.Daemon(source_dsn, target_dsn, folder, "--listen", f"127.0.0.1:{servers.free_port()}")
    workload = Workload(source_dsn, write.WRITERS, seed=int(time.time())).start()
    lines = StatusLines(daemon, workload)
    try:
        workload.await_commits(100)
        say("walferry run", heading=True)
        daemon.start()
        lines.start()
        daemon.await_phase("follow", 180)
        workload.await_commits(1000)
        daemon.await_status(lambda status: status["lag_seconds"] < 0.9, 60, "a lag below 0.9 s")
        lines.stop()

        say("walferry cutover, while the writers write", heading=True)
        answer = daemon.cutover("--json", "--timeout", "30s")
        if answer.code != walferry.OK:
            say(str(answer))
            return False
        workload.repoint(target_dsn)
        wait_until(lambda: all(target_dsn in writer.first_commit for writer in workload.writers), 60,
                   "all writers to go on at the target")
        workload.await_commits(500)
        workload.stop()
        report = answer.json()
        print_report(report)
        wrong = prove(report, workload, source, target, source_dsn, target_dsn)

        say("walferry finish", heading=True)
        finished = daemon.finish()
        left = source.query(DATABASE, "SELECT slot_name FROM pg_replication_slots UNION ALL SELECT pubname FROM pg_publication")
        if finished.code != walferry.OK or left:
            wrong.append(f"finish left {left} on the source: {finished}")
        say("  slot and publication are gone" if not wrong else "  WRONG: " + "\n  WRONG: ".join(wrong))
        return not wrong
    except BaseException:
        say(daemon.log_tail())
        raise
    finally:
        lines.done.set()
        workload.stop(check=False)
        daemon.remove()


def print_report(report: dict) -> None:
    for step in report["steps"]:
        say(f"  {step['name']:<28} {step['ms']:>8.1f} ms  {step.get('lsn') or ''}")
    equal = sum(1 for table in report["tables"] if table["equal"])
    rows = sum(table["rows_target"] for table in report["tables"])
    say(f"  {equal} of {len(report['tables'])} tables equal by hash, {rows} rows; {len(report['sequences'])} sequences set")


def prove(report: dict, workload: Workload, source: servers.Server, target: servers.Server, source_dsn: str,
          target_dsn: str) -> list[str]:
    """Prints the proof; returns what contradicts it."""
    say("the proof", heading=True)
    wrong = workload.ledger_differences(target, DATABASE)
    acknowledged = sum(len(writer.acknowledged) for writer in workload.writers)
    say(f"  {acknowledged} commits were acknowledged to the writers; on the target"
        f" {'every one is there exactly once' if not wrong else 'they are NOT all there'}")
    if not all(table["equal"] for table in report["tables"]):
        wrong.append("tables differ in the report")
    behind = source.scalar(DATABASE, "SELECT count(*) FROM ledger.walferry_ledger")
    ahead = target.scalar(DATABASE, "SELECT count(*) FROM ledger.walferry_ledger")
    say(f"  ledger: {behind} rows on the source when it was fenced, {ahead} on the target now: the writers went on there")
    if ahead <= behind:
        wrong.append("the target has no newer writes than the source")
    say(f"  writes were stopped for {report['writes_stopped_ms']:.0f} ms (walferry's report),"
        f" {workload.write_gap_ms(source_dsn, target_dsn):.0f} ms (last commit on the source to first on the target,"
        " as the writers saw it)")
    return wrong


def main() -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    wanted = servers.find_binaries()
    source_binaries, target_binaries, uncovered = choose_versions(wanted, 14, 16)
    if source_binaries is None:
        print(f"demo: {uncovered}", file=sys.stderr)
        return 1
    say(f"two private servers: PostgreSQL {source_binaries.major} -> {target_binaries.major}", heading=True)
    folder = Path(tempfile.mkdtemp(prefix="wf-demo-", dir="/tmp"))
    made: list[servers.Server] = []
    started = time.monotonic()
    try:
        for binaries, name in ((source_binaries, "source"), (target_binaries, "target")):
            made.append(servers.Server(binaries, name))
            made[-1].start()
        good = move(*made, folder)
    finally:
        for server in made:
            server.remove()
        shutil.rmtree(folder, ignore_errors=True)
    say(f"\n{'Done' if good else 'FAILED'} in {time.monotonic() - started:.0f} s; nothing is left running or behind.")
    return 0 if good else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
