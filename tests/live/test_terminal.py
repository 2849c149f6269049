"""What a person sees: `run` and `status --watch` in a terminal of 30 lines by 100 columns, read as its screen."""

from __future__ import annotations

import codecs
import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import termios
import threading

import pytest

import walferry
from servers import SLOWNESS, wait_until

pytestmark = pytest.mark.limit(180)

LINES, COLUMNS = 30, 100
SEQUENCE = re.compile(r"\033\[(\d*)([A-Za-z])")
CUT_SEQUENCE = re.compile(r"(\033(\[\d*)?)?$")


class Terminal:
    """A program under a pseudo-terminal, and the lines that it has left on the screen; older ones are kept above it.

    Understands what walferry sends, and nothing else: cursor up and home, erase to the end, colours, CR and LF.
    """

    def __init__(self, *arguments: str):
        self.lines, self.row, self.column = [""], 0, 0
        self.unknown: list[str] = []
        self.drawn = 0  # times that something was erased, to be drawn anew
        self.lock = threading.Lock()
        master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
        environment = walferry.environment(TERM="xterm")
        del environment["NO_COLOR"]
        self.process = subprocess.Popen(["setpriv", "--pdeathsig=KILL", str(walferry.binary()), *map(str, arguments)],
                                        env=environment, stdin=slave, stdout=slave, stderr=slave, start_new_session=True)
        os.close(slave)
        self.reader = threading.Thread(target=self._read, args=(master,), daemon=True)
        self.reader.start()

    def _read(self, master: int) -> None:
        decoder, rest = codecs.getincrementaldecoder("utf-8")(), ""
        while True:
            try:
                data = os.read(master, 65536)
            except OSError:  # the last program of the terminal has ended
                data = b""
            if not data:
                os.close(master)
                return
            text = rest + decoder.decode(data)
            rest = CUT_SEQUENCE.search(text)[0]  # waits for its other half
            with self.lock:
                self._show(text.removesuffix(rest))

    def _show(self, text: str) -> None:
        position = 0
        while position < len(text):
            if found := SEQUENCE.match(text, position):
                self._obey(found[1], found[2])
                position = found.end()
                continue
            character = text[position]
            position += 1
            if character == "\n":
                self.row += 1
                if self.row == len(self.lines):
                    self.lines.append("")
            elif character == "\r":
                self.column = 0
            elif character < " ":
                self.unknown.append(repr(character))
            else:
                line = self.lines[self.row].ljust(self.column)
                self.lines[self.row] = line[:self.column] + character + line[self.column + 1:]
                self.column += 1

    def _obey(self, number: str, letter: str) -> None:
        top = max(len(self.lines) - LINES, 0)
        if letter == "A":
            self.row = max(self.row - int(number or 1), top)
        elif letter == "H":
            self.row, self.column = top, 0
        elif letter == "J" and number in ("", "0"):
            self.lines[self.row:] = [self.lines[self.row][:self.column]]
            self.drawn += 1
        elif letter != "m":
            self.unknown.append(f"ESC[{number}{letter}")

    def text(self) -> str:
        with self.lock:
            return "\n".join(line.rstrip() for line in self.lines)

    def await_text(self, pattern: str, seconds: float = 60) -> str:
        def found():
            shown = self.text()
            return shown if re.search(pattern, shown, re.MULTILINE) else None

        try:
            return wait_until(found, seconds, f"{pattern} on the screen")
        except TimeoutError as error:
            raise AssertionError(f"{error}:\n{self.text()}") from None

    def end(self, signal_number: int) -> int:
        self.process.send_signal(signal_number)
        code = self.process.wait(30 * SLOWNESS)
        self.reader.join(10)
        assert self.unknown == []
        assert all(len(line.rstrip()) <= COLUMNS for line in self.text().splitlines()
                   if not re.match(r"\d{4}-\d\d-\d\d ", line)), self.text()
        return code


def test_the_screen_shows_one_page_below_the_log_and_watch_redraws_its_own(migrations):
    migration = migrations("screen")
    migration.load(sql="CREATE TABLE public.t (id int PRIMARY KEY, n int);"
                       "INSERT INTO public.t SELECT g, 0 FROM generate_series(1, 1000) g;")
    daemon = migration.daemon
    run = Terminal("run", "--source", daemon.source, "--target", daemon.target, "--state-dir", daemon.state_dir)
    shown = run.await_text(r"^phase\s+follow$")
    assert len(re.findall(r"^phase ", shown, re.MULTILINE)) == 1, shown
    assert len(re.findall(r"^lag ", shown, re.MULTILINE)) == 1, shown
    page = shown.index("phase ")
    assert not re.search(r"^\d{4}-\d\d-\d\d .* (info|warn|error) ", shown[page:], re.MULTILINE), shown
    assert re.search(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} info  ", shown[:page], re.MULTILINE), shown
    assert "1.0k rows" in shown or "1,000 rows" in shown or "1000 rows" in shown, shown

    watch = Terminal("status", "--state-dir", daemon.state_dir, "--watch")
    assert watch.await_text(r"^phase\s+follow$").startswith("phase")
    migration.source.execute(migration.database, "UPDATE public.t SET n = 1")
    # Both are redrawn, in place.
    for screen in watch, run:
        shown = screen.await_text(r"1\.0k updates|1,000 updates|1000 updates")
        assert len(re.findall(r"^phase ", shown, re.MULTILINE)) == 1, shown
        assert screen.drawn > 1
    assert watch.end(signal.SIGINT) == walferry.OK
    # A log line goes above the page.
    assert run.end(signal.SIGINT) == walferry.OK
    assert not re.search(r"^phase ", run.text(), re.MULTILINE), run.text()
