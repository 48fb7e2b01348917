"""A node that follows makes of each logged tick what its leader made: leaves, results, receipts."""

import random

import msgspec
import pytest

from sequencer.engine.engine import ReplayError, Tick
from sequencer.engine.following import follow
from sequencer.log.interface import Entry
from sequencer.protocol import codec
from sequencer.protocol import constants as c
from sequencer.queue.receipts import Issuer, Lead, TickReceipts
from tests.simulation.little import DOMAIN, Little, deposit, genesis

KEY = bytes(range(1, 33))


def ticks_of(seed: int) -> list[Tick]:
    """Of a leader: orders with labels that rest, cross, and need CONTINUEs; cancels; a deposit."""
    draw = random.Random(seed)
    little = Little()
    out = []
    makers = [little.rest(number % 3, c.SELL, quantity=1) for number in range(c.STEPS_MAX * 2 + 3)]
    out.append(little.run(makers))
    out.append(little.run([little.place(3, c.BUY, quantity=c.STEPS_MAX * 2 + 1)]))
    for _ in range(6):
        orders = little.orders(draw.randrange(1, 24))
        for number, one in enumerate(orders):
            if number % 3 == 0:
                one.label = f"order-{number}"
        out.append(little.run(orders))
    out.append(little.run(little.orders(2), [deposit(4)]))
    return [tick for tick in out if tick.entry is not None]


def entries_before(ticks: list[Tick]) -> list[Entry]:
    """Those of the leader's start, which no Tick of `ticks_of` has."""
    first = ticks[0].entry
    assert first is not None
    return [one for one in Little().entries if one.first_seq < first.first_seq]


def outcomes_of(tick: Tick) -> list[tuple[bytes, str, list[str]]]:
    """Of every record but TICK that has held: its bytes, label, and what each of its outcomes says."""
    return sorted(
        (
            one.submission.raw,
            one.submission.label,
            [repr((out.seq, out.fee, out.paid, out.rests, len(out.fills))) for out in one.outcomes],
        )
        for one in [*tick.results, *tick.system]
        if not one.reason
    )


def test_follow__gives_the_leaders_results_leaves_and_roots() -> None:
    ticks = ticks_of(1)
    state = genesis()
    for entry in entries_before(ticks):
        follow(state, entry)
    for tick in ticks:
        assert tick.entry is not None
        again = follow(state, tick.entry)
        assert again.leaves == tick.leaves
        assert again.number == tick.number
        assert outcomes_of(again) == outcomes_of(tick)
        assert state.root() == tick.entry.root
    assert any(len(one.outcomes) > 2 for tick in ticks for one in tick.results)
    assert any(tick.entry is not None and tick.entry.labels for tick in ticks)


def test_adopt__gives_the_same_receipts_byte_for_byte() -> None:
    ticks = ticks_of(2)
    leader = Issuer(DOMAIN, KEY, lambda: Lead(3, 7))
    follower = Issuer(DOMAIN, KEY, lambda: Lead(3, 8))
    state = genesis()
    for entry in entries_before(ticks):
        follow(state, entry)
    for tick in ticks:
        made = leader.seal(tick)
        assert made is not None
        leader.sign(made)
        assert tick.entry is not None
        again = follow(state, tick.entry)
        got = follower.adopt(again)
        assert isinstance(got, TickReceipts)
        assert got.head == made.head
        by_raw = {one.submission.raw: got.of(one) for one in again.results}
        for one in tick.results:
            if not one.reason:
                assert by_raw[one.submission.raw] == made.of(one)
    # the next tick of whoever takes over follows the last of the leader
    assert follower._parent == leader._parent


def test_adopt__refuses_a_header_of_other_records_or_another_parent() -> None:
    ticks = ticks_of(3)
    leader = Issuer(DOMAIN, None)
    state = genesis()
    for entry in entries_before(ticks):
        follow(state, entry)
    leader.seal(ticks[0])
    leader.seal(ticks[1])
    assert ticks[0].entry is not None
    assert ticks[1].entry is not None
    again = follow(state, ticks[0].entry)
    again.leaves[0] = bytes(24)
    with pytest.raises(ReplayError, match="header of tick"):
        Issuer(DOMAIN, None).adopt(again)
    with pytest.raises(ReplayError, match="header of tick"):
        Issuer(DOMAIN, None).adopt(follow(state, ticks[1].entry))  # its parent was never seen


@pytest.mark.parametrize("what", ["record", "root", "work"])
def test_follow__stops_at_the_first_tick_that_is_not_what_it_says(what: str) -> None:
    ticks = ticks_of(4)
    state = genesis()
    for entry in entries_before(ticks):
        follow(state, entry)
    entry = ticks[0].entry
    assert entry is not None
    root, records, work = entry.segments[0]
    if what == "record":
        records = [*records[:1], codec.encode(c.Kind.CONTINUE), *records[1:]]
    wrong = (bytes(32) if what == "root" else root, records, work + (what == "work"))
    with pytest.raises(ReplayError, match="differs"):
        follow(state, msgspec.structs.replace(entry, segments=[wrong, *entry.segments[1:]]))
