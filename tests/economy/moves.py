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
from tests.economy.order_moves import amended, dead_orders, in_words, left_order, off_market, whole_or_nothing
from tests.economy.parts import cash_out, drain, grow, pair, straddle, structure

if TYPE_CHECKING:
    from tests.economy.world import World

Move = Callable[["World", Random], Iterator[None]]


def mirror(world: World, rng: Random) -> Iterator[None]:
    """Exactly opposite positions in two accounts: no risk together, all of it apart."""
    for _ in range(rng.randrange(1, 3)):
        one, two = pair(world, rng)
        legs = structure(world, rng)
        if legs:
            grow(world, one, two, legs, rng.choice((2_000, 20_000, 200_000, 1_000_000)), rng.randrange(2, 9))
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
    legs = [(instrument, 1.0) for instrument in straddle(world, key, middle, 0.0)]
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
    "in_words": (in_words, 1),
    "dead_orders": (dead_orders, 2),
    "whole_or_nothing": (whole_or_nothing, 2),
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
    ("mirror", "whole_or_nothing", "drain", "worst_bid"),
    ("amended", "drain", "worst_bid"),
    ("mirror", "drain", "dead_orders", "worst_bid"),
)
