"""One connection to the servers of the replicated log: a thread with an event loop of its own, and who may connect."""

import asyncio
import contextlib
import logging
import ssl
import threading
import time
from collections.abc import Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.errors import UnexpectedEOF

from sequencer.log.interface import LogError

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

CONNECT_S: Final = 2  # for one server, before the next is tried
PING_S: Final = 1  # a server that has not answered three of them counts as gone
FIRST_S: Final = 5  # for a first connection, before all is begun anew
POLL_S: Final = 0.005
PENDING_BYTES: Final = 32 << 20  # what may wait for the socket
JOIN_S: Final = 10
CANCELS: Final = 20


@dataclass(frozen=True, slots=True)
class Access:
    """How a client authenticates itself, and how it checks the servers. Empty: neither, as on a loopback for tests.

    `ca`: certificates that may have signed the servers'; `certificate` and `key`: this client's, where they ask for
    one. `inbox`: the prefix of the subjects that answers come to, which a server's permissions may demand.
    """

    user: str = ""
    password: str = ""
    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    inbox: str = "_INBOX"

    def __post_init__(self) -> None:
        if bool(self.user) != bool(self.password):
            raise ValueError("user and password: give both or neither")
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key: give both or neither")

    def context(self) -> ssl.SSLContext | None:
        """For TLS, or None. Raises LogError when a file cannot be read."""
        if self.ca is None and self.certificate is None:
            return None
        try:
            context = ssl.create_default_context(cafile=self.ca)
            if self.certificate is not None:
                context.load_cert_chain(self.certificate, self.key)
        except OSError as error:  # ssl's errors are of this kind
            files = ", ".join(str(path) for path in (self.ca, self.certificate, self.key) if path)
            raise LogError(f"TLS files {files}: {error}") from error
        return context


class Dropped(NatsError):
    """The connection ended while an answer was waited for."""

    def __str__(self) -> str:
        return "the connection ended before they answered"


class _Client(Client):
    """Lets go of connections at once. The library waits until a server that hangs has taken what was written to it,
    and leaves one that failed in its first exchange to the garbage collector.
    """

    async def _process_op_err(self, e: Exception) -> None:
        self._abort()
        await super()._process_op_err(e)

    async def _connect_to_server(self, s: Any) -> None:
        self._abort()
        await super()._connect_to_server(s)

    def _abort(self) -> None:
        for name in ("_io_writer", "_bare_io_writer"):  # with TLS, and below it
            writer = getattr(self._transport, name, None)
            if writer is not None:
                writer.transport.abort()


class Link:
    """Keeps a connection to one of `servers`, whichever answers, and runs coroutines on its own thread."""

    def __init__(self, servers: list[str], access: Access, name: str) -> None:
        self._servers = servers
        self._access = access
        self._context = access.context()
        self._name = name
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="stream", daemon=True)
        self._thread.start()
        self._client: Client | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._dropped: asyncio.Future[None] = self._loop.create_future()
        self.last_error = ""
        self.reconnects = 0

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()
        self._loop.close()

    def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        """The result of a coroutine that this thread runs. Not to be called on it."""
        assert threading.current_thread() is not self._thread, "a callback would wait for itself"
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def soon(self, work: Coroutine[Any, Any, object]) -> None:
        """Starts a coroutine whose outcome nobody waits for."""
        asyncio.run_coroutine_threadsafe(work, self._loop)

    @property
    def is_connected(self) -> bool:
        """Whether a server answers at the moment."""
        return self._client is not None and self._client.is_connected

    @property
    def server(self) -> str:
        """The server that it is connected to, or nothing."""
        url = self._client.connected_url if self._client is not None and self._client.is_connected else None
        return url.netloc.rpartition("@")[2] if url is not None else ""

    async def client(self, timeout_s: float) -> Client:
        """The connected client. Raises TimeoutError when no server has answered in that time."""
        end = time.monotonic() + timeout_s
        while True:
            if self._client is not None and self._client.is_connected:
                return self._client
            # A refused password closes a client for good.
            is_none = self._client is None or self._client.is_closed
            if is_none and (self._connecting is None or self._connecting.done()):
                self._connecting = asyncio.create_task(self._connect())
            if time.monotonic() >= end:
                raise TimeoutError
            await asyncio.sleep(POLL_S)

    async def _connect(self) -> None:
        """Connects a new client; tries until it has. No wait here relies on a cancel: the library swallows some."""
        while True:
            client = _Client()
            trying = asyncio.create_task(self._try(client))
            await asyncio.wait((trying,), timeout=FIRST_S)
            if trying.done() and trying.exception() is None:
                self._client = client
                return
            if trying.done():
                self.last_error = _words(trying.exception())
            trying.cancel()
            closing = asyncio.create_task(client.close())
            await asyncio.wait((trying, closing), timeout=1)
            for task in (trying, closing):
                task.add_done_callback(_forget)
            await asyncio.sleep(0.1)

    async def _try(self, client: _Client) -> None:
        await client.connect(
            servers=list(self._servers),
            name=self._name,
            error_cb=self._on_error,
            disconnected_cb=self._on_drop,
            reconnected_cb=self._on_reconnect,
            connect_timeout=CONNECT_S,
            reconnect_time_wait=0.1,  # type: ignore[arg-type]  # seconds, also parts of one
            max_reconnect_attempts=-1,
            ping_interval=PING_S,
            max_outstanding_pings=2,
            pending_size=PENDING_BYTES,
            inbox_prefix=self._access.inbox,
            tls=self._context,
            user=self._access.user or None,
            password=self._access.password or None,
        )

    async def while_connected(self, work: Coroutine[Any, Any, Result]) -> Result:
        """The result of a request. Raises Dropped when the connection ends before."""
        task = asyncio.ensure_future(work)
        try:
            await asyncio.wait((task, self._dropped), return_when=asyncio.FIRST_COMPLETED)
        finally:
            if not task.done():
                task.cancel()
                task.add_done_callback(_forget)
        if not task.done():
            raise Dropped
        return task.result()

    async def _on_drop(self) -> None:
        dropped, self._dropped = self._dropped, self._loop.create_future()
        dropped.set_result(None)

    async def _on_error(self, error: Exception) -> None:
        is_closed = isinstance(error, BrokenPipeError | ConnectionResetError | UnexpectedEOF)
        if self._client is None and is_closed:  # its reason may come too late to be read
            self.last_error = "it ends new connections at once: wrong authorization (user, password), or TLS"
        else:
            self.last_error = _words(error)
        logger.debug("stream's connection: %s", self.last_error)

    async def _on_reconnect(self) -> None:
        self.reconnects += 1

    def close(self) -> None:
        """Ends connection and thread."""
        if not self._thread.is_alive():
            return
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(JOIN_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(JOIN_S)

    async def _close(self) -> None:
        if self._client is not None and not self._client.is_closed:
            with contextlib.suppress(Exception):
                await asyncio.wait_for(self._client.close(), JOIN_S / 2)
        others = {task for task in asyncio.all_tasks() if task is not asyncio.current_task()}
        for _ in range(CANCELS):  # the library swallows some
            for task in others:
                task.cancel()
            if not others:
                break
            _, others = await asyncio.wait(others, timeout=0.1)


def _forget(task: asyncio.Task[Any]) -> None:
    """Takes the outcome of a task that nobody waits for, so that none is reported."""
    if not task.cancelled():
        task.exception()


def _words(error: BaseException | None) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error).removeprefix("nats: ") or type(error).__name__
