"""Lots and orders of price levels, kept up with the book so that showing one costs the same whatever rests in it.

A book is followed from the first time that it is asked for. A level is summed then, and kept up with what comes and
goes; it is summed again only when an order in it may have died or come back to life: one has reached its time, a mark
has passed a sell's reserve or gone back, an account has ended all of its orders. Reduce-only orders depend on their
account's position and are looked at one by one.
"""

from collections.abc import Iterator
from itertools import islice
from typing import Final

from sequencer.protocol import constants as c
from sequencer.protocol import margin
from sequencer.protocol.book import Book, Order
from sequencer.protocol.orders import is_dead
from sequencer.protocol.state import State, instrument_expiry_time

_NEVER: Final = 1 << 64


class _Level:
    """Of one price: `lots` and `count` of the orders that live and are not reduce-only, and how long that is true."""

    __slots__ = ("count", "dead", "dead_rate", "lots", "rate", "reducing", "until")

    def __init__(self) -> None:
        self.clear()
        self.until = 0

    def clear(self) -> None:
        """Nothing is counted."""
        self.until = _NEVER  # counted orders live until then, if the marks allow; 0: to be summed again
        self.rate = _NEVER  # no counted sell has a lower reserve rate
        self.dead_rate = -1  # no sell left out for its reserve has a higher one
        self.lots = 0
        self.count = 0
        self.dead: dict[int, None] = {}  # left out
        self.reducing: dict[int, Order] = {}


class Levels:
    """Of one book, in the order of its events: `inserted`, `removed` and `reduced` are called by it."""

    __slots__ = ("_book", "_levels", "_state", "summed")

    def __init__(self, state: State, book: Book) -> None:
        self._state = state
        self._book = book
        self._levels: tuple[dict[int, _Level], dict[int, _Level]] = ({}, {})
        self.summed = 0  # orders looked at to sum levels
        book.follower = self

    # --- what the book does -----------------------------------------------------------------------

    def inserted(self, order: Order) -> None:
        """It rests now."""
        level = self._levels[order.side].get(order.price)
        if level is None or not level.until:
            return
        if order.flags & c.FLAG_REDUCE_ONLY:
            level.reducing[order.seq] = order
            return
        level.lots += order.quantity
        level.count += 1
        level.rate = min(level.rate, order.reserve_rate)
        if order.expires:
            level.until = min(level.until, order.expires)

    def removed(self, order: Order, is_last: bool) -> None:
        """It rests no more; `is_last`: its level is empty."""
        levels = self._levels[order.side]
        if is_last:
            levels.pop(order.price, None)
            return
        level = levels.get(order.price)
        if level is None or not level.until:
            return
        if level.reducing.pop(order.seq, None) is None and level.dead.pop(order.seq, order) is order:
            level.lots -= order.quantity
            level.count -= 1

    def reduced(self, order: Order, lots: int) -> None:
        """So many lots of it have gone, and some are left; negative: they are back."""
        level = self._levels[order.side].get(order.price)
        if level is None or not level.until or order.seq in level.reducing or order.seq in level.dead:
            return
        level.lots -= lots

    def ended(self, order: Order) -> None:
        """It may have died at whatever marks."""
        level = self._levels[order.side].get(order.price)
        if level is not None:
            level.until = 0

    def release(self) -> None:
        """Follows its book no more."""
        self._book.follower = None

    # --- what is asked ----------------------------------------------------------------------------

    def rows(self, side: int, count: int) -> list[tuple[int, int, int]]:
        """The best `count` levels that live, best first: (price in ticks, lots, orders)."""
        return list(islice(self._rows(side), count))

    def best(self, side: int) -> int | None:
        """Price of the best order that lives, in ticks, or None."""
        return next((price for price, _, _ in self._rows(side)), None)

    def _rows(self, side: int) -> Iterator[tuple[int, int, int]]:
        state, instrument = self._state, self._book.instrument
        time = state.globals.time
        if time >= instrument_expiry_time(instrument):
            return
        page = state.pages[instrument >> 5]
        need = page.rows[instrument & 31][0] + margin.short_need(state, page, instrument)
        levels = self._levels[side]
        for price in self._book.prices(side):
            level = levels.get(price)
            if level is None:
                level = levels[price] = _Level()
            if time >= level.until or (
                side == c.SELL and not price + level.dead_rate < need <= price + level.rate
            ):
                self._sum(level, side, price, need)
            lots, orders = level.lots, level.count
            for order in level.reducing.values():
                if not is_dead(state, state.accounts[order.account], order):
                    lots += order.quantity
                    orders += 1
            if orders:
                yield price, lots, orders

    def _sum(self, level: _Level, side: int, price: int, need: int) -> None:
        """Sums a level anew; `need`: what price and reserve rate of a sell must reach."""
        accounts, time = self._state.accounts, self._state.globals.time
        level.clear()
        for order in self._book.level(side, price):
            self.summed += 1
            if order.flags & c.FLAG_REDUCE_ONLY:
                level.reducing[order.seq] = order
            elif order.seq < accounts[order.account].order_floor or 0 < order.expires <= time:
                level.dead[order.seq] = None
            elif side == c.SELL and price + order.reserve_rate < need:
                level.dead[order.seq] = None
                level.dead_rate = max(level.dead_rate, order.reserve_rate)
            else:
                level.lots += order.quantity
                level.count += 1
                level.rate = min(level.rate, order.reserve_rate)
                if order.expires:
                    level.until = min(level.until, order.expires)


class AllLevels:
    """Levels of the books of a state that somebody has looked at."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._of: dict[int, Levels] = {}

    def adopt(self, state: State) -> None:
        """Looks at `state` from now on."""
        for levels in self._of.values():
            levels.release()
        self._state = state
        self._of = {}

    def of(self, instrument: int) -> Levels | None:
        """Those of an instrument's book; None when it never had an order."""
        found = self._of.get(instrument)
        if found is None:
            book = self._state.books.get(instrument)
            if book is None:
                return None
            found = self._of[instrument] = Levels(self._state, book)
        return found

    def account_ended(self, number: int) -> None:
        """All older orders of an account have died together: the levels that they stand in are summed again."""
        if not self._of:
            return
        for order in self._state.orders_of.get(number, {}).values():
            levels = self._of.get(order.instrument)
            if levels is not None:
                levels.ended(order)
