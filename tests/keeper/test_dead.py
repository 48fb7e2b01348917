"""Dead orders are found by what has changed: in parts, none before its time, and the index stays small."""

import sys
from collections import Counter
from pathlib import Path
from random import Random

import pytest

from sequencer.keeper.dead import CLEAN_MIN, CLEANED_AT_PUSH, DeadOrders, OrderKey, _Heap
from sequencer.keeper.keeper import Keeper
from sequencer.protocol import constants as c
from sequencer.protocol import margin
from sequencer.protocol.book import Order
from sequencer.protocol.constants import Kind, Reason
from sequencer.protocol.state import expiry_time

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "protocol"))
from exchange import CALM, INDEX, NEAR, Exchange


def watched(exchange: Exchange) -> DeadOrders:
    """The index of an exchange."""
    return DeadOrders(exchange.state, *exchange.state.watch(1))


def world() -> tuple[Exchange, int]:
    """Two people with money and a call."""
    exchange = Exchange(audits=False, **CALM)
    (call,) = exchange.open((NEAR, INDEX, 0))
    for role in ("treasury", "maker", "taker"):
        exchange.deposit(role, 1_000_000)
    return exchange, call


def test_orders__that_were_cancelled__leave_the_index_before_their_time() -> None:
    exchange, call = world()
    state = exchange.state
    orders = watched(exchange)
    for seq in range(20 * CLEAN_MIN):
        order = Order(1, call, c.SELL, INDEX, seq, 1, state.globals.time + 60, 0, 0)
        state.insert_order(order)
        orders.update()
        if seq % 64:
            state.remove_order(order)
    assert len(orders._timed) <= 2 * CLEAN_MIN
    assert all(len(heap) <= 2 * CLEAN_MIN for heap in orders._needs.values())
    found = orders.dead(state.globals.time + 60, 2_000)
    assert len(found) == 20 * CLEAN_MIN // 64


class Book:
    """What is there of orders, and how often it was looked at."""

    def __init__(self) -> None:
        self.resting: dict[OrderKey, None] = {}
        self.looks = 0

    def find_order(self, *key: int) -> object:
        self.looks += 1
        return True if key in self.resting else None


@pytest.mark.parametrize("seed", range(2))
def test_heap__after_any_pushes_and_pops__gives_the_least_and_cleans_a_few_at_a_time(seed: int) -> None:
    rng = Random(seed)
    book = Book()
    heap = _Heap(book)  # type: ignore[arg-type]  # all that it asks of a state
    entries: Counter[tuple[int, OrderKey]] = Counter()
    longest = 0
    for step in range(16 * CLEAN_MIN):
        action = rng.random()
        if action < 0.65:
            key = (1, 0, rng.randrange(5_000), step % 5_000)
            bound = rng.randrange(10**6)
            book.resting[key] = None
            before = book.looks
            heap.push(bound, key)
            assert book.looks - before <= CLEANED_AT_PUSH
            entries[bound, key] += 1
        elif action < 0.99 and book.resting:
            del book.resting[next(iter(book.resting))]
        else:
            bound = rng.randrange(60_000)
            while (found := heap.pop(bound)) is not None:
                known = [one for one in entries if one[1] == found and one[0] <= bound]
                assert known
                entries -= Counter(known[:1])
            assert not [one for one in entries if one[0] <= bound and one[1] in book.resting]
        longest = max(longest, len(heap))
    assert longest < 3 * max(CLEAN_MIN, len(book.resting)) + CLEAN_MIN


def test_dead_orders__come_in_parts_and_none_keeps_the_other_kind_back() -> None:
    exchange = Exchange(audits=False, **CALM)
    near, later = exchange.open((NEAR, INDEX, 0), (NEAR + 1, INDEX, 0))
    exchange.deposit("maker", 1_000_000)
    state = exchange.state
    expiry = expiry_time(NEAR)
    for seq in range(200):
        instrument, expires = ((near, 0), (later, expiry))[seq % 2]
        state.insert_order(Order(1, instrument, c.BUY, INDEX, seq, 1, expires))
    orders = watched(exchange)
    assert orders.dead(expiry - 1, 10) == []
    taken = 0
    while found := orders.dead(expiry, 10):
        assert len(found) <= 10
        taken += len(found)
        if taken == 10:
            assert min(Counter(one[0] for one in found).values()) >= 3
        for key in found:
            resting = state.find_order(*key)
            assert resting is not None
            state.remove_order(resting)
    assert taken == 200


def test_cancel_all__of_thousands__is_swept_a_bound_a_second_and_its_owner_pays_for_each() -> None:
    exchange, call = world()
    state = exchange.state
    keeper = Keeper(state)
    count = keeper.config.sweeps_max + 40
    for _ in range(count):
        assert exchange.buy("maker", call, 100, 1).reason is Reason.OK
    treasury, cash = state.globals.treasury, exchange.account("maker").cash
    exchange.cancel_all("maker")
    now = state.globals.time
    first = keeper.sweeps(now)
    assert len(first) == keeper.config.sweeps_max
    for raw in first:
        assert exchange.apply(raw).reason is Reason.OK
    assert keeper.sweeps(now) == []  # no more in this second, however many ticks
    rest = keeper.sweeps(now + 1)
    assert len(rest) == 40
    for raw in rest:
        assert exchange.apply(raw).reason is Reason.OK
    assert keeper.sweeps(now + 1) == []
    paid = cash - exchange.account("maker").cash
    assert paid == count * state.params.order_hold == state.globals.treasury - treasury


def test_sells__die_and_live_with_the_marks_and_are_found_when_these_move() -> None:
    exchange, call = world()
    state = exchange.state
    assert exchange.sell("maker", call, exchange.mark(call), 10).reason is Reason.OK
    orders = watched(exchange)
    now = state.globals.time
    assert orders.dead(now, 10) == []
    exchange.remark(INDEX * 13 // 10)
    orders.update()
    (key,) = orders.dead(now, 10)
    order = state.find_order(*key)
    assert order is not None
    assert not margin.is_backed(state, state.pages[call >> 5], exchange.account("maker"), order)
    exchange.remark(INDEX)  # nobody has swept it, and it lives again
    orders.update()
    assert orders.dead(now, 10) == []
    exchange.remark(INDEX * 13 // 10)
    orders.update()
    assert orders.dead(now, 10) == [key]


def test_reduce_only__with_nothing_left__is_found_when_the_position_is_gone() -> None:
    exchange, call = world()
    state = exchange.state
    mark = exchange.mark(call)
    exchange.trade("maker", "taker", call, mark, 100)
    assert exchange.sell("maker", call, mark * 2, 50, flags=c.FLAG_REDUCE_ONLY).reason is Reason.OK
    orders = watched(exchange)
    assert orders.dead(state.globals.time, 10) == []
    exchange.trade("taker", "maker", call, mark, 100)
    orders.update()
    (key,) = orders.dead(state.globals.time, 10)
    sweep = dict(zip(("instrument", "side", "price", "seq"), key, strict=True))
    exchange.tick(1)
    assert exchange.unsigned(Kind.SWEEP, **sweep).reason is Reason.OK
    orders.update()
    assert orders.dead(state.globals.time, 10) == []
