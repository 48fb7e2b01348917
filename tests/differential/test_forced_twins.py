"""What L1 forces, of the largest accounts: equal in both twins, within the limits of a challenge."""

from __future__ import annotations

import sys
from pathlib import Path
from random import Random
from typing import Any, Final

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "protocol"))

import worlds
from exchange import INDEX
from fuzz import Judge, calldata, expected

from sequencer.proof.witness import Tracer, Witness
from sequencer.protocol import codec, forced, margin
from sequencer.protocol import constants as c
from sequencer.protocol.constants import Kind, Reason
from sequencer.protocol.entries import Account, SurfaceReport
from sequencer.protocol.state import State

GAS_MAX: Final = 6_000_000
CALLDATA_MAX: Final = 110_000


@pytest.fixture(scope="module")
def judge() -> Judge:
    return Judge(
        only=("VerifierAccount", "VerifierAuction", "VerifierForced", "VerifierLedger", "VerifierTrade")
    )


@pytest.fixture
def heavy() -> Tracer:
    """Two accounts of 64 positions in 12 pages each, and one that has none."""
    world = worlds.heavy(Random(5), ("rich", "maker"), crowd=500)
    bidder = Account(b"\x33" * 20)
    bidder.cash = 10**16
    world.put_account(3, bidder)
    world.root()
    return Tracer.of(world)


def equal(judge: Judge, witness: Witness, reason: Reason) -> Witness:
    assert witness.outcome.reason is reason
    result = judge.call(witness)
    assert result.ok, result.reason()
    assert result.output == expected(witness)
    assert result.gas < GAS_MAX
    assert len(calldata(witness)) < CALLDATA_MAX
    return witness


def order(account: int, instrument: int, **fields: int) -> bytes:
    how: dict[str, Any] = {"flags": 0, "expires": 0, "fee_max": 65_535, **fields}
    return codec.encode(Kind.FORCED_ORDER, account=account, instrument=instrument, **how)


def test_withdrawal__of_all_that_is_free__is_equal(judge: Judge, heavy: Tracer) -> None:
    witness = equal(judge, heavy.witness(codec.encode(Kind.FORCED_WITHDRAW, account=1, amount=0)), Reason.OK)
    assert witness.outcome.amount > 0
    again = heavy.witness(codec.encode(Kind.FORCED_WITHDRAW, account=1, amount=0))
    equal(judge, again, Reason.MARGIN)
    unknown = heavy.witness(codec.encode(Kind.FORCED_WITHDRAW, account=77, amount=1))
    equal(judge, unknown, Reason.UNKNOWN_ACCOUNT)
    assert heavy.globals.inbox_count == 3


def test_orders__that_trade_and_wait__are_equal(judge: Judge, heavy: Tracer) -> None:
    instrument = sorted(heavy.accounts[1].positions)[40]
    for more in range(5):
        worlds.rest(heavy, 2, instrument, c.SELL, 1_000 + more, 5)
    heavy.root()
    world = Tracer.of(heavy)
    rests = equal(judge, world.witness(order(1, instrument, price=100, quantity=3)), Reason.OK)
    assert rests.outcome.rested is not None
    takes = equal(judge, world.witness(order(1, instrument, price=2_000, quantity=25)), Reason.OK)
    assert takes.outcome.pending
    late = world.witness(codec.encode(Kind.FORCED_CANCEL_ALL, account=1))
    equal(judge, late, Reason.TAKER_PENDING)
    equal(judge, world.witness(codec.encode(Kind.CONTINUE)), Reason.OK)
    equal(judge, world.witness(order(1, instrument, price=0, quantity=25)), Reason.PRICE)
    equal(judge, world.witness(order(77, instrument, price=1, quantity=25)), Reason.UNKNOWN_ACCOUNT)
    equal(judge, world.witness(codec.encode(Kind.FORCED_CANCEL_ALL, account=1)), Reason.OK)
    assert world.accounts[1].reserved == 0
    assert world.globals.inbox_count == 5


def test_liquidation__is_equal(judge: Judge, heavy: Tracer) -> None:
    poor = heavy.accounts[2]
    poor.cash = -3 * 10**10
    heavy.put_account(2, poor)
    heavy.root()
    world = Tracer.of(heavy)
    equal(judge, world.witness(codec.encode(Kind.FORCED_LIQUIDATE, account=2)), Reason.OK)
    assert world.accounts[2].auction_start > 0
    equal(judge, world.witness(codec.encode(Kind.FORCED_LIQUIDATE, account=77)), Reason.UNKNOWN_ACCOUNT)
    assert world.globals.inbox_count == 2


def test_bid__for_a_portfolio_of_twelve_pages__is_equal(judge: Judge, heavy: Tracer) -> None:
    poor = heavy.accounts[2]
    poor.cash = -3 * 10**10
    heavy.put_account(2, poor)
    heavy.root()
    world = Tracer.of(heavy)
    offer = {"account": 3, "target": 2, "fraction": 64, "cash_max": 2**63 - 1}
    equal(
        judge,
        world.witness(codec.encode(Kind.FORCED_BID, **{**offer, "account": 99})),
        Reason.UNKNOWN_ACCOUNT,
    )
    equal(judge, world.witness(codec.encode(Kind.FORCED_BID, **offer)), Reason.NO_AUCTION)
    equal(judge, world.witness(codec.encode(Kind.FORCED_LIQUIDATE, account=2)), Reason.OK)
    assert world.accounts[2].hole == world.globals.holes > 0
    equal(
        judge, world.witness(codec.encode(Kind.FORCED_BID, **{**offer, "account": 2})), Reason.UNKNOWN_ACCOUNT
    )
    equal(judge, world.witness(codec.encode(Kind.FORCED_BID, **offer)), Reason.OK)
    assert len(world.accounts[3].positions) == c.POSITIONS_MAX
    assert world.globals.inbox_count == 5


def aged(days: int, **changes: int) -> Tracer:
    """The world of `heavy` `days` later, its index and surfaces reported since then."""
    state = worlds.heavy(Random(5), ("rich", "maker"), crowd=500, risk_age_max_s=3_600, **changes)
    g, underlying = state.globals, state.underlyings[0]
    g.time += days * c.DAY_S
    underlying.time = g.time
    state.touch(c.KEY_UNDERLYING, underlying)
    for key in state.expiries:
        report(state, key, *(g.time - 1,) * 3)
    state.root()
    return Tracer.of(state)


def report(state: State, key: int, *times: int) -> None:
    """The feeds' surfaces of an expiry, of these times; none of the other feeds."""
    expiry = state.expiries[key]
    expiry.reports = [SurfaceReport(time, INDEX, INDEX, worlds.SHAPE) for time in times]
    expiry.reports += [None] * (c.FEEDS_MAX - len(times))
    state.touch(c.KEY_EXPIRY | key, expiry)


@pytest.mark.parametrize("kind", [Kind.FORCED_WITHDRAW, Kind.FORCED_ORDER, Kind.FORCED_LIQUIDATE])
def test_marks__of_twelve_pages_that_risk_can_renew__hold_the_message_back_alike(
    judge: Judge, kind: Kind
) -> None:
    world = aged(5)  # some expiries have passed, others have not
    instrument = max(world.accounts[1].positions)
    fields = {"account": 1, "amount": 5, "instrument": instrument, "price": 100, "quantity": 3, "flags": 0}
    fields |= {"expires": 0, "fee_max": 9}
    raw = codec.encode(kind, **{name: fields[name] for name, _ in codec.LAYOUTS[kind].fields})
    inbox = world.globals.inbox_hash, world.globals.inbox_count
    due = world.witness(raw)
    equal(judge, due, Reason.RISK_DUE)
    assert (world.globals.inbox_hash, world.globals.inbox_count) == inbox
    pages = forced.pages_to_mark(world, raw)
    assert len(pages) == c.PAGES_MAX
    for page_id in reversed(pages):
        where = {"underlying": 0, "day": page_id >> 7, "page": page_id & 127}
        assert world.witness(codec.encode(Kind.RISK, **where)).outcome.reason is Reason.OK
        waits = world.witness(raw)
        if page_id != min(pages):
            equal(judge, waits, Reason.RISK_DUE)
    assert waits.outcome.reason is not Reason.RISK_DUE
    equal(judge, waits, waits.outcome.reason)
    assert world.globals.inbox_count == inbox[1] + 1


@pytest.mark.parametrize("kind", [Kind.FORCED_WITHDRAW, Kind.FORCED_ORDER, Kind.FORCED_LIQUIDATE])
@pytest.mark.parametrize(
    "what",
    [
        "silent",
        "almost silent",
        "settled",
        "no quorum",
        "one without quorum",
        "surfaces old",
        "surfaces not so old",
    ],
)
def test_marks__that_risk_may_or_may_not_renew__are_told_apart_alike(
    judge: Judge, kind: Kind, what: str
) -> None:
    world = aged(1)
    params, underlying = world.params, world.underlyings[0]
    silence = params.feed_age_max_s + params.risk_age_max_s
    pages = sorted({one >> 5 for one in world.accounts[1].positions})
    if what in ("silent", "settled"):
        underlying.time = world.globals.time - silence - 1
    elif what == "almost silent":
        underlying.time = world.globals.time - silence
    if what == "settled":
        for page_id in pages:
            world.expiries[page_id >> 7].settled = True
    now, unmarked = world.globals.time, params.surface_age_max_s + params.risk_age_max_s
    for page_id in pages if what in ("no quorum", "surfaces old", "surfaces not so old") else pages[7:8]:
        if "quorum" in what:
            report(world, page_id >> 7, now)
        elif "old" in what:  # of the second newest, which makes the quorum
            second = now - unmarked - (what == "surfaces old")
            report(world, page_id >> 7, second - 50, now, second)
    for key, expiry in world.expiries.items():
        world.touch(c.KEY_EXPIRY | key, expiry)
    world.touch(c.KEY_UNDERLYING, underlying)
    world.root()
    world = Tracer.of(world)
    fields = {"account": 1, "amount": 5, "instrument": max(world.accounts[1].positions), "price": 100}
    fields |= {"quantity": 3, "flags": 0, "expires": 0, "fee_max": 9}
    raw = codec.encode(kind, **{name: fields[name] for name, _ in codec.LAYOUTS[kind].fields})
    waits = what in ("almost silent", "settled", "one without quorum", "surfaces not so old")
    if kind != Kind.FORCED_ORDER and what in ("no quorum", "surfaces old"):
        waits = True  # for the pages of what has expired, which need no surface
    witness = world.witness(raw)
    assert (witness.outcome.reason is Reason.RISK_DUE) == waits
    assert (witness.outcome.reason is Reason.RISK_STALE) == (kind == Kind.FORCED_ORDER and not waits)
    equal(judge, witness, witness.outcome.reason)
    assert world.globals.inbox_count == (not waits)


@pytest.mark.parametrize("apart", ["", "index", "time"])
@pytest.mark.parametrize("fresh", [0, 1, 5, 11])
def test_account__with_some_marks_that_stay_old__is_valued_sold_and_pays_alike(
    judge: Judge, fresh: int, apart: str
) -> None:
    world = aged(1)
    for place, (page_id, page) in enumerate(sorted(world.pages.items())):
        if apart == "index":
            page.index += page.index // 100 * (place % 3)
        elif apart == "time":
            page.time -= 61 * (place % 2)
        world.touch(c.KEY_PAGE | page_id, page)
    g, underlying = world.globals, world.underlyings[0]
    underlying.time = g.time - world.params.feed_age_max_s - world.params.risk_age_max_s - 1
    world.touch(c.KEY_UNDERLYING, underlying)
    for number in (1, 2):
        for page_id in sorted({one >> 5 for one in world.accounts[number].positions})[:fresh]:
            world.pages[page_id].time = g.time
            world.touch(c.KEY_PAGE | page_id, world.pages[page_id])
    bidder = Account(b"\x33" * 20)
    bidder.cash = 10**16
    world.put_account(3, bidder)
    world.root()
    world = Tracer.of(world)
    equal(judge, world.witness(codec.encode(Kind.FORCED_WITHDRAW, account=1, amount=0)), Reason.OK)
    equal(judge, world.witness(codec.encode(Kind.LIQUIDATE, account=1)), Reason.HEALTHY)
    poor = world.accounts[2]
    equity, risk, _ = margin.cautious(world, poor)
    poor.cash -= equity - risk // 2 + 1
    world.put_account(2, poor)
    world.root()
    world = Tracer.of(world)
    equal(judge, world.witness(codec.encode(Kind.LIQUIDATE, account=2)), Reason.OK)
    offer = {"account": 3, "target": 2, "fraction": 64, "cash_max": 2**63 - 1}
    moves = world.witness(codec.encode(Kind.FORCED_BID, **offer))
    equal(judge, moves, Reason.OK if fresh else Reason.POSITION_LIMIT)
    assert all(world.pages[one >> 5].time == g.time for one in world.accounts[3].positions)


def test_queue__full_of_the_sequencers_own_orders__takes_a_forced_one_for_its_fee_alike(judge: Judge) -> None:
    world = worlds.heavy(Random(5), ("rich", "maker"), crowd=50)
    world.globals.excess, world.globals.queue_state = 10**9, 2
    world.root()
    world = Tracer.of(world)
    instrument = max(world.accounts[1].positions)
    for fee_max in (0, 3):
        witness = world.witness(order(1, instrument, price=100, quantity=3, fee_max=fee_max))
        equal(judge, witness, Reason.OK)
        assert witness.outcome.fee == fee_max * c.FEE_MAX_UNIT
    world.globals.breaker_level = 2
    world.root()
    world = Tracer.of(world)
    equal(judge, world.witness(order(1, instrument, price=100, quantity=3)), Reason.RESTRICTED)


def test_row__listed_since_its_pages_marks__carries_no_order_alike(judge: Judge) -> None:
    world = worlds.heavy(Random(5), ("rich", "maker", "third"), crowd=50)
    page_id = max(world.pages)
    page = world.pages[page_id]
    page.marked = 20
    world.touch(c.KEY_PAGE | page_id, page)
    world.root()
    world = Tracer.of(world)
    account = 3  # it has room for one more, on a page of its own
    for row, reason in ((19, Reason.OK), (20, Reason.RISK_DUE)):
        equal(judge, world.witness(order(account, page_id << 5 | row, price=100, quantity=3)), reason)
