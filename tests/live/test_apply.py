"""The apply: a backlog is folded and written as sets, and the target still holds what the source does.

A backlog is made by stopping the daemon, writing on the source, and starting it again. Whether a path was taken is read
from the statements that the target's server logs.
"""

import random
import re
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

import servers
import walferry
from compare import data_differences
from held_commit import HeldCommit, is_sync_alone

pytestmark = pytest.mark.limit(240)


class Backlog:
    """A migration that follows, stopped while its source is written."""

    def __init__(self, migrations, name: str, schema: str, **ends):
        self.migration = migrations(name, **ends)
        self.source, self.database, self.target, _ = self.migration.ends
        self.migration.load(sql=schema)
        self.migration.daemon.start()
        self.migration.daemon.await_phase("follow", 120)
        self.stop()
        # From here on the target's log tells which statements the apply sends.
        self.target.execute("postgres", f"ALTER DATABASE {name} SET log_statement = 'all'")
        self.log_start = self.target.log.stat().st_size

    def stop(self) -> None:
        assert self.migration.daemon.terminate() == walferry.OK

    def write(self, *transactions: str) -> None:
        """Each string is one transaction on the source, whatever statements it holds."""
        with self.source.connect(self.database) as connection, connection.cursor() as cursor:
            for transaction in transactions:
                cursor.execute(transaction)

    def drain(self, deadline_seconds: float = 90) -> None:
        self.migration.daemon.start()
        self.migration.await_applied(deadline_seconds)

    def expect_equal(self) -> None:
        assert data_differences(*self.migration.ends, sequences=False) == []

    def statements(self) -> str:
        """What the apply has sent to the target since it was stopped first."""
        with open(self.target.log, encoding="utf-8", errors="replace") as log:
            log.seek(self.log_start)
            return "".join(line for line in log if "walferry apply" in line and f"@{self.database} " in line)

    def replayed(self) -> bool:
        return "applied one by one" in self.migration.daemon.log.read_text()


def test_changes_to_one_key_fold_into_one(migrations):
    backlog = Backlog(migrations, "fold", """
        CREATE TABLE public.t (id bigint PRIMARY KEY, n int, s text);
        CREATE TABLE public.pairs (a int, b text, n int, PRIMARY KEY (a, b));
        INSERT INTO public.t SELECT g, 0, 'old' FROM generate_series(1, 500) g;
        INSERT INTO public.pairs SELECT g, 'k' || g, 0 FROM generate_series(1, 200) g;
    """)
    backlog.write(
        # insert + update, insert + delete, delete + insert, update + delete, and the same key again and again
        "INSERT INTO public.t SELECT g, 1, 'new' FROM generate_series(501, 1000) g",
        "UPDATE public.t SET n = n + 1 WHERE id > 400",
        *["INSERT INTO public.t VALUES (2000, 1, 'x'); DELETE FROM public.t WHERE id = 2000"] * 20,
        *["INSERT INTO public.t VALUES (2001, 1, 'x')", "DELETE FROM public.t WHERE id = 2001"] * 20,
        *["DELETE FROM public.t WHERE id = 1", "INSERT INTO public.t VALUES (1, 7, NULL)"] * 20,
        "DELETE FROM public.t WHERE id BETWEEN 100 AND 200",
        "INSERT INTO public.t SELECT g, NULL, NULL FROM generate_series(150, 160) g",
        *["UPDATE public.t SET n = n + 1 WHERE id BETWEEN 300 AND 320"] * 50,
        "UPDATE public.t SET s = NULL WHERE id BETWEEN 300 AND 310",
        "DELETE FROM public.t WHERE id BETWEEN 315 AND 330",
        "UPDATE public.pairs SET n = n + 1 WHERE a <= 150",
        "DELETE FROM public.pairs WHERE a BETWEEN 50 AND 60",
        "UPDATE public.pairs SET n = n + 1 WHERE a > 100",
    )
    backlog.drain()
    backlog.expect_equal()
    sent = backlog.statements()
    assert 'COPY "public"."t"' in sent and 'UPDATE ONLY "public"."t" AS t' in sent
    assert re.search(r'DELETE FROM ONLY "public"."t" WHERE "id" \S+ ANY', sent)
    assert 'UPDATE ONLY "public"."pairs" AS t' in sent and 'DELETE FROM ONLY "public"."pairs" AS t' in sent
    # 21 rows were updated 50 times each: what is sent is far less than that.
    assert sent.count("UPDATE") < 200 and not backlog.replayed()


def test_a_key_that_moves_on_and_on_ends_where_it_ended(migrations):
    backlog = Backlog(migrations, "moves", """
        CREATE TABLE public.t (id int PRIMARY KEY, n int, big text);
        ALTER TABLE public.t ALTER COLUMN big SET STORAGE EXTERNAL;
        INSERT INTO public.t SELECT g, g, repeat(g::text, 3000) FROM generate_series(1, 100) g;
    """)
    backlog.write(
        # 1 -> 1001 -> 2001 -> 3001: with the unchanged big value never sent again
        *[f"UPDATE public.t SET id = id + 1000 WHERE id % 1000 BETWEEN 1 AND 50 AND id < {limit}" for limit in
          (1000, 2000, 3000)],
        # the keys of two rows change places through a third
        "UPDATE public.t SET id = 0 WHERE id = 60; UPDATE public.t SET id = 60 WHERE id = 61;"
        " UPDATE public.t SET id = 61 WHERE id = 0",
        "UPDATE public.t SET id = 0, big = 'b' WHERE id = 70", "UPDATE public.t SET id = 70, big = 'c' WHERE id = 71",
        "UPDATE public.t SET id = 71, n = -1 WHERE id = 0",
        # to a key that was deleted just before, and back
        "DELETE FROM public.t WHERE id = 80", "UPDATE public.t SET id = 80, big = 'd' WHERE id = 81",
        "INSERT INTO public.t VALUES (81, 1, 'e')", "UPDATE public.t SET id = 82000 WHERE id = 81",
        "UPDATE public.t SET n = n + 1",
    )
    backlog.drain()
    backlog.expect_equal()
    assert not backlog.replayed()


def test_a_value_that_did_not_come_stays(migrations):
    backlog = Backlog(migrations, "toast", """
        CREATE TABLE public.t (id int PRIMARY KEY, n int, one text, two text);
        ALTER TABLE public.t ALTER COLUMN one SET STORAGE EXTERNAL, ALTER COLUMN two SET STORAGE EXTERNAL;
        INSERT INTO public.t SELECT g, 0, repeat(g::text, 3000), repeat('b' || g, 3000) FROM generate_series(1, 300) g;
    """)
    backlog.write(
        "UPDATE public.t SET n = 1",
        "UPDATE public.t SET one = repeat('n', 5000 + id) WHERE id <= 150",
        "UPDATE public.t SET n = 2 WHERE id % 2 = 0",
        "UPDATE public.t SET two = NULL WHERE id BETWEEN 100 AND 200",
        "INSERT INTO public.t SELECT g, 0, repeat('i', 4000), repeat('j', 4000) FROM generate_series(301, 400) g",
        "UPDATE public.t SET n = 3 WHERE id > 250",
        "UPDATE public.t SET two = repeat('k', 4000) WHERE id > 350",
    )
    backlog.drain()
    backlog.expect_equal()
    assert 'UPDATE ONLY "public"."t" AS t' in backlog.statements() and not backlog.replayed()


TYPES = """
    CREATE TYPE public.mood AS ENUM ('sad', 'so, so', 'hap"py');
    CREATE DOMAIN public.positive AS int CHECK (VALUE > 0);
    CREATE DOMAIN public.list AS text[];
    CREATE TYPE public.point3 AS (x int, y text, z numeric[]);
    CREATE TABLE public.kinds (
      id uuid PRIMARY KEY, small smallint, b bool, n numeric(20, 5), f real, d double precision, t text, v varchar(20),
      c char(5), one "char", raw bytea, j json, jb jsonb, x xml, at timestamptz, day date, span interval, bits bit(5),
      vbits varbit, grid int[][], words text[], m public.mood, ms public.mood[], p public.positive, l public.list,
      comp public.point3, comps public.point3[], r int4range, place point, net cidr, mac macaddr, ts tsvector,
      reg regclass, nm name, money money);
    CREATE TABLE public.kinds_but_char (LIKE public.kinds INCLUDING ALL);
    ALTER TABLE public.kinds_but_char DROP COLUMN one, DROP COLUMN reg;
    CREATE FUNCTION public.kinds_of(g int) RETURNS SETOF public.kinds LANGUAGE sql AS $$
      SELECT md5(g::text)::uuid, (g % 100)::smallint, g % 2 = 0, (g / 7.0)::numeric(20, 5), (g / 3.0)::real, (g / 9.0)::float8,
        E'tab\\tline\\nback\\\\slash\\r ' || g, ('v' || g)::varchar(20), 'c'::char(5), chr(65 + g % 26)::"char", decode(md5(g::text), 'hex'),
        '{"a":  1}'::json, jsonb_build_object('k', g), '<a>b</a>'::xml, '2020-01-01'::timestamptz + g * interval '1 s',
        '2020-01-01'::date + g, g * interval '1 h', B'10101'::bit(5), B'1'::varbit, ARRAY[[g, NULL], [3, 4]],
        ARRAY['a,b', '{x}', 'q"uote', NULL, 'NULL', ''], (ARRAY['sad', 'so, so', 'hap"py'])[1 + g % 3]::public.mood,
        ARRAY['so, so', NULL]::public.mood[], g::public.positive, ARRAY['d', NULL]::public.list, ROW(g, 'a,"(', ARRAY[1.5, NULL])::public.point3,
        ARRAY[ROW(1, NULL, NULL)::public.point3, NULL], int4range(g, g + 10), point(g, 1), '10.0.0.0/8'::cidr,
        '08:00:2b:01:02:03'::macaddr, 'a b'::tsvector, 'public.kinds'::regclass, 'some name'::name, 12.5::money
    $$;
"""


def test_values_of_every_kind_travel_in_sets(migrations):
    """Arrays of two dimensions would be flattened by an unnest of their own; NULL, quotes and tabs in all places."""
    backlog = Backlog(migrations, "kinds", TYPES)
    columns = [row[0] for row in backlog.source.query(
        "kinds", "SELECT attname FROM pg_attribute WHERE attrelid = 'public.kinds_but_char'::regclass AND attnum > 0"
                 " AND NOT attisdropped ORDER BY attnum")]
    listed = ", ".join(columns)
    nulls = ", ".join(f"{column} = NULL" for column in columns if column != "id")
    for name, source in (("kinds", "k.*"), ("kinds_but_char", listed)):
        backlog.write(f"INSERT INTO public.{name} SELECT {source} FROM generate_series(1, 300) g, public.kinds_of(g) k")
    backlog.drain()
    backlog.expect_equal()
    backlog.stop()
    for name in ("kinds", "kinds_but_char"):
        moved = ", ".join(f"{column} = o.{column}" for column in columns if column != "id")
        backlog.write(
            f"UPDATE public.{name} t SET {moved} FROM public.kinds_of(5000) o",
            f"UPDATE public.{name} SET {nulls} WHERE small < 30",
            f"UPDATE public.{name} SET grid = '[2:3][0:1]={{{{1,2}},{{3,NULL}}}}', words = '{{}}' WHERE small < 60",
            f"DELETE FROM public.{name} WHERE id < '40000000-0000-0000-0000-000000000000'",
        )
    backlog.drain()
    backlog.expect_equal()
    sent = backlog.statements()
    assert 'UPDATE ONLY "public"."kinds_but_char" AS t' in sent
    # A cast from text to "char" takes the first byte, to regclass looks up a name: neither is the input function.
    assert 'UPDATE ONLY "public"."kinds" AS t' not in sent and 'UPDATE ONLY "public"."kinds" SET' in sent
    assert not backlog.replayed()


# The edges of what goes to the target in binary, and what stands between.
BINARY = """
    CREATE TABLE public.b (
      id uuid PRIMARY KEY, small smallint, whole int, large bigint, yes bool, f real, d double precision, day date,
      moment timestamp, at timestamptz, at3 timestamptz(3), t text, v varchar(20), c char(5), amount numeric,
      price numeric(12, 2), raw bytea, hour time, j json, jb jsonb);
    CREATE TABLE public.mixed (at timestamptz, day date, j jsonb, span interval, at_once timestamp, PRIMARY KEY (at, day));
    CREATE TABLE public.by_amount (amount numeric PRIMARY KEY, yes bool);
    CREATE TABLE public.by_float (d double precision PRIMARY KEY, yes bool);
    CREATE TABLE public.edges AS
    SELECT row_number() OVER () AS id, * FROM
      unnest('{-32768,0,32767,NULL}'::smallint[]) small,
      unnest('{-2147483648,-1,NULL,2147483647}'::int[]) whole,
      unnest('{-9223372036854775808,0,9223372036854775807}'::bigint[]) large,
      (VALUES ('NaN'::float8, 'NaN'::float4, 'infinity'::date, 'infinity'::timestamp, 'infinity'::timestamptz, 'NaN'::numeric),
              ('-Infinity', '-Infinity', '-infinity', '-infinity', '-infinity', 0.000), (NULL, NULL, NULL, NULL, NULL, NULL),
              ('-0', '-0', '0001-12-31 BC', '0044-03-15 12:00:00.25 BC', '0044-03-15 12:00:00.25+00 BC', -1e1300),
              (5e-324, 1e-45, '4714-11-24 BC', '4714-11-24 00:00:00 BC', '4714-11-24 00:00:00+00 BC', 1e-1600),
              (1.7976931348623157e308, 3.4028235e38, '5874897-12-31', '294276-12-31 23:59:59.999999',
               '294276-12-31 23:59:59.999999+00', 99999999.99990000),
              (0.1, 0.1, '2024-02-29', '1969-07-20 20:17:40', '1999-12-31 23:59:59.999999+00', 10000),
              (1e23, 16777216, '1900-02-28', '2026-11-22 03:04:05.000001', '2026-11-22 05:04:05.1+02', -0.00010203)
      ) of (d, f, day, moment, at, amount);
    ALTER TABLE public.edges ADD PRIMARY KEY (id);
"""


def test_values_at_the_edges_of_their_types_travel_in_binary(migrations):
    backlog = Backlog(migrations, "edges", BINARY)
    row = ("md5(id::text)::uuid, small, whole, large, id % 2 = 0, f, d, day, moment, at, date_trunc('second', at),"
           " chr(id::int + 64), 'v' || id, 'c' || id % 10, amount, id * 7.005, decode(md5(id::text), 'hex'), time '24:00' - id * interval '1.000003 s',"
           " '{\"k\":  1}'::json, jsonb_build_object('k', ARRAY[id, NULL])")
    backlog.write(
        f"INSERT INTO public.b SELECT {row} FROM public.edges",
        "INSERT INTO public.mixed SELECT timestamptz '2000-01-01 UTC' + id * interval '1 day 1 us', date '0001-01-01' - id::int,"
        " jsonb_build_object('id', id), id * interval '1 h', moment FROM public.edges",
        "INSERT INTO public.by_float SELECT id / 7.0 - 3, id % 3 = 0 FROM public.edges",
        "INSERT INTO public.by_amount SELECT id / 7.0 - 3, id % 3 = 0 FROM public.edges",
        "INSERT INTO public.by_float VALUES ('NaN', NULL), ('Infinity', true), ('-Infinity', false)",
    )
    backlog.drain()
    sent = backlog.statements()
    assert re.search(r'COPY "public"."b" .*FORMAT binary', sent) and 'COPY "public"."mixed"' in sent
    assert not re.search(r'COPY "public"."mixed" .*FORMAT binary', sent)  # an interval is not among them
    backlog.stop()
    backlog.write(
        # Each row gets the values of another.
        "UPDATE public.b SET (small, whole, large, yes, f, d, day, moment, at, at3, amount, raw) = (SELECT e.small, e.whole,"
        " e.large, NOT b.yes, e.f, e.d, e.day, e.moment, e.at, date_trunc('second', e.at), e.amount,"
        " '\\x'::bytea FROM public.edges e WHERE md5((e.id % 384 + 1)::text)::uuid = b.id)",
        "UPDATE public.mixed SET j = NULL, at_once = at WHERE at < '2000-06-01'",
        "DELETE FROM public.mixed WHERE at > '2000-12-01'",
        "UPDATE public.by_float SET yes = NOT coalesce(yes, false)", "DELETE FROM public.by_float WHERE d > 10",
        "UPDATE public.by_amount SET yes = NOT yes WHERE amount < 0", "DELETE FROM public.by_amount WHERE amount > 10",
    )
    backlog.drain()
    backlog.expect_equal()
    sent = backlog.statements()
    assert all(f"{verb} ONLY" in sent for verb in ("UPDATE", "DELETE FROM")) and "timestamptz[]" in sent
    assert not backlog.replayed()


@pytest.mark.parametrize("lanes", ["1", "3"])
def test_a_type_that_changes_on_the_target_first_is_noticed_by_the_next_copy(migrations, lanes):
    """The eight bytes of a bigint are a numeric as well, of another value."""
    migration = migrations(f"retyped_{lanes}")
    source, database, target, copy = migration.ends
    migration.load(sql="CREATE TABLE t (id bigint PRIMARY KEY, n bigint, f bigint, v text)")
    migration.daemon.start("--apply-lanes", lanes, "--on-ddl", "warn")
    migration.daemon.await_phase("follow", 60)

    def insert(first: int) -> None:
        source.execute(database, f"INSERT INTO t SELECT g, g % 7, 5, repeat('x', 99) FROM generate_series({first}, {first} + 999) g")
        migration.await_applied(60)
        assert target.scalar(copy, "SELECT count(*) FILTER (WHERE n = id % 7 AND f = 5) FROM t") == first + 999

    insert(1)
    target.execute(copy, "ALTER TABLE t ALTER n TYPE numeric, ALTER f TYPE float8")
    insert(1001)  # refused together, and written one by one
    migration.daemon.terminate()
    migration.daemon.start("--apply-lanes", lanes, "--on-ddl", "warn")
    migration.daemon.await_phase("follow", 60)
    insert(2001)  # with what the target is known to be now
    source.execute(database, "ALTER TABLE t ALTER n TYPE numeric, ALTER f TYPE float8")
    insert(3001)
    assert data_differences(*migration.ends, sequences=False) == []


def test_a_target_whose_types_are_others_reads_the_sources_text(migrations):
    """A timestamp without time zone for one with it, text for a date: what a person who made the target chose."""
    schema = "CREATE TABLE public.t (id int PRIMARY KEY, moment timestamp, day text, whole numeric);"
    migration = migrations("others")
    migration.load(sql=schema + "INSERT INTO public.t VALUES (0, '2000-01-01', '2000-01-01', 0)")
    source, database, target, copy = migration.ends
    target.psql(copy, sql="CREATE TABLE public.t (id bigint PRIMARY KEY, moment timestamptz, day date, whole int);")
    migration.daemon.start("--no-schema")
    migration.daemon.await_phase("follow", 120)
    assert migration.daemon.terminate() == walferry.OK
    source.execute(database, "INSERT INTO public.t SELECT g, timestamp '2026-11-22' + g * interval '1 s', date '2026-11-22' + g, g"
                             " FROM generate_series(1, 100) g", "UPDATE public.t SET moment = moment + interval '1 h'")
    migration.daemon.start()
    migration.await_applied()
    rows = "SELECT id, {}::text, day::text, whole::text FROM public.t ORDER BY 1"
    wanted = source.query(database, rows.format("moment"))
    assert len(wanted) == 101 and target.query(copy, rows.format("(moment AT TIME ZONE 'UTC')")) == wanted


def test_generated_and_identity_columns_keep_the_sources_values(migrations):
    backlog = Backlog(migrations, "generated", """
        CREATE TABLE public.t (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, n int,
                               twice int GENERATED ALWAYS AS (n * 2) STORED);
    """)
    backlog.write("INSERT INTO public.t (n) SELECT g FROM generate_series(1, 200) g",
                  "INSERT INTO public.t (id, n) OVERRIDING SYSTEM VALUE SELECT g, g FROM generate_series(1001, 1100) g",
                  "UPDATE public.t SET n = n + 1 WHERE id < 150", "DELETE FROM public.t WHERE id BETWEEN 20 AND 40")
    backlog.drain()
    backlog.expect_equal()
    assert 'COPY "public"."t"' in backlog.statements() and not backlog.replayed()


def test_unique_values_that_change_places_are_replayed_in_source_order(migrations):
    backlog = Backlog(migrations, "swaps", """
        CREATE TABLE public.t (id int PRIMARY KEY, u int UNIQUE, n int);
        INSERT INTO public.t SELECT g, g, 0 FROM generate_series(1, 100) g;
        CREATE TABLE public.other (id int PRIMARY KEY, n int);
        INSERT INTO public.other SELECT g, 0 FROM generate_series(1, 100) g;
    """)
    backlog.write("UPDATE public.other SET n = n + 1",
                  "UPDATE public.t SET u = -1 WHERE id = 1", "UPDATE public.t SET u = 1 WHERE id = 2",
                  "UPDATE public.t SET u = 2 WHERE id = 1", "UPDATE public.t SET n = 1",
                  "UPDATE public.other SET n = n + 1")
    backlog.drain()
    backlog.expect_equal()
    assert backlog.replayed(), "the two values changed places in one group: as a set they collide"


def test_rows_with_another_unique_value_keep_the_order_in_which_they_came(migrations):
    """Each takes the place that the one before it left. By their keys they would collide, so only rows that depend on
    nothing else are sorted by them."""
    backlog = Backlog(migrations, "stairs", """
        CREATE TABLE public.t (id int PRIMARY KEY, u int UNIQUE);
        INSERT INTO public.t SELECT g, g FROM generate_series(1, 3000) g;
        CREATE TABLE public.alone (id int PRIMARY KEY, n int);
        INSERT INTO public.alone SELECT g, g FROM generate_series(1, 3000) g;
    """)
    for table, column in (("t", "u"), ("alone", "n")):
        backlog.write(f"DO $$ BEGIN FOR i IN REVERSE 3000..1 LOOP UPDATE public.{table} SET {column} = {column} + 1"
                      " WHERE id = i; END LOOP; END $$")
    backlog.drain()
    backlog.expect_equal()
    assert backlog.statements().count("unnest") >= 2 and not backlog.replayed()


KEYS = {"int2": "g", "int8": "g - 20", "numeric": "g / 8.0", "float8": "g / 7.0", "text": "repeat('k', g % 5) || g",
        "varchar(20)": "'v,' || g", "char(9)": "'c' || g", "uuid": "md5(g::text)::uuid", "date": "'2020-01-01'::date + g",
        "timestamptz": "'2020-01-01'::timestamptz + g * interval '1 s'", "time": "g * interval '1 s'", "bytea": "decode(md5(g::text), 'hex')",
        "inet": "'10.0.0.0'::inet + g", "interval": "g * interval '1 h'", "public.steps": "('s' || g)::public.steps", "public.short": "'d' || g",
        'text COLLATE "C"': "'K' || g", "name": "'n' || g", "bit(8)": "g::bit(8)", "jsonb": "to_jsonb(g)",
        "int4range": "int4range(g, g + 1)", "public.spot": "ROW(g, 'a,\"')::public.spot", "int[]": "ARRAY[g, g]", "public.pair": "ARRAY[g, 1]"}
OF_ARRAYS = {"int[]", "public.pair"}  # there is no array of them


def test_rows_are_removed_as_a_set_by_a_key_of_any_type(migrations):
    steps = ", ".join(f"'s{number}'" for number in range(1, 41))
    schema = f"CREATE TYPE public.steps AS ENUM ({steps}); CREATE DOMAIN public.short AS text CHECK (length(VALUE) < 9);" \
             "CREATE DOMAIN public.pair AS int[]; CREATE TYPE public.spot AS (x int, y text);"
    for number, (kind, value) in enumerate(KEYS.items()):
        schema += f"CREATE TABLE public.k{number} (k {kind} PRIMARY KEY, g int);" \
                  f"INSERT INTO public.k{number} SELECT {value}, g FROM generate_series(1, 40) g;"
    schema += "CREATE TABLE public.parts (k int PRIMARY KEY, g int) PARTITION BY RANGE (k);" \
              "CREATE TABLE public.low PARTITION OF public.parts FOR VALUES FROM (0) TO (20);" \
              "CREATE TABLE public.high PARTITION OF public.parts DEFAULT;" \
              "INSERT INTO public.parts SELECT g, g FROM generate_series(1, 40) g;"
    backlog = Backlog(migrations, "keys", schema)
    tables = [f"k{number}" for number in range(len(KEYS))] + ["parts"]
    backlog.write(*(f"DELETE FROM public.{table} WHERE g > 10" for table in tables))
    backlog.drain()
    backlog.expect_equal()
    sent = backlog.statements()
    for number, kind in enumerate(KEYS):
        found = re.search(rf'DELETE FROM ONLY "public"."k{number}" (?:WHERE "k" \S+ ANY|AS t USING)', sent)
        assert found and found[0].endswith("USING") == (kind in OF_ARRAYS), kind
    assert not backlog.replayed()


def test_deferrable_and_exclusion_constraints_see_changes_in_source_order(migrations):
    backlog = Backlog(migrations, "constraints", """
        CREATE TABLE public.late (id int PRIMARY KEY, u int UNIQUE DEFERRABLE INITIALLY DEFERRED);
        CREATE TABLE public.apart (id int PRIMARY KEY, span int4range, EXCLUDE USING gist (span WITH &&));
        INSERT INTO public.late SELECT g, g FROM generate_series(1, 50) g;
        INSERT INTO public.apart SELECT g, int4range(g * 10, g * 10 + 10) FROM generate_series(1, 50) g;
    """)
    backlog.write("UPDATE public.late SET u = 51 - u", "UPDATE public.late SET u = 51 - u WHERE id < 10 OR id > 41",
                  "UPDATE public.apart SET span = 'empty' WHERE id = 1",
                  "UPDATE public.apart SET span = int4range(10, 20) WHERE id = 2",
                  "UPDATE public.apart SET span = int4range(20, 30) WHERE id = 1",
                  "INSERT INTO public.apart SELECT g, int4range(g * 10, g * 10 + 10) FROM generate_series(51, 150) g")
    backlog.drain()
    backlog.expect_equal()
    sent = backlog.statements()
    assert "COPY" not in sent and "unnest" not in sent and not backlog.replayed()


def test_of_equal_rows_without_a_key_exactly_one_changes(migrations):
    backlog = Backlog(migrations, "duplicates", """
        CREATE TABLE public.t (a int, b text);
        ALTER TABLE public.t REPLICA IDENTITY FULL;
        INSERT INTO public.t SELECT g % 5, NULL FROM generate_series(1, 50) g;
    """)
    backlog.write("INSERT INTO public.t SELECT g % 5, 'new' FROM generate_series(1, 200) g",
                  "DELETE FROM public.t WHERE ctid IN (SELECT min(ctid) FROM public.t GROUP BY a, b)",
                  "UPDATE public.t SET b = 'one' WHERE ctid IN (SELECT max(ctid) FROM public.t GROUP BY a, b)",
                  "INSERT INTO public.t SELECT 9, 'more' FROM generate_series(1, 100) g",
                  "DELETE FROM public.t WHERE ctid = (SELECT min(ctid) FROM public.t WHERE a = 9)")
    backlog.drain()
    backlog.expect_equal()
    assert 'COPY "public"."t"' in backlog.statements() and not backlog.replayed()


def test_a_truncate_stands_between_what_came_before_and_after(migrations):
    backlog = Backlog(migrations, "truncates", """
        CREATE TABLE public.t (id int PRIMARY KEY, n int);
        CREATE TABLE public.kept (id int PRIMARY KEY, n int);
        INSERT INTO public.t SELECT g, 0 FROM generate_series(1, 100) g;
    """)
    backlog.write("INSERT INTO public.t SELECT g, 1 FROM generate_series(101, 200) g",
                  "INSERT INTO public.kept SELECT g, 1 FROM generate_series(1, 100) g",
                  "UPDATE public.t SET n = 2", "TRUNCATE public.t",
                  "INSERT INTO public.t SELECT g, 3 FROM generate_series(50, 150) g",
                  "BEGIN; UPDATE public.t SET n = 4 WHERE id < 100; TRUNCATE public.t;"
                  " INSERT INTO public.t SELECT g, 5 FROM generate_series(90, 200) g; COMMIT",
                  "UPDATE public.kept SET n = 2 WHERE id > 50", "DELETE FROM public.t WHERE id > 180")
    backlog.drain()
    backlog.expect_equal()


def test_a_truncate_that_others_refer_to_takes_every_row_all_the_same(migrations):
    """CASCADE reaches an unlogged table, which is not in the stream, and partitions, which are there without their root."""
    backlog = Backlog(migrations, "referred", """
        CREATE TABLE public.p (id int PRIMARY KEY, n int);
        CREATE TABLE public.child (id int PRIMARY KEY, p_id int REFERENCES public.p) PARTITION BY RANGE (id);
        CREATE TABLE public.child_1 PARTITION OF public.child FOR VALUES FROM (1) TO (100);
        CREATE TABLE public.child_2 PARTITION OF public.child FOR VALUES FROM (100) TO (200);
        CREATE UNLOGGED TABLE public.scratch (p_id int REFERENCES public.p);
        CREATE TABLE public.alone (id int PRIMARY KEY, p_id int REFERENCES public.child);
        INSERT INTO public.p SELECT g, 0 FROM generate_series(1, 199) g;
        INSERT INTO public.child SELECT g, g FROM generate_series(1, 199) g;
        INSERT INTO public.alone SELECT g, g FROM generate_series(1, 199) g;
    """)
    backlog.write("TRUNCATE public.p CASCADE", "INSERT INTO public.p VALUES (5, 5)", "INSERT INTO public.child VALUES (7, 5)",
                  "INSERT INTO public.alone VALUES (9, 7)", "TRUNCATE public.child, public.alone RESTART IDENTITY",
                  "INSERT INTO public.child VALUES (107, 5)")
    backlog.drain()
    backlog.expect_equal()
    assert re.search(r"TRUNCATE ONLY \S*child_1\S*, ONLY \S*child_2", backlog.statements()), "what the server takes is truncated"
    backlog.migration.daemon.await_phase("follow", 60)
    backlog.migration.switch()


def test_a_column_that_the_target_lacks_is_told_behind_a_truncate_of_the_same_transaction(migrations):
    """Looking at the target once more waits for no lock of our own."""
    migration = migrations("behind_truncate")
    source, database, target, _ = migration.ends
    migration.follow("CREATE TABLE public.t (id int PRIMARY KEY, n int); INSERT INTO public.t VALUES (1, 1)", "--no-ddl-trigger")
    # More than is gathered: the target has the lock by then.
    source.execute(database, "BEGIN; TRUNCATE public.t; INSERT INTO public.t SELECT g, g FROM generate_series(1, 300000) g;"
                             " ALTER TABLE public.t ADD COLUMN more text; INSERT INTO public.t VALUES (0, 0, 'more'); COMMIT")
    status = migration.daemon.await_status(lambda status: status["apply_stopped"] and status["stop"], 60, "a stop")
    assert "the target has no column more" in status["stop"]["error"], status["stop"]
    target.execute(database, "ALTER TABLE public.t ADD COLUMN more text")
    migration.await_applied()
    assert data_differences(*migration.ends, sequences=False) == []


def test_a_column_that_comes_in_the_middle_of_a_backlog(migrations):
    backlog = Backlog(migrations, "widens", """
        CREATE TABLE public.t (id int PRIMARY KEY, n int);
        INSERT INTO public.t SELECT g, 0 FROM generate_series(1, 100) g;
    """)
    backlog.target.execute("widens", "ALTER TABLE public.t ADD COLUMN more text DEFAULT 'target'")
    backlog.write("UPDATE public.t SET n = 1", "INSERT INTO public.t SELECT g, 1 FROM generate_series(101, 200) g",
                  "ALTER TABLE public.t ADD COLUMN more text DEFAULT 'target'",
                  "UPDATE public.t SET more = 'source' WHERE id % 2 = 0",
                  "INSERT INTO public.t SELECT g, 1, 'm' FROM generate_series(201, 300) g")
    backlog.drain()
    backlog.expect_equal()


def test_a_column_of_the_targets_own_survives_a_change_of_key(migrations):
    backlog = Backlog(migrations, "extra", """
        CREATE TABLE public.t (id int PRIMARY KEY, n int);
        INSERT INTO public.t SELECT g, 0 FROM generate_series(1, 100) g;
    """)
    backlog.target.execute("extra", "ALTER TABLE public.t ADD COLUMN own int", "UPDATE public.t SET own = id")
    backlog.write("UPDATE public.t SET id = id + 1000", "UPDATE public.t SET n = 1")
    backlog.drain()
    assert backlog.target.scalar("extra", "SELECT count(*) FROM public.t WHERE own = id - 1000 AND n = 1") == 100


def test_an_always_firing_trigger_sees_every_change_at_its_place(migrations):
    backlog = Backlog(migrations, "fires", """
        CREATE TABLE public.t (id int PRIMARY KEY, n int);
        CREATE TABLE public.other (id int PRIMARY KEY, n int);
        INSERT INTO public.t SELECT g, 0 FROM generate_series(1, 10) g;
        INSERT INTO public.other VALUES (1, 0);
    """)
    daemon, target = backlog.migration.daemon, backlog.target
    backlog.drain()
    # Following disables what fires in replica mode when it begins, so the trigger comes later; a new apply connection
    # sees it.
    target.psql("fires", sql="""
        CREATE SCHEMA seen;
        CREATE TABLE seen.log (at bigserial, id int, n int, other int);
        CREATE FUNCTION seen.note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
          INSERT INTO seen.log (id, n, other) SELECT NEW.id, NEW.n, o.n FROM public.other o; RETURN NEW; END $$;
        CREATE TRIGGER note AFTER UPDATE ON public.t FOR EACH ROW EXECUTE FUNCTION seen.note();
        ALTER TABLE public.t ENABLE ALWAYS TRIGGER note;
    """)
    target.query("fires", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'walferry"
                          " apply%%'")
    with target.connect("fires", autocommit=False) as blocker, blocker.cursor() as cursor:
        # The backlog grows behind this lock.
        cursor.execute("LOCK TABLE public.other IN SHARE MODE")
        backlog.write("UPDATE public.other SET n = n WHERE id = 1")
        for step in range(1, 31):
            backlog.write(f"UPDATE public.other SET n = {step}", f"UPDATE public.t SET n = {step} WHERE id = 1")
        blocker.commit()
    backlog.migration.await_applied(60)
    assert daemon.alive()
    assert target.query("fires", "SELECT n, other FROM seen.log ORDER BY at") == [(step, step) for step in range(1, 31)]


@pytest.mark.parametrize("backlogged", [True, False], ids=["in a backlog", "while following"])
def test_a_row_that_the_target_lacks_stops_the_stream_before_anything_is_committed(migrations, backlogged):
    backlog = Backlog(migrations, "missing", """
        CREATE TABLE public.t (id int PRIMARY KEY, n int);
        INSERT INTO public.t SELECT g, 0 FROM generate_series(1, 100) g;
    """)
    daemon, target = backlog.migration.daemon, backlog.target
    target.execute("missing", "DELETE FROM public.t WHERE id = 42")
    if not backlogged:
        backlog.drain()
    backlog.write("UPDATE public.t SET n = 1")
    if backlogged:
        daemon.start()
    status = daemon.await_status(lambda status: status["apply_stopped"], 60, "the apply to stop")
    for word in ("public.t", "(id)=(42)", "no such row", "Remedy", "LSN"):
        assert word in str(status["last_error"]), status["last_error"]
    assert target.scalar("missing", "SELECT count(*) FROM public.t WHERE n <> 0") == 0
    target.execute("missing", "INSERT INTO public.t VALUES (42, 0)")
    backlog.migration.await_applied(60)
    backlog.expect_equal()


def test_a_row_that_the_target_has_already_stops_the_stream(migrations):
    backlog = Backlog(migrations, "present", "CREATE TABLE public.t (id int PRIMARY KEY, n int)")
    target = backlog.target
    target.execute("present", "INSERT INTO public.t VALUES (42, 7)")
    backlog.write("INSERT INTO public.t SELECT g, 1 FROM generate_series(1, 100) g")
    backlog.migration.daemon.start()
    status = backlog.migration.daemon.await_status(lambda status: status["apply_stopped"], 60, "the apply to stop")
    for word in ("public.t", "(id)=(42)", "duplicate key", "23505"):
        assert word in str(status["last_error"]), status["last_error"]
    assert target.query("present", "SELECT * FROM public.t") == [(42, 7)]
    target.execute("present", "DELETE FROM public.t")
    backlog.migration.await_applied(60)
    backlog.expect_equal()


def random_transaction(chance: random.Random) -> str:
    """A few changes of keys in a small range, so that they meet each other."""
    def statement() -> str:
        key, other = chance.randint(1, 60), chance.randint(1, 60)
        big = f"repeat('{chance.choice('abc')}', {chance.choice([10, 3000])})"
        return chance.choice([
            f"INSERT INTO public.t VALUES ({key}, {key}, {chance.randint(0, 9)}, {big}) ON CONFLICT DO NOTHING",
            f"INSERT INTO public.t SELECT g, g, 0, NULL FROM generate_series({key}, {key + 40}) g ON CONFLICT DO NOTHING",
            f"UPDATE public.t SET n = n + 1 WHERE id = {key}",
            f"UPDATE public.t SET n = n + 1 WHERE id BETWEEN {key} AND {key + 30}",
            f"UPDATE public.t SET big = {big} WHERE id BETWEEN {key} AND {key + 15}",
            f"UPDATE public.t SET id = {other} WHERE id = {key} AND NOT EXISTS (SELECT FROM public.t WHERE id = {other})",
            f"DELETE FROM public.t WHERE id = {key}",
            f"DELETE FROM public.t WHERE id BETWEEN {key} AND {key + 25}",
            f"INSERT INTO public.log SELECT {key}, g FROM generate_series(1, 20) g",
            f"UPDATE public.log SET b = b + 1 WHERE a = {key}",
        ])
    statements = "; ".join(statement() for _ in range(chance.randint(1, 4)))
    return f"BEGIN; {statements}; SAVEPOINT s; {statement()}; ROLLBACK TO s; {statement()}; COMMIT"


def test_the_last_word_of_a_server_that_was_asked_nothing_is_read(migrations):
    """A session with no statement under way is ended: the apply connects again, and nothing else happens."""
    backlog = Backlog(migrations, "last_word", "CREATE TABLE t (id int PRIMARY KEY)")
    backlog.write("INSERT INTO t SELECT generate_series(1, 100)")
    fields = b"SFATAL\0VFATAL\0C57P01\0Mended for a test\0\0"
    with HeldCommit(backlog.target, b"application_name\0walferry apply ", is_sync_alone) as held:
        daemon = backlog.migration.daemon
        daemon.target = held.dsn(backlog.database)
        daemon.start()
        held.await_held()
        held.cut(b"E" + (len(fields) + 4).to_bytes(4, "big") + fields)
        daemon.await_phase("follow", 60)
        backlog.migration.await_applied(60)
        assert "ended for a test (SQLSTATE 57P01)" in daemon.log.read_text()
    assert data_differences(*backlog.migration.ends, sequences=False) == []


def test_random_changes_end_as_they_ended_on_the_source(migrations, note):
    seed = random.randrange(2**32)
    note(f"random changes of seed {seed}")
    chance = random.Random(seed)
    backlog = Backlog(migrations, "chance", """
        CREATE TABLE public.t (id int, half int, n int, big text, PRIMARY KEY (id));
        ALTER TABLE public.t ALTER COLUMN big SET STORAGE EXTERNAL;
        CREATE TABLE public.log (a int, b int);
        ALTER TABLE public.log REPLICA IDENTITY FULL;
    """)
    for _ in range(3):
        backlog.write(*[random_transaction(chance) for _ in range(400)])
        backlog.drain()
        backlog.expect_equal()
        backlog.stop()
    assert "unnest" in backlog.statements() and not backlog.replayed()


@pytest.fixture
def certificate():
    """Settings of a server that speaks TLS."""
    with tempfile.TemporaryDirectory(prefix="wf-tls-", dir="/tmp") as folder:
        key, certificate = Path(folder, "key.pem"), Path(folder, "cert.pem")
        subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", "-keyout",
                        key, "-out", certificate], check=True, capture_output=True)
        key.chmod(0o600)
        user = servers.unprivileged_user()
        if user is not None:
            Path(folder).chmod(0o755)
            shutil.chown(key, user)
        yield {"ssl": "on", "ssl_key_file": str(key), "ssl_cert_file": str(certificate)}


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "TLS"])
def test_over_tcp_a_backlog_is_read_lazily_and_what_follows_is_not(migrations, server_made, certificate, note, tls):
    settings = {"wal_sender_timeout": "2s"} | (certificate if tls else {})
    source = server_made("source", tcp=True, settings=settings)
    backlog = Backlog(migrations, "lazy", """
        CREATE TABLE public.t (id bigint PRIMARY KEY, s text);
        CREATE TABLE public.ticks (id int PRIMARY KEY, wide text);
    """, source=source)
    backlog.migration.daemon.source = source.uri("lazy") + ("?sslmode=require" if tls else "?sslmode=disable")
    backlog.write(*[f"INSERT INTO public.t SELECT g, md5(g::text) FROM generate_series({n}, {n + 999}) g"
                    for n in range(0, 100_000, 1000)])
    backlog.drain()
    backlog.expect_equal()
    delays = []
    with backlog.target.connect("lazy") as connection, connection.cursor() as cursor:
        for tick in range(20):
            # Some larger than a record of TLS and libpq's room.
            backlog.write(f"INSERT INTO public.ticks VALUES ({tick}, repeat('w', {tick % 5 * 9_000}))")

            def visible(tick=tick) -> bool:
                cursor.execute("SELECT 1 FROM public.ticks WHERE id = %s", (tick,))
                return cursor.fetchone() is not None
            started = time.monotonic()
            servers.wait_until(visible, 20, f"tick {tick}", 0.001)
            delays.append(time.monotonic() - started)
    note(f"commit to visible over TCP{' with TLS' if tls else ''}: median {sorted(delays)[10] * 1000:.1f} ms")
    assert sorted(delays)[10] < 0.5, delays
    # Silence longer than the server's timeout: keepalives are answered all the same.
    assert "terminating walsender" not in source.log.read_text()


def test_a_domain_that_is_shorter_on_the_target_refuses_in_a_set_too(migrations):
    """A cast to the domain would cut what an assignment refuses."""
    migration = migrations("domain_cut")
    source, database, target, _ = migration.ends
    table = "CREATE DOMAIN public.name AS varchar({}); CREATE TABLE public.t (id int PRIMARY KEY, v public.name);"
    source.psql(database, sql=table.format(20) + "INSERT INTO t SELECT g, 'v' FROM generate_series(1, 300) g")
    target.psql(database, sql=table.format(10))
    migration.daemon.start("--no-schema")
    migration.daemon.await_phase("follow")
    source.execute(database, "UPDATE t SET v = 'short'")
    migration.await_applied()
    source.execute(database, "UPDATE t SET v = repeat('x', 15)")
    status = migration.daemon.await_status(lambda status: status["apply_stopped"], 60, "the stop")
    assert "value too long" in status["last_error"]["text"], status["last_error"]
    assert target.scalar(database, "SELECT count(*) FROM t WHERE v = 'short'") == 300


def test_identity_full_with_a_key_is_found_by_the_key(migrations):
    """As where another tool reads the table, too; the target has both from the source."""
    backlog = Backlog(migrations, "full_key", """
        CREATE TABLE public.t (id int PRIMARY KEY, v text, j json);
        ALTER TABLE public.t REPLICA IDENTITY FULL;
        INSERT INTO t SELECT g, 'v', '{}' FROM generate_series(1, 500) g;""")
    backlog.write("UPDATE t SET v = 'w' WHERE id <= 100", "UPDATE t SET id = -id WHERE id = 7",
                  "DELETE FROM t WHERE id > 450")
    backlog.drain()
    backlog.expect_equal()
    sent = backlog.statements()
    assert "ctid" not in sent and 'UPDATE ONLY "public"."t"' in sent
