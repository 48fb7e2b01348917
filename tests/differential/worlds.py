"""Worlds made by hand for the differential test: the heaviest that the limits of the state allow, and crowded ones."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "protocol"))

from exchange import DOMAIN, INDEX, NEAR, START, USD, address, params

from sequencer.protocol import constants as c
from sequencer.protocol.book import Order
from sequencer.protocol.entries import Account, Expiry, Page, SurfaceReport
from sequencer.protocol.state import State, expiry_time
from sequencer.protocol.surface import Surface
from sequencer.witness import Tracer

if TYPE_CHECKING:
    from random import Random

STEP: Final = 50_000  # strikes
SHAPE: Final = Surface(30_000_000_000, 20_000_000_000, -300_000_000_000, 10**10, 10**11)
CROWD: Final = 60_000  # other accounts, for paths as long as they get


def heavy(random: Random, roles: tuple[str, ...], crowd: int = CROWD) -> Tracer:
    """Accounts of `roles` (numbers from 1) with positions in full pages of their own: the first two have 64 in 16, the
    others leave room for one more."""
    state = State(DOMAIN, params(), (0, 1))
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
        state.put_account(1_000 + number, account)
        g.pool += USD
    state.root()
    return Tracer.of(state)


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
