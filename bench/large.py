"""Millions of rows in one transaction, beside the same rows in transactions of a thousand: time, memory, the source's spill."""

from __future__ import annotations

from bench import workload
from bench.drain import Drain
from bench.result import Run, order
from bench.rig import Rig
from bench.show import Show

ROWS_EACH = 1_000
MIB = 2**20


def in_one(rig: Rig, rows: int) -> None:
    rig.execute("TRUNCATE public.big", workload.insert_rows(1, rows))


def in_many(rig: Rig, rows: int) -> None:
    rig.execute("TRUNCATE public.big", f"""
        DO $$ BEGIN
          FOR low IN 1..{rows} BY {ROWS_EACH} LOOP
            {workload.insert_rows("low", f"least(low + {ROWS_EACH - 1}, {rows})")};
            COMMIT;
          END LOOP;
        END $$""")


def run(options, show: Show) -> list[Run]:
    runs = []
    with Rig(options.source, options.target, settings=options.size.settings()) as rig, \
            Drain(rig, options.size, show, floors=False) as pair:
        works = [workload.Work("one transaction", lambda rig, size: in_one(rig, options.large_rows) or options.large_rows),
                 workload.Work("small transactions", lambda rig, size: in_many(rig, options.large_rows) or options.large_rows)]
        for number in range(min(options.pairs, 3)):
            for work in order(works, number):
                changes = pair.write(work)
                for side in order([pair.native, pair.walferry], number):
                    rig.ask("SELECT pg_stat_reset_replication_slot(%s)", (side.slot,))
                    made = pair.follow(side, work.name, changes)
                    spilled, streamed = rig.source.query(
                        "bench", "SELECT spill_bytes, stream_bytes FROM pg_stat_replication_slots WHERE slot_name = %s",
                        (side.slot,))[0]
                    made.more |= {"spill_mib": spilled / MIB, "stream_mib": streamed / MIB}
                    show.run(made)
                    runs.append(made)
    return runs
