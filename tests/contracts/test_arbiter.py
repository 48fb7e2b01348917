"""Arbiter: fraud is found and punished, honesty never, whoever asks and however; copying a challenge earns nothing.

Long because every fault is shown against the same posted batches.
"""

import random
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import boa
import pytest
from contract_support import (
    ETHER,
    INBOX,
    USD,
    Exchange,
    deploy,
    deploy_exchange,
    events_of,
    naive_data_root,
    pack,
    reason_of,
    reverts,
)
from eth.exceptions import Revert
from stub_support import deploy_stub

from sequencer.engine.engine import Engine
from sequencer.genesis import genesis_root, genesis_state
from sequencer.l1.follower import PostedBatch
from sequencer.local.devnet import devnet_params
from sequencer.proof.challenge import (
    Challenge,
    arbiter,
    challenge_form,
    challenge_header,
    challenge_late,
    challenge_segment,
    is_malformed,
    message,
    segment_proof,
)
from sequencer.proof.witness import Tracer, Witness
from sequencer.protocol import batch as batches
from sequencer.protocol import codec
from sequencer.protocol import constants as c
from sequencer.protocol.batch import Segment
from sequencer.protocol.constants import Kind
from sequencer.protocol.outcome import Outcome
from sequencer.protocol.state import State
from sequencer.protocol.transition import apply

PARAMS = devnet_params()
SALT = b"\x5a" * 32
REVEAL_BLOCKS = 10
DEPOSITS = 24  # over two segments and more: a TICK and 15, then the rest
GAS_MAX = 8_000_000
CALLDATA_MAX = 110 * 1024


class Believer:
    """A tracer whose witnesses are what `StubVerifier` takes: the root after the record, and nothing else."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    @classmethod
    def of(cls, state: State) -> "Believer":
        return cls(Tracer.of(state))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tracer, name)

    def witness(self, raw: bytes, signer: bytes | None = None) -> Witness:
        one = self._tracer.witness(raw, signer)
        return replace(one, words=(int.from_bytes(one.post_root, "big"),))


class Scene:
    """An exchange with deposits, and the honest segments that take them."""

    def __init__(self, exchange: Exchange, sequencer: Any, owners: list[Any], tracer: Any) -> None:
        self.exchange, self.sequencer, self.tracer = exchange, sequencer, tracer
        records = []
        for number in range(DEPOSITS):
            owner = owners[number % len(owners)]
            exchange.vault.deposit(USD + number, sender=owner)
            records.append(bytes(events_of(exchange.vault, "Message")[0].record))
        self.state = self.genesis()
        tick = Engine(self.state).run(boa.env.timestamp, records, [])
        assert tick.entry is not None
        self.segments = tick.entry.batch_segments()
        assert len(self.segments) == 2

    def genesis(self) -> State:
        return genesis_state(bytes(self.exchange.rollup.domain_separator()), PARAMS)

    def before(self, index: int) -> Any:
        """Stands where segment `index` of the honest batch begins."""
        state = self.genesis()
        for segment in self.segments[:index]:
            for raw in segment.records:
                apply(state, raw)
        return self.tracer.of(state)

    def post(self, taken: list[Segment] | None = None, payload: bytes = b"", **changes: Any) -> PostedBatch:
        """Posts the next batch: the honest one, or what a liar makes of it."""
        taken = self.segments if taken is None else taken
        g = self.state.globals
        header = {
            "post_root": taken[-1].root if taken else b"",
            "segments": len(taken),
            "records": sum(len(segment.records) for segment in taken),
            "first_seq": 0,
            "time": g.time,
            "inbox_count": g.inbox_count,
            "work": g.work,
            "ticks": sum(batches.ticks_in(segment.records) for segment in taken),
        } | changes
        payload = payload or batches.encode(taken)
        rollup = self.exchange.rollup
        number = rollup.next_batch()
        pre_root = rollup.batch(number - 1).post_root
        inbox_hash = self.exchange.inbox.hash_at(header["inbox_count"])
        work, tick = header.pop("work"), rollup.tip_tick() + header.pop("ticks")
        rollup.post(
            number, pre_root, *header.values(), inbox_hash, work, tick, payload, sender=self.sequencer
        )
        event = events_of(rollup, "BatchPosted")[0]
        names = [
            *("batch_id", "pre_root", "post_root", "data_root", "elements", "segments", "records"),
            *("first_seq", "inbox_count", "inbox_hash", "work", "tick", "ticks", "header_hash"),
        ]
        return PostedBatch(
            **{name: getattr(event, name) for name in names},
            time_s=event.time,
            payload=payload,
            block_number=0,
            block_hash="",
            tx_hash="",
        )

    def check(self, challenge: Challenge) -> tuple[bool, bytes]:
        """A dry run: whether there is fraud, and the root that was found."""
        output = boa.env.raw_call(self.exchange.arbiter.address, data=challenge.call).output
        fraud, batch_id, challenge_id, root = arbiter().function("check_form").decode_output(output)[0:4]
        assert (batch_id, challenge_id) == (challenge.batch_id, challenge.challenge_id)
        return fraud, root

    def challenge(self, challenge: Challenge, challenger: Any, salt: bytes = SALT) -> int:
        """Commits and challenges; the number of the reward."""
        self.commit(challenge, challenger, salt)
        boa.env.time_travel(blocks=1)
        number: int = self.exchange.arbiter.challenge(salt, challenge.call, sender=challenger)
        return number

    def commit(self, challenge: Challenge, challenger: Any, salt: bytes = SALT) -> None:
        self.exchange.arbiter.commit(challenge.commitment(str(challenger), salt), sender=challenger)


def build(sequencer: Any, owners: list[Any], tracer: Any, verifiers: Any) -> Scene:
    exchange = deploy_exchange(
        sequencer, verifiers=verifiers, genesis_root=genesis_root(PARAMS), reveal_blocks=REVEAL_BLOCKS
    )
    for owner in owners:
        exchange.token.mint(owner, 10**6 * USD)
        exchange.token.approve(exchange.vault.address, 10**6 * USD, sender=owner)
    return Scene(exchange, sequencer, owners, tracer)


@pytest.fixture(scope="module")
def built(
    pristine: Exchange, sequencer: Any, trader: Any, other_trader: Any, stranger: Any
) -> Iterator[Scene]:
    with boa.env.anchor():
        yield build(sequencer, [trader, other_trader], Believer, (deploy_stub("StubVerifier"),) * 8)


@pytest.fixture
def scene(built: Scene) -> Iterator[Scene]:
    with boa.env.anchor():
        yield built


def corrupt(segments: list[Segment], index: int) -> list[Segment]:
    """The same with one bit of a root flipped, in the part that a payload shows."""
    wrong = bytes([segments[index].root[0] ^ 1]) + segments[index].root[1:]
    return [*segments[:index], Segment(wrong, segments[index].records), *segments[index + 1 :]]


# ------------------------------------------------------------------------------------------ honest batches


def test_honest_batch__is_found_wrong_by_no_check(scene: Scene, stranger: Any) -> None:
    posted = scene.post()
    checks = [challenge_header(posted, scene.state)]
    for index, segment in enumerate(scene.segments):
        checks += [challenge_segment(posted, index, scene.before(index)), challenge_form(posted, index)]
        assert scene.check(checks[-2]) == (False, segment.root)
        assert not is_malformed(posted.payload, posted.segments, posted.ticks, index)
    for check in checks:
        assert not scene.check(check)[0]
        with reverts("arbiter: no fraud"):
            scene.challenge(check, stranger)
    assert scene.exchange.rollup.next_batch() == 2
    assert boa.env.get_balance(scene.exchange.sequencers.address) == ETHER


def test_honest_batch__that_follows_another__is_found_wrong_by_no_check(scene: Scene) -> None:
    """The header's pre-root is the one of a batch before, and its first segment begins there."""
    state = scene.before(1)
    scene.post(scene.segments[:1], time=state.globals.time, inbox_count=state.globals.inbox_count)
    seq = state.globals.seq
    posted = scene.post(scene.segments[1:], first_seq=seq)
    assert posted.pre_root == scene.segments[0].root
    assert scene.check(challenge_segment(posted, 0, scene.before(1))) == (False, posted.post_root)
    assert not scene.check(challenge_header(posted, scene.state))[0]


# --------------------------------------------------------------------------------------------- wrong roots


@pytest.mark.parametrize("index", [0, 1])
def test_corrupted_root__is_challenged_and_rolled_back(scene: Scene, stranger: Any, index: int) -> None:
    lie = corrupt(scene.segments, index)
    posted = scene.post(lie)
    check = challenge_segment(posted, index, scene.before(index))
    assert scene.check(check) == (True, scene.segments[index].root)
    number = scene.challenge(check, stranger)
    assert scene.exchange.rollup.next_batch() == 1
    event = events_of(scene.exchange.arbiter, "Challenged")[0]
    assert (event.batch_id, event.challenger, event.reward, event.amount) == (
        1,
        stranger,
        number,
        ETHER * 3 // 8,
    )
    before = boa.env.get_balance(stranger)
    boa.env.time_travel(blocks=REVEAL_BLOCKS + 1)
    scene.exchange.arbiter.collect(number)
    assert boa.env.get_balance(stranger) == before + ETHER * 3 // 8
    with reverts("arbiter: no such reward"):
        scene.exchange.arbiter.collect(number)


def test_corrupted_low_byte_of_the_post_root__is_challenged(scene: Scene, stranger: Any) -> None:
    """The payload shows 248 bits of the last root; the header's other 8 count, for claims are proved under them."""
    root = scene.segments[-1].root
    posted = scene.post(post_root=root[:31] + bytes([root[31] ^ 1]))
    check = challenge_segment(posted, 1, scene.before(1))
    assert scene.check(check) == (True, root)
    scene.challenge(check, stranger)
    assert scene.exchange.rollup.next_batch() == 1


def test_several_wrong_batches__the_first_takes_all_with_it(scene: Scene, stranger: Any) -> None:
    first = scene.post(corrupt(scene.segments, 1))
    seq, count = scene.state.globals.seq, scene.state.globals.inbox_count
    for number in range(1, 4):
        scene.post(corrupt(scene.segments, 0), first_seq=seq * number, inbox_count=count)
    scene.challenge(challenge_segment(first, 1, scene.before(1)), stranger)
    assert scene.exchange.rollup.next_batch() == 1
    assert scene.exchange.rollup.tip() == (0, 0, 0)


def reward_of(scene: Scene, number: int, name: str) -> Any:
    """A field of a reward."""
    return getattr(scene.exchange.arbiter.rewards(number), name)


def test_wrong_batch_before_a_wrong_batch__takes_the_later_ones_reward(
    scene: Scene, stranger: Any, trader: Any
) -> None:
    """A liar that challenges its second lie itself would have its first proved wrong for nothing."""
    first = scene.post(corrupt(scene.segments, 0))
    seq, count = scene.state.globals.seq, scene.state.globals.inbox_count
    records = (codec.encode(Kind.TICK, time=0),)
    second = scene.post(
        [Segment(b"\2" * 32, records + records), Segment(b"\3" * 32, records * 33)], first_seq=seq
    )
    assert second.inbox_count == count
    own = scene.challenge(challenge_form(second, 1), trader)
    assert reward_of(scene, own, "amount") == ETHER * 3 // 8
    boa.env.time_travel(blocks=REVEAL_BLOCKS + 1, block_delta=1)
    contract = scene.exchange.arbiter
    with reverts("arbiter: an earlier batch can be challenged"):
        contract.collect(own)
    number = scene.challenge(challenge_segment(first, 0, scene.before(0)), stranger)
    event = events_of(contract, "Moved")[0]
    assert (event.reward, event.to, event.amount) == (own, number, ETHER * 3 // 8)
    assert scene.exchange.rollup.next_batch() == 1
    boa.env.time_travel(blocks=REVEAL_BLOCKS + 1, block_delta=1)
    with reverts("arbiter: no such reward"):
        contract.collect(own)
    before = boa.env.get_balance(stranger)
    contract.collect(number)
    assert boa.env.get_balance(stranger) == before + ETHER * 3 // 8
    assert boa.env.get_balance(contract.address) == 0


def test_reward__of_a_later_batch__waits_until_those_before_it_are_final(scene: Scene, stranger: Any) -> None:
    scene.post()
    seq, count = scene.state.globals.seq, scene.state.globals.inbox_count
    boa.env.time_travel(seconds=100)
    tick = Segment(b"\1" * 32, (codec.encode(Kind.TICK, time=0),) * 33)
    second = scene.post([tick], first_seq=seq, inbox_count=count)
    number = scene.challenge(challenge_form(second, 0), stranger)
    final_at = scene.exchange.rollup.batch(1).posted_at + scene.exchange.rollup.challenge_window_s()
    assert reward_of(scene, number, "collect_from") == final_at
    boa.env.time_travel(blocks=REVEAL_BLOCKS + 1, block_delta=1)
    travel_to(final_at - 1)
    with reverts("arbiter: an earlier batch can be challenged"):
        scene.exchange.arbiter.collect(number)
    travel_to(final_at)
    assert scene.exchange.rollup.is_final(1)
    scene.exchange.arbiter.collect(number)


def test_challenge__in_the_last_second_of_the_window__counts(scene: Scene, stranger: Any) -> None:
    check = challenge_segment(scene.post(corrupt(scene.segments, 0)), 0, scene.before(0))
    window = scene.exchange.rollup.challenge_window_s()
    scene.commit(check, stranger)
    boa.env.evm.patch.block_number += 1
    boa.env.evm.patch.timestamp += window - 1
    with boa.env.anchor():
        boa.env.evm.patch.timestamp += 1
        with reverts("arbiter: batch is final"):
            scene.exchange.arbiter.challenge(SALT, check.call, sender=stranger)
    scene.exchange.arbiter.challenge(SALT, check.call, sender=stranger)
    assert scene.exchange.rollup.next_batch() == 1


# ----------------------------------------------------------------------------------------------- wrong form


RISK = codec.encode(Kind.RISK, underlying=0, day=0, page=0)
CANCEL_ALL = codec.encode(Kind.CANCEL_ALL, account=1, nonce_floor=1, nonce=1, expires=0)


def tick_records(count: int) -> tuple[bytes, ...]:
    return (codec.encode(Kind.TICK, time=0),) * count


@pytest.mark.parametrize("ticks", [0, 3])
@pytest.mark.parametrize(
    ("ends", "records", "index"),
    [
        ([2, 2, 4], tick_records(4), 1),
        ([3, 2, 4], tick_records(4), 1),
        ([3, 9, 4], tick_records(4), 1),
        ([0, 2, 4], tick_records(4), 0),
        ([33, 34, 35], tick_records(35), 0),
        ([43, 44, 45], tick_records(45), 0),
        ([1, 3, 4], (*tick_records(1), RISK, RISK, *tick_records(1)), 1),
        ([1, 3, 6], (*tick_records(1), CANCEL_ALL, *tick_records(2)), 1),
        ([1, 2, 3], (*tick_records(2), bytes([Kind.SURFACE]) + bytes(30)), 2),
    ],
    ids=[
        *("empty", "descending", "past the end", "empty at first", "33 ticks", "43 elements", "overweight"),
        *("cut by the next", "cut by the end"),
    ],
)
def test_malformed_segment__is_challenged_for_its_form(
    scene: Scene, stranger: Any, ends: list[int], records: tuple[bytes, ...], index: int, ticks: int
) -> None:
    roots = [b"\1" * 31, b"\2" * 31, b"\3" * 31]
    payload = pack(roots, ends, b"".join(records), b"\xee" * 31 * ticks)
    header = {"post_root": b"\3" * 32, "segments": 3, "records": ends[-1], "inbox_count": 0, "time": 0}
    header["ticks"] = ticks
    posted = scene.post([], payload, **header)
    assert is_malformed(posted.payload, 3, ticks, index)
    check = challenge_form(posted, index)
    assert scene.check(check)[0]
    scene.challenge(check, stranger)
    assert scene.exchange.rollup.next_batch() == 1


def test_segment_at_its_limits__is_well_formed(scene: Scene) -> None:
    surface = bytes([Kind.SURFACE]) + bytes(123)
    unknown = bytes([0xFF]) + bytes(30)
    records = [unknown * 32, surface * 10 + unknown * 2]
    payload = pack([b"\1" * 31, b"\2" * 31], [32, 74], b"".join(records))
    posted = scene.post([], payload, post_root=b"\2" * 32, segments=2, records=44, inbox_count=0)
    for index in (0, 1):
        assert not is_malformed(posted.payload, 2, 0, index)
        assert not scene.check(challenge_form(posted, index))[0]


# --------------------------------------------------------------------------------------------- wrong header


@pytest.mark.parametrize("field", ["seq", "time", "inbox count", "inbox hash", "work", "tick"])
def test_header_that_contradicts_global__is_challenged(scene: Scene, stranger: Any, field: str) -> None:
    """Records and roots may be what they are: the header says something else about the state after them."""
    liar = scene.before(2)
    if field == "seq":
        liar.globals.seq += 1
    elif field == "time":
        liar.globals.time -= 1
    elif field == "inbox count":
        liar.globals.inbox_count -= 1
    elif field == "inbox hash":
        liar.globals.inbox_hash = b"\7" * 32
    elif field == "tick":
        liar.globals.tick += 1
    else:
        liar.globals.work += 1
    root = liar.root()
    posted = scene.post([*scene.segments[:-1], Segment(root, scene.segments[-1].records)])
    check = challenge_header(posted, liar)
    assert scene.check(check)[0]
    scene.challenge(check, stranger)
    assert scene.exchange.rollup.next_batch() == 1


def test_check_header__of_another_state__reverts(scene: Scene) -> None:
    posted = scene.post()
    with reverts("arbiter: wrong path of GLOBAL"):
        scene.check(challenge_header(posted, scene.genesis()))


# --------------------------------------------------------------------------------------------------- late

DELAY_MIN, DELAY_MAX, FEE = INBOX


def travel_to(time: int) -> None:
    boa.env.time_travel(seconds=time - boa.env.timestamp)


def test_batch__posted_in_time__is_late_for_no_message(scene: Scene) -> None:
    posted = scene.post()
    for message_ in (0, DEPOSITS - 1):
        assert not scene.check(challenge_late(posted, message_))[0]
    with reverts("inbox: unknown message"):
        scene.check(challenge_late(posted, DEPOSITS))


@pytest.mark.parametrize("takes", [True, False], ids=["that takes it", "that does not take it"])
@pytest.mark.parametrize("after_s", [DELAY_MIN, DELAY_MIN + 1])
def test_batch__posted_after_a_deadline__is_late_from_the_shortest_delay_on(
    scene: Scene, stranger: Any, after_s: int, takes: bool
) -> None:
    deadline = scene.exchange.inbox.deadline_at(0)
    assert scene.exchange.inbox.deadline_at(DEPOSITS - 1) == deadline
    travel_to(deadline + after_s)
    if takes:
        posted = scene.post()
    else:
        tick = Segment(b"\1" * 32, (codec.encode(Kind.TICK, time=0),))
        posted = scene.post([tick], inbox_count=0)
    check = challenge_late(posted, DEPOSITS - 1)
    assert scene.check(check)[0] is (after_s > DELAY_MIN)
    if after_s == DELAY_MIN:
        with reverts("arbiter: no fraud"):
            scene.challenge(check, stranger)
        return
    scene.challenge(check, stranger)
    assert scene.exchange.rollup.next_batch() == 1
    assert boa.env.get_balance(scene.exchange.sequencers.address) == 0


def test_batch__that_is_late_for_a_later_message_with_an_earlier_deadline__is_challenged(
    scene: Scene, trader: Any
) -> None:
    """Messages are taken in order: who takes none of them is late for the most urgent."""
    now = boa.env.timestamp
    expiry = now - now % c.DAY_S + c.EXPIRY_OF_DAY_S
    expiry += c.DAY_S * (expiry <= now)
    travel_to(expiry - 60)
    urgent = scene.exchange.inbox.force_liquidate(1, expiry, value=FEE, sender=trader)
    travel_to(scene.exchange.inbox.deadline_at(urgent) + DELAY_MIN + 1)
    posted = scene.post()
    first = scene.exchange.inbox.deadline_at(0) + DELAY_MIN < boa.env.timestamp
    assert scene.check(challenge_late(posted, 0))[0] is first
    assert scene.check(challenge_late(posted, urgent))[0]


def test_message__that_an_earlier_batch_has_taken__makes_no_batch_late(scene: Scene) -> None:
    first = scene.post()
    travel_to(scene.exchange.inbox.deadline_at(0) + 10 * DELAY_MIN)
    tick = Segment(b"\1" * 32, (codec.encode(Kind.TICK, time=0),))
    second = scene.post([tick], first_seq=first.records)
    assert not scene.check(challenge_late(second, 0))[0]


def test_batch__after_a_roll_back__has_the_longest_delay_again(scene: Scene, stranger: Any) -> None:
    """Half a bond buys that time; a later roll-back neither gives nor takes an excuse."""
    rollup = scene.exchange.rollup
    wrong = scene.post(corrupt(scene.segments, 0))
    travel_to(boa.env.timestamp + 300)
    scene.challenge(challenge_segment(wrong, 0, scene.before(0)), stranger)
    scene.exchange.sequencers.join(value=ETHER, sender=scene.sequencer)
    rolled_back_at = rollup.rolled_back_at()
    last_good = rolled_back_at + DELAY_MAX + DELAY_MIN
    assert last_good > scene.exchange.inbox.deadline_at(0) + DELAY_MIN
    for at, is_late in ((last_good, False), (last_good + 1, True)):
        with boa.env.anchor():
            travel_to(at)
            posted = scene.post()
            assert rollup.end(1)[3:5] == (at, rolled_back_at)
            assert scene.check(challenge_late(posted, 0))[0] is is_late
            seq, count = scene.state.globals.seq, scene.state.globals.inbox_count
            tick = Segment(b"\1" * 32, (codec.encode(Kind.TICK, time=0),) * 33)
            overweight = scene.post([tick], first_seq=seq, inbox_count=count)
            scene.challenge(challenge_form(overweight, 0), stranger)
            assert rollup.rolled_back_at() > rolled_back_at
            assert scene.check(challenge_late(posted, 0))[0] is is_late


def test_check_late__of_any_message__is_one_challenge(scene: Scene, stranger: Any, trader: Any) -> None:
    """Who holds a challenge back cannot make it his own by naming another message."""
    travel_to(scene.exchange.inbox.deadline_at(0) + DELAY_MIN + 1)
    posted = scene.post()
    held_back, copied = challenge_late(posted, 3), challenge_late(posted, 4)
    scene.commit(held_back, trader)
    boa.env.time_travel(blocks=1)
    number = scene.challenge(copied, stranger)
    scene.exchange.arbiter.contest(number, SALT, sender=trader)
    assert reward_of(scene, number, "contester") == trader


# ------------------------------------------------------------------------------------- what a check refuses


def test_check__of_a_header_that_was_not_posted__reverts(scene: Scene) -> None:
    posted = scene.post()
    for change in (
        {"batch_id": 0},
        {"pre_root": b"\1" * 32},
        {"elements": posted.elements + 1},
        {"records": posted.records + 1},
        {"data_root": b"\1" * 32},
    ):
        wrong = replace(posted, **change)
        for check in (
            challenge_header(wrong, scene.state),
            challenge_form(wrong, 0),
            challenge_segment(wrong, 0, scene.before(0)),
            challenge_late(wrong, 0),
        ):
            with reverts("arbiter: header is not the posted one"):
                scene.check(check)
    with reverts("rollup: unknown batch"):
        scene.check(challenge_form(replace(posted, batch_id=2), 0))


def test_check__of_a_final_batch__reverts(scene: Scene) -> None:
    posted = scene.post(corrupt(scene.segments, 0))
    boa.env.time_travel(seconds=scene.exchange.rollup.challenge_window_s())
    for check in (
        challenge_header(posted, scene.state),
        challenge_form(posted, 0),
        challenge_late(posted, 0),
    ):
        with reverts("arbiter: batch is final"):
            scene.check(check)


def test_check_segment__from_another_pre_root__reverts(scene: Scene) -> None:
    posted = scene.post()
    for index, other in ((0, 1), (1, 0)):
        tracer = scene.before(other)
        check = challenge_segment(posted, index, tracer)
        with reverts("arbiter: pre-root is not the committed one"):
            scene.check(check)


def test_check_segment__of_a_malformed_one__reverts(scene: Scene) -> None:
    posted = scene.post()
    raw = scene.segments[0].records
    overweight = [Segment(b"\1" * 32, raw + raw), *scene.segments[1:]]
    wrong = scene.post(overweight, first_seq=posted.records)
    check = with_arguments(wrong, 0, posted.post_root, challenge_form(wrong, 0), b"")
    with reverts("arbiter: segment is malformed"):
        scene.check(check)


def with_arguments(
    posted: PostedBatch, index: int, pre_root: bytes, form: Challenge, witness: bytes
) -> Challenge:
    """A check of a segment with any pre-root and witness; the proof is that of its form's check."""
    proof = arbiter().function("check_form").decode_input(form.call)[-1]
    call = arbiter().encode("check_segment", posted.header(), index, pre_root, proof, witness)
    return replace(form, call=call)


def test_check_segment__with_a_wrong_witness__reverts(scene: Scene) -> None:
    posted = scene.post()
    form = challenge_form(posted, 0)
    tracer = scene.before(0)
    pre_root = tracer.root()
    messages = [message(tracer.witness(raw)) for raw in scene.segments[0].records]

    def check(parts: list[bytes], surplus: bytes = b"") -> None:
        witness = b"".join(len(part).to_bytes(32, "big") + part for part in parts) + surplus
        scene.check(with_arguments(posted, 0, pre_root, form, witness))

    with reverts("arbiter: surplus witness"):
        check(messages, b"\0")
    with reverts("arbiter: surplus witness"):
        check([*messages, messages[-1]])
    for parts in (messages[:-1], []):
        with reverts("arbiter: witness too short"):
            check(parts)
    with reverts("arbiter: witness too short"):
        scene.check(with_arguments(posted, 0, pre_root, form, (2**256 - 1).to_bytes(32, "big") + messages[0]))
    with reverts("arbiter: message is not about this record"):
        check([messages[1], messages[0], *messages[2:]])
    draw = random.Random(2)
    for _ in range(40):
        bit = draw.randrange(196 * 8)
        wrong = bytearray(messages[3])
        wrong[bit // 8] ^= 1 << bit % 8
        with reverts("arbiter: message is not about this record"):
            check([*messages[:3], bytes(wrong), *messages[4:]])
    with reverts("witness: bad"):  # the verifier's own
        check([messages[0], messages[1][:196], *messages[2:]])


def test_challenge__that_is_no_check__reverts(scene: Scene, stranger: Any) -> None:
    """Any other function would let the challenger write the verdict."""
    contract = scene.exchange.arbiter
    for call in (
        contract.rewards.prepare_calldata(0),
        contract.collect.prepare_calldata(0),
        contract.challenge.prepare_calldata(SALT, b"\0" * 4),
        bytes(4),
    ):
        with reverts("arbiter: not a check"):
            contract.challenge(SALT, call, sender=stranger)


# --------------------------------------------------------------------------------- commit, reveal, contest


@pytest.fixture
def fraud(scene: Scene) -> Challenge:
    return challenge_segment(scene.post(corrupt(scene.segments, 0)), 0, scene.before(0))


def test_challenge__without_a_commitment_of_its_own__reverts(
    scene: Scene, fraud: Challenge, stranger: Any, trader: Any
) -> None:
    contract = scene.exchange.arbiter
    with reverts("arbiter: no commitment"):
        contract.challenge(SALT, fraud.call, sender=stranger)
    scene.commit(fraud, stranger)
    boa.env.time_travel(blocks=1)
    with reverts("arbiter: no commitment"):  # a copy of the transaction
        contract.challenge(SALT, fraud.call, sender=trader)
    with reverts("arbiter: no commitment"):
        contract.challenge(b"\1" * 32, fraud.call, sender=stranger)


def test_challenge__too_early_or_too_late__reverts(scene: Scene, fraud: Challenge, stranger: Any) -> None:
    contract = scene.exchange.arbiter
    scene.commit(fraud, stranger)
    with reverts("arbiter: commitment is of this block"):
        contract.challenge(SALT, fraud.call, sender=stranger)
    with reverts("arbiter: committed already"):
        scene.commit(fraud, stranger)
    boa.env.time_travel(blocks=REVEAL_BLOCKS, block_delta=1)
    with boa.env.anchor():
        contract.challenge(SALT, fraud.call, sender=stranger)
    boa.env.time_travel(blocks=1, block_delta=1)
    with reverts("arbiter: commitment has expired"):
        contract.challenge(SALT, fraud.call, sender=stranger)
    scene.challenge(fraud, stranger)


def test_contest__by_the_oldest_commitment__takes_a_third_and_the_revealer_keeps_the_rest(
    scene: Scene, fraud: Challenge, stranger: Any, trader: Any, other_trader: Any
) -> None:
    """A block builder that copies a challenge leaves its maker a third; a liar's friend that knew it gets no more."""
    contract = scene.exchange.arbiter
    scene.commit(fraud, stranger)
    boa.env.time_travel(blocks=1, block_delta=1)
    scene.commit(fraud, other_trader)
    boa.env.time_travel(blocks=1, block_delta=1)
    number = scene.challenge(fraud, trader)
    with reverts("arbiter: no commitment"):
        contract.contest(number, b"\1" * 32, sender=stranger)
    contract.contest(number, SALT, sender=other_trader)
    contract.contest(number, SALT, sender=stranger)
    with reverts("arbiter: contest is open"):
        contract.collect(number)
    boa.env.time_travel(blocks=REVEAL_BLOCKS + 1, block_delta=1)
    paid = ETHER * 3 // 8
    before = [boa.env.get_balance(one) for one in (trader, other_trader, stranger)]
    contract.collect(number)
    contract.collect_contest(number)
    gained = [boa.env.get_balance(one) for one in (trader, other_trader, stranger)]
    assert [new - old for new, old in zip(gained, before, strict=True)] == [paid - paid // 3, 0, paid // 3]
    for collect in (contract.collect, contract.collect_contest):
        with reverts("arbiter: no such reward"):
            collect(number)


def test_contester__that_takes_no_money__keeps_nobody_elses_back(
    scene: Scene, fraud: Challenge, stranger: Any, trader: Any
) -> None:
    contract = scene.exchange.arbiter
    scene.commit(fraud, stranger)
    boa.env.time_travel(blocks=1, block_delta=1)
    number = scene.challenge(fraud, trader)
    contract.contest(number, SALT, sender=stranger)
    boa.env.set_code(stranger, boa.env.get_code(str(scene.exchange.token.address)))  # no default function
    boa.env.time_travel(blocks=REVEAL_BLOCKS + 1, block_delta=1)
    before = boa.env.get_balance(trader)
    contract.collect(number)
    assert boa.env.get_balance(trader) == before + ETHER // 4
    with reverts("(no reason)"):
        contract.collect_contest(number)


def test_contest__by_a_younger_or_a_dead_commitment_or_too_late__reverts(
    scene: Scene, fraud: Challenge, stranger: Any, trader: Any, other_trader: Any
) -> None:
    contract = scene.exchange.arbiter
    scene.commit(fraud, other_trader)
    boa.env.time_travel(blocks=REVEAL_BLOCKS, block_delta=1)
    scene.commit(fraud, trader)
    scene.commit(fraud, stranger, b"\1" * 32)
    boa.env.time_travel(blocks=1, block_delta=1)
    contract.challenge(SALT, fraud.call, sender=trader)
    with reverts("arbiter: commitment is not older"):
        contract.contest(0, b"\1" * 32, sender=stranger)
    with reverts("arbiter: commitment had expired"):
        contract.contest(0, SALT, sender=other_trader)
    boa.env.time_travel(blocks=REVEAL_BLOCKS + 1, block_delta=1)
    with reverts("arbiter: contest is over"):
        contract.contest(0, SALT, sender=other_trader)
    with reverts("arbiter: no such reward"):
        contract.contest(1, SALT, sender=other_trader)


def test_money__is_taken_from_the_sequencers_alone(scene: Scene, stranger: Any) -> None:
    with reverts("arbiter: caller is not the sequencers"):
        boa.env.raw_call(scene.exchange.arbiter.address, sender=stranger, value=1)


# --------------------------------------------------------------------------------------------- construction


def test_kinds__go_to_their_verifiers(sequencer: Any, trader: Any, other_trader: Any) -> None:
    """Where one stub stands every witness is believed, where the other stands none."""
    trade = {Kind.PLACE, Kind.CONTINUE}
    amend = {Kind.AMEND}
    words = {Kind.PLACE_IN_WORDS}
    forced = {Kind.FORCED_ORDER}
    account = {Kind.FORCED_WITHDRAW, Kind.SETTLE, Kind.TRANSFER, Kind.WITHDRAW}
    auction = {Kind.FORCED_LIQUIDATE, Kind.FORCED_BID, Kind.LIQUIDATE, Kind.BID}
    ledger = {
        *(Kind.DEPOSIT, Kind.FORCED_CANCEL_ALL, Kind.COLLECT, Kind.SWEEP),
        *(Kind.CANCEL, Kind.CANCEL_ALL, Kind.SET_SIGNER),
    }
    rest = {*range(256)} - trade - amend - words - forced - account - auction - ledger
    for place, kinds in enumerate((trade, amend, words, forced, account, auction, ledger, rest)):
        with boa.env.anchor():
            verifiers = [deploy_stub("NoVerifier")] * 8
            verifiers[place] = deploy_stub("StubVerifier")
            exchange = deploy_exchange(sequencer, verifiers=tuple(verifiers))
            found = {kind for kind in range(256) if believes(exchange, sequencer, kind)}
            assert found == {int(kind) for kind in kinds}


def believes(exchange: Exchange, sequencer: Any, kind: int) -> bool:
    size = c.LAYOUT.get(kind, (31,))[0]
    root = b"\2" * 32
    raw = bytes([kind]) + bytes(range(1, size))
    payload = pack([root], [size // 31], raw)
    with boa.env.anchor():
        exchange.rollup.post(
            *(1, b"\x11" * 32, root, 1, 1, 0, 0, 0, bytes(32), 0, 0, payload), sender=sequencer
        )
        header = (
            1,
            b"\x11" * 32,
            root,
            naive_data_root(payload),
            len(payload) // 31,
            1,
            1,
            0,
            0,
            0,
            bytes(32),
            *(0, 0, 0),
        )
        word = int.from_bytes(root, "big")
        one = message(Witness(b"\x11" * 32, raw, (word,), root, Outcome(0)))
        call = arbiter().encode(
            "check_segment",
            header,
            0,
            b"\x11" * 32,
            segment_proof(payload, 1, 0, 0),
            len(one).to_bytes(32, "big") + one,
        )
        refusal = ""
        output = b""
        try:
            output = boa.env.raw_call(exchange.arbiter.address, data=call).output
        except Revert as error:
            refusal = reason_of(error.args[0])
        if refusal:
            assert refusal == "witness: bad"
            return False
        fraud, _, _, found = arbiter().function("check_segment").decode_output(output)[0:4]
        assert (fraud, found) == (False, root)
        return True


@pytest.mark.parametrize(
    ("position", "reason"),
    [
        (0, "arbiter: rollup is not a contract"),
        (1, "arbiter: data source is not a contract"),
        (2, "arbiter: verifier is not a contract"),
        (3, "arbiter: verifier is not a contract"),
        (4, "arbiter: verifier is not a contract"),
        (5, "arbiter: verifier is not a contract"),
        (6, "arbiter: verifier is not a contract"),
        (7, "arbiter: verifier is not a contract"),
        (8, "arbiter: verifier is not a contract"),
        (9, "arbiter: verifier is not a contract"),
        (10, "arbiter: no block to reveal in"),
    ],
)
def test_constructor__inconsistent_arguments__revert(
    exchange: Exchange, stranger: Any, position: int, reason: str
) -> None:
    arguments: list[Any] = [exchange.rollup] + [exchange.data_source] * 9 + [REVEAL_BLOCKS]
    arguments[position] = 0 if position == 10 else stranger
    with reverts(reason):
        deploy("Arbiter", *arguments)
