"""Implied volatility by the integer core: the total variance at which Black-76 gives a price."""

from decimal import Context, Decimal, localcontext
from typing import Final

from sequencer.protocol.black76 import TICK_E10, W_MAX, W_MIN, intrinsic, price_e10
from sequencer.protocol.constants import DAY_S

YEAR_S: Final = 365 * DAY_S
IV_DIGITS: Final = 16
"""After the point: enough that the volatility gives back its total variance to the unit of 1e-12."""


def implied_variance_e12(target_e10: int, forward: int, strike: int, is_put: bool) -> int:
    """Total variance (1e-12) whose price is nearest to `target_e10` (1e-10 USD); of two as near, the smaller.

    forward, strike: ticks. Raises ValueError naming the bounds when no variance gives the price: at most its intrinsic
    value, or above what W_MAX gives.
    """
    low_e10 = intrinsic(forward, strike, is_put) * TICK_E10
    high_e10 = price_e10(forward, strike, is_put, W_MAX)
    if not low_e10 < target_e10 <= high_e10:
        raise ValueError(
            f"price must be above the intrinsic value {_usd(low_e10)} and at most {_usd(high_e10)} "
            f"(a total variance of {W_MAX // 10**12}), not {_usd(target_e10)}"
        )
    low, high = W_MIN, W_MAX  # the smallest variance whose price is not below the target lies in low..high
    while low < high:
        middle = (low + high) // 2
        if price_e10(forward, strike, is_put, middle) < target_e10:
            low = middle + 1
        else:
            high = middle
    if low > W_MIN:
        above = price_e10(forward, strike, is_put, low) - target_e10
        below = target_e10 - price_e10(forward, strike, is_put, low - 1)
        if below <= above:
            low -= 1
    return low


def volatility(variance_e12: int, expires_in_s: int) -> Decimal:
    """Volatility a year, as a fraction, of a total variance over `expires_in_s` > 0; rounded to IV_DIGITS."""
    with localcontext(Context(prec=50)):
        return (
            (Decimal(variance_e12) * YEAR_S / expires_in_s / 10**12)
            .sqrt()
            .quantize(Decimal(1).scaleb(-IV_DIGITS))
        )


def _usd(amount_e10: int) -> str:
    return f"{Decimal(amount_e10).scaleb(-10):f}"
