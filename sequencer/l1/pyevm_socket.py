"""WebSocket side of the embedded chain's node: every method, and eth_subscribe for new heads and logs.

Bounds: MAX_PEERS connections, MAX_SUBSCRIPTIONS of each, MESSAGE_BYTES_MAX a request; a peer that leaves more than
UNREAD_BYTES_MAX unread is dropped. A snapshot that is gone back to announces nothing: the next block does.
"""

import asyncio
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.server import ServerProtocol

from sequencer.l1.pyevm_blocks import Block, ChainError

MAX_PEERS: Final = 64
MAX_SUBSCRIPTIONS: Final = 16
MESSAGE_BYTES_MAX: Final = 4 * 1024 * 1024
UNREAD_BYTES_MAX: Final = 8 * 1024 * 1024
TRY_LATER: Final = 1013  # close code of RFC 6455's registry

Describe = Callable[[Block], list[Any]]  # what one subscription is told of a block


@dataclass(slots=True)
class _Subscription:
    peer: "Peer"
    describe: Describe


class Hub:
    """Who is told of what. `describe` makes a subscription's from eth_subscribe's parameters, or raises ChainError."""

    def __init__(self, describe: Callable[[list[Any]], Describe]) -> None:
        self._describe = describe
        self._peers: set[Peer] = set()
        self._subscriptions: dict[str, _Subscription] = {}
        self._ids = itertools.count(1)

    def take(self, peer: "Peer") -> bool:
        """False when there are enough."""
        if len(self._peers) >= MAX_PEERS:
            return False
        self._peers.add(peer)
        return True

    def leave(self, peer: "Peer") -> None:
        """With all its subscriptions."""
        self._peers.discard(peer)
        self._subscriptions = {key: one for key, one in self._subscriptions.items() if one.peer is not peer}

    def subscribe(self, peer: "Peer", params: list[Any]) -> str:
        """Its id. Raises ChainError."""
        if sum(one.peer is peer for one in self._subscriptions.values()) >= MAX_SUBSCRIPTIONS:
            raise ChainError(f"a connection has {MAX_SUBSCRIPTIONS} subscriptions at most", -32005)
        key = hex(next(self._ids))
        self._subscriptions[key] = _Subscription(peer, self._describe(params))
        return key

    def unsubscribe(self, peer: "Peer", params: list[Any]) -> bool:
        """Whether there was one."""
        found = self._subscriptions.get(params[0]) if params and isinstance(params[0], str) else None
        if found is None or found.peer is not peer:
            raise ChainError("subscription not found")
        del self._subscriptions[params[0]]
        return True

    def on_block(self, block: Block) -> None:
        """Tells them."""
        for key, one in list(self._subscriptions.items()):
            for result in one.describe(block):
                told = {"subscription": key, "result": result}
                one.peer.tell(
                    msgspec.json.encode({"jsonrpc": "2.0", "method": "eth_subscription", "params": told})
                )


class Peer:
    """One WebSocket; `head` is its request, as it came. `answer` answers what is no subscription."""

    def __init__(
        self, transport: asyncio.Transport, hub: Hub, answer: Callable[["Peer", bytes], bytes], head: bytes
    ) -> None:
        self._transport = transport
        self._hub = hub
        self._answer = answer
        self._protocol = ServerProtocol(max_size=MESSAGE_BYTES_MAX)
        self._parts: list[bytes] = []
        self.receive(head)

    def receive(self, data: bytes) -> None:
        """Bytes of the connection."""
        self._protocol.receive_data(data)
        for event in self._protocol.events_received():
            if isinstance(event, Request):
                self._protocol.send_response(self._protocol.accept(event))
                if not self._hub.take(self):
                    self._protocol.send_close(TRY_LATER, f"{MAX_PEERS} connections are open")
            elif isinstance(event, Frame):
                self._on_frame(event)
        self._flush()

    def end(self) -> None:
        """The connection is gone."""
        self._hub.leave(self)

    def tell(self, message: bytes) -> None:
        """Sends a text; one who does not read is dropped."""
        if self._transport.get_write_buffer_size() > UNREAD_BYTES_MAX:
            self._transport.abort()
            return
        self._protocol.send_text(message)
        self._flush()

    def _on_frame(self, frame: Frame) -> None:
        if frame.opcode not in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
            return  # pings and closes are answered by the protocol
        self._parts.append(bytes(frame.data))
        if sum(map(len, self._parts)) > MESSAGE_BYTES_MAX:
            self._protocol.fail(1009, "message too big")
        elif frame.fin:
            message, self._parts = b"".join(self._parts), []
            self.tell(self._answer(self, message))

    def _flush(self) -> None:
        for data in self._protocol.data_to_send():
            if data:
                self._transport.write(data)
            else:
                self._transport.close()
