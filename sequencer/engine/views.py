"""Views of the state: answers to queries. Read-only; amounts as exact decimals.

Prices and cash in USD, quantities in contracts. Times in seconds since 1970.
"""

import re
from bisect import bisect_right
from collections import deque
from collections.abc import Callable
from heapq import nsmallest
from itertools import islice
from typing import Any, Final

import msgspec

from sequencer import errors
from sequencer.amounts import address, cash, contracts, usd
from sequencer.engine import holdings
from sequencer.engine.ledger import Ledger
from sequencer.engine.levels import AllLevels
from sequencer.log.interface import Redone
from sequencer.market.tape import parse_instrument
from sequencer.protocol import codec, margin
from sequencer.protocol import constants as c
from sequencer.protocol.book import Order
from sequencer.protocol.constants import Kind, QueueState, Reason
from sequencer.protocol.entries import Account
from sequencer.protocol.orders import is_dead
from sequencer.protocol.queue import sequencing_fee
from sequencer.protocol.reports import quorum_time
from sequencer.protocol.state import State, expiry_time, instrument_expiry_time
from sequencer.wire.names import expiry_name, find_instrument, instrument_name, instrument_terms
from sequencer.wire.near import Near

TRADES_KEPT: Final = 10_000
DEPTH_MAX: Final = 100
PAGE_MAX: Final = 1_000  # orders or instruments of one answer
_ADDRESS: Final = re.compile("[0-9a-f]{40}")
_json: Final = msgspec.json.Encoder().encode


class QueryError(Exception):
    """A query that cannot be answered: `field`, what it must be, what it was; `hint`: what to do next."""

    def __init__(self, field: str, limit: str, got: object = None, hint: str = "", **data: object) -> None:
        self.field = field
        self.limit = limit.removeprefix("must be ")
        self.got = errors.shown(got)
        self.data = data
        super().__init__(errors.wrong(field, self.limit, got, hint))

    def body(self) -> bytes:
        """The error object that answers it."""
        told = {"field": self.field, "limit": self.limit, "got": self.got}
        return errors.error_body(errors.Code.INVALID_PARAMS, str(self), **told, **self.data)


def _page(params: dict[str, Any]) -> tuple[int, int]:
    """`after` and `limit` of a query whose answer comes in pages."""
    after, limit = params.get("after", 0), params.get("limit", PAGE_MAX)
    if not isinstance(after, int) or not 0 <= after <= c.U40_MAX:
        raise QueryError("after", f"must be an integer from 0 to {c.U40_MAX}", after)
    if not isinstance(limit, int) or not 1 <= limit <= PAGE_MAX:
        raise QueryError("limit", f"must be an integer from 1 to {PAGE_MAX}", limit)
    return after, limit


class Trade(msgspec.Struct, frozen=True):
    """A public trade."""

    instrument: str
    price: str
    quantity: str
    side: str
    time: int
    seq: int


class Views:
    """Answers about `state`; `status` adds what the process knows about itself."""

    def __init__(
        self, state: State, status: Callable[[], dict[str, Any]], ledger: Ledger | None = None
    ) -> None:
        self.state = state
        self.ledger = ledger or Ledger(state.params.treasury_account)
        self.is_whole = ledger is not None or state.globals.seq == 0  # the ledger has seen every record
        self.quotes = holdings.Quotes(state)
        self.levels = AllLevels(state)
        self._status = status
        self.trades: deque[Trade] = deque(maxlen=TRADES_KEPT)
        # What roll-backs have made of acknowledged records: by the number of the acknowledgement; its number, by place.
        self.redone: Callable[[int], Redone | None] = lambda _seq: None
        self.acknowledged_as: Callable[[int], int] = lambda place: place
        self._names: dict[int, str] = {}
        self._owners: dict[bytes, int] = {}
        self._owners_seen = 0
        self._listed: list[tuple[int, int]] = []  # expiry, number
        self._near_names, self._near_of = Near(()), (0, 0)
        self.adopt(state)
        self.methods: dict[str, Callable[[dict[str, Any]], Any]] = {
            "account": self.account,
            "positions": self.positions,
            "book": self.book,
            "instruments": self.instruments,
            "ticker": self.ticker,
            "tickers": self.tickers,
            "trades": self.recent_trades,
            "status": self.status,
            "margin_statement": self.margin_statement,
            "orders": self.orders,
            "order": self.order_by_seq,
        }

    def adopt(self, state: State, ledger: Ledger | None = None) -> None:
        """Looks at `state` from now on, and at `ledger` if that is another. Trades not seen were never made."""
        self.state = state
        self.ledger = ledger or self.ledger
        self.quotes.adopt(state)
        self.levels.adopt(state)
        while self.trades and self.trades[-1].seq >= state.globals.seq:
            self.trades.pop()
        self._names, self._owners, self._owners_seen, self._listed = {}, {}, 0, []

    def name(self, instrument: int) -> str:
        """Name of a listed instrument, remembered."""
        found = self._names.get(instrument)
        if found is None:
            found = self._names[instrument] = instrument_name(self.state, instrument)
        return found

    # --- queries --------------------------------------------------------------------------------

    def find(self, params: dict[str, Any]) -> int:
        """The instrument that `params` names, by number or name."""
        asked = params.get("instrument")
        limit = "a listed instrument's number or name"
        if isinstance(asked, int) and not isinstance(asked, bool):
            page = self.state.pages.get(asked >> 5)
            if page is not None and asked & 31 < len(page.terms):
                return asked
        elif isinstance(asked, str):
            try:
                terms = parse_instrument(asked)
            except ValueError as error:
                limit = f"a name like BTC-2JAN22-48000-C of a listed instrument: {error}"
            else:
                found = find_instrument(
                    self.state, terms.underlying, terms.day, terms.strike_ticks, terms.is_put
                )
                if found is not None:
                    return found
        near = self._near()
        raise QueryError("instrument", limit, asked, near.hint(asked), near=near.to(asked))

    def _near(self) -> Near:
        """Tells the names that are like one that is not listed; of what has not expired, an hour old at most."""
        state = self.state
        of = len(state.instruments), state.globals.time // 3_600
        if self._near_of != of:
            time = state.globals.time
            alive = (one for one in state.instruments.values() if instrument_expiry_time(one) > time)
            self._near_names, self._near_of = Near(map(self.name, alive)), of
        return self._near_names

    def _account(self, params: dict[str, Any]) -> tuple[int, Account]:
        if "owner" in params:
            number = self._number_of(str(params["owner"]).removeprefix("0x").lower())
            if number is not None:
                return number, self.state.accounts[number]
            raise QueryError(
                *("owner", "must be the address of an account's owner", params["owner"]),
                "no account yet: deposit first (`fairstrike deposit AMOUNT`; on a development chain `fairstrike"
                " faucet`) and wait for the deposit's confirmations",
            )
        asked: object = params.get("account")
        if isinstance(asked, int) and asked in self.state.accounts:
            return asked, self.state.accounts[asked]
        raise QueryError(
            "account",
            f"must be an account's number; the highest is {self.state.highest_account}",
            asked,
        )

    def _number_of(self, owner: str) -> int | None:
        """The first account of an owner (hex). Accounts are only ever added, at the end: each is looked at once."""
        accounts, owners = self.state.accounts, self._owners
        added = list(islice(reversed(accounts.items()), len(accounts) - self._owners_seen))
        for number, account in reversed(added):
            owners.setdefault(account.owner, number)
        self._owners_seen = len(accounts)
        return owners.get(bytes.fromhex(owner)) if _ADDRESS.fullmatch(owner) else None

    def account(self, params: dict[str, Any]) -> dict[str, Any]:
        """Cash, margin, positions, nonces and session keys of an account."""
        number, account = self._account(params)
        state = self.state
        margin.refresh(state, account)
        return {
            "account": number,
            "owner": address(account.owner),
            "cash": cash(account.cash),
            "equity": cash(margin.equity(account)),
            "initial_margin": cash(margin.initial(state, account)),
            "maintenance_margin": cash(margin.maintenance(state, account)),
            "reserved": cash(account.reserved),
            "order_hold": cash(account.orders * state.params.order_hold),
            "free": cash(margin.free(state, account)),
            "auction_start": account.auction_start,
            "hole": cash(account.hole),
            "nonce_floor": account.nonce_floor,
            "nonce_bitmap": hex(account.nonce_bitmap),
            "order_floor": account.order_floor,
            "signers": [
                {"address": address(key), "scope": scope, "expires": expires}
                for key, scope, expires in account.signers
            ],
            **holdings.totals(state, account, number, self.ledger, self.quotes, self.is_whole),
            "positions": self._positions(number, account),
        }

    def positions(self, params: dict[str, Any]) -> list[dict[str, Any]]:
        """Positions of an account with their cost, profit and loss, and greeks."""
        return self._positions(*self._account(params))

    def _positions(self, number: int, account: Account) -> list[dict[str, Any]]:
        return holdings.positions(self.state, account, number, self.ledger, self.quotes, self.name)

    def margin_statement(self, params: dict[str, Any]) -> dict[str, Any]:
        """Positions x risk arrays of an account, so that anybody can redo its margin."""
        number, account = self._account(params)
        return holdings.margin_statement(self.state, account, number, self.name)

    def orders(self, params: dict[str, Any]) -> list[dict[str, Any]]:
        """Live orders of an account, the oldest first: at most `limit` of those numbered above `after`."""
        number, _ = self._account(params)
        after, limit = _page(params)
        label = params.get("label")
        held = self.state.orders_of.get(number, {})
        found = nsmallest(
            limit,
            (
                seq
                for seq, order in held.items()
                if seq > after
                and (label is None or self.ledger.label(seq) == label)
                and self._is_alive(order)
            ),
        )
        return [self.order(held[seq]) for seq in found]

    def order_by_seq(self, params: dict[str, Any]) -> dict[str, Any]:
        """The order of this sequence number that rests, or the record that a roll-back has made void."""
        asked: object = params.get("seq")
        seq = asked if isinstance(asked, int) else -1
        redone = None
        order = self._resting(seq)
        if order is None and (redone := self.redone(seq)) is not None:
            if redone.reason:
                return {"status": "void", **self.changed(redone)}
            order = self._resting(redone.place)
        if order is None:
            raise QueryError(
                "seq",
                "must be the sequence number of an order that rests, or of a record that is void",
                asked,
            )
        return {
            "status": "rests",
            **self.order(order),
            "acknowledged_as": redone.seq if redone else self.acknowledged_as(order.seq),
        }

    def _resting(self, seq: int) -> Order | None:
        order = self.state.orders.get(seq)
        return order if order is not None and self._is_alive(order) else None

    def _is_alive(self, order: Order) -> bool:
        """Whether it can still trade. A dead one that SWEEP has not taken out yet is shown to nobody."""
        return not is_dead(self.state, self.state.accounts[order.account], order)

    def order(self, order: Order) -> dict[str, Any]:
        """A resting order; (number, side, price, seq) is its key for CANCEL. Its total is quantity + filled."""
        return {
            "instrument": self.name(order.instrument),
            "number": order.instrument,
            "side": "sell" if order.side else "buy",
            "price": usd(order.price),
            "quantity": contracts(order.quantity),
            "seq": order.seq,
            "expires": order.expires,
            "filled": contracts(order.filled),
            "post_only": bool(order.flags & c.FLAG_POST_ONLY),
            "reduce_only": bool(order.flags & c.FLAG_REDUCE_ONLY),
            "self_trade": "cancel_taker" if order.flags & c.FLAG_STP_TAKER else "cancel_resting",
            "label": self.ledger.label(order.seq) or None,
        }

    def changed(self, one: Redone) -> dict[str, Any]:
        """A record that a roll-back has made void, or moved to another number."""
        kind = Kind(one.record[0])
        record = codec.decode(one.record, bytes(32), bytes(20))
        assert isinstance(record, codec.Record)
        values = dict(zip((name for name, _ in codec.LAYOUTS[kind].fields), record.fields, strict=True))
        order = None
        if kind in (Kind.PLACE, Kind.PLACE_IN_WORDS, Kind.CANCEL, Kind.AMEND):
            instrument, side = (
                int(values["instrument"]),
                int(values.get("side", 0)) | int(values.get("flags", 0)) & 1,
            )
            order = {
                "instrument": self.name(instrument) if instrument >> 5 in self.state.pages else None,
                "number": instrument,
                "side": "sell" if side else "buy",
                "price": usd(int(values["price"])),
                "seq": int(values["seq"]) if "seq" in values else one.seq if one.reason else one.place,
            }
        out = {"seq": one.seq, "kind": kind.name, "nonce": values["nonce"], "order": order}
        if not one.reason:
            return {**out, "to": one.place}
        reason = Reason(one.reason)
        return {
            **out,
            "code": errors.REFUSAL_BASE + reason,
            "reason": reason.name,
            "message": errors.REFUSALS[reason],
        }

    def book(self, params: dict[str, Any]) -> dict[str, Any]:
        """Price levels of an instrument, best first, as [price, quantity, orders]."""
        instrument = self.find(params)
        depth = params.get("depth", 10)
        if not isinstance(depth, int) or not 1 <= depth <= DEPTH_MAX:
            raise QueryError("depth", f"must be an integer from 1 to {DEPTH_MAX}", depth)
        return self.depth(instrument, depth)

    def depth(self, instrument: int, depth: int) -> dict[str, Any]:
        """See `book`."""
        levels = self.levels.of(instrument)
        sides = [
            [
                [usd(price), contracts(quantity), count]
                for price, quantity, count in (levels.rows(side, depth) if levels else ())
            ]
            for side in (c.BUY, c.SELL)
        ]
        return {
            "instrument": self.name(instrument),
            "number": instrument,
            "bids": sides[0],
            "asks": sides[1],
            "seq": self.state.globals.seq,
        }

    def instruments(self, params: dict[str, Any]) -> list[dict[str, Any]]:
        """Listed options by expiry and number, at most `limit` behind number `after`.

        Those that have expired only with {"expired": true}, and then with their settlement price.
        """
        state = self.state
        after, limit = _page(params)
        listed = self._listed
        if len(listed) != len(state.instruments):  # they are only ever added
            listed = self._listed = sorted(
                (instrument_expiry_time(number), number) for number in state.instruments.values()
            )
        start = 0 if params.get("expired") else bisect_right(listed, (state.globals.time, c.U32_MAX))
        if after:
            start = max(start, bisect_right(listed, (instrument_expiry_time(after), after)))
        out = []
        for expiry, instrument in listed[start : start + limit]:
            underlying, day, strike, is_put = instrument_terms(state, instrument)
            one = {
                "instrument": self.name(instrument),
                "number": instrument,
                "strike": usd(strike),
                "type": "put" if is_put else "call",
                "expiry": expiry,
            }
            if expiry <= state.globals.time:
                one["settlement"] = self._settlement(underlying, day)
            out.append(one)
        return out

    def ticker(self, params: dict[str, Any]) -> dict[str, Any]:
        """Mark, index, forward and best prices of an instrument."""
        instrument = self.find(params)
        state = self.state
        page = state.pages[instrument >> 5]
        underlying, day, _, _ = instrument_terms(state, instrument)
        levels = self.levels.of(instrument)
        bid, ask = (levels.best(side) if levels else None for side in (c.BUY, c.SELL))
        return {
            "instrument": self.name(instrument),
            "number": instrument,
            "mark": usd(page.rows[instrument & 31][0]),
            "index": usd(state.underlyings[underlying].index),
            "forward": usd(page.forward),
            "marked_at": page.time if instrument & 31 < page.marked else 0,
            "best_bid": None if bid is None else usd(bid),
            "best_ask": None if ask is None else usd(ask),
            "expiry": instrument_expiry_time(instrument),
            "settlement": self._settlement(underlying, day),
            **self.quotes.shown(instrument, bid, ask),
        }

    def tickers(self, params: dict[str, Any]) -> dict[str, Any]:
        """Tickers of an underlying's options that have not expired, by expiry, then number; `next`: where to go on."""
        underlying, wanted = params["underlying"], params.get("expiry")
        limit, cursor = params.get("limit", 50), params.get("cursor", -1)
        time = self.state.globals.time
        found = sorted(
            number
            for number in self.state.instruments.values()
            if number >> 28 == underlying
            and number > cursor
            and (
                instrument_expiry_time(number) > time
                if wanted is None
                else instrument_expiry_time(number) == wanted
            )
        )
        shown = [self.ticker({"instrument": number}) for number in found[:limit]]
        return {"tickers": shown, "next": found[limit - 1] if len(found) > limit else None}

    def _settlement(self, underlying: int, day: int) -> str | None:
        """The index that an expiry was settled at; None before that."""
        expiry = self.state.expiries.get(underlying << 16 | day)
        return usd(expiry.settlement) if expiry is not None and expiry.settled else None

    def recent_trades(self, params: dict[str, Any]) -> list[Trade]:
        """Latest trades, newest first."""
        limit = params.get("limit", 100)
        if not isinstance(limit, int) or not 1 <= limit <= 1000:
            raise QueryError("limit", "must be an integer from 1 to 1000", limit)
        wanted = self.name(self.find(params)) if "instrument" in params else None
        found = (trade for trade in reversed(self.trades) if wanted is None or trade.instrument == wanted)
        return list(islice(found, limit))

    def feed_ages(self, now_s: int) -> dict[str, dict[str, int | None]]:
        """Seconds since a quorum of feeds last reported: each index, each live expiry's surface. None: never."""
        state = self.state

        def age(times: list[int]) -> int | None:
            time = quorum_time(times, state.params)
            return max(0, now_s - time) if time else None

        surfaces = {
            expiry_name(key): age([0 if one is None else one.time for one in expiry.reports])
            for key, expiry in state.expiries.items()
            if expiry_time(key & 0xFFFF) > now_s
        }
        indexes = {
            str(number): age([time for _, time in one.reports]) for number, one in state.underlyings.items()
        }
        return {"index_age_s": indexes, "surface_age_s": surfaces}

    def status(self, _params: dict[str, Any]) -> dict[str, Any]:
        """Where the exchange stands: sequence, tick, root, state of the queue, money."""
        state = self.state
        g = state.globals
        return {
            "seq": g.seq,
            "tick": g.tick,
            "time": g.time,
            "root": "0x" + state.root().hex(),
            "queue_state": QueueState(g.queue_state).name,
            "sequencing_fee": cash(sequencing_fee(state)),
            "index": {str(number): usd(one.index) for number, one in state.underlyings.items()},
            "accounts": len(state.accounts),
            "orders": sum(len(book) for book in state.books.values()),
            "instruments": len(state.instruments),
            "pool": cash(g.pool),
            "fund": cash(g.fund),
            "treasury": cash(g.treasury),
            "deficit": cash(g.deficit),
            "holes": cash(g.holes),
            "withdrawals": g.withdrawals,
            "inbox_count": g.inbox_count,
            **self._status(),
        }
