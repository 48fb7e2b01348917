"""A short day of an exchange, for the lies: trades of the tape, and every situation that a lie needs.

The play drives an engine tick by tick and does not mind what becomes of its records: an honest engine refuses those
that are wrong on purpose, a lying one may refuse others, too.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from sequencer.development import FEEDS, feed_key
from sequencer.engine.engine import Submission, Tick, class_of
from sequencer.l1.batch import Batch
from sequencer.l1.follower import EMPTY_HASH, PostedBatch
from sequencer.local.devnet import devnet_key
from sequencer.local.liar import CROWD, LyingEngine
from sequencer.log.sqlite import SqliteLog
from sequencer.market.feeds import IndexReport, Report, SurfaceReport, sign_reports
from sequencer.market.tape import Tape
from sequencer.market.tape_source import TapeSource
from sequencer.protocol import codec, margin
from sequencer.protocol import constants as c
from sequencer.protocol.batch import data_root
from sequencer.protocol.book import Order
from sequencer.protocol.codec import inbox_hash
from sequencer.protocol.constants import ELEMENT_BYTES, Kind
from sequencer.protocol.market import strike_step
from sequencer.protocol.state import State, expiry_time
from sequencer.rollup.batcher import Batcher
from sequencer.wire.names import find_instrument

MAKER, TAKER, OVER_SOLD, LIQUIDATOR = 1, 2, 3, 4
STRANGER: Final = 9  # a key without an account
USD: Final = 1_000_000
DEPOSITS: Final = (
    (MAKER, 20_000_000 * USD),
    (TAKER, 5_000_000 * USD),
    (OVER_SOLD, 20_000 * USD),
    (LIQUIDATOR, 5_000_000 * USD),
    (TAKER, 1_000 * USD),  # these two in the middle of the day
    (MAKER, 2_000 * USD),
)
OPENING: Final = 4
TRADES: Final = 6
FEE_MAX: Final = 65_535
LOTS: Final = 20_000
STRIKES: Final = 36
AT_A_TIME: Final = 16
NEAR: Final = 18_993  # 1 January 2022: the expiry that settles
CRASH_PPM: Final = 930_000
PAYLOAD_MAX_BYTES: Final = 2_700
IOC: Final = c.TIF_IOC << c.FLAG_TIF_SHIFT
FOK: Final = c.TIF_FOK << c.FLAG_TIF_SHIFT


class Play:
    """One performance. `inbox`: the records of L1's messages, in the order of DEPOSITS.

    `is_crowded`: with an account that holds all the positions it may; None: when the engine's lie is about that.
    """

    def __init__(
        self,
        engine: LyingEngine,
        log: SqliteLog,
        tape: Tape,
        inbox: Sequence[bytes],
        is_crowded: bool | None = None,
    ) -> None:
        self.engine = engine
        self.log = log
        self.tape = tape
        self.inbox = list(inbox)
        self.now = tape.trades[0].time_s // 60 * 60
        self.index = tape.trades[0].index_ticks
        self._nonces: dict[int, int] = {}
        if is_crowded is None:
            is_crowded = engine.lie is not None and engine.lie.where == CROWD
        self._is_crowded = is_crowded

    @property
    def state(self) -> State:
        """The engine's state."""
        return self.engine.state

    def run(self) -> None:
        """The whole day."""
        self._open()
        self._trade()
        self._book()
        if self._is_crowded:
            self._crowd()
        self._refused()
        self._money()
        self._liquidate()
        self._settle()

    # --- records ----------------------------------------------------------------------------------

    def _tick(self, where: str, records: Sequence[bytes], seconds: int = 1) -> Tick:
        """One tick, `seconds` later: system records and signed ones, told apart by their class."""
        self.now += seconds
        self.engine.here = where
        system = [raw for raw in records if class_of(raw) == c.CLASS_SYSTEM]
        signed = [
            Submission(raw, None, of_class=class_of(raw))
            for raw in records
            if class_of(raw) != c.CLASS_SYSTEM
        ]
        tick = self.engine.run(self.now, system, signed)
        if tick.entry is not None:
            self.log.append(tick.entry, self.log.end)
        return tick

    def _signed(self, kind: Kind, account: int, key: int | None = None, **fields: int) -> bytes:
        nonce = self._nonces[account] = self._nonces.get(account, -1) + 1
        fields.setdefault("expires", 0)
        raw = codec.encode(kind, account=account, nonce=nonce, **fields)
        return codec.sign(raw, self.state.domain, devnet_key(account if key is None else key))

    def _order(
        self,
        account: int,
        instrument: int,
        flags: int,
        price: int,
        quantity: int,
        key: int | None = None,
        expires: int = 0,
    ) -> bytes:
        return self._signed(
            Kind.PLACE,
            account,
            key,
            instrument=instrument,
            flags=flags,
            price=price,
            quantity=quantity,
            expires=expires,
            fee_max=FEE_MAX,
        )

    def _feeds(self, seconds: int = 1) -> list[bytes]:
        """All feeds report the index, for the tick that is `seconds` away."""
        return _of_all_feeds([IndexReport(0, self.now + seconds, self.index)], self.state.domain)

    def _marks(self, where: str, seconds: int = 1) -> None:
        """Reports, then risk arrays of every page."""
        risks = [
            codec.encode(Kind.RISK, underlying=0, day=page >> 7 & 0xFFFF, page=page & 127)
            for page in sorted(self.state.pages)
        ]
        self._tick(where, self._feeds(seconds) + risks, seconds)

    # --- scenes -----------------------------------------------------------------------------------

    def _open(self) -> None:
        self._tick("deposits", self.inbox[:OPENING])
        terms = sorted({(one.day, one.strike_ticks, one.is_put) for one in self.tape.trades[:TRADES]})
        listings = [
            codec.encode(Kind.LIST, underlying=0, day=day, put=int(put), strike=strike)
            for day, strike, put in terms
        ]
        self._tick("list", self._feeds() + listings)
        days = {day for day, _, _ in terms}
        reports = [
            report
            for report in TapeSource(self.tape).poll(self.now)
            if isinstance(report, SurfaceReport) and report.day in days
        ]
        self._tick("surfaces", _of_all_feeds(reports, self.state.domain))
        self._marks("marks")

    def _trade(self) -> None:
        """The tape's first trades: the maker quotes the price, the taker takes it."""
        for trade in self.tape.trades[:TRADES]:
            instrument = find_instrument(
                self.state, trade.underlying, trade.day, trade.strike_ticks, trade.is_put
            )
            if instrument is None:
                continue
            other = c.BUY if trade.side == c.SELL else c.SELL
            quote = (trade.price_ticks, trade.quantity_lots)
            self._tick("quote", [self._order(MAKER, instrument, other | c.FLAG_POST_ONLY, *quote)])
            self._tick("trade", [self._order(TAKER, instrument, trade.side | IOC, *quote)])

    def _book(self) -> None:
        """Three orders deep: the taker eats one and most of the second, which is amended; the third is cancelled."""
        put, mark = self._put()
        asks = [
            self._order(MAKER, put, c.SELL | c.FLAG_POST_ONLY, mark + 100 * level, LOTS)
            for level in (1, 2, 3)
        ]
        rested = self._tick("rest", asks)
        self._taken = self._order(TAKER, put, c.BUY | IOC, mark + 200, LOTS * 3 // 2)
        self._tick("take", [self._taken])
        self._tick(
            "two takers",
            [self._order(TAKER, put, c.BUY | IOC, mark + 200, LOTS // 8) for _ in range(2)],
        )
        self._tick("more deposits", self.inbox[OPENING:])
        second, third = (one.outcomes[0].rested for one in rested.results[1:])
        self._tick("less", [self._amend(second, LOTS - LOTS // 16)])
        self._tick("more", [self._amend(second, LOTS)])
        self._tick("cancel", [self._cancel(third)])
        self._tick("after cancel", [self._order(TAKER, put, c.BUY | IOC, mark + 300, LOTS)])

    def _crowd(self) -> None:
        """The taker comes to hold as many positions as it may, and tries one more."""
        put, _ = self._put()
        day, step = put >> 12 & 0xFFFF, strike_step(self.index, self.state.params.of(0))
        lowest = (self.index // step - STRIKES // 2) * step
        terms = [(lowest + at * step, kind) for at in range(STRIKES) for kind in (0, 1)]
        listings = [codec.encode(Kind.LIST, underlying=0, day=day, put=kind, strike=at) for at, kind in terms]
        self._tick("list more", self._feeds() + listings)
        self._marks("marks of more")
        held = self.state.accounts[TAKER].positions
        found = (find_instrument(self.state, 0, day, at, bool(kind)) for at, kind in terms)
        fresh = [one for one in found if one is not None and one not in held]
        room = c.POSITIONS_MAX - len(held)
        for first in range(0, room, AT_A_TIME):
            self._quote_and_take("more", fresh[first : min(first + AT_A_TIME, room)])
        self._quote_and_take(CROWD, fresh[room : room + 1])

    def _quote_and_take(self, where: str, instruments: Sequence[int]) -> None:
        """One lot of each, of two sellers in turn."""
        quotes, orders = [], []
        for number, one in enumerate(instruments):
            price = self.state.pages[one >> 5].rows[one & 31][0] + 100
            seller = (MAKER, LIQUIDATOR)[number % 2]
            quotes.append(self._order(seller, one, c.SELL | c.FLAG_POST_ONLY, price, 1))
            orders.append(self._order(TAKER, one, c.BUY | IOC, price, 1))
        self._tick("quotes", quotes)
        self._tick(where, orders)

    def _refused(self) -> None:
        """What an honest engine refuses, but for the orders that it is about."""
        put, mark = self._put()
        ask, bid = c.SELL | c.FLAG_POST_ONLY, c.BUY
        self._tick("forged", [self._order(MAKER, put, bid, mark, LOTS, key=STRANGER)])
        self._tick("replay", [self._taken])
        self._tick("margin", [self._order(OVER_SOLD, put, c.SELL, 2 * mark, 500 * LOTS)])
        self._tick("rest again", [self._order(MAKER, put, ask, mark + 100, LOTS)])
        self._tick("self", [self._order(MAKER, put, bid | IOC, mark + 100, LOTS)])
        self._tick("rest again", [self._order(MAKER, put, ask, mark + 100, LOTS)])
        self._tick(
            "expired", [self._order(TAKER, put, bid | IOC, mark + 100, LOTS // 4, expires=self.now - 9)]
        )
        self._tick("post only", [self._order(TAKER, put, bid | c.FLAG_POST_ONLY, mark + 100, LOTS // 4)])
        self._tick("fok", [self._order(TAKER, put, bid | FOK, mark + 100, 2 * LOTS)])
        self._plans(put, mark)
        self._tick("healthy", [codec.encode(Kind.LIQUIDATE, account=MAKER)])
        terms = {"underlying": 0, "day": NEAR + 1, "put": 0}
        self._tick("off grid", [codec.encode(Kind.LIST, strike=4_600_001, **terms)])
        now = IndexReport(0, self.now + 1, self.index * 11 // 10)
        self._tick("feed forged", sign_reports([now], 0, devnet_key(STRANGER), self.state.domain))
        old = IndexReport(0, self.tape.trades[0].time_s // 60 * 60 + 1, self.index * 11 // 10)
        self._tick("feed stale", sign_reports([old], 1, feed_key(1), self.state.domain))

    def _plans(self, put: int, mark: int) -> None:
        """Two FOKs of two records each: one is filled whole, one meets its own account's order at the fifth place."""
        ask, bid = c.SELL | c.FLAG_POST_ONLY, c.BUY | FOK
        for where, flags, levels in (("plan", 0, 4), ("plan that ends", c.FLAG_STP_TAKER, 6)):
            own = self._order(TAKER, put, ask, mark + 5, 1)
            quotes = [self._order(MAKER, put, ask, mark + level, 1) for level in range(1, levels + 1)]
            self._tick("plan's quotes", [*quotes, *([own] if flags else [])])
            self._tick(where, [self._order(TAKER, put, bid | flags, mark + levels, levels)])

    def _money(self) -> None:
        cash = self.state.accounts[TAKER].cash
        self._tick("overdraw", [self._signed(Kind.WITHDRAW, TAKER, amount=cash + 100 * USD)])
        self._tick("withdraw", [self._signed(Kind.WITHDRAW, TAKER, amount=100 * USD)])
        self._tick("transfer", [self._signed(Kind.TRANSFER, MAKER, to=TAKER, amount=10 * USD)])
        self._tick("collect", [codec.encode(Kind.COLLECT)])

    def _liquidate(self) -> None:
        """An account sells puts up to its margin; the index falls."""
        put, _ = self._put()
        page = self.state.pages[put >> 5]
        mark = page.rows[put & 31][0]
        seller = self.state.accounts[OVER_SOLD]
        margin.refresh(self.state, seller)
        per_lot = margin.short_risk(self.state, page, put)
        lots = max(1, margin.free(self.state, seller) * 95 // (100 * max(per_lot, 1)))
        self._tick("bid for puts", [self._order(MAKER, put, c.BUY, mark, lots)])
        self._tick("over-sell", [self._order(OVER_SOLD, put, c.SELL | IOC, mark, lots)])
        self.index = self.index * CRASH_PPM // c.PPM
        self._marks("crash", 60)
        self._tick("liquidate", [codec.encode(Kind.LIQUIDATE, account=OVER_SOLD)])
        terms = {"target": OVER_SOLD, "fraction": 64, "cash_max": 2**63 - 1}
        self._tick("bid", [self._signed(Kind.BID, LIQUIDATOR, **terms)], seconds=300)

    def _settle(self) -> None:
        for bound in (expiry_time(NEAR) - c.TWAP_S, expiry_time(NEAR)):
            seconds = bound - self.now
            self._tick("bound", self._feeds(seconds), seconds)
        self._tick("fix", [codec.encode(Kind.FIX, underlying=0, day=NEAR)])
        for account in (MAKER, TAKER):
            self._tick("settle", [codec.encode(Kind.SETTLE, underlying=0, day=NEAR, account=account)])
        self._tick("end", self._feeds())

    def _put(self) -> tuple[int, int]:
        """(instrument, mark) of the first put of the tape."""
        trade = next(one for one in self.tape.trades if one.is_put)
        found = find_instrument(self.state, trade.underlying, trade.day, trade.strike_ticks, True)
        assert found is not None
        return found, max(self.state.pages[found >> 5].rows[found & 31][0], 1_000)

    def _amend(self, order: Order | None, total: int) -> bytes:
        """Another total for an order of the maker; one that never came to be is asked for all the same."""
        instrument, _ = self._put()
        price, seq = (order.price, order.seq) if order is not None else (1, 0)
        fields = {"instrument": instrument, "flags": c.SELL | c.FLAG_POST_ONLY, "price": price, "seq": seq}
        return self._signed(Kind.AMEND, MAKER, **fields, new_price=price, quantity=total, fee_max=FEE_MAX)

    def _cancel(self, order: Order | None) -> bytes:
        """Cancels an order; one that never came to be is asked for all the same."""
        instrument, _ = self._put()
        price, seq = (order.price, order.seq) if order is not None else (1, 0)
        return self._signed(Kind.CANCEL, MAKER, instrument=instrument, side=c.SELL, price=price, seq=seq)


def _of_all_feeds(reports: Sequence[Report], domain: bytes) -> list[bytes]:
    """Records of the same reports from every feed."""
    return [raw for feed in range(FEEDS) for raw in sign_reports(reports, feed, feed_key(feed), domain)]


def batches_of(folder: Path, log: SqliteLog, genesis_root: bytes) -> list[Batch]:
    """The log as small batches."""
    batcher = Batcher(folder / "batches.sqlite", log, genesis_root, PAYLOAD_MAX_BYTES)
    out: list[Batch] = []
    while (built := batcher.build(True)) is not None:
        out.append(built)
    batcher.close()
    return out


def as_posted(made: Sequence[Batch], inbox: Sequence[bytes], genesis_root: bytes) -> list[PostedBatch]:
    """The batches as L1 would show them, for tests without a chain."""
    hashes = [EMPTY_HASH]
    for record in inbox:
        hashes.append(inbox_hash(hashes[-1], record))
    out: list[PostedBatch] = []
    pre_root = genesis_root
    for number, one in enumerate(made, start=1):
        out.append(
            PostedBatch(
                batch_id=one.batch_id,
                pre_root=pre_root,
                post_root=one.post_root,
                data_root=data_root(one.payload),
                header_hash=b"",
                elements=len(one.payload) // ELEMENT_BYTES,
                segments=one.segments,
                records=one.records,
                first_seq=one.first_seq,
                time_s=one.time_s,
                inbox_count=one.inbox_count,
                inbox_hash=hashes[min(one.inbox_count, len(inbox))],
                work=one.work,
                tick=one.tick,
                ticks=one.ticks,
                payload=one.payload,
                block_number=number,
                block_hash=f"{number:#x}",
                tx_hash="",
            )
        )
        pre_root = one.post_root
    return out
