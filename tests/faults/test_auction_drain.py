"""Two accounts of one owner, with opposite positions; one falls below MM, the other takes it at a discount.

When the discount on a slice could exceed the part of the equity that goes with it, nobody else bid for 15 minutes (or
their bids were left out) and the friend paid itself IM that was no longer there: profit 318,946 USD of 1.5M, paid by
fund and deficit. With the discount bounded by equity / IM: 0.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "protocol"))
from exchange import CALM, FAR, INDEX, USD, Exchange

from sequencer.protocol import margin
from sequencer.protocol.constants import Reason


def equity(exchange: Exchange, role: str) -> int:
    account = exchange.account(role)
    margin.refresh(exchange.state, account)
    return margin.equity(account)


def free(exchange: Exchange, role: str) -> int:
    account = exchange.account(role)
    margin.refresh(exchange.state, account)
    return margin.free(exchange.state, account)


def prepared() -> Exchange:
    """`mine` has sold 200 calls to `friend`, and has given it all that is free."""
    exchange = Exchange(audits=False, **CALM)
    (call,) = exchange.open((FAR, INDEX, 0))
    for role, usd in (("treasury", 1), ("honest", 5_000_000), ("mine", 1_500_000), ("friend", 1_500_000)):
        exchange.deposit(role, usd)
    exchange.trade("friend", "mine", call, exchange.mark(call), 2_000_000)
    exchange.tick(1)
    assert exchange.transfer("mine", "friend", free(exchange, "mine")).reason is Reason.OK
    price = INDEX
    while exchange.liquidate("mine").reason is Reason.HEALTHY:
        price += 10_000
        exchange.remark(price)
    exchange.tick(exchange.state.params.auction_duration_s)
    exchange.remark(price)
    return exchange


def test_friend__that_takes_an_account_after_the_clock_has_run__gains_what_the_account_loses() -> None:
    exchange = prepared()
    g = exchange.state.globals
    before = sum(equity(exchange, role) for role in ("mine", "friend"))
    assert equity(exchange, "mine") > 10**12
    funded = g.fund
    for fraction in (64, 64, 256):
        assert exchange.bid("friend", "mine", fraction).reason is Reason.OK
        after = sum(equity(exchange, role) for role in ("mine", "friend"))
        assert after <= before
    assert exchange.account("mine").positions == {}
    assert (g.deficit, g.holes) == (0, 0)
    assert g.fund >= funded
    out = exchange.withdraw("friend", exchange.account("friend").cash)
    assert out.reason is Reason.OK
    assert exchange.withdraw("honest", exchange.account("honest").cash).amount >= 5_000_000 * USD


def test_friend__that_waits_for_the_insolvency__is_paid_nothing_beyond_the_marks() -> None:
    exchange = prepared()
    price = exchange.state.underlyings[0].index
    while equity(exchange, "mine") > 0:
        price += 100_000
        exchange.remark(price)
    before = equity(exchange, "friend")
    assert exchange.bid("friend", "mine", 256).reason is Reason.OK
    assert equity(exchange, "friend") == before
