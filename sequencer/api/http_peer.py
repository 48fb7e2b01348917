"""A client's HTTP/1.1 connection: kept alive, pipelined, answered in order; the start of every WebSocket.

llhttp (httptools) reads the messages. Requests wait in the order in which they came, and so do refusals: what was whole
before something broken is answered before that. An upgrade to anything but a WebSocket is passed over (RFC 9110).
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections import deque
from dataclasses import dataclass
from email.utils import formatdate
from typing import Final, cast

import httptools
import msgspec

from sequencer.api.peer import DOCUMENT_BYTES_MAX, HIGH_WATER_BYTES, Door, Memory, Peer, RequestHandler
from sequencer.api.ws_peer import WsPeer, take_over
from sequencer.errors import SHOWN_CHARACTERS_MAX

HEAD_BYTES_MAX: Final = 16 * 1024
PIPELINE_MAX: Final = 16
IDLE_S: Final = 60.0
REQUEST_S: Final = 30.0  # from the first byte of a request to its last
LINGER_S: Final = 2.0  # for the last answer to arrive
WS_VERSION: Final = b"13"
WS_KEY_BYTES: Final = 16
_ALLOW: Final = {b"/": b"POST, OPTIONS", b"/health": b"GET, HEAD, OPTIONS", b"/ws": b"GET, OPTIONS"}
_PATHS: Final = "POST /, GET /health, WebSocket /ws"


@dataclass(frozen=True, slots=True)
class _Item:
    """What is to be answered in its turn. `status`: a refusal of that status, after which the connection ends."""

    method: bytes
    path: bytes = b""
    body: bytes = b""
    is_last: bool = False  # the client wants no more, or speaks HTTP/1.0
    is_old: bool = False  # HTTP/1.0, kept alive
    status: bytes = b""
    headers: bytes = b""
    key: bytes = b""  # of an upgrade to WebSocket


class HttpPeer(Peer, asyncio.Protocol):
    """HTTP/1.1, keep-alive and pipelined; one request of a connection is worked on at a time."""

    def __init__(self, gateway: RequestHandler, door: Door) -> None:
        self._door = door
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport
        self._parser = httptools.HttpRequestParser(self)
        self._url = b""
        self._headers: list[tuple[bytes, bytes]] = []  # of the head that is read; names in lower case
        self._head_bytes = 0  # since the last byte of a body or the end of a head
        self._header_bytes = 0  # of the head that is read
        self._is_head_whole = False
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._wants_continue = False
        self._began_at: float | None = None  # the request that is read
        self._items: deque[_Item] = deque()
        self._item: _Item | None = None  # is worked on
        self._rest: bytearray | None = None  # after an upgrade
        self._takes_no_more = False  # the last request has been read
        self._lingers = False
        self._advancing = False
        self._active_at = self._loop.time()

    # --- asyncio.Protocol -----------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=HIGH_WATER_BYTES)
        super().__init__(self._door.gateway, self._door.address_of(transport))
        why = self._door.came(self)
        if why:
            self._refuse(b"503 Service Unavailable", why, b"Retry-After: 10\r\n")
            self._advance()

    def data_received(self, data: bytes) -> None:
        if self._rest is not None:
            self._rest += data
            return
        if self._takes_no_more:
            return
        self._head_bytes += len(data)
        while data:
            try:
                self._parser.feed_data(data)
                data = b""
            except httptools.HttpParserUpgrade as upgrade:
                data = self._upgrade(data[upgrade.args[0] :])
            except httptools.HttpParserError as error:
                self._refuse(b"400 Bad Request", f"not HTTP/1.1: {error}")
                data = b""
        if self._head_bytes > HEAD_BYTES_MAX:
            self._refuse_head()
        self._advance()

    def eof_received(self) -> None:
        """The client sends no more, and the connection ends."""

    def connection_lost(self, exc: Exception | None) -> None:
        self._items.clear()
        self._takes_no_more = True
        self.settle()
        self.gateway.forget(self)
        self._door.gone(self)

    def pause_writing(self) -> None:
        self.began_to_lag()
        self._pause_or_resume()

    def resume_writing(self) -> None:
        self.has_caught_up()
        self._pause_or_resume()
        self._advance()

    def check(self, now: float) -> None:
        """Called each second: ends what has taken too long."""
        if self.is_slow:
            if self.is_stalled(self._transport.get_write_buffer_size(), now):
                self.drop(f"nothing read for {self.gateway.limits.stalled_s:g} s")
        elif self._item is not None or self._items:
            return
        elif self._began_at is not None:
            if now - self._began_at > REQUEST_S and not self._takes_no_more:
                self._refuse(b"408 Request Timeout", f"a request must be whole within {REQUEST_S:g} s")
                self._advance()
        elif now - self._active_at > IDLE_S:
            self._transport.close()

    # --- httptools ------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        if self._began_at is None:
            self._began_at = self._loop.time()
        self._url = b""
        self._headers = []
        self._header_bytes = 0
        self._is_head_whole = False
        self._body = []
        self._body_bytes = 0
        self._wants_continue = False

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._is_head_whole:  # else a trailer
            self._header_bytes += len(name) + len(value)
            self._headers.append((name.lower(), value.strip()))

    def on_headers_complete(self) -> None:
        self._is_head_whole = True
        self._head_bytes = 0
        if self._header_bytes + len(self._url) > HEAD_BYTES_MAX:
            self._refuse_head()
        elif not self._takes_no_more and not self._parser.should_upgrade():
            self._check_head()

    def _check_head(self) -> None:
        """What a head must have beside its form."""
        version = self._parser.get_http_version()
        if version not in ("1.1", "1.0"):
            self._refuse(b"505 HTTP Version Not Supported", f"HTTP/{version} is not spoken here, HTTP/1.1 is")
        elif version == "1.1" and len(self._values(b"host")) != 1:
            got = len(self._values(b"host"))
            self._refuse(b"400 Bad Request", f"Host: a request must have one, got {got}")
        elif self._declared() > DOCUMENT_BYTES_MAX:
            self._refuse_body(self._declared())
        elif not self._door.counts_to(self, self._values(b"x-forwarded-for")):
            self._refuse(
                b"503 Service Unavailable", "too many connections of one address", b"Retry-After: 10\r\n"
            )
        elif version == "1.1" and (expected := self._tokens(b"expect")):
            if expected != [b"100-continue"]:
                why = _shown("Expect: must be 100-continue", b", ".join(expected))
                self._refuse(b"417 Expectation Failed", why)
            elif self._declared() or self._values(b"transfer-encoding"):
                self._wants_continue = True
                self._continue()

    def on_body(self, body: bytes) -> None:
        self._head_bytes = 0
        self._wants_continue = False
        self._body_bytes += len(body)
        if self._body_bytes <= DOCUMENT_BYTES_MAX:
            self._body.append(body)
        else:
            self._refuse_body(self._body_bytes)

    def on_message_complete(self) -> None:
        self._head_bytes = 0
        if self._takes_no_more or self._parser.should_upgrade():
            return
        self._began_at = None
        self._active_at = self._loop.time()
        keeps = self._parser.should_keep_alive()
        is_old = self._parser.get_http_version() == "1.0"
        self._items.append(
            _Item(
                self._parser.get_method(),
                self._path(),
                b"".join(self._body),
                is_last=not keeps,
                is_old=is_old and keeps,
            )
        )
        if not keeps:
            self._takes_no_more = True
        self._pause_or_resume()

    # --- heads ----------------------------------------------------------------------------------

    def _values(self, name: bytes) -> list[bytes]:
        return [value for known, value in self._headers if known == name]

    def _tokens(self, name: bytes) -> list[bytes]:
        """Elements of a list header, in lower case, wherever they stand."""
        found = [one.strip().lower() for value in self._values(name) for one in value.split(b",")]
        return [one for one in found if one]

    def _declared(self) -> int:
        """Content-Length; 0 without one."""
        return next((int(value) for value in self._values(b"content-length") if value.isdigit()), 0)

    def _path(self) -> bytes:
        """The path of the target, which may be a whole URL."""
        url = self._url.partition(b"?")[0]
        if url[:7].lower() == b"http://" or url[:8].lower() == b"https://":
            return b"/" + url.partition(b"://")[2].partition(b"/")[2]
        return url

    def _upgrade(self, rest: bytes) -> bytes:
        """A head that asks for another protocol: makes it a WebSocket, or gives what is to be read instead."""
        method = self._parser.get_method()
        if self._takes_no_more:
            return b""
        if method == b"CONNECT":
            self._refuse(b"405 Method Not Allowed", _PATHS, b"Allow: POST, GET, HEAD, OPTIONS\r\n")
            return b""
        protocols = [one.partition(b"/")[0] for one in self._tokens(b"upgrade")]
        if b"websocket" in protocols and method == b"GET" and self._path() == b"/ws":
            self._check_head()
            if not self._takes_no_more:
                self._upgrade_to_websocket(rest)
            return b""
        # Passed over: the head again, without the wish.
        head = [b"%b %b HTTP/%b" % (method, self._url, self._parser.get_http_version().encode())]
        for name, value in self._headers:
            if name == b"connection":
                value = b", ".join(  # the header as it is to be read
                    one for one in map(bytes.strip, value.split(b",")) if one.lower() != b"upgrade"
                )
            if name != b"upgrade":
                head.append(name + b": " + value)
        self._parser = httptools.HttpRequestParser(self)
        return b"\r\n".join(head) + b"\r\n\r\n" + rest

    def _upgrade_to_websocket(self, rest: bytes) -> None:
        keys = self._values(b"sec-websocket-key")
        try:
            is_key = len(keys) == 1 and len(base64.b64decode(keys[0], validate=True)) == WS_KEY_BYTES
        except binascii.Error:
            is_key = False
        if not is_key:
            self._refuse(b"400 Bad Request", "Sec-WebSocket-Key: must be 16 bytes in base64, once")
        elif self._values(b"sec-websocket-version") != [WS_VERSION]:
            got = b", ".join(self._values(b"sec-websocket-version"))
            self._refuse_to_upgrade(_shown("Sec-WebSocket-Version: must be 13", got))
        elif self._declared() or self._values(b"transfer-encoding"):
            self._refuse(b"400 Bad Request", "a request for a WebSocket has no body")
        else:
            self._takes_no_more = True
            self._began_at = None
            self._rest = bytearray(rest)
            self._transport.pause_reading()
            self._items.append(_Item(b"GET", b"/ws", key=keys[0]))

    def _continue(self) -> None:
        """Asks for the body, when its turn has come."""
        if self._wants_continue and self._item is None and not self._items:
            self._wants_continue = False
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    # --- answers --------------------------------------------------------------------------------

    def _advance(self) -> None:
        if self._advancing:
            return
        self._advancing = True
        while self._items and self._item is None and not self.is_slow and not self._is_ending():
            item = self._item = self._items.popleft()
            path, method = item.path, item.method
            if item.key:
                self._become_websocket(item.key)
                return
            if item.status:
                self._respond(item.status, item.body, item.headers)
            elif path == b"/" and method == b"POST":
                self.gateway.receive(self, item.body)
            elif path == b"/health" and method in (b"GET", b"HEAD"):
                found = self.gateway.health()
                is_well = self.gateway.ready and found.get("accepts_orders", True)
                status = b"200 OK" if is_well else b"503 Service Unavailable"
                self._respond(status, msgspec.json.encode(found))
            elif method == b"OPTIONS":
                allowed = _ALLOW.get(path, b"POST, GET, HEAD, OPTIONS")
                self._respond(
                    b"204 No Content",
                    b"",
                    b"Allow: %b\r\nAccess-Control-Allow-Methods: %b\r\nAccess-Control-Max-Age: 600\r\n"
                    % (allowed, allowed),
                )
            elif path == b"/ws" and method == b"GET":
                self._respond(
                    b"426 Upgrade Required",
                    _why("this is a WebSocket: ask for an upgrade"),
                    b"Upgrade: websocket\r\nConnection: Upgrade\r\n",
                )
            elif path in _ALLOW:
                why = _shown(f"there are {_PATHS}", method + b" " + path)
                self._respond(b"405 Method Not Allowed", _why(why), b"Allow: %b\r\n" % _ALLOW[path])
            else:
                self._respond(b"404 Not Found", _why(_shown(f"there are {_PATHS}", path)))
        self._advancing = False
        if not self._is_ending():
            self._continue()
            self._pause_or_resume()

    @property
    def memory(self) -> Memory:
        """That of its address."""
        return self.address

    def send_document(self, document: bytes) -> None:
        self._respond(b"200 OK", document)
        self._advance()

    def _respond(self, status: bytes, body: bytes, headers: bytes = b"") -> None:
        item, self._item = self._item, None
        self._active_at = self._loop.time()
        if item is None or self._is_ending():
            return
        if item.is_last:
            headers += b"Connection: close\r\n"
        elif item.is_old:
            headers += b"Connection: keep-alive\r\n"
        if status[:3] != b"204":
            headers += b"Content-Type: application/json\r\nContent-Length: %d\r\n" % len(body)
        # Any page may talk to this port: no cookie and no password is ever used, and records are signed.
        self._transport.write(
            b"HTTP/1.1 %b\r\nDate: %b\r\nAccess-Control-Allow-Origin: *\r\nAccess-Control-Allow-Headers: "
            b"content-type\r\n%b\r\n%b"
            % (status, self._door.date(), headers, b"" if item.method == b"HEAD" else body)
        )
        if item.is_last:
            self._end()
        elif self.is_slow and (why := self.count_unread(self._transport.get_write_buffer_size())):
            self.drop(why)

    def _end(self) -> None:
        """The last answer is written. Closing at once, with bytes unread, could take it back."""
        self._lingers = True
        if self._transport.can_write_eof():
            self._transport.write_eof()
        self._loop.call_later(LINGER_S, self._transport.abort)

    def _is_ending(self) -> bool:
        return self._lingers or self._transport.is_closing()

    def _refuse_head(self) -> None:
        got = max(self._head_bytes, self._header_bytes + len(self._url))
        why = f"at most {HEAD_BYTES_MAX} bytes of headers, got {got} or more"
        self._refuse(b"431 Request Header Fields Too Large", why)

    def _refuse_body(self, size: int) -> None:
        why = f"a request has at most {DOCUMENT_BYTES_MAX} bytes of body, got {size} or more"
        self._refuse(b"413 Content Too Large", why)

    def _refuse_to_upgrade(self, why: str) -> None:
        self._refuse(b"426 Upgrade Required", why, b"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n")

    def _refuse(self, status: bytes, why: str, headers: bytes = b"") -> None:
        """Answers what is read now by `status`, after all that was whole before it, and takes nothing more."""
        if not self._takes_no_more:
            self._takes_no_more = True
            self._items.append(
                _Item(
                    self._parser.get_method() if self._headers else b"",
                    body=_why(why),
                    is_last=True,
                    status=status,
                    headers=headers,
                )
            )

    def drop(self, why: str) -> None:
        self._transport.abort()

    def hang_up(self) -> None:
        self._transport.close()

    def _pause_or_resume(self) -> None:
        """Reads on while there is room for what comes."""
        if self._transport.is_closing() or self._rest is not None:
            return
        if self.is_slow or len(self._items) > PIPELINE_MAX:
            self._transport.pause_reading()
        elif len(self._items) <= PIPELINE_MAX // 2:
            self._transport.resume_reading()

    def _become_websocket(self, key: bytes) -> None:
        transport, rest = self._transport, bytes(self._rest or b"")
        peer = WsPeer(self.gateway, self._door, transport, self.address)
        self._door.became(self, peer)
        take_over(peer, transport, key, rest)


def _shown(limit: str, got: bytes) -> str:
    """A limit and what was given, short."""
    return f"{limit}; got {got[:SHOWN_CHARACTERS_MAX].decode('latin-1')}"


def _why(text: str) -> bytes:
    return msgspec.json.encode({"error": text})


def http_date() -> bytes:
    """The present time as HTTP has it."""
    return formatdate(usegmt=True).encode()
