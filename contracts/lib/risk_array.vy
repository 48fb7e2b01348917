# pragma version 0.4.3
# pragma evm-version cancun
# pragma nonreentrancy on
"""
@title Risk array of one instrument: its mark and its profit or loss in 16 scenarios, in price ticks
@license MIT
@notice Twin of `sequencer/protocol/risk_array.py`, which has the table of the scenarios. Shocks are in ppm.
@dev A page calls `_shocks` once and `_scenarios` for each of its rows. Rows are packed as in PAGE: 16 int32 in two's
     complement, scenario s in word s // 8 at bits 32 * (s % 8).
@custom:security Total: no argument reverts. All arithmetic is unchecked, and exact for uint32 prices and valid shocks
                 (`_is_valid`), because every intermediate stays below 2^127.
@custom:kill Nothing: it holds no state and no privilege.
"""

from . import black76

PPM: constant(uint256) = 1_000_000
SHOCK_MAX_PPM: constant(uint256) = 900_000  # a forward keeps a tenth of its value at least, a volatility too
VOL_UP_MAX_PPM: constant(uint256) = 1_000_000  # a volatility doubles at most
PNL_MAX: constant(uint256) = 2**31 - 1
PNL_MIN: constant(uint256) = 2**31  # its magnitude
STEPS: constant(uint256) = 7  # moves of the forward by thirds of the range, each with the volatility up and down
MOVES: constant(uint256) = 9  # and the two extreme ones
EXTREME_UNIT: constant(uint256) = black76.TICK_E10 * PPM
U32_MAX: constant(uint256) = 2**32 - 1


struct Shocks:
    up_ppm: uint256  # what is left of a standard deviation with the volatility up when the horizon has passed
    down_ppm: uint256  # likewise with it down
    extreme_weight_ppm: uint256
    left_ppm: uint256[MOVES]  # of the forward after each move: seven rising ones, the extreme ones down and up
    ln_left: int256[MOVES]  # its logarithm, Q56


@internal
@pure
def _is_valid(
    price_range_ppm: uint256,
    extreme_range_ppm: uint256,
    extreme_weight_ppm: uint256,
    vol_up_ppm: uint256,
    vol_down_ppm: uint256,
    horizon_s: uint256,
    vol_reference_s: uint256,
    vol_power_ppm: uint256,
) -> bool:
    """
    @notice Whether the parameters lie in their bounds.
    """
    return (
        price_range_ppm <= SHOCK_MAX_PPM
        and extreme_range_ppm <= SHOCK_MAX_PPM
        and extreme_weight_ppm <= PPM
        and vol_up_ppm <= VOL_UP_MAX_PPM
        and vol_down_ppm <= SHOCK_MAX_PPM
        and horizon_s <= U32_MAX
        and vol_reference_s > 0
        and vol_reference_s <= U32_MAX
        and vol_power_ppm <= PPM
    )


@internal
@pure
def _left(
    vol_up_ppm: uint256,
    vol_down_ppm: uint256,
    horizon_s: uint256,
    vol_reference_s: uint256,
    vol_power_ppm: uint256,
    remaining_s: uint256,
) -> (uint256, uint256):
    """
    @notice What is left of a standard deviation with the volatility up, and with it down, when the horizon has passed, ppm.
    @param remaining_s Seconds to expiry, uint32; no more than the horizon: nothing is left.
    """
    if remaining_s <= horizon_s:
        return 0, 0
    ln: int256 = black76._ln_ratio_q56(vol_reference_s, remaining_s)  # of two uint32s that are not 0: < 22.2
    distance: uint256 = convert(convert(ln if ln >= 0 else unsafe_sub(0, ln), bytes32), uint256)
    shrinks: uint256 = black76._exp_neg_q56(unsafe_div(unsafe_mul(distance, vol_power_ppm), PPM))  # >= 2^23
    up: uint256 = 0
    down: uint256 = 0
    if ln >= 0:
        up = unsafe_div(unsafe_mul(vol_up_ppm, black76.ONE_Q56), shrinks)  # product < 2^76
        down = unsafe_div(unsafe_mul(vol_down_ppm, black76.ONE_Q56), shrinks)
    else:
        up = unsafe_mul(vol_up_ppm, shrinks) >> 56
        down = unsafe_mul(vol_down_ppm, shrinks) >> 56
    up = unsafe_add(PPM, min(up, VOL_UP_MAX_PPM))
    down = unsafe_sub(PPM, min(down, SHOCK_MAX_PPM))
    time: uint256 = isqrt(unsafe_div(unsafe_mul(unsafe_sub(remaining_s, horizon_s), PPM * PPM), remaining_s))  # <= PPM
    return unsafe_div(unsafe_mul(up, time), PPM), unsafe_div(unsafe_mul(down, time), PPM)


@internal
@pure
def _shocks(
    price_range_ppm: uint256,
    extreme_range_ppm: uint256,
    extreme_weight_ppm: uint256,
    up_ppm: uint256,
    down_ppm: uint256,
) -> Shocks:
    """
    @notice What `_scenarios` needs of the parameters, which must be valid, and of `_left`. A third of the range is floored.
    """
    shocks: Shocks = empty(Shocks)
    shocks.up_ppm = up_ppm
    shocks.down_ppm = down_ppm
    shocks.extreme_weight_ppm = extreme_weight_ppm
    third: uint256 = unsafe_div(price_range_ppm, 3)
    left: uint256 = unsafe_sub(PPM, unsafe_mul(third, 3))  # a range is at most 900,000
    for i: uint256 in range(STEPS):
        shocks.left_ppm[i] = left
        left = unsafe_add(left, third)
    shocks.left_ppm[7] = unsafe_sub(PPM, extreme_range_ppm)
    shocks.left_ppm[8] = unsafe_add(PPM, extreme_range_ppm)
    for i: uint256 in range(MOVES):
        shocks.ln_left[i] = black76._ln_ratio_q56(shocks.left_ppm[i], PPM)  # ln 1 = 0
    return shocks


@internal
@pure
def _scenarios(
    forward: uint256, strike: uint256, is_put: bool, variance_e12: uint256, shocks: Shocks
) -> (uint256, uint256[2]):
    """
    @notice Mark (uint32 ticks) and 16 packed profits or losses (int32 ticks) of one long contract.
    @param forward Ticks, uint32, as `strike`.
    @param variance_e12 0 (expired: intrinsic values throughout) or 1..W_MAX; a greater one counts as W_MAX.
    """
    strike_e10: uint256 = unsafe_mul(strike, black76.TICK_E10)  # < 2^59
    unit: uint256 = unsafe_mul(forward, black76.TICK_E10 // PPM)  # < 2^39
    x: int256 = 0  # ln(F/K), < 2^61
    stdev: uint256 = 0  # 0: no time value anywhere
    if variance_e12 != 0 and forward != 0 and strike != 0:
        x = black76._ln_ratio_q56(forward, strike)
        stdev = black76._stdev_q56(min(variance_e12, black76.W_MAX))
    deviations: uint256[2] = [
        unsafe_div(unsafe_mul(stdev, shocks.up_ppm), PPM),  # product < 2^80
        unsafe_div(unsafe_mul(stdev, shocks.down_ppm), PPM),
    ]
    mark: uint256 = self._price(unsafe_mul(unit, PPM), strike_e10, is_put, x, stdev)
    pnl: uint256[2] = empty(uint256[2])  # each new one enters at the top and pushes the others down
    for i: uint256 in range(MOVES):
        moved: uint256 = unsafe_mul(unit, shocks.left_ppm[i])  # < 2^60
        x_moved: int256 = unsafe_add(x, shocks.ln_left[i])
        if i < STEPS:
            for half: uint256 in range(2):
                price: uint256 = self._price(moved, strike_e10, is_put, x_moved, deviations[half])
                pnl[half] = (pnl[half] >> 32) | (self._nearest(price, mark, 1, black76.TICK_E10) << 224)
        else:
            price: uint256 = self._price(moved, strike_e10, is_put, x_moved, stdev)
            half: uint256 = unsafe_sub(i, STEPS)
            pnl[half] = (pnl[half] >> 32) | (self._nearest(price, mark, shocks.extreme_weight_ppm, EXTREME_UNIT) << 224)
    return black76._to_ticks(mark), pnl


@internal
@pure
def _price(forward: uint256, strike: uint256, is_put: bool, x: int256, stdev: uint256) -> uint256:
    """
    @notice Price in the unit of `forward` and `strike`, 1e-10 USD (< 2^60); x is ln of their ratio.
    """
    low: uint256 = min(forward, strike)
    base: uint256 = unsafe_sub(strike if is_put else forward, low)  # max(K-F, 0) of a put, max(F-K, 0) of a call
    distance: uint256 = convert(convert(x if x >= 0 else unsafe_sub(0, x), bytes32), uint256)
    return unsafe_add(base, unsafe_mul(low, black76._time_value_q56(distance, stdev)) >> 56)  # product < 2^116


@internal
@pure
def _settled(settlement: uint256, strike: uint256, is_put: bool) -> (uint256, uint256[2]):
    """
    @notice The row of an instrument with a fixed settlement price (ticks): intrinsic mark, nothing at risk.
    """
    return min(black76._intrinsic(settlement, strike, is_put), black76.PRICE_MAX), empty(uint256[2])


@internal
@pure
def _nearest(price: uint256, mark: uint256, weight: uint256, unit: uint256) -> uint256:
    """
    @notice (price - mark) * weight / unit to the nearest integer, half away from zero, clamped to int32; 32 bits in
            two's complement. `unit` is even.
    """
    half: uint256 = unit >> 1
    if price >= mark:
        gain: uint256 = unsafe_mul(unsafe_sub(price, mark), weight)  # < 2^80
        return min(unsafe_div(unsafe_add(gain, half), unit), PNL_MAX)
    loss: uint256 = unsafe_mul(unsafe_sub(mark, price), weight)
    return unsafe_sub(0, min(unsafe_div(unsafe_add(loss, half), unit), PNL_MIN)) & (2**32 - 1)
