#!/usr/bin/env python3
"""An application to migrate: loads the demo's shop and writes to it until it is stopped.

usage: write.py load DSN                 loads data/shop.sql and the ledger, unless they are there
       write.py run DSN [WRITERS]        writes until SIGTERM or SIGINT, one line of counts each few seconds
docker-compose.yml runs these two; scripts/demo calls the same functions.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psycopg2

from workload import Workload, ledger_statements

SHOP = Path(__file__).resolve().parent / "data/shop.sql"
WRITERS = 4
_REPORT_SECONDS = 5


def load(dsn: str, writers: int = WRITERS) -> None:
    """Loads the shop and the ledger into the database that `dsn` names; does nothing when it has them."""
    connection = psycopg2.connect(dsn)
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute("SELECT to_regclass('ledger.walferry_ledger') IS NOT NULL")
        if cursor.fetchone()[0]:
            return
    subprocess.run(["psql", "-X", "-q", "-1", "-v", "ON_ERROR_STOP=1", "-o", os.devnull, "-d", dsn, "-f", str(SHOP)],
                   check=True, stdin=subprocess.DEVNULL)
    with connection.cursor() as cursor:
        for statement in ledger_statements(writers):
            cursor.execute(statement)
    connection.close()


def main() -> int:
    if len(sys.argv) == 3 and sys.argv[1] == "load":
        load(sys.argv[2])
        return 0
    if len(sys.argv) not in (3, 4) or sys.argv[1] != "run":
        print(__doc__, file=sys.stderr)
        return 1
    workload = Workload(sys.argv[2], int(sys.argv[3]) if len(sys.argv) == 4 else WRITERS, seed=os.getpid())
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: workload.stopping.set())
    # A writer that ran before left its numbers in the ledger: go on after them.
    workload.resume_numbers()
    workload.start()
    while not workload.stopping.wait(_REPORT_SECONDS):
        print(workload.summary(), flush=True)
    workload.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
