"""A feed as a process of its own: it signs what its source reports, and shows the records to whoever asks.

So no key of a feed is on the sequencer's machine, and each feed can be another party's. The sequencer asks each feed
(`signed:URL`) and takes what is signed by that feed's key of PARAMS; it can leave out a record, not alter one.
"""

import json
import threading
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Final

from sequencer import pages
from sequencer.market.feeds import (
    FeedError,
    FeedSource,
    IndexReport,
    Limits,
    Report,
    SignedReport,
    SurfaceReport,
    sign_reports,
)
from sequencer.market.polled import HttpSource
from sequencer.protocol import codec
from sequencer.protocol.codec import Record
from sequencer.protocol.constants import Kind

PORT: Final = 9650  # of feed 0; feed n listens on PORT + n
RECORDS_MAX: Final = 1_024
POLL_S: Final = 0.5


class SignedSource(HttpSource):
    """Signed records of one feed process. `keys`: the feeds' addresses of PARAMS; `domain`: the exchange's."""

    def __init__(self, url: str, keys: Sequence[bytes], domain: bytes, limits: Limits | None = None) -> None:
        super().__init__(url, limits)
        self._keys = keys
        self._domain = domain

    def _read(self, now_s: int) -> list[SignedReport]:
        value = _object(self._get(self.url), self.url).get("records")
        if not isinstance(value, list) or len(value) > RECORDS_MAX:
            raise FeedError(f"{self.url}: records: an array of at most {RECORDS_MAX} is needed")
        read = [self._record(item, f"{self.url} [{at}]") for at, item in enumerate(value)]
        raw_of = dict(read)
        return [SignedReport(report, raw_of[report]) for report in self._guard.admit(raw_of, now_s)]

    def _record(self, value: object, where: str) -> tuple[Report, bytes]:
        try:
            raw = bytes.fromhex(value.removeprefix("0x")) if isinstance(value, str) else b""
        except ValueError:
            raw = b""
        record = codec.decode(raw, self._domain)
        if not isinstance(record, Record) or record.kind not in (Kind.FEED, Kind.SURFACE):
            raise FeedError(f"{where}: no signed FEED or SURFACE record of this exchange")
        named: dict[str, Any] = dict(record.named())
        feed = named.pop("feed")
        if feed >= len(self._keys) or record.signer != self._keys[feed]:
            raise FeedError(f"{where}: not signed with the key that PARAMS has for feed {feed}")
        named["time_s"] = named.pop("time")
        if record.kind == Kind.FEED:
            return IndexReport(price_ticks=named.pop("price"), **named), raw
        forward, index = named.pop("forward"), named.pop("index")
        return SurfaceReport(forward_ticks=forward, index_ticks=index, **named), raw


class FeedProcess:
    """Polls a source, signs, and keeps the newest record of each index and expiry. `feed`: its number in PARAMS."""

    def __init__(self, source: FeedSource, feed: int, private_key: bytes, domain: bytes) -> None:
        self._source = source
        self._feed = feed
        self._key = private_key
        self._domain = domain
        self._lock = threading.Lock()
        self._records: dict[tuple[int, int], tuple[int, bytes]] = {}  # -> the report's time, its record
        self.error = "nothing has been reported yet"
        self.error_at_s = 0
        self.reported_at_s = 0

    def look(self, now_s: int) -> int:
        """Takes what is new; how many reports that were. A source that fails is `error` until it works."""
        try:
            news = self._source.poll(now_s)
        except FeedError as error:
            self.error, self.error_at_s = str(error), now_s
            return 0
        reports = [one for one in news if not isinstance(one, SignedReport)]
        if reports:
            self.reported_at_s = now_s
        if self.reported_at_s:
            self.error = ""
        with self._lock:
            for report, raw in zip(
                reports, sign_reports(reports, self._feed, self._key, self._domain), strict=True
            ):
                day = report.day if isinstance(report, SurfaceReport) else 0
                self._records.pop((report.underlying, day), None)  # the newest stand last
                self._records[report.underlying, day] = (report.time_s, raw)
            while len(self._records) > RECORDS_MAX:
                del self._records[next(iter(self._records))]
        return len(reports)

    def shown(self, now_s: int, limits: Limits | None = None) -> dict[str, Any]:
        """What is served: the records that are not too old to be of use, and how the source is."""
        limits = limits or Limits()
        with self._lock:
            for key, (time_s, _) in list(self._records.items()):
                age_s_max = limits.surface_age_s_max if key[1] else limits.index_age_s_max
                if now_s - time_s > age_s_max:
                    del self._records[key]
            records = ["0x" + raw.hex() for _, raw in self._records.values()]
        return {
            "feed": self._feed,
            "records": records,
            "error": self.error,
            "reported_at": self.reported_at_s,
        }

    def run(self, stop: threading.Event) -> None:
        """Looks until `stop`."""
        while not stop.wait(POLL_S):
            self.look(int(time.time()))


def serve(process: FeedProcess, host: str, port: int) -> AbstractContextManager[int]:
    """Shows `process` to whoever asks: `/` the records, `/health` 200 or 503. The port."""

    def answer(path: str) -> tuple[int, str, str]:
        shown = process.shown(int(time.time()))
        if path == "/":
            return 200, "application/json", json.dumps(shown)
        error, code = {"error": shown["error"]}, 200 if shown["records"] and not shown["error"] else 503
        if path != "/health":
            error, code = {"error": "there are / and /health"}, 404
        return code, "application/json", json.dumps(error)

    return pages.serve(answer, host, port, "feed")


def _object(data: bytes, where: str) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise FeedError(f"{where}: no JSON: {error}") from error
    if not isinstance(value, dict):
        raise FeedError(f"{where}: an object is needed")
    return value
