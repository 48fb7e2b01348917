"""How far a store reached when it was last written, in a file beside it.

SQLite drops what follows a damaged frame of its write-ahead log without a word: a store that has lost its newest rows
looks like an older one. The file is written after each commit and never synced, so that it may be behind the store,
and never ahead of one that is whole.
"""

import contextlib
import logging
import os
from pathlib import Path
from typing import Final

from sequencer.checksums import CHECKSUM_BYTES, row_sum

_HASH_BYTES: Final = 32
_BYTES: Final = 8 + _HASH_BYTES + CHECKSUM_BYTES

logger = logging.getLogger(__name__)


class Head:
    """The file of one store: `count` of its rows, and a hash that stands for the last of them."""

    def __init__(self, store: Path) -> None:
        self.path = store.with_suffix(".head")
        self._file = -1

    def read(self) -> tuple[int, bytes] | None:
        """(count, hash); None when nothing is known."""
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            return None
        count, last = int.from_bytes(data[:8], "big"), data[8 : 8 + _HASH_BYTES]
        if data != _row(count, last):
            logger.error("%s is not what was written: it is made again", self.path.name)
            return None
        return count, last

    def write(self, count: int, last: bytes) -> None:
        """Never raises: an older one says less, and nothing wrong."""
        with contextlib.suppress(OSError):
            if self._file < 0:
                self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
                os.ftruncate(self._file, _BYTES)
            os.pwrite(self._file, _row(count, last), 0)

    def close(self) -> None:
        """Closes the file."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def _row(count: int, last: bytes) -> bytes:
    return count.to_bytes(8, "big") + last + row_sum("head", count, last)
