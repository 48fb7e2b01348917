"""A client's WebSocket: picows frames what comes in, answers are framed here and written once per turn of the loop."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from picows import WSCloseCode, WSFrame, WSListener, WSMsgType, WSTransport, WSUpgradeRequest
from picows.picows import WSAutoPingStrategy, WSProtocol  # type: ignore[attr-defined]  # not in its stubs

from sequencer.api.limits import Address
from sequencer.api.peer import DOCUMENT_BYTES_MAX, HIGH_WATER_BYTES, Door, Peer, RequestHandler, frame_head
from sequencer.errors import Code
from sequencer.wire.fields import request_error
from sequencer.wire.receipts import with_receipt, without_receipt

CLIENT_ID_BYTES: Final = 8
FRAGMENTS_MAX: Final = 1_024
HANDSHAKE_S: Final = 5.0
PING_S: Final = 20.0
CUT_OFF_S: Final = 2.0  # for the reason to arrive

_logger = logging.getLogger("sequencer.api.frontdoor.websocket")
_logger.setLevel(logging.CRITICAL)  # what a stranger's bytes provoke is no news


class WsPeer(Peer, WSListener):
    """A WebSocket: text frames are JSON documents, binary frames are 8-byte id and record."""

    can_subscribe = True

    def __init__(self, gateway: RequestHandler, door: Door, raw: asyncio.Transport, address: Address) -> None:
        super().__init__(gateway, address)
        self._door = door
        self._raw = raw
        self._out: list[bytes] = []
        self._parts: list[bytes] = []
        self._parts_bytes = 0
        self._is_text = True
        self._closed = False
        self._transport: WSTransport | None = None  # after the handshake

    # --- picows.WSListener ----------------------------------------------------------------------

    def on_ws_connected(self, transport: WSTransport) -> None:
        self._transport = transport

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        kind = frame.msg_type
        if self._closed and kind != WSMsgType.CLOSE:
            return
        if frame.rsv1 or frame.rsv2 or frame.rsv3:
            self.cut_off(WSCloseCode.PROTOCOL_ERROR, "a reserved bit is set, and no extension was agreed")
        elif kind == WSMsgType.TEXT and frame.fin and not self._parts:
            self._receive_text(frame.get_payload_as_bytes())
        elif kind == WSMsgType.BINARY and frame.fin and not self._parts:
            self._receive_binary(frame.get_payload_as_bytes())
        elif kind == WSMsgType.PING:
            if not self.is_slow:  # a client that reads nothing must not gather pongs
                transport.send_pong(frame.get_payload_as_bytes())
        elif kind == WSMsgType.CLOSE:
            if not self._closed:
                self._closed = True
                code = frame.get_close_code()
                transport.send_close(WSCloseCode.OK if code == WSCloseCode.NO_INFO else code)
            transport.disconnect()
        elif kind != WSMsgType.PONG:
            self._gather(frame)

    def _gather(self, frame: WSFrame) -> None:
        """Joins the fragments of a message."""
        kind = frame.msg_type
        if (kind == WSMsgType.CONTINUATION) != bool(self._parts):
            self.cut_off(WSCloseCode.PROTOCOL_ERROR, "a fragment out of place")
            return
        if not self._parts:
            self._is_text = kind == WSMsgType.TEXT
            self._parts_bytes = 0
        self._parts.append(frame.get_payload_as_bytes() or b"")
        self._parts_bytes += len(self._parts[-1])
        if self._parts_bytes > DOCUMENT_BYTES_MAX or len(self._parts) > FRAGMENTS_MAX:
            why = f"a message has at most {DOCUMENT_BYTES_MAX} bytes, and {FRAGMENTS_MAX} fragments"
            self.cut_off(WSCloseCode.MESSAGE_TOO_BIG, why)
        elif frame.fin:
            data = b"".join(self._parts)
            self._parts = []
            if self._is_text:
                self._receive_text(data)
            else:
                self._receive_binary(data)

    def _receive_text(self, data: bytes) -> None:
        if not data.isascii():
            try:
                data.decode()
            except UnicodeDecodeError:
                self.cut_off(WSCloseCode.INVALID_TEXT, "a text message must be UTF-8")
                return
        self.gateway.receive(self, data)

    def _receive_binary(self, data: bytes) -> None:
        if len(data) <= CLIENT_ID_BYTES:
            limit = f"{CLIENT_ID_BYTES} bytes of id and a record"
            error = request_error(Code.INVALID_REQUEST, "frame", limit, f"{len(data)} bytes")
            self.reply_binary(data.ljust(CLIENT_ID_BYTES, b"\0"), False, error.body())
            return
        self.gateway.receive_record(self, data[:CLIENT_ID_BYTES], data[CLIENT_ID_BYTES:])

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        """See `ended`, which also hears of those that never got through the handshake."""

    def ended(self) -> None:
        """The connection has gone."""
        self._closed = True
        self._out.clear()
        self._parts.clear()
        self.settle()
        self.gateway.forget(self)
        self._door.gone(self)

    def pause_writing(self) -> None:
        self.began_to_lag()

    def resume_writing(self) -> None:
        self.has_caught_up()

    # --- Peer -----------------------------------------------------------------------------------

    def reply_binary(self, token: bytes, ok: bool, body: bytes) -> None:
        text, receipt = without_receipt(body)
        document = token + (b'{"result":' if ok else b'{"error":') + text + b"}"
        if receipt:
            document = with_receipt(document, receipt)
        self.queue(frame_head(0x82, len(document)) + document)

    def send_document(self, document: bytes) -> None:
        self.queue(frame_head(0x81, len(document)) + document)

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
        if self.is_slow:
            self.count_unread(raw.get_write_buffer_size())  # what it has read since
        raw.write(out[0] if len(out) == 1 else b"".join(out))
        if self.is_slow:  # by this write, too
            why = self.count_unread(raw.get_write_buffer_size())
            if why:
                self.drop(why)

    def check(self, now: float) -> None:
        """Called each second: ends what has stood still for too long."""
        if self.is_slow and self.is_stalled(self._raw.get_write_buffer_size(), now):
            self.drop(f"nothing read for {self.gateway.limits.stalled_s:g} s")

    def drop(self, why: str) -> None:
        self.cut_off(WSCloseCode.POLICY_VIOLATION, f"slow consumer: {why}"[:120])

    def cut_off(self, code: WSCloseCode, reason: str) -> None:
        """Says why and takes nothing more; closes when the peer has answered, at the latest after CUT_OFF_S.

        Closing at once, with bytes of the peer's unread, would reset the connection and lose the reason.
        """
        if self._closed:
            return
        self._closed = True
        self._out.clear()
        self._parts.clear()
        self.settle()
        self.gateway.forget(self)
        if self._transport is not None:
            self._transport.send_close(code, reason)
        asyncio.get_running_loop().call_later(CUT_OFF_S, self._raw.abort)

    def hang_up(self) -> None:
        self.flush()
        self.cut_off(WSCloseCode.GOING_AWAY, "the gateway stops")
        self._raw.close()


class _Protocol(WSProtocol):  # type: ignore[misc]  # untyped
    """picows' protocol, which says when the connection ends whatever state it was in."""

    peer: WsPeer

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.peer.ended()


def take_over(peer: WsPeer, transport: asyncio.Transport, key: bytes, rest: bytes) -> None:
    """Makes a WebSocket of a connection whose request has been looked at; `rest` came after that request.

    picows reads the plainest request there is instead of the client's: it refuses some that RFC 6455 allows.
    """

    def listener(_: WSUpgradeRequest) -> WSListener:
        return peer

    protocol = _Protocol(
        None,
        None,
        False,
        listener,
        _logger,
        True,
        HANDSHAKE_S,
        True,
        PING_S,
        PING_S,
        WSAutoPingStrategy.PING_WHEN_IDLE,
        False,
        DOCUMENT_BYTES_MAX,
        None,
        8 * 1024,
    )
    protocol.peer = peer
    transport.pause_reading()  # uvloop chooses how it reads when it starts to
    transport.set_protocol(protocol)
    transport.set_write_buffer_limits(high=HIGH_WATER_BYTES)
    protocol.connection_made(transport)
    head = (
        b"GET /ws HTTP/1.1\r\nHost: gateway\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %b\r\n\r\n" % key
    )
    with memoryview(head + rest) as view:
        done = 0
        while done < len(view):
            room = protocol.get_buffer(-1)
            size = min(len(room), len(view) - done)
            room[:size] = view[done : done + size]
            protocol.buffer_updated(size)
            done += size
    if not transport.is_closing():
        transport.resume_reading()
