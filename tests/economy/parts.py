"""What the coalition's moves are made of: portfolios worth trying, trades between two accounts, money that leaves."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.economy.world import World

Legs = list[
    tuple[int, float]
]  # instrument, lots a unit: positive bought by the first account, sold by the second


def structure(world: World, rng: Random) -> Legs:
    """A portfolio worth trying: one option, between the scenario points, over expiries, over underlyings, at random."""
    listed = world.tradable()
    if not listed:
        return []
    pick = rng.choice(listed)
    key = world.listed[pick][0]
    sign = rng.choice((1, -1))
    kind = rng.randrange(8)
    if kind == 0:
        return [(pick, sign)]
    if kind in (1, 2):  # a straddle or strangle, its strikes anywhere between the points that margin looks at
        middle = world.truth.index[key >> 16] * rng.uniform(0.96, 1.04)
        return [(one, sign) for one in straddle(world, key, middle, 0.0 if kind == 1 else 0.04)]
    if kind == 3:  # a calendar
        other = [one for one in listed if one >> 28 == pick >> 28 and one >> 12 != key]
        return [(pick, sign), (rng.choice(other), -sign)] if other else [(pick, sign)]
    if kind == 4:  # two underlyings, notional against notional
        other = [
            one for one in listed if one >> 28 != pick >> 28 and world.listed[one][2] == world.listed[pick][2]
        ]
        if not other:
            return [(pick, sign)]
        against = rng.choice(other)
        ratio = world.truth.index[pick >> 28] / world.truth.index[against >> 28]
        return [(pick, sign), (against, -sign * ratio)]
    if kind == 5:  # a spread or fly
        same = [one for one in listed if one >> 12 == key and world.listed[one][2] == world.listed[pick][2]]
        return [(pick, sign), (rng.choice(same), -sign * rng.choice((1, 2, 0.5)))]
    if kind == 6:  # two underlyings, anything
        other = [one for one in listed if one >> 28 != pick >> 28] or listed
        return [(pick, sign), (rng.choice(other), rng.choice((1, -1)) * rng.choice((1, 5, 17)))]
    return [
        (one, rng.choice((1, -1)) * rng.choice((1, 1, 2, 5)))
        for one in rng.sample(listed, min(len(listed), rng.randrange(2, 8)))
    ]


def straddle(world: World, key: int, middle: float, width: float) -> list[int]:
    found = []
    for put, off in ((0, width), (1, -width)):
        strike = world.on_grid(key >> 16, middle * (1 + off))
        instrument = world.open(key >> 16, key & 0xFFFF, strike, put)
        if instrument is not None:
            if not world.is_omitted("RISK"):
                world.risk(instrument >> 5)
            found.append(instrument)
    return found


def grow(world: World, long: int, short: int, legs: Legs, start: int, tries: int, price: float = 1.0) -> int:
    """Trades the legs between two accounts at the marks, chunk by chunk, until margin refuses. Units traded."""
    chunk, total = start, 0
    for _ in range(tries):
        done = True
        for instrument, ratio in legs:
            lots = max(int(chunk * abs(ratio)), 1)
            buyer, seller = (long, short) if ratio > 0 else (short, long)
            mark = max(world.mark(instrument) * price, 1)
            if world.trade(buyer, seller, instrument, mark, lots) < lots:
                done = False
        if done:
            total += chunk
        elif chunk == 1:
            break
        else:
            chunk = max(chunk // 3, 1)
    return total


def pair(world: World, rng: Random) -> tuple[int, int]:
    one, two = rng.sample(world.members, 2)
    return one, two


def cash_out(world: World, rng: Random, one: int, two: int) -> None:
    """What `one` may still spend goes to `two`: as cash, or for an option that is worth next to nothing."""
    free, cash = world.free(one), world.state.accounts[one].cash
    if min(free, cash) > 0:
        world.transfer(one, two, min(free, cash))
    for _ in range(rng.randrange(1, 4)):
        free = world.free(one)
        listed = sorted(world.tradable(), key=lambda instrument: world.books.prices[instrument])[:4]
        if free < 1_000_000 or not listed:
            break
        lots = rng.choice((1_000, 10_000, 100_000))
        junk = rng.choice(listed)
        world.trade(one, two, junk, world.mark(junk) + int(free * rng.choice((0.5, 0.9))) // lots, lots)
    if rng.random() < 0.5:
        world.withdraw(two, min(world.free(two), world.state.accounts[two].cash))


def drain(world: World, rng: Random) -> Iterator[None]:
    """What is free leaves an account, by transfer or withdrawal."""
    for _ in range(rng.randrange(1, 4)):
        one, two = pair(world, rng)
        if not world.state.accounts[one].positions:
            one, two = two, one
        free = world.free(one)
        cash = world.state.accounts[one].cash
        part = rng.choice((1.0, 1.0, 0.9, 0.5))
        if rng.random() < 0.75:
            world.transfer(one, two, int(min(free, cash) * part))
        else:
            world.withdraw(one, int(min(free, cash) * part))
        yield
