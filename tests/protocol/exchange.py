"""A small exchange to test on: keys by role, three feeds, instruments with fresh marks, signed records.

Every record goes through `apply`, which lets the auditor look at the whole state afterwards.
"""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from sequencer.protocol import codec
from sequencer.protocol import constants as c
from sequencer.protocol.constants import Kind, Reason
from sequencer.protocol.hashing import address_of, keccak, public_key_of
from sequencer.protocol.params import BTC, ETH, Params
from sequencer.protocol.state import State, expiry_time
from sequencer.protocol.transition import apply

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "twins"))
from auditor import Auditor

if TYPE_CHECKING:
    from sequencer.protocol.book import Order
    from sequencer.protocol.entries import Account
    from sequencer.protocol.outcome import Outcome

IS_LONG = os.environ.get("FAIRSTRIKE_LONG", "0") not in ("", "0")
DOMAIN = codec.domain_separator(31_337, b"\x11" * 20)
TODAY = 20_000
START = TODAY * c.DAY_S + 36_000  # 10:00 UTC
INDEX = 5_000_000  # 50,000 USD
NEAR, FAR = TODAY + 1, TODAY + 30
FEEDS = 3
CONTRACT = 10_000  # lots
USD = 1_000_000  # cash
FEE_MAX = 65_535

CALM = {"breaker_restrict_ppm": c.U32_MAX, "breaker_halt_ppm": c.U32_MAX}  # no breaker: the index may jump

FINE = {  # strikes on every tick
    "underlyings": tuple(replace(one, strike_step_ppm=0, strike_step_min_ticks=1) for one in (BTC, ETH))
}

FLAT = {"a": 30_000_000_000, "b": 0, "rho": 0, "m": 0, "sigma": 10**12}  # 60 % for thirty days


def examples(count: int) -> int:
    """How many cases a property draws: many more under FAIRSTRIKE_LONG=1."""
    return count * 40 if IS_LONG else count


def key_of(role: str) -> bytes:
    return keccak(b"test key of " + role.encode())


def address(role: str) -> bytes:
    return address_of(public_key_of(key_of(role)))


def params(**changes: int) -> Params:
    """Default PARAMS with the test's feeds; account 1 is the treasury's."""
    values: dict[str, int] = {"treasury_account": 1, **changes}
    return Params(feed_keys=tuple(address(f"feed {i}") for i in range(FEEDS)), **values)


class Exchange:
    """State and the people around it. Methods that submit a record return its Outcome."""

    def __init__(self, audits: bool = True, **changes: int) -> None:
        self.state = State(DOMAIN, params(**changes), (0, 1))
        self.auditor = Auditor()
        self.audits = audits
        self.numbers: dict[str, int] = {}
        self.nonces: dict[str, int] = {}
        self.applied: list[bytes] = []
        self.cached: State | None = (
            None  # the same records on a state that has never been traced, where one is kept
        )
        self.tick(START)

    # --- records --------------------------------------------------------------------------------

    def apply(self, raw: bytes, signer: bytes | None = None) -> Outcome:
        out = apply(self.state, raw, signer)
        self.applied.append(raw)
        self.auditor.count(raw, out)
        if self.audits:
            self.auditor.check(self.state)
        return out

    def unsigned(self, kind: Kind, **fields: int | bytes) -> Outcome:
        return self.apply(codec.encode(kind, **fields))

    def signed(self, kind: Kind, by: str, **fields: int | bytes) -> bytes:
        return codec.sign(codec.encode(kind, **fields), DOMAIN, key_of(by))

    def submit(
        self, kind: Kind, role: str, *, by: str | None = None, nonce: int | None = None, **fields: int | bytes
    ) -> Outcome:
        """A signed record of `role` with its next nonce; opens a tick when its class asks for one."""
        if nonce is None:
            nonce = self.nonces.get(role, 0)
            self.nonces[role] = nonce + 1
        fields.setdefault("expires", 0)
        raw = self.signed(kind, by or role, account=self.numbers[role], nonce=nonce, **fields)
        record = codec.decode(raw, DOMAIN)
        assert not isinstance(record, Reason)
        if codec.class_of(raw) < self.state.globals.last_class and self.state.globals.taker is None:
            self.tick(0)
        return self.apply(raw)

    # --- system ---------------------------------------------------------------------------------

    def tick(self, seconds: int = 0) -> Outcome:
        """Opens a tick `seconds` later."""
        return self.unsigned(Kind.TICK, time=self.state.globals.time + seconds)

    def tick_at(self, time: int) -> Outcome:
        return self.unsigned(Kind.TICK, time=time)

    def system(self, kind: Kind, **fields: int | bytes) -> Outcome:
        """A system record at the head of a tick of its own."""
        if self.state.globals.last_class > c.CLASS_SYSTEM:
            self.tick(0)
        return self.unsigned(kind, **fields)

    def _report(self, kind: Kind, source: int | None, time: int | None, fields: dict[str, int]) -> Outcome:
        """A report of one feed, or of all: then the first outcome that is not OK, or the last."""
        if self.state.globals.last_class > c.CLASS_SYSTEM:
            self.tick(0)
        when = self.state.globals.time if time is None else time
        for feed in range(FEEDS) if source is None else (source,):
            out = self.apply(self.signed(kind, f"feed {feed}", feed=feed, time=when, **fields))
            if out.reason:
                break
        return out

    def feed(
        self, price: int, source: int | None = None, underlying: int = 0, time: int | None = None
    ) -> Outcome:
        """`price` of feed `source`, or of all feeds."""
        return self._report(Kind.FEED, source, time, {"underlying": underlying, "price": price})

    def feeds(self, price: int, underlying: int = 0) -> None:
        """All feeds report `price`, a second later."""
        self.tick(1)
        assert self.feed(price, underlying=underlying).reason is Reason.OK

    def surface(
        self,
        day: int,
        source: int | None = None,
        time: int | None = None,
        forward: int = INDEX,
        index: int = INDEX,
        underlying: int = 0,
        **shape: int,
    ) -> Outcome:
        """The surface of feed `source`, or of all feeds."""
        fields = {"underlying": underlying, "day": day, "forward": forward, "index": index}
        return self._report(Kind.SURFACE, source, time, {**fields, **FLAT, **shape})

    def resurface(self) -> None:
        """Every feed reports its surfaces again, as they stand: the variances of the time that is left."""
        now = self.state.globals.time
        for key, expiry in self.state.expiries.items():
            ends = expiry_time(key & 0xFFFF)
            for source, last in enumerate(expiry.reports):
                if last is None or not last.time < now < ends:
                    continue
                old, then, left = last.surface, ends - last.time, ends - now
                shape = {"a": old.a_e12 * left // then, "b": old.b_e12 * left // then}
                shape |= {"rho": old.rho_e12, "m": old.m_e12, "sigma": old.sigma_e12}
                quote = {"forward": last.forward, "index": last.index, "underlying": key >> 16}
                assert self.surface(key & 0xFFFF, source, **quote, **shape).reason is Reason.OK

    def list(self, day: int = FAR, strike: int = INDEX, put: int = 0, underlying: int = 0) -> int:
        """Lists an instrument and returns its number."""
        out = self.system(Kind.LIST, underlying=underlying, day=day, put=put, strike=strike)
        assert out.reason is Reason.OK, out.reason
        return out.number

    def risk(self, instrument: int) -> Outcome:
        return self.system(
            Kind.RISK, underlying=instrument >> 28, day=instrument >> 12 & 0xFFFF, page=instrument >> 5 & 127
        )

    def remark(self, price: int | None = None) -> None:
        """A new index (or the same one, fresh), fresh surfaces, and fresh marks on every page."""
        self.feeds(self.state.underlyings[0].index if price is None else price)
        self.resurface()
        for page in list(self.state.pages):
            assert self.risk(page << 5).reason is Reason.OK

    def open(self, *instruments: tuple[int, int, int], price: int = INDEX) -> list[int]:
        """Index, instruments of (day, strike, put), surfaces and marks: ready to trade."""
        self.feeds(price)
        numbers = [self.list(*one) for one in instruments]
        for day in {one[0] for one in instruments}:
            assert self.surface(day, forward=price, index=price).reason is Reason.OK
        for page in {number >> 5 for number in numbers}:
            assert self.risk(page << 5).reason is Reason.OK
        return numbers

    # --- accounts -------------------------------------------------------------------------------

    def deposit(self, role: str, usd: int) -> Outcome:
        """USD to the account of `role`, which a first deposit opens."""
        number = self.numbers.setdefault(role, len(self.numbers) + 1)
        return self.system(Kind.DEPOSIT, owner=address(role), account=number, amount=usd * USD)

    def account(self, role: str) -> Account:
        return self.state.accounts[self.numbers[role]]

    def position(self, role: str, instrument: int) -> int:
        return self.account(role).positions.get(instrument, 0)

    def place(
        self,
        role: str,
        instrument: int,
        side: int,
        price: int,
        quantity: int,
        *,
        tif: int = c.TIF_GTC,
        flags: int = 0,
        expires: int = 0,
        fee_max: int = FEE_MAX,
        nonce: int | None = None,
        by: str | None = None,
    ) -> Outcome:
        return self.submit(
            Kind.PLACE,
            role,
            by=by,
            nonce=nonce,
            instrument=instrument,
            flags=side | tif << c.FLAG_TIF_SHIFT | flags,
            price=price,
            quantity=quantity,
            expires=expires,
            fee_max=fee_max,
        )

    def buy(self, role: str, instrument: int, price: int, quantity: int, **how: int) -> Outcome:
        return self.place(role, instrument, c.BUY, price, quantity, **how)

    def sell(self, role: str, instrument: int, price: int, quantity: int, **how: int) -> Outcome:
        return self.place(role, instrument, c.SELL, price, quantity, **how)

    def proceed(self) -> Outcome:
        return self.unsigned(Kind.CONTINUE)

    def cancel(self, role: str, instrument: int, side: int, price: int, seq: int, **how: int) -> Outcome:
        return self.submit(Kind.CANCEL, role, instrument=instrument, side=side, price=price, seq=seq, **how)

    def amend(
        self,
        role: str,
        order: Order,
        quantity: int,
        price: int | None = None,
        *,
        fee_max: int = FEE_MAX,
        **how: int,
    ) -> Outcome:
        """A new total, or a new price too, for a resting order; `how`: what else the record shall say."""
        fields = {
            "instrument": order.instrument,
            "flags": order.flags,
            "price": order.price,
            "seq": order.seq,
        }
        return self.submit(
            Kind.AMEND,
            role,
            quantity=quantity,
            new_price=order.price if price is None else price,
            fee_max=fee_max,
            **{**fields, **how},
        )

    def cancel_all(self, role: str, nonce_floor: int = 0) -> Outcome:
        return self.submit(Kind.CANCEL_ALL, role, nonce_floor=nonce_floor)

    def trade(self, buyer: str, seller: str, instrument: int, price: int, quantity: int) -> None:
        """The seller rests, the buyer takes."""
        out = self.sell(seller, instrument, price, quantity)
        assert out.rested is not None, out.reason
        out = self.buy(buyer, instrument, price, quantity, tif=c.TIF_IOC)
        assert sum(fill.quantity for fill in out.fills) == quantity, out.reason

    def mark(self, instrument: int) -> int:
        return self.state.pages[instrument >> 5].rows[instrument & 31][0]

    def expire(self, day: int, price: int) -> None:
        """Feeds report `price` at both bounds of the TWAP; then FIX."""
        for time in (expiry_time(day) - c.TWAP_S, expiry_time(day)):
            self.tick_at(time)
            assert self.feed(price).reason is Reason.OK
        assert self.system(Kind.FIX, underlying=0, day=day).reason is Reason.OK

    def settle(self, role: str, day: int) -> Outcome:
        return self.system(Kind.SETTLE, underlying=0, day=day, account=self.numbers[role])

    def liquidate(self, role: str) -> Outcome:
        return self.system(Kind.LIQUIDATE, account=self.numbers[role])

    def bid(self, role: str, target: str, fraction: int = 64, cash_max: int = 2**63 - 1) -> Outcome:
        return self.submit(Kind.BID, role, target=self.numbers[target], fraction=fraction, cash_max=cash_max)

    def withdraw(self, role: str, amount: int, **how: int) -> Outcome:
        return self.submit(Kind.WITHDRAW, role, amount=amount, **how)

    def transfer(self, role: str, to: str, amount: int) -> Outcome:
        return self.submit(Kind.TRANSFER, role, to=self.numbers[to], amount=amount)


def reopened(state: State) -> State:
    """The state built again from its preimages alone: what a cache or an order of insertion knew is gone."""
    return State.from_preimages(state.domain, iter(sorted(state.preimages())))


def outline(out: Outcome) -> tuple[object, ...]:
    """All that an outcome says, comparable."""
    return (
        out.seq,
        out.reason,
        [values_of(fill) for fill in out.fills],
        None if out.rested is None else values_of(out.rested),
        [values_of(order) for order in out.removed],
        None if out.amended is None else values_of(out.amended),
        out.pending,
        out.fee,
        out.amount,
        out.number,
    )


def values_of(one: object) -> tuple[object, ...]:
    """The attributes of an object of the transition, by name: compiled classes have no slots."""
    names = one.__slots__ if hasattr(one, "__slots__") else one.__mypyc_attrs__
    return tuple(getattr(one, name) for name in sorted(names))
