"""Price reports: what they hold, what lets them through (`Guard`), and their signing into records.

A source is polled with the caller's clock and yields reports that are fresh and near the last ones, or raises
FeedError saying which field broke which limit. Units: seconds since 1970, price ticks of 0.01 USD, SVI
parameters times 1e12.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from typing import Annotated, Protocol

import msgspec

from sequencer.market import svi_fit
from sequencer.market.tape import YEAR_S, expiry_s
from sequencer.protocol import codec
from sequencer.protocol.constants import PPM, U32_MAX, Kind
from sequencer.protocol.surface import ONE_E12, PARAMETER_MAX_E12, Surface

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
