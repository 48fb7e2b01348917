"""Writes the history's rows in a process of its own: `python -m sequencer.history.beside FILE`.

A row costs several microseconds of Python and SQLite, and at thousands of orders a second these are the sequencer's
lock. A frame is a 4-byte big-endian length and that many bytes of msgpack. In: (`pruned_seq`, Rows); out: text, why
they are not in, or nothing. What is in already is not written twice: a question may be put again to the next process.
"""

import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import IO, Final

import msgspec

from sequencer.history import tables
from sequencer.history.tables import Rows

PREFIX_BYTES: Final = 4
NICENESS: Final = 10  # orders come first
BUSY_S: Final = 5.0  # that another connection may hold the file
STOP_S: Final = 5.0
_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(tuple[int, Rows]).decode


class Writer:
    """The process, as the thread that talks to it sees it. It starts with the first rows."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def is_running(self) -> bool:
        """Whether there is one."""
        return self._process is not None

    @property
    def pid(self) -> int | None:
        """Of the process, if there is one."""
        return None if self._process is None else self._process.pid

    def write(self, rows: Rows, pruned_seq: int) -> None:
        """Has rows written, and waits. Raises OSError, sqlite3.Error: then they may be put again."""
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "sequencer.history.beside", str(self._path)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            _send(process.stdin, _encode((pruned_seq, rows)))
            why = _receive(process.stdout)
        except OSError:
            self.close()
            raise
        if why is None:
            self.close()
            raise OSError("the process that writes the history has ended")
        if why:
            raise sqlite3.OperationalError(why.decode())

    def close(self) -> None:
        """Ends the process, when it has written what it was sent."""
        process, self._process = self._process, None
        if process is None:
            return
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _send(to: IO[bytes], body: bytes) -> None:
    to.write(len(body).to_bytes(PREFIX_BYTES, "big"))
    to.write(body)
    to.flush()


def _receive(from_: IO[bytes]) -> bytes | None:
    """A frame's body; None when the other side has closed."""
    prefix = from_.read(PREFIX_BYTES)
    if len(prefix) < PREFIX_BYTES:
        return None
    size = int.from_bytes(prefix, "big")
    body = from_.read(size)
    return body if len(body) == size else None


def serve(path: Path, read_from: IO[bytes], write_to: IO[bytes]) -> None:
    """Writes what comes until the other side closes. Nothing, once that is gone: the next one may read the file."""
    parent = os.getppid()
    db = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None)
    db.execute("PRAGMA synchronous=NORMAL")
    while (question := _receive(read_from)) is not None:
        pruned_seq, rows = _decode(question)
        why = ""
        try:
            stands = db.execute("SELECT next_seq, next_offset, epoch FROM meta").fetchone()
            if stands is None or stands != (rows.next_seq, rows.offset, rows.epoch):
                with tables.transaction(db):
                    tables.add(db, rows, pruned_seq)
                    if os.getppid() != parent:
                        raise OSError("the sequencer is gone")
        except sqlite3.Error as error:
            why = str(error)
        _send(write_to, why.encode())
    db.close()


if __name__ == "__main__":
    os.nice(NICENESS)
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # of a terminal, for the sequencer, which lets go when it ends
    serve(Path(sys.argv[1]), sys.stdin.buffer, sys.stdout.buffer)
