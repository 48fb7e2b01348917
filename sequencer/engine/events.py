"""What the exchange says by itself: acknowledgements, and events of trades, orders, books and roll-backs.

Amounts as in views.py, which answers what is asked.
"""

from collections.abc import Callable, Iterable
from typing import Final, Protocol

import msgspec
from mypy_extensions import mypyc_attr

from sequencer.amounts import cash, contracts, usd
from sequencer.engine.basis import average_e6
from sequencer.engine.engine import CONTINUE, Result
from sequencer.engine.views import Trade, Views
from sequencer.log.interface import Redone
from sequencer.protocol import constants as c
from sequencer.protocol.book import Order
from sequencer.protocol.constants import Kind, Reason
from sequencer.protocol.outcome import Fill
from sequencer.wire.rows import OwnFill

_json: Final = msgspec.json.Encoder().encode


class Labels(Protocol):
    """Knows the labels of orders."""

    def label(self, seq: int) -> str:
        """Label of a resting order, "" without one."""
        ...


class Names(Protocol):
    """What an acknowledgement says by name: instruments, and the labels of orders."""

    @property
    def ledger(self) -> Labels:
        """Has the labels as the tick leaves them."""
        ...

    def name(self, instrument: int) -> str:
        """Name of a listed instrument."""
        ...


@mypyc_attr(allow_interpreted_subclasses=True)
class Acknowledging:
    """Acknowledgements of ticks, from what their records did and traded, with names from `names`."""

    def __init__(self, names: Names) -> None:
        self._names = names
        self._own: dict[int, list[OwnFill]] = {}  # fills of the tick that was observed last, by record

    def ack(self, result: Result, tick: int) -> bytes:
        """JSON of an accepted submission: sequence number, tick, fills, what rests."""
        outcomes = result.outcomes
        first, amended = outcomes[0], outcomes[0].amended
        rested = first.rested
        if len(outcomes) > 1 and rested is None:
            rested = next((one.rested for one in outcomes if one.rested), None)
        if amended is not None and amended not in first.removed:
            rested = amended  # less of it, in its place
        made = [
            self._own_fill(own)
            for outcome in outcomes
            if outcome.fills
            for own in self._own.get(outcome.seq, ())
            if own.is_taker
        ]
        order = "null" if rested is None else self._rested(rested)
        body = f'{{"seq":{first.seq},"tick":{tick},"fee":"{cash(first.fee)}","fills":[{",".join(made)}],"order":{order}'
        if first.paid is not None:
            each = [f"[{one.paid or 0},{one.rests},{len(one.fills)}]" for one in outcomes]
            body += f',"outcomes":[{",".join(each)}]'
        if first.amount:
            body += f',"amount":"{cash(first.amount)}"'
        if first.number or first.amount:
            body += f',"number":{first.number}'
        if amended is not None:
            body += f',"amended":{amended.seq}'
        removed = [str(one.seq) for outcome in outcomes if outcome.removed for one in outcome.removed]
        if removed:
            body += f',"removed":[{",".join(removed)}]'
        return (body + "}").encode()

    def _rested(self, order: Order) -> str:
        flags = order.flags
        return (
            f'{{"instrument":"{self._names.name(order.instrument)}","number":{order.instrument},'
            f'"side":"{"sell" if order.side else "buy"}","price":"{usd(order.price)}",'
            f'"quantity":"{contracts(order.quantity)}","seq":{order.seq},"expires":{order.expires},'
            f'"filled":"{contracts(order.filled)}","post_only":{"true" if flags & c.FLAG_POST_ONLY else "false"},'
            f'"reduce_only":{"true" if flags & c.FLAG_REDUCE_ONLY else "false"},'
            f'"self_trade":"{"cancel_taker" if flags & c.FLAG_STP_TAKER else "cancel_resting"}",'
            f'"label":{_label(self._names.ledger.label(order.seq))}}}'
        )

    def _own_fill(self, own: OwnFill) -> str:
        """JSON of a trade as one of its sides sees it."""
        fill, row = own.fill, own.row
        # by place, not unpacked: compiled, that makes no iterator
        instrument, order, seq, label, side, price, lots = (
            row[3],
            row[4],
            row[5],
            row[6],
            row[7],
            row[8],
            row[9],
        )
        held, cost, earned, time = row[11], row[12], row[13], row[16]
        maker_fee, taker_fee = cash(fill.maker_fee), cash(fill.taker_fee)
        role, fee = ("taker", taker_fee) if own.is_taker else ("maker", maker_fee)
        return (
            f'{{"trade":{row[0] >> 1},"instrument":"{self._names.name(instrument)}","number":{instrument},'
            f'"side":"{"sell" if side else "buy"}","role":"{role}","price":"{usd(price)}",'
            f'"quantity":"{contracts(lots)}","fee":"{fee}","order_id":{order},"seq":{seq},"label":{_label(label)},'
            f'"time":{time},"mark":"{usd(fill.mark)}","index":"{usd(fill.index)}",'
            f'"position":"{contracts(held)}","average_price":"{cash(average_e6(held, cost))}",'
            f'"realised_pnl":"{cash(earned)}","maker_seq":{fill.maker_seq},"taker_seq":{fill.taker_seq},'
            f'"maker_fee":"{maker_fee}","taker_fee":"{taker_fee}"}}'
        )


class Events(Acknowledging):
    """Acknowledgements and events of the ticks that `views` shows: `observe` first, then `ack` and `events`."""

    def __init__(self, views: Views) -> None:
        super().__init__(views)
        self._views = views

    def observe(self, results: Iterable[Result]) -> None:
        """Takes what a tick did into the ledger, in the order in which it was applied: before `ack` and `events`."""
        time = self._views.state.globals.time
        self._own.clear()
        for result in sorted(results, key=lambda one: one.outcomes[0].seq):
            if result.outcomes[0].reason is not Reason.OK:
                continue
            raw, label = result.submission.raw, result.submission.label
            for outcome in result.outcomes:
                fills = self._views.ledger.apply(raw, outcome, time, label)
                if fills:
                    self._own[outcome.seq] = fills
                raw, label = CONTINUE, ""
        for account in self._views.ledger.ended:
            self._views.levels.account_ended(account)

    def _trade(self, fill: Fill, time: int) -> Trade:
        return Trade(
            self._views.name(fill.instrument),
            usd(fill.maker_price),
            contracts(fill.quantity),
            "sell" if fill.side else "buy",
            time,
            fill.taker_seq,
        )

    def events(
        self, results: list[Result], is_heard: Callable[[str], bool] = lambda _channel: True
    ) -> list[tuple[str, int, bytes]]:
        """(channel, account or 0, JSON) of what a tick did: trades, own fills and orders, changed books.

        Those that nobody hears (`is_heard` of the channel; "trades" has the trades of all instruments) are not made.
        """
        out: list[tuple[str, int, bytes]] = []
        changed: dict[int, None] = {}
        marked: list[int] = []
        time = self._views.state.globals.time
        all_trades = is_heard("trades")
        for result in results:
            if result.outcomes[-1].failed:
                continue  # nothing of it has happened
            for outcome in result.outcomes:
                for fill in outcome.fills:
                    trade = self._trade(fill, time)
                    self._views.trades.append(trade)
                    channel = f"trades.{trade.instrument}"
                    if all_trades or is_heard(channel):
                        out.append((channel, 0, _json(trade)))
                    changed[fill.instrument] = None
                for own in self._own.get(outcome.seq, ()) if outcome.fills else ():
                    if is_heard(channel := f"account.{own.account}"):
                        out.append((channel, own.account, f'{{"fill":{self._own_fill(own)}}}'.encode()))
                rested = outcome.rested
                if outcome.amended is not None and outcome.amended not in outcome.removed:
                    rested = outcome.amended  # less of it, in its place
                if rested is not None:
                    changed[rested.instrument] = None
                    if is_heard(channel := f"account.{rested.account}"):
                        out.append((channel, rested.account, f'{{"order":{self._rested(rested)}}}'.encode()))
                for gone in outcome.removed:
                    changed[gone.instrument] = None
                    if is_heard(channel := f"account.{gone.account}"):
                        out.append((channel, gone.account, _json({"removed": self._views.order(gone)})))
            if result.submission.raw[0] == Kind.RISK and result.outcomes[0].reason is Reason.OK:
                marked += self._marked(result.submission.raw)
        for one in changed:
            if is_heard(channel := f"book.{self._views.name(one)}"):
                out.append((channel, 0, _json(self._views.depth(one, 10))))
        for one in dict.fromkeys([*changed, *marked]):
            if is_heard(channel := f"ticker.{self._views.name(one)}"):
                out.append((channel, 0, _json(self._views.ticker({"instrument": one}))))
        return out

    # --- roll-backs -------------------------------------------------------------------------------

    def roll_back(self, first_seq: int, fills: Iterable[tuple[int, Fill]]) -> None:
        """Forgets the trades from `first_seq` on for those that were made when the records were executed again."""
        while self._views.trades and self._views.trades[-1].seq >= first_seq:
            self._views.trades.pop()
        self._views.trades += (self._trade(fill, time) for time, fill in fills)

    def roll_back_events(
        self, batch_id: int, first_seq: int, accounts: Iterable[int], redone: Iterable[Redone]
    ) -> list[tuple[str, int, bytes]]:
        """(channel, account, JSON) of a roll-back: to all whose accounts are not what they were, and about records that
        hold no more or are known by another number now.
        """
        changes = [(int.from_bytes(one.record[1:5], "big"), one) for one in redone]
        body = _json({"rolled_back": {"batch_id": batch_id, "first_seq": first_seq}})
        told = sorted({*accounts, *(account for account, _ in changes)})
        out = [(f"account.{account}", account, body) for account in told]
        for account, one in changes:
            named = Redone(self._views.acknowledged_as(one.place), one.place, one.record, one.reason)
            kind = "void" if one.reason else "moved"
            out.append((f"account.{account}", account, _json({kind: self._views.changed(named)})))
        return out

    def _marked(self, raw: bytes) -> list[int]:
        """The instruments that a RISK record has marked anew."""
        underlying, day, number = raw[1], int.from_bytes(raw[2:4], "big"), raw[4]
        first = underlying << 28 | day << 12 | number << 5
        return [first + row for row in range(len(self._views.state.pages[first >> 5].terms))]


def _label(label: str) -> str:
    return _json(label).decode() if label else "null"
