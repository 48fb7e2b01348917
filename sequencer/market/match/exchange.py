"""The venue of `fairstrike match --exchange`: every command becomes records, and the state transition runs them.

One option that does not expire for a year, fresh marks whenever the time has moved, an account with money enough for
each owner (and for each order without one), each line a tick of its own. Signatures alone are left out: the signer is
named, as a gateway names it to the engine.
"""

import heapq
from typing import Final

from sequencer.errors import REFUSALS
from sequencer.market.match.commands import Id
from sequencer.market.match.effects import Effects, refusal
from sequencer.protocol import codec, margin
from sequencer.protocol import constants as c
from sequencer.protocol.book import Book, Order
from sequencer.protocol.constants import Kind, Reason
from sequencer.protocol.outcome import Outcome
from sequencer.protocol.params import Params
from sequencer.protocol.state import State, instrument_expiry_time
from sequencer.protocol.transition import apply

TICK: Final = 10**6
"""One tick of price, 0.01 USD, in 1e-8."""
LOT: Final = 10**4
"""One lot, 0.0001 contract, in 1e-8."""
BEGINS_S: Final = 20_000 * c.DAY_S + 36_000
"""Exchange time of the first command: some day, 10:00 UTC, far enough from 0 for any `expires`."""
LASTS_DAYS: Final = 400
MARKS_AGE_S: Final = 60
INDEX: Final = 10_000  # ticks; a cheap underlying, so that margins are small
DEPOSIT: Final = 10**12
"""1,000,000 USD in 1e-6, what an account has at least."""
AMOUNT_MAX: Final = c.U48_MAX
DEPOSITS_MAX: Final = 2**14  # of AMOUNT_MAX: all that the Vault takes
FEED: Final = b"\x01" * 20
FEE_MAX: Final = 2**16 - 1
_TIF: Final = {"GTC": c.TIF_GTC, "IOC": c.TIF_IOC, "FOK": c.TIF_FOK}
VARIANCE_A_SECOND_E12: Final = 36 * 10**10 // (365 * c.DAY_S)  # 60 % a year: marks fall, and bare no order


def _params() -> Params:
    """The defaults, with a feed of our own and a queue that is never congested: the run has no clock of its own."""
    return Params(
        feed_keys=(FEED,),
        congested_excess=c.U32_MAX,
        restricted_excess=c.U32_MAX,
        fee_doubling_excess=c.U32_MAX,
    )


class ExchangeMatcher:
    """The exchange with one listed option, driven by ids. Prices and quantities in 1e-8."""

    def __init__(self) -> None:
        self.state = State(bytes(32), _params())
        self.time = 0
        self._origin: int | None = None  # the first command's time
        self._live: dict[Id, Order] = {}
        self._ids: dict[int, Id] = {}  # seq -> id
        self._of: dict[int, dict[int, Order]] = {}  # account -> seq -> its orders that rest
        self._owners: dict[Id, int] = {}
        self._accounts = 0
        self._ends: list[tuple[int, int, Id]] = []
        self._marked_s = 0
        self.instrument = 0
        self._open()

    # --- what Venue says --------------------------------------------------------------------------

    def time_to(self, time: int) -> Effects:
        """Lets `time` come: a TICK, fresh marks, and SWEEP for what expires."""
        if time < self.time:
            return refusal("TIME_BACKWARDS", f"the time is {self.time} already, {time} lies before it")
        if self._origin is None:
            self._origin = time
        last = self._origin + instrument_expiry_time(self.instrument) - BEGINS_S - 1
        if time > last:
            return refusal("INSTRUMENT_EXPIRED", f"the option lives until {last}, and {time} lies beyond")
        self.time = time
        out = Effects()
        self._tick()
        while self._ends and self._ends[0][0] <= time:
            _, seq, order_id = heapq.heappop(self._ends)
            order = self._live.get(order_id)
            if order is not None and order.seq == seq:
                self._sweep(order, "EXPIRED", out)
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
        """PLACE, and CONTINUE until it is through."""
        if order_id in self._live:
            return refusal("DUPLICATE_ID", f"{order_id!r} belongs to an order that is still live")
        off = _off_grid(price, quantity)
        if off is not None:
            return off
        flags = (
            side
            | _TIF[tif] << c.FLAG_TIF_SHIFT
            | post_only * c.FLAG_POST_ONLY
            | reduce_only * c.FLAG_REDUCE_ONLY
            | cancel_taker * c.FLAG_STP_TAKER
        )
        account = self._account(owner)
        self._fund(account, 0 if side else price // TICK, quantity // LOT)
        fields = {
            "instrument": self.instrument,
            "flags": flags,
            "price": price // TICK,
            "quantity": quantity // LOT,
            "expires": self._exchange_time(expires) if expires else 0,
            "fee_max": FEE_MAX,
        }
        outs = self._submit(Kind.PLACE, account, fields)
        reason = _why_not(outs)
        if reason:
            return _refused(reason)
        return self._effects(outs, order_id, account, expires)

    def cancel(self, order_id: Id, owner: Id | None = None) -> Effects:
        """CANCEL by the order's key, signed by `owner` (or by whose order it is)."""
        order = self._resting(order_id)
        if order is None:
            return refusal("UNKNOWN_ORDER", f"no order {order_id!r} rests")
        account = order.account if owner is None else self._account(owner)
        key = {"instrument": order.instrument, "side": order.side, "price": order.price, "seq": order.seq}
        left = order.quantity
        outs = self._submit(Kind.CANCEL, account, {**key, "expires": 0})
        if outs[0].reason:
            return _refused(outs[0].reason)
        out = Effects()
        self._forget(order, "CANCELLED", left, out)
        return out

    def cancel_all(self, owner: Id) -> Effects:
        """CANCEL_ALL, and SWEEP for each order that it has ended."""
        out = Effects()
        if owner not in self._owners:
            return out
        account = self._owners[owner]
        outs = self._submit(Kind.CANCEL_ALL, account, {"nonce_floor": 0, "expires": 0})
        if outs[0].reason:
            return _refused(outs[0].reason)
        for order in list(self._of.get(account, {}).values()):
            self._sweep(order, "CANCELLED", out)
        return out

    def amend(self, order_id: Id, price: int | None, quantity: int | None, owner: Id | None) -> Effects:
        """AMEND, and CONTINUE until it is through."""
        order = self._resting(order_id)
        if order is None:
            return refusal("UNKNOWN_ORDER", f"no order {order_id!r} rests")
        price = order.price * TICK if price is None else price
        total = (order.filled + order.quantity) * LOT if quantity is None else quantity
        off = _off_grid(price, total)
        if off is not None:
            return off
        account = order.account if owner is None else self._account(owner)
        self._fund(order.account, 0 if order.side else price // TICK, total // LOT)
        before, ends = order.filled, order.expires
        fields = {
            "instrument": order.instrument,
            "flags": order.flags,
            "price": order.price,
            "seq": order.seq,
            "new_price": price // TICK,
            "quantity": total // LOT,
            "expires": 0,
            "fee_max": FEE_MAX,
        }
        outs = self._submit(Kind.AMEND, account, fields)
        reason = _why_not(outs)
        if reason:
            return _refused(reason)
        kept = self._now(order)
        if kept is not None:
            out = Effects()
            out.rested = kept.quantity * LOT
            return out
        if total // LOT <= before:
            out = Effects()
            self._forget(order, "CANCELLED", order.quantity, out)
            return out
        self._drop(order)
        return self._effects(outs, order_id, account, ends and ends - BEGINS_S + (self._origin or 0))

    def amounts(self, order_id: Id) -> tuple[int, int] | None:
        """What has traded of a resting order and what remains of it, or None."""
        order = self._resting(order_id)
        return None if order is None else (order.filled * LOT, order.quantity * LOT)

    def resting(self) -> int:
        """Orders in the book."""
        return len(self._book())

    def best_price(self, side: int) -> int | None:
        """Best price of a side, or None."""
        price = self._book().best_price(side)
        return None if price is None else price * TICK

    def root(self) -> bytes:
        """Root of the exchange's state."""
        return self.state.root()

    # --- records ----------------------------------------------------------------------------------

    def _open(self) -> None:
        """Genesis, the option and its marks."""
        self._tick()
        listed = self._system(
            Kind.LIST, underlying=0, day=BEGINS_S // c.DAY_S + LASTS_DAYS, put=0, strike=INDEX
        )
        assert listed.reason is Reason.OK, listed.reason
        self.instrument = listed.number
        self._marked_s = 0
        self._mark()

    def _exchange_time(self, time: int) -> int:
        return min(max(BEGINS_S + time - (self._origin or 0), 1), c.U32_MAX)

    def _tick(self) -> None:
        """A TICK of the present time, with an index and marks that are fresh."""
        self._system(Kind.TICK, time=self._exchange_time(self.time))
        now = self.state.globals.time
        if now - self._marked_s > MARKS_AGE_S:
            fed = self._signed(Kind.FEED, feed=0, underlying=0, time=now, price=INDEX)
            assert fed.reason is Reason.OK, fed.reason
            if self.instrument:
                self._mark()

    def _mark(self) -> None:
        now = self.state.globals.time
        day = self.instrument >> 12 & 0xFFFF
        where = {"underlying": 0, "day": day}
        variance = VARIANCE_A_SECOND_E12 * (instrument_expiry_time(self.instrument) - now)
        shape = {"a": variance, "b": 0, "rho": 0, "m": 0, "sigma": 10**12}
        told = self._signed(Kind.SURFACE, **where, feed=0, time=now, forward=INDEX, index=INDEX, **shape)
        assert told.reason is Reason.OK, told.reason
        marked = self._system(Kind.RISK, **where, page=0)
        assert marked.reason is Reason.OK, marked.reason
        self._marked_s = now

    def _system(self, kind: Kind, **fields: int | bytes) -> Outcome:
        return apply(self.state, codec.encode(kind, **fields))

    def _signed(self, kind: Kind, **fields: int | bytes) -> Outcome:
        return apply(self.state, codec.encode(kind, **fields), FEED)

    def _submit(self, kind: Kind, account: int, fields: dict[str, int]) -> list[Outcome]:
        """A record of `account` at the head of a tick, with the lowest free nonce, and its CONTINUEs."""
        self._tick()
        found = self.state.accounts[account]
        raw = codec.encode(kind, account=account, nonce=found.nonce_floor, **fields)
        outs = [apply(self.state, raw, found.owner)]
        while outs[-1].pending:
            outs.append(self._system(Kind.CONTINUE))
        return outs

    def _account(self, owner: Id | None) -> int:
        """Number of the owner's account, opened if need be; None: a new one."""
        number = None if owner is None else self._owners.get(owner)
        if number is None:
            number = self._accounts = self._accounts + 1
            if owner is not None:
                self._owners[owner] = number
            self._tick()
            self._deposit(number, DEPOSIT)
        return number

    def _deposit(self, number: int, amount: int) -> None:
        self._system(Kind.DEPOSIT, owner=number.to_bytes(20, "big"), account=number, amount=amount)

    def _fund(self, number: int, price: int, lots: int) -> None:
        """Deposits what an order could need at the worst (`price`: what it pays a lot), so that margin is no matter."""
        account = self.state.accounts[number]
        margin.refresh(self.state, account)
        short = lots * (price + 2 * INDEX) + DEPOSIT - margin.free(self.state, account)
        for _ in range(DEPOSITS_MAX):
            if short <= 0:
                return
            self._tick()
            self._deposit(number, min(short, AMOUNT_MAX))
            short -= AMOUNT_MAX

    # --- effects ----------------------------------------------------------------------------------

    def _book(self) -> Book:
        return self.state.books.get(self.instrument) or Book(self.instrument)

    def _effects(self, outs: list[Outcome], order_id: Id, account: int, expires: int) -> Effects:
        """What a PLACE and its CONTINUEs have done."""
        out = Effects()
        touched = []
        for one in outs:
            for fill in one.fills:
                maker_id = self._ids[fill.maker_seq]
                out.fills.append((maker_id, fill.maker_price * TICK, fill.quantity * LOT))
                touched += [fill.maker, fill.taker]
            for order in one.removed:
                why = "SELF_TRADE" if order.account == account else "REDUCE_ONLY"
                self._forget(order, why, order.quantity, out)
        for maker_id, _, _ in out.fills:
            maker = self._live.get(maker_id)
            if maker is not None and self._now(maker) is None:
                self._drop(maker)
        rested = outs[-1].rested
        if rested is not None:
            self._live[order_id] = rested
            self._ids[rested.seq] = order_id
            self._of.setdefault(account, {})[rested.seq] = rested
            out.rested = rested.quantity * LOT
            if expires:
                heapq.heappush(self._ends, (expires, rested.seq, order_id))
        for number in dict.fromkeys(touched):
            self._drop_idle(number, out)
        return out

    def _resting(self, order_id: Id) -> Order | None:
        """The order of this id as it stands in the book."""
        order = self._live.get(order_id)
        return None if order is None else self._now(order)

    def _now(self, order: Order) -> Order | None:
        """The order as it stands in the book, which may have made it anew; None when it is gone."""
        return self.state.find_order(order.instrument, order.side, order.price, order.seq)

    def _forget(self, order: Order, why: str, left: int, out: Effects) -> None:
        if order.seq in self._ids:
            out.gone.append((self._drop(order), why, left * LOT))

    def _drop(self, order: Order) -> Id:
        """Forgets an order that rests no more; returns its id."""
        order_id = self._ids.pop(order.seq)
        del self._live[order_id], self._of[order.account][order.seq]
        return order_id

    def _sweep(self, order: Order, why: str, out: Effects) -> None:
        """SWEEP, as the keeper sends it for an order that is dead."""
        self._tick()
        found = self._now(order)
        assert found is not None
        left = found.quantity
        swept = self._system(
            Kind.SWEEP, instrument=order.instrument, side=order.side, price=order.price, seq=order.seq
        )
        assert swept.reason is Reason.OK, swept.reason
        self._forget(order, why, left, out)

    def _drop_idle(self, account: int, out: Effects) -> None:
        """Reduce-only orders whose account has nothing left to reduce."""
        held = self.state.accounts[account].positions.get(self.instrument, 0)
        for order in list(self._of.get(account, {}).values()):
            is_idle = held <= 0 if order.side else held >= 0
            if order.flags & c.FLAG_REDUCE_ONLY and is_idle:
                self._sweep(order, "REDUCE_ONLY", out)


def _off_grid(price: int, quantity: int) -> Effects | None:
    """The refusal of a price or a quantity that the exchange's records cannot hold."""
    if price % TICK or price // TICK > c.U32_MAX:
        return refusal("PRICE", "the price must be a multiple of 0.01, at most 42949672.95")
    if quantity % LOT or quantity // LOT > c.U40_MAX:
        return refusal("QUANTITY", "the quantity must be a multiple of 0.0001, at most 109951162.7775")
    return None


def _why_not(outs: list[Outcome]) -> Reason:
    """Why a record has done nothing: it was refused, or the last of its CONTINUEs has undone it whole; else OK."""
    undone: Reason = getattr(outs[-1], "failed", Reason.OK)
    return outs[0].reason or undone


def _refused(reason: Reason) -> Effects:
    return refusal(reason.name, REFUSALS[reason])
