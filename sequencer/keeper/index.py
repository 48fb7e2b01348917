"""Indexes for the keeper: pages to mark, expiries to fix and to settle. Dead orders: `dead.py`.

They are kept beside the state, built when the keeper gets one, and updated from `State.changes` before a pass: the cost
follows the changes. They are hints only; an invalid record is refused.
"""

from collections.abc import Iterator
from heapq import heappop, heappush, nsmallest
from itertools import islice
from typing import Final

from sequencer.keeper.dead import DeadOrders
from sequencer.keeper.looks import Looks
from sequencer.protocol import constants as c
from sequencer.protocol.entries import Account, Expiry, Page, Underlying
from sequencer.protocol.state import State, expiry_time

_NUMBER: Final = (1 << c.TYPE_SHIFT) - 1


class PagesDue:
    """Pages to be marked: after a time, a move of the index, an expiry, or a listing.

    Pages are marked in waves: with a page that is due all that are `apart_s` older than it would be, because an account
    can only use pages that were marked together (protocol/freshness.py).
    """

    def __init__(self, move_ppm: int, refresh_s: int, apart_s: int) -> None:
        self._apart_s = apart_s
        self._is_wave = False  # a page has become due since the last wave
        self._oldest: list[tuple[int, int]] = []  # (time of the marks, page)
        self._move_ppm = move_ppm
        self._refresh_s = refresh_s
        self._due: dict[int, int] = {}  # page -> number of proposals
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
        for page_id in over:  # its marks are never needed
            del self._due[page_id]
        out = nsmallest(count, self._due, key=lambda one: (self._due[one], one not in held))
        for page_id in out:
            self._due[page_id] += 1
        return out

    def _add(self, page_id: int) -> None:
        self._due.setdefault(page_id, 0)
        self._is_wave = True


class Expiries:
    """Expiries that wait for their settlement price, and settled ones that still have holders."""

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
        """Moves expired days to `unfixed`; those whose snapshots are lost are dropped."""
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


class Index:
    """All indexes of one state."""

    def __init__(self, state: State, risk_move_ppm: int, risk_refresh_s: int) -> None:
        self.state = state
        self.looks = Looks(state)
        self.pages = PagesDue(risk_move_ppm, risk_refresh_s, state.params.mark_skew_max_s // 2)
        self.expiries = Expiries()
        self._changes, changes = state.watch(2)
        self.orders = DeadOrders(state, changes)
        for page_id, page in state.pages.items():
            self._changed(c.KEY_PAGE | page_id, page)
        for key, expiry in state.expiries.items():
            self._changed(c.KEY_EXPIRY | key, expiry)
        for number, account in state.accounts.items():
            self._changed(c.KEY_ACCOUNT | number, account)
        for number, underlying in state.underlyings.items():
            self._changed(c.KEY_UNDERLYING | number, underlying)

    def update(self) -> None:
        """Reads the changes of the state."""
        self.state.flush_entries()
        for key, entry in self._changes.take().entries.items():
            self._changed(key, entry)

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
