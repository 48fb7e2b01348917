"""Accounts that the keeper must check: those whose margin may have failed since their last check.

The excess of an account over its maintenance margin falls by at most `lots x how far the rows of its pages have moved`
(`row_move`). So a check (a look) stores, for each page held, how far that page may move before the account must be
checked again; a page that is marked anew advances by its greatest move and returns the accounts whose limit it has
passed. An account below its margin is therefore always in `short` or waiting for a check: tests/keeper/test_looks.py.

Checks are counted, not timed. Waiting accounts are checked by what they may cost others, largest first, in size classes
that grow by a factor of four: filling a class takes as many accounts of that size, each with its margin. An eighth of
the checks goes round all accounts in turn, so that each is checked after at most `8 x accounts / looks` passes,
whatever waits before it.
"""

from collections import deque
from collections.abc import Iterator
from heapq import heapify, heappop, heappush, nlargest, nsmallest
from operator import sub
from typing import Final

from sequencer.protocol import constants as c
from sequencer.protocol import insurance, margin
from sequencer.protocol.entries import Account, Page, Row
from sequencer.protocol.state import State

ITSELF: Final = 0  # in the place of a page, for accounts that have changed; no page has number 0
FOREVER: Final = 1 << 80  # a move beyond any account's limit: a page goes stale or is fresh again
LOOK_COST: Final = 8  # cost of a check, in outdated heap entries
RING_PART: Final = 8  # one check of so many goes round all accounts
ROUNDING: Final = 8  # at most, of IM's parts of two underlyings and of MM together, 1e-6 USD
SHARD_BITS: Final = 12  # accounts of one heap: what cleaning one may take at once

Far = list[tuple[int, int, int]]  # (index at which a page's marks are old, page, index of the marks)
Heap = list[tuple[int, int, int]]  # (limit of the page's move, account, version)


class Holder:
    """Data of an account that has positions, or owes, or has orders beyond its cash."""

    __slots__ = ("is_gone", "number", "pages", "size", "version")

    def __init__(self, number: int) -> None:
        self.number = number
        self.pages: tuple[int, ...] = ()
        self.size = 0
        self.version = 0
        self.is_gone = False


class Looks:
    """`by_page`: holders of each page; `by_expiry`: held pages of each expiry. `auctions`: accounts under auction.

    `short`: accounts below MM + reserved, and auctions that may end, with how often they have been proposed and how
    much is missing (1e-6 USD), negated.
    """

    def __init__(self, state: State) -> None:
        self.state = state
        self.by_page: dict[int, dict[int, None]] = {}
        self.by_expiry: dict[int, dict[int, None]] = {}
        self.auctions: dict[int, None] = {}
        self.short: dict[int, tuple[int, int]] = {}
        self._holders: dict[int, Holder] = {}
        self._ring: deque[Holder] = deque()
        self._turn = 0  # of the auctions
        self._rows: dict[
            int, tuple[int, int, int, list[Row]]
        ] = {}  # page -> index, forward, time, marked rows
        self._moved: dict[int, int] = {ITSELF: 0}
        self._limits: dict[
            int, dict[int, Heap]
        ] = {}  # page -> size << 20 | shard of the account's number -> heap
        self._room: dict[tuple[int, int], int] = {}  # of a heap: entries that may come before it is cleaned
        self._hot: dict[int, None] = {}  # pages that have moved, or are not processed yet
        self._far: dict[
            int, dict[int, None]
        ] = {}  # underlying -> pages that the index has left too far behind
        self._far_at: dict[
            int, tuple[Far, Far]
        ] = {}  # underlying -> heaps for an index that rises, and that falls
        self._stale_at: list[tuple[int, int]] = []  # (from when on a page counts as stale, page)
        self._stale: dict[int, None] = {}

    def __len__(self) -> int:
        """Number of accounts watched."""
        return len(self._holders)

    @property
    def is_behind(self) -> bool:
        """Whether accounts wait for a check."""
        return bool(self._hot)

    # --- changes ----------------------------------------------------------------------------------

    def account_changed(self, number: int, account: Account) -> None:
        """The account is checked in the next pass."""
        holder = self._holders.get(number)
        if not account.positions and account.cash >= account.reserved and not account.auction_start:
            if holder is not None:
                self._hold(holder, ())
                holder.is_gone = True
                del self._holders[number]
                self.short.pop(number, None)
                self.auctions.pop(number, None)
            return
        if holder is None:
            holder = self._holders[number] = Holder(number)
            self._ring.append(holder)
        self._hold(holder, tuple(sorted({instrument >> 5 for instrument in account.positions})))
        if account.auction_start:
            self.auctions[number] = None
        else:
            self.auctions.pop(number, None)
        self.short.pop(number, None)
        holder.version += 1
        holder.size = self._size(account)
        self._wait(ITSELF, holder, -1)
        self._hot[ITSELF] = None

    def page_changed(self, page_id: int, page: Page) -> None:
        """Its holders come nearer to their next check by the distance that it moved."""
        before = self._rows.get(page_id)
        self._rows[page_id] = (page.index, page.forward, page.time, page.rows[: page.marked])
        if before is None or (before[0], before[2]) != (page.index, page.time):
            self._watch_index(page_id, page.index, page.time)
        if before is None or before[2] == page.time == 0:
            heappush(self._stale_at, (page.time + self.state.params.risk_age_max_s + 1, page_id))
            self._moved[page_id] = 0
            return
        index, forward, time, rows = before
        if page.time != time:
            heappush(self._stale_at, (page.time + self.state.params.risk_age_max_s + 1, page_id))
        moves = abs(page.index - index), abs(page.forward - forward)
        move = row_move(self.state, page_id >> 23, rows, page.rows, *moves)
        was_old = self._stale.pop(page_id, self) is None
        if self._far.get(page_id >> 23, {}).pop(page_id, self) is None:
            was_old = True
        self._move(page_id, FOREVER if was_old else move)

    def index_changed(self, underlying: int, index: int) -> None:
        """Marks that the index leaves too far behind count as old; marks that it returns to no longer do."""
        far = self._far.setdefault(underlying, {})
        for page_id in list(far):
            marked_at, _, time, _ = self._rows[page_id]
            if not self._is_far(marked_at, index):
                del far[page_id]
                self._watch_index(page_id, marked_at, time)
                self._move(page_id, FOREVER)
        above, below = self._far_at.setdefault(underlying, ([], []))
        for heap, at in ((above, index), (below, -index)):
            while heap and heap[0][0] <= at:
                _, page_id, marked_at = heappop(heap)
                if (
                    self._rows[page_id][0] == marked_at
                    and page_id not in far
                    and self._is_far(marked_at, index)
                ):
                    far[page_id] = None
                    self._move(page_id, FOREVER)

    def _is_far(self, marked_at: int, index: int) -> bool:
        return abs(marked_at - index) * c.PPM > self.state.params.mark_move_max_ppm * index

    def _watch_index(self, page_id: int, marked_at: int, time: int) -> None:
        if time == c.MARKED_FOR_GOOD:
            return
        above, below = self._far_at.setdefault(page_id >> 23, ([], []))
        part = self.state.params.mark_move_max_ppm
        if part < c.PPM:
            heappush(above, (marked_at * c.PPM // (c.PPM - part) + 1, page_id, marked_at))
        heappush(below, (-((marked_at * c.PPM - 1) // (c.PPM + part)), page_id, marked_at))

    def _move(self, page_id: int, move: int) -> None:
        if move:
            self._moved[page_id] += move
            self._hot[page_id] = None

    def _hold(self, holder: Holder, pages: tuple[int, ...]) -> None:
        if pages == holder.pages:
            return
        for page_id in holder.pages:
            if page_id not in pages:
                del self.by_page[page_id][holder.number]
                if not self.by_page[page_id]:
                    del self.by_page[page_id]
                    del self.by_expiry[page_id >> 7][page_id]
                    if not self.by_expiry[page_id >> 7]:
                        del self.by_expiry[page_id >> 7]
        for page_id in pages:
            self.by_page.setdefault(page_id, {})[holder.number] = None
            self.by_expiry.setdefault(page_id >> 7, {})[page_id] = None
        holder.pages = pages

    def _size(self, account: Account) -> int:
        """What the account may cost others, as a power of 4: without margin, or a debt of that size, no account is
        large.
        """
        pages = self.state.pages
        at_risk = account.reserved + max(0, -account.cash)
        for instrument, lots in account.positions.items():
            if lots < 0:
                at_risk -= lots * pages[instrument >> 5].index
        return at_risk.bit_length() >> 1

    # --- looks ------------------------------------------------------------------------------------

    def look(self, now_s: int, looks_max: int) -> int:
        """Checks up to `looks_max` accounts, the waiting ones and some in turn; returns their number."""
        while self._stale_at and self._stale_at[0][0] <= now_s:
            due, page_id = heappop(self._stale_at)
            if self._rows[page_id][2] + self.state.params.risk_age_max_s + 1 == due:
                self._stale[page_id] = None
                self._move(page_id, FOREVER)
        turns = min(looks_max // RING_PART, len(self._ring))
        looks = self._look_at_waiting((looks_max - turns) * LOOK_COST)
        for _ in range(turns):
            holder = self._ring.popleft()
            if not holder.is_gone:
                self._ring.append(holder)
                looks += 1
                missing = shortfall(self.state, self.state.accounts[holder.number])
                if missing > 0 or holder.number in self.short:
                    self._look(holder)
        return looks

    def _look_at_waiting(self, work: int) -> int:
        looks = 0
        for key, page_id in self._waiting():
            heap, reached = self._limits[page_id][key], self._moved[page_id]
            while heap and heap[0][0] < reached and work > 0:
                _, number, version = heappop(heap)
                holder = self._holders.get(number)
                work -= 1
                if holder is not None and holder.version == version:
                    self._look(holder)
                    looks += 1
                    work -= LOOK_COST - 1
            if work <= 0:
                return looks
        self._hot.clear()
        return looks

    def _waiting(self) -> list[tuple[int, int]]:
        """(key, page) of the heaps with waiting accounts, largest size first."""
        return sorted(
            (
                (key, page_id)
                for page_id in self._hot
                for key, heap in self._limits.get(page_id, {}).items()
                if heap and heap[0][0] < self._moved[page_id]
            ),
            reverse=True,
        )

    def _look(self, holder: Holder) -> None:
        """Values an account, and stores how far its pages may move until the next check."""
        holder.version += 1
        account = self.state.accounts[holder.number]
        holder.size = self._size(account)
        missing = shortfall(self.state, account)
        if missing > 0:
            self.short[holder.number] = (self.short.get(holder.number, (0, 0))[0], -missing)
            return
        self.short.pop(holder.number, None)
        lots = sum(abs(quantity) for quantity in account.positions.values())
        for page_id in holder.pages:
            self._wait(page_id, holder, self._moved[page_id] + max(0, -missing - ROUNDING) // lots)

    def _wait(self, page_id: int, holder: Holder, limit: int) -> None:
        key = holder.size << 20 | holder.number >> SHARD_BITS
        heap = self._limits.setdefault(page_id, {}).setdefault(key, [])
        heappush(heap, (limit, holder.number, holder.version))
        place = (page_id, key)
        self._room[place] = room = self._room.get(place, 16) - 1
        if room <= 0:  # the heap has doubled: outdated entries are removed
            heap[:] = [one for one in heap if self._is_current(one)]
            heapify(heap)
            self._room[place] = len(heap) + 16

    def _is_current(self, entry: tuple[int, int, int]) -> bool:
        holder = self._holders.get(entry[1])
        return holder is not None and holder.version == entry[2]

    # --- results ----------------------------------------------------------------------------------

    def some_auctions(self, count: int) -> list[int]:
        """Accounts under auction, up to `count`: half of them the largest, the others in turn."""
        numbers = list(self.auctions)
        if len(numbers) <= count:
            return numbers
        largest = nlargest(count // 2, numbers, key=lambda number: self._holders[number].size)
        start = self._turn % len(numbers)
        self._turn = start + count // 2
        return list(dict.fromkeys(largest + [*numbers, *numbers][start : self._turn]))

    def proposals(self, count: int) -> Iterator[int]:
        """Up to `count` accounts of `short` that still belong there: those least often proposed, the largest first."""
        for number in nsmallest(count, self.short, key=self.short.__getitem__):
            holder = self._holders[number]
            self._look(holder)
            if number in self.short:
                tried, missing = self.short[number]
                self.short[number] = (tried + 1, missing)
                yield number


def shortfall(state: State, account: Account) -> int:
    """What is missing (1e-6 USD) to equity = MM + reserved. Above 0 LIQUIDATE does something.

    Of an auction: 1 when its account has IM again and it can end, or its hole is another one than was measured; else
    the negative of what is missing to that.
    """
    equity, risk, worth = margin.cautious(state, account)
    if account.auction_start:
        hole = insurance.hole_of(state.globals, account, worth)
        if equity >= risk or hole != account.hole:
            return 1
        return -min(risk - equity - 1, 0 if hole else worth)
    return -(-risk * state.params.maintenance_ppm // c.PPM) + account.reserved - equity


def row_move(
    state: State, underlying: int, before: list[Row], after: list[Row], index_move: int, forward_move: int
) -> int:
    """Ticks per lot by which equity less margin can have changed, of any portfolio in the rows that were marked.

    The mark's change counts once in equity. In IM a scenario's counts up to three times, along a chord that is
    prolonged by its own length; or once, and the mark's once, where longs are worth nothing (protocol/exposure.py).
    The index counts by the short floors, the forward by a third of the price range: the slopes beyond the outer moves.
    """
    most = 0
    for (mark, pnl), (new_mark, new_pnl) in zip(before, after, strict=False):
        moved, shifted = abs(new_mark - mark), max(map(abs, map(sub, new_pnl, pnl)))
        most = max(most, moved + max(3 * shifted, moved + shifted))
    floor_ppm, third_ppm = max(margin.floors(state, underlying)), state.shocks[underlying].third_ppm
    return most - (-(index_move * floor_ppm + forward_move * third_ppm) // c.PPM)
