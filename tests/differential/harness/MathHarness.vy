# pragma version 0.4.3
# pragma evm-version cancun
"""
@title MathHarness: the risk mathematics, many inputs a call
@license MIT
@notice For tests. Signed numbers go in and out as words in two's complement.
"""

from lib import black76
from lib import risk_array
from lib import surface

ROWS: constant(uint256) = 256

LN_RATIO: constant(uint256) = 0
STDEV: constant(uint256) = 1
EXP_NEG: constant(uint256) = 2
HART_RATIO: constant(uint256) = 3
TIME_VALUE: constant(uint256) = 4
INTRINSIC: constant(uint256) = 5
PRICE: constant(uint256) = 6
TO_TICKS: constant(uint256) = 7
SURFACE_IS_VALID: constant(uint256) = 8
VARIANCE: constant(uint256) = 9
SURFACE_IS_SOUND: constant(uint256) = 10
AT_TIME: constant(uint256) = 11
SHOCKS_IS_VALID: constant(uint256) = 12
VARIANCE_AT: constant(uint256) = 13


@external
@pure
def evaluate(which: uint256, rows: DynArray[uint256[8], ROWS]) -> DynArray[uint256, ROWS]:
    """
    @notice One function at each row of arguments.
    """
    out: DynArray[uint256, ROWS] = []
    for row: uint256[8] in rows:
        out.append(self._evaluate(which, row))
    return out


@external
@pure
def scenarios(shocks: uint256[9], rows: DynArray[uint256[4], ROWS]) -> DynArray[uint256[3], ROWS]:
    """
    @notice (forward, strike, is put, variance) -> (mark, two words of profits and losses).
    """
    prepared: risk_array.Shocks = self._prepared(shocks)
    out: DynArray[uint256[3], ROWS] = []
    for row: uint256[4] in rows:
        mark: uint256 = 0
        pnl: uint256[2] = empty(uint256[2])
        mark, pnl = risk_array._scenarios(row[0], row[1], row[2] != 0, row[3], prepared)
        out.append([mark, pnl[0], pnl[1]])
    return out


@external
@pure
def settled(rows: DynArray[uint256[3], ROWS]) -> DynArray[uint256[3], ROWS]:
    """
    @notice (settlement, strike, is put) -> (mark, two words of profits and losses).
    """
    out: DynArray[uint256[3], ROWS] = []
    for row: uint256[3] in rows:
        mark: uint256 = 0
        pnl: uint256[2] = empty(uint256[2])
        mark, pnl = risk_array._settled(row[0], row[1], row[2] != 0)
        out.append([mark, pnl[0], pnl[1]])
    return out


@external
@pure
def shocks(parameters: uint256[9]) -> (uint256[9], int256[9], uint256[2]):
    """
    @notice The nine moves: ppm of the forward left, and its logarithm; ppm of a standard deviation left, up and down.
    """
    prepared: risk_array.Shocks = self._prepared(parameters)
    return prepared.left_ppm, prepared.ln_left, [prepared.up_ppm, prepared.down_ppm]


@external
def gas_of_page(
    shocks: uint256[9], svi: int256[5], forward: uint256, terms: DynArray[uint256, 32], remaining_s: uint256[2]
) -> uint256:
    """
    @notice Gas of the mathematics of one RISK record: shocks; for each row (strike | put << 31) variance and scenarios.
    """
    before: uint256 = msg.gas
    prepared: risk_array.Shocks = self._prepared(shocks)
    shape: surface.Surface = self._surface(svi)
    for one: uint256 in terms:
        strike: uint256 = one & (2**31 - 1)
        variance: uint256 = surface._at_time(
            surface._variance_e12(shape, forward, strike), remaining_s[0], remaining_s[1]
        )
        mark: uint256 = 0
        pnl: uint256[2] = empty(uint256[2])
        mark, pnl = risk_array._scenarios(forward, strike, one >> 31 != 0, variance, prepared)
    return unsafe_sub(before, msg.gas)


@external
def gas_of_scenarios(shocks: uint256[9], rows: DynArray[uint256[4], ROWS]) -> DynArray[uint256, ROWS]:
    """
    @notice Gas of each row of `scenarios`.
    """
    prepared: risk_array.Shocks = self._prepared(shocks)
    out: DynArray[uint256, ROWS] = []
    for row: uint256[4] in rows:
        before: uint256 = msg.gas
        mark: uint256 = 0
        pnl: uint256[2] = empty(uint256[2])
        mark, pnl = risk_array._scenarios(row[0], row[1], row[2] != 0, row[3], prepared)
        out.append(unsafe_sub(before, msg.gas))
    return out


@internal
@pure
def _evaluate(which: uint256, row: uint256[8]) -> uint256:
    if which == LN_RATIO:
        return self._word(black76._ln_ratio_q56(row[0], row[1]))
    if which == STDEV:
        return black76._stdev_q56(row[0])
    if which == EXP_NEG:
        return black76._exp_neg_q56(row[0])
    if which == HART_RATIO:
        return black76._hart_ratio_q56(row[0])
    if which == TIME_VALUE:
        return black76._time_value_q56(row[0], row[1])
    if which == INTRINSIC:
        return black76._intrinsic(row[0], row[1], row[2] != 0)
    if which == PRICE:
        return black76._price_e10(row[0], row[1], row[2] != 0, row[3])
    if which == TO_TICKS:
        return black76._to_ticks(row[0])
    if which == AT_TIME:
        return surface._at_time(row[0], row[1], row[2])
    if which == SHOCKS_IS_VALID:
        return convert(risk_array._is_valid(row[0], row[1], row[2], row[3], row[4], row[5], row[6], row[7]), uint256)
    shape: surface.Surface = self._surface(
        [self._int(row[0]), self._int(row[1]), self._int(row[2]), self._int(row[3]), self._int(row[4])]
    )
    if which == SURFACE_IS_VALID:
        return convert(surface._is_valid(shape), uint256)
    if which == VARIANCE:
        return surface._variance_e12(shape, row[5], row[6])
    if which == VARIANCE_AT:
        return surface._variance_at_e12(shape, self._int(row[5]))
    assert which == SURFACE_IS_SOUND, "harness: unknown function"
    return convert(surface._is_sound(shape), uint256)


@internal
@pure
def _prepared(shocks: uint256[9]) -> risk_array.Shocks:
    up: uint256 = 0
    down: uint256 = 0
    up, down = risk_array._left(shocks[3], shocks[4], shocks[5], shocks[6], shocks[7], shocks[8])
    return risk_array._shocks(shocks[0], shocks[1], shocks[2], up, down)


@internal
@pure
def _surface(svi: int256[5]) -> surface.Surface:
    return surface.Surface(a_e12=svi[0], b_e12=svi[1], rho_e12=svi[2], m_e12=svi[3], sigma_e12=svi[4])


@internal
@pure
def _int(word: uint256) -> int256:
    return convert(convert(word, bytes32), int256)


@internal
@pure
def _word(number: int256) -> uint256:
    return convert(convert(number, bytes32), uint256)
