"""The initial copy: under which settings of the target it works."""

from __future__ import annotations

import pytest

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
