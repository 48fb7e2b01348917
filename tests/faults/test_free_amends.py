"""Amendments that cost their owner nothing and everybody else a record each.

Less of an order, or as much, keeps its place whatever margin says, and paid out of cash that was there: nothing, where
there is none. Whoever held an option and had withdrawn its cash could amend one order for ever: 868 times a second are
all the work that L1 lets a watcher do (33,000 units, 38 each), and 108 kB of records, for 0 USD. So what stays in the
book pays its record in full, out of cash or of the reserve that it frees.
"""

import sys
from pathlib import Path

import pytest

from sequencer.protocol import margin
from sequencer.protocol.book import Order
from sequencer.protocol.constants import Kind, Reason

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "protocol"))
from exchange import CALM, CONTRACT, FAR, INDEX, Exchange

COUNT = 20
BID = 100  # ticks, which is what a lot of it reserves: 0.0001 USD, a fee


@pytest.fixture
def exchange() -> Exchange:
    """Somebody with an option that is worth more than it needs."""
    one = Exchange(**CALM)
    (call,) = one.open((FAR, INDEX, 0))
    for role, usd in (("treasury", 1), ("maker", 1_000_000), ("flooder", 10_000)):
        one.deposit(role, usd)
    one.trade("flooder", "maker", call, one.mark(call), CONTRACT)
    return one


@pytest.fixture
def order(exchange: Exchange) -> Order:
    """Its bid; all its cash is withdrawn."""
    order = exchange.buy("flooder", exchange.state.instruments[FAR << 32 | INDEX], BID, 9).rested
    assert order is not None
    cash = exchange.account("flooder").cash
    assert exchange.withdraw("flooder", cash).reason is Reason.OK
    assert exchange.account("flooder").cash == 0
    return order


def free(exchange: Exchange) -> int:
    account = exchange.account("flooder")
    margin.refresh(exchange.state, account)
    return margin.free(exchange.state, account)


def test_amend__that_frees_nothing__is_refused_where_there_is_no_cash(
    exchange: Exchange, order: Order
) -> None:
    outs = [exchange.amend("flooder", order, 9) for _ in range(COUNT)]
    assert {out.reason for out in outs} == {Reason.MARGIN}
    assert (order.quantity, exchange.account("flooder").cash) == (9, 0)
    call = {"side": 0, "price": BID, "seq": order.seq}
    assert exchange.cancel("flooder", order.instrument, **call).reason is Reason.OK


def test_amend__that_frees_its_fee__pays_it_and_uses_no_margin(exchange: Exchange, order: Order) -> None:
    fee = exchange.state.params.sequencing_fee_min
    treasury, before = exchange.state.globals.treasury, free(exchange)
    for left in (8, 7, 6):
        out = exchange.amend("flooder", order, left)
        assert (out.reason, out.fee, order.quantity) == (Reason.OK, fee, left)
    assert exchange.account("flooder").cash == -3 * fee
    assert free(exchange) >= before
    assert exchange.state.globals.treasury == treasury + 3 * fee
    assert exchange.amend("flooder", order, 6).reason is Reason.MARGIN


def test_amends__of_any_number__pay_for_themselves_or_end_the_order(exchange: Exchange, order: Order) -> None:
    """What could still be free is once an order, as CANCEL is: a total that has traded."""
    exchange.sell("maker", order.instrument, BID, 5)
    exchange.account("maker").cash += exchange.account("flooder").cash  # as if it had lost it
    exchange.account("flooder").cash = 0
    fee, treasury, taken = exchange.state.params.sequencing_fee_min, exchange.state.globals.treasury, 0
    for total in (9, 9, 8, 8, 7, 6, 6, 6):
        taken += exchange.amend("flooder", order, total).reason is Reason.OK
    assert taken == 3
    assert exchange.state.globals.treasury == treasury + taken * fee
    assert exchange.amend("flooder", order, 5).removed == [order]
    assert exchange.amend("flooder", order, 5).reason is Reason.UNKNOWN_ORDER
    assert exchange.submit(Kind.CANCEL_ALL, "flooder", nonce_floor=0).reason is Reason.OK
