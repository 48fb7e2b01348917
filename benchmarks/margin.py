"""What margin asks of ten kinds of portfolio beside the worst that a fine grid finds, and beside recorded chains.

    python benchmarks/margin.py [--portfolios N] [--seed S] [--chain FOLDER]

IM is the exchange's own (`fairstrike margin`). The grid is double precision: every move of the forward inside the range
by 0.25 %, volatility up, as it is and down, now and after the horizon; each underlying moves for itself. With --chain,
portfolios of instruments that a venue quoted, and what they lost until its next snapshot, about six hours later (FOLDER
holds Parquet files with Deribit's field names). Needs numpy, scipy, and pyarrow for --chain.
"""

import argparse
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import pairwise
from math import exp, log
from pathlib import Path
from random import Random
from statistics import median
from typing import Any, Final

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.special import ndtr

from sequencer.genesis import UNDERLYINGS
from sequencer.market.portfolio import Portfolio, Position, evaluate
from sequencer.protocol import constants as c
from sequencer.protocol.params import Params

YEAR_S: Final = 365 * c.DAY_S
PARAMS: Final = Params()
GRID_STEP: Final = 0.0025
FORWARDS: Final = (100_000.0, 3_000.0)  # of the synthetic market
ROUNDED: Final = (100, 10)  # its strikes are multiples of these
DAYS: Final = (0.25, 1, 3, 7, 14, 30, 90, 180)
STRUCTURES: Final = (
    "straddle", "strangle", "calendar", "box", "spread", "fly", "condor", "ratio", "mixed", "both",
)  # fmt: skip
NEGLIGIBLE_USD: Final = 100.0
GAP_S: Final = (4 * 3_600, 7 * 3_600)  # between snapshots that are compared


@dataclass(frozen=True, slots=True)
class Leg:
    """One option; prices in USD, quantity in contracts, iv a year."""

    underlying: int
    forward: float
    strike: float
    is_put: bool
    seconds: int
    iv: float
    quantity: int


@dataclass(slots=True)
class Synthetic:
    """Expiries from six hours to half a year, each with a volatility of its own and a smile."""

    random: Random
    levels: dict[tuple[int, int], float] = field(default_factory=dict)

    def expiries(self, underlying: int) -> list[int]:
        return [int(days * c.DAY_S) for days in DAYS]

    def leg(self, underlying: int, seconds: int, moneyness: float, is_put: bool, quantity: int) -> Leg:
        """An option with ln(strike / forward) about `moneyness`."""
        forward, step = FORWARDS[underlying], ROUNDED[underlying]
        strike = max(round(forward * exp(moneyness) / step), 1) * step
        level = self.levels.setdefault((underlying, seconds), self.random.uniform(0.35, 0.8))
        iv = level * (1 + 1.5 * log(strike / forward) ** 2)
        return Leg(underlying, forward, strike, is_put, seconds, round(iv, 4), quantity)


def legs_of(kind: str, market: Any, random: Random) -> list[Leg]:
    """A portfolio of a kind; `market` has `expiries` and `leg`."""
    u = random.randrange(2)
    near, far = sorted(random.sample(market.expiries(u), 2))
    first, k = random.choice((near, far)), random.gauss(0, 0.06)
    d, put, sign = random.choice((0.01, 0.025, 0.05, 0.1)), random.random() < 0.5, random.choice((-1, 1))

    def leg(quantity: int, moneyness: float, is_put: bool, seconds: int = first) -> Leg:
        return market.leg(u, seconds, moneyness, is_put, quantity)  # type: ignore[no-any-return]  # a Leg

    if kind == "straddle":
        return [leg(sign, k, False), leg(sign, k, True)]
    if kind == "strangle":
        return [leg(sign, k + d, False), leg(sign, k - d, True)]
    if kind == "calendar":
        both = (False, True) if random.random() < 0.5 else (put,)
        return [leg(q, k, p, t) for p in both for q, t in ((sign, near), (-sign, far))]
    if kind == "box":
        return [leg(sign, k, False), leg(-sign, k + d, False), leg(sign, k + d, True), leg(-sign, k, True)]
    if kind == "spread":
        return [leg(sign, k, put), leg(-sign, k + d, put)]
    if kind == "fly":
        return [leg(sign, k - d, put), leg(-2 * sign, k, put), leg(sign, k + d, put)]
    if kind == "condor":
        moves = ((sign, -2 * d, True), (-sign, -d, True), (-sign, d, False), (sign, 2 * d, False))
        return [leg(q, k + move, p) for q, move, p in moves]
    if kind == "ratio":
        return [leg(sign, k, put), leg(-sign * random.randint(2, 5), k + (-d if put else d), put)]
    if kind == "mixed":
        return [
            leg(random.choice((-1, 1)) * random.randint(1, 5), random.gauss(0, 0.08), random.random() < 0.5,
                random.choice(market.expiries(u)))
            for _ in range(random.randint(3, 11))
        ]  # fmt: skip
    assert kind == "both"
    return [
        market.leg(underlying, random.choice(market.expiries(underlying)), random.gauss(0, 0.06),
                   random.random() < 0.5, random.choice((-1, 1)) * random.randint(1, 3) * (1, 30)[underlying])
        for underlying in (0, 0, 1, 1)
    ]  # fmt: skip


def merged(legs: Sequence[Leg]) -> list[Leg]:
    """Each option once; none of quantity 0."""
    found: dict[Leg, int] = {}
    for one in legs:
        key = replace(one, quantity=0)
        found[key] = found.get(key, 0) + one.quantity
    return [replace(one, quantity=quantity) for one, quantity in found.items() if quantity]


def margin_of(legs: Sequence[Leg], index: Sequence[float] = FORWARDS) -> tuple[float, float]:
    """IM and MM in USD, by the exchange's own integers."""
    positions = [
        Position(
            type="put" if one.is_put else "call",
            forward=f"{one.forward:.2f}",
            strike=f"{one.strike:.2f}",
            iv=f"{one.iv:.4f}",
            expires_in=one.seconds,
            quantity=str(one.quantity),
            underlying=UNDERLYINGS[one.underlying],
        )
        for one in legs
    ]
    indices = {name: f"{value:.2f}" for name, value in zip(UNDERLYINGS, index, strict=True)}
    result = evaluate(Portfolio(index=indices, positions=positions), PARAMS)
    return float(result["initial_margin"]), float(result["maintenance_margin"])


def priced(forward: Any, strike: Any, is_put: Any, seconds: Any, iv: Any) -> Any:
    """Black-76, USD."""
    stdev = np.maximum(iv * np.sqrt(np.maximum(seconds, 0) / YEAR_S), 1e-9)
    d1 = np.log(forward / strike) / stdev + stdev / 2
    call = forward * ndtr(d1) - strike * ndtr(d1 - stdev)
    return np.where(is_put, call - forward + strike, call)


def worst_of(legs: Sequence[Leg]) -> float:
    """The greatest loss on the grid, USD, summed over the underlyings."""
    return sum(_worst_of([one for one in legs if one.underlying == u], u) for u in (0, 1))


def _worst_of(held: Sequence[Leg], underlying: int) -> float:
    if not held:
        return 0.0
    forward, strike, put, seconds, iv, quantity = (
        np.array([getattr(one, name) for one in held], float)
        for name in ("forward", "strike", "is_put", "seconds", "iv", "quantity")
    )
    is_put = put > 0
    marks = priced(forward, strike, is_put, seconds, iv)
    steps = round(PARAMS.of(underlying).price_range_ppm / c.PPM / GRID_STEP)
    moved = forward * (1 + np.arange(-steps, steps + 1)[:, None] * GRID_STEP)
    shocks = replace(PARAMS.shocks(underlying), horizon_s=0)
    up, down = (
        np.array(factors) / c.PPM for factors in zip(*(shocks.left(one.seconds) for one in held), strict=True)
    )
    least = min(
        float(((priced(moved, strike, is_put, seconds - passed, iv * factor) - marks) @ quantity).min())
        for factor in (up, 1.0, down)
        for passed in (0, PARAMS.horizon_s)
    )
    return max(0.0, -least)


@dataclass(slots=True)
class Study:
    """IM beside the worst of the grid, by kind; `surplus` = (IM - worst) / notional, of boxes."""

    ratios: dict[str, list[float]] = field(default_factory=lambda: {kind: [] for kind in STRUCTURES})
    surplus: float = 0.0

    @property
    def all(self) -> list[float]:
        """IM / worst of every portfolio whose worst is not negligible."""
        return [one for kind in STRUCTURES for one in self.ratios[kind]]


def synthetic(count: int, seed: int) -> Study:
    """`count` random portfolios of the ten kinds by turns."""
    random, study = Random(seed), Study()
    for number in range(count):
        kind = STRUCTURES[number % len(STRUCTURES)]
        legs = merged(legs_of(kind, Synthetic(random), random))
        if not legs:
            continue
        worst, (initial, _) = worst_of(legs), margin_of(legs)
        if kind == "box":
            study.surplus = max(study.surplus, (initial - worst) / FORWARDS[legs[0].underlying])
        if worst > NEGLIGIBLE_USD or initial < worst - 1:  # what is below its worst counts, however small
            study.ratios[kind].append(initial / worst)
    return study


# --- recorded chains ------------------------------------------------------------------------------


@dataclass(slots=True)
class Snapshot:
    """A venue's chain at one time: by underlying its index and its quotes, (expiry, strike, put) -> (forward, iv)."""

    time: float
    index: list[float] = field(default_factory=lambda: [0.0, 0.0])
    quotes: list[dict[tuple[float, float, bool], tuple[float, float]]] = field(
        default_factory=lambda: [{}, {}]
    )

    def expiries(self, underlying: int) -> list[float]:
        """Those that have quotes, and more than an hour to run."""
        return sorted(
            {
                expiry
                for expiry, strike, put in self.quotes[underlying]
                if put and (expiry, strike, False) in self.quotes[underlying] and expiry > self.time + 3_600
            }
        )

    def leg(self, underlying: int, expiry: float, moneyness: float, is_put: bool, quantity: int) -> Leg:
        """The option whose strike is nearest, of those that have a call and a put."""
        quotes = self.quotes[underlying]
        strikes = sorted(k for at, k, put in quotes if at == expiry and put and (at, k, False) in quotes)
        forward = quotes[expiry, strikes[0], is_put][0]
        wanted = forward * exp(moneyness)
        place = min(bisect_left(strikes, wanted), len(strikes) - 1)
        strike = min(strikes[max(place - 1, 0) : place + 1], key=lambda one: abs(one - wanted))
        forward, iv = quotes[expiry, strike, is_put]
        return Leg(underlying, forward, strike, is_put, int(expiry - self.time), iv, quantity)

    def value(self, one: Leg, at: float) -> float | None:
        """What a leg that was held at time `at` is worth now, USD; None when it is not quoted any more."""
        expiry = round(at + one.seconds)
        if expiry <= self.time:
            gain = (one.strike - self.index[one.underlying]) * (1 if one.is_put else -1)
            return max(gain, 0.0) * one.quantity
        quote = self.quotes[one.underlying].get((expiry, one.strike, one.is_put))
        if quote is None:
            return None
        forward, iv = quote
        return float(priced(forward, one.strike, one.is_put, expiry - self.time, iv)) * one.quantity


def snapshots(folder: Path) -> list[Snapshot]:
    """Of all Parquet files of a folder, in order of time."""
    from pyarrow import parquet

    names = ("timestamp", "currency", "option_type", "strike", "expiry_datetime", "implied_volatility",
             "futures_price", "index_price", "snapshot_file")  # fmt: skip
    found: dict[str, Snapshot] = {}
    for path in sorted(folder.glob("*.parquet")):
        table = parquet.read_table(path, columns=list(names)).to_pydict()
        for time, currency, kind, strike, expiry, iv, forward, index, name in zip(
            *(table[column] for column in names), strict=True
        ):
            if currency not in UNDERLYINGS or not (iv and forward and index):
                continue
            now = datetime.fromisoformat(time).timestamp()
            one = found.setdefault(name, Snapshot(float(int(now))))
            underlying = UNDERLYINGS.index(currency)
            one.index[underlying] = index
            at = datetime.fromisoformat(expiry).timestamp()
            one.quotes[underlying][at, strike, kind == "put"] = (round(forward, 2), round(iv, 4))
    return sorted(found.values(), key=lambda one: one.time)


@dataclass(slots=True)
class Recorded:
    """How many portfolios lost more than IM and than MM until the next snapshot, by kind; all of them."""

    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(STRUCTURES, 0))
    beyond_im: dict[str, int] = field(default_factory=lambda: dict.fromkeys(STRUCTURES, 0))
    beyond_mm: dict[str, int] = field(default_factory=lambda: dict.fromkeys(STRUCTURES, 0))
    surplus: float = 0.0


def pairs(chain: Sequence[Snapshot]) -> Iterator[tuple[Snapshot, Snapshot]]:
    """Neighbours about six hours apart that quote both underlyings."""
    for before, after in pairwise(chain):
        if GAP_S[0] <= after.time - before.time <= GAP_S[1] and all(before.index) and all(after.index):
            yield before, after


def recorded(chain: Sequence[Snapshot], count: int, seed: int) -> Recorded:
    """`count` random portfolios of the ten kinds by turns, over the snapshots by turns."""
    random, study = Random(seed), Recorded()
    around = list(pairs(chain))
    for number in range(count):
        kind = STRUCTURES[number % len(STRUCTURES)]
        before, after = around[number // len(STRUCTURES) % len(around)]
        legs = merged(legs_of(kind, before, random))
        values = [after.value(one, before.time) for one in legs]
        if not legs or None in values:
            continue
        initial, maintenance = margin_of(legs, before.index)
        was = sum(
            float(priced(one.forward, one.strike, one.is_put, one.seconds, one.iv)) * one.quantity
            for one in legs
        )
        loss = was - sum(value for value in values if value is not None)
        study.counts[kind] += 1
        study.beyond_im[kind] += loss > initial + 0.02 * len(legs)  # marks of a tick
        study.beyond_mm[kind] += loss > maintenance + 0.02 * len(legs)
        if kind == "box":
            study.surplus = max(study.surplus, (initial - max(loss, 0)) / before.index[legs[0].underlying])
    return study


# --- the tables -----------------------------------------------------------------------------------


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--portfolios", type=int, default=2_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--chain", type=Path)
    given = parser.parse_args()
    study = synthetic(given.portfolios, given.seed)
    table = Table("portfolios", "counted", "least", "median", "9 of 10 up to", title="IM / worst of the grid")
    for kind, ratios in [*study.ratios.items(), ("all", study.all)]:
        if ratios:
            rising = sorted(ratios)
            figures = (rising[0], median(rising), rising[len(rising) * 9 // 10])
            table.add_row(kind, str(len(ratios)), *(f"{one:.3f}" for one in figures))
    console = Console()
    console.print(table)
    console.print(f"boxes hold at most {study.surplus:.3%} of notional beyond their worst")
    if given.chain is None:
        return
    found = recorded(snapshots(given.chain), given.portfolios, given.seed)
    table = Table("portfolios", "counted", "lost more than IM", "than MM", title="until the next snapshot")
    for kind in STRUCTURES:
        table.add_row(kind, str(found.counts[kind]), str(found.beyond_im[kind]), str(found.beyond_mm[kind]))
    every = sum(found.counts.values())
    shares = (sum(one.values()) / every for one in (found.beyond_im, found.beyond_mm))
    table.add_row("all", str(every), *(f"{share:.3%}" for share in shares))
    console.print(table)
    console.print(f"boxes hold at most {found.surplus:.3%} of notional beyond what they lost")


if __name__ == "__main__":
    main()
