"""Follows the replicated log: reads what stands, then takes each body as the servers publish its copy.

The copies are a hint that can be lost, by a broken connection or a slow reader: what is missing before one is read
from the stream, and where none comes the stream is asked. So the servers keep no state for a follower.
"""

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import Error as NatsError
from nats.js import api

from sequencer.log.interface import LogError
from sequencer.log.jetstream_config import StreamDamaged
from sequencer.log.nats_link import Link

logger = logging.getLogger(__name__)

OnBodies = Callable[[int, list[bytes]], None]
OnFailure = Callable[[Exception], None]
Read = Callable[[int, int], Awaitable[list[bytes]]]
Check = Callable[[int, bytes, str], None]

READ_BODIES: Final = 64  # in one step while it catches up
COPIES_WAITING: Final = 1024
COPIES_BYTES: Final = 32 << 20
IDLE_S: Final = 1.0  # without a copy, before the stream is asked
RETRY_S: Final = 0.2
SEQUENCE: Final = "Nats-Sequence"


class _CallbackError(Exception):
    """What a callback has raised."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(str(cause))
        self.cause = cause


class Follower:
    """Hands on bodies in order, each once. `failure`: what has ended it, if anything has."""

    def __init__(
        self, link: Link, subject: str, place: int, on_bodies: OnBodies, on_failure: OnFailure | None
    ) -> None:
        self._link = link
        self._subject = subject
        self._place = place
        self._on_bodies = on_bodies
        self._on_failure = on_failure
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="follower")
        self._task: asyncio.Task[None] | None = None
        self._stopping = threading.Event()
        self.failure: Exception | None = None

    @property
    def place(self) -> int:
        """The next place: all before it have been handed on."""
        return self._place

    def start(self, read: Read, check: Check) -> None:
        """Begins. `read(place, count)`: bodies of the stream; `check(place, body, id)` raises LogError."""

        async def begin() -> None:
            self._task = asyncio.get_running_loop().create_task(self._follow(read, check))

        self._link.run(begin())

    def stop(self) -> None:
        """Ends it; when this returns, no callback runs or will run. Not to be called from the callback."""
        if self._stopping.is_set():
            return
        self._stopping.set()

        async def end() -> None:
            while self._task is not None and not self._task.done():
                self._task.cancel()  # more than once: the library swallows some
                await asyncio.wait((self._task,), timeout=0.1)

        self._link.run(end())
        self._pool.shutdown(wait=True)

    async def _follow(self, read: Read, check: Check) -> None:
        loop = asyncio.get_running_loop()
        client: Client | None = None
        copies: Subscription | None = None
        try:
            while not self._stopping.is_set():
                try:
                    if client is None or client.is_closed or copies is None:
                        client = await self._link.client(IDLE_S)
                        copies = await client.subscribe(
                            self._subject,
                            pending_msgs_limit=COPIES_WAITING,
                            pending_bytes_limit=COPIES_BYTES,
                        )
                    await self._catch_up(loop, read)
                    await self._take(loop, copies, check)
                except (NatsError, TimeoutError):
                    await asyncio.sleep(RETRY_S)
                except StreamDamaged:
                    raise
                except LogError as error:  # nobody answers
                    logger.info("follower: %s", error.reason)
                    await asyncio.sleep(RETRY_S)
        except asyncio.CancelledError:
            raise
        except _CallbackError as error:
            await self._fail(loop, error.cause)
        except Exception as error:  # noqa: BLE001  # whoever follows has to know
            await self._fail(loop, error)
        finally:
            if copies is not None and client is not None and not client.is_closed:
                try:
                    await copies.unsubscribe()
                except NatsError as error:
                    logger.debug("follower: %s", error)

    async def _fail(self, loop: asyncio.AbstractEventLoop, error: Exception) -> None:
        self.failure = error
        if self._on_failure is not None:
            await loop.run_in_executor(self._pool, self._on_failure, error)

    async def _catch_up(self, loop: asyncio.AbstractEventLoop, read: Read) -> None:
        """Hands on what the stream has."""
        while bodies := await read(self._place, READ_BODIES):
            await self._hand_on(loop, bodies)
            if len(bodies) < READ_BODIES:
                return

    async def _take(self, loop: asyncio.AbstractEventLoop, copies: Subscription, check: Check) -> None:
        """Hands on copies as they come; returns when one is missing, or none has come for a while."""
        while True:
            message: Msg = await copies.next_msg(timeout=IDLE_S)
            bodies: list[bytes] = []
            while True:
                headers = message.headers or {}
                place = int(headers.get(SEQUENCE, "0")) - 1
                if place > self._place + len(bodies):
                    is_gap = True
                    break
                is_gap = False
                if place == self._place + len(bodies):
                    check(place, message.data, headers.get(api.Header.MSG_ID, ""))
                    bodies.append(message.data)
                if not copies.pending_msgs or len(bodies) == READ_BODIES:
                    break
                message = await copies.next_msg(timeout=IDLE_S)
            if bodies:
                await self._hand_on(loop, bodies)
            if is_gap:
                return

    async def _hand_on(self, loop: asyncio.AbstractEventLoop, bodies: list[bytes]) -> None:
        """Waits for the callback even when the follower is stopped meanwhile, so that `place` says what it has had."""
        call = asyncio.ensure_future(loop.run_in_executor(self._pool, self._call, self._place, bodies))
        try:
            await asyncio.shield(call)
        except asyncio.CancelledError:
            await asyncio.gather(call, return_exceptions=True)
            raise

    def _call(self, place: int, bodies: list[bytes]) -> None:
        try:
            self._on_bodies(place, bodies)
        except Exception as error:
            raise _CallbackError(error) from error
        self._place = place + len(bodies)
