"""Worlds made by hand for the differential test: the heaviest that the limits of the state allow, crowded ones, and
ones of as many entries as an exchange in use would have."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "protocol"))

from exchange import DOMAIN, FINE, INDEX, NEAR, START, USD, address, params

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
AGES: Final = ("feed_age_max_s", "surface_age_max_s", "risk_age_max_s")
SHAPE: Final = Surface(30_000_000_000, 20_000_000_000, -300_000_000_000, 10**10, 10**11)
CROWD: Final = 60_000  # other accounts, for paths as long as they get
CROWD_FROM: Final = 1_000  # number of the first of them
DEEP_BOOK: Final = 1_050  # orders on a side of the deepest book
FIXED: Final = NEAR ^ 1  # an expiry that `deepest` has settled
DEEP_FROM: Final = 16  # number of the first account of `deepest` that holds positions
# Of `deepest`: who can be liquidated twice over, on auction with the bidder's own instruments, with as many others,
# with one page of the bidder's and others beside, and who holds positions that are settled.
DEEP: Final = {"poor": 24, "ruined": 25, "target": 26, "strange": 27, "dusty": 28, "settles": 29}
DEEP_STRIKES: Final = tuple((1 << 20) + 16 * number for number in range(8))  # to be listed there


def heavy(random: Random, roles: tuple[str, ...], crowd: int = CROWD, **changes: int) -> Tracer:
    """Accounts of `roles` (numbers from 1) with positions in full pages of their own: the first two have 64 in 12, the
    others leave room for one more. `changes` are of PARAMS."""
    state = State(DOMAIN, params(**changes), (0, 1))
    g = state.globals
    g.time, g.tick, g.seq = START, 1, 1_000
    underlying = state.underlyings[0]
    underlying.index, underlying.time = INDEX, START
    underlying.reports = [(INDEX, START)] * 3 + [(0, 0)] * 2
    state.touch(c.KEY_UNDERLYING, underlying)
    pages = [_page(state, random, NEAR + number) for number in range(c.PAGES_MAX * len(roles))]
    for number, role in enumerate(roles):
        account = Account(address(role))
        account.cash = 10_000_000 * USD
        account.signers = [(random.randbytes(20), 3, c.U32_MAX) for _ in range(4)]
        own = pages[c.PAGES_MAX * number : c.PAGES_MAX * (number + 1)]
        spread = c.PAGES_MAX if number < 2 else c.PAGES_MAX - 1
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
    """More than 60,000 accounts; those of `roles` hold up to 64 positions in 12 pages, one portfolio for those with odd
    numbers and one for those with even ones, so that they can bid for each other's; three of its books are deep."""
    world = heavy(
        random,
        ("", ""),
        maker_fee_ppm=random.choice((0, 100)),
        breaker_restrict_ppm=c.U32_MAX,
        breaker_halt_ppm=c.U32_MAX,
        **dict.fromkeys(AGES, 10**6),
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
    for instrument, depth in (
        (books[0][7], DEEP_BOOK),
        (books[1][30], DEEP_BOOK),
        (books[1][40], DEEP_BOOK // 4),
    ):
        deepen(world, random, instrument, depth, len(roles))
    world.root()
    return Tracer.of(world)


def standing(random: Random, sizes: tuple[int, ...], accounts: int, orders: int) -> Tracer:
    """An exchange in use.

    Of each of `sizes` there is an account (1 + 4 x its place), two below their maintenance margin that hold the same
    instruments (2 + 4 x, 4 + 4 x) and one that holds as many others (3 + 4 x), four positions to a page, or more where
    an account may have no more pages. The last page has one row free, the one before has eight rows.
    """
    world = heavy(random, ("", ""), crowd=0, **dict.fromkeys(AGES, 10**6))
    pages = sorted(world.pages)
    for page_id, rows in ((pages[-1], c.PAGE_ROWS - 1), (pages[-2], 8)):
        page = world.pages[page_id]
        del page.rows[rows:], page.terms[rows:]
        page.marked = rows
        world.expiries[page_id >> 7].listed = rows
    for place, size in enumerate(sizes):
        for number, (of, name) in enumerate(((0, "actor"), (0, "target"), (1, "other"), (0, "fallen")), 1):
            account = Account(address(f"{name} {size}"))
            own = pages[c.PAGES_MAX * of :][: min(max(1, size // 4), c.PAGES_MAX)]
            for index in range(size):
                instrument = own[index % len(own)] << 5 | index // len(own)
                account.positions[instrument] = random.choice((-1, 1)) * random.randint(300, 9_000)
            account.positions = dict(sorted(account.positions.items()))
            account.cash = 10**13
            if name in ("target", "fallen"):
                margin.refresh(world, account)
                account.cash -= margin.equity(account) - margin.maintenance(world, account) // 2
            world.put_account(4 * place + number, account)
    for number in range(accounts - 4 * len(sizes)):
        account = Account(random.randbytes(20))
        account.cash = USD
        world.put_account(CROWD_FROM + number, account)
    world.globals.pool = sum(account.cash for account in world.accounts.values())
    books = [pages[index % c.PAGES_MAX] << 5 | index // c.PAGES_MAX for index in range(64)]
    for number in range(orders):
        instrument, side = books[number // 2 % len(books)], number % 2
        mark = world.pages[instrument >> 5].rows[instrument & 31][0]
        away = random.randint(1, 500) * (1 if side else -1)
        rest(world, CROWD_FROM + number % CROWD, instrument, side, max(1, mark + away), random.randint(1, 60))
    world.root()
    return Tracer.of(world)


def deepest(random: Random) -> Tracer:
    """The deepest paths that keys allow: wherever a record can look, every bit of the key below its type branches.

    Accounts DEEP_FROM .. DEEP_FROM + 15 ("deep 16" and so on) hold 64 positions in the first 12 of an expiry's 128
    pages, but for `DEEP`'s special ones; orders lie on rows 0 to 11 of its first page, best bid first in all its bits.
    Sequence numbers repeat from book to book, which no run gives; a path does not see it.
    """
    state = State(
        DOMAIN,
        params(
            **dict.fromkeys(AGES, 10**6),
            **FINE,
            strike_ratio_max=c.U32_MAX,
            auction_fraction_max=256,
        ),
        tuple(range(16)),
    )
    g = state.globals
    g.time, g.tick, g.seq, g.withdrawals = START, 1, c.U40_MAX - 10_000, 1 << 20
    underlying = state.underlyings[0]
    underlying.index, underlying.time = INDEX, START
    underlying.reports = [(INDEX, START)] * 3 + [(0, 0)] * 2
    state.touch(c.KEY_UNDERLYING, underlying)
    pages = [_random_page(random) for _ in range(24)]
    for key in (
        NEAR ^ bit for bit in (0, *_bits(20))
    ):  # underlying and day; the first two have all their pages
        numbers = range(c.PAGES_PER_EXPIRY) if key in (NEAR, FIXED) else (0,)
        for number in numbers:
            put_page(state, key << 7 | number, pages[number % 24])
        state.expiries[key].listed = len(numbers) * c.PAGE_ROWS
    fixed = state.expiries[FIXED]
    fixed.settled, fixed.settlement = True, INDEX
    last = _random_page(random)
    del last.rows[-8:], last.terms[-8:]
    last.marked = len(last.terms)
    put_page(state, NEAR << 7 | 127, last)
    state.expiries[NEAR].listed -= 8
    for number in (1, *(DEEP_FROM ^ bit for bit in _bits(32) if bit > DEEP_FROM)):
        state.put_account(number, Account(b"\1" * 20))
    for number in range(DEEP_FROM, DEEP_FROM + 16):
        _deep_account(state, random, number)
    for row in range(c.PAGE_ROWS):
        instrument = NEAR << 12 | row
        if row >= 12:
            rest_at(state, 1, instrument, c.BUY, 2, 1, 1)
            continue
        for place, seq in enumerate((0, *_bits(40))):  # at the best price that there can be
            rest_at(state, DEEP_FROM + 1 + place % 3, instrument, c.BUY, c.U32_MAX, seq, 1)
        for bit in _bits(32):
            rest_at(state, 1, instrument, c.BUY, c.U32_MAX - bit, 2, 1)
    for bit in _bits(32):
        if bit >= c.PAGE_ROWS:
            rest_at(state, 1, NEAR << 12 ^ bit, c.BUY, 2, 1, 1)
    for strike in DEEP_STRIKES:
        terms = NEAR << 32 | strike
        for bit in _bits(52):
            if terms ^ bit not in {NEAR << 32 | one for one in DEEP_STRIKES}:
                state.put_instrument(terms ^ bit, 1)
    for bit in _bits(32)[1:]:  # the next one stands at bit 0
        state.put_withdrawal(g.withdrawals ^ bit, b"\1" * 20, 1)
    g.pool = sum(account.cash for account in state.accounts.values())
    state.root()
    return Tracer.of(state)


def _bits(count: int) -> list[int]:
    return [1 << bit for bit in range(count)]


def _deep_account(state: State, random: Random, number: int) -> None:
    account = Account(address(f"deep {number}"))
    account.cash = 10**13
    account.signers = [(random.randbytes(20), 3, c.U32_MAX) for _ in range(4)]
    key = FIXED if number == DEEP["settles"] else NEAR
    first = 12 if number in (DEEP["strange"], DEEP["dusty"]) else 0
    for index in range(64):
        page, row = first + index % 12, index // 12
        lots = 3 if number == DEEP["dusty"] else 5_000
        if number == DEEP["dusty"] and page == 12:
            page, lots = 0, 5_000  # of the one page that it has in common with the others
        instrument = (key << 7 | page) << 5 | row
        account.positions[instrument] = random.choice((-1, 1)) * lots
    account.positions = dict(sorted(account.positions.items()))
    if number in (DEEP["target"], DEEP["strange"], DEEP["dusty"], DEEP["poor"], DEEP["ruined"]):
        margin.refresh(state, account)
        account.cash -= margin.equity(account) - margin.maintenance(state, account) // 2
        if number not in (DEEP["poor"], DEEP["ruined"]):
            account.auction_start = START - 1
    state.put_account(number, account)


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
    assert expiry_time(day) > START
    put_page(state, day << 7, _random_page(random))
    return day << 7


def _random_page(random: Random) -> Page:
    page = Page()
    page.time, page.index, page.forward, page.marked = START, INDEX, INDEX, c.PAGE_ROWS
    for row in range(c.PAGE_ROWS):
        page.terms.append((INDEX + STEP * (row // 2 - 8)) | (row & 1) << 31)
        pnls = tuple(random.randint(-200_000, 200_000) for _ in range(c.SCENARIOS))
        page.rows.append((random.randint(1_000, 300_000), pnls))
    return page


def put_page(state: State, page_id: int, page: Page) -> None:
    """Puts a page, and its expiry with three feeds' surfaces when it has none."""
    state.pages[page_id] = page
    state.touch(c.KEY_PAGE | page_id, page)
    key = page_id >> 7
    if key not in state.expiries:
        expiry = state.expiries[key] = Expiry()
        expiry.listed = len(page.terms)
        expiry.reports[:3] = [SurfaceReport(START, INDEX, INDEX, SHAPE)] * 3
        state.touch(c.KEY_EXPIRY | key, expiry)


def rest(
    state: State, number: int, instrument: int, side: int, price: int, quantity: int, flags: int = 0
) -> Order:
    """Rests an order of account `number` with a reserve that bears any fill."""
    g = state.globals
    g.seq += 1
    return rest_at(state, number, instrument, side, price, g.seq - 1, quantity, flags)


def rest_at(
    state: State, number: int, instrument: int, side: int, price: int, seq: int, quantity: int, flags: int = 0
) -> Order:
    """Likewise, under a sequence number of one's own choice."""
    rate = 3_000_000
    order = Order(number, instrument, side, price, seq, quantity, 0, rate, flags)
    account = state.accounts[number]
    account.reserved += rate * quantity
    account.orders += 1
    state.put_account(number, account)
    state.insert_order(order)
    return order
