"""The SDK's blocking client: JSON-RPC over one kept HTTP/1.1 connection, with a deadline for each request."""

from __future__ import annotations

import contextlib
import itertools
import json
import socket
import ssl
import time
import urllib.parse
from typing import Any, Final

import httptools

from sequencer.errors import ConnectionFailed, FairstrikeError, NonceRefused, OutcomeUnknown, from_error

ANSWER_BYTES_MAX: Final = 64 * 1024 * 1024
IDLE_S: Final = 25.0  # a gateway closes a connection that has asked nothing for 60 s; proxies often sooner
READ_BYTES: Final = 65_536


class _Closed(Exception):
    """The gateway closed the connection before any byte of an answer."""


class _Answer:
    """Parts of a response, as the parser reads them."""

    def __init__(self) -> None:
        self.body: list[bytes] = []
        self.size = 0
        self.is_whole = False
        self.is_last = False  # of its connection
        self.parser = httptools.HttpResponseParser(self)

    def on_body(self, body: bytes) -> None:
        self.size += len(body)
        if self.size > ANSWER_BYTES_MAX:
            raise ValueError(f"an answer of more than {ANSWER_BYTES_MAX} bytes")
        self.body.append(body)

    def on_message_complete(self) -> None:
        self.is_whole = True
        self.is_last = not self.parser.should_keep_alive()  # asked later, it has forgotten


class HttpClient:
    """Blocking calls over HTTP, on one connection. Not thread-safe.

    `timeout_s`: for a whole request, from connecting to the last byte of its answer.
    """

    def __init__(self, url: str, timeout_s: float = 60.0, idle_s: float = IDLE_S) -> None:
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in ("http", "https") or parts.hostname is None:
            raise ValueError(f"{url}: must be http://HOST:PORT")
        self.url = url
        self._host = parts.hostname
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._port = parts.port or (443 if self._tls else 80)
        self._path = parts.path or "/"
        self._host_header = parts.netloc.rpartition("@")[2]
        self._timeout_s = timeout_s
        self._idle_s = idle_s
        self._socket: socket.socket | None = None
        self._used_at = 0.0
        self._ids = itertools.count(1)

    def __enter__(self) -> HttpClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the connection."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def call(self, method: str, /, **params: Any) -> Any:
        """Result of a method. Raises the exceptions of errors.py."""
        document = {"jsonrpc": "2.0", "id": next(self._ids), "method": method, "params": params}
        deadline = time.monotonic() + self._timeout_s
        body = json.dumps(document).encode()
        is_again = False
        kept = self._is_kept()
        try:
            answer = self._exchange(method, body, deadline)
        except _Closed:
            # A record of a nonce is applied once however often it arrives, a query changes nothing: both may go again.
            if not kept:
                raise OutcomeUnknown(method, "the gateway closed the connection without an answer") from None
            is_again = True
            try:
                answer = self._exchange(method, body, deadline)
            except _Closed:
                raise OutcomeUnknown(method, "the gateway closed two connections without an answer") from None
        if isinstance(answer, dict) and "result" in answer:
            return answer["result"]
        error = _error_of(answer, method)
        if is_again and isinstance(error, NonceRefused):  # perhaps by the same record, sent before
            raise OutcomeUnknown(method, f"the connection was closed, and sent again: {error}")
        raise error

    def submit(self, record: bytes, label: str = "") -> dict[str, Any]:
        """The ack of a signed record; `label` is sent beside the record of an order."""
        beside = {"label": label} if label else {}
        ack: dict[str, Any] = self.call("submit", record="0x" + record.hex(), **beside)
        return ack

    # --- inside ---------------------------------------------------------------------------------

    def _is_kept(self) -> bool:
        """Whether the connection can be reused: not if it is old, or has unread data."""
        if self._socket is None:
            return False
        is_good = time.monotonic() - self._used_at < self._idle_s
        if is_good:
            self._socket.setblocking(False)
            try:
                self._socket.recv(1)
                is_good = False  # its end, or bytes that nobody asked for
            except (BlockingIOError, ssl.SSLWantReadError):
                pass
            except OSError:
                is_good = False
        if not is_good:
            self.close()
        return is_good

    def _exchange(self, method: str, body: bytes, deadline: float) -> Any:
        """Sends one request and reads its answer. Raises _Closed, ConnectionFailed, OutcomeUnknown."""
        connection = self._connected(deadline)
        head = (
            f"POST {self._path} HTTP/1.1\r\nHost: {self._host_header}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        answer = _Answer()
        got_bytes = False
        try:
            connection.settimeout(_left(deadline))
            connection.sendall(head.encode("ascii") + body)
            while not answer.is_whole:
                connection.settimeout(_left(deadline))
                data = connection.recv(READ_BYTES)
                if not data:
                    if got_bytes:
                        raise OutcomeUnknown(method, "the connection was closed within the answer")
                    raise _Closed
                got_bytes = True
                answer.parser.feed_data(data)
            decoded = json.loads(b"".join(answer.body))
        except (ConnectionResetError, BrokenPipeError):
            self.close()
            if got_bytes:
                raise OutcomeUnknown(method, "the connection was reset within the answer") from None
            raise _Closed from None
        except TimeoutError:
            self.close()
            raise OutcomeUnknown(method, f"no answer in {self._timeout_s:g} s") from None
        except (OSError, httptools.HttpParserError, ValueError) as error:
            self.close()
            raise OutcomeUnknown(method, str(error) or type(error).__name__) from None
        except (_Closed, OutcomeUnknown):
            self.close()
            raise
        self._used_at = time.monotonic()
        if answer.is_last:
            self.close()
        return decoded

    def _connected(self, deadline: float) -> socket.socket:
        if self._socket is None:
            try:
                connection = socket.create_connection((self._host, self._port), _left(deadline))
                with contextlib.suppress(OSError):
                    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if self._tls is not None:
                    connection = self._tls.wrap_socket(connection, server_hostname=self._host)
            except OSError as error:
                raise ConnectionFailed(self.url, str(error) or type(error).__name__) from None
            self._socket = connection
        return self._socket


def _left(deadline: float) -> float:
    left_s = deadline - time.monotonic()
    if left_s <= 0:
        raise TimeoutError
    return left_s


def _error_of(answer: Any, method: str) -> FairstrikeError:
    """The exception for an answer without a result."""
    failure = answer.get("error") if isinstance(answer, dict) else answer
    return from_error(failure if isinstance(failure, dict) else {"message": str(failure)}, method)
