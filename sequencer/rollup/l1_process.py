"""The process that talks to L1 for the sequencer: `python -m sequencer.rollup.l1_process`, which the sequencer starts.

Commands come in through stdin, the key with the first of them, reports go out through stdout (l1_messages.py). When
stdin closes the sequencer is gone, and this process ends at once, wherever it is: the transaction manager's store is
made for that, and until it is closed nobody else can open it. Signals of a terminal or a service manager are the
sequencer's to handle.
"""

import logging
import os
import signal
import sys
import threading
import traceback
from types import FrameType
from typing import BinaryIO, Final, cast

from sequencer.l1.transport import without_secrets
from sequencer.rollup.l1_messages import (
    PREFIX_BYTES,
    Begin,
    Command,
    Failed,
    LineBroken,
    Logged,
    Now,
    Report,
    Stop,
    frame,
    size_of,
    to_command,
)
from sequencer.rollup.l1_worker import L1Worker

ORPHANED: Final = 3  # exit statuses
FAILED: Final = 4
LOGGED_CHARS_MAX: Final = 20_000

logger = logging.getLogger(__name__)


def read_command(line: BinaryIO) -> Command | None:
    """The next command; None when the sequencer has closed the line. Raises LineBroken."""
    prefix = _read(line, PREFIX_BYTES)
    body = None if prefix is None else _read(line, size_of(prefix))
    return None if body is None else to_command(body)


def _read(line: BinaryIO, size: int) -> bytes | None:
    """So many bytes; None when the line ends before."""
    got = b""
    while len(got) < size:
        more = line.read(size - len(got))
        if not more:
            return None
        got += more
    return got


class Reports:
    """Writes reports, from any thread. When nobody reads them any more the process ends."""

    def __init__(self, line: BinaryIO) -> None:
        self._line = line
        self._lock = threading.Lock()

    def send(self, report: Report) -> None:
        """Blocks while the sequencer does not read."""
        framed = frame(report)
        with self._lock:
            try:
                self._line.write(framed)
                self._line.flush()
            except OSError:
                os._exit(ORPHANED)


class _ToSequencer(logging.Handler):
    """Log records as reports."""

    def __init__(self, reports: Reports) -> None:
        super().__init__()
        self._reports = reports

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = self.format(record)[:LOGGED_CHARS_MAX]
            self._reports.send(Logged(record.levelno, record.name, text))
        except Exception:  # noqa: BLE001  # as logging does
            self.handleError(record)


def serve(read_from: BinaryIO, write_to: BinaryIO) -> int:
    """Works for the sequencer at the other end; the exit status."""
    reports = Reports(write_to)
    begin = read_command(read_from)
    if begin is None:
        return ORPHANED
    if not isinstance(begin, Begin):
        raise LineBroken(f"the first command is a {type(begin).__name__}, not Begin")
    handler = _ToSequencer(reports)
    handler.setFormatter(logging.Formatter("%(message)s"))  # the rest the sequencer adds
    logging.basicConfig(level=begin.log_level, handlers=[handler])
    worker = L1Worker(begin, reports.send)
    threading.Thread(target=_listen, args=(read_from, worker), name="commands", daemon=True).start()
    try:
        worker.run()
    except Exception as error:  # noqa: BLE001  # whatever it is: the sequencer tells of it, and starts another
        text = without_secrets(repr(error), begin.url)
        reports.send(Failed(text, without_secrets(traceback.format_exc(), begin.url)))
        return FAILED
    return 0


def _listen(line: BinaryIO, worker: L1Worker) -> None:
    """Hands commands over, until the sequencer is gone."""
    try:
        while (command := read_command(line)) is not None:
            if isinstance(command, Now):
                worker.tell(command)
            elif isinstance(command, Stop):
                worker.end()
    finally:
        os._exit(ORPHANED)


def _let_the_sequencer_handle(_number: int, _frame: FrameType | None) -> None:
    """A handler, and not SIG_IGN, which what is started here would inherit."""


def main() -> None:
    """Runs until the sequencer says so, or is gone."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _let_the_sequencer_handle)
    # Nothing else may write between the reports, and nothing that is started here may hold the line open.
    read_from, write_to = os.fdopen(os.dup(0), "rb", buffering=0), os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    import eth_account  # noqa: F401  # takes as long as the sequencer's own start: meanwhile
    import web3  # noqa: F401  # likewise

    sys.exit(serve(cast(BinaryIO, read_from), write_to))


if __name__ == "__main__":
    main()
