"""What positions are closed at after a freeze, by the state alone; and where nobody has renewed the marks."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "protocol"))

from exchange import FAR, INDEX, NEAR, Exchange

from sequencer.proof.exit import (
    closing_price,
    closing_value,
    expiry_price,
    has_passed,
    marks_age_s,
    passed_expiries,
)
from sequencer.protocol import constants as c
from sequencer.protocol.constants import Kind, Reason
from sequencer.protocol.state import expiry_time


@pytest.fixture
def exchange() -> Exchange:
    one = Exchange()
    one.deposit("house", 10)
    one.deposit("maker", 500_000)
    one.deposit("buyer", 100_000)
    near, far = one.open((NEAR, INDEX, 0), (FAR, INDEX, 1))
    for instrument in (near, far):
        one.trade("buyer", "maker", instrument, one.mark(instrument) + 100, 10_000)
    return one


def total(exchange: Exchange) -> int:
    return sum(closing_value(exchange.state, one) for one in exchange.state.accounts.values())


def test_closing_price__is_the_mark_until_the_expiry_and_intrinsic_then(exchange: Exchange) -> None:
    state = exchange.state
    near, far = sorted(exchange.account("buyer").positions)
    g = state.globals
    assert [closing_price(state, one) for one in (near, far)] == [exchange.mark(near), exchange.mark(far)]
    exchange.tick_at(expiry_time(NEAR) - 1)
    assert closing_price(state, near) == exchange.mark(near) > 0
    exchange.tick_at(expiry_time(NEAR))
    assert has_passed(state, NEAR)
    assert not has_passed(state, FAR)
    assert passed_expiries(state) == [NEAR]
    assert (closing_price(state, near), expiry_price(state, NEAR)) == (0, INDEX)  # the index, at the money
    assert closing_price(state, far) == exchange.mark(far)
    assert total(exchange) == g.pool + g.deficit


def test_expiry_price__with_both_snapshots__is_what_fix_sets_and_settling_changes_no_value(
    exchange: Exchange,
) -> None:
    state = exchange.state
    for time, price in ((expiry_time(NEAR) - c.TWAP_S, INDEX), (expiry_time(NEAR), INDEX + 50_001)):
        exchange.tick_at(time)
        assert exchange.feed(price).reason is Reason.OK
    exchange.tick(60)
    assert exchange.feed(INDEX * 2).reason is Reason.OK  # later: the index is another one
    expected = expiry_price(state, NEAR)
    values = [closing_value(state, one) for one in state.accounts.values()]
    assert exchange.system(Kind.FIX, underlying=0, day=NEAR).reason is Reason.OK
    assert state.expiries[NEAR].settlement == expiry_price(state, NEAR) == expected == INDEX
    assert [closing_value(state, one) for one in state.accounts.values()] == values
    assert exchange.settle("buyer", NEAR).reason is Reason.OK  # and the maker is not
    assert [closing_value(state, one) for one in state.accounts.values()] == values
    assert total(exchange) == state.globals.pool + state.globals.deficit


def test_marks_age__is_that_of_the_oldest_at_which_a_freeze_would_close_positions(exchange: Exchange) -> None:
    state = exchange.state
    near, far = sorted(exchange.account("buyer").positions)
    exchange.tick_at(state.pages[near >> 5].time + 5_000)
    assert marks_age_s(state) == 5_000
    exchange.feeds(INDEX)
    exchange.resurface()
    assert exchange.risk(near).reason is Reason.OK
    assert marks_age_s(state) == 5_001  # a leader that leaves out RISK of single pages
    assert exchange.risk(far).reason is Reason.OK
    assert marks_age_s(state) == 0
    exchange.tick_at(expiry_time(NEAR))
    assert marks_age_s(state) == expiry_time(NEAR) - state.pages[far >> 5].time
    exchange.tick_at(expiry_time(FAR))
    assert marks_age_s(state) == 0  # what has expired has a price


def test_marks_age__without_positions__is_none(exchange: Exchange) -> None:
    exchange.tick(86_400 * 10)
    assert marks_age_s(exchange.state) > 0
    for number, account in list(exchange.state.accounts.items()):
        account.positions.clear()
        exchange.state.put_account(number, account)
    assert marks_age_s(exchange.state) == 0
