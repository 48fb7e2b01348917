"""What an account's positions of one underlying come to: sums over the rows of the pages, and the loss they allow for.

q are lots, negative when short; P the P&Ls of a row, ticks. N = sum q x P is known at the seven moves of each set of
scenarios (risk_array.py), and bounded between them. Longs are summed apart for that:

    L = sum over longs of (lots that are not covered) x P,   S = L - N, the rest

A long is covered by as many lots as the account is short of the other type at the same strike, on the same page: a call
less a put is a forward, whose P&L is a straight line, and lines may be on either side. Now, options being convex in
the forward, between two moves L lies above the lines that its neighbouring chords prolong, and S below its own chord,
so that N is nowhere lower than at the moves or where those two lines cross. Beyond the outer moves the slope of L is
at least -sum of lots x forward of its puts, at most +sum of lots x forward of its calls. And L is nowhere lower than
minus its mark.

    worst = min(0, N at the 16 scenarios, N between the moves)
    floor = max(short_floor x sum over expiries of max(0, net short calls, net short puts), short_gross x shorts)
    IM    = floor - worst, never negative

Net shorts and shorts in lots x the page's index. All results in 1e-6 USD, rounded against the account.
"""

from collections.abc import Callable, Sequence
from itertools import repeat
from operator import add, mul, sub
from typing import Final, Protocol

from sequencer.protocol import constants as c

try:
    from sequencer._kernel import exposure_kernel as _kernel
except ImportError:  # not built, or FAIRSTRIKE_PURE=1
    _kernel = None  # type: ignore[assignment]  # a module or nothing

_PUT: Final = 1 << 31
_SETS: Final = (0, 8)  # where a row's two sets of seven moves begin
_NOTHING: Final[Sequence[int]] = [0] * c.SCENARIOS if _kernel is None else _kernel.Vector([0] * c.SCENARIOS)
_NO_SIDE: Final = (0, 0)
_NO_SIDES: Final[dict[int, tuple[int, int]]] = {}


class Marked(Protocol):
    """What a page (entries.py) says of its rows."""

    forward: int
    index: int
    time: int
    terms: list[int]
    rows: list[tuple[int, tuple[int, ...]]]


class Exposure:
    """The sums of one account and one underlying. Clones of an account share them: `moved` makes others."""

    __slots__ = (
        "calls",
        "gross",
        "index_high",
        "index_low",
        "long_value",
        "longs",
        "lots",
        "net",
        "newest",
        "oldest",
        "puts",
        "risk",
        "sides",
    )

    def __init__(self) -> None:
        self.net = _NOTHING  # as a whole replaced, not changed
        self.longs = _NOTHING  # of uncovered longs, as the four below
        self.lots = 0
        self.long_value = 0  # lots x mark
        self.puts = 0  # lots x forward
        self.calls = 0
        self.gross = 0  # short lots x index
        self.sides = _NO_SIDES  # expiry -> net short calls, puts; lots x index
        # of the pages, but for those that are marked for good (freshness.py); none: index_high and newest are 0
        self.index_low = self.oldest = c.U32_MAX
        self.index_high = self.newest = 0
        self.risk: int | None = None  # IM, once margin.py has computed it

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Exposure):
            return NotImplemented
        return (
            self.net == other.net
            and self.longs == other.longs
            and (self.lots, self.long_value, self.puts, self.calls)
            == (other.lots, other.long_value, other.puts, other.calls)
            and (self.gross, self.sides) == (other.gross, other.sides)
            and (self.index_low, self.index_high) == (other.index_low, other.index_high)
            and (self.oldest, self.newest) == (other.oldest, other.newest)
        )

    __hash__ = None  # type: ignore[assignment]  # it changes while it is built

    def add(self, page: Marked, instrument: int, held: int, delta: int) -> None:
        """`delta` lots more of an instrument of which there were `held`; on an exposure that nobody shares."""
        row = instrument & 31
        index = page.index
        if page.time != c.MARKED_FOR_GOOD:
            self.index_low, self.index_high = min(self.index_low, index), max(self.index_high, index)
            self.oldest, self.newest = min(self.oldest, page.time), max(self.newest, page.time)
        self.net = _plus(self.net, page.rows[row][1], delta)
        self.gross += (max(-held - delta, 0) - max(-held, 0)) * index
        expiry = instrument >> 12
        calls, puts = self.sides.get(expiry, _NO_SIDE)
        if page.terms[row] & _PUT:
            puts -= delta * index
        else:
            calls -= delta * index
        self.sides = {**self.sides, expiry: (calls, puts)}

    def add_longs(self, page: Marked, row: int, delta: int) -> None:
        """`delta` lots more of a row are longs that nothing covers; on an exposure that nobody shares."""
        mark, pnl = page.rows[row]
        self.longs = _plus(self.longs, pnl, delta)
        self.lots += delta
        self.long_value += delta * mark
        if page.terms[row] & _PUT:
            self.puts += delta * page.forward
        else:
            self.calls += delta * page.forward

    def moved(
        self, page: Marked, instrument: int, held: int, delta: int, mate: int, mate_held: int
    ) -> "Exposure":
        """The exposure after `delta` lots of an instrument; `mate`: the row of the other type, if that is held."""
        twin = Exposure()
        twin.net, twin.longs, twin.lots = self.net, self.longs, self.lots
        twin.long_value, twin.puts, twin.calls = self.long_value, self.puts, self.calls
        twin.gross, twin.sides, twin.risk = self.gross, self.sides, None
        twin.index_low, twin.index_high = self.index_low, self.index_high
        twin.oldest, twin.newest = self.oldest, self.newest
        twin.add(page, instrument, held, delta)
        own = uncovered(held + delta, mate_held) - uncovered(held, mate_held)
        if own:
            twin.add_longs(page, instrument & 31, own)
        if mate_held > 0:
            other = uncovered(mate_held, held + delta) - uncovered(mate_held, held)
            if other:
                twin.add_longs(page, mate, other)
        return twin

    def floor(self, short_floor_ppm: int, short_gross_ppm: int) -> int:
        """What shorts hold whatever the scenarios say, rounded up."""
        net_short = sum(max(0, calls, puts) for calls, puts in self.sides.values())
        return -(-max(net_short * short_floor_ppm, self.gross * short_gross_ppm) // c.PPM)

    def worst(self, third_ppm: int) -> int:
        """The lowest P&L at the scenarios and between them, at most 0. `third_ppm`: a third of the price range."""
        if self.lots == 0:
            return min(0, *self.net)
        first = -self.puts * third_ppm // c.PPM  # floor: the steeper
        last = -(-self.calls * third_ppm // c.PPM)
        found = _lowest(self.net, self.longs, first, last, self.long_value)
        return lowest(self.net, self.longs, first, last, self.long_value) if found is None else found


class Sums:
    """What an account's positions come to at the pages of one epoch (margin.py). Clones of an account share it."""

    __slots__ = ("exposures", "value")

    def __init__(self, value: int, exposures: dict[int, Exposure]) -> None:
        self.value = value  # sum of lots x mark
        self.exposures = exposures  # by underlying

    def moved(self, value: int, underlying: int, exposure: Exposure) -> "Sums":
        """The sums after a position's value has risen by `value`; its underlying's exposure is another."""
        exposures = self.exposures.copy()
        exposures[underlying] = exposure
        return Sums(self.value + value, exposures)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sums):
            return NotImplemented
        return self.value == other.value and self.exposures == other.exposures

    __hash__ = None  # type: ignore[assignment]  # as of the exposures


NO_SUMS: Final = Sums(0, {})  # of an account that has not been valued


def plus(sums: Sequence[int], row: tuple[int, ...], lots: int) -> Sequence[int]:
    """sums + row x lots, element by element."""
    return list(map(add, sums, map(mul, row, repeat(lots))))


def lowest(net: Sequence[int], longs: Sequence[int], first: int, last: int, long_value: int) -> int:
    """The lowest of N at the scenarios and between the moves, at most 0; `first`, `last`: the outermost slopes of L."""
    net, longs = list(net), list(longs)
    worst = min(0, *net)
    for start in _SETS:
        nets, values = net[start : start + 7], longs[start : start + 7]
        chords = [first, *map(sub, values[1:], values), last]
        for k, (before, chord, after, here, there) in enumerate(
            zip(chords, chords[1:], chords[2:], nets, nets[1:], strict=False)
        ):
            # the lines cross at (after - chord) / bend of the way, where N has fallen by that part of `slope`
            slope = chord - before - there + here
            if here - slope >= worst or after <= before or after <= chord:
                continue
            bend = after - before
            low = here - -(-slope * min(after - chord, bend) // bend)
            if low < worst:  # L >= -long_value, S <= the higher of its ends
                least = min(here - values[k], there - values[k + 1]) - long_value
                worst = min(worst, max(low, least))
    return worst


def gain(row: tuple[int, ...]) -> int:
    """The greatest of a row's P&Ls, at least 0."""
    return max(0, *row)


_plus: Final = plus if _kernel is None else _kernel.plus
greatest: Final = gain if _kernel is None else _kernel.gain
_lowest: Final[Callable[[Sequence[int], Sequence[int], int, int, int], int | None]] = (
    lowest if _kernel is None else _kernel.lowest
)


def uncovered(held: int, mate_held: int) -> int:
    """Lots of a long position that no short one of the same strike and the other type covers; 0 of a short one."""
    return max(0, held + min(0, mate_held))


def mate_of(page: Marked, row: int) -> int | None:
    """Row of the same strike and the other type on the page."""
    other = page.terms[row] ^ _PUT
    return page.terms.index(other) if other in page.terms else None
