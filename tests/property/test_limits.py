"""The corners that chance does not find: full portfolios, the largest positions, the extremes of prices and money."""

import sys
from pathlib import Path

from sequencer.protocol import constants as c
from sequencer.protocol import margin
from sequencer.protocol.cash import VAULT_MAX
from sequencer.protocol.constants import Kind, Reason

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "protocol"))
from exchange import CALM, FAR, FINE, FLAT, TODAY, Exchange, address, reopened

REDUCE = c.FLAG_REDUCE_ONLY
IOC = c.TIF_IOC


def priced(exchange: Exchange, price: int, days: range) -> None:
    """Index, surfaces and marks at `price`; of all pages there are."""
    exchange.feeds(price)
    for day in days:
        assert exchange.surface(day, forward=price, index=price, **FLAT).reason is Reason.OK
    for page in exchange.state.pages:
        assert exchange.risk(page << 5).reason is Reason.OK


def cheap(*days: int, rows: int) -> tuple[Exchange, list[int]]:
    """An index of 10 USD, so that great quantities cost little; two rich accounts."""
    exchange = Exchange(**FINE, strike_ratio_max=1_000, **CALM)
    exchange.feeds(1_000)
    instruments = [exchange.list(day, 900 + i) for day in days for i in range(rows)]
    priced(exchange, 1_000, range(days[0], days[-1] + 1))
    for role in ("treasury", "left", "right", "third"):
        exchange.deposit(role, 2**48 // 10**6 - 1)
    return exchange, instruments


def test_positions__up_to_64_on_12_pages__are_held_margined_liquidated_and_settled() -> None:
    """The largest portfolio there may be goes the whole way; the 65th position and the 13th page do not come in."""
    days = range(FAR, FAR + c.PAGES_MAX + 1)
    exchange, instruments = cheap(*days, rows=7)
    exchange.audits = False
    chosen = [instruments[7 * (i % c.PAGES_MAX) + i // c.PAGES_MAX] for i in range(c.POSITIONS_MAX)]
    spare, beyond = instruments[6], instruments[7 * c.PAGES_MAX]
    for instrument in chosen:
        exchange.trade("left", "right", instrument, 150, 1_000)
    exchange.auditor.check(exchange.state)
    left = exchange.account("left")
    assert len(left.positions) == c.POSITIONS_MAX
    assert len({one >> 5 for one in left.positions}) == c.PAGES_MAX
    assert exchange.buy("left", spare, 150, 1).reason is Reason.POSITION_LIMIT
    exchange.sell("right", chosen[0], 140, 5, tif=IOC)
    assert exchange.sell("left", chosen[0], 140, 1_000, tif=IOC, flags=REDUCE).reason is Reason.OK
    # One place is free, but not on a page of its own.
    exchange.buy("third", chosen[0], 140, 1_000)
    assert exchange.sell("left", chosen[0], 140, 1_000, tif=IOC, flags=REDUCE).fills
    assert exchange.buy("left", beyond, 150, 1).reason is Reason.POSITION_LIMIT
    exchange.trade("left", "third", spare, 150, 7)
    exchange.auditor.check(exchange.state)
    assert exchange.state.root() == reopened(exchange.state).root()

    right = exchange.account("right")
    margin.refresh(exchange.state, right)
    loss = margin.equity(right) - 1
    right.cash -= loss
    exchange.account("third").cash += loss
    assert exchange.liquidate("right").reason is Reason.OK
    exchange.deposit("bidder", 1_000_000)
    out = exchange.bid("bidder", "right", 64)
    assert out.reason is Reason.POSITION_LIMIT or len(exchange.account("bidder").positions) == 64
    exchange.auditor.check(exchange.state)
    for day in days:
        exchange.expire(day, 1_500)
        for role in exchange.numbers:
            exchange.settle(role, day)
        exchange.auditor.check(exchange.state)
    assert not any(account.positions for account in exchange.state.accounts.values())


def test_position__of_2_to_the_44_lots__is_held_and_not_passed() -> None:
    exchange, (instrument,) = cheap(FAR, rows=1)
    for role in ("left", "right"):
        for _ in range(60):
            exchange.deposit(role, 2**48 // 10**6 - 1)
    price = exchange.mark(instrument)
    for _ in range(16):
        exchange.trade("left", "right", instrument, price, c.U40_MAX)
    exchange.trade("left", "right", instrument, price, 16)
    assert exchange.position("left", instrument) == c.POSITION_LOTS_MAX
    assert exchange.position("right", instrument) == -c.POSITION_LOTS_MAX
    assert exchange.buy("left", instrument, price, 1).reason is Reason.POSITION_LIMIT
    assert exchange.sell("right", instrument, price, 1).reason is Reason.POSITION_LIMIT
    exchange.sell("third", instrument, price, 1)
    exchange.buy("third", instrument, price - 1, 1)
    assert exchange.sell("left", instrument, price - 1, 1, tif=IOC).fills
    assert reopened(exchange.state).root() == exchange.state.root()
    # Resting orders are checked one by one: together they could pass the limit, and are taken out when met.
    exchange.buy("left", instrument, price - 2, 1)
    exchange.buy("left", instrument, price - 2, 1)
    assert len(exchange.sell("third", instrument, price - 2, 1, tif=IOC).fills) == 1
    out = exchange.sell("third", instrument, price - 2, 1, tif=IOC)
    assert (len(out.fills), len(out.removed)) == (0, 1)


def test_place__of_the_greatest_price_and_quantity__cannot_be_carried() -> None:
    exchange, (instrument,) = cheap(FAR, rows=1)
    exchange.state.accounts[2].cash = VAULT_MAX  # more than one can have
    exchange.state.accounts[3].cash -= VAULT_MAX
    exchange.audits = False
    for price in (1, c.U32_MAX):
        for quantity in (1, c.U40_MAX):
            for side in (c.BUY, c.SELL):
                out = exchange.place("left", instrument, side, price, quantity)
                assert out.reason in (Reason.OK, Reason.MARGIN)
                assert exchange.account("left").reserved <= c.U64_MAX


def test_index_and_strikes__at_the_ends_of_their_range__are_marked_and_settled() -> None:
    for price in (1, 2, c.U32_MAX - 1, c.U32_MAX):
        exchange = Exchange(**FINE, strike_ratio_max=c.U32_MAX, **CALM)
        exchange.feeds(price)
        days = range(TODAY + 1, TODAY + 2)
        instruments = [exchange.list(days[0], strike, put) for strike in (1, 2**31 - 1) for put in (0, 1)]
        priced(exchange, price, days)
        exchange.surface(days[0], 1, a=16 * 10**12, b=16 * 10**12, rho=10**12, m=-16 * 10**12, sigma=1)
        exchange.remark(price)
        for role in ("treasury", "left", "right"):
            exchange.deposit(role, 2**48 // 10**6 - 1)
        for instrument in instruments:
            exchange.buy("left", instrument, max(exchange.mark(instrument), 1), 3)
            exchange.sell("right", instrument, max(exchange.mark(instrument), 1), 3)
        assert exchange.account("left").positions
        exchange.expire(days[0], price)
        for role in exchange.numbers:
            exchange.settle(role, days[0])
        assert exchange.state.expiries[days[0]].settlement == price


def test_deposits__beyond_the_vault__credit_nothing_and_hold_nobody_up() -> None:
    exchange = Exchange()
    exchange.audits = False
    g = exchange.state.globals
    exchange.deposit("owner", 1)
    g.pool = VAULT_MAX - 2**48
    g.deficit = 2**100
    for _ in range(3):
        out = exchange.unsigned(Kind.DEPOSIT, owner=address("owner"), account=1, amount=2**48 - 1)
    assert out.reason is Reason.AMOUNT
    assert g.pool <= VAULT_MAX
    assert g.deficit < 2**128
    assert reopened(exchange.state).root() == exchange.state.root()


def test_withdrawal__of_the_last_cent_under_a_deficit__leaves_no_negative_number() -> None:
    exchange = Exchange()
    for role in ("treasury", "one", "two", "three"):
        exchange.deposit(role, 1)
    exchange.account("three").cash -= 1_999_999
    exchange.account("two").cash += 999_999
    exchange.account("one").cash += 1_000_000
    exchange.liquidate("three")
    for role in ("two", "one", "treasury"):
        cash = exchange.account(role).cash
        out = exchange.withdraw(role, cash)
        assert out.reason is Reason.OK
    g = exchange.state.globals
    assert (g.pool >= 0, g.deficit >= 0) == (True, True)
