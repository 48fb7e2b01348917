"""Risk array of one instrument: its mark and its profit or loss in 16 scenarios, in price ticks.

Twin: `contracts/lib/risk_array.vy`. Two sets of seven moves of the forward, from the range down to the range up by
thirds of it, with the volatility up and with the volatility down, a horizon of time having passed in both; and two
extreme moves at once, whose loss counts in part. A strike keeps its own variance when the forward moves (sticky
strike). All shocks are integers in parts per million (ppm).

    index  0   1    2    3  4    5    6  | 7        | 8   9    10   11 12   13   14 | 15
    price  -1 -2/3 -1/3  0 +1/3 +2/3 +1  | -extreme | -1 -2/3 -1/3  0 +1/3 +2/3 +1  | +extreme
    vol    up                            | as it is | down                          | as it is
"""

from dataclasses import dataclass, field
from functools import lru_cache
from math import isqrt

from sequencer.protocol.black76 import (
    ONE_Q56,
    PRICE_MAX,
    TICK_E10,
    W_MAX,
    exp_neg_q56,
    intrinsic,
    ln_ratio_q56,
    stdev_q56,
    time_value_q56,
    to_ticks,
)

try:
    from sequencer._kernel import black76_kernel as _kernel
except ImportError:  # not built, or FAIRSTRIKE_PURE=1
    _kernel = None  # type: ignore[assignment]  # a module or nothing

PPM = 1_000_000
SCENARIOS = 16
U32_MAX = (1 << 32) - 1
STRIKE_MAX = (1 << 31) - 1
PNL_MAX = (1 << 31) - 1
PNL_MIN = -(1 << 31)
VALUED_KEPT = 4_096  # a call and a put share one; so do a RISK and its repetition
SHOCK_MAX_PPM = 900_000  # a forward keeps a tenth of its value at least, a volatility too
LEFT_MAX_PPM = 2_000_000  # of a standard deviation
VOL_UP_MAX_PPM = 1_000_000  # a volatility doubles at most, which black76.STDEV_MAX_Q56 allows for

Row = tuple[int, tuple[int, ...]]  # mark (uint32 ticks), 16 profits or losses (int32 ticks)


@dataclass(frozen=True, slots=True)
class Shocks:
    """Scenario parameters of an underlying, in ppm and seconds.

    `third_ppm` and `moves` are derived: a third of the range, floored, and the seven moves by thirds and the two
    extreme ones, each as (ppm of the forward that is left, ln of it in Q56).
    """

    price_range_ppm: int = 150_000
    extreme_range_ppm: int = 450_000
    extreme_weight_ppm: int = 350_000
    vol_up_ppm: int = 300_000
    vol_down_ppm: int = 250_000
    horizon_s: int = 21_600
    vol_reference_s: int = 2_592_000
    vol_power_ppm: int = 300_000
    third_ppm: int = field(init=False, repr=False, compare=False)
    moves: tuple[tuple[int, int], ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        third, extreme = self.price_range_ppm // 3, self.extreme_range_ppm
        steps = (*(third * move for move in range(-3, 4)), -extreme, extreme)
        valid = is_valid(self)
        moves = tuple((PPM + step, ln_ratio_q56(PPM + step, PPM)) if valid else (PPM, 0) for step in steps)
        object.__setattr__(self, "third_ppm", third)
        object.__setattr__(self, "moves", moves)

    def left(self, remaining_s: int) -> tuple[int, int]:
        """What is left of a standard deviation with the volatility up, and with it down, when the horizon has passed.

        In ppm, for `remaining_s` (uint32) seconds to expiry; nothing is left when no more than the horizon remains. The
        shocks are the underlying's x (vol_reference_s / remaining_s) ^ vol_power, floored, up and down at most
        VOL_UP_MAX_PPM and SHOCK_MAX_PPM; the part that time leaves is the root of (remaining - horizon) / remaining,
        floored.
        """
        if remaining_s <= self.horizon_s:
            return 0, 0
        ln = ln_ratio_q56(self.vol_reference_s, remaining_s)
        shrinks = exp_neg_q56((ln if ln >= 0 else -ln) * self.vol_power_ppm // PPM)  # ln <= 22.2
        up, down = self.vol_up_ppm, self.vol_down_ppm
        if ln >= 0:
            up, down = up * ONE_Q56 // shrinks, down * ONE_Q56 // shrinks
        else:
            up, down = up * shrinks // ONE_Q56, down * shrinks // ONE_Q56
        time = isqrt((remaining_s - self.horizon_s) * PPM * PPM // remaining_s)
        up, down = min(up, VOL_UP_MAX_PPM), min(down, SHOCK_MAX_PPM)
        return (PPM + up) * time // PPM, (PPM - down) * time // PPM


def is_valid(shocks: Shocks) -> bool:
    """Whether the parameters lie in their bounds, for any integers. Only valid ones may reach `scenarios`."""
    return (
        0 <= shocks.price_range_ppm <= SHOCK_MAX_PPM
        and 0 <= shocks.extreme_range_ppm <= SHOCK_MAX_PPM
        and 0 <= shocks.extreme_weight_ppm <= PPM
        and 0 <= shocks.vol_up_ppm <= VOL_UP_MAX_PPM
        and 0 <= shocks.vol_down_ppm <= SHOCK_MAX_PPM
        and 0 <= shocks.horizon_s <= U32_MAX
        and 0 < shocks.vol_reference_s <= U32_MAX
        and 0 <= shocks.vol_power_ppm <= PPM
    )


def scenarios(
    forward: int, strike: int, is_put: bool, variance_e12: int, shocks: Shocks, left: tuple[int, int]
) -> Row:
    """(mark, 16 profits or losses) of one long contract, in ticks.

    forward, strike: uint32 ticks; variance_e12: 0 (expired: intrinsic values throughout) or 1..W_MAX, a
    greater one counts as W_MAX; shocks: valid ones; left: `Shocks.left` of the time to expiry. Roundings: the moved
    forward is exact in 1e-10 USD; a shocked standard deviation is floored to 2^-56; each price is floored to 1e-10
    USD; the mark is rounded half up to a tick; a profit or loss is that against the unrounded mark, times the weight
    if extreme, rounded once, to the nearest tick, half away from zero, and clamped to int32.
    """
    return _row(_valued(forward, strike, variance_e12, shocks, left), strike, is_put, shocks)


def scenarios_pair(
    forward: int, strike: int, variance_e12: int, shocks: Shocks, left: tuple[int, int]
) -> tuple[Row, Row]:
    """`scenarios` of a strike's call and put, at the work of little more than one: they share time values."""
    valued = _valued(forward, strike, variance_e12, shocks, left)
    return _row(valued, strike, False, shocks), _row(valued, strike, True, shocks)


def rows(
    forward: int, terms: list[int], variances: dict[int, int], shocks: Shocks, left: tuple[int, int]
) -> list[Row]:
    """`scenarios` of each row of a page. terms: strike | put << 31; variances: of each strike, 1e-12."""
    if _kernel is not None:
        moves, weight = shocks.moves, shocks.extreme_weight_ppm
        found = _kernel.rows(forward, terms, variances, moves, left, weight)
        if found is not None:
            return found
    return rows_in_python(forward, terms, variances, shocks, left)


def rows_in_python(
    forward: int, terms: list[int], variances: dict[int, int], shocks: Shocks, left: tuple[int, int]
) -> list[Row]:
    """What `rows` is without the kernel."""
    return [
        scenarios(forward, word & STRIKE_MAX, bool(word >> 31), variances[word & STRIKE_MAX], shocks, left)
        for word in terms
    ]


def settled(settlement: int, strike: int, is_put: bool) -> Row:
    """The row of an instrument with a fixed settlement price (ticks): intrinsic mark, nothing at risk."""
    return min(intrinsic(settlement, strike, is_put), PRICE_MAX), (0,) * SCENARIOS


@lru_cache(VALUED_KEPT)
def _valued(
    forward: int, strike: int, variance_e12: int, shocks: Shocks, left: tuple[int, int]
) -> tuple[tuple[int, int], ...]:
    """17 pairs (forward, time value) in 1e-10 USD: the mark's, then the scenarios' in order.

    ln(F(1+x)/K) is taken as ln(F/K) + ln(1+x), and a shocked volatility as a multiple of the standard
    deviation.
    """
    strike_e10 = strike * TICK_E10
    unit = forward * (TICK_E10 // PPM)
    dead = variance_e12 == 0 or forward == 0 or strike == 0
    x = 0 if dead else ln_ratio_q56(forward, strike)
    stdev = 0 if dead else stdev_q56(min(variance_e12, W_MAX))
    valued = [(unit * PPM, _time_value_e10(unit * PPM, strike_e10, x, stdev))]
    for left_ppm, extreme in zip(left, shocks.moves[7:], strict=True):
        for shock, deviation in (
            *((move, stdev * left_ppm // PPM) for move in shocks.moves[:7]),
            (extreme, stdev),
        ):
            moved = unit * shock[0]
            valued.append((moved, _time_value_e10(moved, strike_e10, x + shock[1], deviation)))
    return tuple(valued)


def _time_value_e10(forward_e10: int, strike_e10: int, x: int, stdev: int) -> int:
    """Time value in 1e-10 USD, floored; x is ln(F/K) in Q56, signed; 0 if stdev is 0."""
    low = min(strike_e10, forward_e10)
    return low * time_value_q56(x if x >= 0 else -x, stdev) >> 56


def _row(valued: tuple[tuple[int, int], ...], strike: int, is_put: bool, shocks: Shocks) -> Row:
    """Marks and profits or losses from the 17 pairs of `_valued`; roundings as `scenarios` says."""
    strike_e10 = strike * TICK_E10
    prices = [intrinsic(moved, strike_e10, is_put) + time_value for moved, time_value in valued]
    mark = prices.pop(0)
    pnl = [
        _nearest((price - mark) * shocks.extreme_weight_ppm, TICK_E10 * PPM)
        if place & 7 == 7
        else _nearest(price - mark, TICK_E10)
        for place, price in enumerate(prices)
    ]
    return to_ticks(mark), tuple(pnl)


def _nearest(amount: int, unit: int) -> int:
    """amount / unit to the nearest integer, half away from zero, clamped to int32. unit is even."""
    magnitude = ((amount if amount >= 0 else -amount) + unit // 2) // unit
    return max(PNL_MIN, min(magnitude if amount >= 0 else -magnitude, PNL_MAX))
