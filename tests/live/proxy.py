"""Proxies on Unix sockets in front of a server: what passes can be looked at, changed, or held back."""

from __future__ import annotations

import contextlib
import shutil
import socket
import tempfile
import threading
from pathlib import Path

from servers import Server


class Proxy:
    """Passes every byte on in both directions. Use with `with`; at its end every connection ends."""

    def __init__(self, server: Server):
        self.server = server
        self.folder = Path(tempfile.mkdtemp(prefix="wf-proxy-", dir="/tmp"))
        self.folder.chmod(0o755)
        self.refuses = False  # further connections
        self._sockets: list[socket.socket] = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.folder / f".s.PGSQL.{server.port}"))
        (self.folder / f".s.PGSQL.{server.port}").chmod(0o777)
        self._listener.listen(16)

    def __enter__(self):
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *exception) -> None:
        # shutdown() wakes the thread that accepts; close() alone would not.
        close(self._listener, *self._sockets)
        shutil.rmtree(self.folder, ignore_errors=True)

    def dsn(self, database: str) -> str:
        return self.server.dsn(database).replace(f"host={self.server.socket_dir}", f"host={self.folder}")

    def carry(self, client: socket.socket, server: socket.socket) -> None:
        """From the client to the server, until one of them ends."""
        while data := client.recv(1 << 16):
            server.sendall(data)

    def carry_back(self, server: socket.socket, client: socket.socket) -> None:
        while data := server.recv(1 << 16):
            client.sendall(data)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                if self.refuses:
                    client.close()
                    continue
                server = socket.socket(socket.AF_UNIX)
                try:
                    server.connect(str(Path(self.server.socket_dir) / f".s.PGSQL.{self.server.port}"))
                except OSError:  # it is down
                    close(client, server)
                    continue
                self._sockets += [client, server]
                for carry, ends in (self.carry, (client, server)), (self.carry_back, (server, client)):
                    threading.Thread(target=_until_it_ends, args=(carry, *ends), daemon=True).start()


def _until_it_ends(carry, *ends: socket.socket) -> None:
    with contextlib.suppress(OSError):
        carry(*ends)
    close(*ends)


def close(*sockets: socket.socket) -> None:
    for each in sockets:
        with contextlib.suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)
        each.close()


class SilencedProxy(Proxy):
    """silence(): from then on nothing passes on the connections there are, and nobody ends them, as behind a firewall that
    forgot them. New ones are served."""

    def __init__(self, server: Server):
        super().__init__(server)
        self._silenced: set[socket.socket] = set()
        self._over = threading.Event()

    def __exit__(self, *exception) -> None:
        self._over.set()
        super().__exit__(*exception)

    def silence(self) -> None:
        self._silenced = set(self._sockets)

    def carry(self, client: socket.socket, server: socket.socket) -> None:
        self._pass_on(client, server)

    def carry_back(self, server: socket.socket, client: socket.socket) -> None:
        self._pass_on(server, client)

    def _pass_on(self, giver: socket.socket, taker: socket.socket) -> None:
        while True:
            data = giver.recv(1 << 16)
            if giver in self._silenced:
                self._over.wait()
            if not data:
                return
            taker.sendall(data)
