"""Records that were submitted and have no answer yet: kept until they have one, and sent again to the next leader.

A signed record is applied once, and one that comes again is answered as the first time. So a lost connection costs its
records time only: all that are unanswered go to the next leader (or to the same one, after its restart) in the order in
which they came, before anything newer. Answers count only from the connection to which a record was sent last.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final, TypeAlias

from sequencer.api import ipc
from sequencer.api.failures import not_ready, unknown
from sequencer.api.limits import Limits
from sequencer.errors import REFUSAL_BASE, Code
from sequencer.protocol.constants import Reason

logger = logging.getLogger(__name__)

Item: TypeAlias = tuple[int, bytes, bytes, str]
"""Request id, record, signer, label."""

_NOT_LEADER: Final = b'{"code":%d,' % Code.NOT_LEADER
_NONCES: Final = tuple(
    b'{"code":%d,' % (REFUSAL_BASE + reason) for reason in (Reason.NONCE_USED, Reason.NONCE_WINDOW)
)


class Flights:
    """Unanswered records, in the order in which they were sent. `connection`: to which they were sent last.

    While nobody leads (`is_open` False) they wait, at most `Limits.retry_records` and `retry_bytes` of them.
    `look_up` gets (request id, record, refusal) of a record whose nonce is used when it comes again: by itself or not.
    """

    def __init__(self, limits: Limits, look_up: Callable[[int, bytes, bytes], None]) -> None:
        self._limits = limits
        self._look_up = look_up
        self.connection: ipc.Connection | None = None
        self.is_open = False
        self._items: dict[int, Item] = {}
        self._bytes = 0  # of those that wait; 0 while somebody leads
        self._unsent: set[int] = set()  # never written to `connection`
        self._refused: dict[int, bytes] = {}  # by `connection`, because it does not lead
        self._uncertain: set[int] = set()  # a connection was lost that had them

    def __len__(self) -> int:
        """Number of unanswered records."""
        return len(self._items)

    @property
    def has_room(self) -> bool:
        """Whether another record may come: somebody leads, or few enough wait."""
        if self.is_open:
            return True
        limits = self._limits
        if not limits.retry_s:
            return False
        return len(self._items) < limits.retry_records and self._bytes < limits.retry_bytes

    def submit(self, items: list[Item]) -> None:
        """Sends records, or keeps them until somebody leads."""
        for item in items:
            self._items[item[0]] = item
        if not self.is_open:
            self._unsent.update(item[0] for item in items)
            self._bytes += sum(len(item[1]) for item in items)
        elif self.connection is None or not self.connection.send(ipc.Submit(items)):
            self._unsent.update(item[0] for item in items)

    def done(self, rid: int) -> None:
        """A record has been answered, whatever the answer is."""
        item = self._items.pop(rid, None)
        if self._uncertain or self._unsent or self._refused:
            self._uncertain.discard(rid)
            self._unsent.discard(rid)
            self._refused.pop(rid, None)
        if not self.is_open and item is not None:
            self._bytes -= len(item[1])

    def keeps(self, rid: int, body: bytes) -> bool:
        """Whether a refusal (its JSON) is not the answer yet."""
        item = self._items.get(rid)
        if item is None or not self._limits.retry_s:
            return False
        if body.startswith(_NOT_LEADER):
            self._refused[rid] = body
            return True
        if rid in self._uncertain and body.startswith(_NONCES):
            self.done(rid)
            self._look_up(rid, item[1], body)
            return True
        return False

    def is_refused(self, rid: int) -> bool:
        """Whether it waits for another leader, because the last does not lead."""
        return rid in self._refused

    def lead(self, connection: ipc.Connection) -> None:
        """Records go to `connection` from now on, first those that are unanswered."""
        if connection is self.connection and self._refused:
            # What it still has, and what it has refused, would come in another order.
            connection.abort("the sequencer leads again: what it has refused goes over a new connection")
            return
        again = [one for rid, one in self._items.items() if rid in self._unsent]
        if connection is not self.connection:
            self._note_uncertain()
            again = list(self._items.values())
            if again:
                logger.info("%d records are sent again", len(again))
        self.connection, self.is_open, self._bytes = connection, True, 0
        self._unsent.clear()
        self._refused.clear()
        for part in ipc.split_items(again, 1):
            if not connection.send(ipc.Submit(part)):
                self._unsent.update(item[0] for item in part)

    def halt(self) -> None:
        """Nobody leads now."""
        self.is_open = False
        self._bytes = sum(len(item[1]) for item in self._items.values())

    def lost(self, connection: ipc.Connection) -> list[int]:
        """`connection` has gone. The request ids of those, the newest, that are too many to be kept."""
        if connection is not self.connection:
            return []
        self._note_uncertain()
        self.connection = None
        self._unsent = set(self._items)
        limits, size = self._limits, 0
        if not limits.retry_s:
            return list(self._items)
        for kept, item in enumerate(self._items.values()):
            size += len(item[1])
            if kept >= limits.retry_records or size > limits.retry_bytes:
                return list(self._items)[kept:]
        return []

    def error_of(self, rid: int, why_no_leader: str) -> bytes:
        """The error object of a record that is given up. `why_no_leader`: empty where no node is there."""
        if rid in self._uncertain:
            return unknown("the connection to the sequencer was lost").body()
        return self._refused.get(rid) or not_ready(why_no_leader).body()

    def _note_uncertain(self) -> None:
        """Those that `connection` has, and has not refused, may have been applied."""
        self._uncertain.update(
            rid for rid in self._items if rid not in self._unsent and rid not in self._refused
        )
