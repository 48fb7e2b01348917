"""Where price reports come from (a growing file, an HTTP address, the tape) and their signing into records.

A source is polled with the caller's clock and yields reports that are fresh and near the last ones, or raises
FeedError saying which field broke which limit. Units: seconds since 1970, price ticks of 0.01 USD, SVI
parameters times 1e12.
"""

from __future__ import annotations

import json
import random
import time
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, fields
from http.client import HTTPException
from math import exp, sqrt
from pathlib import Path
from typing import Annotated, Final, Protocol

import msgspec

from sequencer.market import svi_fit
from sequencer.market.tape import YEAR_S, Tape, Trade, expiry_s
from sequencer.protocol import codec
from sequencer.protocol.constants import PPM, U32_MAX, Kind
from sequencer.protocol.surface import ONE_E12, PARAMETER_MAX_E12, Surface

MEMORY_S: Final = 7_200  # a trade's weight in a fit falls by e in this time
IV_UNKNOWN: Final = 0.7  # of an expiry before any option of the tape has traded
STRIKE_TRADES_KEPT: Final = 32  # of a strike in a fit
LINE_BYTES_MAX: Final = 4_096

_Underlying = Annotated[int, msgspec.Meta(ge=0, le=15)]
_Time = Annotated[int, msgspec.Meta(ge=1, le=U32_MAX)]
_Ticks = Annotated[int, msgspec.Meta(ge=1, le=U32_MAX)]
_Signed = Annotated[int, msgspec.Meta(ge=-PARAMETER_MAX_E12, le=PARAMETER_MAX_E12)]


class FeedError(ValueError):
    """A report or source that is of no use now; the message names the field and its limit, or the source."""


@dataclass(frozen=True, slots=True)
class IndexReport:
    """The index of an underlying at a time."""

    underlying: _Underlying
    time_s: _Time
    price_ticks: _Ticks


@dataclass(frozen=True, slots=True)
class SurfaceReport:
    """Forward and SVI surface of an expiry at a time, and the index that they go with."""

    underlying: _Underlying
    day: Annotated[int, msgspec.Meta(ge=1, le=0xFFFF)]
    time_s: _Time
    forward_ticks: _Ticks
    index_ticks: _Ticks
    a: _Signed
    b: Annotated[int, msgspec.Meta(ge=0, le=PARAMETER_MAX_E12)]
    rho: Annotated[int, msgspec.Meta(ge=-ONE_E12, le=ONE_E12)]
    m: _Signed
    sigma: Annotated[int, msgspec.Meta(ge=1, le=PARAMETER_MAX_E12)]

    @property
    def surface(self) -> Surface:
        """The five parameters as the protocol holds them."""
        return Surface(self.a, self.b, self.rho, self.m, self.sigma)


Report = IndexReport | SurfaceReport


@dataclass(frozen=True, slots=True)
class SignedReport:
    """A report that a feed's own process has signed: `raw` is its record."""

    report: Report
    raw: bytes


News = Report | SignedReport


class FeedSource(Protocol):
    """What a feed asks for news."""

    def poll(self, now_s: int) -> Sequence[News]:
        """Reports since the last poll, the latest of each index and expiry. FeedError: see the class.

        A source that has failed raises its error again at each poll until it works, also when it was not asked anew.
        """
        ...


@dataclass(frozen=True, slots=True)
class Limits:
    """What a report may be at most. A jump counts only against a last price younger than `jump_window_s`."""

    index_age_s_max: int = 120
    surface_age_s_max: int = 900
    ahead_s_max: int = 2
    jump_ppm_max: int = 100_000
    jump_window_s: int = 300
    forward_ppm_max: int = 150_000
    iv_min: float = svi_fit.IV_MIN
    iv_max: float = svi_fit.IV_MAX


@dataclass(slots=True)
class Guard:
    """Lets each report through once, when it is fresh and no outlier."""

    limits: Limits = field(default_factory=Limits)
    _last: dict[tuple[int, int], Report] = field(default_factory=dict)

    def admit(self, reports: Iterable[Report], now_s: int) -> list[Report]:
        """The latest new report of each index and expiry; FeedError at the first beyond a limit."""
        latest: dict[tuple[int, int], Report] = {}
        for report in reports:
            key = _key(report)
            if key not in latest or report.time_s > latest[key].time_s:
                latest[key] = report
        admitted = []
        for key in sorted(latest):
            report, last = latest[key], self._last.get(key)
            self._check_time(report, now_s)  # also of one seen before: a source that stands still is stale
            if last is None or report.time_s > last.time_s:
                self._check_value(report, last)
                admitted.append(report)
        self._last |= {_key(report): report for report in admitted}
        return admitted

    def _check_time(self, report: Report, now_s: int) -> None:
        limits = self.limits
        age_s_max = limits.index_age_s_max if isinstance(report, IndexReport) else limits.surface_age_s_max
        if now_s - report.time_s > age_s_max:
            raise FeedError(f"time_s: {now_s - report.time_s} s old, at most {age_s_max} s")
        if report.time_s - now_s > limits.ahead_s_max:
            raise FeedError(f"time_s: {report.time_s - now_s} s ahead, at most {limits.ahead_s_max} s")

    def _check_value(self, report: Report, last: Report | None) -> None:
        limits = self.limits
        if isinstance(report, IndexReport):
            if isinstance(last, IndexReport) and report.time_s - last.time_s <= limits.jump_window_s:
                _check_ratio("price_ticks", report.price_ticks, last.price_ticks, limits.jump_ppm_max)
            return
        _check_ratio("forward_ticks", report.forward_ticks, report.index_ticks, limits.forward_ppm_max)
        remaining_s = expiry_s(report.day) - report.time_s
        if remaining_s <= 0:
            raise FeedError(f"day: {report.day} expired {-remaining_s} s before time_s")
        iv = svi_fit.implied_volatility(report.surface, 0.0, remaining_s / YEAR_S)
        if not limits.iv_min <= iv <= limits.iv_max:
            raise FeedError(
                f"a: at-the-money volatility {iv:.4f}, at least {limits.iv_min}, at most {limits.iv_max}"
            )


def _key(report: Report) -> tuple[int, int]:
    return report.underlying, report.day if isinstance(report, SurfaceReport) else 0


def _check_ratio(name: str, value: int, reference: int, ppm_max: int) -> None:
    if abs(value - reference) * PPM > reference * ppm_max:
        raise FeedError(f"{name}: {value} is off {reference} by more than {ppm_max} ppm")


def parse_report(value: object, where: str) -> Report:
    """`{"type": "index" | "surface", ...fields}` to a report; FeedError names place, field and limit."""
    kinds: dict[object, type[IndexReport] | type[SurfaceReport]] = {
        "index": IndexReport,
        "surface": SurfaceReport,
    }
    if not isinstance(value, dict):
        raise FeedError(f"{where}: a report must be an object")
    kind = kinds.get(value.get("type")) if isinstance(value.get("type"), str) else None
    if kind is None:
        raise FeedError(f"{where}: type: {value.get('type')!r} is neither index nor surface")
    unknown = sorted(set(value) - {"type"} - {known.name for known in fields(kind)})
    if unknown:
        raise FeedError(f"{where}: {unknown[0]}: unknown field")
    try:
        return msgspec.convert({name: item for name, item in value.items() if name != "type"}, kind)
    except msgspec.ValidationError as error:
        raise FeedError(f"{where}: {error}") from error


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


class _Smile:
    """What is remembered of an expiry's trades: the last ones of each strike, and the last ones of all.

    Bounded, so that a poll costs as much at the end of a long tape as at its beginning. Older trades weigh little in
    a fit: those of the last hours decide.
    """

    __slots__ = ("by_strike", "fitted", "last")

    def __init__(self) -> None:
        self.fitted: _Fitted | None = None  # to these trades
        self.by_strike: dict[int, deque[Trade]] = {}
        self.last: deque[Trade] = deque(maxlen=svi_fit.FORWARD_TRADES)

    def add(self, trade: Trade) -> None:
        """A trade, later than those before."""
        kept = self.by_strike.get(trade.strike_ticks)
        if kept is None:
            kept = self.by_strike[trade.strike_ticks] = deque(maxlen=STRIKE_TRADES_KEPT)
        kept.append(trade)
        self.last.append(trade)
        self.fitted = None

    def at(self, day: int, index_ticks: int, now_s: int) -> tuple[int, Surface] | None:
        """Forward and surface now; None without a usable trade.

        Without a new trade the smile stands as it was fitted: the weights of its points fall together.
        """
        known = self.fitted
        if known is None:
            forward = svi_fit.forward_of(self.last, index_ticks)
            kept = (trade for trades in self.by_strike.values() for trade in trades)
            try:
                found: Surface | None = svi_fit.fit(_points(kept, now_s), forward, _years(day, now_s)).surface
            except svi_fit.FitError:
                found = None
            known = self.fitted = _Fitted(found, forward, index_ticks, expiry_s(day) - now_s)
        if known.surface is None:
            return None
        forward = max(1, min(known.forward * index_ticks // known.index, U32_MAX))
        return forward, svi_fit.later(known.surface, known.left_s, expiry_s(day) - now_s)


@dataclass(frozen=True, slots=True)
class _Fitted:
    """A fit (None: no trade was usable), with forward and index in ticks, and the seconds to expiry of its time."""

    surface: Surface | None
    forward: int
    index: int
    left_s: int


class TapeSource:
    """The tape as a feed: its index as time passes, and surfaces fitted to the trades made so far.

    Every expiry of the tape is reported at the first poll and then each `refresh_s`, until it expires. One
    without usable trades yet is flat at the at-the-money volatility of the nearest expiry reported with it that
    has some, else at IV_UNKNOWN. A poll reads each trade once and costs the same however long the tape is.
    """

    def __init__(self, tape: Tape, underlying: int = 0, refresh_s: int = 60) -> None:
        self.tape = tape
        self.underlying = underlying
        self.refresh_s = refresh_s
        self._days = sorted({item.day for item in tape.instruments if item.underlying == underlying})
        self._smiles: dict[int, _Smile] = {day: _Smile() for day in self._days}
        self._read_s = -1
        self._read = 0  # trades of the tape that have been read
        self._at = 0  # points of the index whose time has come
        self._index_s = -1
        self._reported_s: dict[int, int] = {}

    def poll(self, now_s: int) -> list[Report]:
        """The index when a newer one is known, then the surfaces due; nothing before the index begins."""
        self._read_until(now_s)
        if self._at == 0:
            return []
        point = self.tape.index[self._at - 1]
        reports: list[Report] = []
        if point.time_s > self._index_s:
            self._index_s = point.time_s
            reports.append(IndexReport(self.underlying, point.time_s, point.price_ticks))
        due = [
            day
            for day in self._days
            if expiry_s(day) > now_s
            and (day not in self._reported_s or now_s - self._reported_s[day] >= self.refresh_s)
        ]
        if due:
            reports += self._surfaces(due, point.price_ticks, now_s)
            self._reported_s |= dict.fromkeys(due, now_s)
        return reports

    def _read_until(self, now_s: int) -> None:
        """Goes on in the tape, which is sorted, to what is known at `now_s`; time that goes back reads nothing."""
        if now_s <= self._read_s:
            return
        self._read_s = now_s
        index, trades = self.tape.index, self.tape.trades
        while self._at < len(index) and index[self._at].time_s <= now_s:
            self._at += 1
        while self._read < len(trades) and trades[self._read].time_ms <= now_s * 1000:
            trade = trades[self._read]
            if trade.underlying == self.underlying:
                self._smiles[trade.day].add(trade)
            self._read += 1

    def _surfaces(self, due: list[int], index_ticks: int, now_s: int) -> list[SurfaceReport]:
        surfaces: dict[int, tuple[int, Surface]] = {}
        for day in due:
            found = self._smiles[day].at(day, index_ticks, now_s)
            if found is not None:
                surfaces[day] = found
        known = dict(surfaces)
        for day in due:
            if day not in surfaces:
                iv = IV_UNKNOWN
                if known:
                    near = min(known, key=lambda other: (abs(other - day), other))
                    iv = svi_fit.implied_volatility(known[near][1], 0.0, _years(near, now_s))
                surfaces[day] = (index_ticks, svi_fit.flat(iv, _years(day, now_s)))
        return [
            SurfaceReport(
                underlying=self.underlying,
                day=day,
                time_s=now_s,
                forward_ticks=surfaces[day][0],
                index_ticks=index_ticks,
                a=surfaces[day][1].a_e12,
                b=surfaces[day][1].b_e12,
                rho=surfaces[day][1].rho_e12,
                m=surfaces[day][1].m_e12,
                sigma=surfaces[day][1].sigma_e12,
            )
            for day in due
        ]


def _years(day: int, now_s: int) -> float:
    return (expiry_s(day) - now_s) / YEAR_S


def _points(trades: Iterable[Trade], now_s: int) -> list[svi_fit.SmilePoint]:
    """Larger and later trades weigh more: sqrt(contracts) x exp(-age / MEMORY_S)."""
    return [
        svi_fit.SmilePoint(
            strike=float(trade.strike_ticks),
            iv=trade.iv_e6 / PPM,
            weight=sqrt(trade.quantity_lots / 10_000) * exp(max(-600.0, (trade.time_s - now_s) / MEMORY_S)),
        )
        for trade in trades
    ]


def sign_reports(reports: Iterable[Report], feed: int, private_key: bytes, domain: bytes) -> list[bytes]:
    """FEED and SURFACE records of reports, signed with the key of feed `feed`.

    ValueError names a field that does not fit its record.
    """
    records = []
    for report in reports:
        if isinstance(report, IndexReport):
            raw = codec.encode(
                Kind.FEED,
                underlying=report.underlying,
                feed=feed,
                time=report.time_s,
                price=report.price_ticks,
            )
        else:
            raw = codec.encode(
                Kind.SURFACE,
                underlying=report.underlying,
                feed=feed,
                day=report.day,
                time=report.time_s,
                forward=report.forward_ticks,
                index=report.index_ticks,
                a=report.a,
                b=report.b,
                rho=report.rho,
                m=report.m,
                sigma=report.sigma,
            )
        records.append(codec.sign(raw, domain, private_key))
    return records


def _json(data: bytes, where: str) -> object:
    try:
        value: object = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise FeedError(f"{where}: no JSON: {error}") from error
    return value
