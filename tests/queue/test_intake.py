"""Intake: bounded, fair to each account, and open to cancels for longer than to what adds risk."""

import json

import pytest

from sequencer.engine.engine import Submission, class_of
from sequencer.protocol import codec, work
from sequencer.protocol import constants as c
from sequencer.protocol.constants import Kind
from sequencer.queue.intake import QUEUE_FULL, RATE_LIMITED, Intake, IntakeLimits

SECOND = 1_000_000_000
ORDER = {"instrument": 1, "flags": 0, "price": 1, "quantity": 1, "nonce": 0, "expires": 0, "fee_max": 0}


def place(account: int = 1, at_ns: int = 0, flags: int = 0) -> Submission:
    fields = {**ORDER, "flags": flags}
    return Submission(codec.encode(Kind.PLACE, account=account, **fields), None, None, at_ns)


def cancel(account: int = 1, at_ns: int = 0) -> Submission:
    raw = codec.encode(Kind.CANCEL_ALL, account=account, nonce_floor=0, nonce=0, expires=0)
    return Submission(raw, None, None, at_ns)


def test_queue__gives_back_what_it_took_in_order_and_in_parts() -> None:
    intake = Intake()
    orders = [place(number) for number in range(10)]
    assert [intake.offer(one) for one in orders] == [0] * 10
    assert (len(intake), intake.accepted) == (10, 10)
    assert intake.take(4) == orders[:4]
    assert intake.take(100) == orders[4:]
    assert (len(intake), intake.take(1)) == (0, [])


def test_queue__is_bounded_and_takes_cancels_up_to_twice_its_bound() -> None:
    intake = Intake(IntakeLimits(waiting_max=5))
    answers = [intake.offer(place(number)) for number in range(7)]
    assert answers == [0] * 5 + [QUEUE_FULL] * 2
    answers = [intake.offer(cancel(number)) for number in range(7)]
    assert answers == [0] * 5 + [QUEUE_FULL] * 2
    assert (len(intake), intake.refused) == (10, 4)
    intake.take(6)
    assert intake.offer(place()) == 0


def test_queue__when_l1_is_too_far_behind__refuses_new_risk_first_and_cancels_last() -> None:
    intake = Intake()
    transfer = codec.encode(Kind.TRANSFER, account=1, to=2, amount=1, nonce=0, expires=0)
    order = {"account": 1, "instrument": 1, "price": 5, "seq": 1, "quantity": 1, "nonce": 0, "expires": 0}
    amended = lambda price, flags=0: Submission(  # noqa: E731
        codec.encode(Kind.AMEND, **order, new_price=price, flags=flags, fee_max=1), None
    )
    kinds = {
        "order": lambda: place(),
        "order at another price": lambda: amended(6),
        "closing order at another price": lambda: amended(6, c.FLAG_REDUCE_ONLY),
        "less of an order": lambda: amended(5),
        "closing order": lambda: place(flags=c.FLAG_REDUCE_ONLY),
        "transfer": lambda: Submission(transfer, None),
        "nothing": lambda: Submission(b"", None),
        "cancel": cancel,
    }
    taken = {}
    for intake.pressure in range(4):
        taken[intake.pressure] = {name for name, make in kinds.items() if intake.offer(make()) == 0}
    assert taken[0] == set(kinds)
    assert taken[1] == set(kinds) - {"order", "order at another price"}
    assert taken[2] == {"cancel"}
    assert taken[3] == set()


def test_queue__whose_oldest_has_waited_too_long__takes_cancels_alone() -> None:
    intake = Intake(IntakeLimits(sojourn_max_ns=SECOND))
    assert intake.offer(place(1, 0)) == 0
    assert intake.offer(place(1, SECOND)) == 0
    assert intake.offer(place(1, SECOND + 1)) == QUEUE_FULL
    assert intake.offer(place(1, SECOND + 1, c.FLAG_POST_ONLY)) == QUEUE_FULL
    assert intake.offer(cancel(1, SECOND + 1)) == 0
    intake.take(10)
    assert intake.offer(place(1, 5 * SECOND)) == 0


def test_rate__of_an_account__is_its_own() -> None:
    intake = Intake(IntakeLimits(rate_per_s=10, burst=3))
    assert [intake.offer(place(1)) for _ in range(4)] == [0, 0, 0, RATE_LIMITED]
    assert intake.offer(place(2)) == 0
    assert intake.offer(place(1, SECOND // 10)) == 0
    assert intake.offer(place(1, SECOND // 10)) == RATE_LIMITED
    intake.take(100)
    assert [intake.offer(place(1, 60 * SECOND)) for _ in range(4)] == [0, 0, 0, RATE_LIMITED]


def test_buckets__of_strangers__do_not_fill_the_memory() -> None:
    intake = Intake(IntakeLimits(accounts_max=100, waiting_max=10_000))
    for number in range(1_000):
        assert intake.offer(place(number)) == 0
    assert len(intake._buckets) <= 100


@pytest.mark.parametrize(
    ("raw", "of_class"),
    [
        (place().raw, c.CLASS_TAKER),
        (place(flags=c.FLAG_POST_ONLY).raw, c.CLASS_POST_ONLY),
        (cancel().raw, c.CLASS_CANCEL),
        (codec.encode(Kind.TICK, time=1), c.CLASS_SYSTEM),
        (cancel().raw[:-1], c.CLASS_TAKER),
        (b"\xff" * 93, c.CLASS_TAKER),
        (b"", c.CLASS_TAKER),
    ],
)
def test_class__is_given_at_the_door(raw: bytes, of_class: int) -> None:
    one = Submission(raw, None)
    Intake().offer(one)
    assert one.of_class == class_of(raw) == of_class


def unpaid(kind: Kind, account: int, at_ns: int = 0) -> Submission:
    fields = {
        Kind.CANCEL_ALL: {"nonce_floor": 0},
        Kind.SET_SIGNER: {"signer": bytes(20), "scope": 1, "signer_expires": 0},
        Kind.TRANSFER: {"to": 2, "amount": 1},
        Kind.WITHDRAW: {"amount": 1},
    }[kind]
    return Submission(codec.encode(kind, account=account, nonce=0, expires=0, **fields), None, None, at_ns)


@pytest.mark.parametrize("kind", [Kind.CANCEL_ALL, Kind.SET_SIGNER, Kind.TRANSFER, Kind.WITHDRAW])
def test_records_that_pay_nothing__of_one_account__leave_l1_to_those_that_pay(kind: Kind) -> None:
    """At 2,000 a second, which an account may send, they would count 40,000 units and more where L1 takes 33,000."""
    intake, spent, seconds = Intake(), 0, 10
    for number in range(2_000 * seconds):
        one = unpaid(kind, 7, number * SECOND // 2_000)
        if intake.offer(one) == 0:
            spent += work.of(one.raw)
        intake.take(10)
    assert 20_000 <= spent <= 20_000 + 100 * seconds
    now_ns = seconds * SECOND
    refused = json.loads(intake.why(RATE_LIMITED, unpaid(kind, 7).raw, now_ns))
    assert "what pays no fee comes too fast" in refused["message"]
    assert 0 < refused["data"]["retry_after_s"] <= work.WORK[kind] / 100
    assert intake.offer(place(7, now_ns)) == 0  # what pays
    assert intake.offer(unpaid(kind, 8, now_ns)) == 0  # others
    assert intake.offer(unpaid(kind, 7, now_ns + SECOND)) == 0


def test_accounts_that_pay_nothing__are_bounded_in_memory() -> None:
    intake = Intake(IntakeLimits(accounts_max=100))
    for number in range(1_000):
        intake.offer(unpaid(Kind.CANCEL_ALL, number))
        assert len(intake._unpaid) <= 100
