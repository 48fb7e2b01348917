"""Worlds made by hand for the differential test: the heaviest that the limits of the state allow, crowded ones, and
ones of as many entries as an exchange in use would have."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "protocol"))

from exchange import DOMAIN, INDEX, NEAR, START, USD, address, params

from sequencer.proof.witness import Tracer
from sequencer.protocol import constants as c
from sequencer.protocol import margin
from sequencer.protocol.book import Order, order_key, order_value
from sequencer.protocol.entries import Account, Expiry, Page, SurfaceReport
from sequencer.protocol.state import State, expiry_time
from sequencer.protocol.surface import Surface

if TYPE_CHECKING:
    from random import Random

STEP: Final = 50_000  # strikes
SHAPE: Final = Surface(30_000_000_000, 20_000_000_000, -300_000_000_000, 10**10, 10**11)
CROWD: Final = 60_000  # other accounts, for paths as long as they get
CROWD_FROM: Final = 1_000  # number of the first of them
DEEP: Final = 1_050  # orders on a side of the deepest book


def heavy(random: Random, roles: tuple[str, ...], crowd: int = CROWD, **changes: int) -> Tracer:
    """Accounts of `roles` (numbers from 1) with positions in full pages of their own: the first two have 64 in 16, the
    others leave room for one more. `changes` are of PARAMS."""
    state = State(DOMAIN, params(**changes), (0, 1))
    g = state.globals
    g.time, g.tick, g.seq = START, 1, 1_000
    underlying = state.underlyings[0]
    underlying.index, underlying.time = INDEX, START
    underlying.reports = [(INDEX, START)] * 3 + [(0, 0)] * 2
    state.touch(c.KEY_UNDERLYING, underlying)
    pages = [_page(state, random, NEAR + number) for number in range(16 * len(roles))]
    for number, role in enumerate(roles):
        account = Account(address(role))
        account.cash = 10_000_000 * USD
        account.signers = [(random.randbytes(20), 3, c.U32_MAX) for _ in range(4)]
        own = pages[16 * number : 16 * number + 16]
        spread = 16 if number < 2 else 15
        for index in range(64 if number < 2 else 63):
            instrument = own[index % spread] << 5 | (index // spread * 7 + index) % 32
            account.positions[instrument] = random.choice((-1, 1)) * random.randint(300, 9_000)
        state.put_account(1 + number, account)
        g.pool += account.cash
    for number in range(crowd):
        account = Account(random.randbytes(20))
        account.cash = USD
        state.put_account(CROWD_FROM + number, account)
        g.pool += USD
    state.root()
    return Tracer.of(state)


def vast(random: Random, roles: tuple[str, ...]) -> Tracer:
    """More than 60,000 accounts; those of `roles` hold up to 64 positions in 16 pages, one portfolio for those with odd
    numbers and one for those with even ones, so that they can bid for each other's; three of its books are deep."""
    world = heavy(
        random,
        ("", ""),
        maker_fee_ppm=random.choice((0, 100)),
        breaker_restrict_ppm=c.U32_MAX,
        breaker_halt_ppm=c.U32_MAX,
        feed_age_max_s=10**6,
        risk_age_max_s=10**6,
    )
    books = [tuple(world.accounts[1 + number].positions) for number in range(2)]
    for number, role in enumerate(roles, 1):
        account = Account(address(role))
        account.cash = random.choice((10**13, 10**11, 0))
        held = random.sample(books[number % 2], 64 if number <= 2 else random.choice((63, 48, 64)))
        account.positions = {
            instrument: random.choice((-1, 1)) * random.randint(300, 9_000) for instrument in sorted(held)
        }
        world.put_account(number, account)
    for page_id, page in world.pages.items():
        for row, terms in enumerate(page.terms):
            world.put_instrument(page_id >> 7 << 32 | terms, page_id << 5 | row)
    for instrument, depth in ((books[0][7], DEEP), (books[1][30], DEEP), (books[1][40], DEEP // 4)):
        deepen(world, random, instrument, depth, len(roles))
    world.root()
    return Tracer.of(world)


def standing(random: Random, sizes: tuple[int, ...], accounts: int, orders: int) -> Tracer:
    """An exchange in use. Of each of `sizes` there is an account (1 + 3 x its place), one below its maintenance margin
    that holds the same instruments (2 + 3 x) and one that holds as many others (3 + 3 x), four positions to a page. The
    last page has one row free, the one before has eight rows."""
    world = heavy(random, ("", ""), crowd=0, feed_age_max_s=10**6, risk_age_max_s=10**6)
    pages = sorted(world.pages)
    for page_id, rows in ((pages[-1], c.PAGE_ROWS - 1), (pages[-2], 8)):
        page = world.pages[page_id]
        del page.rows[rows:], page.terms[rows:]
        world.expiries[page_id >> 7].listed = rows
    for place, size in enumerate(sizes):
        for number, of, name in ((1, 0, "actor"), (2, 0, "target"), (3, 1, "other")):
            account = Account(address(f"{name} {size}"))
            own = pages[16 * of : 16 * of + max(1, size // 4)]
            for index in range(size):
                instrument = own[index % len(own)] << 5 | index // len(own)
                account.positions[instrument] = random.choice((-1, 1)) * random.randint(300, 9_000)
            account.positions = dict(sorted(account.positions.items()))
            account.cash = 10**13
            if name == "target":
                margin.refresh(world, account)
                account.cash -= margin.equity(account) - margin.maintenance(world, account) // 2
            world.put_account(3 * place + number, account)
    for number in range(accounts - 3 * len(sizes)):
        account = Account(random.randbytes(20))
        account.cash = USD
        world.put_account(CROWD_FROM + number, account)
    world.globals.pool = sum(account.cash for account in world.accounts.values())
    books = [page << 5 | row for page in pages[:16] for row in range(4)]
    for number in range(orders):
        instrument, side = books[number // 2 % len(books)], number % 2
        mark = world.pages[instrument >> 5].rows[instrument & 31][0]
        away = random.randint(1, 500) * (1 if side else -1)
        rest(world, CROWD_FROM + number % CROWD, instrument, side, max(1, mark + away), random.randint(1, 60))
    world.root()
    return Tracer.of(world)


def one_expiry(random: Random, pages: int, accounts: int) -> Tracer:
    """Account 1 ("rich") can bid for the portfolio of account 2 ("poor"): 64 positions in 16 pages each, none shared,
    all in one expiry of `pages` full pages, beside expiries whose days part from its own at many bits: deep paths."""
    state = State(DOMAIN, params(feed_age_max_s=10**6, risk_age_max_s=10**6), (0, 1))
    g = state.globals
    g.time, g.tick, g.seq = START, 1, 1_000
    underlying = state.underlyings[0]
    underlying.index, underlying.time = INDEX, START
    base = _page(state, random, NEAR)
    for bit in range(9):
        if NEAR ^ 1 << bit > NEAR:
            _page(state, random, NEAR ^ 1 << bit)
    for number in range(1, pages):
        state.pages[base | number] = state.pages[base]
        state.touch(c.KEY_PAGE | base | number, state.pages[base])
    state.expiries[NEAR].listed = pages * c.PAGE_ROWS
    for number, role in ((1, "rich"), (2, "poor")):
        account = Account(address(role))
        account.cash = 10**13
        account.signers = [(random.randbytes(20), 3, c.U32_MAX) for _ in range(4)]
        for index in range(64):
            page = base | index % 16 + 16 * (number - 1)
            account.positions[page << 5 | index // 16] = random.choice((-1, 1)) * 5_000
        account.positions = dict(sorted(account.positions.items()))
        if number == 2:
            margin.refresh(state, account)
            account.cash -= margin.equity(account) - margin.maintenance(state, account) // 2
            account.auction_start = START - 1
        state.put_account(number, account)
    for number in range(accounts):
        state.put_account(CROWD_FROM + number, Account(b"\1" * 20))
    state.root()
    return Tracer.of(state)


def deepen(world: State, random: Random, instrument: int, depth: int, roles: int) -> None:
    """Rests `depth` orders on either side of the mark, one in ten of them of the accounts from 1 to `roles`; some
    are dead already, some reduce only."""
    mark = world.pages[instrument >> 5].rows[instrument & 31][0]
    for number in range(depth):
        owner = random.randint(1, roles) if number % 10 == 3 else CROWD_FROM + random.randrange(CROWD)
        for side, away in ((c.BUY, -1), (c.SELL, 1)):
            flags = c.FLAG_REDUCE_ONLY if random.random() < 0.03 else 0
            price = max(1, mark + away * random.randint(1, depth))
            order = rest(world, owner, instrument, side, price, random.randint(1, 60), flags)
            if random.random() < 0.03:
                order.expires = START
                world.map.put(order_key(instrument, side, price, order.seq), order_value(order))


def shape(random: Random) -> dict[str, int]:
    """Parameters of a surface, mostly within their bounds."""
    return {
        "a": random.randint(-(10**10), 10**11),
        "b": random.randint(0, 10**11),
        "rho": random.randint(-(10**12), 10**12),
        "m": random.randint(-(10**11), 10**11),
        "sigma": random.randint(1, 10**12),
    }


def _page(state: State, random: Random, day: int) -> int:
    """A full page with marks that a surface could give, of an expiry of its own."""
    page = Page()
    page.time, page.index, page.forward = START, INDEX, INDEX
    for row in range(c.PAGE_ROWS):
        page.terms.append((INDEX + STEP * (row // 2 - 8)) | (row & 1) << 31)
        page.rows.append(
            (
                random.randint(1_000, 300_000),
                tuple(random.randint(-200_000, 200_000) for _ in range(c.SCENARIOS)),
            )
        )
    page_id = day << 7
    state.pages[page_id] = page
    state.touch(c.KEY_PAGE | page_id, page)
    expiry = state.expiries[day] = Expiry()
    expiry.listed = c.PAGE_ROWS
    expiry.reports[0] = SurfaceReport(START, INDEX, INDEX, SHAPE)
    expiry.chosen = 0
    state.touch(c.KEY_EXPIRY | day, expiry)
    assert expiry_time(day) > START
    return page_id


def rest(
    state: State, number: int, instrument: int, side: int, price: int, quantity: int, flags: int = 0
) -> Order:
    """Rests an order of account `number` with a reserve that bears any fill."""
    g = state.globals
    rate = 3_000_000
    order = Order(number, instrument, side, price, g.seq, quantity, 0, rate, flags)
    g.seq += 1
    account = state.accounts[number]
    account.reserved += rate * quantity
    state.put_account(number, account)
    state.insert_order(order)
    return order
