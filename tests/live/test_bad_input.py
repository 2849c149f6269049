"""Bad input: one clear paragraph on stderr that names what is wrong and the remedy, the right exit code, no change."""

import os
import pwd
import socket
import subprocess

import pytest

import servers
import walferry
from migration import changed, fingerprint

pytestmark = pytest.mark.limit(120)
TABLE = "CREATE TABLE public.t (id int PRIMARY KEY, v text); INSERT INTO public.t SELECT g, 'v' FROM generate_series(1, 10) g"
SECRET = "wr0ng-s3cret"


class Refusal:
    """Runs `walferry run` where it must refuse, and checks everything that every refusal must have."""

    def __init__(self, migration):
        self.migration = migration
        self.ends = [(migration.source, migration.database), (migration.target, migration.database)]

    def expect(self, code: int | tuple[int, ...], *words: str, source=None, target=None, state_dir=None, options=(),
               env=None) -> walferry.Answer:
        daemon = self.migration.daemon
        before = [fingerprint(*end) for end in self.ends]
        rows = self.rows()
        answer = walferry.command("run", "--source", source or daemon.source, "--target", target or daemon.target,
                                  "--state-dir", state_dir or daemon.state_dir, *options, deadline_seconds=90, env=env)
        codes = code if isinstance(code, tuple) else (code,)
        assert answer.code in codes, f"expected exit code {codes}: {answer}"
        check_error_text(answer, *words)
        for end, old in zip(self.ends, before, strict=True):
            assert changed(old, fingerprint(*end)) == [], f"{end[0].name} was changed"
        assert self.rows() == rows
        return answer

    def rows(self) -> list:
        """Row counts of public tables on both ends."""
        counts = []
        for server, database in self.ends:
            for (name,) in server.query(database, "SELECT format('%I.%I', schemaname, tablename) FROM pg_tables"
                                                  " WHERE schemaname = 'public' ORDER BY 1"):
                counts.append((server.name, name, server.scalar(database, f"SELECT count(*) FROM {name}")))
        return counts


def check_error_text(answer: walferry.Answer, *words: str) -> None:
    """One paragraph for a person: no blank line in it, no stack, no secret, every expected word."""
    text = answer.err.strip()
    assert text, f"nothing on stderr: {answer}"
    assert "\n\n" not in text, f"more than one paragraph:\n{text}"
    assert len(text) < 4000, f"too long to be read:\n{text}"
    for banned in ("terminate called", "what():", "Assertion", "AddressSanitizer", "runtime error", SECRET):
        assert banned not in text, text
    for word in words:
        assert word.lower() in text.lower(), f"'{word}' is not named:\n{text}"


@pytest.fixture
def refusal(migrations):
    migration = migrations("bad")
    migration.load(sql=TABLE)
    return Refusal(migration)


def test_an_unreachable_source_is_named(refusal):
    nowhere = f"host=127.0.0.1 port={servers.free_port()} user=postgres dbname=bad connect_timeout=3"
    refusal.expect(walferry.SOURCE_FAILED, "source", "127.0.0.1", source=nowhere)


def test_an_unreachable_target_is_named(refusal):
    nowhere = f"host=127.0.0.1 port={servers.free_port()} user=postgres dbname=bad connect_timeout=3"
    refusal.expect(walferry.TARGET_FAILED, "target", "127.0.0.1", target=nowhere)


def test_a_wrong_password_is_named_and_never_printed(refusal, server_made):
    server = server_made("source", tcp=True, hba=["host all guarded 127.0.0.1/32 scram-sha-256"])
    server.create_database("bad")
    server.execute("postgres", "CREATE ROLE guarded LOGIN SUPERUSER PASSWORD 'right'")
    answer = refusal.expect(walferry.SOURCE_FAILED, "source", "password", source=server.uri("bad", "guarded", SECRET))
    assert SECRET not in answer.out
    # The right one works: what is tested above is the password and nothing else.
    checked = walferry.command("check", "--source", server.uri("bad", "guarded", "right"),
                               "--target", refusal.migration.daemon.target)
    assert checked.code in (walferry.OK, walferry.REFUSED) and "authentication failed" not in checked.err, checked


def test_a_password_is_in_no_argument_of_a_child_and_in_no_log(migrations, server_made):
    source = server_made("source", tcp=True, hba=["host all mover 127.0.0.1/32 scram-sha-256"])
    source.execute("postgres", f"CREATE ROLE mover LOGIN SUPERUSER PASSWORD '{SECRET}'")
    migration = migrations("secret", source=source)
    migration.load(sql=TABLE)
    migration.daemon.source = source.uri("secret", "mover", SECRET)
    migration.daemon.start()
    own = migration.daemon.process.pid
    seen: list[str] = []

    def followed() -> bool:
        with open(f"/proc/{own}/cmdline", "rb") as file:
            given = file.read()  # what a child shows too in the instant between fork and exec
        for process in os.listdir("/proc"):
            if process.isdigit() and int(process) != own:
                try:
                    with open(f"/proc/{process}/cmdline", "rb") as file:
                        line = file.read()
                except OSError:
                    continue
                # Our own `status` calls do not carry it, so any hit is a child of the daemon.
                if SECRET.encode() in line and line != given:
                    seen.append(line.decode(errors="replace"))
        migration.daemon.expect_alive()
        return migration.daemon.phase() == "follow"

    servers.wait_until(followed, 90, "phase follow", 0.02)
    assert not seen, seen
    status = migration.daemon.status()
    assert SECRET not in str(status)
    assert migration.daemon.terminate() == walferry.OK
    for path in [migration.daemon.log, *migration.daemon.state_dir.rglob("*")]:
        if path.is_file():
            assert SECRET.encode() not in path.read_bytes(), f"the password is in {path}"


def test_a_table_missing_on_the_target_is_named(refusal):
    refusal.migration.target.execute("bad", "CREATE TABLE public.other (id int PRIMARY KEY)")
    refusal.expect((walferry.REFUSED, walferry.TARGET_FAILED), "target", "public.t", options=["--no-schema"])


def test_a_publication_that_does_not_exist_is_named(refusal):
    refusal.expect((walferry.USAGE, walferry.REFUSED), "publication", "no_such_pub", options=["--publication", "no_such_pub"])


def test_a_target_with_rows_is_refused(refusal):
    refusal.migration.target.execute("bad", "CREATE TABLE public.mine (id int PRIMARY KEY)",
                                     "INSERT INTO public.mine VALUES (1)")
    refusal.expect(walferry.REFUSED, "target", "--allow-nonempty-target")


def test_a_table_without_replica_identity_is_refused(refusal):
    refusal.migration.source.execute("bad", "CREATE TABLE public.keyless (v int)")
    refusal.expect(walferry.REFUSED, "public.keyless", "replica identity")


def test_the_same_database_on_both_ends_is_refused(refusal):
    refusal.expect(walferry.REFUSED, "source", "target", "same", target=refusal.migration.daemon.source)


def test_a_source_without_logical_wal_is_refused(refusal, server_made):
    server = server_made("source", settings={"wal_level": "replica"})
    server.create_database("bad")
    server.psql("bad", sql=TABLE)
    refusal.expect(walferry.REFUSED, "wal_level", "restart", source=server.dsn("bad"))


def test_a_role_without_replication_is_refused(refusal):
    refusal.migration.source.execute("bad", "DROP ROLE IF EXISTS plain", "CREATE ROLE plain LOGIN",
                                     "GRANT SELECT ON ALL TABLES IN SCHEMA public TO plain")
    refusal.expect(walferry.REFUSED, "REPLICATION", "plain", source=refusal.migration.source.dsn("bad", "plain"))


def test_an_unknown_flag_is_named(refusal):
    refusal.expect(walferry.USAGE, "--no-such-flag", options=["--no-such-flag"])


def test_a_bad_value_is_named(refusal):
    refusal.expect(walferry.USAGE, "--jobs", "many", options=["--jobs", "many"])
    refusal.expect(walferry.USAGE, "--until", "tomorrow", options=["--until", "tomorrow"])


def test_a_connection_string_that_libpq_cannot_parse_is_named(refusal):
    refusal.expect(walferry.USAGE, "--source", source="host= =nonsense")


def test_missing_options_are_named_and_plain_pg_variables_fill_neither_side():
    socket_dir = "/nonexistent"
    answer = walferry.command("run", "--target", "dbname=x", "--state-dir", "/nonexistent/state",
                              env={"PGHOST": socket_dir, "PGDATABASE": "postgres"})
    assert answer.code == walferry.USAGE, answer
    check_error_text(answer, "--source")


def test_a_state_directory_that_is_a_file_is_named(refusal, tmp_path):
    file = tmp_path / "state"
    file.write_text("not a directory")
    refusal.expect(walferry.USAGE, str(file), state_dir=file)
    assert file.read_text() == "not a directory"


def test_a_state_directory_without_permission_is_named(refusal):
    """As root everything may be read, so there the program runs as the unprivileged user of the servers."""
    folder = refusal.migration.folder / "closed"
    folder.mkdir(mode=0o700)
    user = servers.unprivileged_user()
    if user is None:
        folder.chmod(0o000)
    else:
        refusal.migration.folder.chmod(0o755)
        entry = pwd.getpwnam(user)
        probe = subprocess.run(["setpriv", f"--reuid={entry.pw_uid}", f"--regid={entry.pw_gid}", "--clear-groups",
                                "test", "-x", str(walferry.binary())], check=False)
        if probe.returncode != 0:
            pytest.skip(f"{user} may not execute {walferry.binary()}")
    daemon = refusal.migration.daemon
    command = servers.as_unprivileged([str(walferry.binary()), "run", "--source", daemon.source, "--target",
                                       daemon.target, "--state-dir", str(folder)])
    result = subprocess.run(command, env=walferry.environment(), text=True, capture_output=True, timeout=60, cwd="/",
                            stdin=subprocess.DEVNULL)
    answer = walferry.Answer(result.returncode, result.stdout, result.stderr, 0)
    assert answer.code == walferry.USAGE, answer
    check_error_text(answer, str(folder))


def test_a_port_in_use_is_named(refusal):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        refusal.expect(walferry.USAGE, str(port), "use", options=["--listen", f"127.0.0.1:{port}"])


def test_a_state_directory_in_use_is_refused(refusal):
    """Two daemons of one migration would fight for the slot."""
    daemon = refusal.migration.daemon
    daemon.start()
    daemon.await_phase("follow", 90)
    answer = walferry.command("run", "--source", daemon.source, "--target", daemon.target, "--state-dir",
                              daemon.state_dir)
    assert answer.code in (walferry.USAGE, walferry.REFUSED), answer
    check_error_text(answer, str(daemon.state_dir))
    daemon.expect_alive()


def test_swapped_ends_against_a_known_state_directory_are_refused(refusal):
    daemon = refusal.migration.daemon
    daemon.start("--until", "caught-up")
    assert daemon.await_exit() == walferry.OK, daemon.log_tail()
    refusal.expect(walferry.REFUSED, "source", "target", source=daemon.target, target=daemon.source)


@pytest.mark.parametrize("name", ["status", "cutover", "finish", "abort"])
def test_commands_without_a_migration_say_so(name, tmp_path):
    answer = walferry.command(name, "--state-dir", tmp_path / "nothing-here")
    assert answer.code in (walferry.USAGE, walferry.REFUSED), answer
    check_error_text(answer, "nothing-here")
    assert not (tmp_path / "nothing-here").exists(), "a command that only asks made the state directory"


def test_every_command_has_help():
    for name in ("check", "run", "status", "verify", "cutover", "finish", "abort"):
        answer = walferry.command(name, "--help")
        assert answer.code == walferry.OK and "--" in answer.out, answer
    answer = walferry.command("no-such-command")
    assert answer.code == walferry.USAGE, answer
    check_error_text(answer, "no-such-command")
