"""The gateway's one connection to the sequencer: made again when it is lost, and given up when it is silent.

Each end makes sure who the other is: api/admission.py.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec

from sequencer.api import ipc
from sequencer.wire.backoff import Backoff
from sequencer.wire.jsonrpc import RequestError

CONNECT_S: Final = 5.0
SHOWN_SILENT_S: Final = 3.0  # after which the sequencer counts as away for /health

logger = logging.getLogger(__name__)


class _Health(msgspec.Struct):
    accepts_orders: bool
    reason: str


_health_decoder: Final = msgspec.json.Decoder(_Health)


class Link:
    """Keeps the connection. `introduce` is awaited on each new one; what it raises ends that one."""

    def __init__(
        self,
        address: str,
        on_message: Callable[[ipc.Connection, ipc.Message], None],
        on_lost: Callable[[str], None],
        introduce: Callable[[], Awaitable[None]],
        users: frozenset[int] | None = None,
    ) -> None:
        self.address = address
        self._users = users
        self.connection: ipc.Connection | None = None
        self._on_message = on_message
        self._on_lost = on_lost
        self._introduce = introduce
        self._health = _Health(False, "the sequencer is away")

    @property
    def is_paused(self) -> bool:
        """Whether the sequencer reads more slowly than is written."""
        return self.connection is not None and self.connection.paused

    def send(self, message: ipc.Message) -> bool:
        """Sends; False when there is no connection."""
        return self.connection is not None and self.connection.send(message)

    def health(self) -> tuple[bool, str]:
        """Whether the sequencer takes orders, by its last word, and why not."""
        if self.connection is None:
            return False, "the sequencer is away"
        silent_s = self.connection.silent_s
        if silent_s > SHOWN_SILENT_S:
            return False, f"the sequencer has been silent for {silent_s:.0f} s"
        return self._health.accepts_orders, self._health.reason

    async def run(self) -> None:
        """Keeps the connection to the sequencer, for ever."""
        backoff = Backoff(0.05, 2.0, steady_s=5.0)
        try:
            while True:
                try:
                    async with asyncio.timeout(CONNECT_S):
                        connection = await ipc.connect(self.address, self._received, self._lost, self._users)
                except (OSError, TimeoutError) as error:
                    logger.info("sequencer at %s: %s", self.address, str(error) or type(error).__name__)
                else:
                    self.connection = connection
                    self._health = _Health(True, "")
                    beating = asyncio.create_task(self._beat(connection))
                    try:
                        await self._introduce()
                        backoff.worked()
                        await connection.closed.wait()
                    except (RequestError, msgspec.DecodeError) as error:
                        logger.error("sequencer at %s: %s", self.address, error)
                        connection.close()
                        await connection.closed.wait()
                    finally:
                        beating.cancel()
                await asyncio.sleep(backoff.next_s())
        finally:
            if self.connection is not None:
                self.connection.close()

    async def _beat(self, connection: ipc.Connection) -> None:
        while connection.send(ipc.Ping()):
            await asyncio.sleep(ipc.PING_S)
            if connection.silent_s > ipc.SILENT_S:
                connection.abort(f"the sequencer has been silent for {connection.silent_s:.0f} s")

    def _received(self, connection: ipc.Connection, message: ipc.Message) -> None:
        if isinstance(message, ipc.Pong):
            try:
                self._health = _health_decoder.decode(message.health)
            except msgspec.DecodeError as error:
                connection.abort(f"the sequencer sent a Pong that says nothing: {error}")
        else:
            self._on_message(connection, message)

    def _lost(self, connection: ipc.Connection, reason: str) -> None:
        if connection is self.connection:
            self.connection = None
        self._on_lost(reason)
