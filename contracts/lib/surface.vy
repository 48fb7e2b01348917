# pragma version 0.4.3
# pragma evm-version cancun
# pragma nonreentrancy on
"""
@title Volatility surface of one expiry: SVI total variance in integers
@license MIT
@notice Twin of `sequencer/protocol/surface.py`:
        w(k) = a + b (rho (k - m) + sqrt((k - m)^2 + sigma^2)), k = ln(strike / forward), all times 1e12.
@custom:security Total: no argument reverts. All arithmetic is unchecked, and exact for valid surfaces (`_is_valid`),
                 because every intermediate stays below 2^127. No division is of a negative number.
@custom:kill Nothing: it holds no state and no privilege.
"""

from . import black76

ONE_E12: constant(int256) = 10**12
PARAMETER_MAX_E12: constant(int256) = 16 * 10**12  # |a|, b, |m|, sigma
SLOPE_MAX: constant(uint256) = 2  # of a wing of total variance, by Lee


struct Surface:
    # raw SVI parameters at the time of the report, int64 each, times 1e12
    a_e12: int256
    b_e12: int256
    rho_e12: int256
    m_e12: int256
    sigma_e12: int256


@internal
@pure
def _is_valid(surface: Surface) -> bool:
    """
    @notice Whether all five lie in their bounds: |a|, |m| <= 16, 0 <= b <= 16, |rho| <= 1, 0 < sigma <= 16.
    """
    return (
        surface.a_e12 >= -PARAMETER_MAX_E12
        and surface.a_e12 <= PARAMETER_MAX_E12
        and surface.b_e12 >= 0
        and surface.b_e12 <= PARAMETER_MAX_E12
        and surface.rho_e12 >= -ONE_E12
        and surface.rho_e12 <= ONE_E12
        and surface.m_e12 >= -PARAMETER_MAX_E12
        and surface.m_e12 <= PARAMETER_MAX_E12
        and surface.sigma_e12 > 0
        and surface.sigma_e12 <= PARAMETER_MAX_E12
    )


@internal
@pure
def _is_sound(surface: Surface) -> bool:
    """
    @notice Whether two tests of a valid surface find no arbitrage: no variance below 0, no wing steeper than Lee's bound.
    """
    if unsafe_add(surface.a_e12, self._bend_e12(surface)) < 0:
        return False
    rho: int256 = surface.rho_e12 if surface.rho_e12 >= 0 else unsafe_sub(0, surface.rho_e12)
    steepest: int256 = unsafe_mul(surface.b_e12, unsafe_add(ONE_E12, rho))  # < 2^85
    return convert(convert(steepest, bytes32), uint256) <= SLOPE_MAX * 10**24


@internal
@pure
def _bend_e12(surface: Surface) -> int256:
    """
    @notice b sigma sqrt(1 - rho^2), root and products floored: with a, the least variance of a valid surface.
    """
    square: int256 = unsafe_sub(ONE_E12 * ONE_E12, unsafe_mul(surface.rho_e12, surface.rho_e12))  # 0..1e24
    root: int256 = convert(convert(isqrt(convert(convert(square, bytes32), uint256)), bytes32), int256)
    bend: int256 = unsafe_div(unsafe_mul(surface.b_e12, surface.sigma_e12), ONE_E12)  # both <= 16e12: < 2^88
    return unsafe_div(unsafe_mul(bend, root), ONE_E12)


@internal
@pure
def _variance_at_e12(surface: Surface, k_e12: int256) -> uint256:
    """
    @notice Total variance at log-moneyness k, |k| <= 32 (times 1e12), clamped to W_MIN..W_MAX. Of a valid surface only.
    """
    y: int256 = unsafe_sub(k_e12, surface.m_e12)  # <= 48e12 < 2^46
    square: int256 = unsafe_add(unsafe_mul(y, y), unsafe_mul(surface.sigma_e12, surface.sigma_e12))  # < 2^92
    root: int256 = convert(convert(isqrt(convert(convert(square, bytes32), uint256)), bytes32), int256)
    # root >= |y| >= |rho y|: neither `arm` nor b * arm is negative; both products < 2^91
    arm: int256 = unsafe_div(unsafe_add(unsafe_mul(root, ONE_E12), unsafe_mul(surface.rho_e12, y)), ONE_E12)
    variance: int256 = unsafe_add(surface.a_e12, unsafe_div(unsafe_mul(surface.b_e12, arm), ONE_E12))
    if variance < convert(black76.W_MIN, int256):
        return black76.W_MIN
    return min(convert(convert(variance, bytes32), uint256), black76.W_MAX)


@internal
@pure
def _variance_e12(surface: Surface, forward: uint256, strike: uint256) -> uint256:
    """
    @notice Total variance of a strike at a forward, both in ticks (uint32), clamped to W_MIN..W_MAX; with a forward or
            strike of 0, the at-the-money variance. k is floored to 1e-12.
    """
    if forward == 0 or strike == 0:
        return self._variance_at_e12(surface, 0)
    k_e12: int256 = unsafe_mul(black76._ln_ratio_q56(strike, forward), ONE_E12) >> 56  # product < 2^101
    return self._variance_at_e12(surface, k_e12)


@internal
@pure
def _at_time(variance: uint256, report_remaining_s: uint256, now_remaining_s: uint256) -> uint256:
    """
    @notice A reported total variance, below 2^128, scaled to the time that is left now: w * now / report, floored,
            clamped to W_MIN..W_MAX. Both times are seconds to expiry, uint32. 0 (expired) when either is 0.
    """
    if report_remaining_s == 0 or now_remaining_s == 0:
        return 0
    scaled: uint256 = unsafe_div(unsafe_mul(variance, now_remaining_s), report_remaining_s)  # product < 2^160
    return max(black76.W_MIN, min(scaled, black76.W_MAX))
