"""Whoever carries the stream into a database of the target: walferry and the native subscription.

A follower is prepared once, stopped; then started and stopped at will. It goes on where it was, so several drain the
same work one after the other. Its slot's name tells when it is at it.
"""

from __future__ import annotations

import servers
import walferry
from bench import cpu
from bench.rig import Rig, Watch


class Follower:
    """What both have in common. `done` is the last id put into the source's table of that name."""

    name: str
    database: str
    slot: str

    def __init__(self, rig: Rig):
        self.rig = rig

    def start(self) -> None: ...
    def stop(self) -> None: ...
    def remove(self) -> None: ...

    def own_cpu(self) -> float:
        """Of its own processes; servers' are theirs."""
        return 0.0

    def more(self) -> dict[str, float]:
        return {}

    def await_active(self, watch: Watch) -> None:
        servers.wait_until(lambda: watch.ask_source(f"SELECT active FROM pg_replication_slots WHERE slot_name = '{self.slot}'"),
                           60, f"{self.name} to begin", 0.005)

    def await_done(self, watch: Watch, done: int, deadline_seconds: float = 1200) -> None:
        servers.wait_until(lambda: watch.ask_target(f"SELECT 1 FROM public.done WHERE id = {done}"), deadline_seconds,
                           f"{self.name} to carry everything", 0.01)

    def stop_confirmed(self) -> None:
        """Stops when the source has forgotten what was carried, so that the next start does not decode it again."""
        wanted = self.rig.written()
        # Something newer makes either confirm what came before it.
        self.rig.execute("INSERT INTO public.done SELECT least(min(id), 0) - 1 FROM public.done")
        sql = ("SELECT confirmed_flush_lsn >= %s::pg_lsn AND restart_lsn >= %s::pg_lsn FROM pg_replication_slots"
               " WHERE slot_name = %s")

        def forgotten() -> bool:
            # Decoding begins anew at a record of the running transactions, of which a checkpoint writes one.
            self.rig.source.execute("postgres", "CHECKPOINT")
            return self.rig.ask(sql, (wanted, wanted, self.slot))

        servers.wait_until(forgotten, 60, f"{self.slot} to be confirmed", 0.1)
        self.stop()
        self.rig.await_free(self.slot)


class Native(Follower):
    """A subscription at its best setting: binary, streaming, in parallel where both servers can."""

    name = database = slot = "native"

    def prepare(self, schema: str) -> None:
        self.rig.target.create_database(self.database)
        self.rig.target.psql(self.database, sql=schema)
        self.rig.publish("native")
        majors = self.rig.source.binaries.major, self.rig.target.binaries.major
        self.streaming = "parallel" if min(majors) >= 16 else "on"
        settings = "binary = true" if min(majors) >= 14 else "binary = false"
        if min(majors) >= 14:
            settings += f", streaming = {self.streaming}"
        with self.rig.target.connect(self.database) as connection, connection.cursor() as cursor:
            cursor.execute(f"CREATE SUBSCRIPTION native CONNECTION '{self.rig.source_address}' PUBLICATION native"
                           f" WITH ({settings})")
        servers.wait_until(lambda: self.rig.target.scalar(
            self.database, "SELECT bool_and(srsubstate = 'r') FROM pg_subscription_rel"), 1200, "the first copy", 0.2)
        self.stop_confirmed()
        self.rig.target.execute(self.database, "ANALYZE")

    def connect_by(self, source_address: str) -> None:
        """Another way to the same source, from the next start."""
        self.rig.target.execute(self.database, f"ALTER SUBSCRIPTION native CONNECTION '{source_address}'")

    def start(self) -> None:
        self.rig.target.execute(self.database, "ALTER SUBSCRIPTION native ENABLE")

    def stop(self) -> None:
        self.rig.target.execute(self.database, "ALTER SUBSCRIPTION native DISABLE")


class Walferry(Follower):
    def __init__(self, rig: Rig, lanes: int = 1):
        super().__init__(rig)
        self.name = "walferry" if lanes == 1 else f"walferry, {lanes} lanes"
        self.database = self.slot = "walferry" if lanes == 1 else f"walferry_{lanes}_lanes"
        self.run_options: tuple[str, ...] = ("--apply-lanes", str(lanes))  # of the next start

    def prepare(self, *options: str) -> None:
        """A whole migration up to following; its slot is made there."""
        self.rig.target.create_database(self.database)
        folder = self.rig.folder / self.database
        folder.mkdir()
        self.daemon = walferry.Daemon(self.rig.source_address, self.rig.address(self.rig.target, self.database), folder,
                                      *options)
        self.daemon.start("--slot", self.slot)
        self.daemon.await_phase("follow", 1200)
        self.stop_confirmed()

    def connect_by(self, source_address: str, target_address: str) -> None:
        """Other ways to the same ends, from the next start."""
        self.daemon.source, self.daemon.target = source_address, target_address

    def start(self) -> None:
        self.daemon.start(*self.run_options)

    def stop(self) -> None:
        self.daemon.terminate(120)

    def remove(self) -> None:
        if hasattr(self, "daemon"):
            self.daemon.remove()

    def own_cpu(self) -> float:
        return cpu.of_process(self.daemon.process.pid) if self.daemon.alive() else 0.0

    def more(self) -> dict[str, float]:
        return {"peak_rss_mib": self.daemon.peak_rss_bytes() / 2**20}
