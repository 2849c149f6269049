"""Tables that come while the migration is under way and cannot join in the transaction that makes them: no event trigger,
no key, or rows before the key. They join by a copy of their own, and nobody's write fails for it."""

import contextlib
import threading

import pytest

import walferry
from compare import assert_equal, data_differences
from held_commit import HeldCommit
from servers import wait_until

pytestmark = pytest.mark.limit(240)

TABLES = "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT g, 'v' FROM generate_series(1, 100) g;"


def blockers(migration) -> str:
    answer = migration.daemon.cutover("--json", "--dry-run", "--max-lag", "60s")
    return str(answer.json()["blockers"])


def await_member(migration, table: str, seconds: int = 60) -> None:
    """Until the table has been copied, and the apply goes on."""
    migration.daemon.await_status(
        lambda status: status["target_connected"] and any(each["name"] == table for each in status["tables"]), seconds,
        f"{table} to join")


def identity(migration, table: str) -> str:
    return migration.source.scalar(migration.database, "SELECT relreplident FROM pg_class WHERE oid = %s::regclass",
                                   (table,))


class Writer(threading.Thread):
    """Long and short transactions on one table, some of them open while it joins."""

    def __init__(self, migration, table: str):
        super().__init__()
        self.migration = migration
        self.table = table
        self.ending = threading.Event()
        self.commits = 0
        self.failure: Exception | None = None

    def run(self) -> None:
        try:
            with self.migration.source.connect(self.migration.database, autocommit=False) as connection, \
                    connection.cursor() as cursor:
                while not self.ending.is_set():
                    cursor.execute(f"INSERT INTO {self.table} (v) SELECT 'row' FROM generate_series(1, 3)")
                    cursor.execute(f"UPDATE {self.table} SET v = v || '.' WHERE id %% 7 = %s", (self.commits % 7,))
                    if self.commits % 5 == 0:
                        cursor.execute("SELECT pg_sleep(0.05)")
                    cursor.execute(f"DELETE FROM {self.table} WHERE id %% 50 = %s", (self.commits % 50,))
                    connection.commit()
                    self.commits += 1
        except Exception as failure:  # noqa: BLE001  (raised again where it is awaited)
            self.failure = failure

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *exception) -> None:
        self.ending.set()
        self.join()
        if self.failure:
            raise self.failure


@pytest.mark.tsan
def test_without_an_event_trigger_a_table_joins_when_the_target_has_it(migrations):
    migration = migrations("join_late").follow(TABLES, "--no-ddl-trigger")
    source, database, target, _ = migration.ends
    create = "CREATE TABLE fresh (id serial PRIMARY KEY, v text)"
    source.execute(database, create, "INSERT INTO fresh (v) SELECT 'old' FROM generate_series(1, 5000)")
    with Writer(migration, "fresh") as writer:
        assert "public.fresh was created after the migration began" in blockers(migration)
        target.execute(database, create)
        await_member(migration, "fresh")
        here = writer.commits
        wait_until(lambda: writer.commits > here + 20 or writer.failure, 60, "writes after it joined")
    migration.await_applied()
    assert data_differences(*migration.ends, sequences=False) == []
    migration.switch()
    assert_equal(*migration.ends)


def test_a_table_without_a_key_joins_when_full_identities_were_asked_for(migrations):
    migration = migrations("join_full").follow(TABLES, "--replica-identity-full", "--on-ddl", "apply")
    source, database, _, _ = migration.ends
    source.execute(database, "CREATE TABLE keyless (id int, v text)", "INSERT INTO keyless VALUES (1, 'same'), (1, 'same')")
    await_member(migration, "keyless")
    assert identity(migration, "keyless") == "f"
    with source.connect(database) as connection, connection.cursor() as cursor:
        cursor.execute("UPDATE keyless SET v = 'other' WHERE ctid = (SELECT min(ctid) FROM keyless)")
        cursor.execute("INSERT INTO keyless VALUES (2, NULL)")
    migration.await_applied()
    assert data_differences(*migration.ends, sequences=False) == []
    migration.switch()
    assert migration.daemon.finish().code == walferry.OK
    assert_equal(*migration.ends)
    assert identity(migration, "keyless") == "d"
    assert migration.target.scalar(database, "SELECT relreplident FROM pg_class WHERE relname = 'keyless'") == "d"


def test_a_table_that_others_inherit_from_joins_too(migrations):
    migration = migrations("join_parent").follow(TABLES, "--replica-identity-full", "--on-ddl", "apply")
    source, database, _, _ = migration.ends
    source.execute(database, "CREATE TABLE base (id int, v text)", "CREATE TABLE child (PRIMARY KEY (id)) INHERITS (base)",
                   "INSERT INTO child VALUES (1, 'of the child')", "INSERT INTO base VALUES (2, 'of its own')")
    await_member(migration, "base")
    await_member(migration, "child")
    source.execute(database, "UPDATE base SET v = 'changed'")
    migration.await_applied()
    assert data_differences(*migration.ends, sequences=False) == []
    migration.switch()


def test_a_table_outside_the_users_publication_is_left_alone(migrations):
    """A command that makes its rows anew has nothing to do with the migration."""
    migration = migrations("join_published")
    source, database, target, _ = migration.ends
    migration.load(sql=TABLES + "CREATE TABLE beside (id int PRIMARY KEY); INSERT INTO beside VALUES (1), (2);")
    source.execute(database, "CREATE PUBLICATION mine FOR TABLE t")
    migration.daemon.start("--publication", "mine", "--on-ddl", "apply")
    migration.daemon.await_phase("follow", 60)
    target.execute(database, "INSERT INTO beside VALUES (77)")
    source.execute(database, "ALTER TABLE beside ADD COLUMN n serial", "UPDATE t SET v = 'after' WHERE id = 1")
    migration.await_applied()
    wait_until(lambda: blockers(migration) == "[]", 30, "nothing to stand in the way")
    assert target.query(database, "SELECT id FROM beside ORDER BY 1") == [(77,)]
    assert target.scalar(database, "SELECT v FROM t WHERE id = 1") == "after"


def test_a_table_that_gets_its_key_or_identity_later_joins_with_its_rows(migrations):
    migration = migrations("join_key").follow(TABLES, "--on-ddl", "apply")
    source, database, _, _ = migration.ends
    source.execute(database, "CREATE TABLE late (id int, v text)", "INSERT INTO late VALUES (1, 'before')",
                   "CREATE TABLE whole (id int)", "INSERT INTO whole VALUES (1), (1)",
                   "UPDATE late SET v = 'still without a key'")
    assert "public.late was created" in blockers(migration) and "public.whole was created" in blockers(migration)
    source.execute(database, "ALTER TABLE late ADD PRIMARY KEY (id)", "ALTER TABLE whole REPLICA IDENTITY FULL",
                   "INSERT INTO late VALUES (2, 'after')")
    await_member(migration, "late")
    await_member(migration, "whole")
    source.execute(database, "UPDATE late SET v = 'last' WHERE id = 1", "DELETE FROM whole WHERE ctid = '(0,1)'")
    migration.await_applied()
    assert data_differences(*migration.ends, sequences=False) == []
    migration.switch()
    assert_equal(*migration.ends)


def test_a_table_of_the_target_that_holds_rows_is_nobodys_to_replace(migrations):
    migration = migrations("join_rows").follow(TABLES, "--no-ddl-trigger")
    source, database, target, _ = migration.ends
    target.execute(database, "CREATE TABLE fresh (id int PRIMARY KEY)", "INSERT INTO fresh VALUES (77)")
    source.execute(database, "CREATE TABLE fresh (id int PRIMARY KEY)", "INSERT INTO fresh VALUES (1)",
                   "CREATE TABLE beside (id int PRIMARY KEY)")
    target.execute(database, "CREATE TABLE beside (id int PRIMARY KEY)")
    await_member(migration, "beside")
    assert "public.fresh" in blockers(migration) and "public.beside" not in blockers(migration)
    assert target.query(database, "SELECT id FROM fresh") == [(77,)]
    target.execute(database, "DELETE FROM fresh")
    await_member(migration, "fresh")
    migration.switch()
    assert_equal(*migration.ends)


def test_a_table_that_cannot_be_copied_holds_up_nobody(migrations):
    """A trigger that only the target has refuses a row each time: the daemon goes on and says why."""
    migration = migrations("join_refused").follow(TABLES, "--no-ddl-trigger")
    source, database, target, _ = migration.ends
    create = "CREATE TABLE fresh (id int PRIMARY KEY, v text)"
    source.execute(database, create, "INSERT INTO fresh VALUES (1, 'two words')")
    target.execute(database, create, "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
                                     " $$BEGIN RAISE EXCEPTION 'not this row'; END$$",
                   "CREATE TRIGGER refuse BEFORE INSERT ON fresh FOR EACH ROW EXECUTE FUNCTION refuse()",
                   "ALTER TABLE fresh ENABLE ALWAYS TRIGGER refuse")
    error = migration.daemon.await_status(lambda status: "public.fresh cannot be copied" in str(status["last_error"]), 60,
                                          "the refused copy")["last_error"]["text"]
    assert "not this row" in error and "another attempt follows" in error
    source.execute(database, "INSERT INTO t VALUES (101, 'meanwhile')")
    migration.await_applied()
    assert target.scalar(database, "SELECT count(*) FROM t") == 101
    # Refused also in the moments in which the apply rests for another attempt, and it is not the cutover's to start again.
    found = ""
    for number in range(60):
        answer = migration.daemon.cutover("--json")
        assert answer.code == walferry.REFUSED, answer
        found += str(answer.json()["blockers"])
        source.execute(database, f"INSERT INTO t VALUES ({number + 1000}, 'between')")
    assert "public.fresh waits to be copied" in found
    migration.await_applied()
    target.execute(database, "DROP TRIGGER refuse ON fresh", "DROP FUNCTION refuse")
    await_member(migration, "fresh")
    migration.await_applied()
    assert data_differences(*migration.ends, sequences=False) == []


@contextlib.contextmanager
def held_cutover(migration, side: str, session: bytes, statement: bytes):
    """A cutover that is held at a statement to one side while the block runs, and ends with it; what it answers is yielded."""
    daemon, direct = migration.daemon, getattr(migration.daemon, side)
    answers: list[walferry.Answer] = []
    with HeldCommit(getattr(migration, side), session, lambda data: statement in data) as held:
        setattr(daemon, side, held.dsn(migration.database))
        migration.follow(TABLES, "--no-ddl-trigger")
        running = threading.Thread(target=lambda: answers.append(daemon.cutover("--json")))
        running.start()
        held.await_held()
        yield answers
        held.release()
        running.join()
        daemon.terminate()
    setattr(daemon, side, direct)


def test_a_table_that_is_made_while_a_cutover_compares_refuses_it(migrations):
    """The guards have passed by then, and nothing that comes after them looked at new tables but the last step."""
    migration = migrations("join_cutover")
    source, database, target, _ = migration.ends
    with held_cutover(migration, "target", b"walferry verify", b"::bit(128)") as answers:
        source.execute(database, "CREATE TABLE made (id int PRIMARY KEY)", "INSERT INTO made VALUES (1)")
    migration.daemon.start("--no-ddl-trigger")
    assert answers[0].code != walferry.OK and "public.made was created" in str(answers[0].json()["error"]), answers
    source.execute(database, "INSERT INTO t VALUES (101, 'still open')")
    target.execute(database, "CREATE TABLE made (id int PRIMARY KEY)")
    await_member(migration, "made")
    migration.switch()
    assert_equal(*migration.ends)


def test_a_table_that_gets_anothers_name_just_before_writes_stop_refuses_the_cutover(migrations):
    """Everything that looks at tables has looked, and each name is still there."""
    migration = migrations("join_swap")
    source, database, _, _ = migration.ends
    with held_cutover(migration, "source", b"walferry fence", b"LOCK TABLE") as answers:
        source.execute(database, "BEGIN", "ALTER TABLE t RENAME TO t_old",
                       "CREATE TABLE t (id int PRIMARY KEY, v text)", "INSERT INTO t VALUES (1, 'another')", "DROP TABLE t_old",
                       "COMMIT")
    assert answers[0].code != walferry.OK and "the source was changed during the cutover" in answers[0].json()["error"], answers
    source.execute(database, "INSERT INTO t VALUES (2, 'still open')")


def test_kills_while_tables_join(migrations):
    migration = migrations("join_kill").follow(TABLES, "--no-ddl-trigger")
    source, database, target, _ = migration.ends
    daemon = migration.daemon
    for number in range(6):
        create = f"CREATE TABLE fresh_{number} (id serial PRIMARY KEY, v text)"
        source.execute(database, create, f"INSERT INTO fresh_{number} (v) SELECT repeat('x', 100) FROM"
                                         " generate_series(1, 20000)")
        target.execute(database, create)
        with Writer(migration, f"fresh_{number}"):
            published = ("SELECT count(*) FROM pg_publication_tables WHERE tablename = %s", (f"fresh_{number}",))
            said = f"fresh_{number} came while"
            if number % 3 == 0:
                wait_until(lambda said=said: said in daemon.log.read_text(), 60, "the table to be marked")
            else:
                wait_until(lambda published=published: source.scalar(database, *published), 60, "the table to be published")
            if number % 3 == 2:
                await_member(migration, f"fresh_{number}")
            daemon.kill()
            daemon.start("--no-ddl-trigger")
            daemon.await_phase("follow", 60)
    for number in range(6):
        counted = f"SELECT count(*) FROM fresh_{number}"
        wait_until(lambda counted=counted: target.scalar(database, counted) > 0, 60, f"fresh_{number} to be copied")
    migration.daemon.await_status(lambda status: status["target_connected"], 60, "the apply")
    migration.await_applied()
    migration.switch()
    assert_equal(*migration.ends)
