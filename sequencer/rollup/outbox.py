"""Outbox: stored batches to post, verified against their checksums and the log.

Used on the L1 thread, with connections of its own. A wrong batch costs the bond, so it is looked at here, last.
"""

import contextlib
import sqlite3
from pathlib import Path

from sequencer.checksums import StoreDamaged
from sequencer.l1.batch import Batch
from sequencer.log.sqlite import LogReader, epoch_of
from sequencer.rollup.batcher import BATCHES_FILE, as_logged, read_stored, start_of


class Outbox:
    """Of one folder."""

    def __init__(self, folder: Path) -> None:
        self._batches = folder / BATCHES_FILE
        self._log = folder / "log.sqlite"

    def batches(self, first_id: int) -> list[Batch]:
        """Those that may go, from `first_id` on, in order. Raises StoreDamaged, LogError."""
        out = []
        for stored in read_stored(self._batches, first_id):
            self._compare(stored)
            out.append(stored)
        return out

    def epoch_of(self, batch_id: int) -> int:
        """The last roll-back that this batch can owe its content to: its transaction is named by it."""
        with contextlib.closing(sqlite3.connect(self._log)) as db:
            return epoch_of(db, batch_id)

    def _compare(self, stored: Batch) -> None:
        with (
            contextlib.closing(sqlite3.connect(self._log)) as log_db,
            contextlib.closing(sqlite3.connect(self._batches)) as db,
        ):
            start, end = start_of(db, stored)
            if as_logged(LogReader(log_db), stored.batch_id, start, end) != stored:
                what = f"batch {stored.batch_id} is not what the log gives: it is not posted"
                raise StoreDamaged(BATCHES_FILE, what, "run fairstrike check on the folder")
