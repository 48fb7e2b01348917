"""A gateway's links to all nodes: which of them leads, which answers queries, and which tells events.

Orders go to the node that says that it leads, of several to the one with the highest term. Queries go to nodes that are
level with the leader (followers, standbys), else to the leader, and while there is none to whoever is connected. Events
come from one node at a time.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Iterator, Sequence
from typing import Final, Protocol

from sequencer.api import ipc
from sequencer.api import link as one_link
from sequencer.api.link import Link, LinkSettings

# A leader of a lower term than that of one heard of so lately is a leader of the past.
TERM_KEPT_S: Final = 60.0
# A follower has been level for so long before events come from it instead of the leader.
STEADY_S: Final = 5.0

logger = logging.getLogger(__name__)


class Handler(Protocol):
    """What a gateway does with them."""

    async def introduce(self, link: Link) -> None:
        """Makes sure that a node is of this exchange; what this raises ends the connection."""

    def received(self, link: Link, message: ipc.Message) -> None:
        """A node's message."""

    def lost(self, link: Link, connection: ipc.Connection) -> None:
        """A node's connection has gone; another leads by now, if one does."""

    def on_leader(self, leader: Link | None) -> None:
        """Orders go to `leader` from now on."""

    def on_source(self, before: Link | None, source: Link | None) -> None:
        """Events come from `source` from now on."""

    def on_change(self) -> None:
        """What a node can be asked may have changed."""


class Links:
    """Chooses among the nodes at `sequencers`, one of which leads, and `followers`, which never do."""

    def __init__(
        self,
        handler: Handler,
        sequencers: Sequence[str],
        followers: Sequence[str],
        settings: LinkSettings,
        rids: Iterator[int],
    ) -> None:
        self._handler = handler
        self.all = [Link(one, self, rids, settings, False) for one in dict.fromkeys(sequencers)]
        self.all += [Link(one, self, rids, settings, True) for one in dict.fromkeys(followers)]
        self.leader: Link | None = None
        self.source: Link | None = None
        self._term = 0
        self._term_at = float("-inf")
        self._turn = itertools.count()
        self._loop = asyncio.get_running_loop()

    async def run(self) -> None:
        """Keeps all connections, for ever."""
        async with asyncio.TaskGroup() as group:
            for link in self.all:
                group.create_task(link.run())

    @property
    def is_ready(self) -> bool:
        """Whether a node can be asked."""
        return any(link.is_ready for link in self.all)

    @property
    def is_paused(self) -> bool:
        """Whether the leader reads more slowly than is written."""
        leader = self.leader
        return leader is not None and leader.connection is not None and leader.connection.paused

    def reader(self, floor: int) -> Link | None:
        """Who is asked for what must show the records below `floor`; None: nobody can be now."""
        level = [link for link in self.all if link is not self.leader and link.seq >= floor and link.is_level]
        if level:
            return level[next(self._turn) % len(level)]
        if self.leader is not None:
            return self.leader
        return next((link for link in self.all if link.is_ready and link.seq >= floor), None)

    def any_ready(self) -> Link | None:
        """The leader, or else a node that can be asked."""
        return self.leader or next((link for link in self.all if link.is_ready), None)

    def health(self) -> tuple[bool, str]:
        """Whether orders are taken, and why not."""
        leader = self.leader
        if leader is None or leader.connection is None or leader.health is None:
            return False, self.why_no_leader() or "the sequencer is away"
        silent_s = leader.connection.silent_s
        if silent_s > one_link.SHOWN_SILENT_S:
            return False, f"the sequencer has been silent for {silent_s:.0f} s"
        return leader.health.accepts_orders, leader.health.reason

    def why_no_leader(self) -> str:
        """Why orders go nowhere, by a node that is there; empty: none is."""
        one = next((link for link in self.all if link.is_ready and not link.is_follower), None)
        return "" if one is None or one.health is None else one.health.reason or "no sequencer leads"

    def status(self) -> dict[str, object]:
        """Of the nodes, for /health."""
        health = None if self.leader is None else self.leader.health
        return {
            "nodes": len(self.all),
            "nodes_connected": sum(link.is_ready for link in self.all),
            "nodes_level": sum(link.is_level for link in self.all),
            "term": 0 if health is None else health.term,
            "seq": 0 if self.leader is None else self.leader.seq,
        }

    def deny(self, link: Link) -> None:
        """It has refused records because it does not lead."""
        link.is_denied = True
        self._choose()

    # --- what links report ------------------------------------------------------------------------

    async def introduce(self, link: Link) -> None:
        """A new connection."""
        await self._handler.introduce(link)

    def received(self, link: Link, message: ipc.Message) -> None:
        """A node's message."""
        self._handler.received(link, message)

    def heard(self, link: Link) -> None:
        """A node has said how it is."""
        self._choose()
        self._handler.on_change()

    def lost(self, link: Link, connection: ipc.Connection, reason: str) -> None:
        """A connection has gone."""
        logger.warning("the connection to the sequencer at %s was lost: %s", link.address, reason)
        if link is self.leader:
            self.leader = None
            self._handler.on_leader(None)
        self._handler.lost(link, connection)
        self._choose()
        self._handler.on_change()

    def _choose(self) -> None:
        leader = self._best()
        if leader is not self.leader:
            self.leader = leader
            if leader is None:
                logger.warning("no sequencer leads")
            else:
                logger.info("orders go to %s, of term %d", leader.address, self._term)
            self._handler.on_leader(leader)
        source = self._best_source()
        if source is not self.source:
            before, self.source = self.source, source
            self._handler.on_source(before, source)

    def _best(self) -> Link | None:
        now = self._loop.time()
        best: Link | None = None
        best_key = (-1, False, False)
        for link in self.all:
            if link.leads and link.health is not None:
                key = (link.health.term, link.health.accepts_orders, link is self.leader)
                if key > best_key:
                    best, best_key = link, key
        if best is None or (best_key[0] < self._term and now - self._term_at < TERM_KEPT_S):
            return None
        self._term, self._term_at = best_key[0], now
        return best

    def _best_source(self) -> Link | None:
        now, source, leader = self._loop.time(), self.source, self.leader
        level = [link for link in self.all if link.is_follower and link.is_level]
        if source in level:
            return source
        if source is not None and source is leader:
            steady = [
                one for one in level if one.level_since is not None and now - one.level_since >= STEADY_S
            ]
            return steady[0] if steady else leader
        if level:
            return level[0]
        if leader is not None:
            return leader
        return source if source is not None and source.is_ready else self.any_ready()
