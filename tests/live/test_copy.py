"""The initial copy: under which settings of the target it works."""

from __future__ import annotations

import pytest

import walferry
from migration import on_versions

pytestmark = pytest.mark.limit(120)

NOTE_MEMORY = """
CREATE TABLE public.seen (command text, memory text);
CREATE FUNCTION public.note() RETURNS event_trigger LANGUAGE plpgsql AS $$
  BEGIN INSERT INTO public.seen VALUES (TG_TAG, current_setting('maintenance_work_mem')); END $$;
CREATE EVENT TRIGGER note ON ddl_command_end WHEN TAG IN ('CREATE INDEX') EXECUTE FUNCTION public.note();
ALTER EVENT TRIGGER note ENABLE ALWAYS;
"""


@pytest.mark.parametrize("given, used", [("64MB", "256MB"), ("300MB", "300MB")])
def test_indexes_are_built_with_the_memory_that_the_target_gives_if_it_is_enough(migrations, given, used):
    migration = migrations("memory", "--allow-nonempty-target")
    migration.target.psql("memory", sql=NOTE_MEMORY)
    migration.target.execute("postgres", f"ALTER DATABASE memory SET maintenance_work_mem = '{given}'")
    migration.follow("CREATE TABLE public.t (id int PRIMARY KEY, n int); CREATE INDEX ON public.t (n);"
                     "INSERT INTO public.t SELECT g, g FROM generate_series(1, 100) g")
    assert migration.target.query("memory", "SELECT DISTINCT command, memory FROM seen") == [("CREATE INDEX", used)]


def test_what_lies_in_a_tablespace_that_the_target_lacks_lies_in_its_own(migrations):
    migration = migrations("spaces")
    source, database, target, _ = migration.ends
    source.execute("postgres", "SET allow_in_place_tablespaces = on", "CREATE TABLESPACE \"Spare one\" LOCATION ''")
    try:
        migration.load(sql="""
            CREATE TABLE t (id int PRIMARY KEY USING INDEX TABLESPACE "Spare one", v text) TABLESPACE "Spare one";
            CREATE INDEX t_v ON t (v) TABLESPACE "Spare one";
            CREATE TABLE plain (id int PRIMARY KEY);
            INSERT INTO t SELECT g, 'v' FROM generate_series(1, 100) g;""")
        finding = next(each for each in migration.daemon.check("--json").json()["findings"] if each["id"] == "pair.tablespaces")
        assert finding["severity"] == "WARN" and "Spare one" in finding["title"], finding
        migration.follow("INSERT INTO t VALUES (101, 'later')")
        migration.switch()
        assert target.query(database, "SELECT relname FROM pg_class WHERE relname IN ('t', 't_pkey', 't_v') AND reltablespace = 0"
                                      " ORDER BY 1") == [("t",), ("t_pkey",), ("t_v",)]
        assert target.scalar(database, "SELECT count(*) FROM t") == 101
    finally:
        migration.remove()
        source.execute("postgres", 'DROP TABLESPACE "Spare one"')


@on_versions((17, 16))
def test_an_infinite_interval_is_refused_by_a_target_that_knows_none(migrations):
    migration = migrations("infinite")
    migration.load(sql="CREATE TABLE t (id int PRIMARY KEY, i interval); INSERT INTO t VALUES (1, '1 day'), (2, 'infinity')")
    migration.daemon.start()
    assert migration.daemon.await_exit() == walferry.TARGET_FAILED
    assert 'invalid input syntax for type interval: "infinity"' in migration.daemon.log_tail(), migration.daemon.log_tail()
    migration.source.execute("infinite", "UPDATE t SET i = '2 days' WHERE id = 2")
    migration.daemon.start()
    migration.daemon.await_phase("follow")
    migration.switch()


@pytest.mark.parametrize("end", ["source", "target"])
def test_a_foreign_table_among_the_partitions_of_a_table_that_is_carried_as_a_whole_is_refused(migrations, end):
    """TRUNCATE and COPY would reach what lies behind it."""
    migration = migrations("foreign_part", "--publication", "roots", "--no-schema")
    table = """
        CREATE EXTENSION file_fdw;
        CREATE SERVER files FOREIGN DATA WRAPPER file_fdw;
        CREATE TABLE event (id int, kind int) PARTITION BY LIST (kind);
        CREATE TABLE event_1 PARTITION OF event FOR VALUES IN (1);"""
    foreign = "CREATE FOREIGN TABLE event_2 PARTITION OF event FOR VALUES IN (2) SERVER files OPTIONS (filename '/dev/null');"
    migration.target.psql("foreign_part", sql=table + (foreign if end == "target" else ""))
    migration.load(sql=table + (foreign if end == "source" else "") + """
        ALTER TABLE event REPLICA IDENTITY FULL; ALTER TABLE event_1 REPLICA IDENTITY FULL;
        INSERT INTO event SELECT g, 1 FROM generate_series(1, 50) g;
        CREATE PUBLICATION roots FOR TABLE event WITH (publish_via_partition_root = true)""")
    migration.daemon.start()
    assert migration.daemon.await_exit() == walferry.REFUSED
    assert f"on the {end} its partition public.event_2 is a foreign table" in migration.daemon.log_tail(), migration.daemon.log_tail()
    if end == "source":
        return  # what is done there now is a schema change of the migration
    migration.target.execute("foreign_part", "ALTER TABLE event DETACH PARTITION event_2")
    migration.daemon.start()
    migration.daemon.await_phase("follow")
    assert migration.target.scalar("foreign_part", "SELECT count(*) FROM event") == 50
