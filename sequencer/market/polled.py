"""Sources of price reports that are polled: a growing file, an HTTP address."""

from __future__ import annotations

import json
import random
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from http.client import HTTPException
from pathlib import Path
from typing import Final

from sequencer.market.feeds import FeedError, Guard, Limits, News, Report, parse_report

LINE_BYTES_MAX: Final = 4_096


class FileSource:
    """Reports appended to a file, one JSON object a line.

    A line counts once it has its end. A file that got shorter is read from its beginning.
    """

    def __init__(self, path: Path | str, limits: Limits | None = None, bytes_max: int = 1 << 20) -> None:
        if bytes_max < LINE_BYTES_MAX:
            raise ValueError(f"bytes_max must be at least {LINE_BYTES_MAX}")
        self.path = Path(path)
        self.bytes_max = bytes_max
        self._guard = Guard(limits or Limits())
        self._offset = 0
        self._line = 0

    def poll(self, now_s: int) -> list[Report]:
        """Reports of new lines, at most `bytes_max` bytes. A bad line is passed over after its FeedError."""
        try:
            with self.path.open("rb") as file:
                if file.seek(0, 2) < self._offset:
                    self._offset = self._line = 0
                file.seek(self._offset)
                block = file.read(self.bytes_max)
        except OSError as error:
            raise FeedError(f"{self.path.name}: {error.strerror}") from error
        reports: list[Report] = []
        for line in block.splitlines(keepends=True):
            if len(line) > LINE_BYTES_MAX:
                self._pass(line)
                raise FeedError(f"{self.path.name}:{self._line}: line longer than {LINE_BYTES_MAX} bytes")
            if not line.endswith(b"\n"):
                break
            try:
                if line.strip():
                    where = f"{self.path.name}:{self._line + 1}"
                    reports.append(parse_report(_json(line, where), where))
            except FeedError:
                if reports:
                    break  # the good ones first; the next poll meets the bad line again
                self._pass(line)
                raise
            self._pass(line)
        return self._guard.admit(reports, now_s)

    def _pass(self, line: bytes) -> None:
        self._offset += len(line)
        self._line += 1


class HttpSource:
    """Reports from an address: GET answers a JSON array of them, or an object with it under `reports`.

    Blocking for at most about twice `timeout_s`: poll it from a thread. After a failure it waits 1, 2, 4 ...
    seconds, up to `backoff_s_max`, each shortened by up to a quarter at random. Waits are of `monotonic`, whatever
    the exchange's clock does.
    """

    def __init__(
        self,
        url: str,
        limits: Limits | None = None,
        *,
        timeout_s: float = 2.0,
        bytes_max: int = 1 << 18,
        interval_s: int = 1,
        backoff_s_max: int = 60,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        if not url.startswith(("http://", "https://")):
            raise ValueError("url must begin with http:// or https://")
        self.url = url
        self.timeout_s = timeout_s
        self.bytes_max = bytes_max
        self.interval_s = interval_s
        self.backoff_s_max = backoff_s_max
        self._monotonic = monotonic
        self._guard = Guard(limits or Limits())
        self._next_s = float("-inf")
        self._failures = 0
        self._error = ""

    def poll(self, now_s: int) -> Sequence[News]:
        """Reports of one request. Without a request, before the interval or the back-off ends: none, or the failure."""
        if self._monotonic() < self._next_s:
            if self._error:
                raise FeedError(self._error)
            return []
        try:
            admitted = self._read(now_s)
        except FeedError as error:
            wait_s = min(1 << min(self._failures, 30), self.backoff_s_max)
            self._next_s = self._monotonic() + wait_s * random.uniform(0.75, 1.0)  # noqa: S311  # spreads, no secret
            self._failures += 1
            self._error = str(error)
            raise
        self._failures = 0
        self._error = ""
        self._next_s = self._monotonic() + self.interval_s
        return admitted

    def _read(self, now_s: int) -> Sequence[News]:
        """What the address says now. Raises FeedError."""
        value = _json(self._get(self.url), self.url)
        if isinstance(value, dict):
            value = value.get("reports")
        if not isinstance(value, list):
            raise FeedError(f"{self.url}: reports: an array is needed")
        reports = [parse_report(item, f"{self.url} [{at}]") for at, item in enumerate(value)]
        return self._guard.admit(reports, now_s)

    def _get(self, url: str) -> bytes:
        deadline = self._monotonic() + self.timeout_s
        headers = {"Accept": "application/json"}
        request = urllib.request.Request(url, headers=headers)  # noqa: S310  # scheme checked at the start
        body = b""
        try:
            with _OPENER.open(request, timeout=self.timeout_s) as answer:
                while chunk := answer.read1(65_536):
                    body += chunk
                    if len(body) > self.bytes_max or self._monotonic() > deadline:
                        break
        except urllib.error.HTTPError as error:
            error.close()
            raise FeedError(f"{self.url}: {error}") from None
        except (OSError, HTTPException) as error:
            raise FeedError(f"{self.url}: {error}") from error
        if len(body) > self.bytes_max:
            raise FeedError(f"{self.url}: answer longer than {self.bytes_max} bytes")
        if self._monotonic() > deadline:
            raise FeedError(f"{self.url}: answer took longer than {self.timeout_s} s")
        return body


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A feed's address is what its operator wrote; elsewhere is a failure."""

    def redirect_request(self, *_: object) -> None:
        return None


_OPENER: Final = urllib.request.build_opener(_NoRedirect)


def _json(data: bytes, where: str) -> object:
    try:
        value: object = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise FeedError(f"{where}: no JSON: {error}") from error
    return value
