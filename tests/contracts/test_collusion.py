"""However the others collude, an honest member leads before any message's deadline lets somebody freeze."""

import random
from typing import Any

import boa
import pytest
from collusion import DELAY_MIN_S, MEMBERS_MAX, SERVE, TAKEOVER_S, Collusion

WORST_S = DELAY_MIN_S // 2 + (2 * MEMBERS_MAX - 1) * TAKEOVER_S


def wait_for_the_lead(on: Collusion, draw: random.Random, step: Any, pushed_at: int) -> int:
    """Seconds from the message to the honest member's lead. It tries whenever it may, after the colluders."""
    while not on.leads():
        waited_s = boa.env.timestamp - pushed_at
        assert waited_s <= WORST_S, f"after {waited_s} s it still does not lead"
        step(draw)
        if on.may(lambda: on.set_.take_over(sender=on.honest)):
            break
        left_s = max(1, on.set_.takes_over_at(on.honest) - boa.env.timestamp)
        boa.env.time_travel(seconds=min(left_s, draw.choice((1, 30, TAKEOVER_S, left_s))))
    return int(boa.env.timestamp - pushed_at)


@pytest.mark.parametrize("seed", range(12))
def test_honest_member__among_any_colluders__leads_in_time_and_serves(trader: Any, seed: int) -> None:
    draw = random.Random(seed)
    place = 15 if seed < 4 else draw.randrange(1, 16)
    with boa.env.anchor():
        on = Collusion(place, draw.randrange(16 - place), trader)
        boa.env.time_travel(seconds=draw.randrange(3 * TAKEOVER_S))
        pushed_at = on.push()
        step = on.hold_up if seed % 2 else on.a_step
        wait_for_the_lead(on, draw, step, pushed_at)
        on.post(on.honest, SERVE)
        assert boa.env.timestamp <= on.exchange.inbox.deadline_at(1)
        boa.env.time_travel(seconds=DELAY_MIN_S)
        assert not on.may(lambda: on.exchange.rollup.freeze(1))


@pytest.mark.parametrize("place", [1, 4, 15])
def test_hand_overs__without_a_batch__gain_no_time_and_cost_the_place(trader: Any, place: int) -> None:
    """At the last moment of each turn: k colluders held the lead for 1 + 2 + … + k take-over times."""
    with boa.env.anchor():
        on = Collusion(place, 0, trader)
        pushed_at = on.push()
        posted_at = on.exchange.rollup.batch(1).posted_at
        for number in range(place):
            boa.env.time_travel(seconds=posted_at + place * TAKEOVER_S - 1 - boa.env.timestamp)
            assert not on.may(lambda: on.set_.take_over(sender=on.honest))
            if number == place - 1:
                break
            on.set_.hand_over(sender=on.set_.leader())
        boa.env.time_travel(seconds=TAKEOVER_S)  # the grace of the last of them
        on.set_.take_over(sender=on.honest)
        assert boa.env.timestamp - pushed_at <= (place + 1) * TAKEOVER_S
        # The first has posted; those that led after it have done nothing, and are out.
        kept = [on.honest, on.colluders[0]]
        assert list(on.set_.members()) == kept
