"""Queries on their way to nodes, and those that wait for a node to ask.

A query changes nothing, so one whose connection is lost is asked again elsewhere. What a client reads is never older
than what it was told before (`Memory`): a node is asked only when it has every record below that.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from sequencer.api import ipc
from sequencer.api.link import Link
from sequencer.api.links import Links

LEADER_ONLY: Final = frozenset({"outcome"})  # nobody else knows what is in the leader's queue
LEADER_FIRST: Final = frozenset(
    {"status", "withdrawal", "system_info"}
)  # about the node, or from its own stores


class _Asked(NamedTuple):
    link: Link
    query: ipc.Query
    floor: int


class Questions:
    """Queries that have no answer yet."""

    def __init__(self, links: Links) -> None:
        self._links = links
        self._sent: dict[int, _Asked] = {}
        self._waiting: dict[int, tuple[ipc.Query, int]] = {}

    def __len__(self) -> int:
        """Queries that wait for a node to ask."""
        return len(self._waiting)

    def ask(self, query: ipc.Query, floor: int) -> None:
        """Asks a node that shows the records below `floor`, now or when there is one."""
        link = self._whom(query.method, floor)
        if link is not None and link.send(query):
            self._sent[query.rid] = _Asked(link, query, floor)
        else:
            self._waiting[query.rid] = query, floor

    def answered(self, rid: int) -> None:
        """An answer has come, or is not waited for any more."""
        self._sent.pop(rid, None)
        self._waiting.pop(rid, None)

    def waits(self, rid: int) -> bool:
        """Whether nobody can be asked it now."""
        return rid in self._waiting

    def lost(self, link: Link) -> None:
        """What the node had is asked again."""
        for one in [one for one in self._sent.values() if one.link is link]:
            del self._sent[one.query.rid]
            self._waiting[one.query.rid] = one.query, one.floor

    def again(self) -> None:
        """Asks what waits, where there is somebody now."""
        if not self._waiting or not self._links.is_ready:
            return
        waiting, self._waiting = self._waiting, {}
        for query, floor in waiting.values():
            self.ask(query, floor)

    def _whom(self, method: str, floor: int) -> Link | None:
        if method in LEADER_ONLY:
            return self._links.leader
        return self._links.any_ready() if method in LEADER_FIRST else self._links.reader(floor)
