"""What a position has cost, and what closing it has earned: the open cost method, in integers.

A position of q lots has an open cost C (1e-6 USD, ticks x lots; negative when short). d lots at price p:

    opening    C grows by d x p
    closing    k of |q| lots take the part C x k / |q| of the cost along, cut off towards zero, the last lot all of it;
               realised is k lots at p less that part (for a short position the other way round)
    through 0  closes all of it, and opens the rest at p

So realised and unrealised (value - C) always add up to the cash that the trades have moved, to the unit. The average
price is C / q.
"""

from typing import Final

PRICE_E6: Final = 10_000  # 1e-6 USD in a tick


class Basis:
    """A position: lots, open cost, and what closing parts of it has earned since it was opened, 1e-6 USD."""

    __slots__ = ("cost", "lots", "realised")

    def __init__(self, lots: int = 0, cost: int = 0, realised: int = 0) -> None:
        self.lots = lots
        self.cost = cost
        self.realised = realised

    def trade(self, lots: int, price: int) -> int:
        """Adds `lots` (negative: sold) at `price` ticks; what that has earned."""
        held = self.lots
        if held == 0 or (held > 0) == (lots > 0):
            if held == 0:
                self.realised = 0
            self.lots = held + lots
            self.cost += lots * price
            return 0
        closed = min(abs(lots), abs(held))
        part = abs(self.cost) * closed // abs(held)
        if held > 0:
            earned = closed * price - part
            self.cost -= part
        else:
            earned = part - closed * price
            self.cost += part
        self.lots = held + lots
        self.realised += earned
        if abs(lots) > closed:
            self.realised = 0  # of the position that begins here
            self.cost = self.lots * price
        return earned

    def average_e6(self) -> int:
        """See `average_e6`."""
        return average_e6(self.lots, self.cost)


def average_e6(lots: int, cost: int) -> int:
    """Open cost of one contract of a position, 1e-6 USD, half up; 0 of no position."""
    held = abs(lots)
    return (2 * abs(cost) * PRICE_E6 + held) // (2 * held) if held else 0
