"""Implied volatility and greeks in decimals: of a mark, of a price, of a position. By the integer core alone.

A volatility is an integer of 1e-6 (674,800 is 67.48 %). Total variance is iv^2 x seconds / 365 days, in 1e-12 as
`black76` takes it: half up, at least W_MIN.
"""

from math import isqrt
from typing import Final

from sequencer.protocol.black76 import (
    DAY_S,
    STDEV_MAX_Q56,
    TICK_E10,
    W_MAX,
    W_MIN,
    Greeks,
    intrinsic,
    ln_ratio_q56,
    normal_pdf_q56,
    stdev_q56,
    time_value_q56,
)

YEAR_S: Final = 365 * DAY_S
IV_MAX_E6: Final = 10_000_000  # 1,000 %
NEWTON_STEPS: Final = 16
LOTS: Final = 10_000  # of a contract
NO_GREEKS: Final = Greeks(0, 0, 0, 0)


def variance_of_iv(iv_e6: int, remaining_s: int) -> int:
    """Total variance, 1e-12, W_MIN..W_MAX; 0 without volatility or time."""
    exact = 2 * iv_e6 * iv_e6 * remaining_s
    if exact == 0:
        return 0
    return max(W_MIN, min((exact + YEAR_S) // (2 * YEAR_S), W_MAX))


def iv_of_variance(variance_e12: int, remaining_s: int) -> int | None:
    """The volatility (1e-6, to the nearest) of a total variance; None without time or variance."""
    if variance_e12 <= 0 or remaining_s <= 0:
        return None
    return (isqrt(4 * variance_e12 * YEAR_S // remaining_s) + 1) // 2


def iv_of_price(forward: int, strike: int, is_put: bool, price: int, remaining_s: int) -> int | None:
    """The least volatility (1e-6) at which an option is worth `price`; all prices in ticks.

    None when no volatility up to IV_MAX_E6 gives the price: it is the intrinsic value or below, or too high.
    """
    wanted = price * TICK_E10 - intrinsic(forward, strike, is_put) * TICK_E10
    low_side = min(forward, strike) * TICK_E10
    if wanted <= 0 or remaining_s <= 0 or low_side == 0:
        return None
    distance = abs(ln_ratio_q56(forward, strike))

    def is_enough(iv: int) -> bool:
        share = time_value_q56(distance, stdev_q56(variance_of_iv(iv, remaining_s)))
        return low_side * share >> 56 >= wanted

    guess = _newton(distance, (wanted << 56) // low_side, remaining_s)
    # The guess is off by little: the bounds open around it until they hold the answer, and close by halves.
    step, high = 1, min(max(guess, 1), IV_MAX_E6)
    while not is_enough(high):
        if high == IV_MAX_E6:
            return None
        high = min(high + step, IV_MAX_E6)
        step *= 4
    step, low = 1, high - 1
    while low > 0 and is_enough(low):
        high = low
        low = max(low - step, 0)
        step *= 4
    while high - low > 1:
        middle = (low + high) // 2
        if is_enough(middle):
            high = middle
        else:
            low = middle
    return high


def _newton(distance_q56: int, share_q56: int, remaining_s: int) -> int:
    """About the volatility (1e-6) at which the time value is `share_q56` of the lower of forward and strike.

    Newton's steps from the standard deviation sqrt(2 |ln(F/K)|), where the time value bends from convex to concave:
    from there they do not overshoot (S. Manaster, G. Koehler, "The calculation of implied variances", 1982).
    """
    stdev = max(isqrt(2 * distance_q56 << 56), 1 << 40)
    for _ in range(NEWTON_STEPS):
        slope = normal_pdf_q56((stdev >> 1) - (distance_q56 << 56) // stdev)
        if slope == 0:
            break
        off = ((share_q56 - time_value_q56(distance_q56, stdev)) << 56) // slope
        stdev = min(max(stdev + off, stdev >> 4, 1), STDEV_MAX_Q56)
        if abs(off) < stdev >> 24:
            break
    variance_e12 = stdev * stdev * 10**12 >> 112
    return isqrt(variance_e12 * YEAR_S // remaining_s)


def decimal(value: int, digits: int) -> str:
    """value x 10^-digits, all digits shown."""
    whole, fraction = divmod(abs(value), 10**digits)
    return f"{'-' if value < 0 else ''}{whole}.{fraction:0{digits}d}"


def decimal_iv(iv_e6: int | None) -> str | None:
    """A volatility as a fraction of 1: "0.674800"."""
    return None if iv_e6 is None else decimal(iv_e6, 6)


class Sensitivity:
    """Sum of greeks of positions, in lots: exact until it is shown."""

    __slots__ = ("delta", "gamma", "theta", "vega")

    def __init__(self) -> None:
        self.delta = self.gamma = self.vega = self.theta = 0

    def add(self, lots: int, one: Greeks) -> None:
        """Adds a position of `lots` (negative: short)."""
        self.delta += lots * one.delta_e12
        self.gamma += lots * one.gamma_e18
        self.vega += lots * one.vega_e10
        self.theta += lots * one.theta_e10

    def shown(self) -> dict[str, str]:
        """Of contracts: delta (12 decimals) and gamma (18) per 1 USD of forward, vega (10) in USD per volatility point
        (0.01), theta (10) in USD per day; each cut off towards zero once.
        """
        return {
            "delta": decimal(_cut(self.delta), 12),
            "gamma": decimal(_cut(self.gamma), 18),
            "vega": decimal(_cut(self.vega), 10),
            "theta": decimal(_cut(self.theta), 10),
        }


def _cut(value: int) -> int:
    """value / LOTS, towards zero."""
    return value // LOTS if value >= 0 else -(-value // LOTS)
