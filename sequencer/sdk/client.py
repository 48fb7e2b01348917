"""The SDK: `Client` (WebSocket), `HttpClient` (blocking HTTP), and from trader.py `Trader`, which signs and trades.

    client = await Client.connect("ws://127.0.0.1:9545/ws")
    trader = await Trader.open(client, load_key("env:FAIRSTRIKE_KEY"))
    order = await trader.place("BTC-2JAN22-48000-C", "buy", "1500.00", "0.1")
    await trader.cancel(order)

Records are sent as binary frames. A lost connection is restored, with its subscriptions; requests in flight raise
`OutcomeUnknown`, since they may have arrived: `Trader.outcome` queries the outcome. A connection without any data, not
even the answer to a ping, counts as lost. Exceptions: errors.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from picows import WSCloseCode, WSError, WSFrame, WSListener, WSMsgType, WSTransport, ws_connect

from sequencer.errors import BadRequest, ConnectionFailed, OutcomeUnknown, RpcFailed, from_error
from sequencer.protocol import constants as c
from sequencer.protocol.constants import Kind
from sequencer.sdk.http_client import HttpClient
from sequencer.sdk.nonces import Nonces
from sequencer.sdk.subscription import Event, Subscription
from sequencer.sdk.trader import PlacedOrder, Trader, load_key
from sequencer.wire.backoff import Backoff
from sequencer.wire.labels import to_frame
from sequencer.wire.receipts import without_receipt

__all__ = [
    "Client",
    "Event",
    "HttpClient",
    "Nonces",
    "PlacedOrder",
    "Subscription",
    "Trader",
    "load_key",
]

ANSWER_BYTES_MAX: Final = 64 * 1024 * 1024
CHANNELS_AT_ONCE: Final = 100
GAP: Final = "gap"  # the channel on which a gateway says that events were dropped


# --- connections --------------------------------------------------------------------------------


class _Listener(WSListener):
    def __init__(self, client: Client) -> None:
        self._client = client
        self.why = "the connection was lost"

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        kind = frame.msg_type
        if kind == WSMsgType.TEXT:
            self._client.received(frame.get_payload_as_bytes())
        elif kind == WSMsgType.BINARY:
            self._client.received_binary(frame.get_payload_as_bytes())
        elif kind == WSMsgType.CLOSE:
            self.why = frame.get_close_reason() or "closed by the gateway"
            transport.send_close(WSCloseCode.OK)
            transport.disconnect()

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self._client.lost(transport, self.why)

    def pause_writing(self) -> None:
        """Requests are bounded by the gateway."""

    def resume_writing(self) -> None:
        """See `pause_writing`."""


@dataclass(frozen=True, slots=True)
class _Waiting:
    what: str
    answer: asyncio.Future[Any]
    on_result: Callable[[Any], None] | None


class Client:
    """A connection to a gateway that reconnects by itself. Create it with `Client.connect`.

    `ping_s`: idle time before the gateway is pinged; after as long again without an answer the connection counts as
    lost.
    """

    def __init__(
        self,
        url: str,
        connect_timeout_s: float = 5.0,
        answer_timeout_s: float = 60.0,
        ping_s: float = 10.0,
    ) -> None:
        self.url = url
        self._connect_timeout_s = connect_timeout_s
        self._answer_timeout_s = answer_timeout_s
        self._ping_s = ping_s
        self._transport: WSTransport | None = None
        self._up = asyncio.Event()
        self._pending: dict[int, _Waiting] = {}
        self._ids = itertools.count(1)
        self._subscriptions: dict[Subscription, None] = {}
        self._keeper: asyncio.Task[None] | None = None
        self._down = asyncio.Event()
        self._last_failure = "not connected yet"
        self._closed = False

    @classmethod
    async def connect(cls, url: str, **settings: float) -> Client:
        """Connects to `ws://host:port/ws`; ConnectionFailed when that does not succeed in time."""
        client = cls(url, **settings)
        client._keeper = asyncio.create_task(client._keep())
        try:
            await client._wait_up()
        except ConnectionFailed:
            await client.close()
            raise
        return client

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Ends the connection and every subscription."""
        self._closed = True
        if self._keeper is not None:
            self._keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._keeper
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.disconnect()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(transport.wait_disconnected(), 2.0)
        self._fail("the client was closed")
        for subscription in self._subscriptions:
            subscription.end()

    async def call(self, method: str, /, **params: Any) -> Any:
        """Result of a method. Raises the exceptions of errors.py."""
        return await self._request(method, params)

    async def submit(self, record: bytes, label: str = "") -> dict[str, Any]:
        """The ack of a signed record; `label` is sent beside the record of an order."""
        kind = Kind(record[0]).name if record and record[0] in c.LAYOUT else "a record"
        transport = await self._ready()
        number, answer = self._expect(kind)
        frame = number.to_bytes(8, "big") + record + to_frame(label)
        ack: dict[str, Any] = await self._answer(number, answer, transport, WSMsgType.BINARY, frame)
        return ack

    async def subscribe(self, *channels: str) -> Subscription:
        """Subscribes to `book.<instrument>`, `trades`, `trades.<instrument>`, `ticker.<instrument>`,
        `account.<number>`.

        Refused channels are in the subscription's `refused`; when all are refused, the first one's error is raised.
        """
        subscription = Subscription(frozenset())

        def began(result: Any) -> None:  # before the next frame is looked at
            subscription.channels = frozenset(result["channels"])
            subscription.refused = {
                str(one["channel"]): str(one["message"]) for one in result.get("refused", ())
            }
            self._subscriptions[subscription] = None

        await self._request("subscribe", {"channels": list(channels)}, began)
        return subscription

    async def unsubscribe(self, subscription: Subscription) -> None:
        """Ends a subscription."""
        self._subscriptions.pop(subscription, None)
        subscription.end()
        others = frozenset[str]().union(*(one.channels for one in self._subscriptions))
        gone = sorted(subscription.channels - others)
        if gone:
            await self.call("unsubscribe", channels=gone)

    # --- what the listener calls ----------------------------------------------------------------

    def received(self, data: bytes) -> None:
        """A text frame: an answer or an event."""
        document = json.loads(data)
        if document.get("method") == "event":
            params = document["params"]
            event = Event(params["channel"], params["data"])
            if event.channel == GAP:
                for subscription in self._subscriptions:
                    subscription.put(Event("", event.data, is_gap=True))
                return
            family = event.channel.partition(".")[0]
            for subscription in self._subscriptions:
                if event.channel in subscription.channels or family in subscription.channels:
                    subscription.put(event)
        elif isinstance(document.get("id"), int):
            self._resolve(document["id"], document)

    def received_binary(self, data: bytes) -> None:
        """A binary frame: an ack."""
        text, receipt = without_receipt(data[8:])
        document = json.loads(text)
        if receipt:
            document["result"]["receipt"] = b64encode(receipt).decode()
        self._resolve(int.from_bytes(data[:8], "big"), document)

    def lost(self, transport: WSTransport, why: str) -> None:
        """The connection has ended."""
        if transport is self._transport:
            self._transport = None
            self._up.clear()
            self._down.set()
            self._last_failure = why
            self._fail(why)

    # --- inside ---------------------------------------------------------------------------------

    async def _keep(self) -> None:
        """Reconnects until closed."""
        backoff = Backoff()
        first = True
        while True:
            self._down.clear()
            try:
                transport = await self._connect()
            except (OSError, WSError, TimeoutError) as error:
                self._last_failure = str(error) or type(error).__name__
            else:
                if not transport.is_disconnected:
                    self._transport = transport
                    self._up.set()
                    if first or await self._subscribe_again():
                        backoff.worked()
                        first = False
                        await self._down.wait()
                    else:
                        self._drop(transport)
            await asyncio.sleep(backoff.next_s())

    async def _connect(self) -> WSTransport:
        async with asyncio.timeout(self._connect_timeout_s):
            transport, _ = await ws_connect(
                lambda *_: _Listener(self),
                self.url,
                websocket_handshake_timeout=self._connect_timeout_s,
                max_frame_size=ANSWER_BYTES_MAX,
                enable_auto_ping=True,
                auto_ping_idle_timeout=self._ping_s,
                auto_ping_reply_timeout=self._ping_s,
            )
        return transport

    def _drop(self, transport: WSTransport) -> None:
        """Closes a connection on which the subscriptions could not be restored; `lost` is called."""
        transport.disconnect(False)
        self.lost(transport, "subscriptions could not be made again")

    async def _subscribe_again(self) -> bool:
        """Restores the subscriptions. A channel that is no longer available ends. False: try again later."""
        channels = sorted(frozenset[str]().union(*(one.channels for one in self._subscriptions)))
        for start in range(0, len(channels), CHANNELS_AT_ONCE):
            try:
                gone = await self._ask_for(channels[start : start + CHANNELS_AT_ONCE])
            except (RpcFailed, OutcomeUnknown, ConnectionFailed) as error:
                self._last_failure = str(error)
                return False
            for channel, why in gone.items():
                for subscription in self._subscriptions:
                    if channel in subscription.channels:
                        subscription.end_channel(channel, why)
        for subscription in self._subscriptions:
            subscription.put(Event("", None, is_gap=True))
        return True

    async def _ask_for(self, channels: list[str]) -> dict[str, str]:
        """Subscribes; returns the refused channels with their reasons."""
        try:
            result = await self.call("subscribe", channels=channels)
        except BadRequest as refused:  # none of them, or a gateway that refuses all for one
            if len(channels) == 1:
                return {channels[0]: refused.message}
            gone: dict[str, str] = {}
            for channel in channels:
                gone |= await self._ask_for([channel])
            return gone
        return {str(one["channel"]): str(one["message"]) for one in result.get("refused", ())}

    async def _wait_up(self) -> None:
        try:
            await asyncio.wait_for(self._up.wait(), self._connect_timeout_s)
        except TimeoutError:
            raise ConnectionFailed(self.url, self._last_failure) from None

    async def _request(
        self, method: str, params: dict[str, Any], on_result: Callable[[Any], None] | None = None
    ) -> Any:
        transport = await self._ready()
        number, answer = self._expect(method, on_result)
        document = {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
        return await self._answer(number, answer, transport, WSMsgType.TEXT, msgspec.json.encode(document))

    async def _ready(self) -> WSTransport:
        while self._transport is None:
            if self._closed:
                raise ConnectionFailed(self.url, "the client was closed")
            await self._wait_up()
        return self._transport

    def _expect(
        self, what: str, on_result: Callable[[Any], None] | None = None
    ) -> tuple[int, asyncio.Future[Any]]:
        number = next(self._ids)
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._pending[number] = _Waiting(what, answer, on_result)
        return number, answer

    async def _answer(
        self,
        number: int,
        answer: asyncio.Future[Any],
        transport: WSTransport,
        kind: WSMsgType,
        message: bytes,
    ) -> Any:
        """Sends `message` and waits for its answer."""
        what = self._pending[number].what
        try:
            transport.send(kind, message)
            async with asyncio.timeout(self._answer_timeout_s):
                return await answer
        except TimeoutError:
            raise OutcomeUnknown(what, f"no answer in {self._answer_timeout_s:g} s") from None
        finally:
            self._pending.pop(number, None)

    def _resolve(self, number: int, document: dict[str, Any]) -> None:
        waiting = self._pending.pop(number, None)
        if waiting is None or waiting.answer.done():
            return
        if "error" in document:
            waiting.answer.set_exception(from_error(document["error"], waiting.what))
            return
        if waiting.on_result is not None:
            waiting.on_result(document["result"])
        waiting.answer.set_result(document["result"])

    def _fail(self, why: str) -> None:
        pending, self._pending = self._pending, {}
        for waiting in pending.values():
            if not waiting.answer.done():
                waiting.answer.set_exception(OutcomeUnknown(waiting.what, why))
