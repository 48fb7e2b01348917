"""The budget of work: what batches of one block, and of a time, may cost a watcher together."""

from itertools import count
from typing import Any

import boa
import pytest
from contract_support import Batch, Exchange, deploy_exchange, reverts

from sequencer.protocol import constants as c
from sequencer.protocol import work

PER_S = 1_000
MOST = 50_000
ROLE = "0x" + "c4" * 20


@pytest.fixture
def exchange(sequencer: Any) -> Exchange:
    return deploy_exchange(sequencer, work_per_s=PER_S, work_max=MOST)


class Leader:
    """Posts batches whose records cost so much."""

    def __init__(self, exchange: Exchange, sequencer: Any) -> None:
        self.exchange = exchange
        self.sequencer = sequencer
        self.roots = count(1)

    def post(self, units: int) -> None:
        rollup = self.exchange.rollup
        number = rollup.next_batch()
        _, _, before = rollup.budget()
        root = bytes([next(self.roots)]) * 32
        batch = Batch(number, root, first_seq=rollup.tip()[0], work=before + units)
        meant = batch.upon(rollup, self.exchange.inbox)
        rollup.post(*meant.arguments(), sender=self.sequencer)


@pytest.fixture
def leader(exchange: Exchange, sequencer: Any) -> Leader:
    return Leader(exchange, sequencer)


def test_post__above_the_budget__reverts(exchange: Exchange, leader: Leader) -> None:
    room = MOST - work.BATCH
    with reverts("rollup: work"):
        leader.post(room + 1)
    leader.post(room)
    assert exchange.rollup.budget() == (0, boa.env.timestamp, room)


def test_post__many_batches_in_a_block__share_the_budget(leader: Leader) -> None:
    """A batch costs something by itself, so that a block full of tiny ones is bounded, too."""
    for _ in range(MOST // work.BATCH):
        leader.post(0)
    with reverts("rollup: work"):
        leader.post(0)


def test_budget__grows_with_the_blocks_time_up_to_its_limit(exchange: Exchange, leader: Leader) -> None:
    leader.post(MOST - work.BATCH)
    boa.env.time_travel(seconds=12)
    with reverts("rollup: work"):
        leader.post(12 * PER_S - work.BATCH + 1)
    leader.post(12 * PER_S - work.BATCH)
    boa.env.time_travel(seconds=10**6)
    with reverts("rollup: work"):
        leader.post(MOST - work.BATCH + 1)
    leader.post(MOST - work.BATCH)


def test_post__of_less_work_than_before__reverts(leader: Leader) -> None:
    leader.post(5)
    with reverts("rollup: work falls"):
        leader.post(-1)


def test_roll_back__restores_the_count_and_not_the_budget(exchange: Exchange, leader: Leader) -> None:
    """A liar cannot have the heaviest batch executed again and again in one block; whoever comes after waits no longer
    than the whole budget needs to grow."""
    rollup = exchange.rollup
    leader.post(10)
    leader.post(MOST - 2 * work.BATCH - 10)
    assert rollup.budget()[0] == 0
    boa.env.set_balance(exchange.arbiter.address, 10**18)
    rollup.roll_back(2, ROLE, sender=exchange.arbiter.address)
    assert rollup.budget() == (0, boa.env.timestamp, 10)
    assert rollup.end(1).work == 10
    exchange.sequencers.join(sender=leader.sequencer, value=10**18)
    with reverts("rollup: work"):
        leader.post(0)
    boa.env.time_travel(seconds=MOST // PER_S)
    leader.post(MOST - work.BATCH)
    assert rollup.end(2).work == MOST - work.BATCH + 10


def test_bound__holds_what_is_said_of_it() -> None:
    """The arithmetic of the bound: no segment is heavier than what any budget holds, and half a slot of the reference
    watcher holds half as much again as a slot may bring by the table."""
    heaviest = [0] * (c.SEGMENT_WEIGHT_MAX + 1)
    dynamic = {c.Kind.RISK: work.RISK_ROW * c.PAGE_ROWS}
    order = work.MAKER * c.STEPS_MAX + work.POSITION * c.POSITIONS_MAX
    dynamic |= dict.fromkeys((c.Kind.PLACE, c.Kind.CONTINUE, c.Kind.FORCED_ORDER), order)
    kinds = [(layout[2], work.WORK[kind] + dynamic.get(kind, 0)) for kind, layout in c.LAYOUT.items()]
    for limit in range(1, len(heaviest)):
        heaviest[limit] = max(
            heaviest[limit - weight] + units
            for weight, units in [*kinds, (1, work.NO_KIND)]
            if weight <= limit
        )
    assert heaviest[-1] <= work.SEGMENT_MAX
    assert 3 * work.SLOT_MAX * work.UNIT_US <= 2 * work.SLOT_S * 1_000_000 // 2
