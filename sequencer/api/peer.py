"""One client's connection, as the gateway sees it; what HTTP and WebSocket have in common."""

from __future__ import annotations

import asyncio
from typing import Final, Protocol

from sequencer.api.limits import Address, Addresses, Bucket, Limits
from sequencer.wire.receipts import in_json

DOCUMENT_BYTES_MAX: Final = 64 * 1024
HIGH_WATER_BYTES: Final = 16 * 1024  # unread, from where on a connection counts as slow


class RequestHandler(Protocol):
    """Who answers what comes through the front door: `Gateway` does."""

    limits: Limits
    addresses: Addresses
    ready: bool
    connections: int

    def receive(self, peer: Peer, data: bytes) -> None:
        """Handles one JSON document."""

    def receive_record(self, peer: Peer, client_id: bytes, raw: bytes) -> None:
        """Handles a record of a binary frame."""

    def wrote_to(self, peer: Peer) -> None:
        """`peer` has frames to flush at the end of this turn of the loop."""

    def forget(self, peer: Peer) -> None:
        """`peer` has gone."""

    def caught_up(self, peer: Peer) -> None:
        """`peer` has read what it had left unread."""

    def health(self) -> dict[str, object]:
        """What GET /health shows."""


class Memory(Protocol):
    """What a client has been shown: a WebSocket by itself, HTTP by its address, which opens connections as it likes."""

    seen: int  # records below it

    def saw(self, seq: int) -> None:
        """It has been shown the records below `seq`."""


class Door(Protocol):
    """Where the connections come in: `FrontDoor`."""

    gateway: RequestHandler

    def address_of(self, transport: asyncio.BaseTransport) -> Address:
        """The address that a connection counts to."""

    def came(self, peer: Peer) -> str:
        """Counts a new connection; why there is no room for it, or nothing."""

    def counts_to(self, peer: Peer, forwarded_for: list[bytes]) -> bool:
        """A request of a trusted proxy counts to the client that it names. False: that one has no room for it."""

    def became(self, before: Peer, after: Peer) -> None:
        """A connection has changed its protocol."""

    def gone(self, peer: Peer) -> None:
        """A connection has ended."""

    def date(self) -> bytes:
        """The present time as HTTP has it."""


def response(token: bytes, ok: bool, body: bytes) -> bytes:
    """A JSON-RPC response object; `body` is spliced in as it is, a receipt behind it as its last member."""
    if ok:
        return b'{"jsonrpc":"2.0","id":' + token + b',"result":' + in_json(body) + b"}"
    return b'{"jsonrpc":"2.0","id":' + token + b',"error":' + body + b"}"


def text_frame(document: bytes) -> bytes:
    """A server's unmasked text frame."""
    return frame_head(0x81, len(document)) + document


def frame_head(first: int, size: int) -> bytes:
    """First byte and length of an unmasked frame."""
    if size < 126:
        return bytes((first, size))
    if size < 65_536:
        return bytes((first, 126)) + size.to_bytes(2, "big")
    return bytes((first, 127)) + size.to_bytes(8, "big")


class Peer:
    """One client's connection, as the gateway sees it.

    Its unread bytes are counted from HIGH_WATER_BYTES on (`pause_writing`): of the connection, of its address, of all.
    """

    can_subscribe = False

    def __init__(self, gateway: RequestHandler, address: Address) -> None:
        limits: Limits = gateway.limits
        clock = asyncio.get_running_loop().time
        self.gateway = gateway
        self.address = address
        self.origin = (
            address.name
        )  # where the connection comes from; a proxy's connections count to whom they are for
        self.outstanding = 0
        self.in_flight = 0  # queries that the sequencer has
        self.channels: set[str] = set()
        self.seen = 0
        self.submits = Bucket(limits.submits_per_s, clock)
        self.queries = Bucket(limits.queries_per_s, clock)
        self.is_slow = False  # has more than HIGH_WATER_BYTES unread
        self.is_gone = False
        self._unread = 0  # as counted last
        self._progress_at = 0.0

    @property
    def memory(self) -> Memory:
        """What it reads shows the records below its `seen`."""
        return self

    def saw(self, seq: int) -> None:
        """It has been shown the records below `seq`."""
        self.seen = seq

    def reply(self, token: bytes, ok: bool, body: bytes) -> None:
        """Answers the request whose id is `token` (JSON)."""
        self.send_document(response(token, ok, body))

    def reply_binary(self, token: bytes, ok: bool, body: bytes) -> None:
        """Answers the record of a binary frame whose client id is `token`."""
        raise NotImplementedError  # of a WebSocket alone: HTTP has no frames

    def send_document(self, document: bytes) -> None:
        """Sends one JSON document."""
        raise NotImplementedError  # each protocol in its own way

    def queue(self, frame: bytes) -> None:
        """Queues a WebSocket frame."""
        raise NotImplementedError  # of a WebSocket alone: HTTP has no channels

    def flush(self) -> None:
        """Writes what `queue` has gathered."""

    def check(self, now: float) -> None:
        """Called each second: ends what has taken too long."""

    def hang_up(self) -> None:
        """The gateway stops."""
        raise NotImplementedError  # each protocol in its own way

    def drop(self, why: str) -> None:
        """Cuts the connection off: it reads too slowly."""
        raise NotImplementedError  # each protocol in its own way

    def move_to(self, address: Address) -> None:
        """Counts to `address` from now on."""
        unread = self._unread
        self.count_unread(0)
        self.address = address
        self.count_unread(unread)

    # --- what is unread -------------------------------------------------------------------------

    def count_unread(self, unread: int) -> str:
        """Takes `unread` bytes into account; which limit they break, or nothing."""
        limits, address, addresses = self.gateway.limits, self.address, self.gateway.addresses
        change = unread - self._unread
        if change < 0:
            self._progress_at = asyncio.get_running_loop().time()
        self._unread = unread
        address.unread += change
        addresses.unread += change
        if unread > limits.unread_bytes:
            return f"more than {limits.unread_bytes} bytes unread"
        if change > 0 and address.unread > limits.unread_bytes_per_address:
            return f"more than {limits.unread_bytes_per_address} bytes unread by the connections of {address.name}"
        if change > 0 and addresses.unread > limits.unread_bytes_in_all:
            return f"more than {limits.unread_bytes_in_all} bytes unread by all connections"
        return ""

    def began_to_lag(self) -> None:
        """The transport has more than HIGH_WATER_BYTES for it."""
        self.is_slow = True
        self._progress_at = asyncio.get_running_loop().time()

    def has_caught_up(self) -> None:
        """It has read nearly all."""
        self.is_slow = False
        self.count_unread(0)
        if not self.is_gone:
            self.gateway.caught_up(self)

    def is_stalled(self, unread: int, now: float) -> bool:
        """Whether it has read nothing for too long."""
        self.count_unread(min(unread, self._unread))  # less is progress; more is none
        return unread > 0 and now - self._progress_at > self.gateway.limits.stalled_s

    def settle(self) -> None:
        """It has gone: nothing is unread by it any more."""
        self.is_gone = True
        self.is_slow = False
        self.count_unread(0)
