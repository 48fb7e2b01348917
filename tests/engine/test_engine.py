"""The engine: class order in a tick, refusals without a trace, CONTINUE chains, segments that a challenge can carry."""

import random

from hypothesis import given
from hypothesis import strategies as st

from sequencer.engine.engine import CONTINUE, UNDONE_MAX, class_of
from sequencer.protocol import batch, codec
from sequencer.protocol import constants as c
from sequencer.protocol.constants import Kind, Reason
from sequencer.protocol.transition import apply
from sequencer.queue.intake import RATE_LIMITED, Intake, IntakeLimits
from tests.simulation.little import Little, deposit, genesis, reasons, submission
from tests.simulation.world import MID

REPORTS = (Kind.FEED, Kind.SURFACE)


def test_tick__sorts_by_class_and_keeps_the_order_of_arrival_inside_a_class() -> None:
    little = Little()
    resting = little.rest(0, c.BUY, MID - 10)
    little.run([resting])
    seq = little.entries[-1].first_seq + 1
    taker = little.place(1, c.SELL, MID - 10)
    late_taker = little.place(2, c.SELL, MID + 50)
    maker = little.rest(3, c.BUY, MID - 20)
    cancel = little.signed(
        Kind.CANCEL, 0, instrument=little.instruments[0], side=c.BUY, price=MID - 10, seq=seq
    )
    tick = little.run([taker, maker, late_taker, cancel])
    assert [result.submission for result in tick.results] == [cancel, maker, taker, late_taker]
    assert reasons(tick) == [Reason.OK] * 4
    # the cancel was ahead of the taker, which finds only the second maker
    assert [
        fill.maker for result in tick.results for outcome in result.outcomes for fill in outcome.fills
    ] == []
    assert tick.entry is not None
    classes = [class_of(raw) for raw in tick.entry.raws()]
    assert classes == sorted(classes)
    assert little.replayed().root() == little.state.root()


def test_system_records__come_before_submissions_in_the_order_of_their_classes() -> None:
    little = Little()
    sweep = codec.encode(Kind.SWEEP, instrument=little.instruments[0], side=0, price=1, seq=1)
    tick = little.run([little.rest(0, c.BUY, MID - 10)], [sweep, deposit(1)])
    assert [result.submission.raw[0] for result in tick.system] == [Kind.DEPOSIT, Kind.SWEEP]
    assert tick.entry is not None
    assert [raw[0] for raw in tick.entry.raws()] == [Kind.TICK, Kind.DEPOSIT, Kind.PLACE]


def test_tick_of_refusals__leaves_no_record_and_no_trace() -> None:
    little = Little()
    root, words, count = little.state.root(), little.state.globals.words(), len(little.entries)
    used = little.signed(Kind.CANCEL_ALL, 0, nonce=900, nonce_floor=0)
    tick = little.run([used, little.place(1, c.BUY, quantity=0), little.place(2, c.BUY, instrument=1)])
    assert tick.entry is None
    assert Reason.OK not in reasons(tick)
    assert (little.state.root(), little.state.globals.words()) == (root, words)
    assert len(little.entries) == count


def test_refusal__between_others__takes_neither_a_sequence_number_nor_a_byte() -> None:
    little = Little()
    first = little.state.globals.seq
    good = [little.rest(0, c.BUY, MID - 10), little.rest(1, c.SELL, MID + 10)]
    bad = little.place(2, c.BUY, quantity=0)
    tick = little.run([good[0], bad, good[1]])
    assert reasons(tick) == [Reason.OK, Reason.OK, Reason.QUANTITY]
    assert tick.entry is not None
    assert list(tick.entry.raws())[1:] == [one.raw for one in good]
    assert [result.outcomes[0].seq for result in tick.results[:2]] == [first + 1, first + 2]
    assert little.state.globals.seq == first + 3
    assert little.replayed().root() == little.state.root()


def test_taker__that_meets_more_than_one_record_can_fill__goes_on_in_continues() -> None:
    little = Little()
    makers = c.STEPS_MAX * 2 + 1
    little.run([little.rest(number % 3, c.SELL, MID + number) for number in range(makers)])
    tick = little.run([little.place(3, c.BUY, MID + makers, 10 * makers)])
    (result,) = tick.results
    assert [len(outcome.fills) for outcome in result.outcomes] == [3, 3, 1]
    assert [outcome.pending for outcome in result.outcomes] == [True, True, False]
    assert tick.entry is not None
    assert list(tick.entry.raws())[-2:] == [CONTINUE, CONTINUE]
    assert little.state.globals.taker is None
    assert little.replayed().root() == little.state.root()


def test_dead_orders_of_a_tick__are_swept_before_its_takers_and_count_against_none() -> None:
    """Of CANCEL_ALL in the same tick, and of the second that the tick brings."""
    little = Little()
    little.engine.sweeps = little.keeper.sweeps
    fok, post = c.TIF_FOK << c.FLAG_TIF_SHIFT, c.FLAG_POST_ONLY
    little.run([little.place(0, c.SELL, MID - 20 - number) for number in range(5)])
    expires = little.now + 3  # the second of the takers
    dying = [little.place(1, c.SELL, MID - 10 - number, expires=expires) for number in range(5)]
    little.run([*dying, little.rest(2, c.SELL, MID + 10)])
    little.run([])
    tick = little.run(
        [
            little.place(3, c.BUY, MID + 10, 10, fok),
            little.place(3, c.BUY, MID + 5, 1, post),
            little.signed(Kind.CANCEL_ALL, 0, nonce_floor=0),
        ]
    )
    assert reasons(tick) == [Reason.OK] * 3
    assert [one.submission.raw[0] for one in tick.system] == [Kind.SWEEP] * 10
    assert {one.reason for one in tick.system} == {Reason.OK}
    rested, filled = tick.results[1].outcomes, tick.results[2].outcomes
    assert [outcome.rested is not None for outcome in rested] == [True]
    assert [len(outcome.fills) for outcome in filled] == [1]
    assert little.replayed().root() == little.state.root()


FOK = c.TIF_FOK << c.FLAG_TIF_SHIFT


def test_fok__over_seventy_orders__is_one_answer_and_a_replay_agrees() -> None:
    little = Little()
    little.run([little.rest(number % 3, c.SELL, MID + number) for number in range(70)])
    tick = little.run([little.place(3, c.BUY, MID + 70, 700, FOK)])
    (result,) = tick.results
    assert result.reason is Reason.OK
    assert sum(len(outcome.fills) for outcome in result.outcomes) == 70
    assert little.state.undo is None
    assert little.replayed().root() == little.state.root()


def test_fok__that_fails_late__is_refused_like_any_order_and_leaves_no_record() -> None:
    """Of two, one lacks lots, which is seen at once; the other meets its own order behind sixty."""
    little = Little()
    little.run([little.rest(number % 3, c.SELL, MID + number) for number in range(60)])
    little.run([little.rest(3, c.SELL, MID + 60), little.rest(1, c.SELL, MID + 61)])
    root, words = little.state.root(), little.state.globals.words()
    lacks = little.place(3, c.BUY, MID + 70, 700, FOK)
    ends = little.place(3, c.BUY, MID + 70, 610, FOK | c.FLAG_STP_TAKER)
    tick = little.run([lacks, ends])
    assert tick.entry is None
    assert reasons(tick) == [Reason.FOK_UNFILLED] * 2
    assert [result.undone for result in tick.results] == [1, 21]
    assert (little.state.root(), little.state.globals.words()) == (root, words)
    fills = little.place(3, c.BUY, MID + 59, 600, FOK)
    tick = little.run([little.place(3, c.BUY, MID + 70, 610, FOK | c.FLAG_STP_TAKER), fills])
    assert reasons(tick) == [Reason.FOK_UNFILLED, Reason.OK]
    assert little.replayed().root() == little.state.root()


def test_intake__takes_what_an_undone_order_has_cost_off_its_accounts_rate() -> None:
    little = Little()
    intake = Intake(IntakeLimits(rate_per_s=1, burst=50))
    order = little.place(3, c.BUY, MID, 1, FOK)
    assert intake.offer(order) == 0
    intake.charge(order, 4)
    assert intake.offer(little.place(3, c.BUY, MID, 1)) == RATE_LIMITED
    assert intake.offer(little.place(2, c.BUY, MID, 1)) == 0


def deep(little: Little, orders: int = 385) -> None:
    """A book of so many orders of one lot, the last of them trader 3's own."""
    for first in range(0, orders - 1, 60):
        prices = range(MID + first, MID + min(first + 60, orders - 1))
        little.run([little.place(0, c.SELL, price, 1, c.FLAG_POST_ONLY) for price in prices])
    little.run([little.rest(3, c.SELL, MID + orders - 1, 1)])


ENDS = FOK | c.FLAG_STP_TAKER


def test_orders_undone_at_their_last_record__hold_up_nobody_and_wait_their_turn() -> None:
    """A tick does so much for nothing, of an account and in all; others' orders of the same tick are as ever."""
    little = Little()
    deep(little)
    root = little.state.root()
    bad = [little.place(3, c.BUY, MID + 500, 385, ENDS) for _ in range(5)]
    tick = little.run(bad)
    assert [result.undone for result in tick.results] == [c.PLAN_RECORDS_MAX]
    assert tick.put_off == bad[1:]
    assert (tick.entry, little.state.root()) == (None, root)
    good = [
        *(little.place(1, c.BUY, MID + 59, 60, FOK), little.rest(2, c.BUY, MID - 9)),
        little.place(3, c.BUY, MID + 70, 3),
    ]
    tick = little.run([*bad[1:], *good])
    assert [one.submission for one in tick.results] == [good[1], bad[1], *good[::2]]
    assert [one.reason for one in tick.results if one.submission in good] == [Reason.OK] * 3
    assert tick.put_off == bad[2:]
    assert little.replayed().root() == little.state.root()


def test_orders_undone__of_many_accounts__are_bounded_in_all() -> None:
    little = Little()
    deep(little)
    bad = [
        *(little.place(3, c.BUY, MID + 500, 385, ENDS), little.place(0, c.BUY, MID + 500, 500, FOK)),
        *(little.place(one, c.BUY, MID + 500, 385, FOK) for one in (1, 2)),
    ]
    tick = little.run(bad)
    assert [result.undone for result in tick.results] == [c.PLAN_RECORDS_MAX, 1, c.PLAN_RECORDS_MAX]
    assert UNDONE_MAX == 2 * c.PLAN_RECORDS_MAX
    assert tick.put_off == bad[3:]
    assert {result.reason for result in tick.results} == {Reason.FOK_UNFILLED}


def test_intake__what_a_tick_has_put_off__comes_first_in_its_half_and_makes_nobody_late() -> None:
    little = Little()
    intake = Intake(IntakeLimits(rate_per_s=1, burst=50, sojourn_max_ns=10))
    old = [little.place(3, c.BUY, MID, 1, FOK) for _ in range(6)]
    assert [intake.offer(one) for one in old] == [0] * 6
    assert intake.put_off(intake.take(9)) == []
    assert len(intake) == 6
    assert intake.holds(4, 0)
    late = [little.place(2, c.BUY, MID, 1) for _ in range(6)]
    for one in late:
        one.arrived_ns = 1_000
        assert intake.offer(one) == 0
    assert intake.take(4) == [*old[:2], *late[:2]]
    assert intake.take(9) == [*old[2:], *late[2:]]
    intake.charge(old[0], 10)
    assert intake.put_off([old[0], late[0]]) == [old[0]]
    assert intake.take(9) == [late[0]]


def test_tick__after_a_leader_whose_last_batch_ends_inside_an_order__goes_on_with_it_first() -> None:
    for flags, filled in ((FOK, True), (FOK | c.FLAG_STP_TAKER, False)):
        little = Little()
        little.run([little.rest(number % 3, c.SELL, MID + number) for number in range(8)])
        little.run([little.rest(3, c.SELL, MID + 8), little.rest(1, c.SELL, MID + 9)])
        order = little.place(3, c.BUY, MID + 9, 90, flags)
        apply(little.state, codec.encode(Kind.TICK, time=little.now))
        assert apply(little.state, order.raw).pending
        tick = little.run([little.rest(1, c.BUY, MID - 50)])
        assert reasons(tick) == [Reason.OK]
        taken_over = [one for one in tick.system if one.submission.raw == CONTINUE]
        assert [len(one.outcomes) for one in taken_over] == ([1] * 3 if filled else [2])
        assert {one.reason for one in taken_over} == {Reason.OK if filled else Reason.FOK_UNFILLED}
        assert little.state.globals.taker is None
        assert (little.state.accounts[4].positions != {}) == filled


def test_segments__close_before_their_weight_passes_what_a_challenge_carries() -> None:
    little = Little()
    little.run([*little.orders(40), little.signed(Kind.CANCEL_ALL, 0, nonce_floor=0)])
    for entry in little.entries:
        for _, records, _ in entry.segments:
            assert 0 < sum(batch.weight(raw) for raw in records) <= c.SEGMENT_WEIGHT_MAX
        assert entry.segments[-1][0] == entry.root


def test_roots__of_segments__are_those_of_a_replay_record_by_record() -> None:
    little = Little()
    for _ in range(5):
        little.run(little.orders(20))
    state = genesis()
    for entry in little.entries:
        assert state.globals.seq == entry.first_seq
        for root, records, _ in entry.segments:
            for raw in records:
                assert apply(state, raw).reason is Reason.OK
                last = state.root()
            assert last == root
        assert state.globals.time == entry.time
    assert state.root() == little.state.root()


def test_deposit__that_credits_nothing__is_logged_even_alone_in_its_tick() -> None:
    little = Little()
    before = little.state.globals.inbox_count
    tick = little.run([], [deposit(0, account=0)])
    assert [result.reason for result in tick.system] == [Reason.INBOX_ACCOUNT]
    assert tick.entry is not None
    assert little.state.globals.inbox_count == before + 1
    assert little.replayed().root() == little.state.root()


def test_submission__of_a_kind_that_is_the_systems__is_refused() -> None:
    little = Little()
    root = little.state.root()
    forged = [deposit(0), codec.encode(Kind.TICK, time=little.now + 9), CONTINUE, deposit(0)[:7], b""]
    tick = little.run([submission(raw) for raw in forged])
    assert tick.entry is None
    assert sorted(set(reasons(tick))) == [Reason.MALFORMED, Reason.UNKNOWN_KIND]
    assert little.state.root() == root


def test_time__never_goes_back() -> None:
    little = Little()
    time = little.state.globals.time
    tick = little.engine.run(time - 100, [], [little.rest(0, c.BUY)])
    assert tick.entry is not None
    assert tick.entry.time == little.state.globals.time == time


@given(seed=st.integers(0, 2**32))
def test_whatever_is_submitted__the_entries_replay_to_the_same_root(seed: int) -> None:
    dice = random.Random(seed)
    little = Little()
    for _ in range(dice.randint(1, 4)):
        mixed = little.orders(dice.randint(0, 12))
        for _ in range(dice.randint(0, 6)):
            raw = bytearray(
                little.place(dice.randrange(4), dice.randrange(2), dice.randint(1, 2**32 - 1)).raw
            )
            for _ in range(dice.randint(0, 3)):
                raw[dice.randrange(len(raw))] = dice.randrange(256)
            mixed.append(submission(bytes(raw[: dice.choice((len(raw), 31, 5))])))
        dice.shuffle(mixed)
        system = [deposit(dice.randrange(4), dice.randrange(6), dice.randint(0, 2**40)) for _ in range(2)]
        tick = little.run(mixed, system)
        assert len(tick.results) == len(mixed)
    assert little.replayed().root() == little.state.root()


def aged() -> tuple[Little, bytes]:
    """Trader 0 holds an option whose marks are a little older than they may be: (exchange, his message)."""
    little = Little()
    little.run([little.rest(1, c.SELL, MID)])
    little.run([little.place(0, c.BUY, MID)])
    assert little.state.accounts[1].positions
    little.now += little.state.params.risk_age_max_s
    return little, codec.encode(Kind.FORCED_WITHDRAW, account=1, amount=5)


def feeds(little: Little) -> list[bytes]:
    return [raw for raw in little.keeper.pass_one(little.now + 1) if raw[0] in REPORTS]


def test_message__on_old_marks__has_them_renewed_before_it() -> None:
    little, message = aged()
    tick = little.run([], [*feeds(little), message])
    assert tick.entry is not None
    kinds = [raw[0] for raw in tick.entry.raws()]
    assert [kind for kind in kinds if kind not in REPORTS] == [Kind.TICK, Kind.RISK, Kind.FORCED_WITHDRAW]
    assert [result.reason for result in tick.system if result.submission.raw == message] == [Reason.OK]
    assert tick.waiting == []
    assert little.replayed().root() == little.state.root()


def test_message__whose_marks_cannot_be_renewed_yet__waits_with_those_behind_it_and_leaves_no_trace() -> None:
    little, message = aged()
    root, count = little.state.root(), little.state.globals.inbox_count
    tick = little.run([], [message, deposit(0), message])
    assert tick.entry is None
    assert tick.waiting == [message, deposit(0), message]
    assert (little.state.root(), little.state.globals.inbox_count) == (root, count)
    tick = little.run([little.signed(Kind.CANCEL_ALL, 2, nonce_floor=0)], tick.waiting)
    assert tick.entry is not None  # the rest of the world goes on
    assert tick.waiting == [message, deposit(0), message]
    tick = little.run([], [*tick.waiting, *feeds(little)])
    assert tick.waiting == []
    assert tick.entry is not None
    kinds = [raw[0] for raw in tick.entry.raws() if raw[0] not in REPORTS]
    assert kinds == [Kind.TICK, Kind.RISK, Kind.FORCED_WITHDRAW, Kind.DEPOSIT, Kind.FORCED_WITHDRAW]
    assert little.state.globals.inbox_count == count + 3
    assert little.replayed().root() == little.state.root()


def test_message__when_feeds_have_been_silent_for_long__is_served_by_what_is_sure_and_counts() -> None:
    little, message = aged()
    little.now += little.state.params.feed_age_max_s + 10
    count = little.state.globals.inbox_count
    tick = little.run([], [message, deposit(0)])
    assert [result.reason for result in tick.system] == [Reason.OK, Reason.OK]
    assert tick.waiting == []
    assert little.state.globals.inbox_count == count + 2
    assert little.replayed().root() == little.state.root()
