"""FIX and SETTLE."""

import sys
from pathlib import Path

import pytest

from sequencer.protocol import constants as c
from sequencer.protocol.constants import Kind, Reason
from sequencer.protocol.state import expiry_time

sys.path.insert(0, str(Path(__file__).resolve().parent))
from exchange import CALM, CONTRACT, FAR, INDEX, NEAR, USD, Exchange


@pytest.fixture
def exchange() -> Exchange:
    one = Exchange(**CALM)
    one.open((NEAR, INDEX, 0), (NEAR, INDEX, 1), (FAR, INDEX, 0))
    for role in ("treasury", "long", "short"):
        one.deposit(role, 100_000)
    return one


def instrument(exchange: Exchange, day: int, put: int = 0) -> int:
    return exchange.state.instruments[day << 32 | put << 31 | INDEX]


def fix(exchange: Exchange, day: int = NEAR, underlying: int = 0) -> Reason:
    return exchange.system(Kind.FIX, underlying=underlying, day=day).reason


def test_fix__is_the_mean_of_the_last_half_hour(exchange: Exchange) -> None:
    bound = expiry_time(NEAR)
    exchange.tick_at(bound - 1_800 - 100)
    exchange.feeds(4_000_000)  # at -1899, rules until -900
    exchange.tick_at(bound - 901)
    exchange.feeds(4_100_000)  # from -900 on
    exchange.tick_at(bound + 60)
    exchange.feeds(9_000_000)  # after the end: of no weight
    assert fix(exchange) is Reason.OK
    assert exchange.state.expiries[NEAR].settlement == 4_050_000


def test_fix__rounds_half_up(exchange: Exchange) -> None:
    exchange.tick_at(expiry_time(NEAR))
    exchange.feeds(1)
    snapshot = exchange.state.underlyings[0].snapshots[NEAR % 4]
    snapshot.cumulative_start, snapshot.cumulative_end = 2**64 - 900, 1_800  # 2,700 / 1,800, over the wrap
    assert fix(exchange) is Reason.OK
    assert exchange.state.expiries[NEAR].settlement == 2


def test_fix__before_expiry_twice_or_of_nothing__is_refused(exchange: Exchange) -> None:
    assert fix(exchange) is Reason.NOT_EXPIRED
    assert fix(exchange, NEAR + 1) is Reason.UNKNOWN_INSTRUMENT
    assert fix(exchange, NEAR, 255) is Reason.UNKNOWN_INSTRUMENT
    exchange.tick_at(expiry_time(NEAR))
    assert fix(exchange) is Reason.NO_SNAPSHOT
    exchange.feeds(INDEX)
    assert fix(exchange) is Reason.OK
    assert fix(exchange) is Reason.ALREADY_SETTLED


def test_fix__within_four_days__finds_its_snapshot(exchange: Exchange) -> None:
    for day in range(NEAR, NEAR + 4):
        exchange.tick_at(expiry_time(day))
        exchange.feeds(INDEX + day)
    assert fix(exchange) is Reason.OK


def test_fix__after_the_ring_has_come_round__finds_none(exchange: Exchange) -> None:
    """Recorded as it is: the expiry cannot be fixed any more (see the open points of docs/PROTOCOL.md)."""
    for day in range(NEAR, NEAR + 5):
        exchange.tick_at(expiry_time(day))
        exchange.feeds(INDEX)
    assert fix(exchange) is Reason.NO_SNAPSHOT


def test_settle__pays_longs_what_it_takes_from_shorts(exchange: Exchange) -> None:
    call = instrument(exchange, NEAR)
    exchange.trade("long", "short", call, exchange.mark(call), CONTRACT)
    before = {role: exchange.account(role).cash for role in ("long", "short")}
    exchange.expire(NEAR, INDEX + 250_000)
    gain = (exchange.state.expiries[NEAR].settlement - INDEX) * CONTRACT
    assert gain > 0
    assert exchange.settle("long", NEAR).amount == gain
    assert exchange.settle("short", NEAR).amount == -gain
    assert exchange.account("long").cash == before["long"] + gain
    assert exchange.account("short").cash == before["short"] - gain
    assert exchange.account("long").positions == {}
    assert exchange.settle("long", NEAR).reason is Reason.NOTHING_TO_SETTLE


def test_settle__leaves_positions_of_other_expiries(exchange: Exchange) -> None:
    near, far = instrument(exchange, NEAR, put=1), instrument(exchange, FAR)
    for one in (near, far):
        exchange.trade("long", "short", one, exchange.mark(one), 100)
    exchange.expire(NEAR, INDEX)
    exchange.settle("long", NEAR)
    assert exchange.account("long").positions == {far: 100}


def test_settle__too_early_or_of_nobody__is_refused(exchange: Exchange) -> None:
    assert exchange.settle("long", NEAR).reason is Reason.NOT_SETTLED
    assert exchange.settle("long", NEAR + 1).reason is Reason.UNKNOWN_INSTRUMENT
    out = exchange.system(Kind.SETTLE, underlying=0, day=NEAR, account=99)
    assert out.reason is Reason.UNKNOWN_ACCOUNT


def ruin(exchange: Exchange) -> int:
    """`short` has written 2 calls, the index doubles: it owes more than it has. Returns its debt after SETTLE."""
    call = instrument(exchange, NEAR)
    exchange.trade("long", "short", call, exchange.mark(call), 4 * CONTRACT)
    exchange.expire(NEAR, 2 * INDEX)
    owed = (exchange.state.expiries[NEAR].settlement - INDEX) * 4 * CONTRACT
    return owed - exchange.account("short").cash


def test_settle__of_an_account_that_cannot_pay__is_covered_by_the_fund_then_by_all(
    exchange: Exchange,
) -> None:
    debt = ruin(exchange)
    assert debt > 0
    fund = exchange.state.globals.fund
    assert 0 < fund < debt
    exchange.settle("short", NEAR)
    g = exchange.state.globals
    assert exchange.account("short").cash == 0
    assert (g.fund, g.deficit) == (0, debt - fund)


def test_settle__of_an_account_that_is_covered__ends_its_orders(exchange: Exchange) -> None:
    far = instrument(exchange, FAR)
    exchange.buy("short", far, 1_000, 5)
    ruin(exchange)
    exchange.settle("short", NEAR)
    assert exchange.account("short").reserved == 0
    exchange.remark()
    assert exchange.sell("long", far, 1_000, 5, tif=c.TIF_IOC).fills == []


def test_settle__of_the_last_position__ends_the_auction(exchange: Exchange) -> None:
    ruin(exchange)
    exchange.risk(instrument(exchange, NEAR))
    assert exchange.liquidate("short").reason is Reason.OK
    assert exchange.account("short").auction_start
    exchange.settle("short", NEAR)
    assert exchange.account("short").auction_start == 0
    assert exchange.deposit("short", 1).reason is Reason.OK
    exchange.state.globals.last_class = 0
    assert exchange.account("short").cash >= USD
