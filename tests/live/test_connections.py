"""How the ends are reached: TLS with certificates that are checked, passfile and service file, several hosts; and money
that a source's own settings would write in another form."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

import walferry
from compare import assert_equal, data_differences
from migration import on_versions
from servers import unprivileged_user

pytestmark = pytest.mark.limit(240)

TABLE = "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT g, 'v' FROM generate_series(1, 100) g;"


def certificate(folder: Path, name: str) -> tuple[Path, Path]:
    key, file = folder / f"{name}.key", folder / f"{name}.crt"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", "-addext",
                    "subjectAltName=DNS:localhost", "-keyout", key, "-out", file], check=True, capture_output=True)
    key.chmod(0o600)
    if unprivileged_user() is not None:
        shutil.chown(key, unprivileged_user())
    return key, file


def test_certificates_of_both_ends_are_checked(migrations, server_made, folder):
    key, own = certificate(folder, "own")
    _, other = certificate(folder, "other")
    settings = {"ssl": "on", "ssl_key_file": str(key), "ssl_cert_file": str(own)}
    source, target = (server_made(side, tcp=True, settings=settings) for side in ("source", "target"))
    migration = migrations("tls", source=source, target=target)
    daemon = migration.daemon

    def address(server, root: Path) -> str:
        return (f"host=localhost port={server.port} dbname=tls user=postgres sslmode=verify-full sslrootcert={root}"
                " gssencmode=disable")

    migration.load(sql=TABLE)
    for wrong, code in ("source", walferry.SOURCE_FAILED), ("target", walferry.TARGET_FAILED):
        daemon.source = address(source, other if wrong == "source" else own)
        daemon.target = address(target, other if wrong == "target" else own)
        daemon.start()
        assert daemon.await_exit(30) == code
        assert "certificate verify failed" in daemon.log.read_text()
    daemon.source, daemon.target = address(source, own), address(target, own)
    daemon.start()
    daemon.await_phase("follow", 60)
    for server in source, target:
        sessions = server.query("postgres", "SELECT a.application_name, s.ssl FROM pg_stat_ssl s JOIN pg_stat_activity a"
                                            " USING (pid) WHERE a.application_name LIKE 'walferry %%'")
        assert sessions and all(encrypted for _, encrypted in sessions), sessions
    source.execute("tls", "INSERT INTO t VALUES (101, 'later')")
    migration.await_applied()
    migration.switch()
    assert_equal(*migration.ends)


def test_passwords_come_from_passfile_and_service_file_and_are_read_again(migrations, server_made, folder):
    hba = ["local all postgres trust", "host all mover 127.0.0.1/32 scram-sha-256"]
    ends = {side: server_made(side, tcp=True, hba=hba, settings={"password_encryption": "scram-sha-256"})
            for side in ("source", "target")}
    migration = migrations("secret", **ends)
    daemon = migration.daemon
    passwords, services = folder / "passwords", folder / "services"
    services.write_text(f"[old]\nhost=127.0.0.1\nport={ends['source'].port}\ndbname=secret\nuser=mover\n")

    def set_passwords(word: str) -> None:
        passwords.write_text(f"127.0.0.1:*:*:mover:{word}\n")
        passwords.chmod(0o600)
        for server in ends.values():
            server.execute("postgres", f"ALTER ROLE mover PASSWORD '{word}'")

    for server in ends.values():
        server.execute("postgres", "CREATE ROLE mover LOGIN SUPERUSER REPLICATION")
    set_passwords("opensesame")
    migration.load(sql=TABLE)
    daemon.source = "service=old"
    daemon.target = f"host=127.0.0.1 port={ends['target'].port} dbname=secret user=mover"
    daemon.environment = {"PGPASSFILE": str(passwords), "PGSERVICEFILE": str(services)}
    daemon.start()
    daemon.await_phase("follow", 60)
    set_passwords("abracadabra")
    for server in ends.values():
        server.query("postgres", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'mover'")
    ends["source"].execute("secret", "INSERT INTO t VALUES (101, 'later')")
    migration.await_applied()
    daemon.expect_alive()
    for text in daemon.log.read_text(), str(daemon.status()):
        assert "opensesame" not in text and "abracadabra" not in text
    assert data_differences(*migration.ends, sequences=False) == []


def test_of_several_hosts_the_one_that_answers_and_can_be_written_to_is_taken(migrations, folder):
    migration = migrations("hosts")
    migration.load(sql=TABLE)
    daemon = migration.daemon
    nobody = folder / "nobody"
    nobody.mkdir()
    for side in "source", "target":
        server = getattr(migration, side)
        setattr(daemon, side, f"host={nobody},{server.socket_dir} port=5432,{server.port} dbname=hosts user=postgres"
                              " target_session_attrs=read-write connect_timeout=5")
    daemon.start()
    daemon.await_phase("follow", 60)
    # And again when it has lost them.
    for server in migration.source, migration.target:
        server.query("postgres", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'hosts' AND"
                                 " application_name LIKE 'walferry %%'")
    migration.source.execute("hosts", "INSERT INTO t VALUES (101, 'later')")
    migration.await_applied()
    migration.switch()
    assert_equal(*migration.ends)


def test_money_is_carried_from_a_source_that_writes_it_in_another_form(migrations, server_made, folder):
    """By rows copied and by changes streamed: 1.234,56 read as an English amount would be 1.23."""
    locales = folder / "locales"
    locales.mkdir()
    subprocess.run(["localedef", "-i", "de_DE", "-f", "UTF-8", str(locales / "de_DE.UTF-8")], check=True,
                   capture_output=True)
    source = server_made("source", environment={"LOCPATH": str(locales)})
    migration = migrations("money", source=source)
    source.execute("postgres", "ALTER DATABASE money SET lc_monetary = 'de_DE.UTF-8'")
    migration.load(sql="CREATE TABLE t (id int PRIMARY KEY, price money);"
                       "CREATE TABLE keyed (price money PRIMARY KEY, n int);"
                       "INSERT INTO t VALUES (1, 1234.56::numeric::money); INSERT INTO keyed VALUES (0.5::numeric::money, 1)")
    assert source.scalar("money", "SELECT price::text FROM t") == "1.234,56 €"
    migration.daemon.start()
    migration.daemon.await_phase("follow", 60)
    source.execute("money", "INSERT INTO t VALUES (2, (-9876543.21)::numeric::money)",
                   "UPDATE t SET price = price + 1000::numeric::money WHERE id = 1", "UPDATE keyed SET n = 2",
                   "UPDATE keyed SET price = 2000.25::numeric::money")
    migration.await_applied()
    migration.switch()
    assert_equal(*migration.ends)
    assert migration.target.scalar("money", "SELECT price::numeric::text FROM t WHERE id = 2") == "-9876543.21"


@on_versions((17, 18))
def test_a_limit_for_transactions_does_not_end_the_walsender(migrations):
    """It sends within transactions of its server, however long that takes."""
    migration = migrations("limited").follow("CREATE TABLE t (id int PRIMARY KEY, v text)")
    source, database = migration.source, migration.database
    source.execute("postgres", f"ALTER DATABASE {database} SET transaction_timeout = '100ms'")
    assert migration.daemon.terminate() == walferry.OK
    migration.daemon.start()
    migration.daemon.await_phase("follow")
    source.execute(database, "SET transaction_timeout = 0",
                   "INSERT INTO t SELECT g, repeat('x', 200) FROM generate_series(1, 300000) g")
    migration.await_applied()
    assert "terminating connection due to transaction timeout" not in source.log.read_text(errors="replace")
    migration.switch()


@pytest.mark.parametrize("side", ["source", "target"])
def test_whoever_holds_what_is_waited_for_is_named(migrations, side):
    migration = migrations("waiting")
    migration.load(sql="CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t SELECT generate_series(1, 100)")
    server = getattr(migration, side)

    def named(status) -> bool:
        pid = locking.info.backend_pid
        return any(each.startswith(f"{side}: walferry ") and f"which pid {pid} (postgres walferry-test, idle in transaction" in each
                   for each in status["waits"])

    with server.connect("waiting", autocommit=False) as locking, locking.cursor() as cursor:
        if side == "source":
            cursor.execute("LOCK TABLE t IN ACCESS EXCLUSIVE MODE")  # for which the copy waits
            migration.daemon.start()
        else:
            migration.daemon.start()
            migration.daemon.await_phase("follow")
            cursor.execute("SELECT FROM t WHERE id = 1 FOR UPDATE")
            migration.source.execute("waiting", "DELETE FROM t WHERE id = 1")
        migration.daemon.await_status(named, 60, "the holder of the lock to be named")
        page = walferry.command("status", "--state-dir", migration.daemon.state_dir)
        assert "waits" in page.out and "idle in transaction" in " ".join(page.out.split()), page
        cursor.execute("ROLLBACK")
    migration.daemon.await_phase("follow")
    migration.daemon.await_status(lambda status: status["waits"] == [], 30, "nothing to be waited for")
    migration.switch()
