"""Orders that cost their owner nothing and the exchange a record each.

An ask far above the market reserves nothing, and a bid of one lot at a tick a millionth of a dollar. With the fee of
their PLACE alone, 0.0001 USD, 60,000 of them cost 6 USD, and their SWEEPs 60,000 records, 1.9 MB, 33 million gas of
calldata; CANCEL_ALL and a withdrawal leave nothing behind that could pay. So each leaf holds the price of its SWEEP
(`order_hold`) until it is gone, whoever ends it: 66 USD for 60,000, which cannot be withdrawn before.
"""

import sys
from pathlib import Path

import pytest

from sequencer.protocol import constants as c
from sequencer.protocol import margin
from sequencer.protocol.constants import Kind, Reason
from sequencer.protocol.state import expiry_time

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "protocol"))
from exchange import CALM, FAR, INDEX, NEAR, USD, Exchange

COUNT = 40
P = 300_000


@pytest.fixture
def exchange() -> Exchange:
    """A flooder with a dollar, and others."""
    one = Exchange(**CALM)
    one.open((NEAR, INDEX, 0), (FAR, INDEX, 0))
    one.deposit("treasury", 1)
    one.deposit("flooder", 1)
    for role in ("maker", "taker"):
        one.deposit(role, 1_000_000)
    return one


def call(exchange: Exchange, day: int = NEAR) -> int:
    return exchange.state.instruments[day << 32 | INDEX]


def hold(exchange: Exchange) -> int:
    return exchange.state.params.order_hold


def free(exchange: Exchange, role: str) -> int:
    account = exchange.account(role)
    margin.refresh(exchange.state, account)
    return margin.free(exchange.state, account)


def flood(exchange: Exchange) -> list[int]:
    """Asks of one lot at twice the index; their sequence numbers."""
    out = [exchange.sell("flooder", call(exchange), 2 * INDEX + place, 1) for place in range(COUNT)]
    assert {one.reason for one in out} == {Reason.OK}
    return [one.seq for one in out]


def sweep(exchange: Exchange, place: int, seq: int) -> Reason:
    out = exchange.system(
        Kind.SWEEP, instrument=call(exchange), side=c.SELL, price=2 * INDEX + place, seq=seq
    )
    return out.reason


def test_far_orders__hold_the_price_of_their_sweeps_and_pay_it(exchange: Exchange) -> None:
    before, fees = exchange.account("flooder").cash, exchange.state.params.sequencing_fee_min * COUNT
    seqs = flood(exchange)
    assert exchange.account("flooder").reserved == 0
    assert free(exchange, "flooder") == before - fees - COUNT * hold(exchange)
    exchange.tick_at(expiry_time(NEAR))
    treasury = exchange.state.globals.treasury
    for place, seq in enumerate(seqs):
        assert sweep(exchange, place, seq) is Reason.OK
    assert exchange.account("flooder").cash == before - fees - COUNT * hold(exchange)
    assert exchange.account("flooder").orders == 0
    assert exchange.state.globals.treasury == treasury + COUNT * hold(exchange)


def test_far_orders__that_are_cancelled_at_once__hold_it_all_the_same(exchange: Exchange) -> None:
    """CANCEL_ALL is one record, and leaves as many leaves; what they hold cannot be taken away."""
    seqs = flood(exchange)
    exchange.cancel_all("flooder")
    cash = exchange.account("flooder").cash
    assert exchange.withdraw("flooder", cash - COUNT * hold(exchange) + 1).reason is Reason.MARGIN
    assert exchange.withdraw("flooder", cash - COUNT * hold(exchange)).reason is Reason.OK
    assert exchange.sell("flooder", call(exchange), 2 * INDEX, 1).reason is Reason.MARGIN
    for place, seq in enumerate(seqs):
        assert sweep(exchange, place, seq) is Reason.OK
    assert exchange.account("flooder").cash == 0


def test_orders__that_their_owner_cancels__cost_nothing_but_their_places(exchange: Exchange) -> None:
    seqs = flood(exchange)
    cash = exchange.account("flooder").cash
    for place, seq in enumerate(seqs):
        out = exchange.cancel("flooder", call(exchange), c.SELL, 2 * INDEX + place, seq)
        assert out.reason is Reason.OK
    assert free(exchange, "flooder") == exchange.account("flooder").cash == cash


def test_orders__that_trade__hold_nothing_any_more(exchange: Exchange) -> None:
    far = call(exchange, FAR)
    exchange.buy("maker", far, P, 10)
    assert exchange.account("maker").orders == 1
    exchange.sell("taker", far, P, 4, tif=c.TIF_IOC)
    assert exchange.account("maker").orders == 1
    exchange.sell("taker", far, P, 9)
    assert (exchange.account("maker").orders, exchange.account("taker").orders) == (0, 1)


def test_dead_orders__that_a_taker_meets__hold_nothing_any_more(exchange: Exchange) -> None:
    """One ended by its owner's floor, one past its time, one of the taker's own."""
    far = call(exchange, FAR)
    exchange.sell("maker", far, P, 1)
    exchange.cancel_all("maker")
    exchange.sell("maker", far, P + 1, 1, expires=exchange.state.globals.time + 1)
    exchange.sell("taker", far, P + 2, 1)
    assert (exchange.account("maker").orders, exchange.account("taker").orders) == (2, 1)
    exchange.tick(1)
    assert exchange.buy("taker", far, P + 2, 1).rested is not None
    assert (exchange.account("maker").orders, exchange.account("taker").orders) == (0, 1)


def test_sweep__takes_no_more_than_the_cash_that_is_there(exchange: Exchange) -> None:
    """Who owes is not made to owe more for it: others would pay."""
    seqs = flood(exchange)
    exchange.tick_at(expiry_time(NEAR))
    account = exchange.account("flooder")
    for cash, left in ((5, 0), (0, 0), (-USD, -USD)):
        exchange.account("maker").cash += account.cash - cash  # as if it had lost it
        account.cash = cash
        exchange.state.put_account(exchange.numbers["flooder"], account)
        assert sweep(exchange, len(seqs) - 1, seqs.pop()) is Reason.OK
        account = exchange.account("flooder")
        assert account.cash == left
