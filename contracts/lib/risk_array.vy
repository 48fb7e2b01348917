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
STEPS: constant(uint256) = 7  # moves of the forward, each with the volatility up and down
MOVES: constant(uint256) = 9  # and the two extreme ones
EXTREME_UNIT: constant(uint256) = black76.TICK_E10 * PPM


struct Shocks:
    vol_up_ppm: uint256
    vol_down_ppm: uint256
    extreme_weight_ppm: uint256
    left_ppm: uint256[MOVES]  # of the forward after each move, in the order of the scenarios
    ln_left: int256[MOVES]  # its logarithm, Q56


@internal
@pure
def _is_valid(
    price_range_ppm: uint256,
    vol_up_ppm: uint256,
    vol_down_ppm: uint256,
    extreme_range_ppm: uint256,
    extreme_weight_ppm: uint256,
) -> bool:
    """
    @notice Whether the parameters lie in their bounds.
    """
    return (
        price_range_ppm <= SHOCK_MAX_PPM
        and vol_up_ppm <= VOL_UP_MAX_PPM
        and vol_down_ppm <= SHOCK_MAX_PPM
        and extreme_range_ppm <= SHOCK_MAX_PPM
        and extreme_weight_ppm <= PPM
    )


@internal
@pure
def _shocks(
    price_range_ppm: uint256,
    vol_up_ppm: uint256,
    vol_down_ppm: uint256,
    extreme_range_ppm: uint256,
    extreme_weight_ppm: uint256,
) -> Shocks:
    """
    @notice What `_scenarios` needs of the parameters, which must be valid. A third of the range is floored.
    """
    shocks: Shocks = empty(Shocks)
    shocks.vol_up_ppm = vol_up_ppm
    shocks.vol_down_ppm = vol_down_ppm
    shocks.extreme_weight_ppm = extreme_weight_ppm
    steps: uint256[4] = [
        unsafe_div(price_range_ppm, 3),
        unsafe_div(unsafe_mul(price_range_ppm, 2), 3),
        price_range_ppm,
        extreme_range_ppm,
    ]
    shocks.left_ppm[0] = PPM  # and ln 1 = 0
    for i: uint256 in range(4):
        plus: uint256 = unsafe_add(unsafe_mul(i, 2), 1)
        minus: uint256 = unsafe_add(plus, 1)
        shocks.left_ppm[plus] = unsafe_add(PPM, steps[i])
        shocks.left_ppm[minus] = unsafe_sub(PPM, steps[i])  # a step is at most 900,000
        shocks.ln_left[plus] = black76._ln_ratio_q56(shocks.left_ppm[plus], PPM)
        shocks.ln_left[minus] = black76._ln_ratio_q56(shocks.left_ppm[minus], PPM)
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
    up: uint256 = unsafe_div(unsafe_mul(stdev, unsafe_add(PPM, shocks.vol_up_ppm)), PPM)  # product < 2^80
    down: uint256 = unsafe_div(unsafe_mul(stdev, unsafe_sub(PPM, shocks.vol_down_ppm)), PPM)
    mark: uint256 = 0
    pnl: uint256[2] = empty(uint256[2])
    word: uint256 = 0  # the last eight; each new one enters at the top and pushes the others down
    for i: uint256 in range(MOVES):
        moved: uint256 = unsafe_mul(unit, shocks.left_ppm[i])  # < 2^60
        low: uint256 = min(moved, strike_e10)
        base: uint256 = unsafe_sub(strike_e10 if is_put else moved, low)  # max(K-F, 0) of a put, max(F-K, 0) of a call
        x_moved: int256 = unsafe_add(x, shocks.ln_left[i])
        distance: uint256 = convert(convert(x_moved if x_moved >= 0 else unsafe_sub(0, x_moved), bytes32), uint256)
        price: uint256 = 0
        if i < STEPS:
            if i == 0:  # the forward as it is: the mark; every such product is below 2^116
                mark = unsafe_add(base, unsafe_mul(low, black76._time_value_q56(distance, stdev)) >> 56)
            price = unsafe_add(base, unsafe_mul(low, black76._time_value_q56(distance, up)) >> 56)
            word = (word >> 32) | (self._nearest(price, mark, 1, black76.TICK_E10) << 224)
            price = unsafe_add(base, unsafe_mul(low, black76._time_value_q56(distance, down)) >> 56)
            word = (word >> 32) | (self._nearest(price, mark, 1, black76.TICK_E10) << 224)
            if i == 3:
                pnl[0] = word
        else:
            price = unsafe_add(base, unsafe_mul(low, black76._time_value_q56(distance, stdev)) >> 56)
            word = (word >> 32) | (self._nearest(price, mark, shocks.extreme_weight_ppm, EXTREME_UNIT) << 224)
    pnl[1] = word
    return black76._to_ticks(mark), pnl


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
