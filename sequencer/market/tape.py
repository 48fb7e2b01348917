"""The demo's tape: recorded option trades and an index series, or a seeded stand-in of the same shape.

Amounts and prices are parsed as decimals, never as floats. Units: prices in ticks of 0.01 USD, quantities in
lots of 0.0001 contract, implied volatility times 1e6 (0.6748 = 674800), times in seconds or milliseconds
since 1970 (UTC).

Recorded options are quoted in coin: premium in USD = price x index of the same trade.
"""

from __future__ import annotations

import csv
import datetime as dt
import random
import re
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation
from itertools import pairwise
from math import isqrt
from operator import attrgetter
from pathlib import Path
from typing import Final

from sequencer.protocol.black76 import TICK_E10, price_e10
from sequencer.protocol.constants import BUY, DAY_S, EXPIRY_OF_DAY_S, SELL, U32_MAX, U40_MAX
from sequencer.protocol.surface import Surface, variance_e12

UNDERLYINGS: Final[Mapping[str, int]] = {"BTC": 0, "ETH": 1}
"""Currency of an instrument's name -> underlying id of the protocol."""

LOTS_PER_CONTRACT: Final = 10_000
TICKS_PER_USD: Final = 100
YEAR_S: Final = 365 * DAY_S
STRIKE_TICKS_MAX: Final = 2**31 - 1
IV_PERCENT_MAX: Final = 10_000
TRADES_FILE: Final = Path("deribit-trades-2022-01-01", "trades.csv")
BARS_DIR: Final = "btc-perp-1min"

_NAME = re.compile(r"([A-Z0-9_]+)-(\d{1,2})([A-Z]{3})(\d{2})-(\d+(?:d\d+)?)-([CP])", re.ASCII)
_MONTHS: Final = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
CSV_NAMES: Final = {"q": "amount", "p": "price", "t": "timestamp"}  # trades.csv -> the API's names


def expiry_s(day: int) -> int:
    """08:00 UTC of a day since 1970, in seconds since 1970."""
    return day * DAY_S + EXPIRY_OF_DAY_S


class TapeError(ValueError):
    """What cannot be read as a tape; the message says `file:line: field: what is wrong`."""


@dataclass(frozen=True, slots=True, order=True)
class Instrument:
    """An option as the exchange it was recorded from names it."""

    underlying: int
    day: int
    """Days since 1970; expires at 08:00 UTC of it."""
    strike_ticks: int
    is_put: bool
    name: str

    @property
    def expiry_s(self) -> int:
        """Expiry, seconds since 1970."""
        return expiry_s(self.day)


@dataclass(frozen=True, slots=True)
class Trade:
    """One fill as the public saw it."""

    time_ms: int
    instrument: str
    underlying: int
    day: int
    strike_ticks: int
    is_put: bool
    side: int
    """The taker's: BUY or SELL."""
    quantity_lots: int
    price_coin: Decimal
    """As quoted, in coin per contract."""
    price_ticks: int
    """price_coin x index of the trade, half up, at least 1."""
    index_ticks: int
    iv_e6: int
    """As the source computed it; 0 where the price was below intrinsic value."""
    trade_seq: int
    trade_id: str

    @property
    def time_s(self) -> int:
        """Whole seconds since 1970, floored."""
        return self.time_ms // 1000


@dataclass(frozen=True, slots=True)
class IndexPoint:
    """The index known at a time."""

    time_s: int
    price_ticks: int


@dataclass(frozen=True, slots=True)
class Tape:
    """Trades and index points by time, and every instrument that traded."""

    trades: tuple[Trade, ...]
    index: tuple[IndexPoint, ...]
    instruments: tuple[Instrument, ...]
    source: str

    def trades_until(self, time_s: int) -> tuple[Trade, ...]:
        """Trades known at `time_s`: made at or before the start of that second."""
        return self.trades[: self._trades_at(time_s)]

    def trades_between(self, after_s: int, until_s: int) -> tuple[Trade, ...]:
        """Trades with after_s < time <= until_s, so that adjoining windows meet without overlap."""
        return self.trades[self._trades_at(after_s) : self._trades_at(until_s)]

    def index_between(self, after_s: int, until_s: int) -> tuple[IndexPoint, ...]:
        """Index points with after_s < time <= until_s."""
        return self.index[self._index_at(after_s) : self._index_at(until_s)]

    def index_at(self, time_s: int) -> IndexPoint | None:
        """Latest index point at or before `time_s`; None before the first."""
        position = self._index_at(time_s)
        return self.index[position - 1] if position else None

    def _trades_at(self, time_s: int) -> int:
        return bisect_right(self.trades, time_s * 1000, key=attrgetter("time_ms"))

    def _index_at(self, time_s: int) -> int:
        return bisect_right(self.index, time_s, key=attrgetter("time_s"))


def open_tape(data_dir: Path | str | None, seed: int = 1) -> Tape:
    """The recorded tape in `data_dir`; without one the generator's.

    Raises TapeError, which says what was expected and what was found: what somebody has given is not replaced.
    """
    if data_dir is None:
        return generate_tape(seed)
    folder = Path(data_dir)
    if not (folder / TRADES_FILE).is_file() or not any((folder / BARS_DIR).glob("*.csv")):
        held = ", ".join(sorted(one.name for one in folder.iterdir())[:5]) if folder.is_dir() else ""
        found = (held or "nothing") if folder.is_dir() else "a file" if folder.exists() else "no such folder"
        raise TapeError(
            f"{folder}: a folder with {TRADES_FILE} and {BARS_DIR}/*.csv is expected; found: {found} "
            "(`fairstrike replay-market` takes a tape of one's own)"
        )
    tape = load_tape(folder)
    first = tape.trades[0].time_s if tape.trades else 0
    if first // DAY_S != START_S // DAY_S:
        found = str(dt.datetime.fromtimestamp(first, dt.UTC).date()) if first else "none"
        raise TapeError(
            f"{folder / TRADES_FILE}: trades of 1 January 2022 are expected, the day of the demo's story; "
            f"found: {found} (`fairstrike replay-market` takes any day)"
        )
    return tape


def load_tape(data_dir: Path | str) -> Tape:
    """The recorded tape: trades from `<data_dir>/deribit-trades-2022-01-01/trades.csv`, index from
    `<data_dir>/btc-perp-1min/*.csv`.
    """
    trades_path = Path(data_dir) / TRADES_FILE
    trades = [
        trade_from_row({CSV_NAMES.get(name, name): value for name, value in row.items()}, where)
        for where, row in _csv_rows(trades_path)
    ]
    bars = sorted((Path(data_dir) / BARS_DIR).glob("*.csv"))
    if not bars:
        raise TapeError(f"{Path(data_dir) / BARS_DIR}: no .csv file of minute bars")
    points = [_bar(row, where) for path in bars for where, row in _csv_rows(path)]
    return make_tape(trades, points, f"recorded tape {trades_path.parent.name}")


def make_tape(trades: list[Trade], points: list[IndexPoint], source: str) -> Tape:
    """Sorts by time (fills of one millisecond keep their order) and drops nothing.

    TapeError when two index points share a time.
    """
    points = sorted(points, key=attrgetter("time_s"))
    for before, after in pairwise(points):
        if before.time_s == after.time_s:
            raise TapeError(f"{source}: time: two index points at {after.time_s}")
    instruments = {
        Instrument(trade.underlying, trade.day, trade.strike_ticks, trade.is_put, trade.instrument)
        for trade in trades
    }
    return Tape(
        trades=tuple(sorted(trades, key=attrgetter("time_ms"))),
        index=tuple(points),
        instruments=tuple(sorted(instruments)),
        source=source,
    )


def parse_instrument(name: str, underlyings: Mapping[str, int] = UNDERLYINGS) -> Instrument:
    """`BTC-2JAN22-48000-C`, strikes with `d` for the decimal point, to an instrument.

    ValueError when it is no option's name, the strike is off the 0.01 USD grid, or the currency has no
    underlying here.
    """
    match = _NAME.fullmatch(name)
    if match is None:
        raise ValueError(f"{name!r} is not CURRENCY-DMMMYY-STRIKE-C|P")
    currency, day, month, year, strike, kind = match.groups()
    ticks = Decimal(strike.replace("d", ".")) * TICKS_PER_USD
    if ticks != ticks.to_integral_value() or not 0 < ticks <= STRIKE_TICKS_MAX:
        raise ValueError(f"{name!r}: strike must be a multiple of 0.01 USD up to {STRIKE_TICKS_MAX} ticks")
    if currency not in underlyings:
        raise ValueError(f"{name!r}: currency {currency} is none of {', '.join(underlyings)}")
    try:
        date = dt.date(2000 + int(year), _MONTHS.index(month) + 1, int(day))
    except ValueError as error:
        raise ValueError(f"{name!r}: {day}{month}{year} is no date") from error
    return Instrument(underlyings[currency], (date - dt.date(1970, 1, 1)).days, int(ticks), kind == "P", name)


def trade_from_row(row: Mapping[str, object], where: str) -> Trade:
    """One trade from the API's field names; values are strings, integers or decimals.

    TapeError names the field. Options quoted in USDC are refused: their price is not in coin.
    """
    name = _text(row, "instrument_name", where)
    try:
        instrument = parse_instrument(name)
    except ValueError as error:
        raise TapeError(f"{where}: instrument_name: {error}") from error
    if "_" in name:
        raise TapeError(f"{where}: instrument_name: {name!r} is quoted in USD, not in coin")
    direction = _text(row, "direction", where)
    if direction not in ("buy", "sell"):
        raise TapeError(f"{where}: direction: {direction!r} is neither buy nor sell")
    price = number(row, "price", where)
    index = number(row, "index_price", where)
    iv = number(row, "iv", where)
    for field, value in (("price", price), ("index_price", index)):
        if value <= 0:
            raise TapeError(f"{where}: {field}: {value} must be above 0")
    if not 0 <= iv <= IV_PERCENT_MAX:
        raise TapeError(f"{where}: iv: {iv} must be from 0 to {IV_PERCENT_MAX} percent")
    return Trade(
        time_ms=integer(number(row, "timestamp", where), "timestamp", where, (1 << 32) * 1000),
        instrument=name,
        underlying=instrument.underlying,
        day=instrument.day,
        strike_ticks=instrument.strike_ticks,
        is_put=instrument.is_put,
        side=BUY if direction == "buy" else SELL,
        quantity_lots=integer(number(row, "amount", where) * LOTS_PER_CONTRACT, "amount", where, U40_MAX),
        price_coin=price,
        price_ticks=max(1, to_ticks(price * index, "price", where)),
        index_ticks=to_ticks(index, "index_price", where),
        iv_e6=int((iv * 10_000).to_integral_value(ROUND_HALF_UP)),
        trade_seq=integer(number(row, "trade_seq", where), "trade_seq", where, 2**63 - 1),
        trade_id=_text(row, "trade_id", where),
    )


def to_ticks(usd: Decimal, field: str, where: str) -> int:
    """USD to ticks, half up; TapeError beyond uint32."""
    ticks = int((usd * TICKS_PER_USD).to_integral_value(ROUND_HALF_UP))
    if not 0 <= ticks <= U32_MAX:
        raise TapeError(f"{where}: {field}: {usd} USD is beyond {U32_MAX} ticks")
    return ticks


def number(row: Mapping[str, object], field: str, where: str) -> Decimal:
    """A finite number of a row, exact; TapeError when it is missing or none (booleans, floats are none)."""
    value = row.get(field)
    if isinstance(value, (str, int, Decimal)) and not isinstance(value, bool):
        try:
            parsed = Decimal(value)
        except InvalidOperation:
            parsed = Decimal("NaN")
        if parsed.is_finite():
            return parsed
    raise TapeError(f"{where}: {field}: {'missing' if value is None else repr(value)}, a number is needed")


def integer(value: Decimal, field: str, where: str, maximum: int) -> int:
    """A number that must be an integer in 1..maximum (in the protocol's unit)."""
    if value != value.to_integral_value() or not 0 < value <= maximum:
        raise TapeError(f"{where}: {field}: {value} units must be a whole number from 1 to {maximum}")
    return int(value)


def _text(row: Mapping[str, object], field: str, where: str) -> str:
    value = row.get(field)
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or not value:
        raise TapeError(f"{where}: {field}: missing or not text")
    return value


def _csv_rows(path: Path) -> list[tuple[str, dict[str, str]]]:
    """Rows with their place `file:line`.

    TapeError when the file cannot be read or a row is longer or shorter than the first line.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            rows = [(f"{path.name}:{reader.line_num}", row) for row in reader]
    except OSError as error:
        raise TapeError(f"{path}: {error.strerror}") from error
    for where, row in rows:
        if None in row or None in row.values():
            raise TapeError(f"{where}: columns: as many as in the first line are needed")
    return rows


def _bar(row: Mapping[str, object], where: str) -> IndexPoint:
    """A bar's close at its timestamp, because the recording stamps a bar with its END.

    Against the index of the trades, the close at the stamp is off by 26 USD on average, the open by 39.
    The close of a bar is the open of the next one, so nothing later than the stamp is used.
    """
    text = _text(row, "timestamp", where)
    try:
        moment = dt.datetime.fromisoformat(text[:19]).replace(tzinfo=dt.UTC)
    except ValueError as error:
        raise TapeError(f"{where}: timestamp: {text!r} is no UTC time") from error
    price = number(row, "close", where)
    if price <= 0:
        raise TapeError(f"{where}: close: {price} must be above 0")
    return IndexPoint(int(moment.timestamp()), to_ticks(price, "close", where))


# --- the seeded stand-in ----------------------------------------------------------------------
START_S: Final = 1_640_995_200  # 2022-01-01 00:00 UTC
TRADES: Final = 1_350
TAPE_MS: Final = (20_191, 37_776_955)  # first and last trade after START_S
BARS_FROM_S: Final = START_S - 59 * 60
BARS: Final = 21_659
COIN_STEP_E4: Final = 5  # prices are multiples of 0.0005 coin
CARRY_E6: Final = 60_000  # forward over index, a year

# days after the first, at-the-money volatility in percent, share of the trades; strikes from, to, step in
# 1000 USD; instruments
_EXPIRIES: Final = (
    (0, 62, 139, 44, 51, 1, 10),
    (1, 58, 294, 42, 53, 1, 13),
    (2, 60, 149, 42, 53, 1, 14),
    (6, 65, 264, 36, 60, 1, 22),
    (13, 67, 154, 35, 64, 1, 23),
    (20, 69, 43, 36, 68, 2, 17),
    (27, 70, 153, 30, 80, 2, 24),
    (55, 73, 61, 26, 90, 4, 13),
    (83, 75, 55, 20, 120, 5, 15),
    (174, 79, 27, 20, 150, 5, 14),
    (363, 82, 11, 20, 200, 10, 6),
)
# minutes of the series -> price the index is drawn to, in USD
_ANCHORS: Final = (
    (0, 46_400),
    (1_000, 47_300),
    (6_800, 46_800),
    (7_200, 43_400),
    (10_300, 41_300),
    (17_000, 43_500),
    (BARS, 43_100),
)


class _Dice:
    """Integers from random.Random's bits only: no libm, so every machine draws the same."""

    def __init__(self, seed: int) -> None:
        self._bits = random.Random(seed).getrandbits  # noqa: S311  # market noise, not a secret

    def below(self, bound: int) -> int:
        """Uniform in 0..bound-1 (bias below 2^-32 of any bound here)."""
        return self._bits(64) * bound >> 64

    def normal_e6(self) -> int:
        """Nearly standard normal, times 1e6: twelve uniform numbers less their mean."""
        return sum(self.below(1_000_001) for _ in range(12)) - 6_000_000


def generate_tape(seed: int = 1) -> Tape:
    """A seeded stand-in: 1,350 trades in 10.5 hours across an expiry, 171 instruments of 11 expiries, 15 days
    of minutes.

    Equal for equal seeds on every machine. Prices are Black-76 on a smile, with a spread, on the 0.0005 coin
    grid; the smallest is 0.0005, so far wings trade above what their volatility says, as they do in life.
    """
    dice = _Dice(seed)
    points = _index_walk(dice)
    ladder = [_ladder(row) for row in _EXPIRIES]
    shares = [expiry for expiry, row in enumerate(_EXPIRIES) for _ in range(row[2])]
    chosen = [instrument for expiry in ladder for instrument in expiry]
    fills: list[tuple[int, Instrument, int]] = []
    while len(fills) < TRADES:
        # every instrument trades once; then expiries by their share, the ladder's head (near the money) most
        row = ladder[shares[dice.below(len(shares))]]
        pick = min(dice.below(len(row)), dice.below(len(row)))
        instrument = chosen.pop() if chosen else row[pick]
        end_ms = min(TAPE_MS[1], (instrument.expiry_s - START_S) * 1000 - 120_000)
        time_ms = START_S * 1000 + TAPE_MS[0] + dice.below(end_ms - TAPE_MS[0])
        side = BUY if dice.below(100) < 38 else SELL
        several = 1 if dice.below(12) else 2 + dice.below(4)
        fills += [(time_ms, instrument, side)] * several
    fills = sorted(fills[:TRADES], key=lambda fill: fill[0])
    fills[0] = (START_S * 1000 + TAPE_MS[0], *fills[0][1:])
    fills[-1] = (START_S * 1000 + TAPE_MS[1], *fills[-1][1:])
    seen: dict[str, int] = {}
    trades = []
    for number_of, (time_ms, instrument, side) in enumerate(fills):
        seen[instrument.name] = seen.get(instrument.name, 0) + 1
        point = points[(time_ms // 1000 - BARS_FROM_S) // 60]
        row_of_trade = _quote(dice, instrument, side, point.price_ticks, time_ms)
        row_of_trade |= {"trade_seq": seen[instrument.name], "trade_id": 197_392_876 + number_of}
        trades.append(trade_from_row(row_of_trade, f"generated:{number_of}"))
    return make_tape(trades, points, f"seeded generator, seed {seed}")


def _index_walk(dice: _Dice) -> list[IndexPoint]:
    """Minute points: drawn to the anchors, diffusing at about 65 % a year, jumps of 0.3 to 1 %."""
    points = []
    price = _ANCHORS[0][1] * TICKS_PER_USD
    segment = 0
    for minute in range(BARS):
        if minute >= _ANCHORS[segment + 1][0]:
            segment += 1
        (from_minute, low), (to_minute, high) = _ANCHORS[segment : segment + 2]
        share = (high - low) * TICKS_PER_USD * (minute - from_minute) // (to_minute - from_minute)
        price += (low * TICKS_PER_USD + share - price) // 400
        price += price * 900 * dice.normal_e6() // 10**12
        if dice.below(2_000) == 0:
            price += price * (3 + dice.below(8)) * (1 - 2 * dice.below(2)) // 1_000
        points.append(IndexPoint(BARS_FROM_S + 60 * minute, price))
    return points


def _ladder(row: tuple[int, ...]) -> list[Instrument]:
    """An expiry's instruments, the nearest to 47,000 USD first: out of the money ones before the others."""
    days, _, _, low, high, step, count = row
    date = dt.date(2022, 1, 1) + dt.timedelta(days=days)
    label = f"{date.day}{_MONTHS[date.month - 1]}{date:%y}"
    pairs = [(strike, kind) for strike in range(low, high + 1, step) for kind in "CP"]
    pairs.sort(key=lambda pair: (abs(pair[0] - 47) + (8 if (pair[0] < 47) == (pair[1] == "C") else 0), pair))
    return [parse_instrument(f"BTC-{label}-{strike}000-{kind}") for strike, kind in pairs[:count]]


def _quote(dice: _Dice, instrument: Instrument, side: int, index: int, time_ms: int) -> dict[str, object]:
    """Price, volatility and size of one fill, under the API's names."""
    remaining_s = instrument.expiry_s - time_ms // 1000
    days = instrument.day - START_S // DAY_S
    percent = next(row[1] for row in _EXPIRIES if row[0] == days)
    at_the_money = percent * percent * 10**8 * remaining_s // YEAR_S  # total variance, 1e-12
    stdev_e12 = isqrt(at_the_money * 10**12)
    smile = Surface(at_the_money * 6 // 10, stdev_e12 // 4, -(10**11), 0, stdev_e12 * 16 // 10)
    forward = index * (10**6 + CARRY_E6 * remaining_s // YEAR_S) // 10**6
    spread_e4 = 10_000 + (200 if side == BUY else -200) + dice.normal_e6() // 10_000
    variance = variance_e12(smile, forward, instrument.strike_ticks) * spread_e4 // 10_000
    premium = price_e10(forward, instrument.strike_ticks, instrument.is_put, variance)
    step_e10 = forward * TICK_E10 * COIN_STEP_E4 // 10**4  # as the source does: coin = USD / forward
    steps = max(1, (premium + step_e10 // 2) // step_e10)
    size = 1 + dice.below(10) * dice.below(10) * dice.below(8) // 5
    return {
        "instrument_name": instrument.name,
        "timestamp": time_ms,
        "direction": "buy" if side == BUY else "sell",
        "amount": Decimal(size).scaleb(-1),
        "price": Decimal(steps * COIN_STEP_E4).scaleb(-4),
        "index_price": Decimal(index).scaleb(-2),
        "iv": Decimal(isqrt(variance * YEAR_S // remaining_s) // 100).scaleb(-2),
    }
