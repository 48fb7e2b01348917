"""The twins are equal: what Python makes of a record, the verifier contracts make of it too, and nothing else.

A short form; `python tests/differential/fuzz.py RECORDS SEED` goes on as long as one likes.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from random import Random
from typing import Any, Final

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "protocol"))

import worlds
from exchange import CALM, DOMAIN, FAR, INDEX, NEAR, START, Exchange, key_of, reopened
from fuzz import (
    VERIFIER_OF,
    WITNESS_AT,
    Judge,
    attack,
    calldata,
    compare,
    corner_world,
    expected,
    fuzz,
    new_report,
)
from fuzz import signed as with_signature

from sequencer.proof.witness import Tracer, Witness
from sequencer.protocol import codec
from sequencer.protocol import constants as c
from sequencer.protocol.constants import Kind, Reason
from sequencer.protocol.entries import Account
from sequencer.protocol.params import Params
from sequencer.protocol.state import State
from sequencer.protocol.transition import apply

IS_LONG: Final = os.environ.get("FAIRSTRIKE_LONG", "0") not in ("", "0")
GAS_MAX: Final = 8_000_000
CALLDATA_MAX: Final = 110_000
ROLES: Final = ("rich", "maker", "poor", "debtor", "treasury")


@pytest.fixture(scope="module")
def judge() -> Judge:
    return Judge()


@pytest.fixture(scope="module")
def heavy() -> Tracer:
    """Five accounts of 64 positions in 12 pages each, and one of none (number 6)."""
    tracer = worlds.heavy(Random(1), ROLES, crowd=2_000)
    account = Account(worlds.address("empty"))
    account.cash = 10**13
    tracer.put_account(6, account)
    tracer.globals.pool += 10**13
    return Tracer.of(_rooted(tracer))


def _rooted(state: Any) -> Any:
    state.root()
    return state


def signed(kind: Kind, role: str, **fields: int) -> bytes:
    return codec.sign(codec.encode(kind, expires=0, **fields), DOMAIN, key_of(role))


def equal(judge: Judge, witness: Witness, reason: Reason) -> int:
    """Gas of a record with which both twins end as `reason`, within the limits."""
    assert witness.outcome.reason is reason
    result = judge.call(witness)
    assert result.ok, result.reason()
    assert result.output == expected(witness)
    assert result.gas < GAS_MAX
    assert len(calldata(witness)) < CALLDATA_MAX
    return int(result.gas)


def test_fuzz__short_form__finds_no_difference() -> None:
    report = fuzz(20_000 if IS_LONG else 200, seed=7)
    assert report["divergences"] == []
    assert report["python_ok_vyper_revert"] == []
    assert report["attacks_accepted"] == []
    assert report["records"] >= 200
    assert len(report["kinds"]) > 10


@pytest.mark.fuzz
def test_corners__are_reached_and_equal(judge: Judge) -> None:
    """What random records hardly ever meet, on a state with the sequencer's caches, too."""
    corners = corner_world(Random(4))
    cached = reopened(corners.exchange.state)
    report = new_report()
    undone: set[Reason] = set()
    for _, scene in zip(range(22), corners.scenes(), strict=False):  # two rounds
        for raw, signer in scene:
            record = with_signature(raw, signer)
            witness = corners.exchange.state.witness(record)
            compare(judge, witness, report)
            undone.add(witness.outcome.failed)
            assert apply(cached, record).reason is witness.outcome.reason
            assert cached.root() == witness.post_root
    assert report["divergences"] == []
    assert report["python_ok_vyper_revert"] == []
    assert max(report["max_gas"].values()) < GAS_MAX
    assert max(report["max_calldata"].values()) < CALLDATA_MAX
    assert set(report["outcomes"]) >= {
        *("FIX OK", "FIX NOT_EXPIRED", "FIX ALREADY_SETTLED"),
        *("SETTLE OK", "SETTLE NOT_SETTLED", "SETTLE NOTHING_TO_SETTLE"),
        *("LIST EXPIRY_FULL", "PLACE HALTED", "PLACE RESTRICTED", "FORCED_ORDER HALTED"),
        *("SET_SIGNER SIGNERS_FULL", "CONTINUE OK", "LIQUIDATE HEALTHY"),
    }
    assert undone >= {Reason.OK, Reason.FOK_UNFILLED, Reason.POST_ONLY_CROSSES}


def test_place__of_every_size__is_equal_and_within_the_limits(judge: Judge, heavy: Tracer) -> None:
    instrument = sorted(heavy.accounts[1].positions)[40]
    order = {"instrument": instrument, "flags": 0, "fee_max": 65_535}
    light = heavy.witness(signed(Kind.PLACE, "empty", account=6, nonce=0, price=100, quantity=10, **order))
    assert equal(judge, light, Reason.OK) < 200_000
    rests = signed(Kind.PLACE, "rich", account=1, nonce=0, price=100, quantity=10, **order)
    assert equal(judge, heavy.witness(rests), Reason.OK) < 1_100_000
    for step in range(8):
        worlds.rest(heavy, 3 + step % 3, instrument, c.SELL, 1_000 + step, 5)
    world = Tracer.of(_rooted(heavy))
    takes = signed(Kind.PLACE, "rich", account=1, nonce=1, price=2_000, quantity=33, **order)
    witness = world.witness(takes)
    assert witness.outcome.pending
    assert equal(judge, witness, Reason.OK) < 2_100_000
    report = new_report()
    attack(judge, witness, Random(3), report, times=20 if judge.evm.name == "revm" else 3)
    assert report["attacks_accepted"] == []
    proceeds = world.witness(codec.encode(Kind.CONTINUE))
    assert len(proceeds.outcome.fills) == c.STEPS_MAX
    assert equal(judge, proceeds, Reason.OK) < 2_100_000


def test_bid__between_the_largest_accounts__is_equal_and_within_the_limits(judge: Judge) -> None:
    world = worlds.heavy(Random(2), ("rich", "poor"), crowd=100)
    buyer, target = world.accounts[1], world.accounts[2]
    buyer.cash = 10**16
    target.cash = -3 * 10**10
    for number, account in ((1, buyer), (2, target)):
        world.put_account(number, account)
    state = Tracer.of(_rooted(world))
    equal(judge, state.witness(codec.encode(Kind.LIQUIDATE, account=2)), Reason.OK)
    offer = {"account": 1, "target": 2, "fraction": 64, "cash_max": 2**63 - 1}
    witness = state.witness(signed(Kind.BID, "rich", nonce=0, **offer))
    assert len(calldata(witness)) > 60_000  # two accounts, 24 pages
    equal(judge, witness, Reason.POSITION_LIMIT)
    buyer, target = state.accounts[1], state.accounts[2]
    buyer.positions = dict(target.positions)
    state.put_account(1, buyer)
    state = Tracer.of(_rooted(state))
    equal(judge, state.witness(signed(Kind.BID, "rich", nonce=1, **offer)), Reason.OK)


def test_risk__of_a_full_page__is_equal_and_within_the_limits(judge: Judge) -> None:
    world = worlds.heavy(Random(4), ("rich",), crowd=10)
    equal(judge, world.witness(codec.encode(Kind.RISK, underlying=0, day=NEAR, page=0)), Reason.OK)


FIVE: Final = tuple(f"feed {feed}" for feed in range(5))


def test_reports__of_five_feeds_at_every_edge__make_the_same_marks(judge: Judge) -> None:
    """Odd and even numbers of fresh reports that agree, nearly, or not at all; old ones, far wings, steep surfaces."""
    found: set[tuple[str, Reason]] = set()
    for seed in range(40 if IS_LONG else 4):
        found |= _five_feeds(judge, Random(seed))
    for reason in (Reason.OK, Reason.NO_INDEX, Reason.NO_SURFACE, Reason.FEEDS_DISAGREE):
        assert ("RISK", reason) in found
    for reason in (Reason.OK, Reason.SURFACE, Reason.FEED_TIME):
        assert ("SURFACE", reason) in found


def _five_feeds(judge: Judge, random: Random) -> set[tuple[str, Reason]]:
    found: set[tuple[str, Reason]] = set()
    world = Tracer.of(State(DOMAIN, Params(feed_keys=tuple(map(worlds.address, FIVE)), **CALM), (0,)))
    params = world.params

    def do(kind: Kind, by: str = "", **fields: int) -> Reason:
        raw = codec.encode(kind, **fields)
        witness = world.witness(codec.sign(raw, DOMAIN, key_of(by)) if by else raw)
        equal(judge, witness, witness.outcome.reason)
        found.add((kind.name, witness.outcome.reason))
        return witness.outcome.reason

    def near(number: int, ppm: int) -> int:
        return number + number * random.choice((-ppm, 0, 0, ppm, ppm + 1)) // c.PPM

    do(Kind.TICK, time=START)
    for feed, role in enumerate(FIVE[:3]):
        do(Kind.FEED, role, underlying=0, feed=feed, time=START, price=INDEX)
    for strike in (INDEX, INDEX // 2, INDEX * 3, 16 * INDEX):
        for put in (0, 1):
            assert do(Kind.LIST, underlying=0, day=FAR, put=put, strike=strike) is Reason.OK
    for _ in range(30):
        ages = (1, 60, params.feed_age_max_s, params.feed_age_max_s + 1, params.surface_age_max_s)
        time = world.globals.time + random.choice(ages)
        do(Kind.TICK, time=time)
        a, b = random.choice((10**9, 3 * 10**10, 10**12)), random.choice((0, 10**10, 10**12))
        rho = random.choice((-(10**12), -(10**11), 0, 10**12))
        prices, vols = (
            random.choice((0, params.feed_spread_max_ppm - 1, 20_000)),
            random.choice((0, 10**5, 2 * 10**5)),
        )
        for feed in random.sample(range(5), random.randint(0, 5)):
            when = {"underlying": 0, "feed": feed, "time": time - random.choice((0, 0, 0, 1, 200))}
            do(Kind.FEED, FIVE[feed], price=near(INDEX, prices), **when)
            shape = {"a": near(a, vols), "b": b, "rho": rho, "m": 0, "sigma": 10**11}
            if random.random() < 0.1:
                shape |= random.choice(({"b": 2 * 10**12, "rho": 1}, {"a": -(10**12)}))
            forward = near(INDEX, random.choice((prices, prices, params.forward_range_ppm)))
            do(Kind.SURFACE, FIVE[feed], day=FAR, forward=forward, index=INDEX, **when, **shape)
        do(Kind.RISK, underlying=0, day=FAR, page=0)
    return found


@pytest.mark.parametrize("used", [0, 1, 255, 2**255 - 1, 2**256 - 2, 2**256 - 1 - 2**77, 2**200 - 1 - 2**8])
def test_nonces__of_any_window__move_the_floor_alike(judge: Judge, used: int) -> None:
    exchange = Exchange(audits=False)
    exchange.deposit("rich", 1_000)
    account = exchange.account("rich")
    account.nonce_floor, account.nonce_bitmap = 40, used
    exchange.state.put_account(1, account)
    world = Tracer.of(_rooted(exchange.state))
    free = next(offset for offset in range(256) if not used >> offset & 1)
    for nonce, floor in ((40 + free, 0), (42 + free, 50 + free), (51 + free, 51 + free), (54 + free, 300)):
        raw = signed(Kind.CANCEL_ALL, "rich", account=1, nonce_floor=floor, nonce=nonce)
        witness = world.witness(raw)
        equal(judge, witness, witness.outcome.reason)
    assert world.accounts[1].nonce_floor > 40


def test_place__at_the_limit_of_pages__is_refused_alike(judge: Judge) -> None:
    world = worlds.heavy(Random(5), ("rich", "maker", "poor"), crowd=10)
    pages = sorted(world.pages)
    account = world.accounts[1]
    account.positions = {page << 5: 10 for page in pages[: c.PAGES_MAX]}
    world.put_account(1, account)
    world = Tracer.of(_rooted(world))
    order = {"account": 1, "flags": 0, "price": 5, "quantity": 1, "fee_max": 65_535}
    for nonce, (page, reason) in enumerate(
        ((pages[20], Reason.POSITION_LIMIT), (pages[3], Reason.OK), (pages[11], Reason.OK))
    ):
        raw = signed(Kind.PLACE, "rich", instrument=page << 5 | 7, nonce=nonce, **order)
        equal(judge, world.witness(raw), reason)
    account = world.accounts[1]
    account.positions[pages[3] << 5] = c.POSITION_LOTS_MAX
    world.put_account(1, account)
    world = Tracer.of(_rooted(world))
    raw = signed(Kind.PLACE, "rich", instrument=pages[3] << 5, nonce=9, **order)
    equal(judge, world.witness(raw), Reason.POSITION_LIMIT)


def test_place__that_reserves_beyond_64_bits__is_refused_alike(judge: Judge) -> None:
    world = worlds.heavy(Random(6), ("rich",), crowd=10)
    account = world.accounts[1]
    account.reserved, account.cash = c.U64_MAX - 10, 2**100
    world.put_account(1, account)
    world = Tracer.of(_rooted(world))
    order = {"account": 1, "instrument": min(world.pages) << 5, "flags": 0, "price": 1, "fee_max": 65_535}
    raw = signed(Kind.PLACE, "rich", nonce=0, quantity=11, **order)
    equal(judge, world.witness(raw), Reason.MARGIN)
    raw = signed(Kind.PLACE, "rich", nonce=0, quantity=10, **order)
    equal(judge, world.witness(raw), Reason.OK)


@pytest.mark.parametrize("rate", [0, 7, 99, 100])
@pytest.mark.parametrize("cash", [-5, 0, 99, 100])
def test_amend__that_cash_or_reserve_pays_or_not__is_equal(judge: Judge, cash: int, rate: int) -> None:
    """Less of an order by one lot, by none, and a total that has traded."""
    exchange = Exchange(audits=False, **CALM)
    (call,) = exchange.open((FAR, INDEX, 0))
    for role in ("rich", "poor"):
        exchange.deposit(role, 1_000)
    order = exchange.buy("poor", call, 9, 5).rested
    assert order is not None
    exchange.sell("rich", call, 9, 1)
    account = exchange.account("poor")
    account.cash, account.reserved, order.reserve_rate = cash, 4 * rate, rate
    exchange.state.put_account(2, account)
    exchange.state.remove_order(order)
    exchange.state.insert_order(order)
    exchange.tick()
    world = Tracer.of(_rooted(exchange.state))
    amend = {"account": 2, "instrument": call, "flags": 0, "price": 9, "seq": order.seq, "new_price": 9}
    nonce, at = account.nonce_floor, {True: Reason.OK, False: Reason.MARGIN}
    for quantity, paid in ((4, max(cash, rate) >= 100), (4, None), (1, True)):
        if paid is None:  # nothing is freed
            paid = world.accounts[2].cash >= 100
        raw = signed(Kind.AMEND, "poor", **amend, quantity=quantity, nonce=nonce, fee_max=1)
        equal(judge, world.witness(raw), at[paid])
        nonce += paid


def test_witness__of_another_record_or_root__reverts(judge: Judge) -> None:
    world = Tracer.of(Exchange(audits=False).state)
    first = world.witness(codec.encode(Kind.TICK, time=START + 1))
    second = world.witness(codec.encode(Kind.TICK, time=START + 2))
    equal(judge, first, Reason.OK)
    mixed = calldata(second)[:WITNESS_AT] + calldata(first)[WITNESS_AT:]
    result = judge.call(first, mixed)
    assert (result.ok, result.reason()) == (False, "witness: path")
    result = judge.call(first, calldata(first) + bytes(32))
    assert (result.ok, result.reason()) == (False, "witness: surplus")
    assert not judge.call(first, calldata(first)[:-1]).ok


def test_record__of_another_contracts_kind__reverts(judge: Judge) -> None:
    world = Tracer.of(Exchange(audits=False).state)
    witness = world.witness(codec.encode(Kind.LIQUIDATE, account=1))
    for name, address in judge.addresses.items():
        result = judge.evm.call(address, calldata(witness))
        if name == VERIFIER_OF[Kind.LIQUIDATE]:
            assert result.output == expected(witness)
        else:
            assert (result.ok, result.reason()) == (False, "verifier: kind")


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\x00",
        bytes([Kind.TICK]),
        bytes([Kind.PLACE]) + bytes(93),
        bytes([Kind.PLACE]) + bytes(91),
        bytes([Kind.SURFACE]) + bytes(122),
        bytes([Kind.SURFACE]) + bytes(58) + b"\x01" + bytes(64),
        bytes([Kind.SURFACE]) + bytes(56) + b"\x01" + bytes(66),
        bytes([Kind.SET_SIGNER]) + bytes(37) + b"\x01" + bytes(85),
        bytes([Kind.TICK]) + bytes(29) + b"\x01",
        bytes([Kind.COLLECT]) + b"\x01" + bytes(29),
        b"\xff" * 124,
        b"\x40" + bytes(30),
        bytes([Kind.QUOTE]) + bytes(92),
    ],
    ids=range(14),
)
def test_bytes__that_are_no_record__are_a_no_op_everywhere(judge: Judge, raw: bytes) -> None:
    world = Tracer.of(Exchange(audits=False).state)
    witness = world.witness(raw)
    for address in judge.addresses.values():
        result = judge.evm.call(address, calldata(witness))
        assert result.ok, result.reason()
        assert result.output == expected(witness)


def test_pages__proved_in_an_earlier_call__do_not_serve_a_later_one(judge: Judge) -> None:
    """Transient storage outlives a call: a page read by the first must be proved again by the second."""
    exchange = Exchange(audits=False)
    (instrument,) = exchange.open((NEAR, INDEX, 0))
    exchange.deposit("rich", 1_000)
    world = Tracer.of(exchange.state)
    order = {"account": 1, "instrument": instrument, "flags": 0, "price": 5, "quantity": 1, "fee_max": 65_535}
    first = world.witness(signed(Kind.PLACE, "rich", nonce=0, **order))
    second = world.witness(signed(Kind.PLACE, "rich", nonce=1, **order))
    address = judge.addresses["VerifierTrade"]
    both = judge.evm.calls(address, (calldata(first), calldata(second)))
    assert [result.output for result in both] == [expected(first), expected(second)]
    page = next(iter(world.pages.values())).words()
    data = calldata(second)
    start = data.index(page)
    length = 32 * (1 + int.from_bytes(data[start + len(page) :][:32], "big").bit_count())
    unproved = data[: start - 32] + data[start + len(page) + length :]
    results = judge.evm.calls(address, (calldata(first), unproved))
    assert results[0].ok
    assert not results[1].ok


def test_report__counts_what_it_compares(judge: Judge) -> None:
    world = Tracer.of(Exchange(audits=False).state)
    witness = world.witness(codec.encode(Kind.TICK, time=START + 1))
    report = new_report()
    compare(judge, witness, report)
    lie = Witness(witness.pre_root, witness.record, witness.words, bytes(32), witness.outcome)
    compare(judge, lie, report)
    assert (report["records"], report["kinds"]) == (2, {"TICK": 2})
    assert len(report["divergences"]) == 1
