"""Ticks, classes, the sequencing fee, states of the queue, the velocity breaker."""

import sys
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sequencer.protocol import constants as c
from sequencer.protocol import queue
from sequencer.protocol.constants import Kind, QueueState, Reason

sys.path.insert(0, str(Path(__file__).resolve().parent))
from exchange import FAR, INDEX, Exchange, examples

P = 300_000


def test_tick__counts_and_never_goes_back() -> None:
    exchange = Exchange()
    g = exchange.state.globals
    assert (g.tick, g.last_class) == (1, 0)
    assert exchange.tick(0).reason is Reason.OK
    assert exchange.tick(-1).reason is Reason.TIME_BACKWARDS
    assert g.tick == 2
    assert exchange.tick_at(c.U32_MAX).reason is Reason.OK
    assert exchange.tick(0).reason is Reason.OK


def test_tick__at_the_last_number__stands_there() -> None:
    exchange = Exchange()
    exchange.state.globals.tick = c.U40_MAX
    assert exchange.tick(1).reason is Reason.OK
    assert exchange.state.globals.tick == c.U40_MAX


def test_class__lower_after_higher_in_one_tick__is_refused() -> None:
    exchange = Exchange()
    (call,) = exchange.open((FAR, INDEX, 0))
    exchange.deposit("treasury", 1)
    exchange.deposit("maker", 100_000)
    assert exchange.cancel_all("maker").reason is Reason.OK  # class 1
    assert exchange.unsigned(Kind.COLLECT).reason is Reason.CLASS_ORDER
    assert exchange.buy("maker", call, P, 1, flags=c.FLAG_POST_ONLY).reason is Reason.OK  # class 2
    sweep = {"instrument": call, "side": 0, "price": P, "seq": 0}
    assert exchange.unsigned(Kind.SWEEP, **sweep).reason is Reason.CLASS_ORDER
    assert exchange.buy("maker", call, P, 1).reason is Reason.OK  # class 3
    raw = exchange.signed(
        Kind.PLACE, "maker", account=2, instrument=call, flags=c.FLAG_POST_ONLY, price=P, quantity=1, nonce=50,
        expires=0, fee_max=9,
    )  # fmt: skip
    assert exchange.apply(raw).reason is Reason.CLASS_ORDER
    exchange.tick()
    assert exchange.apply(raw).reason is Reason.OK


def test_class__of_a_refused_record__holds_nobody_back() -> None:
    exchange = Exchange()
    (call,) = exchange.open((FAR, INDEX, 0))
    exchange.deposit("treasury", 1)
    assert exchange.buy("treasury", call, P, 10**9).reason is Reason.MARGIN
    assert exchange.state.globals.last_class == c.CLASS_SYSTEM


@settings(max_examples=examples(200))
@given(
    st.one_of(st.integers(0, 500_000), st.sampled_from([c.U40_MAX])),
    st.integers(0, 2**32 - 1),
    st.integers(1, 2**32 - 1),
)
def test_sequencing_fee__is_linear_between_doublings(excess: int, least: int, step: int) -> None:
    exchange = Exchange(audits=False, sequencing_fee_min=least, fee_doubling_excess=step)
    exchange.state.globals.excess = excess
    whole = excess // step
    within = least * 2 ** min(whole, 20) * (1 + Fraction(excess - whole * step, step))
    expected = least * 2**20 if whole >= 20 else int(within)
    assert queue.sequencing_fee(exchange.state) == expected


def test_backlog__grows_with_orders_and_drains_with_time() -> None:
    exchange = Exchange(target_per_s=2)
    (call,) = exchange.open((FAR, INDEX, 0))
    exchange.deposit("treasury", 100_000)
    for _ in range(5):
        exchange.buy("treasury", call, P, 1)
    exchange.buy("treasury", call, P, 10**9)  # refused: not counted
    assert exchange.state.globals.excess == 5
    exchange.tick(2)
    assert exchange.state.globals.excess == 1
    exchange.tick(2)
    assert exchange.state.globals.excess == 0


def test_states__follow_the_backlog_up_and_down() -> None:
    exchange = Exchange(target_per_s=1, congested_excess=2, restricted_excess=4)
    (call,) = exchange.open((FAR, INDEX, 0))
    exchange.deposit("treasury", 100_000)
    seen = []
    for _ in range(4):
        exchange.buy("treasury", call, P, 1)
        seen.append(exchange.state.globals.queue_state)
    assert seen == [QueueState.NORMAL, QueueState.CONGESTED, QueueState.CONGESTED, QueueState.RESTRICTED]
    assert exchange.buy("treasury", call, P, 1).reason is Reason.RESTRICTED
    assert exchange.withdraw("treasury", 1).reason is Reason.OK
    exchange.tick(1)
    assert exchange.state.globals.queue_state == QueueState.CONGESTED
    exchange.tick(2)
    assert exchange.state.globals.queue_state == QueueState.NORMAL


@pytest.mark.parametrize(
    ("change_ppm", "level"),
    [
        (79_999, QueueState.NORMAL),
        (80_000, QueueState.RESTRICTED),
        (-80_000, QueueState.RESTRICTED),
        (199_999, QueueState.RESTRICTED),
        (-200_000, QueueState.HALTED),
        (200_000, QueueState.HALTED),
    ],
)
def test_breaker__measures_from_the_windows_reference(change_ppm: int, level: QueueState) -> None:
    exchange = Exchange()
    exchange.feed(1_000_000)
    exchange.tick(1)
    exchange.feed(1_000_000 + change_ppm)
    assert exchange.state.globals.queue_state == level


def test_breaker__resumes_on_a_calm_price_after_the_cool_down_only() -> None:
    exchange = Exchange()
    exchange.feed(1_000_000)
    exchange.tick(10)
    exchange.feed(1_250_000)
    g = exchange.state.globals
    assert (g.breaker_level, g.breaker_until) == (QueueState.HALTED, g.time + 120)
    exchange.tick(60)
    exchange.feed(1_000_000)  # calm, but too early; by the first of them the price is still the other two's
    assert (g.queue_state, g.breaker_until) == (QueueState.HALTED, g.time + 120)
    exchange.tick(120)
    assert g.queue_state == QueueState.HALTED  # time alone does not resume
    exchange.feed(1_001_000)
    assert g.queue_state == QueueState.NORMAL


def test_breaker__once_halted__is_not_softened_by_a_smaller_distance() -> None:
    exchange = Exchange()
    exchange.feed(1_000_000)
    exchange.tick(1)
    exchange.feed(1_250_000)
    exchange.tick(200)
    exchange.feed(1_100_000)
    assert exchange.state.globals.queue_state == QueueState.HALTED


def test_breaker__at_the_turn_of_a_window__sees_the_jump_that_opens_it() -> None:
    exchange = Exchange()
    exchange.feed(1_000_000)
    exchange.tick(300)
    exchange.feed(1_500_000)
    assert exchange.state.globals.queue_state == QueueState.HALTED


def test_breaker__of_a_slow_walk__stays_calm() -> None:
    exchange = Exchange()
    price = 1_000_000
    for _ in range(20):
        exchange.feed(price)
        exchange.tick(300)
        price = price * 107 // 100
    assert exchange.state.globals.queue_state == QueueState.NORMAL


def test_breaker__near_the_end_of_time__fits_its_word() -> None:
    exchange = Exchange()
    exchange.feed(1_000_000)
    exchange.tick_at(c.U32_MAX)
    exchange.feed(2_000_000)
    assert exchange.state.globals.breaker_until == c.U32_MAX
