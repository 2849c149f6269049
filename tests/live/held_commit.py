"""A proxy that holds back one COMMIT, or the answer to it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable

from proxy import Proxy, close
from servers import Server, wait_until


def is_apply_commit(data: bytes) -> bool:
    """Bind of the prepared statement of this name, and not its preparation."""
    return b"\0commit\0" in data and b"COMMIT\0" not in data


def _commit_begins(data: bytes) -> int:
    """Where that Bind begins: its type, its length and the portal's empty name stand before the statement's."""
    return max(data.find(b"\0commit\0") - 5, 0)


def is_sync_alone(data: bytes) -> bool:
    return data == b"S\0\0\0\4"


def is_plain_commit(data: bytes) -> bool:
    return data.startswith(b"Q") and b"COMMIT\0" in data


class HeldCommit(Proxy):
    """The first COMMIT of a session that has sent `session`. `delivered`: it arrives, and its answer does not.

    What follows on that session is held back too; what stands before the apply's COMMIT arrives, though it was sent with
    it. cut() ends the session, release() lets it go on.
    """

    def __init__(self, server: Server, session: bytes, is_commit: Callable[[bytes], bool], delivered: bool = False):
        super().__init__(server)
        self.session = session
        self.is_commit = is_commit
        self.delivered = delivered
        self.held = threading.Event()
        self._first = threading.Lock()  # several sessions may commit at once
        self._held_sockets: tuple[socket.socket, ...] = ()
        self._held_data = b""

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
        close(*self._held_sockets)

    def carry(self, client: socket.socket, server: socket.socket) -> None:
        watched = False
        while data := client.recv(1 << 16):
            watched = watched or self.session in data
            if watched and self.is_commit(data) and self._first.acquire(blocking=False):
                begins = len(data) if self.delivered else _commit_begins(data)
                self._held_sockets, self._held_data = (client, server), data[begins:]
                server.sendall(data[:begins])
                self.held.set()
            elif not self._holds(client):
                server.sendall(data)

    def carry_back(self, server: socket.socket, client: socket.socket) -> None:
        while data := server.recv(1 << 16):
            if not self._holds(client):
                client.sendall(data)

    def _holds(self, client: socket.socket) -> bool:
        return self.held.is_set() and client in self._held_sockets
