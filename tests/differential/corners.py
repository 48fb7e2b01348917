"""Scenes that random records hardly ever reach: expiries that are fixed and settled, full tables, halts, greatest sums,
two underlyings, steep surfaces, marks of full width, takers that meet many makers.

Each scene yields records one by one and looks at the state between them.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "protocol"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "property"))

from exchange import FEE_MAX, FEEDS, FLAT, INDEX, Exchange, address
from hostile import Drawn

from sequencer.protocol import codec
from sequencer.protocol import constants as c
from sequencer.protocol.constants import Kind
from sequencer.protocol.state import expiry_time

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from random import Random

TRADERS: Final = ("long", "short", "third", "fourth")
ETH_INDEX: Final = 300_000
STEP: Final = {0: 50_000, 1: 50_000}  # of strikes that any listing rule of the tests takes
MAKERS: Final = 25  # orders that a scene's taker meets
AMOUNT_MAX: Final = 2**48 - 1


class Corners:
    """A world for scenes. `exchange.state` may be replaced by a tracing one before the first scene."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.exchange = Exchange(audits=False)
        for role in ("treasury", *TRADERS):
            self.exchange.deposit(role, 1 if role == "treasury" else 5_000_000)
        today = self.exchange.state.globals.time // c.DAY_S
        self.full_day = today + 60
        for listed, day in ((4_096, self.full_day), (c.PAGE_ROWS, self.full_day + 1)):
            key = 0 << 16 | day
            expiry = self.exchange.state.new_expiry(key)
            expiry.listed = listed
            self.exchange.state.touch(c.KEY_EXPIRY | key, expiry)
        self.nonces = self.exchange.nonces

    def scenes(self) -> Iterator[Iterator[Drawn]]:
        """Without end; every scene comes once in each round."""
        while True:
            scenes = [
                self.expiry,
                self.full_expiry,
                self.halt,
                self.signers,
                self.large_sums,
                self.two_underlyings,
                self.steep_surfaces,
                self.wide_marks,
                self.many_makers,
                self.amendments,
                self.atomic_orders,
            ]
            self.random.shuffle(scenes)
            for scene in scenes:
                yield self._scene(scene)

    def _scene(self, scene: Callable[[], Iterator[Drawn]]) -> Iterator[Drawn]:
        """The breaker is calm and held pages are fresh when it begins."""
        state = self.exchange.state
        prices = [state.underlyings[number].index for number in (0, 1)]
        if not INDEX // 4 < prices[0] < INDEX * 4:
            prices[0] = INDEX
        for _ in range(2):
            later = state.globals.time + state.params.breaker_window_s + state.params.breaker_cool_s
            for underlying, default in ((0, INDEX), (1, ETH_INDEX)):
                yield from self.report(later, prices[underlying] or default, underlying)
        held = {one >> 5 for account in state.holders.values() for one in account.positions}
        for page in sorted(held):
            fields = {"underlying": page >> 23, "day": page >> 7 & 0xFFFF}
            if state.globals.time < expiry_time(page >> 7 & 0xFFFF):
                price = state.underlyings[page >> 23].index
                yield from self.surfaces(page >> 7 & 0xFFFF, price, page >> 23)
            yield from self.system(Kind.RISK, **fields, page=page & 127)
        yield from scene()

    # --- records --------------------------------------------------------------------------------

    def system(self, kind: Kind, **fields: int | bytes) -> Iterator[Drawn]:
        """At the head of a tick; a taker that waits goes on first."""
        for _ in range(2 * MAKERS):
            if self.exchange.state.globals.taker is None:
                break
            yield codec.encode(Kind.CONTINUE), None
        if self.exchange.state.globals.last_class > c.CLASS_SYSTEM:
            yield codec.encode(Kind.TICK, time=self.exchange.state.globals.time), None
        yield codec.encode(kind, **fields), None

    def by(self, role: str, kind: Kind, **fields: int | bytes) -> Iterator[Drawn]:
        """Signed by the account's owner, with its next nonce; at a tick of its own."""
        number = self.exchange.numbers[role]
        account = self.exchange.state.accounts[number]
        nonce = account.nonce_floor
        while account.nonce_bitmap >> (nonce - account.nonce_floor) & 1:
            nonce += 1
        if self.exchange.state.globals.last_class > c.CLASS_SYSTEM:
            yield codec.encode(Kind.TICK, time=self.exchange.state.globals.time), None
        fields.setdefault("expires", 0)
        yield codec.encode(kind, account=number, nonce=nonce, **fields), address(role)

    def place(
        self, role: str, instrument: int, side: int, price: int, quantity: int, flags: int = 0
    ) -> Iterator[Drawn]:
        order = {"instrument": instrument, "flags": side | flags, "price": price, "quantity": quantity}
        return self.by(role, Kind.PLACE, **order, fee_max=FEE_MAX)

    def report(self, time: int, price: int, underlying: int = 0) -> Iterator[Drawn]:
        yield from self.system(Kind.TICK, time=time)
        for feed in range(FEEDS):
            fields = {"underlying": underlying, "feed": feed, "time": time, "price": price}
            yield codec.encode(Kind.FEED, **fields), address(f"feed {feed}")

    def surfaces(self, day: int, price: int, underlying: int = 0, **changes: int) -> Iterator[Drawn]:
        time = self.exchange.state.globals.time
        fields = {"underlying": underlying, "day": day, "time": time, "forward": price, "index": price}
        for feed in range(FEEDS):
            shape = {**FLAT, **changes}
            shape["a"] += feed * self.random.choice((0, 1, 10**6))
            yield codec.encode(Kind.SURFACE, feed=feed, **fields, **shape), address(f"feed {feed}")

    def market(
        self, day: int, price: int, underlying: int = 0, strikes: tuple[int, ...] = (), **shape: int
    ) -> Iterator[Drawn]:
        """Index, listings, surfaces and marks of an expiry, a second later."""
        yield from self.report(self.exchange.state.globals.time + 1, price, underlying)
        near = price // STEP[underlying] * STEP[underlying]
        for strike in strikes or (near, near + STEP[underlying]):
            for put in (0, 1):
                yield from self.system(Kind.LIST, underlying=underlying, day=day, put=put, strike=strike)
        yield from self.surfaces(day, price, underlying, **shape)
        yield from self.marks(day, underlying)

    def marks(self, day: int, underlying: int = 0) -> Iterator[Drawn]:
        for page in sorted(self.exchange.state.pages):
            if page >> 7 == underlying << 16 | day:
                yield from self.system(Kind.RISK, underlying=underlying, day=day, page=page & 127)

    def listed(self, day: int, underlying: int = 0) -> list[int]:
        numbers = self.exchange.state.instruments.values()
        return sorted(one for one in numbers if one >> 12 == underlying << 16 | day)

    def trade(
        self, instrument: int, quantity: int, buyer: str = "long", seller: str = "short"
    ) -> Iterator[Drawn]:
        price = max(self.exchange.mark(instrument), 1)
        yield from self.place(seller, instrument, c.SELL, price, quantity)
        yield from self.place(buyer, instrument, c.BUY, price, quantity, c.TIF_IOC << c.FLAG_TIF_SHIFT)

    def today(self) -> int:
        return self.exchange.state.globals.time // c.DAY_S

    # --- scenes ---------------------------------------------------------------------------------

    def expiry(self) -> Iterator[Drawn]:
        """An option is held into its expiry; FIX too early, in time, again; SETTLE before, once, again."""
        day, price = self.today() + 1, self._index(0)
        yield from self.market(day, price)
        for instrument in self.listed(day)[:3]:
            yield from self.trade(instrument, self.random.randint(1, 5_000))
        yield from self.system(Kind.FIX, underlying=0, day=day)
        start, end = expiry_time(day) - c.TWAP_S, expiry_time(day)
        for time in (start, start + self.random.randint(0, 1_000), end, end + self.random.randint(0, 90)):
            price = price * self.random.randint(97, 103) // 100
            if time >= self.exchange.state.globals.time:
                yield from self.report(time, price)
        holders = [*TRADERS, "treasury"]
        early = self.random.choice(holders)
        yield from self.system(Kind.SETTLE, underlying=0, day=day, account=self.exchange.numbers[early])
        yield from self.marks(day)
        for _ in range(2):
            yield from self.system(Kind.FIX, underlying=0, day=day)
        yield from self.marks(day)
        for role in (*holders, *holders[:2]):
            yield from self.system(Kind.SETTLE, underlying=0, day=day, account=self.exchange.numbers[role])
            yield from self.system(Kind.LIQUIDATE, account=self.exchange.numbers[role])

    def full_expiry(self) -> Iterator[Drawn]:
        """LIST where the table is full, and where the page is."""
        yield from self.report(self.exchange.state.globals.time + 1, self._index(0))
        strike = self._index(0) // STEP[0] * STEP[0] + STEP[0] * self.random.randint(0, 8)
        for day in (self.full_day, self.full_day + 1):
            yield from self.system(
                Kind.LIST, underlying=0, day=day, put=self.random.randint(0, 1), strike=strike
            )

    def halt(self) -> Iterator[Drawn]:
        """A jump that restricts, one that halts, orders meanwhile, and the calm after the cooling."""
        day, price = self.today() + 9, self._index(0)
        yield from self.market(day, price)
        instrument = self.random.choice(self.listed(day))
        for jump in (112, 135):
            yield from self.report(self.exchange.state.globals.time + 1, price * jump // 100)
            yield from self.marks(day)
            yield from self.place("third", instrument, c.BUY, 1, 1)
            yield from self.place("third", instrument, c.SELL, c.U32_MAX, 1, c.FLAG_REDUCE_ONLY)
            order = {"instrument": instrument, "flags": 0, "price": 1, "quantity": 1, "expires": 0}
            yield from self.system(
                Kind.FORCED_ORDER, account=self.exchange.numbers["fourth"], fee_max=100, **order
            )
        params = self.exchange.state.params
        for _ in range(2):
            later = self.exchange.state.globals.time + max(params.breaker_cool_s, params.breaker_window_s) + 1
            yield from self.report(later, price)

    def signers(self) -> Iterator[Drawn]:
        """Session keys until there is no room, one taken out, one more."""
        role = self.random.choice(TRADERS)
        keys = [address(f"key {number}") for number in range(5)]
        drawn = [*keys, keys[self.random.randrange(4)], keys[4]]
        for number, key in enumerate(drawn):
            scope = 0 if number == 5 else self.random.randint(1, 3)
            yield from self.by(role, Kind.SET_SIGNER, signer=key, scope=scope, signer_expires=c.U32_MAX)

    def large_sums(self) -> Iterator[Drawn]:
        """Deposits, trades and positions near the bounds of their fields."""
        day = self.today() + 20
        for role in TRADERS[:2]:
            number = self.exchange.numbers[role]
            for _ in range(3):
                yield from self.system(Kind.DEPOSIT, owner=address(role), account=number, amount=AMOUNT_MAX)
        yield from self.market(day, self._index(0))
        instrument = self.random.choice(self.listed(day))
        for quantity in (2**30, 2**36, c.U40_MAX):
            yield from self.trade(instrument, quantity)
        yield from self.by("long", Kind.TRANSFER, to=self.exchange.numbers["third"], amount=c.U64_MAX)
        yield from self.by("long", Kind.WITHDRAW, amount=AMOUNT_MAX)
        yield from self.system(Kind.LIQUIDATE, account=self.exchange.numbers["short"])

    def two_underlyings(self) -> Iterator[Drawn]:
        """Longs and shorts on both; one moves, the other stands; the account is looked at, sold and drawn from."""
        day = self.today() + self.random.choice((2, 7, 40))
        for underlying, price in ((0, self._index(0)), (1, self._index(1) or ETH_INDEX)):
            yield from self.market(day, price, underlying)
            for instrument in self.listed(day, underlying)[:4]:
                pair = ("third", "fourth") if self.random.random() < 0.5 else ("fourth", "third")
                yield from self.trade(instrument, self.random.randint(1, 20_000), *pair)
        price = self._index(0) * self.random.choice((90, 95, 106, 110)) // 100
        yield from self.report(self.exchange.state.globals.time + 400, price)
        yield from self.marks(day)
        for role in ("third", "fourth"):
            number = self.exchange.numbers[role]
            yield from self.system(Kind.LIQUIDATE, account=number)
            yield from self.by("long", Kind.BID, target=number, fraction=64, cash_max=2**62)
            yield from self.by(role, Kind.WITHDRAW, amount=1_000_000)
            yield from self.by(role, Kind.TRANSFER, to=1, amount=1_000_000)

    def steep_surfaces(self) -> Iterator[Drawn]:
        """Parameters at and near their bounds, arbitrage included."""
        day, price = self.today() + 30, self._index(0)
        one = 10**12
        yield from self.market(day, price)
        for _ in range(4):
            shape = {
                "a": self.random.choice((-one, -1, 0, 1, one, 16 * one - 3 * 10**6)),
                "b": self.random.choice((0, 1, one, 2 * one, 16 * one)),
                "rho": self.random.choice((-one, 0, one, one - 1)),
                "m": self.random.choice((-16 * one, -one, 0, one)),
                "sigma": self.random.choice((1, one // 10, 16 * one)),
            }
            yield from self.report(self.exchange.state.globals.time + 1, price)
            yield from self.surfaces(day, price * self.random.choice((50, 99, 100, 101, 300)) // 100, **shape)
            yield from self.marks(day)
            yield from self.system(Kind.LIQUIDATE, account=self.exchange.numbers["long"])

    def wide_marks(self) -> Iterator[Drawn]:
        """The index goes to the ends of its type, and marks with it; then back."""
        day, price = self.today() + 5, self._index(0)
        yield from self.market(day, price)
        instrument = self.random.choice(self.listed(day))
        yield from self.trade(instrument, self.random.randint(1, 50))
        for extreme in (c.U32_MAX, 1, price):
            yield from self.report(self.exchange.state.globals.time + 1, extreme)
            yield from self.surfaces(day, extreme, a=self.random.choice((1, 10**12)))
            yield from self.marks(day)
            for role in ("long", "short"):
                yield from self.system(Kind.LIQUIDATE, account=self.exchange.numbers[role])
            yield from self.by(
                "third", Kind.BID, target=self.exchange.numbers["short"], fraction=256, cash_max=2**62
            )
        params = self.exchange.state.params
        yield from self.report(self.exchange.state.globals.time + params.breaker_window_s + 200, price)
        yield from self.report(self.exchange.state.globals.time + params.breaker_window_s + 200, price)

    def many_makers(self) -> Iterator[Drawn]:
        """One taker against MAKERS orders of one lot and more: a long chain of CONTINUE, records that must wait."""
        day = self.today() + 12
        yield from self.market(day, self._index(0))
        instrument = self.random.choice(self.listed(day))
        mark = max(self.exchange.mark(instrument), MAKERS)
        side = self.random.choice((c.BUY, c.SELL))
        for number in range(MAKERS):
            price = mark + (number % 7 if side == c.SELL else -(number % 7))
            yield from self.place(
                self.random.choice(TRADERS[1:]), instrument, side, price, self.random.randint(1, 3)
            )
        far = mark * 3 if side == c.SELL else max(mark // 3, 1)
        tif = self.random.choice((c.TIF_GTC, c.TIF_IOC))
        flags = tif << c.FLAG_TIF_SHIFT | self.random.choice((0, c.FLAG_STP_TAKER))
        yield from self.place("long", instrument, 1 - side, far, 3 * MAKERS, flags)
        waits: Any = codec.encode(Kind.TICK, time=self.exchange.state.globals.time), None
        while self.exchange.state.globals.taker is not None:
            if self.random.random() < 0.2:
                yield waits
            yield codec.encode(Kind.CONTINUE), None
        yield from self.by("long", Kind.CANCEL_ALL, nonce_floor=0)

    def proceed(self) -> Iterator[Drawn]:
        """The taker that waits goes on to its end."""
        while self.exchange.state.globals.taker is not None:
            yield codec.encode(Kind.CONTINUE), None

    def atomic_orders(self) -> Iterator[Drawn]:
        """FOK and post-only orders against 70 orders, seldom more than a plan may meet, with dead ones in between: they
        hold, they fail at the last lot or somewhere on the way; by PLACE, by AMEND and by force.
        """
        draw, state = self.random, self.exchange.state
        day = self.today() + 13
        yield from self.market(day, self._index(0))
        instrument = draw.choice(self.listed(day))
        mark = max(self.exchange.mark(instrument), 500)
        side = draw.choice((c.BUY, c.SELL))
        worse = 1 if side == c.SELL else -1
        count = c.PLAN_RECORDS_MAX * c.STEPS_MAX + 3 if draw.random() < 0.08 else 70
        ends_at = draw.randrange(count) if draw.random() < 0.3 else -1
        live = 0
        soon = state.globals.time + 2
        for number in range(count):
            price = mark + worse * (number // 3)
            if number == ends_at:
                yield from self.place("long", instrument, side, price, 1)
                continue
            is_dying = draw.random() < 0.15
            role, lots = draw.choice(TRADERS[1:]), draw.randint(1, 3)
            order = {"instrument": instrument, "flags": side, "price": price, "quantity": lots}
            expires = soon if is_dying else 0
            yield from self.by(role, Kind.PLACE, **order, fee_max=FEE_MAX, expires=expires)
            live += 0 if is_dying else lots
        if draw.random() < 0.3:  # an account's orders end; how many lots it had in the book
            role = draw.choice(TRADERS[1:])
            number = self.exchange.numbers[role]
            for order_of in state.orders_of.get(number, {}).values():
                if order_of.instrument == instrument and not order_of.expires:
                    live -= order_of.quantity
            yield from self.by(role, Kind.CANCEL_ALL, nonce_floor=0)
        yield from self.system(Kind.TICK, time=soon)
        far, near = mark + worse * count, mark + worse * draw.choice((0, 1, 2))
        fok, stp = c.TIF_FOK << c.FLAG_TIF_SHIFT, draw.choice((0, 0, c.FLAG_STP_TAKER))
        fee = draw.choice((1, 7, FEE_MAX))
        for wanted in (live + 1, live, 5):
            flags = 1 - side | (draw.choice((fok, fok, fok | stp, c.FLAG_POST_ONLY)))
            fields = {"instrument": instrument, "flags": flags, "quantity": max(wanted, 1), "fee_max": fee}
            fields["price"] = far if flags & fok else near
            if draw.random() < 0.3:
                number = self.exchange.numbers["long"]
                yield from self.system(Kind.FORCED_ORDER, account=number, expires=0, **fields)
            else:
                yield from self.by("long", Kind.PLACE, **fields)
            yield from self.proceed()
        post = c.FLAG_POST_ONLY
        yield from self.by("long", Kind.CANCEL_ALL, nonce_floor=0)
        soon = state.globals.time + 2
        for number in range(5):  # dead ones before a live one
            order = {"instrument": instrument, "flags": side, "price": max(mark - worse * (5 - number), 1)}
            yield from self.by(TRADERS[1], Kind.PLACE, **order, quantity=1, fee_max=FEE_MAX, expires=soon)
        yield from self.place(TRADERS[2], instrument, side, near, 1)
        yield from self.system(Kind.TICK, time=soon)
        yield from self.place("long", instrument, 1 - side, near, 9, post)
        yield from self.proceed()
        yield from self.place("long", instrument, 1 - side, max(mark - 50 * worse, 1), 9, post)
        yield from self.amend("long", instrument, 1 - side, draw.choice((5, 40)), near)
        yield from self.proceed()
        for role in TRADERS:
            yield from self.by(role, Kind.CANCEL_ALL, nonce_floor=0)

    def amend(
        self, role: str, instrument: int, side: int, total: int | None, price: int | None
    ) -> Iterator[Drawn]:
        """Another total (None: one lot more) or price for the best order that `role` has on a side."""
        number, state = self.exchange.numbers[role], self.exchange.state
        book = state.books.get(instrument)
        order = next((one for one in book.orders(side) if one.account == number), None) if book else None
        if order is None:
            return
        fields = {"instrument": instrument, "flags": order.flags, "price": order.price, "seq": order.seq}
        fields["quantity"] = order.filled + order.quantity + 1 if total is None else total
        fields["new_price"] = order.price if price is None else price
        yield from self.by(role, Kind.AMEND, **fields, fee_max=FEE_MAX)

    def amendments(self) -> Iterator[Drawn]:
        """Filled in part, then less, as much, more; into a deep book; with old marks, in a halt, of dead orders."""
        day = self.today() + 14
        yield from self.market(day, self._index(0))
        instrument = self.random.choice(self.listed(day))
        mark, draw = max(self.exchange.mark(instrument), 20), self.random
        side = draw.choice((c.BUY, c.SELL))
        flags = draw.choice((0, 0, c.FLAG_POST_ONLY, c.FLAG_STP_TAKER))
        ioc = c.TIF_IOC << c.FLAG_TIF_SHIFT
        yield from self.place("long", instrument, side, mark, 9, flags)
        yield from self.place("third", instrument, side, mark, 9)
        yield from self.place("short", instrument, 1 - side, mark, draw.randint(1, 4), ioc)
        for total, price in (
            (7, None),
            (7, None),
            (8, mark),
            (None, None),
            (12, mark + 1),
            (draw.randint(1, 5), None),
        ):
            yield from self.amend("long", instrument, side, total, price)
        for number in range(draw.choice((3, 9))):
            yield from self.place(
                draw.choice(TRADERS[1:]), instrument, 1 - side, mark + 8 - 16 * side, number + 1
            )
        yield from self.place("long", instrument, side, mark - 9 + 18 * side, 9, flags)
        yield from self.amend("long", instrument, side, draw.choice((5, 40)), mark + 9 - 18 * side)
        while self.exchange.state.globals.taker is not None:
            yield from self.amend("third", instrument, side, None, None)
            yield codec.encode(Kind.CONTINUE), None
        yield from self.place("third", instrument, side, mark - 2 + 4 * side, 9)
        later = self.exchange.state.globals.time + self.exchange.state.params.risk_age_max_s + 1
        yield from self.system(Kind.TICK, time=later)
        for total in (8, None):
            yield from self.amend("third", instrument, side, total, None)
        yield from self.report(later, self._index(0) * draw.choice((100, 112, 135)) // 100)
        for total in (6, None):
            yield from self.amend("third", instrument, side, total, None)
        yield from self.by("third", Kind.CANCEL_ALL, nonce_floor=0)
        for total in (1, None):
            yield from self.amend("third", instrument, side, total, None)

    def _index(self, underlying: int) -> int:
        return self.exchange.state.underlyings[underlying].index or INDEX
