"""Moves with resting orders: left for a friend, amended, in words, dead."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import TYPE_CHECKING

from sequencer.protocol import constants as c
from sequencer.protocol.constants import Kind
from tests.economy.parts import drain, pair

if TYPE_CHECKING:
    from sequencer.protocol.book import Order
    from sequencer.protocol.outcome import Outcome
    from tests.economy.world import World


def off_market(world: World, rng: Random) -> Iterator[None]:
    """A trade inside the coalition far from any value: as far as margin lets it."""
    for _ in range(rng.randrange(1, 4)):
        one, two = pair(world, rng)
        listed = world.tradable()
        if listed:
            instrument = rng.choice(listed)
            lots = rng.choice((10, 1_000, 50_000))
            price = rng.choice(
                (1, world.mark(instrument) * 3, world.mark(instrument) + abs(world.free(one)) // lots)
            )
            world.trade(one, two, instrument, max(price, 1), lots)
            world.place(
                one, instrument, rng.randrange(2), max(price, 1), lots, c.TIF_IOC, flags=c.FLAG_REDUCE_ONLY
            )
        yield


def left_order(world: World, rng: Random) -> Iterator[None]:
    """An order left far from the mark for a friend to take when the marks have passed it."""
    one, two = pair(world, rng)
    listed = world.tradable()
    if not listed:
        return
    instrument = rng.choice(listed)
    side = rng.randrange(2)
    price = max(world.mark(instrument) * rng.uniform(0.7, 1.4), 1)
    lots = rng.choice((5_000, 50_000, 500_000))
    flags = c.FLAG_REDUCE_ONLY if rng.random() < 0.3 else 0
    for _ in range(8):
        if world.place(one, instrument, side, price, lots, flags=flags).rested is not None:
            break
        lots = max(lots // 3, 1)
    for _ in range(rng.randrange(5, 50)):
        yield
    world.place(two, instrument, 1 - side, price, lots, c.TIF_IOC)
    yield
    yield from drain(world, rng)


def amended(world: World, rng: Random) -> Iterator[None]:
    """An order that keeps changing: larger than its account bears, smaller, across the spread, left for a friend."""
    one, two = pair(world, rng)
    listed = world.tradable()
    if not listed:
        return
    instrument, side = rng.choice(listed), rng.randrange(2)
    flags = rng.choice((0, 0, c.FLAG_POST_ONLY, c.FLAG_REDUCE_ONLY, c.FLAG_STP_TAKER))
    price = max(world.mark(instrument) * rng.uniform(0.8, 1.2), 1)
    if rng.random() < 0.3:
        without_cash(world, rng, one, two)
    order = world.place(one, instrument, side, price, rng.choice((100, 5_000, 50_000)), flags=flags).rested
    for _ in range(rng.randrange(3, 12)):
        if order is None:
            return
        total = max(round((order.filled + order.quantity) * rng.choice((0.1, 0.5, 1, 1, 2, 50))), 1)
        move = rng.choice((1, 1, 0.7, 0.99, 1.01, 1.4))
        out = amend(world, one, order, total, round(order.price * move))
        order = out.rested or order
        if rng.random() < 0.5:
            world.place(two, instrument, 1 - side, order.price, rng.choice((1, 100, 5_000)), c.TIF_IOC)
        if rng.random() < 0.3:
            yield
    yield from drain(world, rng)


def whole_or_nothing(world: World, rng: Random) -> Iterator[None]:
    """FOK and post-only orders over many of a friend's: some dead, some its own, more than it bears, a lot too many."""
    one, two = pair(world, rng)
    listed = world.tradable()
    if not listed:
        return
    instrument, side = rng.choice(listed), rng.randrange(2)
    worse = 1 if side == c.BUY else -1
    fok, price, lots = c.TIF_FOK, world.mark(instrument) * rng.uniform(0.8, 1.2), rng.choice((1, 100, 20_000))
    count = rng.choice((4, 7, 20, 60))
    for level in range(count):
        owner = one if rng.random() < 0.05 else two
        flags = c.FLAG_REDUCE_ONLY if rng.random() < 0.1 else 0
        world.place(owner, instrument, 1 - side, price + worse * level, lots, flags=flags)
        if level == count // 2 and rng.random() < 0.3:
            world.submit(Kind.CANCEL_ALL, two, nonce_floor=0)
    for _ in range(rng.randrange(1, 6)):
        if rng.random() < 0.4:
            yield
        far = price + worse * count
        there = sum(order.quantity for order in world.state.crossing(instrument, side, max(round(far), 1)))
        wanted = max(round(there * rng.choice((0.3, 0.9, 1, 1))) + rng.choice((0, 1)), 1)
        what = rng.randrange(4)
        if what == 0:
            near = price + worse * rng.randrange(count)
            world.place(one, instrument, side, near, lots, flags=c.FLAG_POST_ONLY)
        elif what == 1:
            world.do(
                Kind.FORCED_ORDER, account=one, instrument=instrument, flags=side | fok << c.FLAG_TIF_SHIFT,
                price=min(max(round(far), 1), c.U32_MAX), quantity=wanted, expires=0,
                fee_max=rng.choice((0, 5, 65_535)),
            )  # fmt: skip
        else:
            flags = rng.choice((0, c.FLAG_STP_TAKER, c.FLAG_REDUCE_ONLY))
            world.place(one, instrument, side, far, wanted, fok, flags)
    yield from drain(world, rng)


def in_words(world: World, rng: Random) -> Iterator[None]:
    """Orders whose signature is a sentence: they cross each other, honest quotes, and are amended like others."""
    one, two = pair(world, rng)
    listed = world.tradable()
    for _ in range(rng.randrange(3, 12) if listed else 0):
        instrument, side = rng.choice(listed), rng.randrange(2)
        price = max(world.mark(instrument) * rng.choice((0.5, 0.97, 1, 1.03, 2)), 1)
        lots = rng.choice((1, 1_000, 100_000))
        flags = rng.choice((0, 0, c.FLAG_POST_ONLY, c.FLAG_REDUCE_ONLY, c.FLAG_STP_TAKER))
        order = world.place(one, instrument, side, price, lots, flags=flags, in_words=True).rested
        tif = rng.choice((c.TIF_GTC, c.TIF_IOC, c.TIF_FOK))
        world.place(two, instrument, 1 - side, price, rng.choice((1, lots)), tif, in_words=rng.random() < 0.5)
        if order is not None and rng.random() < 0.5:
            amend(world, one, order, order.filled + max(order.quantity // 2, 1), order.price)
        yield
    yield from drain(world, rng)


def without_cash(world: World, rng: Random, one: int, two: int) -> None:
    """What `one` has is an option from now on."""
    instrument = rng.choice(world.tradable())
    world.trade(one, two, instrument, max(world.mark(instrument), 1), rng.choice((2_000, 20_000, 200_000)))
    world.transfer(one, two, min(world.free(one), world.state.accounts[one].cash))


def dead_orders(world: World, rng: Random) -> Iterator[None]:
    """Many orders by an account that has little or no cash, all ended at once or passed by the marks, and swept."""
    one, two = pair(world, rng)
    listed = world.tradable()
    if not listed:
        return
    if rng.random() < 0.6:
        without_cash(world, rng, one, two)
    for _ in range(rng.randrange(4, 30)):
        instrument = rng.choice(listed)
        price = max(world.mark(instrument) * rng.choice((0.01, 0.9, 1.1, 3)), 1)
        world.place(one, instrument, rng.randrange(2), price, rng.choice((1, 500)))
    for _ in range(rng.randrange(0, 20)):
        yield
    if rng.random() < 0.6:
        world.submit(Kind.CANCEL_ALL, one, nonce_floor=0)
        yield from drain(world, rng)
    for _ in range(rng.randrange(1, 4)):
        for orders in list(world.state.orders_of.values()):
            for order in list(orders.values())[:20]:
                if rng.random() < 0.7:
                    world.sweep(order)
        yield


def amend(world: World, account: int, order: Order, total: int, price: int) -> Outcome:
    """Another total and price for a resting order."""
    fields = {"instrument": order.instrument, "flags": order.flags, "price": order.price, "seq": order.seq}
    changed = {"new_price": min(max(price, 1), c.U32_MAX), "quantity": min(max(total, 1), c.U40_MAX)}
    return world.submit(Kind.AMEND, account, **fields, **changed, fee_max=65_535)
