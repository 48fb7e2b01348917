"""The tape as a feed: its index as time passes, and surfaces fitted to the trades made so far."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from math import exp, sqrt
from typing import Final

from sequencer.market import svi_fit
from sequencer.market.feeds import IndexReport, Report, SurfaceReport
from sequencer.market.tape import YEAR_S, Tape, Trade, expiry_s
from sequencer.protocol.constants import PPM, U32_MAX
from sequencer.protocol.surface import Surface

MEMORY_S: Final = 7_200  # a trade's weight in a fit falls by e in this time
IV_UNKNOWN: Final = 0.7  # of an expiry before any option of the tape has traded
STRIKE_TRADES_KEPT: Final = 32  # of a strike in a fit


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
