"""Sequencers: who is a member, who leads, when another may take over, and whose bond is slashed.

Long because one contract's states follow from each other: every test starts from the same set of members.
"""

from typing import Any

import boa
import pytest
from boa.util.abi import Address
from contract_support import ETHER, Batch, Exchange, deploy, events_of, reverts
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from stub_support import deploy_stub

TAKEOVER_S = 50
WINDOW_S = 600
SILENCE_S = 3 * 86_400
MEMBERS_MAX = 16
NOBODY = "0x" + "00" * 20
NEVER = 2**256 - 1
PAID = ETHER * 3 // 8
BURN = "0x000000000000000000000000000000000000dEaD"


def person(number: int) -> Any:
    address = Address("0x" + (0xABCD << 144 | number).to_bytes(20, "big").hex())
    boa.env.set_balance(address, 1_000 * ETHER)
    return address


@pytest.fixture
def standbys(exchange: Exchange) -> list[Any]:
    """Three more members behind the leader, in this order."""
    people = [person(number) for number in range(3)]
    for one in people:
        exchange.sequencers.join(value=ETHER, sender=one)
    return people


def post(exchange: Exchange, poster: Any) -> int:
    """The next batch; its id."""
    number = exchange.rollup.next_batch()
    seq = exchange.rollup.tip()[0]
    batch = Batch(number, first_seq=seq).upon(exchange.rollup, exchange.inbox)
    exchange.rollup.post(*batch.arguments(), sender=poster)
    return int(number)


def roll_back(exchange: Exchange, batch_id: int) -> int:
    """As the arbiter does on a fraud; what it is paid."""
    arbiter = str(exchange.arbiter.address)
    _, paid = exchange.rollup.roll_back(batch_id, arbiter, sender=arbiter)
    return int(paid)


def travel(seconds: int) -> None:
    boa.env.time_travel(seconds=seconds)


def queue(exchange: Exchange) -> list[str]:
    return [str(one) for one in exchange.sequencers.members()]


def names(*people: Any) -> list[str]:
    return [str(one) for one in people]


# ----------------------------------------------------------------------------------------- join and leave


def test_genesis__the_deployers_sequencer_leads_epoch_1(exchange: Exchange, sequencer: Any) -> None:
    set_ = exchange.sequencers
    assert (set_.leader(), set_.epoch(), set_.leader_of(1)) == (sequencer, 1, sequencer)
    assert (queue(exchange), set_.bond_of(sequencer)) == (names(sequencer), ETHER)
    assert exchange.rollup.epoch_of(0) == 0
    assert exchange.rollup.epoch_of(post(exchange, sequencer)) == 1


def test_join__with_the_bond__is_the_last_and_may_not_post(exchange: Exchange, sequencer: Any) -> None:
    newcomer = person(0)
    with reverts("sequencers: bond below the minimum"):
        exchange.sequencers.join(value=ETHER - 1, sender=newcomer)
    exchange.sequencers.join(value=ETHER + 5, sender=newcomer)
    event = events_of(exchange.sequencers, "Joined")[0]
    assert (event.member, event.bond) == (newcomer, ETHER + 5)
    assert queue(exchange) == names(sequencer, newcomer)
    with reverts("sequencers: member already"):
        exchange.sequencers.join(value=ETHER, sender=newcomer)
    with reverts("sequencers: caller is not the leader"):
        post(exchange, newcomer)


def test_join__by_code__reverts(exchange: Exchange, hostile: Any, stranger: Any) -> None:
    proxy = hostile("Proxy")
    join = exchange.sequencers.join.prepare_calldata()
    with reverts("sequencers: member has code"):
        proxy.forward(exchange.sequencers.address, join, sender=stranger)
    boa.env.set_code(stranger, b"\xef\x01\x00" + bytes.fromhex(str(proxy.address)[2:]))
    with reverts("sequencers: member has code"):
        exchange.sequencers.join(value=ETHER, sender=stranger)


def test_join__into_a_full_set__reverts(exchange: Exchange) -> None:
    for number in range(MEMBERS_MAX - 1):
        exchange.sequencers.join(value=ETHER, sender=person(number))
    with reverts("sequencers: set is full"):
        exchange.sequencers.join(value=ETHER, sender=person(99))
    exchange.sequencers.leave(sender=person(3))
    exchange.sequencers.join(value=ETHER, sender=person(99))
    assert queue(exchange)[-1] == str(person(99))


def test_leave__of_one_that_never_led__pays_at_once(exchange: Exchange, standbys: list[Any]) -> None:
    set_, one = exchange.sequencers, standbys[1]
    with reverts("sequencers: caller is a member"):
        set_.withdraw_bond(sender=one)
    set_.leave(sender=one)
    assert str(one) not in queue(exchange)
    with reverts("sequencers: caller is not a member"):
        set_.leave(sender=one)
    before = boa.env.get_balance(one)
    set_.withdraw_bond(sender=one)
    assert boa.env.get_balance(one) == before + ETHER
    with reverts("sequencers: no bond"):
        set_.withdraw_bond(sender=one)


def test_leave__and_join_again__takes_the_old_bond_and_the_last_place(
    exchange: Exchange, sequencer: Any, standbys: list[Any]
) -> None:
    exchange.sequencers.leave(sender=standbys[0])
    exchange.sequencers.join(sender=standbys[0])
    assert queue(exchange) == names(sequencer, standbys[1], standbys[2], standbys[0])


def test_bond__of_a_former_leader__stays_until_its_batches_are_final(
    exchange: Exchange, sequencer: Any, standbys: list[Any]
) -> None:
    set_ = exchange.sequencers
    with reverts("sequencers: leader cannot leave"):
        set_.leave(sender=sequencer)
    last = post(exchange, sequencer)
    set_.hand_over(sender=sequencer)
    set_.leave(sender=sequencer)
    travel(WINDOW_S - 1)
    assert not exchange.rollup.is_final(last)
    with reverts("sequencers: batches are not final"):
        set_.withdraw_bond(sender=sequencer)
    with boa.env.anchor():
        assert roll_back(exchange, last) == PAID
        assert set_.bond_of(sequencer) == 0
    travel(1)
    assert exchange.rollup.is_final(last)
    travel(WINDOW_S - 1)
    with reverts("sequencers: batches are not final"):  # what others have posted of its receipts
        set_.withdraw_bond(sender=sequencer)
    travel(1)
    set_.withdraw_bond(sender=sequencer)


def test_leave__of_the_last_leader__needs_the_freeze(exchange: Exchange, sequencer: Any) -> None:
    set_ = exchange.sequencers
    post(exchange, sequencer)
    with reverts("sequencers: nobody to hand over to"):
        set_.hand_over(sender=sequencer)
    travel(SILENCE_S + 1)
    exchange.rollup.freeze(0)
    set_.leave(sender=sequencer)
    assert (set_.leader(), queue(exchange)) == (NOBODY, [])
    travel(2 * WINDOW_S)
    set_.withdraw_bond(sender=sequencer)
    assert boa.env.get_balance(set_.address) == 0
    with reverts("sequencers: rollup is frozen"):
        set_.join(value=ETHER, sender=sequencer)


# -------------------------------------------------------------------------------- hand-over and take-over


def test_hand_over__lets_the_next_lead_at_once_and_shuts_the_old_one_out(
    exchange: Exchange, sequencer: Any, standbys: list[Any]
) -> None:
    set_ = exchange.sequencers
    post(exchange, sequencer)
    for caller in standbys:
        with reverts("sequencers: caller is not the leader"):
            set_.hand_over(sender=caller)
    set_.hand_over(sender=sequencer)
    event = events_of(set_, "EpochStarted")[0]
    assert (event.epoch, event.leader) == (2, standbys[0])
    assert queue(exchange) == names(*standbys, sequencer)
    with reverts("sequencers: caller is not the leader"):
        post(exchange, sequencer)
    assert exchange.rollup.epoch_of(post(exchange, standbys[0])) == 2


def test_take_over__by_each_place__takes_as_many_times_the_silence(
    exchange: Exchange, sequencer: Any, standbys: list[Any]
) -> None:
    set_ = exchange.sequencers
    travel(400)
    post(exchange, sequencer)
    now = boa.env.timestamp
    assert set_.takes_over_at(sequencer) == set_.takes_over_at(person(9)) == NEVER
    with reverts("sequencers: caller is the leader"):
        set_.take_over(sender=sequencer)
    with reverts("sequencers: caller is not a member"):
        set_.take_over(sender=person(9))
    for place, one in enumerate(standbys, start=1):
        with boa.env.anchor():
            assert set_.takes_over_at(one) == now + place * TAKEOVER_S
            travel(place * TAKEOVER_S - 1)
            with reverts("sequencers: not silent for long enough"):
                set_.take_over(sender=one)
            travel(1)
            set_.take_over(sender=one)
            assert (set_.leader(), set_.epoch(), set_.epoch_started_at()) == (one, 2, boa.env.timestamp)
            around = [sequencer, *standbys]
            assert queue(exchange) == names(*around[place:], *around[:place])
            assert exchange.rollup.epoch_of(post(exchange, one)) == 2


def test_take_over__and_a_batch_in_one_block__the_first_of_them_counts(
    exchange: Exchange, sequencer: Any, standbys: list[Any]
) -> None:
    post(exchange, sequencer)
    travel(TAKEOVER_S)
    with boa.env.anchor():
        post(exchange, sequencer)
        with reverts("sequencers: not silent for long enough"):
            exchange.sequencers.take_over(sender=standbys[0])
    exchange.sequencers.take_over(sender=standbys[0])
    with reverts("sequencers: caller is not the leader"):
        post(exchange, sequencer)


def test_take_over__from_one_that_took_over_and_never_posted__puts_it_out(
    exchange: Exchange, sequencer: Any, standbys: list[Any]
) -> None:
    """It keeps its bond, and its place is free for others."""
    set_ = exchange.sequencers
    post(exchange, sequencer)
    travel(TAKEOVER_S)
    set_.take_over(sender=standbys[0])
    travel(TAKEOVER_S)
    set_.take_over(sender=standbys[1])
    assert [event.member for event in events_of(set_, "Left")] == [standbys[0]]
    assert queue(exchange) == names(standbys[1], standbys[2], sequencer)
    assert set_.bond_of(standbys[0]) == ETHER
    post(exchange, standbys[1])
    travel(TAKEOVER_S)
    set_.take_over(sender=standbys[2])
    assert queue(exchange) == names(standbys[2], sequencer, standbys[1])


def test_take_over__by_members_that_never_post__cannot_put_the_freeze_off(
    exchange: Exchange, stranger: Any
) -> None:
    people = [person(number) for number in range(MEMBERS_MAX - 1)]
    for one in people:
        exchange.sequencers.join(value=ETHER, sender=one)
    start = boa.env.timestamp
    for one in people:
        travel(TAKEOVER_S)
        exchange.sequencers.take_over(sender=one)
    assert boa.env.timestamp - start < exchange.sequencers.rotation_s() < exchange.rollup.silence_max_s()
    travel(start + SILENCE_S + 1 - boa.env.timestamp)
    exchange.rollup.freeze(0, sender=stranger)
    with reverts("sequencers: caller is the leader"):
        exchange.sequencers.take_over(sender=people[-1])
    exchange.sequencers.join(sender=people[0])
    travel(TAKEOVER_S * MEMBERS_MAX)
    for one, call in (
        (people[-1], exchange.sequencers.hand_over),
        (people[0], exchange.sequencers.take_over),
    ):
        with reverts("sequencers: rollup is frozen"):
            call(sender=one)


# ------------------------------------------------------------------------------------------------ slashing


def test_slash__of_a_lying_leader__lets_the_next_take_over_at_once(
    exchange: Exchange, sequencer: Any, standbys: list[Any]
) -> None:
    set_ = exchange.sequencers
    post(exchange, sequencer)
    burned = boa.env.get_balance(BURN)
    assert roll_back(exchange, 1) == PAID
    assert events_of(exchange.rollup, "RolledBack")[0].slashed == ETHER
    assert boa.env.get_balance(BURN) == burned + ETHER - PAID
    assert boa.env.get_balance(str(exchange.arbiter.address)) == PAID
    assert (set_.leader(), queue(exchange)) == (NOBODY, names(*standbys))
    assert [set_.takes_over_at(one) - boa.env.timestamp for one in standbys] == [
        0,
        TAKEOVER_S,
        2 * TAKEOVER_S,
    ]
    for one in (sequencer, *standbys):
        with reverts("sequencers: caller is not the leader"):
            post(exchange, one)
    with reverts("sequencers: not silent for long enough"):
        set_.take_over(sender=standbys[1])
    set_.take_over(sender=standbys[0])
    assert exchange.rollup.epoch_of(post(exchange, standbys[0])) == 2
    with reverts("sequencers: no bond"):
        set_.withdraw_bond(sender=sequencer)


def test_slash__by_an_odd_amount__burns_what_is_left_over(exchange: Exchange, sequencer: Any) -> None:
    liar = person(0)
    exchange.sequencers.join(value=ETHER + 3, sender=liar)
    post(exchange, sequencer)
    exchange.sequencers.hand_over(sender=sequencer)
    burned = boa.env.get_balance(BURN)
    assert roll_back(exchange, post(exchange, liar)) == (ETHER + 3) * 3 // 8
    assert boa.env.get_balance(BURN) == burned + ETHER + 3 - (ETHER + 3) * 3 // 8


def test_slash__takes_from_who_posted_the_first_wrong_batch_alone(
    exchange: Exchange, sequencer: Any, standbys: list[Any]
) -> None:
    set_ = exchange.sequencers
    honest = post(exchange, sequencer)
    set_.hand_over(sender=sequencer)
    wrong = post(exchange, standbys[0])
    set_.hand_over(sender=standbys[0])
    post(exchange, standbys[1])
    set_.leave(sender=standbys[0])
    travel(1)
    assert roll_back(exchange, wrong) == PAID
    assert [set_.bond_of(one) for one in (sequencer, *standbys)] == [ETHER, 0, ETHER, ETHER]
    assert (set_.leader(), set_.epoch()) == (standbys[1], 3)
    assert exchange.rollup.next_batch() == wrong == honest + 1
    assert set_.takes_over_at(standbys[2]) == boa.env.timestamp + TAKEOVER_S
    post(exchange, standbys[1])


def test_slash__of_one_that_waits_in_the_queue__takes_it_out(
    exchange: Exchange, sequencer: Any, standbys: list[Any]
) -> None:
    wrong = post(exchange, sequencer)
    exchange.sequencers.hand_over(sender=sequencer)
    roll_back(exchange, wrong)
    assert queue(exchange) == names(*standbys)
    assert exchange.sequencers.leader() == standbys[0]


def test_slash__of_the_only_member__lets_who_joins_lead(exchange: Exchange, sequencer: Any) -> None:
    set_ = exchange.sequencers
    roll_back(exchange, post(exchange, sequencer))
    assert (set_.leader(), queue(exchange)) == (NOBODY, [])
    with reverts("sequencers: bond below the minimum"):
        set_.join(value=ETHER - 1, sender=sequencer)
    set_.join(value=ETHER, sender=sequencer)
    assert (set_.leader(), set_.epoch()) == (sequencer, 2)
    post(exchange, sequencer)


def test_slash__by_others__reverts(exchange: Exchange, sequencer: Any, stranger: Any) -> None:
    for caller in (stranger, sequencer, exchange.sequencers.rollup_setter(), str(exchange.arbiter.address)):
        boa.env.set_balance(caller, ETHER)
        with reverts("sequencers: caller is not the rollup"):
            exchange.sequencers.slash(1, caller, sender=caller)
    exchange.sequencers.slash(1, stranger, sender=str(exchange.rollup.address))
    event = events_of(exchange.sequencers, "Slashed")[0]
    assert (event.epoch, event.member, event.amount) == (1, sequencer, ETHER)


def test_withdraw__by_a_member_with_code_that_calls_again__pays_once(
    exchange: Exchange, standbys: list[Any]
) -> None:
    """An account can get code after it has joined (EIP-7702)."""
    set_, thief = exchange.sequencers, standbys[0]
    set_.leave(sender=thief)
    again = deploy_stub("Again")
    boa.env.set_code(thief, boa.env.get_code(again.address))
    before = boa.env.get_balance(set_.address)
    with reverts("(no reason)"):  # the compiler's lock
        boa.env.raw_call(thief, sender=standbys[1], data=again.withdraw.prepare_calldata(set_.address))
    assert boa.env.get_balance(set_.address) == before


# -------------------------------------------------------------------------------------------- construction


@pytest.mark.parametrize(
    ("arguments", "value", "reason"),
    [
        ((NOBODY, ETHER, 1), ETHER, "sequencers: leader is zero"),
        ((BURN, ETHER - 1, 1), ETHER, "sequencers: bond does not pay a challenge"),
        ((BURN, ETHER, 0), ETHER, "sequencers: take-over time is zero"),
        ((BURN, ETHER + 1, 1), ETHER, "sequencers: bond below the minimum"),
    ],
)
def test_constructor__wrong_arguments__revert(
    exchange: Exchange, arguments: tuple[Any, ...], value: int, reason: str
) -> None:
    with reverts(reason):
        deploy("Sequencers", *arguments, value=value)


def test_set_rollup__once_by_the_deployer_and_only_its_own(exchange: Exchange, stranger: Any) -> None:
    with reverts("sequencers: rollup is set already"):
        exchange.sequencers.set_rollup(exchange.rollup.address)
    fresh = deploy("Sequencers", stranger, ETHER, TAKEOVER_S, value=ETHER)
    with reverts("sequencers: no rollup"):
        fresh.join(value=ETHER, sender=person(0))
    with reverts("sequencers: caller is not the deployer"):
        fresh.set_rollup(exchange.rollup.address, sender=stranger)
    for other in (exchange.rollup.address, stranger):
        with reverts("sequencers: rollup has another set"):
            fresh.set_rollup(other)


# ------------------------------------------------------------------------------------------- any sequence


class SetMachine(RuleBasedStateMachine):
    """Members do what they can, batches are posted and found wrong; a naive twin says what must come of it."""

    exchange: Exchange
    sequencer: Any

    def __init__(self) -> None:
        super().__init__()
        self.anchor = boa.env.anchor()
        self.anchor.__enter__()
        self.people = [self.sequencer, *(person(number) for number in range(5))]
        self.queue = [0]
        self.is_vacant = False
        self.bonds = [ETHER, 0, 0, 0, 0, 0]
        self.led_until = [0] * 6
        self.sign_at = self.epoch_at = self.exchange.rollup.unserved_since()[0]
        self.turned = (0, 0)
        self.posts: list[tuple[int, int, int]] = []  # who, when, in what epoch
        self.epoch = 1

    def teardown(self) -> None:
        self.anchor.__exit__(None, None, None)

    @property
    def set_(self) -> Any:
        return self.exchange.sequencers

    @property
    def leader(self) -> int | None:
        return None if self.is_vacant else self.queue[0]

    def lead(self, queue: list[int]) -> None:
        self.queue, self.is_vacant = queue, False
        self.epoch, self.epoch_at = self.epoch + 1, boa.env.timestamp

    def change(self, place: int) -> None:
        """The member at `place` leads; who led and posted nothing since is out."""
        self.turned = (self.sign_at, self.turns() + place)
        queue_ = self.queue[place:] + self.queue[:place]
        if self.leader is not None:
            old = self.queue[0]
            self.led_until[old] = boa.env.timestamp
            posted_last = self.posts[-1][2] if self.posts else 0
            if posted_last != self.epoch or self.sign_at < self.epoch_at:
                queue_.remove(old)
        self.lead(queue_)

    def turns(self) -> int:
        """How many places the queue was turned by since something was last done."""
        since, turns = self.turned
        return turns if since == self.sign_at else 0

    def takes_over_at(self, place: int) -> int:
        at = self.sign_at + min(self.turns() + place, MEMBERS_MAX) * TAKEOVER_S
        return at if self.is_vacant else max(at, self.epoch_at + TAKEOVER_S)

    @initialize()
    def two_more(self) -> None:
        for who in (1, 2):
            self.join(who, ETHER)

    @rule(who=st.integers(0, 5), amount=st.sampled_from([0, ETHER - 1, ETHER, 2 * ETHER]))
    def join(self, who: int, amount: int) -> None:
        call = lambda: self.set_.join(value=amount, sender=self.people[who])  # noqa: E731
        if who in self.queue:
            with reverts("sequencers: member already"):
                call()
        elif self.bonds[who] + amount < ETHER:
            with reverts("sequencers: bond below the minimum"):
                call()
        else:
            call()
            self.bonds[who] += amount
            if self.queue:
                self.queue.append(who)
            else:
                self.sign_at = boa.env.timestamp  # whoever founds a set has all the time
                self.turned = (self.sign_at, 0)
                self.lead([who])

    @rule(who=st.integers(0, 5))
    def leave(self, who: int) -> None:
        call = lambda: self.set_.leave(sender=self.people[who])  # noqa: E731
        if who not in self.queue:
            with reverts("sequencers: caller is not a member"):
                call()
        elif who == self.leader:
            with reverts("sequencers: leader cannot leave"):
                call()
        else:
            call()
            self.queue.remove(who)

    @rule(who=st.integers(0, 5))
    def withdraw(self, who: int) -> None:
        call = lambda: self.set_.withdraw_bond(sender=self.people[who])  # noqa: E731
        open_ = [at for poster, at, _ in self.posts if poster == who and boa.env.timestamp < at + WINDOW_S]
        if who in self.queue:
            with reverts("sequencers: caller is a member"):
                call()
        elif not self.bonds[who]:
            with reverts("sequencers: no bond"):
                call()
        elif boa.env.timestamp < self.led_until[who] + 2 * WINDOW_S:
            with reverts("sequencers: batches are not final"):
                call()
        else:
            assert not open_  # nothing that it posted can be challenged any more
            call()
            self.bonds[who] = 0

    @rule()
    def hand_over(self) -> None:
        if self.leader is None or len(self.queue) < 2:
            return
        self.set_.hand_over(sender=self.people[self.queue[0]])
        self.change(1)

    @rule(who=st.integers(0, 5))
    def take_over(self, who: int) -> None:
        call = lambda: self.set_.take_over(sender=self.people[who])  # noqa: E731
        if who not in self.queue:
            with reverts("sequencers: caller is not a member"):
                call()
            return
        place = self.queue.index(who)
        if who == self.leader:
            with reverts("sequencers: caller is the leader"):
                call()
        elif boa.env.timestamp < self.takes_over_at(place):
            with reverts("sequencers: not silent for long enough"):
                call()
        else:
            call()
            self.change(place)

    @rule(who=st.integers(0, 5))
    def post(self, who: int) -> None:
        if who == self.leader:
            post(self.exchange, self.people[who])
            self.sign_at = boa.env.timestamp
            self.posts.append((who, self.sign_at, self.epoch))
        else:
            with reverts("sequencers: caller is not the leader"):
                post(self.exchange, self.people[who])

    @precondition(lambda self: self.posts)
    @rule(back=st.integers(1, 3))
    def found_wrong(self, back: int) -> None:
        index = max(0, len(self.posts) - back)
        liar, at, _ = self.posts[index]
        if boa.env.timestamp >= at + WINDOW_S:
            with reverts("rollup: batch is final"):
                roll_back(self.exchange, index + 1)
            return
        assert roll_back(self.exchange, index + 1) == self.bonds[liar] * 3 // 8
        del self.posts[index:]
        self.bonds[liar] = 0
        self.sign_at = boa.env.timestamp
        if liar == self.leader:
            self.is_vacant = True
            self.led_until[liar] = boa.env.timestamp
        if liar in self.queue:
            self.queue.remove(liar)

    @rule(seconds=st.sampled_from([1, 25, TAKEOVER_S, TAKEOVER_S + 1, 3 * TAKEOVER_S]))
    def wait(self, seconds: int) -> None:
        travel(seconds)

    @invariant()
    def is_as_the_twin_says(self) -> None:
        assert queue(self.exchange) == names(*(self.people[who] for who in self.queue))
        leader = NOBODY if self.leader is None else self.people[self.leader]
        assert (self.set_.leader(), self.set_.epoch()) == (leader, self.epoch)
        assert [self.set_.bond_of(one) for one in self.people] == self.bonds
        assert boa.env.get_balance(self.set_.address) == sum(self.bonds)
        assert all(self.bonds[who] >= ETHER for who in self.queue)
        for place, who in enumerate(self.queue):
            at = NEVER if who == self.leader else self.takes_over_at(place)
            assert self.set_.takes_over_at(self.people[who]) == at
        assert self.exchange.rollup.next_batch() == len(self.posts) + 1


def test_any_sequence__keeps_one_leader_the_bonds_and_slashes_the_liar_alone(
    pristine: Exchange, sequencer: Any
) -> None:
    class Machine(SetMachine):
        pass

    Machine.exchange, Machine.sequencer = pristine, sequencer
    Machine.TestCase.settings = settings(max_examples=25, stateful_step_count=40, deadline=None)
    Machine.TestCase("runTest").runTest()
