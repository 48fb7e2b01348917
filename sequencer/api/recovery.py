"""The way of records from the clients to the link: their signers are found, on all cores, and their order is kept.

What one turn of the loop has gathered is a batch. A few records, or those of known keys (keyring.py), are looked at at
once; more go to threads, in parts, and the loop goes on reading meanwhile. The threads hold Python's lock for
microseconds only. Batches, and the queries between them, leave in the order in which they came. While the threads have
enough to do the next batch grows, so that what is verified together, handed over, sent and read is more at a time the
more there is.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import queue
import threading
from collections import deque
from collections.abc import Callable
from typing import Final, TypeAlias

from sequencer.api import ipc
from sequencer.keyring import KeyRing, hints_of

AT_ONCE: Final = (
    64  # records that the loop itself looks at when nothing is before them: a third of a millisecond
)
UNKNOWN_AT_ONCE: Final = 4  # as many of them may be of unknown keys, which take as long as ten of known ones
PART_MIN: Final = 64  # records of a batch that a thread takes
PART_MAX: Final = 256
PARTS_A_THREAD: Final = 2  # handed over: one that it works on, one to go on with
SWITCH_S: Final = 0.0005  # a thread that comes back with signers waits so long for the lock, at most

logger = logging.getLogger(__name__)

Record: TypeAlias = tuple[int, bytes, str]
"""Request id, record, label."""


def cores() -> int:
    """That this process may use."""
    return len(os.sched_getaffinity(0))


class _Batch:
    """Records, the signers that are known, and in how many parts the others are under way."""

    __slots__ = ("left", "records", "signers")

    def __init__(self, records: list[Record]) -> None:
        self.records = records
        self.signers: list[bytes | None] = [None] * len(records)
        self.left = 0


_Part: TypeAlias = tuple[_Batch, int, list[bytes], list[bytes], bytes]
"""Of a batch from a place on: records, hints, domain."""


class Recovery:
    """`send` gets `Submit` frames and queries, in their order; False when there is no connection.

    `refuse` gets a record that no key can have signed, `lose` the request id of one that was not sent.
    """

    def __init__(
        self,
        send: Callable[[ipc.Message], bool],
        refuse: Callable[[int, bytes], None],
        lose: Callable[[int], None],
        threads: int = 0,
    ) -> None:
        self.domain = b""
        self._ring = KeyRing()
        self._send = send
        self._refuse = refuse
        self._lose = lose
        self._count = threads or cores()
        self._threads: list[threading.Thread] = []  # none before there is something for them
        self._parts: queue.SimpleQueue[_Part | None] = queue.SimpleQueue()
        self._under_way = 0  # parts
        self._loop = asyncio.get_running_loop()
        self._gathered: list[Record] = []
        self._line: deque[_Batch | ipc.Query] = deque()

    def submit(self, rid: int, raw: bytes, label: str) -> None:
        """Takes a record; it leaves at the end of this turn of the loop, or later."""
        if not self._gathered:
            self._loop.call_soon(self._go)
        self._gathered.append((rid, raw, label))

    def query(self, query: ipc.Query) -> bool:
        """Sends a query behind the records before it; False when there is no connection."""
        self._enqueue()
        if not self._line:
            return self._send(query)
        self._line.append(query)
        return True

    def clear(self) -> None:
        """The connection is lost: what has not left is lost, too."""
        self._enqueue()
        line, self._line = self._line, deque()
        for one in line:
            if isinstance(one, _Batch):
                for rid, _, _ in one.records:
                    self._lose(rid)

    def close(self) -> None:
        """Ends the threads."""
        for _ in self._threads:
            self._parts.put(None)
        for thread in self._threads:
            thread.join()
        self._threads = []

    def _go(self) -> None:
        if self._under_way < self._count * PARTS_A_THREAD:
            self._enqueue()

    def _enqueue(self) -> None:
        """Makes a batch of what has been gathered."""
        records, self._gathered = self._gathered, []
        if not records:
            return
        batch = _Batch(records)
        raws = [raw for _, raw, _ in records]
        is_first = not self._line
        self._line.append(batch)
        hints = hints_of(raws)
        if is_first and len(records) <= AT_ONCE and self._ring.unknown(hints) <= UNKNOWN_AT_ONCE:
            batch.signers = self._ring.signers(raws, self.domain, hints)
            self._drain()
            return
        size = min(max(PART_MIN, -(-len(raws) // self._count)), PART_MAX)
        for start in range(0, len(raws), size):
            self._hand_over(batch, start, raws[start : start + size], hints[start : start + size])

    def _hand_over(self, batch: _Batch, start: int, raws: list[bytes], hints: list[bytes]) -> None:
        if not self._threads:
            for number in range(self._count):
                thread = threading.Thread(target=self._work, name=f"recovery-{number}", daemon=True)
                self._threads.append(thread)
                thread.start()
        batch.left += 1
        self._under_way += 1
        self._parts.put((batch, start, raws, hints, self.domain))

    def _work(self) -> None:
        """On a thread of its own."""
        while (part := self._parts.get()) is not None:
            batch, start, raws, hints, domain = part
            found: list[bytes | None] | Exception
            try:
                found = self._ring.signers(raws, domain, hints)
            except Exception as error:  # noqa: BLE001  # nobody else would hear of it, and all would wait
                found = error
            with contextlib.suppress(RuntimeError):  # the loop is gone
                self._loop.call_soon_threadsafe(self._recovered, batch, start, found)

    def _recovered(self, batch: _Batch, start: int, found: list[bytes | None] | Exception) -> None:
        """On the loop: a part is back."""
        self._under_way -= 1
        batch.left -= 1
        if isinstance(found, Exception):
            logger.critical("signers could not be recovered: %s", found, exc_info=found)
            for rid, _, _ in batch.records:
                self._lose(rid)
            batch.records = []
        else:
            batch.signers[start : start + len(found)] = found
        self._drain()
        self._go()

    def _drain(self) -> None:
        """Sends what waits for nothing before it any more."""
        line = self._line
        while line:
            one = line[0]
            if isinstance(one, _Batch):
                if one.left:
                    return
                line.popleft()
                self._forward(one)
            else:
                line.popleft()
                self._send(one)

    def _forward(self, batch: _Batch) -> None:
        items: list[tuple[int, bytes, bytes, str]] = []
        for (rid, raw, label), signer in zip(batch.records, batch.signers, strict=False):
            if signer is None:
                self._refuse(rid, raw)
            else:
                items.append((rid, raw, signer, label))
        for part in ipc.split_items(items, 1):
            if not self._send(ipc.Submit(part)):
                for rid, *_ in part:  # never written: nothing was accepted
                    self._lose(rid)
