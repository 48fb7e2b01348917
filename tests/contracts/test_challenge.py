"""Challenges end to end: the real core makes a day of trading, the real verifiers judge it segment by segment."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import boa
import pytest
from contract_support import ETHER, USD, Exchange, deploy_exchange, events_of, reverts

from sequencer.engine.engine import Engine, Submission
from sequencer.genesis import genesis_root, genesis_state
from sequencer.l1.follower import PostedBatch
from sequencer.local.devnet import devnet_params, feed_key
from sequencer.proof.challenge import (
    Challenge,
    arbiter,
    challenge_form,
    challenge_header,
    challenge_segment,
)
from sequencer.proof.witness import Tracer
from sequencer.protocol import batch as batches
from sequencer.protocol import codec
from sequencer.protocol import constants as c
from sequencer.protocol.batch import Segment
from sequencer.protocol.constants import Kind, Reason
from sequencer.protocol.hashing import address_of, public_key_of
from sequencer.protocol.state import State
from sequencer.protocol.transition import apply

PARAMS = devnet_params()
SALT = b"\x5a" * 32
KEYS = {number: bytes([number]) * 32 for number in (1, 2)}
PRICE = 4_900_000  # ticks
GAS_MAX = 8_000_000
CALLDATA_BYTES_MAX = 110 * 1024


@dataclass
class Day:
    """What happened, honestly: every segment of it, and the exchange it happened on."""

    exchange: Exchange
    sequencer: Any
    segments: list[Segment]
    end: State
    domain: bytes

    def before(self, index: int) -> State:
        """The state where segment `index` begins."""
        state = genesis_state(self.domain, PARAMS)
        for segment in self.segments[:index]:
            for raw in segment.records:
                apply(state, raw)
        return state

    def post(self, segments: list[Segment]) -> PostedBatch:
        """Posts `segments` as batch 1, under the honest header."""
        rollup, g = self.exchange.rollup, self.end.globals
        records = sum(len(segment.records) for segment in segments)
        payload = batches.encode(segments, [batches.NO_ID] * g.tick)  # a TICK that is no record begins none
        rollup.post(
            *(1, rollup.batch(0).post_root, segments[-1].root, len(segments), records, 0, g.time),
            *(g.inbox_count, self.exchange.inbox.hash_at(g.inbox_count), g.work, g.tick, payload),
            sender=self.sequencer,
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

    def is_fraud(self, check: Challenge) -> bool:
        """A dry run."""
        computation = boa.env.raw_call(self.exchange.arbiter.address, data=check.call)
        fraud, batch_id, challenge_id, _ = arbiter().function("check_form").decode_output(computation.output)
        assert (batch_id, challenge_id) == (check.batch_id, check.challenge_id)
        assert computation.get_gas_used() < GAS_MAX
        assert len(check.calldata(SALT)) < CALLDATA_BYTES_MAX
        return bool(fraud)

    def first_lie(self, posted: PostedBatch) -> int:
        """What a watcher finds: the first segment whose root is not what its records give."""
        state = genesis_state(self.domain, PARAMS)
        for index, segment in enumerate(batches.decode(posted.payload, posted.segments, posted.ticks)):
            for raw in segment.records:
                apply(state, raw)
            if state.root()[:31] != segment.root:
                return index
        raise AssertionError("no lie")


@pytest.fixture(scope="module")
def built(pristine: Exchange, sequencer: Any, stranger: Any) -> Iterator[Day]:
    with boa.env.anchor():
        yield trade_a_day(sequencer)


@pytest.fixture
def day(built: Day) -> Iterator[Day]:
    with boa.env.anchor():
        yield built


def trade_a_day(sequencer: Any) -> Day:
    """Deposits, prices, instruments, their risk, orders that rest, trade and are cancelled, transfers, a withdrawal."""
    exchange = deploy_exchange(sequencer, genesis_root=genesis_root(PARAMS))
    deposits = []
    for key in (*KEYS.values(), *KEYS.values()):
        owner = "0x" + address_of(public_key_of(key)).hex()
        exchange.token.mint(owner, 10**6 * USD)
        exchange.token.approve(exchange.vault.address, 10**6 * USD, sender=owner)
        exchange.vault.deposit(10**6 * USD, sender=owner)
        deposits.append(bytes(events_of(exchange.vault, "Message")[0].record))
    domain = bytes(exchange.rollup.domain_separator())
    now = boa.env.timestamp
    day = now // c.DAY_S + 2
    instrument = day << 12

    def signed(kind: Kind, key: bytes, **fields: int | bytes) -> bytes:
        return codec.sign(codec.encode(kind, **fields), domain, key)

    def place(account: int, side: int, price: int, quantity: int, nonce: int, flags: int = 0) -> bytes:
        fields = {"price": price, "quantity": quantity, "nonce": nonce, "expires": 0, "fee_max": 65_535}
        return signed(
            Kind.PLACE, KEYS[account], account=account, instrument=instrument, flags=side | flags, **fields
        )

    shape = {"a": 10**9, "b": 10**10, "rho": -(10**11), "m": 0, "sigma": 10**11}
    report = {"underlying": 0, "day": day, "time": now, "forward": PRICE, "index": PRICE}
    system = [
        *(signed(Kind.FEED, feed_key(i), underlying=0, feed=i, time=now, price=PRICE + i) for i in range(3)),
        *(
            codec.encode(Kind.LIST, underlying=0, day=day, put=put, strike=strike)
            for strike in (4_800_000, 5_000_000)
            for put in (0, 1)
        ),
        *(signed(Kind.SURFACE, feed_key(i), feed=i, **report, **shape) for i in range(3)),
        codec.encode(Kind.RISK, underlying=0, day=day, page=0),
    ]
    rest = {"nonce": 20, "expires": 0}
    orders = [
        place(1, c.SELL, 150_000, 20_000, 1, c.FLAG_POST_ONLY),
        place(1, c.SELL, 151_000, 20_000, 2, c.FLAG_POST_ONLY),
        place(2, c.BUY, 151_000, 30_000, 1),
        signed(Kind.TRANSFER, KEYS[1], account=1, to=2, amount=5 * USD, **rest),
        signed(Kind.WITHDRAW, KEYS[2], account=2, amount=7 * USD, **rest),
    ]
    engine = Engine(genesis_state(domain, PARAMS))
    segments = []
    for offset, records, submitted in ((0, deposits, []), (1, system, []), (2, [], orders)):
        tick = engine.run(now + offset, records, [Submission(raw, None) for raw in submitted])
        assert tick.entry is not None
        assert [one.reason for one in (*tick.system, *tick.results)] == [Reason.OK] * len(records + submitted)
        segments += tick.entry.batch_segments()
    # No honest sequencer logs what is no record; whoever posts it all the same must have its root right.
    for raw in (
        bytes([0xFF]) * 31,
        bytes([Kind.TICK]) + b"\xff" * 30,
        bytes([Kind.PLACE]) + b"\xff" * 92,
        bytes([Kind.CONTINUE]) + b"\xff" * 30,
        codec.encode(Kind.DEPOSIT, owner=b"\1" * 20, account=9, amount=1)[:-1] + b"\1",
    ):
        apply(engine.state, raw)
        segments.append(Segment(engine.state.root(), (raw,)))
    return Day(exchange, sequencer, segments, engine.state, domain)


def test_honest_day__is_found_wrong_nowhere(day: Day, stranger: Any) -> None:
    posted = day.post(day.segments)
    checks = [challenge_header(posted, day.end)]
    for index in range(len(day.segments)):
        tracer = Tracer.of(day.before(index))
        checks += [challenge_segment(posted, index, tracer), challenge_form(posted, index)]
    assert [day.is_fraud(check) for check in checks] == [False] * len(checks)
    contract = day.exchange.arbiter
    for check in checks:
        contract.commit(check.commitment(str(stranger), SALT), sender=stranger)
    boa.env.time_travel(blocks=1)
    for check in checks:
        with reverts("arbiter: no fraud"):
            contract.challenge(SALT, check.call, sender=stranger)
    assert day.exchange.rollup.next_batch() == 2


def lie_about(day: Day, index: int, lie: str) -> list[Segment]:
    """The day as a sequencer tells it that lies in segment `index` and is honest afterwards, on what the lie left."""
    if lie == "corrupted root":
        wrong = bytes(byte ^ 1 for byte in day.segments[index].root)
        return [
            *day.segments[:index],
            Segment(wrong, day.segments[index].records),
            *day.segments[index + 1 :],
        ]
    state = day.before(index)
    told = day.segments[:index]
    for number, segment in enumerate(day.segments[index:]):
        for raw in segment.records:
            apply(state, raw)
        if number == 0:  # one account has a micro-dollar that no record gave it
            account = state.accounts[2]
            account.cash += 1
            state.put_account(2, account)
        told = [*told, Segment(state.root(), segment.records)]
    return told


@pytest.mark.parametrize("lie", ["corrupted root", "forged outcome"])
@pytest.mark.parametrize("kind", [Kind.DEPOSIT, Kind.RISK, Kind.PLACE, Kind.TRANSFER, Kind.WITHDRAW])
def test_lie__in_a_segment_with_a_kind__is_challenged_and_rolled_back(
    day: Day, stranger: Any, kind: Kind, lie: str
) -> None:
    index = max(
        number
        for number, segment in enumerate(day.segments)
        if any(raw[0] == kind for raw in segment.records)
        and len(segment.records[0]) > 0
        and number < len(day.segments) - 5
    )
    posted = day.post(lie_about(day, index, lie))
    assert day.first_lie(posted) == index
    check = challenge_segment(posted, index, Tracer.of(day.before(index)))
    assert day.is_fraud(check)
    contract = day.exchange.arbiter
    contract.commit(check.commitment(str(stranger), SALT), sender=stranger)
    boa.env.time_travel(blocks=1)
    contract.challenge(SALT, check.call, sender=stranger)
    print(f"{kind.name}: {contract._computation.get_gas_used()} gas, {len(check.calldata(SALT))} bytes")
    assert day.exchange.rollup.next_batch() == 1
    assert boa.env.get_balance(day.exchange.sequencers.address) == 0
    reward = contract.rewards(0)
    assert (reward.revealer, reward.amount) == (stranger, ETHER * 3 // 8)


def test_segments_before_a_lie__are_honest_and_those_after_it_too(day: Day) -> None:
    """Only the first difference can be shown: what follows from a false root may follow correctly."""
    index = 1
    posted = day.post(lie_about(day, index, "corrupted root"))
    assert not day.is_fraud(challenge_segment(posted, 0, Tracer.of(day.before(0))))
    with reverts("arbiter: pre-root is not the committed one"):
        day.is_fraud(challenge_segment(posted, index + 1, Tracer.of(day.before(index + 1))))
