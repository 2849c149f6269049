"""A part of a database: what patterns select is carried, what is cut off is named, and the rest stays open."""

from __future__ import annotations

import psycopg2
import pytest

import walferry

DATABASE = "selection"
SCHEMA = """
CREATE SCHEMA app;
CREATE SCHEMA "Other.one";
CREATE SCHEMA archive;
CREATE TYPE app.mood AS ENUM ('sad', 'happy');
CREATE TABLE app.area (id serial PRIMARY KEY, name text, feeling app.mood);
CREATE TABLE app.place (id serial PRIMARY KEY, area_id integer REFERENCES app.area, kind integer);
CREATE TABLE archive.kind (id serial PRIMARY KEY, name text);
ALTER TABLE app.place ADD CONSTRAINT of_kind FOREIGN KEY (kind) REFERENCES archive.kind;
COMMENT ON CONSTRAINT of_kind ON app.place IS 'goes with the key';
CREATE TABLE archive.old (id integer PRIMARY KEY, area_id integer REFERENCES app.area, no_key text);
CREATE TABLE archive.keyless (v text);
CREATE TABLE "Other.one"."Up.Per" (id integer PRIMARY KEY);
CREATE TABLE "Other.one".upper (id integer PRIMARY KEY);
CREATE TABLE app.part (id integer, day date, PRIMARY KEY (id, day)) PARTITION BY RANGE (day);
CREATE TABLE app.part_2023 PARTITION OF app.part FOR VALUES FROM ('2023-01-01') TO ('2024-01-01');
CREATE TABLE app.part_2024 PARTITION OF app.part FOR VALUES FROM ('2024-01-01') TO ('2025-01-01');
CREATE UNLOGGED TABLE app.cache (id integer PRIMARY KEY);
CREATE VIEW app.of_both AS SELECT p.id, k.name FROM app.place p JOIN archive.kind k ON k.id = p.kind;
CREATE VIEW app.of_view AS SELECT count(*) FROM app.of_both;
CREATE MATERIALIZED VIEW app.of_old AS SELECT count(*) FROM archive.old;
CREATE VIEW app.places AS SELECT id FROM app.place;
CREATE FUNCTION app.kinds() RETURNS SETOF archive.kind LANGUAGE sql AS 'SELECT * FROM archive.kind';
GRANT SELECT ON archive.old TO PUBLIC;
GRANT SELECT ON app.place TO PUBLIC;
INSERT INTO app.area (name, feeling) SELECT g::text, 'sad' FROM generate_series(1, 20) g;
INSERT INTO archive.kind (name) SELECT g::text FROM generate_series(1, 5) g;
INSERT INTO app.place (area_id, kind) SELECT g % 20 + 1, g % 5 + 1 FROM generate_series(1, 100) g;
INSERT INTO archive.old SELECT g, 1, 'v' FROM generate_series(1, 50) g;
INSERT INTO app.part SELECT g, '2023-12-01'::date + g FROM generate_series(1, 60) g;
INSERT INTO "Other.one"."Up.Per" SELECT generate_series(1, 5);
INSERT INTO app.cache VALUES (1);
SELECT lo_from_bytea(4711, 'an object');
"""
SELECTED = ["app.area", "app.cache", "app.part", "app.part_2024", "app.place", '"Other.one"."Up.Per"']


def tables(server, kinds: str = "rp") -> list[str]:
    return [row[0] for row in server.query(
        DATABASE, "SELECT c.oid::regclass::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE"
                  " c.relkind = ANY (%s) AND n.nspname !~ '^(pg_|information_schema|walferry)' ORDER BY 1", (list(kinds),))]


def findings_of(answer: walferry.Answer) -> dict[str, dict]:
    return {each["id"]: each for each in answer.json()["findings"]}


@pytest.mark.tsan
def test_the_selected_tables_are_carried_and_the_others_stay_as_they_are(migrations, tmp_path):
    rules = tmp_path / "rules"
    rules.write_text('# as of pg_dump --filter\ninclude table app.*\n\n"Other.one"."Up.P*r"\nexclude table app.part_2023\n')
    rules.write_text(rules.read_text().replace('"Up.P*r"', '"Up.Per"'))
    migration = migrations(DATABASE, "--tables-file", str(rules), "--allow-nonempty-target")
    source, target, daemon = migration.source, migration.target, migration.daemon
    migration.load(sql=SCHEMA)
    # The target's own table of a name that is left out.
    target.execute(DATABASE, "CREATE SCHEMA own", "CREATE TABLE own.old (id integer)", "INSERT INTO own.old VALUES (1)")

    found = findings_of(daemon.check("--tables-file", str(rules), "--allow-nonempty-target", "--json"))
    # Not a word of archive.keyless: it is not selected.
    assert found["source.replica_identity"]["severity"] == "PASS", found["source.replica_identity"]
    assert found["source.selection"]["title"] == "6 of 11 tables are selected"
    assert "of_kind on app.place references archive.kind" in found["source.selection_keys"]["detail"]
    for reader in ("view app.of_both", "view app.of_view", "view app.of_old", "function app.kinds()"):
        assert reader in found["source.selection_readers"]["detail"]

    daemon.start()
    daemon.await_phase("follow")
    assert tables(target) == sorted(SELECTED + ["own.old"])
    assert tables(target, "vm") == ["app.places"]
    assert target.query(DATABASE, "SELECT conname FROM pg_constraint WHERE contype = 'f'") == [("place_area_id_fkey",)]
    source.execute(DATABASE, "UPDATE app.place SET area_id = 1 WHERE id < 20", "DELETE FROM archive.old WHERE id < 10",
                   "INSERT INTO app.cache VALUES (2)", "INSERT INTO app.part VALUES (999, '2023-02-02')",
                   'INSERT INTO "Other.one"."Up.Per" VALUES (77)', "CREATE TABLE archive.later (id integer)")
    migration.await_applied()

    # Another selection is refused, none goes on with the recorded one.
    assert daemon.terminate() == walferry.OK
    daemon.options = ["--include-table", "app.area"]
    assert daemon.start().await_exit() == walferry.REFUSED
    assert "begun with another selection" in daemon.log_tail()
    daemon.options = []
    daemon.start()
    daemon.await_phase("follow")
    compared = daemon.verify("--state-dir", str(daemon.state_dir), "--json")
    wanted = sorted(SELECTED)
    wanted.remove("app.part")
    unequal = [table["name"] for table in compared.json()["tables"] if not table["equal"]]
    assert (compared.code, unequal) == (walferry.DIFFERENT, ["cache"]), compared

    report = migration.switch()
    assert sorted(table["name"].replace("Other.one.Up.Per", '"Other.one"."Up.Per"') for table in report["tables"]) == wanted
    assert any("of_kind on app.place references archive.kind" in note for note in report["notes"]), report["notes"]
    assert any("view app.of_both" in note for note in report["notes"])
    for table in wanted:
        rows = f"SELECT t::text FROM {table} t ORDER BY 1"
        assert target.query(DATABASE, rows) == source.query(DATABASE, rows)
    assert target.scalar(DATABASE, "SELECT last_value FROM app.place_id_seq") == 100
    assert target.query(DATABASE, "SELECT oid FROM pg_largeobject_metadata") == []
    # The selected tables are closed, the others are not.
    source.execute(DATABASE, "INSERT INTO archive.old VALUES (1000, 1, 'v')", "CREATE TABLE archive.much_later (id integer)")
    with pytest.raises(psycopg2.Error) as refused:
        source.execute(DATABASE, "INSERT INTO app.area (name) VALUES ('too late')")
    assert refused.value.pgcode == "25006"
    assert daemon.finish("--lift-fence").code == walferry.OK
    source.execute(DATABASE, "INSERT INTO app.area (name) VALUES ('in time')")


def test_schemas_and_exclusions_select_and_an_abort_drops_no_more_than_was_made(migrations):
    migration = migrations(DATABASE, "--schema", "app", "--exclude-table", "app.p*", "--allow-nonempty-target")
    migration.load(sql=SCHEMA)
    target = migration.target
    target.execute(DATABASE, "CREATE SCHEMA archive", "CREATE TABLE archive.old (id integer)",
                   "ALTER SCHEMA archive RENAME TO kept")
    migration.daemon.start("--until", "caught-up")
    assert migration.daemon.await_exit() == walferry.OK, migration.daemon.log_tail()
    assert tables(target) == ["app.area", "app.cache", "kept.old"]
    target.execute(DATABASE, "CREATE TABLE archive.old (id integer)")
    aborted = migration.daemon.abort("--drop-target-objects")
    assert aborted.code == walferry.OK, aborted
    assert tables(target) == ["archive.old", "kept.old"]


def test_a_sequence_comes_along_when_a_selected_table_draws_from_another_ones(migrations):
    """archive.tag_id_seq belongs to a table that is left out: it is made without an owner, or app.ticket could not be."""
    migration = migrations(DATABASE, "--schema", "app")
    source, target = migration.source, migration.target
    migration.load(sql="""
        CREATE SCHEMA app;
        CREATE SCHEMA archive;
        CREATE TABLE archive.tag (id serial PRIMARY KEY, other serial);
        COMMENT ON SEQUENCE archive.tag_id_seq IS 'numbers for all';
        GRANT SELECT ON archive.tag_id_seq TO PUBLIC;
        CREATE TABLE app.ticket (id integer PRIMARY KEY DEFAULT nextval('archive.tag_id_seq'), v text);
        INSERT INTO archive.tag DEFAULT VALUES;
        INSERT INTO app.ticket (v) SELECT 'v' FROM generate_series(1, 20);""")
    migration.daemon.start()
    migration.daemon.await_phase("follow")
    assert tables(target) == ["app.ticket"]
    assert tables(target, "S") == ["archive.tag_id_seq"]
    source.execute(DATABASE, "INSERT INTO app.ticket (v) VALUES ('later')")
    migration.await_applied()
    migration.switch()
    target.execute(DATABASE, "INSERT INTO app.ticket (v) VALUES ('on the target')")
    assert target.scalar(DATABASE, "SELECT max(id) FROM app.ticket") == 23


@pytest.mark.parametrize("by", ["schema", "publication"])
def test_sequences_of_another_part_stay_where_they_are_on_the_target(migrations, by):
    """The part that they belong to was switched before, and the target has drawn from them since."""
    options = {"schema": ["--include-schema", "archive"], "publication": ["--publication", "part"]}
    migration = migrations(DATABASE, "--no-schema", *options[by])
    source, target = migration.source, migration.target
    schema = """
        CREATE SCHEMA app;
        CREATE SCHEMA archive;
        CREATE TABLE app.ticket (id serial PRIMARY KEY);
        CREATE TABLE app.note (id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY);
        CREATE SEQUENCE app.shared OWNED BY app.ticket.id;
        CREATE TABLE archive.old (id serial PRIMARY KEY, n integer DEFAULT nextval('app.shared'));
        CREATE TABLE archive.cut (id integer GENERATED ALWAYS AS IDENTITY, PRIMARY KEY (id)) PARTITION BY RANGE (id);
        CREATE TABLE archive.cut_1 PARTITION OF archive.cut FOR VALUES FROM (1) TO (1000);
        """
    migration.load(sql=schema + "INSERT INTO app.ticket DEFAULT VALUES; INSERT INTO archive.old DEFAULT VALUES;"
                                "INSERT INTO app.note DEFAULT VALUES; INSERT INTO archive.cut DEFAULT VALUES;"
                                "CREATE PUBLICATION part FOR TABLE archive.old, archive.cut")
    target.psql(DATABASE, sql=schema + "SELECT setval('app.ticket_id_seq', 1000000), setval('app.note_id_seq', 1000)")
    migration.daemon.start()
    migration.daemon.await_phase("follow")
    report = migration.switch()
    assert any("2 sequences of tables that are not carried" in note for note in report["notes"]), report["notes"]

    def values(server) -> tuple:
        return server.query(DATABASE, "SELECT (SELECT last_value FROM app.ticket_id_seq), (SELECT last_value FROM app.note_id_seq),"
                                      " (SELECT last_value FROM app.shared), (SELECT last_value FROM archive.old_id_seq),"
                                      " (SELECT last_value FROM archive.cut_id_seq)")[0]

    assert values(target) == (1000000, 1000, *values(source)[2:])
    if by == "schema":
        checked = walferry.command("verify", "--source", migration.daemon.source, "--target", migration.daemon.target,
                                   "--state-dir", migration.daemon.state_dir)
        assert checked.code == walferry.OK, checked


def test_a_default_that_draws_from_an_identity_left_out_is_refused(migrations):
    """Such a sequence cannot be there without its table."""
    migration = migrations(DATABASE)
    migration.load(sql="""
        CREATE SCHEMA app;
        CREATE TABLE app.tag (id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY);
        CREATE TABLE app.ticket (id integer PRIMARY KEY DEFAULT nextval('app.tag_id_seq'));""")
    found = findings_of(migration.daemon.check("--include-table", "app.ticket", "--json"))["source.selection"]
    assert found["severity"] == "FAIL", found
    assert "app.ticket.id draws from app.tag_id_seq, the identity of app.tag" in found["detail"], found
    both = findings_of(migration.daemon.check("--include-table", "app.*", "--json"))["source.selection"]
    assert both["severity"] == "PASS", both


def test_rules_that_cannot_be_meant_are_refused(migrations, tmp_path):
    migration = migrations(DATABASE)
    migration.source.execute(DATABASE, "CREATE TABLE t (id integer PRIMARY KEY)")
    check = migration.daemon.check
    nothing = findings_of(check("--include-table", "tt", "--json"))["source.selection"]
    assert nothing["severity"] == "FAIL" and "no table of the source matches the pattern tt" in nothing["detail"]
    assert findings_of(check("--table", "t", "--exclude-table", "?", "--json"))["source.selection"]["severity"] == "FAIL"
    for options, text in ((["--include-table", "a.b.c"], "SCHEMA.NAME is wanted"),
                          (["--include-table", "t", "--exclude-schema", "x"], "no effect"),
                          (["--tables-file", "/nonexistent"], "cannot be read"),
                          (["--tables-file", str(tmp_path / "odd")], "only tables and schemas")):
        (tmp_path / "odd").write_text("exclude extension x\n")
        answer = check(*options)
        assert answer.code == walferry.USAGE and text in answer.err, answer
