"""Fees that leave the pool at par while a deficit makes all claims worth less.

Whoever owns the treasury turned its own claims, worth 50 %, into treasury money one for one: 5,670 USD of fees from a
backlog of its own became 5,670 USD. Now they become 2,835, what a withdrawal would have paid, and COLLECT is a deposit.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "protocol"))
from exchange import FAR, INDEX, USD, Exchange

from sequencer.protocol import constants as c
from sequencer.protocol.constants import Kind, Reason


def test_owner_of_the_treasury__under_a_deficit__gets_no_more_by_fees_than_by_withdrawals() -> None:
    exchange = Exchange()
    (call,) = exchange.open((FAR, INDEX, 0))
    for role in ("operator", "honest"):  # account 1 is the treasury's
        exchange.deposit(role, 500_000)
    g = exchange.state.globals
    g.deficit = g.pool
    for role in ("operator", "honest"):
        exchange.account(role).cash *= 2
    g.excess = 318_000  # a backlog of the operator's own
    claims = exchange.account("operator").cash
    for _ in range(100):
        assert exchange.buy("operator", call, 1, 1, tif=c.TIF_IOC).reason is Reason.OK
    paid = claims - exchange.account("operator").cash
    assert paid > 400 * USD
    assert paid // 2 - 100 <= g.treasury <= paid // 2
    assert 0 <= 2 * g.pool - (g.pool + g.deficit) <= 200  # the honest one's claim is still worth its half
    out = exchange.system(Kind.COLLECT)
    assert out.reason is Reason.OK
    assert exchange.account("operator").cash <= claims
    value = exchange.withdraw("operator", exchange.account("operator").cash).amount
    assert value <= 500_000 * USD
    assert exchange.withdraw("honest", exchange.account("honest").cash).amount >= 500_000 * USD - 1
