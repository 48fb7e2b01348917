"""Volatility surface of one expiry: SVI total variance in integers.

    w(k) = a + b (rho (k - m) + sqrt((k - m)^2 + sigma^2)),    k = ln(strike / forward)

Twin: `contracts/lib/surface.vy`. Source: J. Gatheral, "A parsimonious arbitrage-free implied volatility
parameterization" (2004). Parameters and results are scaled by 1e12. Roundings are floors and all divisions
are of numbers that are not negative; every intermediate stays below 2^127. Error of w: below (3 + 3b) *
1e-12, clamps aside.
"""

from dataclasses import dataclass
from math import isqrt

from sequencer.protocol.black76 import W_MAX, W_MIN, ln_ratio_q56

ONE_E12 = 10**12
PARAMETER_MAX_E12 = 16 * ONE_E12  # |a|, b, |m|, sigma
SLOPE_MAX = 2  # of a wing of total variance, by Lee


@dataclass(frozen=True, slots=True)
class Surface:
    """Raw SVI parameters of one expiry at the time of the report, int64 each, times 1e12."""

    a_e12: int
    b_e12: int
    rho_e12: int
    m_e12: int
    sigma_e12: int


def is_valid(surface: Surface) -> bool:
    """Whether all five lie in their bounds: |a|, |m| <= 16, 0 <= b <= 16, |rho| <= 1, 0 < sigma <= 16.

    For any five integers. `is_sound` asks for more; what is below 0 or excessive all the same is clamped.
    """
    return (
        -PARAMETER_MAX_E12 <= surface.a_e12 <= PARAMETER_MAX_E12
        and 0 <= surface.b_e12 <= PARAMETER_MAX_E12
        and -ONE_E12 <= surface.rho_e12 <= ONE_E12
        and -PARAMETER_MAX_E12 <= surface.m_e12 <= PARAMETER_MAX_E12
        and 0 < surface.sigma_e12 <= PARAMETER_MAX_E12
    )


def is_sound(surface: Surface) -> bool:
    """Whether two tests of a valid surface find no arbitrage: no variance below 0, no wing steeper than Lee's bound.

    The wings' slopes are b (1 +- rho); of total variance in k they are at most 2, or far options would be worth more
    than the forward (R. Lee, "The moment formula for implied volatility at extreme strikes", 2004).
    """
    return (
        surface.a_e12 + bend_e12(surface) >= 0
        and surface.b_e12 * (ONE_E12 + abs(surface.rho_e12)) <= SLOPE_MAX * ONE_E12 * ONE_E12
    )


def bend_e12(surface: Surface) -> int:
    """b sigma sqrt(1 - rho^2), root and products floored: with a, the least variance of a valid surface."""
    root_e12 = isqrt(ONE_E12 * ONE_E12 - surface.rho_e12 * surface.rho_e12)
    return surface.b_e12 * surface.sigma_e12 // ONE_E12 * root_e12 // ONE_E12


def variance_at_e12(surface: Surface, k_e12: int) -> int:
    """Total variance at log-moneyness k = ln(K/F), |k| <= 32 (times 1e12), clamped to W_MIN..W_MAX.

    Of a valid surface only. `arm` is never negative: the root, floored, is still at least |k-m| >= |rho
    (k-m)|.
    """
    y = k_e12 - surface.m_e12
    arm = (isqrt(y * y + surface.sigma_e12 * surface.sigma_e12) * ONE_E12 + surface.rho_e12 * y) // ONE_E12
    variance = surface.a_e12 + surface.b_e12 * arm // ONE_E12
    return max(W_MIN, min(variance, W_MAX))


def variance_e12(surface: Surface, forward: int, strike: int) -> int:
    """Total variance of a strike at a forward, both in ticks (uint32), clamped to W_MIN..W_MAX.

    With a forward or strike of 0, the at-the-money variance. k is ln(K/F) from Q56, floored to 1e-12.
    """
    if forward == 0 or strike == 0:
        return variance_at_e12(surface, 0)
    return variance_at_e12(surface, ln_ratio_q56(strike, forward) * ONE_E12 >> 56)


def at_time(variance: int, report_remaining_s: int, now_remaining_s: int) -> int:
    """A reported total variance (1e-12) scaled to the time that is left now: w * now / report, floored.

    Implied volatility stays as it is. Both times are seconds to expiry, uint32. 0 (expired) when either is 0;
    else clamped to W_MIN..W_MAX.
    """
    if report_remaining_s == 0 or now_remaining_s == 0:
        return 0
    return max(W_MIN, min(variance * now_remaining_s // report_remaining_s, W_MAX))
