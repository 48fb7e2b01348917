"""What the keeper would otherwise have to search for: pages to mark, expiries to fix and to settle, dead orders.

All of it is kept beside the state, made when the keeper gets one, and brought up to date by `State.changes` before a
pass: the work is that of what has changed. Nothing here decides what is true; a record that should not be is refused.
"""

from collections.abc import Iterator
from heapq import heapify, heappop, heappush, nsmallest
from itertools import islice
from typing import Final

from sequencer.keeper_looks import Looks
from sequencer.protocol import constants as c
from sequencer.protocol.book import Order
from sequencer.protocol.entries import Account, Expiry, Page, Underlying
from sequencer.protocol.state import Changes, State, expiry_time, instrument_expiry_time

_NUMBER: Final = (1 << c.TYPE_SHIFT) - 1
LOOKED_AT: Final = 16  # entries of orders that are gone already, for each that a pass may propose
CLEAN_MIN: Final = 1_024  # entries that a heap of orders may have without being cleaned

OrderKey = tuple[int, int, int, int]  # instrument, side, price, seq


class PagesDue:
    """Pages whose marks are to be made anew: after a time, a move of the index, an expiry, or a listing.

    They come in waves: with one that has become due all that are `apart_s` older than it would be, because an account
    can only use pages that were marked together (protocol/freshness.py).
    """

    def __init__(self, move_ppm: int, refresh_s: int, apart_s: int) -> None:
        self._apart_s = apart_s
        self._is_wave = False  # a page has become due since the last wave
        self._oldest: list[tuple[int, int]] = []  # (time of the marks, page)
        self._move_ppm = move_ppm
        self._refresh_s = refresh_s
        self._due: dict[int, int] = {}  # page -> how often it has been proposed
        self._made: dict[int, tuple[int, int]] = {}  # page -> time and index of its marks
        self._times: list[tuple[int, int, int]] = []  # (due from then on, page, time of the marks)
        self._above: dict[
            int, list[tuple[int, int, int]]
        ] = {}  # underlying -> (index from which on, page, of index)
        self._below: dict[int, list[tuple[int, int, int]]] = {}  # the same, both negated

    def changed(self, page_id: int, page: Page) -> None:
        """It has been listed on, or marked."""
        self._due.pop(page_id, None)
        if page.marked < len(page.terms):
            self._add(page_id)
        made = (page.time, 0 if page.time == c.MARKED_FOR_GOOD else page.index)
        if not page.time or self._made.get(page_id) == made:
            return
        self._made[page_id] = made
        if page.time == c.MARKED_FOR_GOOD:
            return
        heappush(self._oldest, (page.time, page_id))
        expires = expiry_time(page_id >> 7 & 0xFFFF)
        due = page.time + self._refresh_s
        heappush(self._times, (min(due, expires) if page.time < expires else due, page_id, page.time))
        step = -(-self._move_ppm * page.index // c.PPM)
        heappush(self._above.setdefault(page_id >> 23, []), (page.index + step, page_id, page.index))
        heappush(self._below.setdefault(page_id >> 23, []), (step - page.index, page_id, page.index))

    def due(self, now_s: int, indexes: dict[int, int], looks: Looks, count: int) -> list[int]:
        """Up to `count` pages: those least often proposed in vain, held ones first."""
        while self._times and self._times[0][0] <= now_s:
            _, page_id, time = heappop(self._times)
            if self._made[page_id][0] == time:
                self._add(page_id)
        for underlying, index in indexes.items():
            for heap, at in ((self._above.get(underlying), index), (self._below.get(underlying), -index)):
                while heap and heap[0][0] <= at:
                    _, page_id, of_index = heappop(heap)
                    if self._made[page_id][1] == of_index:
                        self._add(page_id)
        if self._is_wave:
            self._is_wave = False
            while self._oldest and self._oldest[0][0] < now_s - self._apart_s:
                time, page_id = heappop(self._oldest)
                if self._made[page_id][0] == time:
                    self._due.setdefault(page_id, 0)
        held = looks.by_page
        over = [one for one in self._due if one not in held and now_s >= expiry_time(one >> 7 & 0xFFFF)]
        for page_id in over:  # nobody will ever ask for its marks
            del self._due[page_id]
        out = nsmallest(count, self._due, key=lambda one: (self._due[one], one not in held))
        for page_id in out:
            self._due[page_id] += 1
        return out

    def _add(self, page_id: int) -> None:
        self._due.setdefault(page_id, 0)
        self._is_wave = True


class Expiries:
    """Those that wait for their price, and those that have it and still have holders."""

    def __init__(self) -> None:
        self.unfixed: dict[int, None] = {}  # past their time
        self._ahead: list[tuple[int, int]] = []  # (time, expiry)
        self._known: dict[int, None] = {}
        self._settled: dict[int, None] = {}

    def changed(self, key: int, expiry: Expiry) -> None:
        """It has been listed, reported on, or fixed."""
        if expiry.settled:
            self.unfixed.pop(key, None)
            self._settled[key] = None
        elif key not in self._known:
            heappush(self._ahead, (expiry_time(key & 0xFFFF), key))
        self._known[key] = None

    def advance(self, now_s: int) -> None:
        """Moves what has expired to `unfixed`; what no snapshot can be left of is given up."""
        while self._ahead and self._ahead[0][0] <= now_s:
            _, key = heappop(self._ahead)
            if key not in self._settled:
                self.unfixed[key] = None
        for key in [one for one in self.unfixed if expiry_time((one & 0xFFFF) + c.SNAPSHOT_DAYS) < now_s]:
            del self.unfixed[key]

    def holders(self, looks: Looks, count: int) -> Iterator[tuple[int, int]]:
        """Up to `count` pairs of a settled expiry and an account with positions in it."""
        for key in list(self._settled):
            if key not in looks.by_expiry:  # and nobody can take a position in it any more
                del self._settled[key]
                continue
            told: dict[int, None] = {}
            for page_id in looks.by_expiry[key]:
                for number in islice(looks.by_page[page_id], count):
                    if number not in told:
                        told[number] = None
                        yield key, number
                        count -= 1
                        if not count:
                            return


class DeadOrders:
    """Resting orders of expired instruments, and orders past their own time."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._known: dict[int, None] = {}  # instruments that have ever had an order
        self._expiring: list[tuple[int, int]] = []  # (time, instrument)
        self._expired: dict[int, None] = {}
        self._timed: list[tuple[int, OrderKey]] = []
        self._lapsed: dict[OrderKey, None] = {}
        self._room = CLEAN_MIN
        for instrument, book in state.books.items():
            self._know(instrument)
            for side in (c.BUY, c.SELL):
                for order in book.orders(side):
                    self.rested(order)

    def rested(self, order: Order) -> None:
        """An order has come to rest."""
        instrument = order.instrument
        self._know(instrument)
        if 0 < order.expires < instrument_expiry_time(instrument):
            heappush(self._timed, (order.expires, (instrument, order.side, order.price, order.seq)))
            if len(self._timed) >= self._room:  # as many again have come: those that are gone leave
                self._timed = [one for one in self._timed if self._rests(one[1])]
                heapify(self._timed)
                self._room = max(CLEAN_MIN, 2 * len(self._timed))

    def _know(self, instrument: int) -> None:
        if instrument not in self._known:
            self._known[instrument] = None
            heappush(self._expiring, (instrument_expiry_time(instrument), instrument))

    def _rests(self, key: OrderKey) -> bool:
        return self._state.find_order(*key) is not None

    def _is_alone(self, key: OrderKey) -> bool:
        """Whether it still rests, and does not go with its book."""
        return key[0] not in self._expired and self._rests(key)

    def dead(self, now_s: int, count: int) -> list[OrderKey]:
        """Up to `count` of them, at most half of them past their own time."""
        while self._expiring and self._expiring[0][0] <= now_s:
            self._expired[heappop(self._expiring)[1]] = None
        self._lapsed = {key: None for key in self._lapsed if self._is_alone(key)}
        for _ in range(LOOKED_AT * count):
            if not self._timed or self._timed[0][0] > now_s or len(self._lapsed) >= count // 2:
                break
            _, key = heappop(self._timed)
            if self._is_alone(key):
                self._lapsed[key] = None
        out = list(self._lapsed)
        for instrument in list(self._expired):
            book = self._state.books[instrument]
            if not len(book):
                del self._expired[instrument]
            for side in (c.BUY, c.SELL):
                room = count - len(out)
                out += ((instrument, side, one.price, one.seq) for one in islice(book.orders(side), room))
            if len(out) >= count:
                break
        return out


class Index:
    """All of it for one state."""

    def __init__(self, state: State, risk_move_ppm: int, risk_refresh_s: int) -> None:
        self.state = state
        self.looks = Looks(state)
        self.pages = PagesDue(risk_move_ppm, risk_refresh_s, state.params.mark_skew_max_s // 2)
        self.expiries = Expiries()
        self.orders = DeadOrders(state)
        state.flush()
        state.changes = Changes()
        for page_id, page in state.pages.items():
            self._changed(c.KEY_PAGE | page_id, page)
        for key, expiry in state.expiries.items():
            self._changed(c.KEY_EXPIRY | key, expiry)
        for number, account in state.accounts.items():
            self._changed(c.KEY_ACCOUNT | number, account)
        for number, underlying in state.underlyings.items():
            self._changed(c.KEY_UNDERLYING | number, underlying)

    def update(self) -> None:
        """Takes in what has changed in the state."""
        self.state.flush()
        changes = self.state.changes
        assert changes is not None  # they are this index's
        self.state.changes = Changes()
        for key, entry in changes.entries.items():
            self._changed(key, entry)
        for order in changes.orders:
            self.orders.rested(order)

    def _changed(self, key: int, entry: object) -> None:
        number = key & _NUMBER
        if isinstance(entry, Account):
            self.looks.account_changed(number, entry)
        elif isinstance(entry, Page):
            self.looks.page_changed(number, entry)
            self.pages.changed(number, entry)
        elif isinstance(entry, Underlying):
            self.looks.index_changed(number, entry.index)
        elif isinstance(entry, Expiry):
            self.expiries.changed(number, entry)
