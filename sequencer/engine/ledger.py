"""Folds what records did into orders, trades, cash and positions of accounts; the rows go to the store.

It takes records in their order, each with its outcome, and nothing else: what a running engine, a start, a standby and
a roll-back make of the same records is the same, however they are cut into batches.

Long because each kind of record has its handler here, and all of them write the rows of one batch.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final

from sequencer.engine.basis import Basis
from sequencer.protocol import codec, plans
from sequencer.protocol import constants as c
from sequencer.protocol.book import Order
from sequencer.protocol.constants import Kind, Reason
from sequencer.protocol.entries import Taker
from sequencer.protocol.outcome import Fill, Outcome
from sequencer.protocol.state import instrument_expiry_time
from sequencer.wire.rows import (
    PLACES,
    Batch,
    Kept,
    MoveKind,
    OwnFill,
    State,
    TradeKind,
    Why,
    amend_key,
    trade_key,
)

_IDLE: Final = frozenset(
    {Kind.TICK, Kind.FEED, Kind.SURFACE, Kind.RISK, Kind.LIST, Kind.FIX, Kind.SET_SIGNER}
)
# Plain numbers: rows are written out by what handles enums slowly.
_TRADE, _FILLED, _NONE = int(TradeKind.TRADE), int(State.FILLED), int(Why.NONE)
_ORDERS: Final = frozenset({Kind.PLACE, Kind.PLACE_IN_WORDS, Kind.FORCED_ORDER, Kind.AMEND})


class Totals:
    """An account's money since its first deposit, 1e-6 USD. cash = net + realised + covered - fees - open costs."""

    __slots__ = ("cash", "covered", "fees", "net", "realised")

    def __init__(
        self, cash: int = 0, net: int = 0, realised: int = 0, fees: int = 0, covered: int = 0
    ) -> None:
        self.cash = cash
        self.net = net  # brought in less taken out
        self.realised = realised
        self.fees = fees
        self.covered = covered  # of its debts, by the fund and by all

    def values(self) -> tuple[int, int, int, int, int]:
        """In the order of the arguments."""
        return self.cash, self.net, self.realised, self.fees, self.covered


class Ledger:
    """Positions with their cost, totals, and the labels of resting orders; the rest is in the rows that it makes."""

    def __init__(self, treasury_account: int = 0) -> None:
        self.treasury_account = treasury_account
        self.positions: dict[int, dict[int, Basis]] = {}  # account -> instrument
        self.totals: dict[int, Totals] = {}
        self.kept: dict[int, Kept] = {}  # resting orders that have a label or another number than at first
        self.next_seq = 0  # records before it are in
        self.ended: list[int] = []  # accounts all of whose orders have ended, until the rows are taken
        self.floors: dict[int, int] = {}  # account -> seq: its older orders have ended together
        self._batch = Batch()
        self._taker: _Taker | None = None  # the order that is on its way
        self._plan: list[tuple[bytes, Outcome, int, str]] | None = None  # its records, while it may be undone
        self._gone: list[int] = []
        self._moved_on: Order | None = None
        self._seq = self._time = self._place = 0  # of the record that is taken in; its cash moves so far
        self._handlers: dict[int, Callable[[int, Any, Outcome, str], None]] = {
            Kind.PLACE: self._placed,
            Kind.PLACE_IN_WORDS: self._placed,
            Kind.FORCED_ORDER: self._placed,
            Kind.AMEND: self._amended,
            Kind.CANCEL_ALL: self._cancelled_all,
            Kind.FORCED_CANCEL_ALL: self._cancelled_all,
            Kind.SWEEP: self._swept,
            Kind.SETTLE: self._settled,
            Kind.BID: self._bid,
            Kind.FORCED_BID: self._bid,
            Kind.LIQUIDATE: self._liquidated,
            Kind.FORCED_LIQUIDATE: self._liquidated,
            Kind.DEPOSIT: self._deposited,
            Kind.WITHDRAW: self._withdrawn,
            Kind.FORCED_WITHDRAW: self._withdrawn,
            Kind.TRANSFER: self._transferred,
            Kind.COLLECT: self._collected,
        }

    # --- what is asked ------------------------------------------------------------------------------

    def position(self, account: int, instrument: int) -> Basis | None:
        """The open position, or None."""
        return self.positions.get(account, {}).get(instrument)

    def total(self, account: int) -> Totals:
        """The account's totals; all 0 when it is new."""
        return self.totals.get(account) or Totals()

    def label(self, seq: int) -> str:
        """Label of a resting order, "" without one."""
        kept = self.kept.get(seq)
        return kept.label if kept else ""

    def take(self) -> Batch:
        """The rows since the last call, with positions and totals as they are now."""
        next_seq = self._plan[0][1].seq if self._plan else self.next_seq
        batch, self._batch = self._batch, Batch(next_seq)
        batch.next_seq, batch.is_open = next_seq, self._plan is not None
        for seq in self._gone:
            if (gone := self.kept.pop(seq, None)) is not None:
                batch.kept_gone[seq] = gone
        self._gone.clear()
        self.ended.clear()
        for account, instrument in batch.touched_positions:
            one = self.position(account, instrument) or Basis()
            batch.positions.append([account, instrument, one.lots, one.cost, one.realised])
        for account in batch.touched_accounts:
            total = self.totals[account]
            batch.totals.append([account, *total.values()])
        return batch

    def undo(self, batch: Batch) -> None:
        """Takes back the rows that `take` gave last: the log has refused their tick. The newest goes first."""
        for (account, instrument), (lots, cost, realised) in batch.touched_positions.items():
            held = self.positions[account]
            held.pop(instrument, None)
            if lots:
                held[instrument] = Basis(lots, cost, realised)
        for account, before in batch.touched_accounts.items():
            del self.totals[account]
            if before is not None:
                self.totals[account] = Totals(*before)
        self.kept.update(batch.kept_gone)
        for seq in batch.kept_added:
            self.kept.pop(seq, None)
        for account, floor in reversed(batch.floors_before):
            self.floors[account] = floor
        self._plan = None
        self.next_seq = batch.before_seq
        self._batch = Batch(self.next_seq)

    # --- records ------------------------------------------------------------------------------------

    def begin_at(self, next_seq: int) -> None:
        """Takes records from this one on."""
        self.next_seq = next_seq
        self._batch = Batch(next_seq)

    def resume(self, taker: Taker | None) -> None:
        """Goes on from a state in which `taker` is on its way through the book."""
        self._plan = [] if taker is not None and plans.is_atomic(taker.flags) else None
        self._taker = (
            None
            if taker is None
            else _Taker(
                *(
                    taker.seq,
                    taker.account,
                    taker.flags,
                    taker.quantity,
                    taker.quantity + taker.filled,
                    taker.price,
                )
            )
        )

    def apply(self, raw: bytes, out: Outcome, time: int, label: str = "") -> list[OwnFill]:
        """Takes a record that was applied at `time`; its fills, the maker's before the taker's.

        The records of an order that holds as a whole or not at all are taken together, with the last of them.
        """
        kind = raw[0] if raw else 0
        if out.reason is not Reason.OK or out.seq < self.next_seq:
            return []
        self.next_seq = out.seq + 1
        if kind in _IDLE:
            return []
        fields = _fields(raw)
        if self._plan is None and out.pending and kind in _ORDERS and plans.is_atomic(fields[2]):
            self._plan = []
        if self._plan is None:
            return self._take(kind, fields, out, time, label)
        self._plan.append((raw, out, time, label))
        if out.pending:
            return []
        records, self._plan = self._plan, None
        if out.failed:
            self._fail(records)
            return []
        fills: list[OwnFill] = []
        for one, outcome, at, of_label in records:
            fills += self._take(one[0], _fields(one), outcome, at, of_label)
        return fills

    def _begin(self, seq: int, time: int) -> None:
        self._seq, self._time, self._place, self._moved_on = seq, time, 0, None

    def _take(self, kind: int, fields: Any, out: Outcome, time: int, label: str) -> list[OwnFill]:
        self._batch.at(time, out.seq)
        self._begin(out.seq, time)
        handler = self._handlers.get(kind)
        if handler is not None:
            handler(kind, fields, out, label)
        fills: list[OwnFill] = []
        if out.fills:
            for place, fill in enumerate(out.fills):
                fills += self._filled(fill, place)
        for gone in out.removed:
            if gone is not self._moved_on:  # it goes on under another number
                self._removed(gone, kind)
        if self._taker is not None:
            self._go_on(self._taker, out)
        if out.ended is not None:
            self._end_all(out.ended, Why.LIQUIDATION)
        return fills

    # --- orders -------------------------------------------------------------------------------------

    def _fail(self, records: list[tuple[bytes, Outcome, int, str]]) -> None:
        """An order that was undone has traded nothing and has paid for its records; an AMEND's is as before."""
        taker, self._taker = self._taker, None
        raw, first, _, label = records[0]
        _, last, time, _ = records[-1]
        self._batch.at(time, first.seq)
        self._seq, self._time, self._place = first.seq, time, 0
        fields = _fields(raw)
        number = first.seq
        if raw[0] == Kind.AMEND:
            account, _, _, price, seq, _, _, nonce, *_ = fields
            self._spend(account, last.fee)
            kept, total = self.kept.get(seq), sum(first.found)
            same = [seq, seq, price, price, total, total]
            self._amend(0, account, kept.id if kept else seq, [*same, nonce, last.fee])
            return
        if raw[0] in _ORDERS:
            first.fee = last.fee
            self._placed(raw[0], fields, first, label)
            self._taker = None
        elif taker is not None:  # its beginning is not here
            number = taker.seq
            self._spend(taker.account, last.fee)
        self._leave(number)
        self._seq = last.seq
        self._close(number, State.CANCELLED, Why.NOT_WHOLE)

    def _placed(self, kind: int, fields: Any, out: Outcome, label: str) -> None:
        # by place, not unpacked: compiled, that makes no iterator
        account, instrument, flags, price, lots = fields[0], fields[1], fields[2], fields[3], fields[4]
        nonce, expires = (fields[5], fields[6]) if kind != Kind.FORCED_ORDER else (-1, fields[5])
        seq = out.seq
        self._spend(account, out.fee)
        if label:
            self._keep(seq, Kept(seq, label))
        cash = self._touch(account).cash
        row = [seq, account, nonce, label, instrument, flags, price, lots, expires, self._time, out.fee, cash]
        self._batch.orders.append(row)
        self._taker = _Taker(seq, account, flags, lots, lots, price)

    def _amended(self, kind: int, fields: Any, out: Outcome, label: str) -> None:
        """An order that keeps its place keeps its number; else it goes on under the record's."""
        del kind, label
        account, _, flags, price, seq, new_price, lots, nonce, *_ = fields
        self._spend(account, out.fee)
        filled, rested = out.found
        kept = self.kept.get(seq) or Kept(seq, "")
        number = seq
        if lots <= filled:
            new_price = price
        elif new_price != price or lots > filled + rested:
            number = out.seq
            self._moved_on = out.amended
            self._leave(seq)
            self._keep(number, kept)
            self._taker = _Taker(number, account, flags, lots - filled, lots, new_price)
        change = [number, price, new_price, filled + rested, max(lots, filled)]
        self._amend(0, account, kept.id, [seq, *change, nonce, out.fee])

    def _amend(self, place: int, account: int, order: int, change: list[int]) -> None:
        head = [amend_key(self._seq, place), order, account]
        self._batch.amends.append([*head, *change, self._time, self._touch(account).cash])

    def _go_on(self, taker: "_Taker", out: Outcome) -> None:
        """What has become of an order on its way: it rests, ends, or waits for the next record."""
        for fill in out.fills:
            taker.left -= fill.quantity
        if out.pending:
            return
        self._taker = None
        kept = self.kept.get(taker.seq)
        number = kept.id if kept else taker.seq
        if out.rested is not None:
            # Fills of the same tick may have come since, and do not change the sum.
            total = out.rested.filled + out.rested.quantity
            if total < taker.lots:
                change = [taker.seq, taker.seq, taker.price, taker.price, taker.lots, total]
                self._amend(1, taker.account, number, [*change, -1, 0])
            return
        self._leave(taker.seq)
        state, why = _FILLED, _NONE
        if taker.left:
            state, why = int(State.CANCELLED), int(Why.LIMIT)
            if taker.flags & c.FLAG_REDUCE_ONLY:
                why = int(Why.REDUCE_ONLY)
            elif taker.flags >> c.FLAG_TIF_SHIFT & 3:
                why = int(Why.IOC)
            elif taker.flags & c.FLAG_STP_TAKER:
                why = int(Why.SELF_TRADE)
        self._close(number, state, why)

    def _close(self, number: int, state: int, why: int) -> None:
        self._batch.closes.append([number, state, why, self._time, self._seq])

    def _removed(self, order: Order, kind: int) -> None:
        kept = self.kept.get(order.seq)
        self._leave(order.seq)
        if order.seq < self.floors.get(order.account, 0):
            return  # it has ended with the others
        if kind in (Kind.CANCEL, Kind.AMEND) and (self._taker is None or kind == Kind.CANCEL):
            why = Why.USER
        elif 0 < order.expires <= self._time or self._time >= instrument_expiry_time(order.instrument):
            why = Why.EXPIRED
        elif self._taker is not None and order.account == self._taker.account:
            why = Why.SELF_TRADE
        elif order.flags & c.FLAG_REDUCE_ONLY:
            why = Why.REDUCE_ONLY
        else:
            why = Why.UNBACKED
        number = kept.id if kept else order.seq
        self._close(number, State.CANCELLED, why)

    def _cancelled_all(self, kind: int, fields: Any, out: Outcome, label: str) -> None:
        del kind, out, label
        self._end_all(fields[0], Why.CANCEL_ALL)

    def _end_all(self, account: int, why: Why) -> None:
        """Every order of the account that is older has ended."""
        self._batch.floors_before.append((account, self.floors.get(account, 0)))
        self.floors[account] = self._seq
        self.ended.append(account)
        self._batch.floors.append([self._seq, account, why, self._time])

    def _swept(self, kind: int, fields: Any, out: Outcome, label: str) -> None:
        del kind, fields, label
        if out.fee and out.removed:
            account = out.removed[0].account
            self._spend(account, out.fee)
            self._move(account, MoveKind.SWEEP_FEE, -out.fee)

    def _keep(self, seq: int, kept: Kept) -> None:
        self.kept[seq] = kept
        self._batch.kept_added.append(seq)

    def _leave(self, seq: int) -> None:
        """An order rests no more. Its label is known until the rows are taken, for whoever tells of its end."""
        if seq in self.kept:
            self._gone.append(seq)

    # --- trades -------------------------------------------------------------------------------------

    def _filled(self, fill: Fill, place: int) -> tuple[OwnFill, OwnFill]:
        maker = self._side(fill, place, False)
        taker = self._side(fill, place, True)
        if not fill.maker_left:
            kept = self.kept.get(fill.maker_seq)
            self._close(fill.maker_seq if kept is None else kept.id, _FILLED, _NONE)
            self._leave(fill.maker_seq)
        return maker, taker

    def _side(self, fill: Fill, place: int, is_taker: bool) -> OwnFill:
        if is_taker:
            account, seq, side, fee = fill.taker, fill.taker_seq, fill.side, fill.taker_fee
        else:
            account, seq, side, fee = fill.maker, fill.maker_seq, 1 - fill.side, fill.maker_fee
        kept = self.kept.get(seq)
        order, label = (seq, "") if kept is None else (kept.id, kept.label)
        instrument, lots, price = fill.instrument, fill.quantity, fill.maker_price
        total, basis, earned = self._book(account, instrument, -lots if side else lots, price)
        if fee:
            total.cash -= fee
            total.fees += fee
        key = trade_key(self._seq, place, is_taker)
        row: list[int | str] = [key, _TRADE, account, instrument, order, seq, label, side, price, lots, fee]
        row += (basis.lots, basis.cost, earned, basis.realised, total.cash, self._time, fill.mark, fill.index)
        self._batch.trades.append(row)
        return OwnFill(row, is_taker, fill)

    def _book(self, account: int, instrument: int, lots: int, price: int) -> tuple[Totals, Basis, int]:
        """Moves a position by `lots` (negative: sold), and its account's cash; the two, and what that has earned."""
        held = self.positions.get(account)
        if held is None:
            held = self.positions[account] = {}
        basis = held.get(instrument)
        if basis is None:
            basis = held[instrument] = Basis()
        touched, at = self._batch.touched_positions, (account, instrument)
        if at not in touched:
            touched[at] = (basis.lots, basis.cost, basis.realised)
        earned = basis.trade(lots, price)
        if basis.lots == 0:
            del held[instrument]
        total = self._touch(account)
        total.cash -= lots * price
        total.realised += earned
        return total, basis, earned

    def _moved(
        self, account: int, kind: TradeKind, moved: Sequence[tuple[int, int, int]], sign: int, at: int
    ) -> int:
        """Positions that leave (`sign` -1) or come at a price without an order; what that has earned."""
        sum_earned = 0
        for place, (instrument, lots, price) in enumerate(moved):
            total, basis, earned = self._book(account, instrument, sign * lots, price)
            key = trade_key(self._seq, at + place, sign > 0)
            side = c.SELL if lots * sign < 0 else c.BUY
            row: list[int | str] = [
                key,
                int(kind),
                account,
                instrument,
                -1,
                -1,
                "",
                side,
                price,
                abs(lots),
                0,
            ]
            row += (basis.lots, basis.cost, earned, basis.realised, total.cash, self._time, price, 0)
            self._batch.trades.append(row)
            sum_earned += earned
        return sum_earned

    def _settled(self, kind: int, fields: Any, out: Outcome, label: str) -> None:
        del kind, label
        account = fields[2]
        earned = self._moved(account, TradeKind.SETTLEMENT, out.moved, -1, 0)
        self._move(account, MoveKind.SETTLEMENT, out.amount, earned=earned)
        self._cover(account)

    def _bid(self, kind: int, fields: Any, out: Outcome, label: str) -> None:
        """Positions change hands at the marks; what is paid less is the bidder's gain and the target's loss."""
        del kind, label
        bidder, target = fields[0], out.number
        value = sum(lots * price for _, lots, price in out.moved)
        discount = value - out.amount
        for account, sign, fee in ((target, -1, out.fee), (bidder, 1, 0)):
            earned = self._moved(account, TradeKind.LIQUIDATION, out.moved, sign, 0)
            total = self._touch(account)
            total.cash += sign * discount
            total.realised += sign * discount
            self._spend(account, fee)
            other = bidder if account == target else target
            self._move(
                account, MoveKind.LIQUIDATION, -sign * out.amount - fee, other, earned, sign * discount, fee
            )
        self._cover(target)

    # --- cash ---------------------------------------------------------------------------------------

    def _touch(self, account: int) -> Totals:
        total = self.totals.get(account)
        touched = self._batch.touched_accounts
        if account not in touched:
            touched[account] = None if total is None else total.values()
        if total is None:
            total = self.totals[account] = Totals()
        return total

    def _spend(self, account: int, fee: int) -> None:
        if fee:
            total = self._touch(account)
            total.cash -= fee
            total.fees += fee

    def _bring(self, account: int, kind: MoveKind, amount: int, number: int = -1, paid: int = 0) -> None:
        total = self._touch(account)
        total.cash += amount
        total.net += amount
        self._move(account, kind, amount, number, paid=paid)

    def _move(
        self,
        account: int,
        kind: MoveKind,
        amount: int,
        number: int = -1,
        earned: int = 0,
        discount: int = 0,
        fee: int = 0,
        paid: int = 0,
    ) -> None:
        """A row of cash that has moved; `number`: the other account, or the withdrawal's; `earned`: by what left."""
        key = self._seq * PLACES + self._place
        self._place += 1
        after = self._touch(account).cash
        row = [key, account, kind, amount, number, earned, discount, fee, paid, after, self._time]
        self._batch.moves.append(row)

    def _cover(self, account: int) -> None:
        """As `insurance.cover`: an account without positions owes nothing."""
        total = self._touch(account)
        if total.cash < 0 and not self.positions.get(account):
            debt = -total.cash
            total.covered += debt
            total.cash = 0
            self._move(account, MoveKind.COVER, debt)

    def _deposited(self, kind: int, fields: Any, out: Outcome, label: str) -> None:
        del kind, label
        self._bring(fields[1], MoveKind.DEPOSIT, out.amount)

    def _withdrawn(self, kind: int, fields: Any, out: Outcome, label: str) -> None:
        del kind, label
        self._bring(fields[0], MoveKind.WITHDRAWAL, -out.debited, out.number, out.amount)

    def _transferred(self, kind: int, fields: Any, out: Outcome, label: str) -> None:
        del kind, out, label
        account, to, amount = fields[:3]
        self._bring(account, MoveKind.TRANSFER, -amount, to)
        self._bring(to, MoveKind.TRANSFER, amount, account)

    def _collected(self, kind: int, fields: Any, out: Outcome, label: str) -> None:
        del kind, fields, label
        self._bring(self.treasury_account, MoveKind.COLLECT, out.amount)

    def _liquidated(self, kind: int, fields: Any, out: Outcome, label: str) -> None:
        del kind, out, label
        self._cover(fields[0])


def _fields(raw: bytes) -> Any:
    layout = codec.LAYOUTS[raw[0]]
    return layout.merge(layout.struct.unpack(raw)[1 : 1 + len(layout.fields) + len(layout.wide)])


class _Taker:
    """An order on its way through the book: what is left of `lots`."""

    __slots__ = ("account", "flags", "left", "lots", "price", "seq")

    def __init__(self, seq: int, account: int, flags: int, left: int, lots: int, price: int) -> None:
        self.seq = seq
        self.account = account
        self.flags = flags
        self.left = left
        self.lots = lots
        self.price = price
