"""Fitting a volatility surface to trades: what a feed computes before it signs. Off-protocol: floats allowed.

Raw SVI of one expiry: w(k) = a + b (rho (k - m) + sqrt((k - m)^2 + sigma^2)), k = ln(strike / forward),
w = iv^2 x years. For given (m, sigma) this is linear in (a, d = rho b sigma, c = b sigma), so that only
(m, sigma) is searched: a coarse grid, then a simplex (quasi-explicit calibration: S. De Marco, C. Martini,
"Quasi-Explicit Calibration of Gatheral's SVI Model", Zeliade 2009). Errors count in volatility, outliers are
weighed down.

Butterfly arbitrage is not excluded point by point; the slope of each wing is held below Lee's bound and below
what a smile in units of its own standard deviation can show, so that few points do not make wild wings.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from math import erfc, exp, hypot, isfinite, log, sqrt
from operator import mul
from statistics import median
from typing import Final

from sequencer.market.tape import YEAR_S, Trade, expiry_s
from sequencer.protocol.constants import U32_MAX
from sequencer.protocol.surface import (
    ONE_E12,
    PARAMETER_MAX_E12,
    SLOPE_MAX,
    Surface,
    bend_e12,
    is_valid,
)

POINTS_MIN: Final = 5  # distinct strikes below which the smile is flat
IV_MIN: Final = 0.01
IV_MAX: Final = 4.0
IV_RATIO_MAX: Final = (
    3.0  # a point further than this factor from the median volatility is no point of the smile
)
WING_SLOPE_MAX: Final = 2.0  # of w in k (Lee), and of w / w_median in units of sqrt(w_median)
FORWARD_BAND: Final = 0.10  # a forward is within this share of the index (8.6 % is seen a year out)
FORWARD_TRADES: Final = 31  # last trades that vote
DELTA_MIN: Final = 0.1
FLAT_SIGMA: Final = 0.1
_RESIDUAL_FLOOR: Final = 0.003  # iv; residuals below it are noise, not outliers
_GRID_M: Final = (0.1, 0.3, 0.5, 0.7, 0.9)  # shares of the strikes' range
_GRID_SIGMA: Final = (0.06, 0.2, 0.6)
_SIGMA_RANGE: Final = (0.02, 2.0)
_FIRST_STEPS: Final = 26
_REFIT_STEPS: Final = 14
_REFITS: Final = 2


class FitError(ValueError):
    """No point is usable; the message says why."""


@dataclass(frozen=True, slots=True)
class SmilePoint:
    """One observation: strike in the forward's unit, iv as a fraction (70 % = 0.7), weight > 0."""

    strike: float
    iv: float
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Fit:
    """A fitted expiry. `error_iv` is the weighted median absolute error of the points used, in volatility."""

    surface: Surface
    points: int
    is_flat: bool
    error_iv: float


def variance(surface: Surface, k: float) -> float:
    """Total variance at log-moneyness k, in floats and unclamped."""
    y = k - surface.m_e12 / ONE_E12
    arm = surface.rho_e12 / ONE_E12 * y + hypot(y, surface.sigma_e12 / ONE_E12)
    return surface.a_e12 / ONE_E12 + surface.b_e12 / ONE_E12 * arm


def implied_volatility(surface: Surface, k: float, years: float) -> float:
    """Volatility as a fraction at log-moneyness k; 0 where the variance is negative."""
    return sqrt(max(variance(surface, k), 0.0) / years)


def flat(iv: float, years: float) -> Surface:
    """The surface with one volatility at every strike."""
    return _rounded(iv * iv * years, 0.0, 0.0, 0.0, FLAT_SIGMA)


def fit(points: Iterable[SmilePoint], forward: float, years: float) -> Fit:
    """SVI of one expiry from volatilities; flat at the median volatility below POINTS_MIN distinct strikes.

    FitError when no point is usable (volatility within IV_MIN..IV_MAX, weight above 0), or when forward or
    years is not above 0.
    """
    if not (forward > 0 and years > 0):
        raise FitError(f"forward {forward} and years {years} must be above 0")
    smile = _by_strike(points)
    if not smile:
        raise FitError(f"no point has a volatility from {IV_MIN} to {IV_MAX} and a weight above 0")
    middle = _weighted_median([(iv, weight) for _, iv, weight in smile])
    smile = [row for row in smile if middle / IV_RATIO_MAX <= row[1] <= middle * IV_RATIO_MAX]
    if len(smile) < POINTS_MIN:
        surface = flat(middle, years)
        return Fit(surface, len(smile), True, _error(surface, smile, forward, years))
    scale = middle * sqrt(
        years
    )  # of k; its square scales w, so that the search sees the same smile at any expiry
    search = _Search(
        [log(strike / forward) / scale for strike, _, _ in smile],
        [(iv / middle) ** 2 for _, iv, _ in smile],
        [weight / (2 * iv / middle) ** 2 for _, iv, weight in smile],
        min(WING_SLOPE_MAX, WING_SLOPE_MAX / scale),
    )
    a, b, rho, m, sigma = search.run()
    surface = _rounded(a * scale * scale, b * scale, rho, m * scale, sigma * scale)
    return Fit(surface, len(smile), False, _error(surface, smile, forward, years))


def later(surface: Surface, left_then_s: int, left_s: int) -> Surface:
    """The same smile with less time left: the same volatility at each log-moneyness, so that variances shrink.

    left_then_s, left_s: seconds to expiry when it was fitted and now, above 0. Floored, inside the protocol's bounds.
    """
    shorter = replace(surface, b_e12=surface.b_e12 * left_s // left_then_s)
    return replace(shorter, a_e12=max(surface.a_e12 * left_s // left_then_s, -bend_e12(shorter)))


def forward_of(trades: Collection[Trade], index_ticks: int) -> int:
    """Forward in ticks of the one expiry that `trades` belong to; the index itself without evidence.

    A coin-quoted price and the volatility that its exchange took from it determine the forward: price =
    Black-76(1, K/F, iv). The median of forward / index over the last trades is applied to the present index,
    and held within FORWARD_BAND of it. Put-call parity would need both options of a strike at one moment: the
    recorded tape has them within five minutes for six of its eleven expiries, and they scatter far more.
    """
    ratios = []
    for trade in islice(trades, max(len(trades) - FORWARD_TRADES, 0), None):
        remaining_s = expiry_s(trade.day) - trade.time_s
        if remaining_s > 0 and IV_MIN * 1e6 <= trade.iv_e6 <= IV_MAX * 1e6:
            ratio = _forward_ratio(trade, trade.iv_e6 / 1e6 * sqrt(remaining_s / YEAR_S))
            if ratio is not None:
                ratios.append(ratio)
    ratio = min(max(median(ratios), 1 - FORWARD_BAND), 1 + FORWARD_BAND) if ratios else 1.0
    return min(max(1, round(index_ticks * ratio)), U32_MAX)


def _forward_ratio(trade: Trade, stdev: float) -> float | None:
    """Forward / index of one trade by bisection; None outside the band or when the price hardly tells."""
    price = float(trade.price_coin)
    sign = -1.0 if trade.is_put else 1.0
    spot = log(trade.strike_ticks / trade.index_ticks)
    low, high = spot - 1.5 * FORWARD_BAND, spot + 1.5 * FORWARD_BAND
    delta = 0.0
    for _ in range(28):
        k = (low + high) / 2
        d2 = -k / stdev - stdev / 2
        delta = _normal_cdf(sign * d2)
        if (_normal_cdf(sign * (d2 + stdev)) - exp(k) * delta) * sign > price:
            low, high = (k, high) if sign > 0 else (low, k)
        else:
            low, high = (low, k) if sign > 0 else (k, high)
    k = (low + high) / 2
    if delta < DELTA_MIN or abs(k - spot) > 1.4 * FORWARD_BAND:
        return None
    return exp(spot - k)


def _normal_cdf(x: float) -> float:
    return erfc(-x / sqrt(2)) / 2


def _by_strike(points: Iterable[SmilePoint]) -> list[tuple[float, float, float]]:
    """(strike, weighted median volatility, weight) of the usable points, one a strike, ascending."""
    groups: dict[float, list[tuple[float, float]]] = {}
    for point in points:
        if IV_MIN <= point.iv <= IV_MAX and point.weight > 0 and isfinite(point.weight) and point.strike > 0:
            groups.setdefault(point.strike, []).append((point.iv, point.weight))
    return [
        (strike, _weighted_median(group), sum(weight for _, weight in group))
        for strike, group in sorted(groups.items())
    ]


def _weighted_median(rows: Iterable[tuple[float, float]]) -> float:
    """First value at which half of the weight is reached; the mean with the next when it is just half."""
    ordered = sorted(rows)
    half = sum(weight for _, weight in ordered) / 2
    reached = 0.0
    for position, (value, weight) in enumerate(ordered):
        reached += weight
        if reached > half * (1 + 1e-12):
            return value
        if reached >= half * (1 - 1e-12) and position + 1 < len(ordered):
            return (value + ordered[position + 1][0]) / 2
    return ordered[-1][0]


def _error(
    surface: Surface, smile: Sequence[tuple[float, float, float]], forward: float, years: float
) -> float:
    return _weighted_median(
        (abs(implied_volatility(surface, log(strike / forward), years) - iv), weight)
        for strike, iv, weight in smile
    )


def _rounded(a: float, b: float, rho: float, m: float, sigma: float) -> Surface:
    """Scaled by 1e12 and held inside the protocol's bounds, which roundings must not pass."""

    def scaled(value: float, low: int, high: int) -> int:
        return min(max(round(value * ONE_E12), low), high)

    surface = Surface(
        a_e12=scaled(a, -PARAMETER_MAX_E12, PARAMETER_MAX_E12),
        b_e12=scaled(b, 0, PARAMETER_MAX_E12),
        rho_e12=scaled(rho, -ONE_E12, ONE_E12),
        m_e12=scaled(m, -PARAMETER_MAX_E12, PARAMETER_MAX_E12),
        sigma_e12=scaled(sigma, 1, PARAMETER_MAX_E12),
    )
    assert is_valid(surface)
    steepest = SLOPE_MAX * ONE_E12 * ONE_E12 // (ONE_E12 + abs(surface.rho_e12))
    surface = replace(surface, b_e12=min(surface.b_e12, steepest))
    return replace(surface, a_e12=max(surface.a_e12, -bend_e12(surface)))


class _Search:
    """The search over (m, sigma) in scaled units: x = k / stdev, v = w / median w, `slope_max` of v in x."""

    def __init__(self, x: list[float], v: list[float], weights: list[float], slope_max: float) -> None:
        self.x = x
        self.v = v
        self.base = weights
        self.slope_max = slope_max
        self.low = x[0]
        self.width = x[-1] - x[0]
        self.weigh(weights)

    def weigh(self, weights: list[float]) -> None:
        """Takes weights, and what does not depend on (m, sigma) of the least squares."""
        total = sum(weights)
        self.weights = [weight / total for weight in weights]
        self.mean: float = sum(map(mul, self.weights, self.v))
        self.weighted_v = [weight * (v - self.mean) for weight, v in zip(self.weights, self.v, strict=True)]
        self.spread: float = sum(map(mul, self.weighted_v, self.v))

    def run(self) -> tuple[float, float, float, float, float]:
        """(a, b, rho, m, sigma) in scaled units."""
        candidates = [
            (self.low + share * self.width, log(sigma * self.width))
            for share in _GRID_M
            for sigma in _GRID_SIGMA
        ]
        best = min(candidates, key=lambda at: self.solve(*at)[0])
        best = self.simplex(best, 0.15 * self.width, 0.6, _FIRST_STEPS)
        for _ in range(_REFITS):
            self.weigh(self.reweighted(*best))
            best = self.simplex(best, 0.05 * self.width, 0.25, _REFIT_STEPS)
        m, log_sigma = self.inside(*best)
        _, a, d, c = self.solve(m, log_sigma)
        sigma = exp(log_sigma)
        return a, c / sigma, d / c if c > 0 else 0.0, m, sigma

    def inside(self, m: float, log_sigma: float) -> tuple[float, float]:
        """m within half a width of the strikes, sigma within _SIGMA_RANGE widths."""
        low, high = (log(share * self.width) for share in _SIGMA_RANGE)
        m = min(max(m, self.low - self.width / 2), self.low + 1.5 * self.width)
        return m, min(max(log_sigma, low), high)

    def solve(self, m: float, log_sigma: float) -> tuple[float, float, float, float]:
        """(squared error, a, d, c) of the constrained linear least squares at a point of the search."""
        m, log_sigma = self.inside(m, log_sigma)
        sigma = exp(log_sigma)
        y = [(x - m) / sigma for x in self.x]
        z = [sqrt(value * value + 1) for value in y]
        weighted_y = list(map(mul, self.weights, y))
        weighted_z = list(map(mul, self.weights, z))
        mean_y, mean_z = sum(weighted_y), sum(weighted_z)
        yy: float = sum(map(mul, weighted_y, y)) - mean_y * mean_y + 1e-12
        zz: float = sum(map(mul, weighted_z, z)) - mean_z * mean_z + 1e-12
        yz: float = sum(map(mul, weighted_y, z)) - mean_y * mean_z
        yv: float = sum(map(mul, self.weighted_v, y))
        zv: float = sum(map(mul, self.weighted_v, z))
        spread = self.spread

        def loss(d: float, c: float) -> float:
            return spread + d * (d * yy - 2 * yv) + c * (c * zz - 2 * zv) + 2 * d * c * yz

        top = self.slope_max * sigma  # |d| <= c and |d| + c <= top: a diamond on its corner
        determinant = yy * zz - yz * yz
        d = c = -1.0
        if determinant > 1e-18:
            d, c = (yv * zz - zv * yz) / determinant, (zv * yy - yv * yz) / determinant
        if not (abs(d) <= c and abs(d) + c <= top):
            d, c = min(
                (
                    _on_edge(start, end, yy, zz, yz, yv, zv)
                    for start, end in (
                        ((0.0, 0.0), (top / 2, top / 2)),
                        ((0.0, 0.0), (-top / 2, top / 2)),
                        ((0.0, top), (top / 2, top / 2)),
                        ((0.0, top), (-top / 2, top / 2)),
                    )
                ),
                key=lambda at: loss(*at),
            )
        a = self.mean - d * mean_y - c * mean_z
        lowest = -sqrt(max(c * c - d * d, 0.0))
        miss = max(lowest - a, 0.0)  # a lifted to make the least variance 0 moves every point by as much
        return loss(d, c) + miss * miss, a + miss, d, c

    def simplex(
        self, start: tuple[float, float], step_m: float, step_sigma: float, steps: int
    ) -> tuple[float, float]:
        """Nelder-Mead in two dimensions from `start`, a fixed number of steps."""
        corners = [start, (start[0] + step_m, start[1]), (start[0], start[1] + step_sigma)]
        ranked = sorted((self.solve(*at)[0], at) for at in corners)
        for _ in range(steps):
            (_, one), (second, two), (worst, three) = ranked
            middle = ((one[0] + two[0]) / 2, (one[1] + two[1]) / 2)

            def at(
                factor: float, middle: tuple[float, float] = middle, far: tuple[float, float] = three
            ) -> tuple[float, tuple[float, float]]:
                place = (
                    middle[0] + factor * (middle[0] - far[0]),
                    middle[1] + factor * (middle[1] - far[1]),
                )
                return self.solve(*place)[0], place

            tried = at(1.0)
            if tried[0] < ranked[0][0]:
                tried = min(tried, at(2.0))
            elif tried[0] >= second:
                tried = min(tried, at(0.5 if tried[0] < worst else -0.5))
            if tried[0] < worst:
                ranked[2] = tried
            else:
                for position in (1, 2):
                    far = ranked[position][1]
                    near = ((one[0] + far[0]) / 2, (one[1] + far[1]) / 2)
                    ranked[position] = (self.solve(*near)[0], near)
            ranked.sort()
        return ranked[0][1]

    def reweighted(self, m: float, log_sigma: float) -> list[float]:
        """The given weights, lowered where the residual in volatility is large beside the median one."""
        m, log_sigma = self.inside(m, log_sigma)
        _, a, d, c = self.solve(m, log_sigma)
        sigma = exp(log_sigma)
        residuals = []
        for x, v in zip(self.x, self.v, strict=True):
            y = (x - m) / sigma
            fitted = max(a + d * y + c * sqrt(y * y + 1), 0.0)
            residuals.append(abs(sqrt(fitted) - sqrt(v)))
        width = 3 * max(1.4826 * median(residuals), _RESIDUAL_FLOOR)
        return [
            weight / (1 + (residual / width) ** 2) ** 2
            for weight, residual in zip(self.base, residuals, strict=True)
        ]


def _on_edge(
    start: tuple[float, float],
    end: tuple[float, float],
    yy: float,
    zz: float,
    yz: float,
    yv: float,
    zv: float,
) -> tuple[float, float]:
    """Least squares along the segment from start to end, in (d, c)."""
    step_d, step_c = end[0] - start[0], end[1] - start[1]
    curve = step_d * step_d * yy + step_c * step_c * zz + 2 * step_d * step_c * yz
    pull = step_d * (yv - start[0] * yy - start[1] * yz) + step_c * (zv - start[1] * zz - start[0] * yz)
    share = min(max(pull / curve, 0.0), 1.0) if curve > 0 else 0.0
    return start[0] + share * step_d, start[1] + share * step_c
