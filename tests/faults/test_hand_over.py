"""Members that only hand over to each other.

Silence counted from the epoch's start: k colluders, each handing over just before the honest member behind them could
take over, held the lead for 1 + 2 + … + k take-over times, stayed in the set, and a message of the shortest deadline
froze the exchange for good (four of them, with 900 s and 7,200 s: after 8,996 s). Now silence counts from what was last
served: the honest one leads after k times, those that did nothing are out, and nothing is overdue.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boa
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "contracts"))

from contract_support import ETHER, Batch, Exchange, deploy_exchange, reverts

DAY_S = 86_400
EXPIRY_S = 28_800  # of the day
DELAY_MIN_S = 7_200
TAKEOVER_S = 112
FEE = 10**15
COLLUDERS = 4


@pytest.fixture
def people() -> Iterator[list[Any]]:
    with boa.env.anchor():
        made = [boa.env.generate_address(f"member {number}") for number in range(COLLUDERS + 2)]
        for one in made:
            boa.env.set_balance(one, 1_000 * ETHER)
        yield made


def post(on: Exchange, who: Any) -> None:
    rollup = on.rollup
    seq, _, _ = rollup.tip()
    batch = Batch(rollup.next_batch(), first_seq=seq, inbox_count=on.inbox.count()).upon(rollup, on.inbox)
    rollup.post(*batch.arguments(), sender=who)


def test_colluders__that_hand_over_at_the_last_moment__cannot_have_the_exchange_frozen(
    people: list[Any],
) -> None:
    *colluders, honest, trader = people
    on = deploy_exchange(colluders[0], inbox=(DELAY_MIN_S, DAY_S, FEE), takeover_s=TAKEOVER_S, bond_min=ETHER)
    for one in [*colluders[1:], honest]:
        on.sequencers.join(value=ETHER, sender=one)
    on.token.mint(trader, 10**9)
    on.token.approve(on.vault.address, 10**9, sender=trader)
    on.vault.deposit(10**7, sender=trader)
    day = (boa.env.timestamp // DAY_S + 1) * DAY_S + EXPIRY_S
    boa.env.time_travel(seconds=day - 2 * DELAY_MIN_S - boa.env.timestamp)
    post(on, colluders[0])
    began = boa.env.timestamp
    message = on.inbox.force_liquidate(1, day, value=FEE, sender=trader)
    assert on.inbox.deadline_at(message) == began + DELAY_MIN_S

    for number, one in enumerate(colluders):
        place = COLLUDERS - number
        assert list(on.sequencers.members()).index(honest) == place
        with reverts("sequencers: not silent for long enough"):
            on.sequencers.take_over(sender=honest)
        boa.env.time_travel(seconds=began + COLLUDERS * TAKEOVER_S - 1 - boa.env.timestamp)
        on.sequencers.hand_over(sender=one)
    assert on.sequencers.leader() == honest
    assert boa.env.timestamp - began == COLLUDERS * TAKEOVER_S - 1
    assert list(on.sequencers.members()) == [honest, colluders[0]]  # who has posted
    post(on, honest)
    boa.env.time_travel(seconds=DELAY_MIN_S)
    with reverts("rollup: nothing is overdue"):
        on.rollup.freeze(message, sender=trader)
