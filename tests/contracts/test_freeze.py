"""What is forced through L1, by when it must be taken, and the freeze when it is not."""

from typing import Any

import boa
import pytest
from contract_support import ETHER, INBOX, USD, Batch, Exchange, deploy, events_of, reverts

from sequencer.protocol import codec
from sequencer.protocol.constants import DAY_S, EXPIRY_OF_DAY_S, Kind

DELAY_MIN, DELAY_MAX, FEE = INBOX
SILENCE = 3 * DAY_S
OVERDUE, SILENT = 1, 2
ORDER = (2**32 - 1, 0x37, 12_345, 2**40 - 1, 2**32 - 2, 65_535)
NAMES = ("instrument", "flags", "price", "quantity", "expires", "fee_max")


@pytest.fixture
def traded(exchange: Exchange, trader: Any, other_trader: Any) -> Exchange:
    """Accounts 1 and 2 stand, their deposits are taken."""
    exchange.vault.deposit(5 * USD, sender=trader)
    exchange.vault.deposit(5 * USD, sender=other_trader)
    return exchange


def post(exchange: Exchange, sequencer: Any, batch_id: int, inbox_count: int, first_seq: int = 0) -> None:
    batch = Batch(batch_id, first_seq=first_seq, inbox_count=inbox_count)
    exchange.rollup.post(*batch.upon(exchange.rollup, exchange.inbox).arguments(), sender=sequencer)


def next_expiry(days: int = 0) -> int:
    now = boa.env.timestamp
    first = now - now % DAY_S + EXPIRY_OF_DAY_S
    return first + DAY_S * (days + (first <= now))


def travel_to(time: int) -> None:
    boa.env.time_travel(seconds=time - boa.env.timestamp)


# ---------------------------------------------------------------------------------------------- messages


def test_force__makes_the_records_of_l2(traded: Exchange, other_trader: Any) -> None:
    inbox = traded.inbox
    hash_ = inbox.hash_at(2)
    for index, (call, expected) in enumerate(
        [
            (lambda: inbox.force_withdraw(2**64 - 1, value=FEE, sender=other_trader),
             codec.encode(Kind.FORCED_WITHDRAW, account=2, amount=2**64 - 1)),
            (lambda: inbox.force_cancel_all(value=FEE, sender=other_trader),
             codec.encode(Kind.FORCED_CANCEL_ALL, account=2)),
            (lambda: inbox.force_order(*ORDER, 0, value=FEE, sender=other_trader),
             codec.encode(Kind.FORCED_ORDER, account=2, **dict(zip(NAMES, ORDER, strict=True)))),
            (lambda: inbox.force_liquidate(1, 0, value=FEE, sender=other_trader),
             codec.encode(Kind.FORCED_LIQUIDATE, account=1)),
            (lambda: inbox.force_bid(1, 256, -(2**63), 0, value=FEE, sender=other_trader),
             codec.encode(Kind.FORCED_BID, account=2, target=1, fraction=256, cash_max=-(2**63))),
        ],
        start=2,
    ):  # fmt: skip
        assert call() == index
        message = events_of(inbox, "Message")[0]
        hash_ = codec.inbox_hash(hash_, expected)
        assert (message.index, message.record, message.hash) == (index, expected, hash_)
        assert inbox.hash_at(index + 1) == hash_
        assert inbox.deadline_at(index) == boa.env.timestamp + DELAY_MAX


def test_force__by_who_has_no_account__reverts(traded: Exchange, stranger: Any) -> None:
    inbox = traded.inbox
    with reverts("inbox: caller has no account"):
        inbox.force_withdraw(0, value=FEE, sender=stranger)
    with reverts("inbox: caller has no account"):
        inbox.force_cancel_all(value=FEE, sender=stranger)
    with reverts("inbox: caller has no account"):
        inbox.force_order(*ORDER, 0, value=FEE, sender=stranger)
    with reverts("inbox: caller has no account"):
        inbox.force_bid(1, 64, 0, 0, value=FEE, sender=stranger)


def test_force__before_a_vault_is_set__reverts(stranger: Any) -> None:
    inbox = deploy("Inbox", *INBOX)
    with reverts("inbox: no vault"):
        inbox.force_withdraw(0, value=FEE, sender=stranger)
    with reverts("inbox: no vault"):
        inbox.force_liquidate(1, 0, value=FEE, sender=stranger)


def test_force_liquidate__of_nobody__reverts_and_by_anybody_does_not(
    traded: Exchange, trader: Any, stranger: Any
) -> None:
    with reverts("inbox: unknown account"):
        traded.inbox.force_liquidate(3, 0, value=FEE, sender=stranger)
    with reverts("inbox: unknown account"):
        traded.inbox.force_bid(3, 64, 0, 0, value=FEE, sender=trader)
    assert traded.inbox.force_liquidate(2, 0, value=FEE, sender=stranger) == 2


@pytest.mark.parametrize("value", [0, FEE - 1, FEE + 1])
def test_force__with_another_fee__reverts(traded: Exchange, trader: Any, value: int) -> None:
    with reverts("inbox: wrong fee"):
        traded.inbox.force_withdraw(0, value=value, sender=trader)


def test_fee__is_nobodys(traded: Exchange, trader: Any) -> None:
    bonds = boa.env.get_balance(traded.sequencers.address)
    traded.inbox.force_cancel_all(value=FEE, sender=trader)
    assert boa.env.get_balance(traded.inbox.address) == FEE
    assert boa.env.get_balance(traded.sequencers.address) == bonds


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ((0, 1, 0), "inbox: delay minimum is zero"),
        ((5, 5, 0), "inbox: delay minimum is not below the maximum"),
        ((5, 30 * DAY_S + 1, 0), "inbox: delay above 30 days"),
    ],
)
def test_constructor__inconsistent_delays__revert(arguments: tuple[int, ...], reason: str) -> None:
    with reverts(reason):
        deploy("Inbox", *arguments)


# ---------------------------------------------------------------------------------------------- deadlines


def test_deadline__of_a_deposit__is_the_longest(exchange: Exchange, trader: Any) -> None:
    for index in range(10):  # over the border of a word
        exchange.vault.deposit(USD, sender=trader)
        assert exchange.inbox.deadline_at(index) == boa.env.timestamp + DELAY_MAX
        boa.env.time_travel(seconds=1)
    with reverts("inbox: unknown message"):
        exchange.inbox.deadline_at(10)


def test_deadline__past_the_last_second_of_32_bits__touches_no_other(exchange: Exchange, trader: Any) -> None:
    boa.env.timestamp = 2**32 - 3
    for _ in range(3):
        exchange.vault.deposit(USD, sender=trader)
    assert [exchange.inbox.deadline_at(index) for index in range(3)] == [2**32 - 1] * 3


@pytest.mark.parametrize(
    ("left", "delay"),
    [
        (1, DELAY_MIN),
        (2 * DELAY_MIN, DELAY_MIN),
        (2 * DELAY_MIN + 2, DELAY_MIN + 1),
        (20 * 3_600 + 1, 10 * 3_600),
        (2 * DELAY_MAX - 2, DELAY_MAX - 1),
        (9 * DELAY_MAX, DELAY_MAX),
    ],
)
def test_deadline__near_an_expiry__is_half_the_way_within_bounds(
    traded: Exchange, trader: Any, left: int, delay: int
) -> None:
    expiry = next_expiry(11)
    travel_to(expiry - left)
    now = boa.env.timestamp
    index = traded.inbox.force_order(*ORDER, expiry, value=FEE, sender=trader)
    assert traded.inbox.deadline_at(index) == now + delay
    index = traded.inbox.force_liquidate(2, expiry, value=FEE, sender=trader)
    assert traded.inbox.deadline_at(index) == now + delay


def test_deadline__of_an_expiry_that_is_none__reverts(traded: Exchange, trader: Any) -> None:
    with reverts("inbox: expiry is not 08:00 UTC"):
        traded.inbox.force_order(*ORDER, next_expiry() + 1, value=FEE, sender=trader)
    for past in (next_expiry() - DAY_S, EXPIRY_OF_DAY_S):
        with reverts("inbox: expiry is not in the future"):
            traded.inbox.force_liquidate(1, past, value=FEE, sender=trader)


def test_overdue__is_said_of_what_waits_alone(traded: Exchange) -> None:
    inbox = traded.inbox
    deadline = inbox.deadline_at(1)
    travel_to(deadline)
    assert not inbox.overdue(0, 1)
    travel_to(deadline + 1)
    assert inbox.overdue(0, 1)
    assert inbox.overdue(1, 1)
    assert not inbox.overdue(2, 1)
    assert not inbox.overdue(0, 2)
    assert not inbox.overdue(0, 2**255)


# ---------------------------------------------------------------------------------------------- freeze


def test_freeze__past_a_deadline__ends_posting_for_good(
    traded: Exchange, sequencer: Any, trader: Any, stranger: Any
) -> None:
    rollup = traded.rollup
    post(traded, sequencer, 1, 2)
    index = traded.inbox.force_withdraw(0, value=FEE, sender=trader)
    travel_to(traded.inbox.deadline_at(index))
    with reverts("rollup: nothing is overdue"):
        rollup.freeze(index, sender=stranger)
    boa.env.time_travel(seconds=1)
    for other in (0, 1, index + 1):
        with reverts("rollup: nothing is overdue"):
            rollup.freeze(other, sender=stranger)
    rollup.freeze(index, sender=stranger)
    event = events_of(rollup, "Frozen")[0]
    assert (event.reason, event.index, rollup.frozen_at()) == (OVERDUE, index, boa.env.timestamp)
    with reverts("rollup: frozen"):
        post(traded, sequencer, 2, 3, first_seq=1)
    with reverts("rollup: frozen"):
        rollup.freeze(index, sender=stranger)


def test_freeze__by_a_later_message_with_an_earlier_deadline__is_possible(
    traded: Exchange, sequencer: Any, trader: Any, stranger: Any
) -> None:
    post(traded, sequencer, 1, 2)
    travel_to(next_expiry() - 60)
    first = traded.inbox.force_withdraw(0, value=FEE, sender=trader)
    second = traded.inbox.force_order(*ORDER, next_expiry(), value=FEE, sender=trader)
    travel_to(traded.inbox.deadline_at(second) + 1)
    with reverts("rollup: nothing is overdue"):
        traded.rollup.freeze(first, sender=stranger)
    traded.rollup.freeze(second, sender=stranger)


def test_freeze__of_a_message_taken_late__reverts(
    traded: Exchange, sequencer: Any, trader: Any, stranger: Any
) -> None:
    """Who does not freeze in time finds nothing to freeze for: the message has had its effect."""
    index = traded.inbox.force_withdraw(0, value=FEE, sender=trader)
    travel_to(traded.inbox.deadline_at(index) + 5)
    post(traded, sequencer, 1, 3)
    with reverts("rollup: nothing is overdue"):
        traded.rollup.freeze(index, sender=stranger)


def test_freeze__after_silence__needs_no_message(exchange: Exchange, sequencer: Any, stranger: Any) -> None:
    rollup = exchange.rollup
    boa.env.time_travel(seconds=1_000)
    post(exchange, sequencer, 1, 0)
    boa.env.time_travel(seconds=SILENCE)
    with reverts("rollup: nothing is overdue"):
        rollup.freeze(0, sender=stranger)
    boa.env.time_travel(seconds=1)
    rollup.freeze(7, sender=stranger)
    assert events_of(rollup, "Frozen")[0].reason == SILENT


def test_freeze__after_a_roll_back__waits_until_the_honest_records_can_stand_again(
    traded: Exchange, sequencer: Any, stranger: Any
) -> None:
    rollup = traded.rollup
    travel_to(traded.inbox.deadline_at(1) - 10)
    post(traded, sequencer, 1, 2)
    boa.env.time_travel(seconds=500)
    rollup.roll_back(1, stranger, sender=boa_address(rollup.arbiter()))
    assert rollup.rolled_back_at() == boa.env.timestamp
    assert traded.inbox.overdue(0, 1)
    boa.env.time_travel(seconds=DELAY_MAX)
    with reverts("rollup: time to post again"):
        rollup.freeze(1, sender=stranger)
    boa.env.time_travel(seconds=1)
    rollup.freeze(1, sender=stranger)


def test_freeze__after_silence_since_a_roll_back__counts_from_it(
    exchange: Exchange, sequencer: Any, stranger: Any
) -> None:
    rollup = exchange.rollup
    post(exchange, sequencer, 1, 0)
    boa.env.time_travel(seconds=599)
    rollup.roll_back(1, stranger, sender=boa_address(rollup.arbiter()))
    boa.env.time_travel(seconds=SILENCE)
    with reverts("rollup: nothing is overdue"):
        rollup.freeze(0, sender=stranger)
    boa.env.time_travel(seconds=1)
    rollup.freeze(0, sender=stranger)


def test_exit_batch__is_the_last_one_when_no_roll_back_can_reach_it(
    traded: Exchange, sequencer: Any, stranger: Any
) -> None:
    rollup = traded.rollup
    travel_to(traded.inbox.deadline_at(0) - 100)
    post(traded, sequencer, 1, 0)
    boa.env.time_travel(seconds=200)
    post(traded, sequencer, 2, 0, first_seq=1)
    with reverts("rollup: not frozen"):
        rollup.exit_batch()
    rollup.freeze(0, sender=stranger)
    boa.env.time_travel(seconds=500)
    with reverts("rollup: last batch is not final"):
        rollup.exit_batch()
    rollup.roll_back(2, stranger, sender=boa_address(rollup.arbiter()))
    assert rollup.exit_batch() == 1
    assert rollup.final_root(rollup.exit_batch()) == b"\x22" * 32


def test_exit_batch__when_nothing_was_ever_posted__is_genesis(exchange: Exchange, stranger: Any) -> None:
    boa.env.time_travel(seconds=SILENCE + 1)
    exchange.rollup.freeze(0, sender=stranger)
    assert exchange.rollup.exit_batch() == 0


def boa_address(address: Any) -> str:
    boa.env.set_balance(address, ETHER)
    return str(address)
