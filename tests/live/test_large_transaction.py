"""One transaction of a million rows while streaming: the target gets it whole, walferry's memory stays bounded."""

import os

import pytest

from compare import data_differences
from workload import Workload, prepare

ROWS = int(os.environ.get("WALFERRY_LARGE_ROWS", "1000000"))
# The thread sanitizer keeps a shadow of four to eight times the memory beside it.
LIMIT_MIB = 512 * (8 if "TSAN_OPTIONS" in os.environ else 1)


@pytest.mark.limit(420)
def test_a_transaction_of_a_million_rows_needs_less_than_512_mib(migrations, note):
    migration = migrations("large")
    source, database, target, _ = migration.ends
    migration.load(sql="""
        CREATE TABLE public.large (id bigint PRIMARY KEY, payload text NOT NULL, n int NOT NULL DEFAULT 0);
        CREATE TABLE public.aborted (id bigint PRIMARY KEY, payload text);
    """)
    prepare(source, database, 2)
    # Small transactions go on beside it, as they do in real life: they interleave with the streamed one.
    with Workload(source.dsn(database), 2, pause_seconds=0.02, wants=lambda table: False) as workload:
        migration.daemon.start()
        migration.daemon.await_phase("follow", 120)
        before = migration.daemon.peak_rss_bytes() / 2**20
        source.execute(database, f"INSERT INTO public.large SELECT g, md5(g::text) || repeat('x', 60)"
                                 f" FROM generate_series(1, {ROWS}) g")
        # A large transaction that ends in nothing, and savepoints inside one that does not.
        with source.connect(database, autocommit=False) as connection, connection.cursor() as cursor:
            cursor.execute(f"INSERT INTO public.aborted SELECT g, repeat('y', 100) FROM generate_series(1, {ROWS // 5}) g")
            connection.rollback()
            cursor.execute(f"UPDATE public.large SET n = 1 WHERE id <= {ROWS // 10}")
            cursor.execute("SAVEPOINT s")
            cursor.execute(f"UPDATE public.large SET n = 2 WHERE id <= {ROWS // 10}")
            cursor.execute("ROLLBACK TO SAVEPOINT s")
            cursor.execute(f"DELETE FROM public.large WHERE id % 50 = 0 AND id <= {ROWS // 10}")
            connection.commit()
        migration.await_applied(240)
        workload.await_commits(20)
    migration.await_applied(60)
    peak = migration.daemon.peak_rss_bytes() / 2**20
    note(f"a transaction of {ROWS} rows: peak resident memory of walferry {peak:.0f} MiB ({before:.0f} MiB before it)")
    assert peak < LIMIT_MIB
    assert source.scalar(database, "SELECT count(*) FROM public.large") == ROWS - ROWS // 500
    assert data_differences(*migration.ends, sequences=False) == []
    assert workload.ledger_differences(target, database) == []
