"""One lot on an underlying whose feeds are silent, held by an account that loses elsewhere.

LIQUIDATE, FORCED_LIQUIDATE and BID needed all its pages fresh, so that nobody could touch it: 283,647 USD below nothing
at settlement, paid by the pool to the other side at par. Now what stands on such pages is valued with caution, the rest
is liquidated in time, and a loss that is seen counts in withdrawals: 0.
"""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "protocol"))
from exchange import CALM, FAR, INDEX, TODAY, USD, Exchange

from sequencer.protocol import margin
from sequencer.protocol.constants import Kind, Reason

SILENT_S = 3_900  # of the other underlying's feeds: RISK cannot renew its marks any more


def equity(exchange: Exchange, role: str) -> int:
    account = exchange.account(role)
    margin.refresh(exchange.state, account)
    return margin.equity(account)


def remark(exchange: Exchange, price: int, call: int) -> None:
    """New marks of the first underlying alone."""
    exchange.feeds(price)
    assert exchange.surface(call >> 12 & 0xFFFF, forward=price, index=price).reason is Reason.OK
    assert exchange.risk(call).reason is Reason.OK


def prepared() -> tuple[Exchange, int, int]:
    """`short` has sold 30 calls to `long`, which has what was free of it, and one lot on the silent underlying."""
    exchange = Exchange(audits=False, **CALM)
    (call,) = exchange.open((TODAY + 2, INDEX, 0))
    exchange.feeds(INDEX, underlying=1)
    other = exchange.list(FAR, underlying=1)
    assert exchange.surface(FAR, underlying=1).reason is Reason.OK
    assert exchange.risk(other).reason is Reason.OK
    for role, usd in (
        *(("treasury", 1), ("honest", 1_000_000), ("long", 300_000), ("short", 300_000), ("third", 1_000)),
        ("bot", 3_000_000),
    ):
        exchange.deposit(role, usd)
    exchange.trade("long", "short", call, exchange.mark(call), 300_000)
    exchange.trade("short", "third", other, exchange.mark(other), 1)
    exchange.tick(1)
    account = exchange.account("short")
    margin.refresh(exchange.state, account)
    assert exchange.transfer("short", "long", margin.free(exchange.state, account) - 1).reason is Reason.OK
    for _ in range(6):
        exchange.tick(SILENT_S // 6)
        remark(exchange, INDEX, call)
    return exchange, call, other


@pytest.mark.parametrize("kind", [Kind.LIQUIDATE, Kind.FORCED_LIQUIDATE])
def test_account__behind_a_lot_that_nobody_can_mark__is_liquidated_in_time(kind: Kind) -> None:
    exchange, call, other = prepared()
    number = {"account": exchange.numbers["short"]}
    assert exchange.system(kind, **number).reason is Reason.HEALTHY
    price = INDEX
    while (out := exchange.system(kind, **number)).reason is Reason.HEALTHY:
        price += 50_000
        remark(exchange, price, call)
    assert out.reason is Reason.OK
    assert equity(exchange, "short") > 0
    exchange.tick(60)
    while exchange.account("short").auction_start and call in exchange.account("short").positions:
        assert exchange.bid("bot", "short", 64).reason is Reason.OK
        if exchange.account("short").positions[call] > -50_000:
            break
    remark(exchange, price + 300_000, call)
    assert equity(exchange, "short") > 0
    assert exchange.position("short", other) == 1  # what has no fresh mark stays
    assert exchange.position("bot", other) == 0
    assert (exchange.state.globals.holes, exchange.state.globals.deficit) == (0, 0)


def test_account__that_nobody_has_liquidated__is_paid_for_by_its_winner_too() -> None:
    exchange, call, _ = prepared()
    remark(exchange, 7_000_000, call)
    loss = -equity(exchange, "short")
    assert loss > 250_000 * USD
    g = exchange.state.globals
    assert exchange.liquidate("short").reason is Reason.OK
    assert g.holes == loss
    worth = (g.pool + g.fund) / (g.pool + loss)
    day = TODAY + 2
    exchange.expire(day, 7_000_000)
    for role in ("long", "short"):
        assert exchange.settle(role, day).reason is Reason.OK
    claim = exchange.account("long").cash
    out = exchange.withdraw("long", claim)
    assert out.reason is Reason.OK
    assert out.amount < claim * 0.95
    assert abs(out.amount / claim - worth) < 0.01
    cash = exchange.account("honest").cash
    assert abs(exchange.withdraw("honest", cash).amount / cash - out.amount / claim) < 1e-9
    assert g.pool >= 0
