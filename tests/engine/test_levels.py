"""Levels that are kept up equal those summed from every order, whatever happens, and cost no look at the orders."""

from collections import Counter
from random import Random

import pytest

from sequencer.engine.engine import Engine, Submission
from sequencer.engine.events import Events
from sequencer.engine.views import Views
from sequencer.genesis import genesis_state
from sequencer.protocol import codec
from sequencer.protocol import constants as c
from sequencer.protocol.book import Order
from sequencer.protocol.constants import Kind, Reason
from sequencer.protocol.hashing import address_of, public_key_of
from sequencer.protocol.orders import is_dead
from sequencer.protocol.params import Params

DOMAIN = codec.domain_separator(31_337, b"\x5f" * 20)
FEED_KEY = b"\xfe" * 32
ACCOUNTS = (1, 2, 3, 4)
DAY = 20_000
START_S = DAY * 86_400 - 12 * 3_600
CALL = DAY << 12
FOK = 2 << c.FLAG_TIF_SHIFT


class World:
    """An engine with funded accounts and one marked call, and its views, which look at the book after every tick."""

    def __init__(self, seed: int) -> None:
        self.draw = Random(seed)
        self.now = START_S
        self.nonces = dict.fromkeys(ACCOUNTS, 0)
        self.reasons: Counter[Reason] = Counter()
        self.engine = Engine(genesis_state(DOMAIN, Params(feed_keys=(address_of(public_key_of(FEED_KEY)),))))
        deposits = [
            codec.encode(Kind.DEPOSIT, owner=self.owner(number), account=number, amount=10**12)
            for number in ACCOUNTS
        ]
        self.run(
            *deposits,
            *self.marks(4_900_000),
            codec.encode(Kind.LIST, underlying=0, day=DAY, put=0, strike=4_800_000),
        )
        self.run(*self.marks(4_900_000))
        self.views = Views(self.engine.state, dict)
        self.events = Events(self.views)
        self.views.ledger.begin_at(self.engine.state.globals.seq)

    @staticmethod
    def owner(number: int) -> bytes:
        return address_of(public_key_of(bytes([number]) * 32))

    def signed(self, kind: Kind, key: bytes, **fields: int) -> bytes:
        return codec.sign(codec.encode(kind, **fields), DOMAIN, key)

    def marks(self, index: int) -> list[bytes]:
        at = {"underlying": 0, "feed": 0, "time": self.now}
        shape = {"a": 10**9, "b": 10**10, "rho": -(10**11), "m": 0, "sigma": 10**11}
        return [
            self.signed(Kind.FEED, FEED_KEY, **at, price=index),
            self.signed(Kind.SURFACE, FEED_KEY, **at, day=DAY, forward=index, index=index, **shape),
            codec.encode(Kind.RISK, underlying=0, day=DAY, page=0),
        ]

    def run(self, *system: bytes, orders: tuple[bytes, ...] = ()) -> None:
        tick = self.engine.run(self.now, list(system), [Submission(raw, None) for raw in orders])
        self.reasons.update(one.reason for one in tick.results)
        if hasattr(self, "views"):
            self.events.observe(tick.system + tick.results)

    def by(self, number: int, kind: Kind, **fields: int) -> bytes:
        fields["nonce"] = self.nonces[number]
        self.nonces[number] += 1
        return self.signed(kind, bytes([number]) * 32, account=number, **fields)

    def place(self, number: int, side: int, price: int, lots: int, flags: int = 0, expires: int = 0) -> bytes:
        what = {"instrument": CALL, "flags": side | flags, "price": price, "quantity": lots}
        return self.by(number, Kind.PLACE, **what, expires=expires, fee_max=10_000)

    def some_order(self) -> Order | None:
        orders = [one for held in self.engine.state.orders_of.values() for one in held.values()]
        return self.draw.choice(orders) if orders else None

    def step(self) -> None:
        draw, number = self.draw, self.draw.choice(ACCOUNTS)
        what = draw.random()
        self.now += draw.choice((0, 0, 1, 5))
        order = self.some_order()
        if what < 0.6 or order is None:
            side = draw.randrange(2)
            price = 130_000 + draw.randrange(-6, 7) * 3_000 + (9_000 if side else -9_000)
            flags = draw.choice((0, 0, 0, c.FLAG_POST_ONLY, c.FLAG_REDUCE_ONLY, FOK))
            expires = draw.choice((0, 0, self.now + draw.randrange(1, 30)))
            lots = draw.randrange(1, 40)
            if draw.random() < 0.15:  # past twenty makers, so that it takes several records
                price, lots = (200_000, 400) if side == c.BUY else (60_000, 400)
            self.run(orders=(self.place(number, side, price, lots, flags, expires),))
        elif what < 0.7:
            key = {"instrument": CALL, "side": order.side, "price": order.price, "seq": order.seq}
            self.run(orders=(self.by(order.account, Kind.CANCEL, **key, expires=0),))
        elif what < 0.8:
            key = {"instrument": CALL, "flags": order.flags, "price": order.price, "seq": order.seq}
            new = {
                "new_price": draw.choice((order.price, order.price + 3_000)),
                "quantity": draw.randrange(1, 60),
            }
            self.run(orders=(self.by(order.account, Kind.AMEND, **key, **new, expires=0, fee_max=10_000),))
        elif what < 0.84:
            self.run(orders=(self.by(number, Kind.CANCEL_ALL, nonce_floor=0, expires=0),))
        else:
            self.now += 1
            self.run(*self.marks(4_900_000 + draw.randrange(-40, 41) * 10_000))

    def naive(self, side: int) -> list[tuple[int, int, int]]:
        state = self.engine.state
        rows: dict[int, list[int]] = {}
        for order in state.books[CALL].orders(side) if CALL in state.books else ():
            if not is_dead(state, state.accounts[order.account], order):
                row = rows.setdefault(order.price, [0, 0])
                row[0] += order.quantity
                row[1] += 1
        return [(price, lots, count) for price, (lots, count) in rows.items()]


@pytest.mark.parametrize("seed", range(6))
def test_levels__after_every_tick__equal_the_sum_of_every_living_order(seed):
    world = World(seed)
    were_dead = 0
    for _ in range(400):
        world.step()
        levels = world.views.levels.of(CALL)
        for side in (c.BUY, c.SELL):
            rows = world.naive(side)
            assert (levels.rows(side, 1_000) if levels else []) == rows
            assert (levels.best(side) if levels else None) == (rows[0][0] if rows else None)
            book = world.engine.state.books.get(CALL)
            resting = sum(1 for _ in book.orders(side)) if book else 0
            were_dead += sum(row[2] for row in rows) < resting
    assert world.reasons[Reason.OK] > 60
    assert world.reasons[Reason.FOK_UNFILLED] > 0
    assert were_dead > 30


def test_levels__of_a_deep_book_that_changes__look_at_no_order_again():
    world = World(1)
    for number in range(300):
        world.run(orders=(world.place(ACCOUNTS[number % 3], c.BUY, 100_000, 5),))
    levels = world.views.levels.of(CALL)
    assert levels is not None
    assert levels.rows(c.BUY, 10) == [(100_000, 1_500, 300)]
    looked = levels.summed
    assert looked == 300
    for number in range(50):
        world.run(orders=(world.place(4, c.SELL, 100_000, 7, c.TIF_IOC << c.FLAG_TIF_SHIFT),))
        assert levels.rows(c.BUY, 10)[0][1] == 1_500 - 7 * (number + 1)
    assert levels.summed == looked


def test_events__of_channels_that_nobody_hears__are_not_made():
    world = World(2)
    world.run(orders=(world.place(1, c.BUY, 100_000, 5),))
    tick = world.engine.run(world.now, [], [Submission(world.place(2, c.SELL, 100_000, 2), None)])
    world.events.observe(tick.results)
    name = world.views.name(CALL)
    made = {channel for channel, _, _ in world.events.events(tick.results)}
    assert made == {f"trades.{name}", "account.1", "account.2", f"book.{name}", f"ticker.{name}"}
    heard_and_made = (
        ({f"book.{name}"}, {f"book.{name}"}),
        ({"trades"}, {f"trades.{name}"}),
        ({"account.2"}, {"account.2"}),
        (set(), set()),
    )
    for heard, expected in heard_and_made:
        assert {
            channel for channel, _, _ in world.events.events(tick.results, heard.__contains__)
        } == expected
