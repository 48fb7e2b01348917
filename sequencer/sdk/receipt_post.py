"""Leaves receipts with watchers over HTTP, in the background: trading never waits for it.

Each watcher has a queue and a thread of its own, so that one that is away keeps nothing from the others. When a queue
is full its oldest receipts are dropped: they are still in the trader's file, if it keeps one.
"""

import http.client
import threading
import urllib.parse
from collections import deque
from dataclasses import dataclass
from typing import Final

import msgspec

from sequencer.sdk.receipts import Receipt

WAITING_MAX: Final = 8_192  # receipts of a watcher's queue
AT_ONCE: Final = 64
BYTES_AT_ONCE: Final = 512 * 1024
TIMEOUT_S: Final = 10.0
RETRY_FIRST_S: Final = 1.0
RETRY_MAX_S: Final = 60.0
WATCHERS_MAX: Final = 16
ANSWER_BYTES_MAX: Final = 1 << 20


@dataclass(slots=True)
class PostCounts:
    """Receipts of one watcher: `left` there, `refused` as no receipts of its exchange, `dropped` from a full queue.

    `error`: why the last try has failed; empty: it has not.
    """

    left: int = 0
    refused: int = 0
    dropped: int = 0
    error: str = ""


class ReceiptPost:
    """Receipts on their way to one watcher, `url` (http://HOST:PORT). ValueError when it is none."""

    def __init__(self, url: str, waiting_max: int = WAITING_MAX, retry_s: float = RETRY_FIRST_S) -> None:
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in ("http", "https") or parts.hostname is None:
            raise ValueError(f"watcher: must be http://HOST:PORT, got {url!r}")
        self.url = url
        self.counts = PostCounts()
        self._connect = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._host, self._port = parts.hostname, parts.port
        self._path = parts.path.rstrip("/").removesuffix("/receipts") + "/receipts"
        self._queue: deque[bytes] = deque()
        self._waiting_max = waiting_max
        self._retry_s = retry_s
        self._wake = threading.Event()
        self._idle = threading.Event()
        self._idle.set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="receipts", daemon=True)
        self._thread.start()

    def add(self, receipt: Receipt) -> None:
        """Leaves one with the watcher some time; returns at once."""
        self._idle.clear()
        self._queue.append(msgspec.json.encode(receipt))
        if len(self._queue) > self._waiting_max:
            self._queue.popleft()
            self.counts.dropped += 1
        self._wake.set()

    def close(self, patience_s: float = 5.0) -> None:
        """Waits `patience_s` at most for what is still to be left, then ends."""
        if not self.counts.error:
            self._idle.wait(patience_s)
        self._stop.set()
        self._wake.set()
        self._thread.join(TIMEOUT_S)

    def _run(self) -> None:
        retry_s = self._retry_s
        while not self._stop.is_set():
            self._wake.wait()
            self._wake.clear()
            while self._queue and not self._stop.is_set():
                lines = self._next()
                try:
                    self._post(lines)
                except (OSError, http.client.HTTPException, ValueError) as error:
                    self.counts.error = str(error) or repr(error)
                    self._queue.extendleft(reversed(lines))
                    self._stop.wait(retry_s)
                    retry_s = min(2 * retry_s, RETRY_MAX_S)
                else:
                    self.counts.error, retry_s = "", self._retry_s
            if not self._queue:
                self._idle.set()

    def _next(self) -> list[bytes]:
        """The oldest that fit into a request."""
        lines: list[bytes] = []
        size = 0
        while self._queue and len(lines) < AT_ONCE and (not lines or size < BYTES_AT_ONCE):
            lines.append(self._queue.popleft())
            size += len(lines[-1])
        return lines

    def _post(self, lines: list[bytes]) -> None:
        """One request. Raises OSError, HTTPException and ValueError: it is to be tried again."""
        connection = self._connect(self._host, self._port, timeout=TIMEOUT_S)
        try:
            connection.request(
                "POST", self._path, b"\n".join(lines), {"Content-Type": "application/x-ndjson"}
            )
            answer = connection.getresponse()
            body = answer.read(ANSWER_BYTES_MAX)
        finally:
            connection.close()
        if answer.status != http.client.OK:
            raise ValueError(f"{self.url}: HTTP {answer.status}: {body[:200].decode(errors='replace')}")
        told = msgspec.json.decode(body)
        rows = told if isinstance(told, list) else [told]
        good = sum(1 for row in rows if isinstance(row, dict) and row.get("valid") is True)
        self.counts.left += good
        self.counts.refused += len(lines) - good
