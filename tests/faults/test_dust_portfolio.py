"""Positions of less than four lots, of which a bid for a quarter moved nothing: floor(3 x 64 / 256) = 0.

No account of 64 such positions could be sold while it was solvent, and its clock ran: once insolvent it went to a
friend at full discount, 186 USD of 2,000, paid by fund and deficit. Parts round up now: 0.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "protocol"))
from exchange import CALM, FAR, INDEX, Exchange

from sequencer.protocol import margin
from sequencer.protocol.constants import Reason


def test_dust__is_sold_while_it_is_solvent() -> None:
    exchange = Exchange(audits=False, **CALM)
    strikes = [INDEX + 50_000 * step for step in range(-16, 16)]
    instruments = exchange.open(*((day, strike, 0) for day in (FAR, FAR + 1) for strike in strikes))
    for role, usd in (("treasury", 1), ("other", 20_000), ("debtor", 150), ("bot", 100_000)):
        exchange.deposit(role, usd)
    for one in instruments:
        exchange.trade("other", "debtor", one, exchange.mark(one), 3)
    price = INDEX
    while exchange.liquidate("debtor").reason is Reason.HEALTHY:
        price += 10_000
        exchange.remark(price)
    exchange.tick(45)
    debtor = exchange.account("debtor")
    bids = 0
    while exchange.account("debtor").auction_start:
        margin.refresh(exchange.state, debtor)
        assert margin.equity(debtor) > 0
        equity, risk = margin.equity(debtor), margin.initial(exchange.state, debtor)
        out = exchange.bid("bot", "debtor", 64)
        assert out.reason is Reason.OK
        debtor = exchange.account("debtor")
        margin.refresh(exchange.state, debtor)
        assert margin.equity(debtor) * risk >= equity * margin.initial(exchange.state, debtor)
        bids += 1
    assert bids <= 3
    assert (exchange.state.globals.deficit, exchange.state.globals.holes) == (0, 0)
