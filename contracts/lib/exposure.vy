# pragma version 0.4.3
# pragma evm-version cancun
# pragma nonreentrancy on
"""
@title What an account's positions of one underlying come to
@license MIT
@notice Twin of `sequencer/protocol/exposure.py`, which has the formulas and why they hold; results in 1e-6 USD.
@dev Scenario sums are kept two a word, in lanes of 128 bits: flipping the top bit of each int32 of a row adds 2^31 to it,
     so that lanes hold sum q (P&L + 2^31), and the bias 2^31 sum q comes off at the end.
@custom:security Bounds: |q| <= 2^44, 64 positions, marks, P&Ls, indices and forwards of 32 bits: sums below 2^82, slopes
                 below 2^103, products of two below 2^186, so that nothing wraps.
@custom:kill Nothing: it holds no state and no privilege.
"""

from . import constants
from . import params

LANES: constant(uint256) = (2**32 - 1) | ((2**32 - 1) << 128)  # scenarios s and s + 4 of a word, after a shift by 32 s
FLIP: constant(uint256) = max_value(uint256) // (2**32 - 1) * 2**31  # the top bit of each int32


struct Exposure:
    net: uint256[8]  # lanes of sum q (P&L + 2^31); scenarios 0..7 in the first four words, 8..15 in the others
    longs: uint256[8]  # likewise of uncovered longs, as the four below
    lots: uint256
    long_value: uint256  # lots x mark
    puts: uint256  # lots x forward
    calls: uint256
    total: int256  # sum q
    gross: uint256  # short lots x index
    net_short: uint256  # lots x index of the expiries before this one
    side_calls: int256  # net short calls of this expiry, lots x index
    side_puts: int256


@internal
@pure
def _signed(amount: uint256) -> int256:
    """
    @notice An unsigned amount, below 2^255, as signed.
    """
    return convert(convert(amount, bytes32), int256)


@internal
@pure
def _ceil_ppm(amount_ppm: uint256) -> int256:
    """
    @notice amount_ppm / 1e6, rounded up.
    """
    return self._signed(unsafe_div(unsafe_add(amount_ppm, constants.PPM - 1), constants.PPM))


@internal
@pure
def _with_row(lanes: uint256[8], q: uint256, first: uint256, second: uint256) -> uint256[8]:
    """
    @notice Lanes with q (in two's complement) times a row's two words.
    """
    out: uint256[8] = lanes
    for half: uint256 in range(2):
        pnl: uint256 = (first if half == 0 else second) ^ FLIP
        for i: uint256 in range(4):
            place: uint256 = unsafe_add(half << 2, i)
            out[place] = unsafe_add(out[place], unsafe_mul(q, pnl & LANES))
            pnl >>= 32
    return out


@internal
@pure
def _unpacked(lanes: uint256[8], total: int256) -> int256[16]:
    """
    @notice The 16 sums of lanes of `total` lots.
    """
    bias: int256 = unsafe_mul(total, 2**31)
    sums: int256[16] = empty(int256[16])
    for i: uint256 in range(8):
        low: int256 = self._signed(lanes[i] << 128) >> 128
        high: int256 = unsafe_sub(self._signed(lanes[i]), low) >> 128
        place: uint256 = i if i < 4 else unsafe_add(i, 4)
        sums[place] = unsafe_sub(low, bias)
        sums[unsafe_add(place, 4)] = unsafe_sub(high, bias)
    return sums


@internal
@pure
def _worst(one: Exposure, third_ppm: uint256) -> int256:
    """
    @notice The lowest P&L at the scenarios and between them, at most 0.
    @param third_ppm A third of the price range.
    """
    net: int256[16] = self._unpacked(one.net, one.total)
    worst: int256 = 0
    for low: int256 in net:
        worst = min(worst, low)
    if one.lots == 0:
        return worst
    longs: int256[16] = self._unpacked(one.longs, self._signed(one.lots))
    first: int256 = unsafe_sub(0, self._ceil_ppm(unsafe_mul(one.puts, third_ppm)))  # the steeper
    last: int256 = self._ceil_ppm(unsafe_mul(one.calls, third_ppm))
    for half: uint256 in range(2):
        before: int256 = first
        start: uint256 = half << 3
        for i: uint256 in range(6):
            k: uint256 = unsafe_add(start, i)
            next: uint256 = unsafe_add(k, 1)
            chord: int256 = unsafe_sub(longs[next], longs[k])
            after: int256 = last
            if i < 5:
                after = unsafe_sub(longs[unsafe_add(k, 2)], longs[next])
            # L >= -long_value, S <= the higher of its ends
            least: int256 = min(unsafe_sub(net[k], longs[k]), unsafe_sub(net[next], longs[next]))
            least = unsafe_sub(least, self._signed(one.long_value))
            bend: int256 = unsafe_sub(after, before)
            if bend > 0 and least < worst:
                # the lines cross at (after - chord) / bend of the way, where N lies below its start by drop / bend
                slope: int256 = unsafe_add(unsafe_sub(unsafe_sub(chord, before), net[next]), net[k])
                drop: int256 = unsafe_mul(slope, min(max(unsafe_sub(after, chord), 0), bend))  # < 2^187
                if drop > 0:
                    drop = unsafe_div(unsafe_sub(unsafe_add(drop, bend), 1), bend)  # rounded up
                    worst = min(worst, max(unsafe_sub(net[k], drop), least))
            before = chord
    return worst


@internal
@pure
def _initial(one: Exposure, own: uint256, short_gross_ppm: uint256) -> int256:
    """
    @notice IM. The last expiry counts as those before.
    @param own The underlying's word of PARAMS.
    """
    net_short: uint256 = unsafe_mul(self._net_short(one), params._of(own, params.SHORT_FLOOR_PPM))
    lowest: int256 = self._ceil_ppm(max(net_short, unsafe_mul(one.gross, short_gross_ppm)))  # products < 2^102
    return unsafe_sub(lowest, self._worst(one, unsafe_div(params._of(own, params.PRICE_RANGE_PPM), 3)))


@internal
@pure
def _net_short(one: Exposure) -> uint256:
    """
    @notice Net short lots x index of the greater side of each expiry so far.
    """
    return unsafe_add(one.net_short, convert(convert(max(max(one.side_calls, one.side_puts), 0), bytes32), uint256))
