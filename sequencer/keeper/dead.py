"""Index of dead resting orders: found by watching the conditions that end an order, without a scan.

An order dies with its own time or its instrument's, with its account's order floor, when it is reduce-only and nothing
is left to reduce, or when the marks leave its reserve behind (docs/PROTOCOL.md, section 9). Each has its index: a heap
of times, the floors seen, an account's reduce-only orders by position, and heaps of sells by the mark at which their
reserve fails. An index says where to look; `orders.is_dead` decides, and SWEEP again.
"""

from collections.abc import Callable, Iterator
from heapq import heappop, heappush
from itertools import islice
from typing import Final

from sequencer.protocol import constants as c
from sequencer.protocol import margin
from sequencer.protocol.book import Order
from sequencer.protocol.entries import Account, Page
from sequencer.protocol.matching import reducible
from sequencer.protocol.orders import is_dead
from sequencer.protocol.state import Changes, State, instrument_expiry_time

LOOKED_AT: Final = 16  # outdated entries to skip, for each proposal
CLEAN_MIN: Final = 1_024  # entries of a heap that is not cleaned
CLEANED_AT_PUSH: Final = 4
_NUMBER: Final = (1 << c.TYPE_SHIFT) - 1

OrderKey = tuple[int, int, int, int]  # instrument, side, price, seq


class _Heap:
    """Resting orders by a bound, the least first. Orders that have left are dropped once as many others have come,
    a few at each push: a million at once would take seconds. Meanwhile the entries are in two heaps.
    """

    __slots__ = ("_cleaned", "_entries", "_old", "_room", "_state")

    def __init__(self, state: State) -> None:
        self._state = state
        self._entries: list[tuple[int, OrderKey]] = []
        self._old: list[tuple[int, OrderKey]] = []  # still to be cleaned
        self._cleaned: dict[tuple[int, OrderKey], None] = {}  # of them, what has gone over to `_entries`
        self._room = CLEAN_MIN

    def __len__(self) -> int:
        return len(self._entries) + len(self._old)

    def push(self, bound: int, key: OrderKey) -> None:
        heappush(self._entries, (bound, key))
        if self._old:
            self._clean()
        elif len(self._entries) >= self._room:
            self._old, self._entries = self._entries, []

    def _clean(self) -> None:
        for _ in range(min(CLEANED_AT_PUSH, len(self._old))):
            one = self._old.pop()  # the last of a heap's list: what is left is a heap
            if one not in self._cleaned and self._state.find_order(*one[1]) is not None:
                self._cleaned[one] = None
                heappush(self._entries, one)
        if not self._old:
            self._cleaned = {}
            self._room = max(CLEAN_MIN, 2 * len(self._entries))

    def pop(self, bound: int) -> OrderKey | None:
        """Removes the least, if it is at or below `bound`."""
        old, entries = self._old, self._entries
        heap = old if old and (not entries or old[0] < entries[0]) else entries
        return heappop(heap)[1] if heap and heap[0][0] <= bound else None


class _Reducing:
    """The reduce-only orders of one account. Orders that have left are dropped once as many others have come."""

    __slots__ = ("_room", "count", "groups", "idle", "was_covered")

    def __init__(self) -> None:
        self.groups: dict[tuple[int, int], dict[int, Order]] = {}  # (instrument, side) -> seq -> order
        self.idle: dict[tuple[int, int], None] = {}  # groups with nothing to reduce at the last check
        self.was_covered = True
        self.count = 0
        self._room = 64

    def add(self, order: Order, held: dict[int, Order]) -> None:
        """`held`: what rests of the account."""
        self.groups.setdefault((order.instrument, order.side), {})[order.seq] = order
        self.count += 1
        if self.count >= self._room:
            for place, orders in list(self.groups.items()):
                self.groups[place] = {seq: one for seq, one in orders.items() if held.get(seq) is one}
                if not self.groups[place]:
                    del self.groups[place]
                    self.idle.pop(place, None)
            self.count = sum(map(len, self.groups.values()))
            self._room = max(64, 2 * self.count)


class DeadOrders:
    """Index of one state, updated from the state's changes."""

    def __init__(self, state: State, changes: Changes) -> None:
        self._state = state
        self._changes = changes
        self._found: dict[OrderKey, None] = {}  # found dead, not yet swept
        self._known: dict[int, None] = {}  # instruments that have ever had an order
        self._expiring: list[tuple[int, int]] = []  # (time, instrument)
        self._expired: dict[int, None] = {}
        self._timed = _Heap(state)
        self._floors: dict[int, int] = {}  # account -> its order floor at the last check
        self._reducing: dict[int, _Reducing] = {}
        self._ended: dict[tuple[int, ...], list[Order]] = {}  # orders that one change may have ended
        self._needs: dict[int, _Heap] = {}  # instrument -> sells, by what mark and risk must stay below
        self._marks: dict[int, _Heap] = {}  # likewise, reduce-only ones of covered accounts, by mark
        self._moved: dict[int, None] = {}  # instruments whose heaps may have been reached
        for held in list(state.orders_of.values()):
            for order in held.values():
                self._rested(order)
        for number in list(state.orders_of):
            self._account_changed(number, state.accounts[number])

    def update(self) -> None:
        """Reads the changes of the state."""
        self._state.flush_entries()
        changes = self._changes.take()
        for order in changes.orders:
            self._rested(order)
        for key, entry in changes.entries.items():
            if isinstance(entry, Account):
                self._account_changed(key & _NUMBER, entry)
            elif isinstance(entry, Page):
                first = (key & _NUMBER) << 5
                for instrument in range(first, first + len(entry.terms)):
                    if instrument in self._needs or instrument in self._marks:
                        self._moved[instrument] = None

    def dead(self, now_s: int, count: int) -> list[OrderKey]:
        """Up to `count` dead orders at `now_s`, the state's time or later.

        Each cause has its share, so none blocks another.
        """
        while self._expiring and self._expiring[0][0] <= now_s:
            instrument = heappop(self._expiring)[1]
            self._expired[instrument] = None
            self._needs.pop(instrument, None)
            self._marks.pop(instrument, None)
        self._found = {key: None for key in list(self._found) if self._is_dead(key, now_s)}
        kinds: tuple[Callable[[int], OrderKey | None], ...] = (
            self._timed.pop,
            self._unbacked,
            self._together,
        )
        share = -(-count // (len(kinds) + 1))
        most = count - len(list(islice(self._in_expired_books(), share)))
        for room in (share, count):
            for kind in kinds:
                self._fill(kind, now_s, min(len(self._found) + room, most))
        out = list(islice(self._found, count))
        return [*out, *islice(self._in_expired_books(), count - len(out))]

    def _fill(self, kind: Callable[[int], OrderKey | None], now_s: int, most: int) -> None:
        for _ in range(LOOKED_AT * most):
            if len(self._found) >= most or (key := kind(now_s)) is None:
                return
            if self._is_dead(key, now_s):
                self._found[key] = None

    def _is_dead(self, key: OrderKey, now_s: int) -> bool:
        """Whether the order rests, is dead, and is not removed with its book. A live one stays in the index."""
        order = self._state.find_order(*key)
        if order is None or key[0] in self._expired:
            return False
        if 0 < order.expires <= now_s or is_dead(self._state, self._state.accounts[order.account], order):
            return True
        self._watch(order)
        return False

    # --- what has changed -------------------------------------------------------------------------

    def _rested(self, order: Order) -> None:
        held = self._state.orders_of.get(order.account, {})
        if held.get(order.seq) is not order:  # it is gone again
            return
        instrument = order.instrument
        if instrument not in self._known:
            self._known[instrument] = None
            heappush(self._expiring, (instrument_expiry_time(instrument), instrument))
        if 0 < order.expires < instrument_expiry_time(instrument):
            self._timed.push(order.expires, _key(order))
        if order.flags & c.FLAG_REDUCE_ONLY:
            reducing = self._reducing.setdefault(order.account, _Reducing())
            reducing.add(order, held)
            reducing.idle.pop((instrument, order.side), None)
        self._watch(order)

    def _watch(self, order: Order) -> None:
        """A sell dies above a mark, which depends on whether its account is covered."""
        instrument = order.instrument
        if order.side == c.BUY or instrument in self._expired:
            return
        is_reducing = order.flags & c.FLAG_REDUCE_ONLY
        is_own = is_reducing and margin.is_covered(self._state.accounts[order.account])
        heaps = self._marks if is_own else self._needs
        heap = heaps.get(instrument)
        if heap is None:
            heap = heaps[instrument] = _Heap(self._state)
        heap.push(order.price + order.reserve_rate + 1, _key(order))
        self._moved[instrument] = None

    def _account_changed(self, number: int, account: Account) -> None:
        held = self._state.orders_of.get(number)
        if held is None:
            self._floors.pop(number, None)
            self._reducing.pop(number, None)
            return
        floor = account.order_floor
        if floor > self._floors.get(number, 0):
            self._floors[number] = floor
            self._ended[(number,)] = [order for order in held.values() if order.seq < floor]
        reducing = self._reducing.get(number)
        if reducing is None:
            return
        for place, orders in reducing.groups.items():
            if reducible(account, *place):
                reducing.idle.pop(place, None)
            elif place not in reducing.idle:
                reducing.idle[place] = None
                self._ended[(number, *place)] = list(orders.values())
        is_covered = margin.is_covered(account)
        if reducing.was_covered and not is_covered:  # its sells are now backed by mark and risk
            for place, orders in reducing.groups.items():
                if place[1] == c.SELL:
                    self._ended[(number, *place)] = list(orders.values())
        reducing.was_covered = is_covered

    # --- where to look ----------------------------------------------------------------------------

    def _unbacked(self, _now_s: int) -> OrderKey | None:
        """A sell that the marks have reached. Checks all heaps of a newly marked page once."""
        state = self._state
        while self._moved:
            instrument = next(iter(self._moved))
            page = state.pages[instrument >> 5]
            mark = page.rows[instrument & 31][0]
            heap = self._marks.get(instrument)
            if heap is not None and (key := heap.pop(mark)) is not None:
                return key
            heap = self._needs.get(instrument)
            if heap is not None:
                need = mark + margin.short_need(state, page, instrument)
                if (key := heap.pop(need)) is not None:
                    return key
            del self._moved[instrument]
        return None

    def _together(self, _now_s: int) -> OrderKey | None:
        while self._ended:
            place = next(iter(self._ended))
            if orders := self._ended[place]:
                return _key(orders.pop())
            del self._ended[place]
        return None

    def _in_expired_books(self) -> Iterator[OrderKey]:
        for instrument in list(self._expired):
            book = self._state.books[instrument]
            if not len(book):
                del self._expired[instrument]
            for side in (c.BUY, c.SELL):
                for order in book.orders(side):
                    yield (instrument, side, order.price, order.seq)


def _key(order: Order) -> OrderKey:
    return order.instrument, order.side, order.price, order.seq
