"""Outbox: stored batches to post, each encoded from the log and compared with its header and its payload's hash.

Used by the L1 process, with its own connections. A wrong batch costs the bond: this is the last check before posting.
"""

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from sequencer.l1.batch import Batch
from sequencer.log.index import epoch_of
from sequencer.log.reader import LogReader
from sequencer.rollup.batcher import BATCHES_FILE, read_stored


class Outbox:
    """A folder's stored batches."""

    def __init__(self, folder: Path) -> None:
        self._batches = folder / BATCHES_FILE
        self._log = folder / "log.sqlite"

    def batches(self, first_id: int) -> Iterator[Batch]:
        """The batches to post, from `first_id` on, in order, each encoded on request. Raises StoreDamaged, LogError."""
        with contextlib.closing(sqlite3.connect(self._log)) as db:
            yield from read_stored(self._batches, LogReader(db), first_id)

    def epoch_of(self, batch_id: int) -> int:
        """The last roll-back that may have determined the content of this batch: its transaction is named by it."""
        with contextlib.closing(sqlite3.connect(self._log)) as db:
            return epoch_of(db, batch_id)
