"""A gateway's connection to one node: made again when it is lost, and given up when it is silent.

Each end makes sure who the other is: api/admission.py, api/tls.py. Which node gets what: api/links.py.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, Protocol

import msgspec

from sequencer.api import ipc
from sequencer.api.tls import Tls
from sequencer.errors import Code
from sequencer.wire.backoff import Backoff
from sequencer.wire.jsonrpc import RequestError

SHOWN_SILENT_S: Final = 1.0  # after which the sequencer counts as away for /health

logger = logging.getLogger(__name__)

_health_decoder: Final = msgspec.json.Decoder(ipc.Health)


@dataclass(frozen=True, slots=True)
class LinkSettings:
    """How a gateway talks to nodes. A node that says nothing for `silent_s` is left; it is asked each `ping_s`.

    `users`: of the sequencers on Unix sockets; `files`: for TLS. A node is level that was so `level_s` ago at most.
    """

    ping_s: float = 0.25
    silent_s: float = 2.0
    connect_s: float = 5.0
    level_s: float = 1.0
    users: frozenset[int] | None = None
    files: Tls | None = field(default=None, repr=False)


class Above(Protocol):
    """Who hears of the links: `Links`."""

    async def introduce(self, link: Link) -> None:
        """A new connection: what this raises ends it."""

    def received(self, link: Link, message: ipc.Message) -> None:
        """A message that is the link's own neither by kind nor by request id."""

    def heard(self, link: Link) -> None:
        """Its state has changed, or may have."""

    def lost(self, link: Link, connection: ipc.Connection, reason: str) -> None:
        """Its connection has gone."""


class Link:
    """Keeps the connection to one node. `is_ready`: introduced, and what it says of itself is known (`health`).

    `seq`: what it answers shows every record below it, at least. `is_denied`: it has refused a record because it does
    not lead, and has not said since that it does.
    """

    def __init__(
        self, address: str, above: Above, rids: Iterator[int], settings: LinkSettings, is_follower: bool
    ) -> None:
        self.address = address
        self.is_follower = is_follower
        self.connection: ipc.Connection | None = None
        self.health: ipc.Health | None = None
        self.is_introduced = False
        self.is_denied = False
        self.seq = 0
        self.level_since: float | None = None
        self._above = above
        self._rids = rids
        self._settings = settings
        self._own: dict[int, asyncio.Future[bytes]] = {}  # questions of the gateway itself

    @property
    def is_ready(self) -> bool:
        """Whether it can be asked."""
        return self.is_introduced and self.health is not None

    @property
    def leads(self) -> bool:
        """Whether it says that orders belong there."""
        health = self.health
        may_lead = self.is_introduced and not self.is_follower and not self.is_denied
        return may_lead and health is not None and health.leads

    @property
    def is_level(self) -> bool:
        """Whether its answers are as good as the leader's but for `level_s`."""
        if (
            not self.is_ready
            or self.health is None
            or self.health.behind_s is None
            or self.connection is None
        ):
            return False
        return self.health.behind_s + self.connection.silent_s <= self._settings.level_s

    def send(self, message: ipc.Message) -> bool:
        """Sends; False when there is no connection."""
        return self.connection is not None and self.connection.send(message)

    async def ask(self, method: str, **params: object) -> bytes:
        """The answer to a question of the gateway itself. Raises RequestError."""
        rid = next(self._rids)
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._own[rid] = answer
        try:
            if not self.send(ipc.Query(rid, method, params)):
                raise RequestError(Code.NOT_READY, f"{method}: the sequencer is away")
            return await answer
        finally:
            del self._own[rid]

    async def run(self) -> None:
        """Keeps the connection, for ever."""
        backoff = Backoff(0.05, 2.0, steady_s=5.0)
        how = self._settings
        try:
            while True:
                try:
                    async with asyncio.timeout(how.connect_s):
                        connection = await ipc.connect(
                            self.address, self._received, self._lost, how.users, how.files
                        )
                except (OSError, TimeoutError) as error:
                    logger.info("sequencer at %s: %s", self.address, str(error) or type(error).__name__)
                else:
                    await self._keep(connection, backoff)
                await asyncio.sleep(backoff.next_s())
        finally:
            if self.connection is not None:
                self.connection.close()

    async def _keep(self, connection: ipc.Connection, backoff: Backoff) -> None:
        """Until the connection is lost."""
        if not connection.is_open:  # lost before anybody looked
            return
        self.connection = connection
        beating = asyncio.create_task(self._beat(connection))
        try:
            await self._above.introduce(self)
            self.is_introduced = connection.is_open
            self._above.heard(self)
            backoff.worked()
            await connection.closed.wait()
        except (RequestError, msgspec.DecodeError) as error:
            logger.error("sequencer at %s: %s", self.address, error)
            connection.close()
            await connection.closed.wait()
        finally:
            beating.cancel()

    async def _beat(self, connection: ipc.Connection) -> None:
        how = self._settings
        while connection.send(ipc.Ping()):
            await asyncio.sleep(how.ping_s)
            if connection.silent_s > how.silent_s:
                connection.abort(f"the sequencer has been silent for {connection.silent_s:.1f} s")

    def _received(self, connection: ipc.Connection, message: ipc.Message) -> None:
        if isinstance(message, ipc.Pong):
            self._hear_health(connection, message)
        elif isinstance(message, ipc.Answer) and message.rid in self._own:
            own = self._own[message.rid]
            if message.ok and not own.done():
                own.set_result(message.body)
            elif not own.done():
                own.set_exception(RequestError(Code.INTERNAL, message.body.decode(errors="replace")))
        else:
            if isinstance(message, ipc.Answer | ipc.Acks) and message.seq > self.seq:
                self.seq = message.seq
            self._above.received(self, message)

    def _hear_health(self, connection: ipc.Connection, message: ipc.Pong) -> None:
        try:
            health = _health_decoder.decode(message.health)
        except msgspec.DecodeError as error:
            connection.abort(f"the sequencer sent a Pong that says nothing: {error}")
            return
        self.health = health
        self.seq = health.seq  # lower than before when records were taken back
        self.is_denied = False
        if not self.is_level:
            self.level_since = None
        elif self.level_since is None:
            self.level_since = asyncio.get_running_loop().time()
        self._above.heard(self)

    def _lost(self, connection: ipc.Connection, reason: str) -> None:
        if connection is not self.connection:
            return
        self.connection = self.health = self.level_since = None
        self.is_introduced = self.is_denied = False
        self.seq = 0
        for own in self._own.values():
            if not own.done():
                own.set_exception(RequestError(Code.NOT_READY, f"the connection was lost: {reason}"))
        self._above.lost(self, connection, reason)
