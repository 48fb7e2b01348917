"""The venue of `fairstrike match` without an exchange: the exchange's book and its rules of matching, and no money.

Any tick, any size, nothing signed, no margin and no fees. What an order may do is what `protocol/matching.py` lets it
do; `tests/market/test_match_exchange.py` holds the two against each other.
"""

import heapq
from typing import Final

from sequencer.market.match.commands import Id
from sequencer.market.match.effects import Effects, refusal
from sequencer.protocol.book import BID, Book, Order, crosses
from sequencer.protocol.constants import FLAG_POST_ONLY, FLAG_REDUCE_ONLY, FLAG_STP_TAKER

NOBODY: Final = 0
"""Account of orders without an owner, each of which is a stranger to all others."""


class _Plan:
    """What a taker would do. `steps`: maker, quantity, why it leaves the book unfilled ("" if it does not)."""

    __slots__ = ("is_ended", "left", "moved", "steps")

    def __init__(self, quantity: int) -> None:
        self.left = quantity
        self.steps: list[tuple[Order, int, str]] = []
        self.moved: dict[int, int] = {}  # account -> change of its position
        self.is_ended = False  # what is left must not rest


class Matcher:
    """One book, driven by ids. Prices and quantities are integers; the caller chooses their unit."""

    def __init__(self) -> None:
        self.book = Book(0)
        self.time = 0
        self._live: dict[Id, Order] = {}
        self._ids: dict[int, Id] = {}
        self._owners: dict[Id, int] = {}
        self._positions: dict[int, int] = {}
        self._reducing: dict[int, dict[int, Order]] = {}  # account -> seq -> its reduce-only orders that rest
        self._ends: list[tuple[int, int, Id]] = []  # (expires, seq, id)
        self._seq = 0

    # --- what Venue says --------------------------------------------------------------------------

    def time_to(self, time: int) -> Effects:
        """Lets `time` come; refused if it lies before the present one."""
        if time < self.time:
            return refusal("TIME_BACKWARDS", f"the time is {self.time} already, {time} lies before it")
        self.time = time
        out = Effects()
        while self._ends and self._ends[0][0] <= time:
            _, seq, order_id = heapq.heappop(self._ends)
            order = self._live.get(order_id)
            if order is not None and order.seq == seq:
                out.gone.append((order_id, "EXPIRED", order.quantity))
                self._take_out(order)
        return out

    def place(
        self,
        order_id: Id,
        side: int,
        price: int,
        quantity: int,
        tif: str = "GTC",
        post_only: bool = False,
        *,
        reduce_only: bool = False,
        owner: Id | None = None,
        cancel_taker: bool = False,
        expires: int = 0,
    ) -> Effects:
        """Matches an order and rests what its `tif` lets rest."""
        if order_id in self._live:
            return refusal("DUPLICATE_ID", f"{order_id!r} belongs to an order that is still live")
        if post_only and tif != "GTC":
            return refusal("FLAGS", "post_only goes with GTC alone")
        if expires and self.time >= expires:
            return refusal("EXPIRED", f"expires {expires} is not after the time, {self.time}")
        account = NOBODY if owner is None else self._owners.setdefault(owner, len(self._owners) + 1)
        flags = post_only * FLAG_POST_ONLY | reduce_only * FLAG_REDUCE_ONLY | cancel_taker * FLAG_STP_TAKER
        taker = Order(account, 0, side, price, 0, quantity, expires, 0, flags)
        return self._enter(order_id, taker, tif)

    def cancel(self, order_id: Id, owner: Id | None = None) -> Effects:
        """Takes the order out of the book."""
        order = self._owned(order_id, owner)
        if isinstance(order, Effects):
            return order
        out = Effects()
        out.gone.append((order_id, "CANCELLED", order.quantity))
        self._take_out(order)
        return out

    def cancel_all(self, owner: Id) -> Effects:
        """Takes every order of `owner` out of the book."""
        out = Effects()
        account = self._owners.get(owner)
        for order_id, order in list(self._live.items()) if account is not None else ():
            if order.account == account:
                out.gone.append((order_id, "CANCELLED", order.quantity))
                self._take_out(order)
        return out

    def amend(self, order_id: Id, price: int | None, quantity: int | None, owner: Id | None) -> Effects:
        """Gives the order another price or total. Less at the same price keeps its place; else it is a new order."""
        order = self._owned(order_id, owner)
        if isinstance(order, Effects):
            return order
        price = order.price if price is None else price
        left = order.quantity if quantity is None else quantity - order.filled
        if left > 0 and (price != order.price or left > order.quantity):
            taker = Order(
                order.account, 0, order.side, price, 0, left, order.expires, 0, order.flags, order.filled
            )
            return self._enter(order_id, taker, "GTC", order)
        if left <= 0:
            return self.cancel(order_id)
        out = Effects()
        if left < order.quantity:
            self.book.reduce(order, order.quantity - left)
        out.rested = left
        return out

    def amounts(self, order_id: Id) -> tuple[int, int] | None:
        """What has traded of a resting order and what remains of it, or None."""
        order = self._live.get(order_id)
        return None if order is None else (order.filled, order.quantity)

    def resting(self) -> int:
        """Orders in the book."""
        return len(self.book)

    def best_price(self, side: int) -> int | None:
        """Best price of a side, or None."""
        return self.book.best_price(side)

    # --- matching ---------------------------------------------------------------------------------

    def _owned(self, order_id: Id, owner: Id | None) -> Order | Effects:
        order = self._live.get(order_id)
        if order is None:
            return refusal("UNKNOWN_ORDER", f"no order {order_id!r} rests")
        if owner is not None and self._owners.get(owner) != order.account:
            return refusal("NOT_OWNER_OF_ORDER", f"order {order_id!r} is not {owner!r}'s")
        return order

    def _reducible(self, account: int, side: int, moved: int = 0) -> int:
        held = self._positions.get(account, 0) + moved
        return max(held if side else -held, 0)

    def _enter(self, order_id: Id, taker: Order, tif: str, replaces: Order | None = None) -> Effects:
        """Plans what `taker` trades, and commits it if it holds; `replaces` leaves the book then."""
        if taker.flags & FLAG_REDUCE_ONLY:
            taker.quantity = min(taker.quantity, self._reducible(taker.account, taker.side))
            if taker.quantity == 0:
                return refusal("REDUCE_ONLY", "there is no position that the order would reduce")
        plan = _Plan(taker.quantity)
        if not self._walk(plan, taker):
            return refusal("POST_ONLY_CROSSES", "the post-only order would have traded at once")
        if tif == "FOK" and plan.left:
            return refusal("FOK_UNFILLED", "the fill-or-kill order could not be filled whole")
        if replaces is not None:
            self._take_out(replaces)
        out = Effects()
        for maker, quantity, why in plan.steps:
            maker_id = self._ids[maker.seq]
            if quantity:
                out.fills.append((maker_id, maker.price, quantity))
                maker.filled += quantity
                taker.filled += quantity
            if why:
                out.gone.append((maker_id, why, maker.quantity - quantity))
            if why or quantity == maker.quantity:
                self._take_out(maker)
            else:
                self.book.reduce(maker, quantity)
        for number, delta in plan.moved.items():
            if number:
                self._positions[number] = self._positions.get(number, 0) + delta
        left = plan.left
        if taker.flags & FLAG_REDUCE_ONLY:
            left = min(left, self._reducible(taker.account, taker.side))
        if left and tif == "GTC" and not plan.is_ended:
            self._rest(order_id, taker, left)
            out.rested = left
        for number in plan.moved:
            self._drop_idle(number, out)
        return out

    def _walk(self, plan: "_Plan", taker: Order) -> bool:
        """Plans the fills of `taker`. False when a post-only order would trade."""
        account, side, flags = taker.account, taker.side, taker.flags
        best = self.book.best_price(1 - side)
        if best is None or not crosses(side, taker.price, best):
            return True
        moved = plan.moved
        for maker in self.book.crossing(side, taker.price):
            if plan.left == 0:
                break
            if account and maker.account == account:
                if flags & FLAG_STP_TAKER:
                    plan.is_ended = True
                    break
                plan.steps.append((maker, 0, "SELF_TRADE"))
                continue
            if flags & FLAG_POST_ONLY:
                return False
            quantity, why = min(plan.left, maker.quantity), ""
            if maker.flags & FLAG_REDUCE_ONLY:
                closes = self._reducible(maker.account, maker.side, moved.get(maker.account, 0))
                if closes <= quantity:
                    quantity, why = closes, "REDUCE_ONLY" if closes < maker.quantity else ""
            plan.steps.append((maker, quantity, why))
            plan.left -= quantity
            delta = -quantity if side else quantity
            moved[account] = moved.get(account, 0) + delta
            moved[maker.account] = moved.get(maker.account, 0) - delta
        return True

    def _rest(self, order_id: Id, order: Order, quantity: int) -> None:
        self._seq += 1
        order.seq, order.quantity = self._seq, quantity
        self.book.insert(order)
        self._live[order_id] = order
        self._ids[order.seq] = order_id
        if order.expires:
            heapq.heappush(self._ends, (order.expires, order.seq, order_id))
        if order.flags & FLAG_REDUCE_ONLY:
            self._reducing.setdefault(order.account, {})[order.seq] = order

    def _take_out(self, order: Order) -> None:
        self.book.remove(order)
        del self._live[self._ids.pop(order.seq)]
        if order.flags & FLAG_REDUCE_ONLY:
            del self._reducing[order.account][order.seq]

    def _drop_idle(self, account: int, out: Effects) -> None:
        """Reduce-only orders whose account has nothing left to reduce are gone at once."""
        for order in list(self._reducing.get(account, {}).values()):
            if self._reducible(account, order.side) == 0:
                out.gone.append((self._ids[order.seq], "REDUCE_ONLY", order.quantity))
                self._take_out(order)


SIDES: Final = {"buy": BID, "sell": 1 - BID}
