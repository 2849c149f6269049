"""A socket in front of a server that holds back one COMMIT, or the answer to it."""

from __future__ import annotations

import contextlib
import shutil
import socket
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

from servers import Server, wait_until


def is_apply_commit(data: bytes) -> bool:
    """Bind of the prepared statement of this name, and not its preparation."""
    return b"\0commit\0" in data and b"COMMIT\0" not in data


def is_sync_alone(data: bytes) -> bool:
    return data == b"S\0\0\0\4"


def is_plain_commit(data: bytes) -> bool:
    return data.startswith(b"Q") and b"COMMIT\0" in data


class HeldCommit:
    """The first COMMIT of a session that has sent `session`. `delivered`: it arrives, and its answer does not.

    Use with `with`; what follows on that session is held back too. cut() ends the session, release() lets it go on.
    """

    def __init__(self, server: Server, session: bytes, is_commit: Callable[[bytes], bool], delivered: bool = False):
        self.server = server
        self.session = session
        self.is_commit = is_commit
        self.delivered = delivered
        self.folder = Path(tempfile.mkdtemp(prefix="wf-held-", dir="/tmp"))
        self.folder.chmod(0o755)
        self.held = threading.Event()
        self.refuses = False  # further sessions
        self._held_sockets: tuple[socket.socket, ...] = ()
        self._held_data = b""
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.folder / f".s.PGSQL.{server.port}"))
        (self.folder / f".s.PGSQL.{server.port}").chmod(0o777)
        self._listener.listen(16)

    def __enter__(self) -> HeldCommit:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *exception) -> None:
        # shutdown() wakes the thread that accepts; close() alone would not.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def dsn(self, database: str) -> str:
        return self.server.dsn(database).replace(f"host={self.server.socket_dir}", f"host={self.folder}")

    def await_held(self) -> None:
        wait_until(self.held.is_set, 60, "the COMMIT")

    def release(self) -> None:
        """What was held arrives: only where nothing followed it."""
        _, server = self._held_sockets
        self._held_sockets = ()
        server.sendall(self._held_data)

    def cut(self, last_word: bytes = b"") -> None:
        """Ends the held session, towards both sides; the client gets `last_word` before that."""
        self._held_sockets[0].sendall(last_word)
        _close(*self._held_sockets)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self.refuses:
                client.close()
                continue
            server = socket.socket(socket.AF_UNIX)
            server.connect(str(Path(self.server.socket_dir) / f".s.PGSQL.{self.server.port}"))
            threading.Thread(target=self._to_server, args=(client, server), daemon=True).start()
            threading.Thread(target=self._to_client, args=(server, client), daemon=True).start()

    def _to_server(self, client: socket.socket, server: socket.socket) -> None:
        watched = False
        with contextlib.suppress(OSError):
            while data := client.recv(1 << 16):
                watched = watched or self.session in data
                if watched and not self.held.is_set() and self.is_commit(data):
                    self._held_sockets, self._held_data = (client, server), data
                    self.held.set()
                    if self.delivered:
                        server.sendall(data)
                    continue
                if self._holds(client):
                    continue
                server.sendall(data)
        _close(client, server)

    def _to_client(self, server: socket.socket, client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(1 << 16):
                if not self._holds(client):
                    client.sendall(data)
        _close(server, client)

    def _holds(self, client: socket.socket) -> bool:
        return self.held.is_set() and client in self._held_sockets


def _close(*sockets: socket.socket) -> None:
    for each in sockets:
        with contextlib.suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)
        each.close()
