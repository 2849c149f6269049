"""A socket in front of the target that holds back the first COMMIT of the apply's own connection."""

from __future__ import annotations

import contextlib
import shutil
import socket
import tempfile
import threading
from pathlib import Path

from servers import Server, wait_until

_APPLY = b"application_name\0walferry apply "
_COMMIT = b"\0commit\0"  # Bind: of the prepared statement of this name
_PREPARE = b"COMMIT\0"   # Parse: its text


class HeldCommit:
    """Use with `with`; `folder` is the host to connect to."""

    def __init__(self, server: Server):
        self.server = server
        self.folder = Path(tempfile.mkdtemp(prefix="wf-held-", dir="/tmp"))
        self.folder.chmod(0o755)
        self.held = threading.Event()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.folder / f".s.PGSQL.{server.port}"))
        (self.folder / f".s.PGSQL.{server.port}").chmod(0o777)
        self._listener.listen()

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
        wait_until(self.held.is_set, 60, "the apply's COMMIT")

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            target = socket.socket(socket.AF_UNIX)
            target.connect(str(Path(self.server.socket_dir) / f".s.PGSQL.{self.server.port}"))
            threading.Thread(target=self._to_target, args=(client, target), daemon=True).start()
            threading.Thread(target=_forward, args=(target, client), daemon=True).start()

    def _to_target(self, client: socket.socket, target: socket.socket) -> None:
        apply = False
        with contextlib.suppress(OSError):
            while data := client.recv(1 << 16):
                apply = apply or _APPLY in data
                if apply and _COMMIT in data and _PREPARE not in data and not self.held.is_set():
                    self.held.set()
                if apply and self.held.is_set():
                    continue  # what follows is held back too, until the client is gone
                target.sendall(data)
        _close(client, target)


def _forward(origin: socket.socket, destination: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := origin.recv(1 << 16):
            destination.sendall(data)
    _close(origin, destination)


def _close(*sockets: socket.socket) -> None:
    for each in sockets:
        with contextlib.suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)
        each.close()
