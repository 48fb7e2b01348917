"""New heads of L1 as they are made: eth_subscribe over WebSocket or IPC by web3.py, on a thread of its own.

What comes is a hint to look, and nothing else of it is believed: whoever is woken asks the node, by `Rpc`. So whatever
else a node pushes can make nothing wrong; and where it pushes nothing (no such end point, a dead line, a subscription
that has gone deaf), looks come by the clock, as they did before.
"""

import asyncio
import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit, urlunsplit

from sequencer.l1.refusals import TEXT_CHARS_MAX
from sequencer.l1.transport import shown, without_secrets

if TYPE_CHECKING:
    from web3.providers import PersistentConnectionProvider

EVENTS_VARIABLE: Final = "FAIRSTRIKE_L1_EVENTS"
NO_EVENTS: Final = "none"
CONNECT_TIMEOUT_S: Final = 5.0
PING_S: Final = 5.0  # a line that swallows bytes is noticed within two of them
DEAF_S: Final = 3.0  # after which a head that a look has found, and no event, shows that none come
DEAF_RESTART_S: Final = 30.0
RETRY_FIRST_S: Final = 1.0
RETRY_MAX_S: Final = 30.0
MESSAGE_BYTES_MAX: Final = 1024 * 1024
QUEUE_MAX: Final = 64  # messages that wait to be taken; the socket waits then
STOP_TIMEOUT_S: Final = 5.0
SLOWER: Final = 4  # times: how much rarer looks by the clock are while events come
SLOWEST_S: Final = 2.0
RUSH_S: Final = 0.02  # between looks at least
OVER_LOOK_S: Final = 0.25

logger = logging.getLogger(__name__)


def events_url(l1_url: str, asked: str | None = None) -> str | None:
    """Where to subscribe: `asked`, or what FAIRSTRIKE_L1_EVENTS says (a ws:// or wss:// URL, an IPC path, "none"), or
    the node's own address, where development nodes and most providers have it. None: nowhere.
    """
    said = asked or os.environ.get(EVENTS_VARIABLE)
    if said:
        return None if said == NO_EVENTS else said
    parts = urlsplit(l1_url)
    scheme = {"http": "ws", "https": "wss"}.get(parts.scheme)
    return urlunsplit(parts._replace(scheme=scheme)) if scheme else None


class Heads:
    """Calls `on_head` for each new head, on the thread of this object, between `start` and `stop`; or one thread waits
    for them by `pause`. `url`: see `events_url`.
    """

    def __init__(
        self, l1_url: str, on_head: Callable[[], None] = lambda: None, url: str | None = None
    ) -> None:
        self._url = events_url(l1_url, url)
        self._on_head = on_head
        self._woken = threading.Event()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ended: asyncio.Event | None = None
        self._is_up = False
        self._found = ""  # hash of the newest head that a look has found
        self._unheard_s: float | None = None  # since when such a one has come without an event, monotonic
        self._heard = self._heard_before = 0  # events; and how many there were at the look before
        self.problem = ""  # why no events come

    @property
    def is_live(self) -> bool:
        """Whether events come: looks by the clock may be rare then."""
        unheard_s = self._unheard_s
        return self._is_up and (unheard_s is None or time.monotonic() - unheard_s < DEAF_S)

    def look_s(self, poll_s: float) -> float:
        """How long to wait for an event before looking all the same; `poll_s` where none come."""
        return max(poll_s, min(SLOWER * poll_s, SLOWEST_S)) if self.is_live else poll_s

    def pause(self, over: threading.Event, poll_s: float) -> None:
        """Until a new head, until it is time to look all the same, or until `over`; heads that rush in are one."""
        began_s, wait_s = time.monotonic(), self.look_s(poll_s)
        while not over.is_set() and not self._woken.is_set():
            left_s = began_s + wait_s - time.monotonic()
            if left_s <= 0:
                return
            self._woken.wait(min(left_s, OVER_LOOK_S))
        over.wait(max(0.0, began_s + RUSH_S - time.monotonic()))
        self._woken.clear()

    def saw(self, block_hash: str) -> None:
        """A look has found this newest head: an event should have told of it, or will in a moment."""
        is_new, self._found = block_hash != self._found and bool(self._found), block_hash
        if self._heard != self._heard_before:
            self._heard_before, self._unheard_s = self._heard, None
        elif is_new and self._unheard_s is None:
            self._unheard_s = time.monotonic()

    def start(self) -> None:
        """Starts the thread, where there is something to subscribe to."""
        if self._url is not None and self._thread is None:
            self._thread = threading.Thread(target=self._run, name="l1-heads", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Ends it."""
        self._stop.set()
        loop, ended, thread = self._loop, self._ended, self._thread
        if loop is not None and ended is not None:
            with contextlib.suppress(RuntimeError):  # it has ended already
                loop.call_soon_threadsafe(ended.set)
        if thread is not None:
            thread.join(STOP_TIMEOUT_S)

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        """Subscribes again and again: whatever ends a subscription passes, or is seen no better for its kind."""
        ended = self._ended = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        wait_s = RETRY_FIRST_S
        while not self._stop.is_set():
            listening = asyncio.create_task(self._listen())
            over = asyncio.create_task(self._until_over(ended))
            await asyncio.wait({listening, over}, return_when=asyncio.FIRST_COMPLETED)
            for task in (listening, over):
                task.cancel()
            (found, _) = await asyncio.gather(listening, over, return_exceptions=True)
            if self._is_up:
                self._is_up, wait_s = False, RETRY_FIRST_S
                self._tell()  # whoever waits for events waits by the clock from now on
            if self._stop.is_set():
                return
            said = "it has ended" if not isinstance(found, Exception) else f"{type(found).__name__}: {found}"
            self._note(f"no events of {shown(self._url or '')}: {self._without_secrets(said)}")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(ended.wait(), wait_s)
            wait_s = min(2 * wait_s, RETRY_MAX_S)

    async def _until_over(self, ended: asyncio.Event) -> None:
        """Until the end, or until the subscription has been deaf for long."""
        while not self._stop.is_set():
            unheard_s = self._unheard_s
            if self._is_up and unheard_s is not None and time.monotonic() - unheard_s > DEAF_RESTART_S:
                self._unheard_s = None
                return
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(ended.wait(), 1.0)

    async def _listen(self) -> None:
        """Subscribes, and hears until the line ends. Raises whatever ends it."""
        from web3 import AsyncWeb3

        async with AsyncWeb3(self._provider()) as web3:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await web3.eth.subscribe("newHeads")
            self._note("")
            self._is_up, self._unheard_s = True, None
            self._tell()  # what came before
            async for _ in web3.socket.process_subscriptions():
                self._heard += 1
                self._unheard_s = None
                self._tell()

    def _provider(self) -> "PersistentConnectionProvider":
        from web3.providers import AsyncIPCProvider, WebSocketProvider

        assert self._url is not None
        logging.getLogger("web3.providers").setLevel(logging.WARNING)  # they log the URL, key and all
        if "://" not in self._url:
            return AsyncIPCProvider(
                self._url,
                read_buffer_limit=MESSAGE_BYTES_MAX,
                max_connection_retries=1,
                request_timeout=CONNECT_TIMEOUT_S,
                subscription_response_queue_size=QUEUE_MAX,
            )
        return WebSocketProvider(
            self._url,
            websocket_kwargs={
                "max_size": MESSAGE_BYTES_MAX,
                "max_queue": QUEUE_MAX,
                "open_timeout": CONNECT_TIMEOUT_S,
                "close_timeout": 1.0,
                "ping_interval": PING_S,
                "ping_timeout": PING_S,
            },
            max_connection_retries=1,
            request_timeout=CONNECT_TIMEOUT_S,
            subscription_response_queue_size=QUEUE_MAX,
        )

    def _tell(self) -> None:
        self._woken.set()
        self._on_head()

    def _without_secrets(self, text: str) -> str:
        return without_secrets(text[:TEXT_CHARS_MAX], self._url or "")

    def _note(self, problem: str) -> None:
        if problem != self.problem:
            self.problem = problem
            logger.info("L1: %s", problem or f"new heads come from {shown(self._url or '')}")
