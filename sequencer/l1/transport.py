"""One HTTP request at a time over a kept-alive connection: a deadline for the whole of it, a bound on the answer.

A timeout of a socket is a timeout of each read: a body that drips escapes it for ever. Here every read gets what is
left of the request's time. An answer that ends before its length does is no answer.
"""

import base64
import http.client
import io
import re
import socket
import time
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import unquote, urlsplit

ANSWER_BYTES_MAX: Final = 64 * 1024 * 1024
HOST_SHOWN: Final = re.compile(r"[A-Za-z0-9.\-\[\]:]{1,255}")
SECRET_CHARS_MIN: Final = 6  # shorter parts of a URL are words such as "v3" or "rpc"


class AnswerTooLarge(OSError):
    """An answer above the bound: it is not read to its end."""


class HttpStatus(http.client.HTTPException):
    """An answer with a status that the caller did not ask for."""

    def __init__(self, status: int) -> None:
        super().__init__(f"HTTP {status}")
        self.status = status


def shown(url: str) -> str:
    """A URL without what may be a secret of it: user, password, path and query. Providers' keys stand there."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return "(a malformed URL)"
    if not parts.scheme or not HOST_SHOWN.fullmatch(host):
        return "(a malformed URL)"
    where = f"[{host}]" if ":" in host else host
    rest = "/…" if parts.path.strip("/") or parts.query else ""
    return f"{parts.scheme}://{where}{'' if port is None else f':{port}'}{rest}"


def without_secrets(text: str, url: str) -> str:
    """`text` without the parts of `url` that may be secrets: a provider repeats in its errors what it was sent."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return text
    found = [url, parts.username or "", parts.password or "", parts.path, parts.query]
    found += re.split(r"[/&=]", parts.path + "&" + parts.query)
    found += [unquote(one) for one in found]
    for one in sorted({one for one in found if len(one) >= SECRET_CHARS_MIN}, key=len, reverse=True):
        text = text.replace(one, "…")
    return text


class _Timed(io.RawIOBase):
    """Reads of a socket, each within what is left of the request's time."""

    def __init__(self, of: "_Socket") -> None:
        super().__init__()
        self._of = of

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        sock = self._of.sock
        sock.settimeout(self._of.left_s())
        return sock.recv_into(buffer)

    def close(self) -> None:
        if not self.closed:
            super().close()
            self._of.let_go()


class _Socket:
    """What http.client needs of a socket, with the request's deadline upon it. As a socket does, it stays open behind
    `close` for as long as somebody reads its file.
    """

    def __init__(self, sock: socket.socket, left_s: Callable[[], float]) -> None:
        self.sock = sock
        self.left_s = left_s
        self._readers = 0
        self._is_closed = False

    def makefile(self, _mode: str) -> io.BufferedReader:
        self._readers += 1
        return io.BufferedReader(_Timed(self))

    def let_go(self) -> None:
        """A file is closed."""
        self._readers -= 1
        if self._is_closed and self._readers <= 0:
            self.sock.close()

    def sendall(self, data: bytes) -> None:
        self.sock.settimeout(self.left_s())  # for all of it
        self.sock.sendall(data)

    def close(self) -> None:
        self._is_closed = True
        if self._readers <= 0:
            self.sock.close()


class HttpConnection:
    """One server, one connection. Not for several threads at once. User and password of the URL become a header."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._connection: http.client.HTTPConnection | None = None
        self._until_s = 0.0

    @property
    def is_open(self) -> bool:
        """Whether the next request goes over a connection that has carried one."""
        return self._connection is not None

    def close(self) -> None:
        """The next request opens a new connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def request(
        self,
        method: str,
        body: bytes | None,
        headers: dict[str, str],
        timeout_s: float,
        path: str | None = None,
    ) -> tuple[int, bytes]:
        """Status and body, both whole, within `timeout_s`; `path` None: the URL's own. Raises OSError (TimeoutError,
        AnswerTooLarge), HTTPException or ValueError; the connection is closed then.
        """
        try:
            return self._request(method, body, headers, timeout_s, path)
        except (OSError, http.client.HTTPException, ValueError):
            self.close()
            raise

    def _request(
        self, method: str, body: bytes | None, headers: dict[str, str], timeout_s: float, path: str | None
    ) -> tuple[int, bytes]:
        self._until_s = time.monotonic() + timeout_s
        parts = urlsplit(self._url)
        if path is None:
            path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        if self._connection is None:
            self._connection = self._connect(
                parts.scheme, parts.hostname or "127.0.0.1", parts.port, timeout_s
            )
        if parts.username is not None:
            given = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
            headers = {**headers, "Authorization": "Basic " + base64.b64encode(given).decode()}
        self._connection.request(method, path, body, headers)
        with self._connection.getresponse() as response:
            answer = response.read(ANSWER_BYTES_MAX + 1)
            if len(answer) > ANSWER_BYTES_MAX:
                raise AnswerTooLarge(f"the answer has more than {ANSWER_BYTES_MAX} bytes")
            if response.length:  # `read` with an amount says nothing of an end that came early
                raise http.client.IncompleteRead(answer, response.length)
            if response.will_close:
                self.close()
            return response.status, answer

    def _connect(
        self, scheme: str, host: str, port: int | None, timeout_s: float
    ) -> http.client.HTTPConnection:
        kind = http.client.HTTPSConnection if scheme == "https" else http.client.HTTPConnection
        connection = kind(host, port, timeout=timeout_s)
        connection.connect()
        connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sock = _Socket(connection.sock, self._left_s)  # all that http.client uses of one
        return connection

    def _left_s(self) -> float:
        left_s = self._until_s - time.monotonic()
        if left_s <= 0:
            raise TimeoutError("no whole answer in time")
        return left_s
