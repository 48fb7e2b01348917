"""A public source as a feed: Deribit's answers, or those of whoever speaks in that shape.

`public/get_index_price` gives the index, `public/get_book_summary_by_currency` the mark volatility of every option, to
which one surface an expiry is fitted. Fields: https://docs.deribit.com/api-reference/market-data. Numbers are read as
decimals; an answer that is not in that shape is an error with its place.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

from sequencer.market import svi_fit
from sequencer.market.feeds import FeedError, IndexReport, Limits, News, Report, SurfaceReport
from sequencer.market.polled import HttpSource
from sequencer.market.tape import UNDERLYINGS, YEAR_S, TapeError, expiry_s, number, parse_instrument, to_ticks

SURFACES_EVERY_S: Final = 30
EXPIRIES_MAX: Final = 32
BYTES_MAX: Final = 4 << 20  # of a summary: some 400 bytes an option
TIMEOUT_S: Final = 5.0
USEC: Final = 10**6


class DeribitSource(HttpSource):
    """Index each second, surfaces every SURFACES_EVERY_S, of the underlyings named. `url`: without /api/v2."""

    def __init__(
        self, url: str, currencies: Sequence[str] = tuple(UNDERLYINGS), limits: Limits | None = None
    ) -> None:
        super().__init__(url.rstrip("/"), limits, timeout_s=TIMEOUT_S, bytes_max=BYTES_MAX)
        unknown = [one for one in currencies if one not in UNDERLYINGS]
        if unknown:
            raise ValueError(f"currency {unknown[0]} is none of {', '.join(UNDERLYINGS)}")
        self._currencies = currencies
        self._surfaces_s = dict.fromkeys(currencies, 0)

    def _read(self, now_s: int) -> Sequence[News]:
        reports: list[Report] = []
        for currency in self._currencies:
            try:
                index = self._index(currency)
                reports.append(index)
                if now_s >= self._surfaces_s[currency]:
                    reports += self._surfaces(currency, index)
                    self._surfaces_s[currency] = now_s + SURFACES_EVERY_S
            except TapeError as error:
                raise FeedError(str(error)) from error
        return self._guard.admit(reports, now_s)

    def _ask(self, method: str, query: str) -> tuple[Any, int, str]:
        """The result of a method, the server's second, and where it came from."""
        where = f"{self.url}: {method}"
        body = self._get(f"{self.url}/api/v2/public/{method}?{query}")
        try:
            answer = json.loads(body, parse_float=Decimal)
        except (ValueError, RecursionError) as error:
            raise FeedError(f"{where}: no JSON: {error}") from error
        if not isinstance(answer, dict) or "result" not in answer:
            said = answer.get("error") if isinstance(answer, dict) else answer
            raise FeedError(f"{where}: no result: {str(said)[:200]}")
        return answer["result"], int(number(answer, "usOut", where)) // USEC, where

    def _index(self, currency: str) -> IndexReport:
        result, time_s, where = self._ask("get_index_price", f"index_name={currency.lower()}_usd")
        row: Mapping[str, object] = result if isinstance(result, dict) else {}
        price_ticks = to_ticks(number(row, "index_price", where), "index_price", where)
        if price_ticks == 0:
            raise FeedError(f"{where}: index_price: must be above 0")
        return IndexReport(UNDERLYINGS[currency], time_s, price_ticks)

    def _surfaces(self, currency: str, index: IndexReport) -> list[SurfaceReport]:
        result, time_s, where = self._ask("get_book_summary_by_currency", f"currency={currency}&kind=option")
        if not isinstance(result, list):
            raise FeedError(f"{where}: result: an array is needed")
        points: dict[int, list[svi_fit.SmilePoint]] = {}
        forwards: dict[int, int] = {}
        for at, row in enumerate(result):
            place = f"{where} [{at}]"
            if not isinstance(row, dict):
                raise FeedError(f"{place}: an object is needed")
            name = row.get("instrument_name")
            try:
                option = parse_instrument(name if isinstance(name, str) else "")
            except ValueError as error:
                raise FeedError(f"{place}: instrument_name: {error}") from error
            if row.get("mark_iv") is None or expiry_s(option.day) <= time_s:
                continue  # one that has no mark yet, or has just expired
            iv = float(number(row, "mark_iv", place)) / 100
            if iv > 0:
                points.setdefault(option.day, []).append(
                    svi_fit.SmilePoint(float(option.strike_ticks), iv, 1.0)
                )
                forwards[option.day] = to_ticks(
                    number(row, "underlying_price", place), "underlying_price", place
                )
        surfaces = []
        for day in sorted(points)[:EXPIRIES_MAX]:
            years = (expiry_s(day) - time_s) / YEAR_S
            try:
                surface = svi_fit.fit(points[day], float(forwards[day]), years).surface
            except svi_fit.FitError:
                continue
            surfaces.append(
                SurfaceReport(
                    underlying=index.underlying,
                    day=day,
                    time_s=time_s,
                    forward_ticks=forwards[day],
                    index_ticks=index.price_ticks,
                    a=surface.a_e12,
                    b=surface.b_e12,
                    rho=surface.rho_e12,
                    m=surface.m_e12,
                    sigma=surface.sigma_e12,
                )
            )
        return surfaces
