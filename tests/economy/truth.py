"""What prices really are: index, volatility and fair value of every option, in floating point, apart from the exchange.

An underlying's index follows a path that the episode draws. Implied volatility belongs to the strike (it stays where
it is when the index moves) and moves with one factor an underlying, less for long maturities, as the shocks do that
margin is made for; so that a move can be told to lie inside the modelled range or beyond it.
"""

from dataclasses import dataclass, field
from math import erfc, exp, log, sqrt

from sequencer.protocol import constants as c
from sequencer.protocol.state import expiry_time

YEAR_S = 31_536_000
WING, SKEW, WIDTH = 0.5, -0.2, 0.3  # b / (variance), rho and sigma of the true slice
SQRT_HALF = sqrt(0.5)


@dataclass(slots=True)
class Slice:
    """One expiry: where its smile stands, how its forward relates to the index, its time-weighted price once known."""

    day: int
    smile_at: float  # strike, ticks
    carry: float
    settled_at: float | None = None


@dataclass(slots=True)
class Basis:
    """The truth at one time, to compare with another."""

    index: float
    vol: float
    time: int

    def gap(self, truth: "Truth", key: int) -> float:
        """How far index or volatility have gone since, as a part of them."""
        volatility = truth.volatility(key, truth.factor[key >> 16]) / truth.volatility(
            key, self.vol, self.time
        )
        return max(abs(volatility - 1), abs(truth.index[key >> 16] / self.index - 1))

    def still_counts(self, truth: "Truth", underlying: int) -> bool:
        """Whether neither the index nor the volatility factor has gone from here by more than marks may be off."""
        index = abs(truth.index[underlying] / self.index - 1)
        return index < 0.006 and abs(truth.factor[underlying] - self.vol) < 0.006


@dataclass(slots=True)
class Truth:
    """Index (ticks), volatility factor and base volatility of each underlying; slices by underlying << 16 | day."""

    time: int
    index: list[float]
    base: list[float]
    factor: list[float]
    reference_s: float  # time to expiry at which the factor counts as it is
    power: float  # how fast it counts less for longer ones
    slices: dict[int, Slice] = field(default_factory=dict)
    cumulative: list[float] = field(default_factory=list)
    bounds: dict[tuple[int, int], float] = field(default_factory=dict)  # (underlying, time) -> cumulative

    def __post_init__(self) -> None:
        self.cumulative = [0.0 for _ in self.index]

    def open(self, key: int, days: float) -> None:
        """A new expiry, its smile around the index of now."""
        if key not in self.slices:
            at = self.index[key >> 16]
            self.slices[key] = Slice(key & 0xFFFF, at, 1 + 0.0002 * days)

    def advance(self, seconds: int) -> None:
        """Time passes at the index of now; the cumulative index at the bounds of TWAPs is kept."""
        start, self.time = self.time, self.time + seconds
        for which, index in enumerate(self.index):
            for day in range(start // c.DAY_S, self.time // c.DAY_S + 1):
                for bound in (expiry_time(day) - c.TWAP_S, expiry_time(day)):
                    if start < bound <= self.time:
                        self.bounds[which, bound] = self.cumulative[which] + index * (bound - start)
            self.cumulative[which] += index * seconds
        for key, one in self.slices.items():
            end = expiry_time(one.day)
            if one.settled_at is None and end <= self.time:
                begin = self.bounds.get((key >> 16, end - c.TWAP_S))
                last = self.bounds.get((key >> 16, end))
                known = begin is not None and last is not None
                one.settled_at = (last - begin) / c.TWAP_S if known else self.index[key >> 16]

    def basis(self, underlying: int) -> Basis:
        return Basis(self.index[underlying], self.factor[underlying], self.time)

    def forward(self, key: int) -> float:
        return self.index[key >> 16] * self.slices[key].carry

    def level(self, key: int) -> float:
        """At-the-money total variance of an expiry now."""
        left = max(expiry_time(key & 0xFFFF) - self.time, 0) / YEAR_S
        vol = self.base[key >> 16] * self.volatility(key, self.factor[key >> 16])
        return vol * vol * left

    def volatility(self, key: int, factor: float, time: int | None = None) -> float:
        """What a factor makes of an expiry's volatility now or at another time, as a multiple of its base."""
        left = max(expiry_time(key & 0xFFFF) - (self.time if time is None else time), 3_600)
        scale = (self.reference_s / left) ** self.power
        return max(1 + factor * scale, 0.15)

    def shape(self, key: int, strike: int) -> float:
        """Total variance of a strike as a multiple of the level."""
        k = log(strike / self.slices[key].smile_at)
        return 1 - WING * WIDTH + WING * (SKEW * k + sqrt(k * k + WIDTH * WIDTH))

    def fair(self, key: int, strike: int, put: bool) -> float:
        """Value of one lot in ticks: Black-76 before the expiry, intrinsic at its TWAP after."""
        one = self.slices[key]
        if one.settled_at is not None:
            gap = one.settled_at - strike
            return max(-gap if put else gap, 0.0)
        return black76(self.forward(key), strike, self.level(key) * self.shape(key, strike), put)

    def bounds_of(self, key: int, strike: int, put: bool, index: float, vol: float) -> tuple[float, float]:
        """Least and greatest value of a lot at a forward off by `index` and a variance off by `vol`, as parts."""
        forward, variance = self.forward(key), self.level(key) * self.shape(key, strike)
        values = [
            black76(forward * (1 + off), strike, variance * part, put)
            for off in (-index, index)
            for part in (1 - vol, 1 + vol)
        ]
        return min(values), max(values)

    def surface(self, key: int, noise: float = 0.0) -> dict[str, int]:
        """SURFACE's shape as an honest feed reports it, its volatility off by `noise`."""
        level = self.level(key) * (1 + noise) ** 2
        scaled = {
            "a": (1 - WING * WIDTH) * level,
            "b": WING * level,
            "rho": SKEW,
            "m": log(self.slices[key].smile_at / self.forward(key)),
            "sigma": WIDTH,
        }
        return {name: round(value * 1e12) for name, value in scaled.items()}


def black76(forward: float, strike: float, variance: float, put: bool) -> float:
    """Undiscounted, in the unit of the forward."""
    if variance <= 0:
        return max(strike - forward if put else forward - strike, 0.0)
    s = sqrt(variance)
    d1 = log(forward / strike) / s + s / 2
    call = forward * _cdf(d1) - strike * _cdf(d1 - s)
    return call - forward + strike if put else call


def _cdf(x: float) -> float:
    return erfc(-x * SQRT_HALF) / 2


def step(rng, truth: Truth, underlying: int, seconds: int, yearly: float) -> float:
    """A factor of geometric Brownian motion."""
    sigma = yearly * sqrt(seconds / YEAR_S)
    return exp(rng.gauss(0, 1) * sigma - sigma * sigma / 2)
