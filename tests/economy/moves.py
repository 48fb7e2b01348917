"""What a coalition does with intent. Each move is a generator: it sends records, and yields to let time pass.

Composed at random with random parameters, so that they meet in ways that nobody has listed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from random import Random
from typing import TYPE_CHECKING, Final

from sequencer.protocol import constants as c
from sequencer.protocol import margin
from sequencer.protocol.constants import Kind, Reason
from sequencer.protocol.state import expiry_time

if TYPE_CHECKING:
    from tests.economy.world import World

Move = Callable[["World", Random], Iterator[None]]
Legs = list[
    tuple[int, float]
]  # instrument, lots a unit: positive bought by the first account, sold by the second


# --- structures -----------------------------------------------------------------------------------


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
        return [(one, sign) for one in _strikes(world, key, middle, 0.0 if kind == 1 else 0.04)]
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


def _strikes(world: World, key: int, middle: float, width: float) -> list[int]:
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


# --- moves ----------------------------------------------------------------------------------------


def mirror(world: World, rng: Random) -> Iterator[None]:
    """Exactly opposite positions in two accounts: no risk together, all of it apart."""
    for _ in range(rng.randrange(1, 3)):
        one, two = pair(world, rng)
        legs = structure(world, rng)
        if legs:
            grow(world, one, two, legs, rng.choice((2_000, 20_000, 200_000, 1_000_000)), rng.randrange(2, 9))
        yield


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


def borrow(world: World, rng: Random) -> Iterator[None]:
    """An account without money buys on credit from its friend, after it has sent its own cash away."""
    one, two = pair(world, rng)
    world.transfer(one, two, int(world.state.accounts[one].cash * rng.choice((0.9, 0.97, 0.99))))
    legs = structure(world, rng)
    if legs:
        legs = [(instrument, abs(ratio)) for instrument, ratio in legs]
        grow(world, one, two, legs, rng.choice((500, 5_000, 50_000)), rng.randrange(6, 16))
    yield
    yield from drain(world, rng)


def between_points(world: World, rng: Random) -> Iterator[None]:
    """Long straddles near expiry whose strike lies between the moves that margin looks at, on borrowed money."""
    one, two = pair(world, rng)
    which = rng.randrange(2)
    keys = sorted({instrument >> 12 for instrument in world.tradable(which)})
    if not keys:
        return
    key = keys[0] if rng.random() < 0.7 else rng.choice(keys)
    third = world.range_of(which) / 3
    middle = world.truth.index[which] * (1 + third * (rng.randrange(-2, 2) + rng.uniform(0.3, 0.7)))
    legs = [(instrument, 1.0) for instrument in _strikes(world, key, middle, 0.0)]
    world.transfer(one, two, int(world.state.accounts[one].cash * rng.choice((0.5, 0.9, 0.97))))
    if len(legs) == 2:
        grow(world, one, two, rng.sample(legs, 2), rng.choice((1_000, 10_000)), 24)
    yield
    world.transfer(one, two, min(world.free(one), world.state.accounts[one].cash))
    yield


def worst_bid(world: World, rng: Random) -> Iterator[None]:
    """Waits until a friend's (or anybody's) auction is at its dearest for the others, then takes all it can."""
    patience = rng.choice((0, 300, 600, 900, 900))
    for _ in range(120):
        for number, account in list(world.state.accounts.items()):
            if not account.auction_start or world.truth.time - account.auction_start < patience:
                continue
            for taker in world.members:
                if taker == number:
                    continue
                for _ in range(rng.randrange(1, 14)):
                    if not world.state.accounts[number].auction_start:
                        break
                    whole = world.equity(number) <= 0
                    fraction = 256 if whole else rng.choice((world.params.auction_fraction_max, 1, 13))
                    if world.bid(taker, number, fraction).reason is not Reason.OK:
                        break
        yield


def late_liquidators(world: World, rng: Random) -> Iterator[None]:
    """The sequencer leaves out others' bids, or LIQUIDATE, for a bounded time."""
    for _ in range(rng.randrange(1, 5)):
        what = rng.choice(("BID", "BID", "LIQUIDATE"))
        world.omitted[what] = world.truth.time + rng.randrange(300, 1_500)
        for _ in range(rng.randrange(5, 40)):
            yield


def silent_underlying(world: World, rng: Random) -> Iterator[None]:
    """One lot on an underlying whose feeds are then left out for hours; the rest of the account elsewhere."""
    one, two = pair(world, rng)
    which = rng.randrange(2)
    shield = world.tradable(which)
    if shield:
        instrument = rng.choice(shield)
        world.place(
            one,
            instrument,
            c.BUY,
            world.books.prices[instrument] * 1.05 + 5,
            rng.choice((1, 1, 100)),
            c.TIF_IOC,
        )
        world.trade(one, two, instrument, max(world.mark(instrument), 1), 1)
    rest = world.tradable(1 - which)
    if rest:
        grow(world, two, one, [(rng.choice(rest), 1)], rng.choice((10_000, 200_000)), 8)
    yield
    world.omitted[f"FEED {which}"] = world.truth.time + rng.randrange(4_000, 10_800)
    yield from drain(world, rng)


def selective_marks(world: World, rng: Random) -> Iterator[None]:
    """For less than marks may be old the sequencer marks those pages anew that flatter one account, and no others."""
    held = [one for one in world.members if world.state.accounts[one].positions]
    one = rng.choice(held or world.members)
    others = [two for two in world.members if two != one]
    listed = world.tradable()
    if listed and rng.random() < 0.7:  # a calendar: much on each page, little together
        near = rng.choice(listed)
        key, strike, put = world.listed[near]
        far = [
            n
            for n in listed
            if world.listed[n][1:] == (strike, put) and world.listed[n][0] >> 16 == key >> 16
        ]
        legs = [(near, rng.choice((1, -1))), (rng.choice(far), rng.choice((1, -1)))]
        grow(world, one, rng.choice(others), legs, rng.choice((2_000, 20_000)), 30)
    for _ in range(rng.randrange(1, 3)):
        world.omitted["RISK"] = world.truth.time + rng.randrange(300, 3_300)
        while world.is_omitted("RISK"):
            flattery: dict[int, float] = {}
            for instrument, lots in world.state.accounts[one].positions.items():
                off = world.books.prices[instrument] - world.mark(instrument)
                flattery[instrument >> 5] = flattery.get(instrument >> 5, 0.0) + lots * off
            for page, gain in flattery.items():
                if gain > 0:
                    world.risk(page)
            if rng.random() < 0.2:
                cash_out(world, rng, one, rng.choice(others))
            yield
        yield


def silent_risk(world: World, rng: Random) -> Iterator[None]:
    """No marks at all for a while."""
    world.omitted["RISK"] = world.truth.time + rng.randrange(300, 5_400)
    for _ in range(rng.randrange(5, 30)):
        yield
    cash_out(world, rng, *pair(world, rng))
    yield


def dust(world: World, rng: Random) -> Iterator[None]:
    """Positions of a few lots each in many instruments."""
    one, two = pair(world, rng)
    listed = world.tradable()
    for instrument in rng.sample(listed, min(len(listed), rng.randrange(6, 40))):
        world.trade(two, one, instrument, max(world.mark(instrument), 1), rng.randrange(1, 4))
    yield
    world.transfer(one, two, min(world.free(one), world.state.accounts[one].cash))
    yield


def fill_slots(world: World, rng: Random) -> Iterator[None]:
    """A small portfolio in as many pages as an account may hold, left for the honest liquidator to take."""
    one, two = pair(world, rng)
    pages: dict[int, int] = {}
    for instrument in world.tradable():
        pages.setdefault(instrument >> 5, instrument)
    chosen = rng.sample(sorted(pages.values()), min(len(pages), c.PAGES_MAX))
    for instrument in chosen:
        world.trade(two, one, instrument, max(world.mark(instrument), 1), rng.choice((50, 200)))
    yield
    world.transfer(one, two, min(world.free(one), world.state.accounts[one].cash))
    for _ in range(rng.randrange(10, 60)):
        yield
    others = [instrument for page, instrument in pages.items() if instrument not in chosen] or chosen
    first, second = pair(world, rng)
    picked = rng.sample(others, min(len(others), rng.randrange(1, 12)))
    grow(world, second, first, [(instrument, 1.0) for instrument in picked], 20_000, 8)
    yield
    world.transfer(first, second, min(world.free(first), world.state.accounts[first].cash))
    yield from worst_bid(world, rng)


def lie(world: World, rng: Random) -> Iterator[None]:
    """A minority of the feeds says what its owner can use; then it trades with itself at those marks, and leaves."""
    if not world.setting.liars:
        return
    key = rng.choice(sorted(world.state.expiries))
    one, two = pair(world, rng)
    listed = [instrument for instrument in world.tradable(key >> 16) if instrument >> 12 == key]
    if not listed:
        return
    mine = rng.choice(listed)
    world.place(
        one, mine, c.BUY, world.books.prices[mine] * 1.02 + 3, rng.choice((10_000, 30_000)), c.TIF_IOC
    )
    yield
    for _ in range(rng.randrange(1, 4)):
        silent = rng.random() < 0.15
        if silent:  # an honest feed is silent for a bounded time, or the sequencer leaves it out
            honest = [feed for feed in range(world.setting.feeds) if feed not in world.setting.liars]
            world.omitted[f"feed {rng.choice(honest)}"] = world.truth.time + 600
        for feed in world.setting.liars:
            shape = world.truth.surface(key, rng.uniform(-0.003, 0.003))
            lies: dict[str, int] = {}
            what = rng.randrange(5)
            if what == 0:
                lies["forward"] = rng.choice((c.U32_MAX, 1, world.state.underlyings[key >> 16].index * 2))
            elif what == 1:
                lies["index"] = rng.choice((1, c.U32_MAX))
            elif what == 2:  # the same at the money, other wings
                lies |= {"b": 16 * 10**12, "sigma": 1, "rho": rng.choice((-1, 1)) * 10**12, "m": 0}
            elif what == 3:
                lies["a"] = rng.choice((-1, 1)) * rng.randrange(1, 16 * 10**12)
            else:
                lies["a"] = shape["a"] * rng.choice((2, 10)) // 1
            world.surface(key, feed, **lies)
            world.feed(key >> 16, feed, world.truth.index[key >> 16] * rng.choice((0.2, 0.9, 1.1, 5)))
        if not world.is_omitted("RISK"):
            world.risk(mine >> 5)
        yield
        cash_out(world, rng, one, two)  # what its own marks make of it
        yield
        for member in (one, two):
            world.withdraw(member, min(world.free(member), max(world.state.accounts[member].cash, 1)))
        yield


def run_away(world: World, rng: Random) -> Iterator[None]:
    """As soon as somebody owes more than it has, everything that is free is withdrawn."""
    for _ in range(150):
        if any(value < -1_000_000 for value in world.books.value.values()) or world.state.globals.deficit:
            for member in world.members:
                cash = world.state.accounts[member].cash
                amount = min(world.free(member), cash, world.state.globals.pool)
                if amount > 0:
                    world.withdraw(member, amount)
        yield


def fees(world: World, rng: Random) -> Iterator[None]:
    """Orders for their fee's sake, while a backlog of their own makes them dear."""
    for _ in range(rng.randrange(20, 60)):
        world.state.globals.excess = max(world.state.globals.excess, rng.choice((0, 200_000, 310_000)))
        listed = world.tradable()
        who = rng.choice(sorted(world.books.coalition))
        for _ in range(5):
            if listed:
                world.place(who, rng.choice(listed), c.BUY, 1, 1, c.TIF_IOC)
        if rng.random() < 0.1:
            world.do(Kind.COLLECT)
        yield


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
    order = world.place(one, instrument, side, price, rng.choice((100, 5_000, 50_000)), flags=flags).rested
    for _ in range(rng.randrange(3, 12)):
        if order is None:
            return
        total = max(round((order.filled + order.quantity) * rng.choice((0.1, 0.5, 1, 1, 2, 50))), 1)
        move = rng.choice((1, 1, 0.7, 0.99, 1.01, 1.4))
        out = world.submit(
            Kind.AMEND, one, instrument=instrument, flags=order.flags, price=order.price, seq=order.seq,
            new_price=min(max(round(order.price * move), 1), c.U32_MAX), quantity=min(total, c.U40_MAX), fee_max=65_535,
        )  # fmt: skip
        order = out.rested or order
        if rng.random() < 0.5:
            world.place(two, instrument, 1 - side, order.price, rng.choice((1, 100, 5_000)), c.TIF_IOC)
        if rng.random() < 0.3:
            yield
    yield from drain(world, rng)


def forced(world: World, rng: Random) -> Iterator[None]:
    """The same through L1."""
    for _ in range(rng.randrange(2, 8)):
        one = rng.choice(world.members)
        what = rng.randrange(5)
        if what == 4:
            world.do(
                Kind.FORCED_BID, account=one, target=rng.choice(sorted(world.state.accounts)),
                fraction=rng.choice((1, 64, 256)), cash_max=2**63 - 1,
            )  # fmt: skip
        elif what == 0:
            world.do(Kind.FORCED_WITHDRAW, account=one, amount=rng.choice((0, 0, 10**9)))
        elif what == 1:
            world.do(Kind.FORCED_CANCEL_ALL, account=one)
        elif what == 2:
            world.do(Kind.FORCED_LIQUIDATE, account=rng.choice(sorted(world.state.accounts)))
        elif world.tradable():
            instrument = rng.choice(world.tradable())
            world.do(
                Kind.FORCED_ORDER, account=one, instrument=instrument, flags=rng.choice((0, 1, 2, 3, 17)),
                price=max(int(world.mark(instrument) * rng.uniform(0.8, 1.2)), 1),
                quantity=rng.choice((1, 1_000, 100_000)), expires=0, fee_max=65_535,
            )  # fmt: skip
        yield


def trade_with_others(world: World, rng: Random) -> Iterator[None]:
    """Ordinary trades with whoever quotes."""
    for _ in range(rng.randrange(3, 20)):
        one = rng.choice(world.members)
        listed = world.tradable()
        if listed:
            instrument = rng.choice(listed)
            side = rng.randrange(2)
            fair = world.books.prices[instrument]
            price = fair * (0.97 if side else 1.03) + (-4 if side else 4)
            world.place(one, instrument, side, max(price, 1), rng.choice((1_000, 20_000, 200_000)), c.TIF_IOC)
        yield


def come_back(world: World, rng: Random) -> Iterator[None]:
    """Pays in again, under a deficit or not."""
    for _ in range(rng.randrange(1, 4)):
        world.deposit(
            f"member {rng.randrange(len(world.members))}", rng.choice((1, 1_000, 100_000)) * 1_000_000
        )
        for _ in range(rng.randrange(3, 30)):
            yield


def late_settlement(world: World, rng: Random) -> Iterator[None]:
    """FIX or SETTLE is left out for a bounded time around an expiry."""
    nearest = min(
        (
            expiry_time(key & 0xFFFF)
            for key in world.state.expiries
            if expiry_time(key & 0xFFFF) > world.truth.time
        ),
        default=0,
    )
    while world.truth.time < nearest:
        yield
    world.omitted[rng.choice(("FIX", "SETTLE"))] = world.truth.time + rng.randrange(600, 14_400)
    yield from run_away(world, rng)


def freeze(world: World, rng: Random) -> Iterator[None]:
    """Brings a freeze about when it pays: the last batch's state is what everybody leaves with."""
    for _ in range(rng.randrange(10, 120)):
        yield
    world.frozen = True


def noise(world: World, rng: Random) -> Iterator[None]:
    """Anything at all, nearly right."""
    for _ in range(rng.randrange(5, 40)):
        one = rng.choice(world.members)
        what = rng.randrange(6)
        if what == 0:
            world.withdraw(
                one,
                rng.choice((1, 10**6, 10**9, world.state.accounts[one].cash, world.free(one) + 1)) % 2**63,
            )
        elif what == 1:
            world.transfer(
                one,
                rng.choice(sorted(world.state.accounts)[1:]) if False else rng.choice(world.members),
                rng.choice((1, 10**9)),
            )
        elif what == 2:
            world.do(Kind.LIQUIDATE, account=rng.choice(sorted(world.state.accounts)))
        elif what == 3:
            world.bid(one, rng.choice(sorted(world.state.accounts)), rng.choice((1, 64, 128, 256)))
        elif what == 4:
            world.submit(Kind.CANCEL_ALL, one, nonce_floor=0)
        else:
            account = world.state.accounts[one]
            margin.refresh(world.state, account)
            for instrument in list(account.positions)[:2]:
                held = account.positions.get(instrument, 0)
                if instrument in world.tradable():
                    side = c.SELL if held > 0 else c.BUY
                    price = max(world.mark(instrument) * rng.choice((0.5, 0.98, 1.02, 2)), 1)
                    world.place(one, instrument, side, price, abs(held), c.TIF_IOC, flags=c.FLAG_REDUCE_ONLY)
        yield


MOVES: Final[dict[str, tuple[Move, int]]] = {  # name -> (move, weight)
    "mirror": (mirror, 5),
    "drain": (drain, 4),
    "borrow": (borrow, 3),
    "between_points": (between_points, 2),
    "worst_bid": (worst_bid, 4),
    "late_liquidators": (late_liquidators, 2),
    "silent_underlying": (silent_underlying, 2),
    "silent_risk": (silent_risk, 1),
    "dust": (dust, 2),
    "fill_slots": (fill_slots, 1),
    "lie": (lie, 2),
    "run_away": (run_away, 2),
    "fees": (fees, 1),
    "off_market": (off_market, 2),
    "left_order": (left_order, 2),
    "amended": (amended, 2),
    "forced": (forced, 1),
    "trade_with_others": (trade_with_others, 3),
    "come_back": (come_back, 1),
    "late_settlement": (late_settlement, 1),
    "freeze": (freeze, 1),
    "noise": (noise, 2),
    "selective_marks": (selective_marks, 1),
}

# What has paid somewhere, once: backbones that an episode's other moves come between.
PLANS: Final[tuple[tuple[str, ...], ...]] = (
    ("mirror", "drain", "drain", "late_liquidators", "worst_bid"),
    ("borrow", "drain", "worst_bid", "run_away"),
    ("mirror", "drain", "worst_bid", "late_liquidators"),
    ("between_points", "worst_bid"),
    ("dust", "worst_bid"),
    ("fill_slots", "worst_bid"),
    ("silent_underlying", "run_away"),
    ("mirror", "drain", "run_away", "come_back"),
    ("mirror", "drain", "fees", "fees"),
    ("mirror", "drain", "freeze"),
    ("lie", "lie"),
    ("mirror", "silent_risk", "drain", "worst_bid"),
    ("left_order", "drain", "worst_bid"),
    ("amended", "drain", "worst_bid"),
)
