"""What a database holds beside the rows of ordinary tables: each kind is carried, or named as left out."""

from __future__ import annotations

from pathlib import Path

import pytest

import walferry
from compare import assert_equal
from migration import make_extension_table, on_versions
from servers import wait_until

HERE = Path(__file__).parent

# An odd name for the database too.
DATABASE = 'Kinds of "things", a.b'


def matviews(server, database: str) -> list[tuple]:
    return [server.query(database, f"SELECT * FROM {name}") for name in ("zero", "one", "a_two")]


def large_objects(server, database: str) -> list[tuple]:
    """Contents, owner, grants and comment of each."""
    return server.query(database, """
        SELECT m.oid, md5(lo_get(m.oid)), length(lo_get(m.oid)), pg_get_userbyid(m.lomowner),
               (SELECT string_agg(pg_get_userbyid(grantee) || '=' || privilege_type || is_grantable, ',' ORDER BY 1)
                  FROM aclexplode(coalesce(m.lomacl, acldefault('L', m.lomowner)))),
               obj_description(m.oid, 'pg_largeobject')
        FROM pg_largeobject_metadata m ORDER BY 1""")


def constraints(server, database: str) -> list[tuple]:
    return server.query(database, "SELECT conname, convalidated FROM pg_constraint WHERE conrelid ="
                                  " 'strict_later'::regclass AND contype IN ('c', 'f') ORDER BY 1")


def settings(server, database: str) -> list[tuple]:
    """All but the one with which the cutover closes the source."""
    found = server.query(database, """
        SELECT coalesce(r.rolname, ''), unnest(s.setconfig) FROM pg_db_role_setting s LEFT JOIN pg_roles r
        ON r.oid = s.setrole WHERE s.setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database())
        ORDER BY 1, 2""")
    return [row for row in found if row[1] != "default_transaction_read_only=on"]


@pytest.fixture
def kinds(migrations):
    migration = migrations(DATABASE, "--allow-nonempty-target", "--slot", "kinds")
    quoted = '"' + DATABASE.replace('"', '""') + '"'
    migration.load(HERE / "data/kinds.sql")
    make_extension_table(migration.source, DATABASE)
    make_extension_table(migration.target, DATABASE)
    migration.source.execute(DATABASE, "INSERT INTO job VALUES ('first'), ('second')",
                             f"ALTER DATABASE {quoted} SET search_path TO \"$user\", \"Up.Per\", public",
                             f"ALTER DATABASE {quoted} SET custom.setting TO 'it''s'",
                             f"ALTER ROLE kinds_owner IN DATABASE {quoted} SET work_mem TO '7MB'",
                             f"COMMENT ON DATABASE {quoted} IS 'the database''s own comment'")
    return migration


def test_what_is_not_in_the_stream_is_carried_and_the_rest_is_named(kinds):
    source, target = kinds.source, kinds.target
    # A large object of the target's own stays, and no more.
    target.query(DATABASE, "SELECT lo_from_bytea(42, 'of the target')")

    findings = {each["id"]: each for each in kinds.daemon.check("--allow-nonempty-target", "--slot", "kinds", "--json")
                .json()["findings"]}
    assert findings["source.large_objects"]["severity"] == "WARN"
    assert findings["source.large_objects"]["title"].startswith("1504 large objects")
    assert "--refresh-first" in findings["source.materialized_views"]["remedy"]
    assert "copies them" in findings["source.unlogged_tables"]["detail"]
    assert "remote_item" in findings["source.foreign_tables"]["detail"]
    assert "job" in findings["source.extension_tables"]["detail"]
    assert "role kinds_owner: work_mem" in findings["source.database_settings"]["detail"]

    kinds.daemon.start()
    kinds.daemon.await_phase("follow")
    # Brought early, so that the write stop need not.
    assert target.scalar(DATABASE, "SELECT count(*) FROM pg_largeobject_metadata") == 1505

    # Changes after the copy, in everything that the stream does not carry.
    source.execute(DATABASE, "UPDATE item SET price = price * 2",
                   "REFRESH MATERIALIZED VIEW zero", "REFRESH MATERIALIZED VIEW one", "REFRESH MATERIALIZED VIEW a_two",
                   "INSERT INTO cache VALUES ('late', '{}')", "DELETE FROM cache_without_key WHERE v IS NULL",
                   "INSERT INTO job VALUES ('third')",
                   "DELETE FROM job WHERE command = 'first'",
                   "COMMENT ON LARGE OBJECT 910001 IS 'new'",
                   "INSERT INTO child VALUES (3, 'late', 3)", "INSERT INTO no_columns DEFAULT VALUES")
    for statement in ("lo_put(900001, 2, 'rt')", "lo_unlink(900002)", "lo_unlink(910002)",
                      "lo_from_bytea(920001, 'a late one')"):
        source.query(DATABASE, f"SELECT {statement}")
    kinds.await_applied()

    dry = kinds.daemon.cutover("--dry-run", "--json")
    assert dry.code == walferry.OK, dry
    assert any("1503 large objects" in note and "write stop" in note for note in dry.json()["notes"]), dry.json()["notes"]

    report = kinds.switch()
    assert [step["name"] for step in report["steps"] if step["name"].startswith("copy ")][:3] == \
        ["copy unlogged tables", "copy large objects", "copy extension tables"]
    compared = {table["name"]: table for table in report["tables"]}
    assert compared["pg_catalog.pg_largeobject"]["equal"] and compared["public.job"]["equal"]
    assert any(note.startswith("left out: 1 foreign table (public.remote_item)") for note in report["notes"])

    objects = large_objects(source, DATABASE)
    assert [row for row in large_objects(target, DATABASE) if row[0] != 42] == objects
    assert len(objects) == 1503
    assert bytes(target.scalar(DATABASE, "SELECT lo_get(42)")) == b"of the target"
    assert matviews(target, DATABASE) == matviews(source, DATABASE)
    assert not target.scalar(DATABASE, "SELECT relispopulated FROM pg_class WHERE relname = 'empty_one'")
    for table in ("cache", "cache_without_key", "job"):
        rows = f"SELECT t::text FROM {table} t ORDER BY 1"
        assert target.query(DATABASE, rows) == source.query(DATABASE, rows)
    assert constraints(target, DATABASE) == [("of_item", False), ("v_positive", False)]
    assert settings(target, DATABASE) == settings(source, DATABASE)
    comment = "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = current_database()"
    assert target.scalar(DATABASE, comment) == "the database's own comment"
    target.query(DATABASE, "SELECT lo_unlink(42)")
    assert_equal(*kinds.ends)

    done = kinds.daemon.finish()
    assert done.code == walferry.OK, done
    assert target.query(DATABASE, "SELECT 1 FROM pg_namespace WHERE nspname = 'walferry'") == []


def test_abort_takes_away_only_the_large_objects_it_made(migrations):
    migration = migrations("objects")
    migration.source.execute("objects", "CREATE TABLE t (id integer PRIMARY KEY)")
    migration.source.query("objects", "SELECT lo_from_bytea(77, 'seven'), lo_from_bytea(78, 'eight')")
    migration.target.query("objects", "SELECT lo_from_bytea(77, 'another')")
    refused = migration.daemon.check("--json")
    assert refused.code == walferry.REFUSED
    assert [each["severity"] for each in refused.json()["findings"] if each["id"] == "pair.large_objects"] == ["FAIL"]

    migration.target.query("objects", "SELECT lo_unlink(77), lo_from_bytea(5, 'own')")
    migration.daemon.options.append("--allow-nonempty-target")
    migration.daemon.start()
    migration.daemon.await_phase("follow")
    verified = migration.daemon.verify("--allow-nonempty-target", "--json")
    assert verified.code == walferry.OK, verified
    migration.source.query("objects", "SELECT lo_put(78, 0, 'E')")
    differing = migration.daemon.verify("--allow-nonempty-target", "--json")
    assert differing.code == walferry.DIFFERENT
    assert [each["name"] for each in differing.json()["tables"] if not each["equal"]] == ["pg_largeobject"]

    assert migration.daemon.abort("--drop-target-objects").code == walferry.OK
    assert migration.target.query("objects", "SELECT oid FROM pg_largeobject_metadata") == [(5,)]


def test_partitions_by_the_hash_of_an_enum_are_found_anew_on_the_target(migrations):
    """The hash of a label is that of its oid, which is another one in every database."""
    labels = [f"label{number}" for number in range(24)]
    migration = migrations("enum_hash")
    migration.load(sql=f"""
        CREATE TYPE kind AS ENUM ({", ".join(f"'{label}'" for label in labels)});
        CREATE TABLE event (id int, kind kind, v text, PRIMARY KEY (id, kind)) PARTITION BY LIST (id);
        CREATE TABLE event_rest PARTITION OF event DEFAULT PARTITION BY HASH (kind);
        CREATE TABLE event_0 PARTITION OF event_rest FOR VALUES WITH (MODULUS 2, REMAINDER 0);
        CREATE TABLE event_1 PARTITION OF event_rest FOR VALUES WITH (MODULUS 2, REMAINDER 1);
        INSERT INTO event SELECT g, (enum_range(NULL::kind))[1 + g % 24], 'v' FROM generate_series(1, 500) g;""")
    findings = {each["id"]: each for each in migration.daemon.check("--json").json()["findings"]}
    assert "public.event" in findings["pair.partitions"]["detail"], findings["pair.partitions"]
    migration.daemon.start()
    migration.daemon.await_phase("follow")
    migration.load(sql="UPDATE event SET kind = 'label3' WHERE id % 5 = 0; DELETE FROM event WHERE id % 7 = 0;"
                       " INSERT INTO event SELECT g, 'label9', 'later' FROM generate_series(1001, 1100) g;")
    migration.await_applied()
    assert migration.switch()["verified_equal"]
    rows = [server.query("enum_hash", "SELECT id, kind::text, v FROM event ORDER BY 1") for server in
            (migration.source, migration.target)]
    assert rows[0] == rows[1] and len(rows[0]) > 400
    homes = [server.query("enum_hash", "SELECT DISTINCT kind::text, tableoid::regclass::text FROM event ORDER BY 1") for server
             in (migration.source, migration.target)]
    assert homes[0] != homes[1], "every label has the same partition on both ends: nothing was shown"


def test_tables_that_hash_an_enum_are_compared_whichever_of_their_partitions_is_named(migrations):
    migration = migrations("enum_parts")
    schema = """
        CREATE TYPE kind AS ENUM ('a', 'b', 'c', 'd', 'e', 'f', 'g', 'h');
        CREATE TABLE event (id int, kind kind, PRIMARY KEY (id, kind)) PARTITION BY HASH (kind);
        CREATE TABLE event_0 PARTITION OF event FOR VALUES WITH (MODULUS 2, REMAINDER 0);
        CREATE TABLE event_1 PARTITION OF event FOR VALUES WITH (MODULUS 2, REMAINDER 1);
        INSERT INTO event SELECT g, (enum_range(NULL::kind))[1 + g % 8] FROM generate_series(1, 200) g;"""
    migration.load(sql=schema + "CREATE PUBLICATION parts FOR TABLE ONLY event_0, ONLY event_1;")
    migration.target.psql("enum_parts", sql=schema)
    for options in ((), ("--publication", "parts")):
        assert migration.daemon.verify(*options).code == walferry.OK
        migration.target.execute("enum_parts", "UPDATE event SET id = -7 WHERE id = 7")
        answer = migration.daemon.verify(*options)
        assert answer.code == walferry.DIFFERENT and "public.event" in answer.out, answer
        migration.target.execute("enum_parts", "UPDATE event SET id = 7 WHERE id = -7")


def test_a_target_that_is_partitioned_differently_is_fed_by_way_of_the_table_at_the_top(migrations):
    migration = migrations("parts", "--no-schema")
    source, target, daemon = migration.source, migration.target, migration.daemon
    tables = """
        CREATE TABLE event (id integer, day date, kind text, v text, PRIMARY KEY (id, day, kind)) PARTITION BY RANGE (day);
        CREATE TABLE same (id integer PRIMARY KEY, v text) PARTITION BY HASH (id);
        CREATE TABLE same_0 PARTITION OF same FOR VALUES WITH (MODULUS 2, REMAINDER 0);
        CREATE TABLE same_1 PARTITION OF same FOR VALUES WITH (MODULUS 2, REMAINDER 1);
        CREATE TABLE plain (id integer PRIMARY KEY, v text);"""
    migration.load(sql=tables + """
        CREATE TABLE event_old PARTITION OF event FOR VALUES FROM (MINVALUE) TO ('2024-01-01');
        CREATE TABLE event_new PARTITION OF event FOR VALUES FROM ('2024-01-01') TO (MAXVALUE) PARTITION BY LIST (kind);
        CREATE TABLE event_new_a PARTITION OF event_new FOR VALUES IN ('a');
        CREATE TABLE event_new_rest PARTITION OF event_new DEFAULT;
        CREATE TABLE flat (id integer PRIMARY KEY, v text) PARTITION BY RANGE (id);
        CREATE TABLE flat_1 PARTITION OF flat FOR VALUES FROM (0) TO (100);
        CREATE TABLE flat_2 PARTITION OF flat DEFAULT;
        INSERT INTO event SELECT g, '2023-06-01'::date + g, chr(97 + g % 3), 'v' FROM generate_series(1, 600) g;
        INSERT INTO same SELECT g, 'v' FROM generate_series(1, 50) g;
        INSERT INTO flat SELECT g, 'v' FROM generate_series(1, 200) g;
        CREATE TABLE coarse (id integer PRIMARY KEY, v text);
        INSERT INTO coarse SELECT g, 'v' FROM generate_series(1, 200) g;
        INSERT INTO plain VALUES (1, 'v');""")
    target.psql("parts", sql=tables + """
        CREATE TABLE coarse (id integer PRIMARY KEY, v text) PARTITION BY RANGE (id);
        CREATE TABLE coarse_low PARTITION OF coarse FOR VALUES FROM (0) TO (100);
        CREATE TABLE coarse_high PARTITION OF coarse DEFAULT;
        CREATE TABLE event_h1 PARTITION OF event FOR VALUES FROM (MINVALUE) TO ('2024-07-01');
        CREATE TABLE event_h2 PARTITION OF event FOR VALUES FROM ('2024-07-01') TO (MAXVALUE);
        CREATE TABLE flat (id integer PRIMARY KEY, v text);""")

    source.execute("postgres", "ALTER DATABASE parts SET logical_decoding_work_mem = '64kB'")

    findings = {each["id"]: each for each in daemon.check("--no-schema", "--json").json()["findings"]}
    assert findings["pair.tables"]["severity"] == "PASS"
    assert "public.event, public.flat" in findings["pair.partitions"]["detail"]
    daemon.start()
    daemon.await_phase("follow")
    migration.load(sql="""
        UPDATE event SET v = 'changed' WHERE id % 2 = 0;
        UPDATE event SET day = '2024-12-24' WHERE id = 3;
        UPDATE event SET kind = 'a' WHERE day > '2024-01-01' AND kind = 'b';
        DELETE FROM event WHERE id BETWEEN 100 AND 120;
        INSERT INTO event VALUES (9999, '1999-01-01', 'z', NULL);
        -- Streamed: descriptions of partitions come along that the target does not have.
        INSERT INTO event SELECT g, '2023-06-01'::date + g % 600, chr(97 + g % 3), 'much' FROM generate_series(20000, 30000) g;
        UPDATE flat SET id = id + 1000 WHERE id < 20;
        UPDATE coarse SET id = id + 1000 WHERE id < 20;
        DELETE FROM coarse WHERE id > 1015;
        TRUNCATE same;
        INSERT INTO same VALUES (1, 'anew'), (2, 'anew');
        DELETE FROM plain;""")
    report = migration.switch()
    assert sorted(table["name"] for table in report["tables"]) == \
        ["public.coarse", "public.event", "public.flat", "public.plain", "public.same_0", "public.same_1"]
    for table in ("coarse", "event", "flat", "same", "plain"):
        rows = f"SELECT t::text FROM {table} t ORDER BY 1"
        assert target.query("parts", rows) == source.query("parts", rows)
    assert target.scalar("parts", "SELECT count(*) FROM event_h2") > 100
    assert daemon.finish().code == walferry.OK


def test_rows_in_partitions_of_the_target_are_not_emptied_for_a_plain_table_of_the_source(migrations):
    migration = migrations("kept", "--no-schema", "--allow-nonempty-target")
    migration.load(sql="CREATE TABLE t (id integer PRIMARY KEY); INSERT INTO t VALUES (1)")
    migration.target.psql("kept", sql="""
        CREATE TABLE t (id integer PRIMARY KEY) PARTITION BY RANGE (id);
        CREATE TABLE t_1 PARTITION OF t DEFAULT;
        INSERT INTO t VALUES (7)""")
    daemon = migration.daemon.start()
    assert daemon.await_exit() == walferry.REFUSED
    assert "the target holds rows in tables that would be copied: public.t." in daemon.log_tail()
    assert migration.target.scalar("kept", "SELECT id FROM t") == 7


def test_a_trigger_that_notes_down_schema_changes_is_not_met_by_those_of_walferry(migrations):
    """Its table has the source's rows, and no more; where it fails nothing fails with it."""
    migration = migrations("noted")
    migration.load(sql="""
        CREATE TABLE ddl_log (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, tag text);
        CREATE FUNCTION note() RETURNS event_trigger LANGUAGE plpgsql AS
            $$ BEGIN INSERT INTO public.ddl_log (tag) VALUES (tg_tag); END $$;
        CREATE EVENT TRIGGER note ON ddl_command_end EXECUTE FUNCTION note();
        CREATE TABLE t (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY);
        CREATE MATERIALIZED VIEW m AS SELECT count(*) FROM t;
        SELECT lo_from_bytea(0, 'large');""")
    source, database, target, _ = migration.ends
    migration.daemon.start("--no-ddl-trigger")
    migration.daemon.await_phase("follow")
    before = source.query(database, "SELECT * FROM ddl_log ORDER BY id")
    migration.switch()
    assert target.query(database, "SELECT * FROM ddl_log ORDER BY id") == before
    target.execute(database, "CREATE TABLE later (id int)")
    assert target.scalar(database, "SELECT count(*) FROM ddl_log WHERE tag = 'CREATE TABLE'") == 2


def test_what_belongs_to_one_server_stays_there(migrations):
    """Point 96: notifications, advisory locks, transaction ids and places of rows."""
    migration = migrations("own").follow("CREATE TABLE t (id integer PRIMARY KEY, made_by xid, place tid)")
    source, database, target, _ = migration.ends
    # The source's transactions are numbered far from the target's.
    source.execute(database, "SET synchronous_commit = off",
                   "DO $$ BEGIN FOR i IN 1..3000 LOOP PERFORM txid_current(); COMMIT; END LOOP; END $$")
    with source.connect(database) as on_source, target.connect(database) as on_target:
        for connection in (on_source, on_target):
            with connection.cursor() as cursor:
                cursor.execute("LISTEN told")
        with on_source.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_lock(96)")
        source.execute(database, "NOTIFY told", "INSERT INTO t SELECT g FROM generate_series(1, 3) g",
                       "DELETE FROM t WHERE id < 3", "UPDATE t SET made_by = xmin, place = ctid")
        migration.await_applied()
        for connection, notes in ((on_source, 1), (on_target, 0)):
            connection.poll()
            assert len(connection.notifies) == notes
        assert target.scalar(database, "SELECT pg_try_advisory_lock(96)")
    # Values of a column are carried as they are, and point at nothing there.
    row = "SELECT id, made_by::text, place::text FROM t"
    assert target.query(database, row) == source.query(database, row)
    assert target.query(database, "SELECT FROM t WHERE made_by = xmin") == []


def test_what_decoding_spills_is_counted_by_the_sources_own_view(migrations):
    """Point 77: walferry's slot is one like others, so the server's counters are where an administrator looks for them."""
    migration = migrations("spilled").follow("CREATE TABLE t (id integer PRIMARY KEY, v text)")
    source, database = migration.source, migration.database
    source.execute(database, "SELECT pg_stat_reset_replication_slot('walferry_spilled')")
    source.execute(database, "INSERT INTO t SELECT g, repeat('x', 1000) FROM generate_series(1, 100000) g")
    migration.await_applied()
    wait_until(lambda: source.scalar(database, "SELECT spill_bytes + stream_bytes > 0 FROM pg_stat_replication_slots"
                                               " WHERE slot_name = 'walferry_spilled'"), 60, "the counters")


def test_a_publication_for_all_tables_names_what_is_no_users(migrations):
    """Tables of extensions, and what walferry itself keeps on its targets."""
    migration = migrations("all_tables", "--publication", "everything", "--allow-nonempty-target")
    source, database, target, _ = migration.ends
    for server in (source, target):
        server.execute(database, "CREATE SCHEMA IF NOT EXISTS walferry")
        make_extension_table(server, database)
    source.execute(database, "CREATE TABLE t (id integer PRIMARY KEY)", "CREATE PUBLICATION everything FOR ALL TABLES",
                   "CREATE TABLE walferry.progress_other (id integer PRIMARY KEY, position pg_lsn)")
    migration.follow("")
    source.execute(database, "INSERT INTO job VALUES ('alone')", "DELETE FROM job WHERE command = 'alone'",
                   "INSERT INTO walferry.progress_other VALUES (1, '0/1')", "TRUNCATE walferry.progress_other")
    source.execute(database, "WITH a AS (INSERT INTO job VALUES ('with others')), b AS (INSERT INTO walferry.progress_other"
                             " VALUES (2, '0/2')) INSERT INTO t VALUES (1)")
    # In one that is streamed while it is in progress too.
    source.execute(database, "WITH a AS (INSERT INTO job VALUES ('in a large one'))"
                             " INSERT INTO t SELECT g FROM generate_series(2, 100000) g")
    migration.await_applied()
    assert target.query(database, "SELECT command FROM job WHERE NOT built_in") == []
    source.execute(database, "TRUNCATE t, job", "INSERT INTO t VALUES (7)", "INSERT INTO job VALUES ('last')")
    notes = migration.switch()["notes"]
    assert "left out: rows in configuration tables of extensions: public.job" in notes, notes
    assert target.query(database, "SELECT id FROM t") == [(7,)]


def test_partitions_by_the_hash_of_a_text_are_found_anew_under_another_encoding(migrations):
    migration = migrations("text_hash")
    source, database, target, _ = migration.ends
    source.drop_database(database)
    source.execute("postgres", f"CREATE DATABASE {database} TEMPLATE template0 ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C'")
    migration.load(sql="""
        CREATE TABLE p (name text PRIMARY KEY, v int) PARTITION BY HASH (name);
        CREATE TABLE p_0 PARTITION OF p FOR VALUES WITH (MODULUS 2, REMAINDER 0);
        CREATE TABLE p_1 PARTITION OF p FOR VALUES WITH (MODULUS 2, REMAINDER 1);
        INSERT INTO p SELECT chr(192 + g), g FROM generate_series(0, 60) g;""")
    findings = {each["id"]: each for each in migration.daemon.check("--json").json()["findings"]}
    assert "public.p" in findings["pair.partitions"]["detail"], findings["pair.partitions"]
    migration.daemon.start()
    migration.daemon.await_phase("follow")
    source.execute(database, "UPDATE p SET v = -v WHERE v > 30", "UPDATE p SET name = name || 'x' WHERE v = 7",
                   "DELETE FROM p WHERE v = 8")
    assert migration.switch()["verified_equal"]
    homes = [dict(server.query(database, "SELECT name, tableoid::regclass::text FROM p")) for server in (source, target)]
    assert len(homes[0]) == 60 and homes[0] != homes[1] and homes[0].keys() == homes[1].keys()


@on_versions((17, 18))
def test_a_trigger_at_login_acts_for_the_application_only(migrations):
    """It fires for our sessions too: on the source as for anybody, on a closed one as well, on the target not before the
    switch. Its function is written as in PostgreSQL's manual, with a table that has no schema."""
    migration = migrations("at_login").follow("""
        CREATE TABLE t (id int PRIMARY KEY);
        CREATE TABLE login_log (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, who text DEFAULT session_user, application text);
        CREATE FUNCTION note() RETURNS event_trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
          BEGIN INSERT INTO login_log (application) VALUES (current_setting('application_name')); END $$;
        CREATE EVENT TRIGGER note ON login EXECUTE FUNCTION note();""")
    source, database, target, _ = migration.ends
    noted = "SELECT count(*) FROM login_log"
    assert source.scalar(database, noted) > 0
    source.execute(database, "INSERT INTO t VALUES (1)")
    refused = migration.daemon.cutover("--way-back")
    assert refused.code == walferry.REFUSED and "an event trigger of the source fires at login" in refused.out, refused
    migration.switch()
    after = target.scalar(database, noted)
    assert after == target.scalar(database, noted) - 1, "the trigger does not fire for the application"
    assert migration.daemon.finish("--lift-fence").code == walferry.OK
    source.execute(database, "INSERT INTO t VALUES (2)")
