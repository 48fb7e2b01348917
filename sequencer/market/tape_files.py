"""A tape of one's own from files: any day of Deribit's public option trades, and bars of the index.

Trades: saved answers of `get_last_trades_by_currency…` (JSON, pages or JSON lines, as deribit.py reads them), or CSV
with the same field names or those of the recording of 1 January 2022 (q, p, t for amount, price, timestamp); a file, or
a folder of them. Pages may overlap.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import gcd
from pathlib import Path
from typing import Final

from sequencer.genesis import UNDERLYINGS
from sequencer.market import deribit
from sequencer.market.bars import Stamp, csv_rows, is_data, is_json, load_bars
from sequencer.market.tape import CSV_NAMES, IndexPoint, Tape, TapeError, Trade, make_tape, trade_from_row
from sequencer.protocol.constants import DAY_S
from sequencer.protocol.market import strike_step
from sequencer.protocol.params import Params, UnderlyingParams

FORM: Final = (
    "Deribit's option trades (saved answers in JSON or JSON lines, or CSV), a file or a folder of them"
)
LATE_S: Final = 3_600
_OTHER: Final = re.compile(r"[A-Z0-9]+(_[A-Z0-9]+)?(-(?!\d{1,2}[A-Z]{3}\d{2}-\d+(d\d+)?-[CP]$).+)?", re.ASCII)
"""By how much bars may begin after the first trade, or end before the last one."""


@dataclass(frozen=True, slots=True)
class MarketDay:
    """`trades` of all underlyings by time; `tapes` by underlying, each with its own index."""

    trades: tuple[Trade, ...]
    tapes: dict[int, Tape]
    source: str


def open_day(trades_path: Path | str, bars: Mapping[str, Path], stamp: Stamp = "end") -> MarketDay:
    """The tape in `trades_path` with the bars of each underlying, by its name; "" is that of the only one.

    Raises TapeError, which says what was expected and what was found.
    """
    trades = load_trades(trades_path)
    source = f"{Path(trades_path).name}, {len(trades)} trades"
    tapes: dict[int, Tape] = {}
    for number in sorted({trade.underlying for trade in trades}):
        name = UNDERLYINGS[number]
        of_it = [trade for trade in trades if trade.underlying == number]
        tapes[number] = make_tape(of_it, _bars_of(name, of_it, bars, trades, stamp), f"{source}, {name}")
    return MarketDay(tuple(trades), tapes, source)


def _bars_of(
    name: str, of_it: list[Trade], bars: Mapping[str, Path], trades: list[Trade], stamp: Stamp
) -> list[IndexPoint]:
    """The bars of an underlying, which must reach from its first trade to its last."""
    path = bars.get(name)
    if path is None and len(of_it) == len(trades):
        path = bars.get("")
    if path is None:
        given = ", ".join(f"{key}={value}" if key else str(value) for key, value in bars.items()) or "none"
        raise TapeError(
            f"--index: the tape has trades of {name}, so --index {name}=BARS is expected; given: {given}"
        )
    points = load_bars(path, stamp)
    first, last = of_it[0].time_s, of_it[-1].time_s
    if points[0].time_s > first + LATE_S or points[-1].time_s < last - LATE_S:
        raise TapeError(
            f"--index {path}: bars of {name} from {_utc(first)} to {_utc(last)} are expected, as the trades are; "
            f"found: from {_utc(points[0].time_s)} to {_utc(points[-1].time_s)}"
        )
    return points


def load_trades(path: Path | str) -> list[Trade]:
    """The trades of a file or folder by time; one that comes twice and is the same counts once. TapeError."""
    path = Path(path)
    if not path.exists():
        raise TapeError(f"{path}: {FORM}, is expected; there is nothing of that name")
    files = sorted(one for one in path.glob("*") if is_data(one)) if path.is_dir() else [path]
    if not files:
        held = ", ".join(sorted(one.name for one in path.iterdir())[:5]) or "nothing"
        raise TapeError(f"{path}: {FORM}, is expected; the folder holds {held}")
    trades: dict[str, Trade] = {}
    for file in files:
        for where, row in deribit.trade_rows(file) if is_json(file) else _csv_rows(file):
            if is_other(row):
                continue
            trade = trade_from_row(row, where)
            if trades.setdefault(trade.trade_id, trade) != trade:
                raise TapeError(f"{where}: trade_id: {trade.trade_id} came before with other contents")
    if not trades:
        raise TapeError(f"{path}: {FORM}, is expected; there is no trade in it")
    return sorted(trades.values(), key=lambda trade: (trade.time_ms, deribit.id_order(trade.trade_id)))


def is_other(row: Mapping[str, object]) -> bool:
    """Whether a row is a trade of a future, a combo or the like: its name is no option's, and it has no volatility.

    Answers that were asked for without a kind hold them among the options.
    """
    name = row.get("instrument_name")
    return isinstance(name, str) and not row.get("iv") and _OTHER.fullmatch(name) is not None


def _csv_rows(path: Path) -> Iterable[tuple[str, Mapping[str, object]]]:
    for where, row in csv_rows(path):
        yield where, {CSV_NAMES.get(name, name): value for name, value in row.items()}


def params_for(day: MarketDay, params: Params) -> tuple[Params, dict[str, int]]:
    """Parameters under which the exchange can list what the day trades; those that differ, by name.

    Deribit's strikes, expiries and the bars' interval are what they were; the defaults are for today's.
    """
    changed: dict[str, int] = {}
    underlyings = list(params.underlyings)
    for number, tape in day.tapes.items():
        strikes = [one.strike_ticks for one in tape.instruments]
        if any(strike % strike_step(strike, params.of(number)) for strike in strikes):
            step = gcd(*strikes)
            fine = {"strike_step_ppm": 0, "strike_step_min_ticks": step}
            underlyings[number] = _replaced(underlyings[number], fine)
            changed |= {f"{UNDERLYINGS[number]}.{name}": value for name, value in fine.items()}
        prices = [point.price_ticks for point in tape.index]
        ratio = max(-(-max(strikes) // min(prices)), -(-max(prices) // min(strikes)))
        days = max(one.day for one in tape.instruments) - day.trades[0].time_s // DAY_S + 1
        gaps = sorted(
            after.time_s - before.time_s for before, after in zip(tape.index, tape.index[1:], strict=False)
        )
        age = 3 * gaps[len(gaps) // 2] if gaps else 0
        for name, needed in (
            ("strike_ratio_max", ratio),
            ("listing_days_max", days),
            ("feed_age_max_s", age),
        ):
            if needed > max(getattr(params, name), changed.get(name, 0)):
                changed[name] = needed
    flat = {name: value for name, value in changed.items() if "." not in name}
    values = {name: getattr(params, name) for name in params.__dataclass_fields__} | flat
    return Params(**values | {"underlyings": tuple(underlyings)}), changed


def _replaced(one: UnderlyingParams, changes: Mapping[str, int]) -> UnderlyingParams:
    names = one.__dataclass_fields__
    return UnderlyingParams(**{name: changes.get(name, getattr(one, name)) for name in names})


def _utc(time_s: int) -> str:
    from sequencer.clock import utc

    return utc(time_s)


def instruments_of(day: MarketDay) -> list[tuple[int, int, int, bool]]:
    """What the day trades, as what to list: underlying, day, strike in ticks, is put."""
    return sorted({(trade.underlying, trade.day, trade.strike_ticks, trade.is_put) for trade in day.trades})
