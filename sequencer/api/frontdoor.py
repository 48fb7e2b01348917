"""The port of a gateway: HTTP/1.1 and WebSocket on one socket, one `Peer` for each connection.

A connection starts as HTTP (httptools). When its first request asks for an upgrade at /ws it is handed to picows with
all bytes read so far. Answers to a WebSocket are framed here and written once per turn of the loop.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol, cast

import httptools
import msgspec
from picows import WSCloseCode, WSFrame, WSListener, WSMsgType, WSTransport, WSUpgradeRequest
from picows.picows import WSAutoPingStrategy, WSProtocol  # type: ignore[attr-defined]  # not in its stubs

from sequencer.errors import Code, error_body

DOCUMENT_BYTES_MAX: Final = 64 * 1024
HEAD_BYTES_MAX: Final = 16 * 1024
CLIENT_ID_BYTES: Final = 8
PIPELINE_MAX: Final = 16
IDLE_S: Final = 60.0
HANDSHAKE_S: Final = 5.0
PING_S: Final = 20.0
CUT_OFF_S: Final = 2.0  # for the reason to arrive

logger = logging.getLogger(__name__)
_ws_logger = logging.getLogger("sequencer.api.frontdoor.websocket")
_ws_logger.setLevel(logging.CRITICAL)  # what a stranger's bytes provoke is no news


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of a gateway. Rates: per connection; 0 sets none."""

    connections: int = 4_096
    outstanding: int = 1_000  # requests of one connection that await their answer
    pending: int = 100_000  # of all connections
    unread_bytes: int = 1024 * 1024  # of one connection, before it is cut off
    submits_per_s: float = 0.0
    queries_per_s: float = 500.0
    answer_timeout_s: float = 30.0


class Desk(Protocol):
    """Who answers what comes through the door: `Gateway` does."""

    limits: Limits
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

    def health(self) -> dict[str, object]:
        """What GET /health shows."""


def response(token: bytes, ok: bool, body: bytes) -> bytes:
    """A JSON-RPC response object; `body` is spliced in as it is."""
    if ok:
        return b'{"jsonrpc":"2.0","id":' + token + b',"result":' + body + b"}"
    return b'{"jsonrpc":"2.0","id":' + token + b',"error":' + body + b"}"


def text_frame(document: bytes) -> bytes:
    """A server's unmasked text frame."""
    return _frame_head(0x81, len(document)) + document


def _frame_head(first: int, size: int) -> bytes:
    if size < 126:
        return bytes((first, size))
    if size < 65_536:
        return bytes((first, 126)) + size.to_bytes(2, "big")
    return bytes((first, 127)) + size.to_bytes(8, "big")


class Bucket:
    """A token bucket: `rate` a second, twice that at once; a rate of 0 is no limit."""

    __slots__ = ("_clock", "_rate", "_then", "_tokens")

    def __init__(self, rate: float, clock: Callable[[], float]) -> None:
        self._rate = rate
        self._clock = clock
        self._then = clock()
        self._tokens = 2.0 * rate

    def take(self) -> bool:
        """Takes a token, if there is one."""
        rate = self._rate
        if not rate:
            return True
        now = self._clock()
        self._tokens = min(2.0 * rate, self._tokens + (now - self._then) * rate)
        self._then = now
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True


class Peer:
    """One client's connection, as the gateway sees it."""

    can_subscribe = False

    def __init__(self, gateway: Desk) -> None:
        limits: Limits = gateway.limits
        clock = asyncio.get_running_loop().time
        self.gateway = gateway
        self.outstanding = 0
        self.channels: set[str] = set()
        self.submits = Bucket(limits.submits_per_s, clock)
        self.queries = Bucket(limits.queries_per_s, clock)

    def reply(self, token: bytes, ok: bool, body: bytes) -> None:
        """Answers the request whose id is `token` (JSON)."""
        self.send_document(response(token, ok, body))

    def reply_binary(self, token: bytes, ok: bool, body: bytes) -> None:
        """Answers the record of a binary frame whose client id is `token`."""
        raise NotImplementedError

    def send_document(self, document: bytes) -> None:
        """Sends one JSON document."""
        raise NotImplementedError

    def queue(self, frame: bytes) -> None:
        """Queues a WebSocket frame."""
        raise NotImplementedError

    def flush(self) -> None:
        """Writes what `queue` has gathered."""

    def hang_up(self) -> None:
        """The gateway stops."""
        raise NotImplementedError


class WsPeer(Peer, WSListener):
    """A WebSocket: text frames are JSON documents, binary frames are 8-byte id and record."""

    can_subscribe = True

    def __init__(self, gateway: Desk, door: FrontDoor, raw: asyncio.Transport) -> None:
        super().__init__(gateway)
        self._door = door
        self._raw = raw
        self._out: list[bytes] = []
        self._parts: list[bytes] = []
        self._is_text = True
        self._closed = False
        self._transport: WSTransport | None = None  # after the handshake

    # --- picows.WSListener ----------------------------------------------------------------------

    def on_ws_connected(self, transport: WSTransport) -> None:
        self._transport = transport

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        kind = frame.msg_type
        if kind == WSMsgType.CLOSE:
            if not self._closed:
                self._closed = True
                transport.send_close(WSCloseCode.OK)
            transport.disconnect()
        elif self._closed:
            return
        elif frame.fin and kind == WSMsgType.TEXT and not self._parts:
            self.gateway.receive(self, frame.get_payload_as_bytes())
        elif frame.fin and kind == WSMsgType.BINARY and not self._parts:
            self._receive_binary(frame.get_payload_as_bytes())
        elif kind in (WSMsgType.TEXT, WSMsgType.BINARY, WSMsgType.CONTINUATION):
            self._gather(frame)

    def _gather(self, frame: WSFrame) -> None:
        """Joins the fragments of a message."""
        kind = frame.msg_type
        if (kind == WSMsgType.CONTINUATION) != bool(self._parts):
            self.cut_off(WSCloseCode.PROTOCOL_ERROR, "a fragment out of place")
            return
        if not self._parts:
            self._is_text = kind == WSMsgType.TEXT
        self._parts.append(frame.get_payload_as_bytes() or b"")
        if sum(map(len, self._parts)) > DOCUMENT_BYTES_MAX or len(self._parts) > 1024:
            self.cut_off(WSCloseCode.MESSAGE_TOO_BIG, f"a message has at most {DOCUMENT_BYTES_MAX} bytes")
        elif frame.fin:
            data = b"".join(self._parts)
            self._parts = []
            if self._is_text:
                self.gateway.receive(self, data)
            else:
                self._receive_binary(data)

    def _receive_binary(self, data: bytes) -> None:
        if len(data) <= CLIENT_ID_BYTES:
            body = error_body(
                Code.INVALID_REQUEST, f"a binary frame is {CLIENT_ID_BYTES} bytes of id and a record"
            )
            self.reply_binary(data.ljust(CLIENT_ID_BYTES, b"\0"), False, body)
            return
        self.gateway.receive_record(self, data[:CLIENT_ID_BYTES], data[CLIENT_ID_BYTES:])

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        """See `ended`, which also hears of those that never got through the handshake."""

    def ended(self) -> None:
        """The connection has gone."""
        self._closed = True
        self._out.clear()
        self.gateway.forget(self)
        self._door.gone(self)

    def pause_writing(self) -> None:
        """Nothing to do: `flush` watches what is unread."""

    def resume_writing(self) -> None:
        """See `pause_writing`."""

    # --- Peer -----------------------------------------------------------------------------------

    def reply_binary(self, token: bytes, ok: bool, body: bytes) -> None:
        document = token + (b'{"result":' if ok else b'{"error":') + body + b"}"
        self.queue(_frame_head(0x82, len(document)) + document)

    def send_document(self, document: bytes) -> None:
        self.queue(_frame_head(0x81, len(document)) + document)

    def queue(self, frame: bytes) -> None:
        if self._closed:
            return
        if not self._out:
            self.gateway.wrote_to(self)
        self._out.append(frame)

    def flush(self) -> None:
        out = self._out
        if not out or self._closed:
            return
        self._out = []
        raw = self._raw
        limit = self.gateway.limits.unread_bytes
        if raw.get_write_buffer_size() > limit:
            self.cut_off(WSCloseCode.POLICY_VIOLATION, f"slow consumer: more than {limit} bytes unread")
            return
        raw.write(out[0] if len(out) == 1 else b"".join(out))

    def cut_off(self, code: WSCloseCode, reason: str) -> None:
        """Says why and takes nothing more; closes when the peer has answered, at the latest after CUT_OFF_S.

        Closing at once, with bytes of the peer's unread, would reset the connection and lose the reason.
        """
        if self._closed:
            return
        self._closed = True
        self._out.clear()
        self.gateway.forget(self)
        if self._transport is not None:
            self._transport.send_close(code, reason)
        asyncio.get_running_loop().call_later(CUT_OFF_S, self._raw.abort)

    def hang_up(self) -> None:
        self.flush()
        self.cut_off(WSCloseCode.GOING_AWAY, "the gateway stops")
        self._raw.close()


class _WsProtocol(WSProtocol):  # type: ignore[misc]  # untyped
    """picows' protocol, which says when the connection ends whatever state it was in."""

    peer: WsPeer

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.peer.ended()


class HttpPeer(Peer, asyncio.Protocol):
    """HTTP/1.1, keep-alive and pipelined; one request of a connection is worked on at a time."""

    def __init__(self, gateway: Desk, door: FrontDoor) -> None:
        super().__init__(gateway)
        self._door = door
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport
        self._first: bytearray | None = (
            bytearray()
        )  # all bytes, while the first request may become a WebSocket
        self._url = b""
        self._head_bytes = 0  # since the last byte of a body or the end of a head
        self._header_bytes = 0  # of the head that is read
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._waiting: deque[tuple[bytes, bytes, bytes]] = deque()
        self._busy = False
        self._advancing = False
        self._last = False  # close after the request that is worked on
        self._active_at = self._loop.time()
        self._timer: asyncio.TimerHandle | None = None

    # --- asyncio.Protocol -----------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        if not self._door.came(self):
            self._refuse(b"503 Service Unavailable", "too many connections")
            return
        self._timer = self._loop.call_later(IDLE_S, self._check_idle)

    def data_received(self, data: bytes) -> None:
        self._head_bytes += len(data)
        if self._first is not None:
            self._first += data
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._upgrade()
            return
        except httptools.HttpParserError as error:
            if not self._transport.is_closing():
                self._refuse(b"400 Bad Request", f"not HTTP/1.1: {error}")
            return
        if self._head_bytes > HEAD_BYTES_MAX:
            self._refuse_head()
        else:
            self._advance()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._waiting.clear()
        self._door.gone(self)

    def _check_idle(self) -> None:
        if not self._busy and self._loop.time() - self._active_at >= IDLE_S:
            self._transport.close()
        else:
            self._timer = self._loop.call_later(IDLE_S, self._check_idle)

    # --- httptools ------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        self._url = b""
        self._body = []
        self._body_bytes = 0

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._header_bytes += len(name) + len(value)

    def on_headers_complete(self) -> None:
        if self._header_bytes + len(self._url) > HEAD_BYTES_MAX and not self._transport.is_closing():
            self._refuse_head()
        self._header_bytes = 0
        self._head_bytes = 0

    def on_body(self, body: bytes) -> None:
        self._head_bytes = 0
        self._body_bytes += len(body)
        if self._body_bytes <= DOCUMENT_BYTES_MAX:
            self._body.append(body)
        elif not self._transport.is_closing():
            self._refuse(b"413 Content Too Large", f"a request has at most {DOCUMENT_BYTES_MAX} bytes")

    def on_message_complete(self) -> None:
        self._head_bytes = 0
        if self._parser.should_upgrade():
            return
        self._first = None
        self._active_at = self._loop.time()
        if not self._parser.should_keep_alive():
            self._last = True
        self._waiting.append((self._parser.get_method(), self._url.partition(b"?")[0], b"".join(self._body)))
        if len(self._waiting) > PIPELINE_MAX and not self._transport.is_closing():
            self._transport.pause_reading()

    # --- requests -------------------------------------------------------------------------------

    def _advance(self) -> None:
        if self._advancing:
            return
        self._advancing = True
        while self._waiting and not self._busy and not self._transport.is_closing():
            method, path, body = self._waiting.popleft()
            self._busy = True
            if path == b"/" and method == b"POST":
                self.gateway.receive(self, body)
            elif path == b"/health" and method in (b"GET", b"HEAD"):
                found = self.gateway.health()
                status = b"200 OK" if self.gateway.ready else b"503 Service Unavailable"
                self._respond(status, msgspec.json.encode(found), is_head=method == b"HEAD")
            elif method == b"OPTIONS":
                self._respond(b"204 No Content", b"")
            elif path in (b"/", b"/health", b"/ws"):
                self._respond(b"405 Method Not Allowed", b'{"error":"POST /, GET /health, WebSocket /ws"}')
            else:
                self._respond(b"404 Not Found", b'{"error":"POST /, GET /health, WebSocket /ws"}')
        self._advancing = False
        if len(self._waiting) <= PIPELINE_MAX // 2 and not self._transport.is_closing():
            self._transport.resume_reading()

    def send_document(self, document: bytes) -> None:
        self._respond(b"200 OK", document)
        self._advance()

    def _respond(self, status: bytes, body: bytes, is_head: bool = False) -> None:
        self._busy = False
        if self._transport.is_closing():
            return
        closes = self._last and not self._waiting
        # Any page may talk to this port: no cookie and no password is ever used, and records are signed.
        self._transport.write(
            b"HTTP/1.1 %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\n"
            b"Access-Control-Allow-Origin: *\r\nAccess-Control-Allow-Headers: content-type\r\n%b\r\n%b"
            % (status, len(body), b"Connection: close\r\n" if closes else b"", b"" if is_head else body)
        )
        if closes:
            self._transport.close()
        elif self._transport.get_write_buffer_size() > self.gateway.limits.unread_bytes:
            self._transport.abort()

    def _refuse_head(self) -> None:
        self._refuse(b"431 Request Header Fields Too Large", f"at most {HEAD_BYTES_MAX} bytes of headers")

    def _refuse(self, status: bytes, why: str) -> None:
        self._last = True
        self._waiting.clear()
        self._respond(status, msgspec.json.encode({"error": why}))

    def hang_up(self) -> None:
        self._transport.close()

    def _upgrade(self) -> None:
        """Hands the connection to picows, with all bytes so far."""
        head, transport = self._first, self._transport
        if head is None or self._url.partition(b"?")[0] != b"/ws" or self._parser.get_method() != b"GET":
            self._refuse(b"404 Not Found", "WebSocket lives at /ws, as the first request of a connection")
            return
        if self._timer is not None:
            self._timer.cancel()
        peer = WsPeer(self.gateway, self._door, transport)
        self._door.became(self, peer)

        def listener(_: WSUpgradeRequest) -> WSListener:
            return peer

        protocol = _WsProtocol(
            None,
            None,
            False,
            listener,
            _ws_logger,
            True,
            HANDSHAKE_S,
            True,
            PING_S,
            PING_S,
            WSAutoPingStrategy.PING_WHEN_IDLE,
            True,
            DOCUMENT_BYTES_MAX,
            None,
            8 * 1024,
        )
        protocol.peer = peer
        transport.pause_reading()  # uvloop chooses how it reads when it starts to
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        with memoryview(head) as view:
            done = 0
            while done < len(view):
                room = protocol.get_buffer(-1)
                size = min(len(room), len(view) - done)
                room[:size] = view[done : done + size]
                protocol.buffer_updated(size)
                done += size
        if not transport.is_closing():
            transport.resume_reading()


class FrontDoor:
    """The listening socket and who has come through it."""

    def __init__(self, gateway: Desk) -> None:
        self.gateway = gateway
        self.peers: dict[Peer, None] = {}
        self._server: asyncio.Server | None = None

    async def start(self, host: str, port: int) -> int:
        """Listens; the port (the one the system chose, for 0)."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: HttpPeer(self.gateway, self), host, port, backlog=1024
        )
        return int(self._server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        """Stops listening and hangs up on everybody."""
        if self._server is not None:
            self._server.close()
        for peer in list(self.peers):
            peer.hang_up()

    def came(self, peer: Peer) -> bool:
        """Counts a new connection; False when there are too many."""
        if len(self.peers) >= self.gateway.limits.connections:
            return False
        self.peers[peer] = None
        self.gateway.connections = len(self.peers)
        return True

    def became(self, before: Peer, after: Peer) -> None:
        """A connection has changed its protocol."""
        del self.peers[before]
        self.peers[after] = None

    def gone(self, peer: Peer) -> None:
        """A connection has ended."""
        self.peers.pop(peer, None)
        self.gateway.connections = len(self.peers)
