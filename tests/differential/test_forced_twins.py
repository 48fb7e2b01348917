"""What L1 forces, of the largest accounts: equal in both twins, within the limits of a challenge."""

from __future__ import annotations

import sys
from pathlib import Path
from random import Random
from typing import Any, Final

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

import worlds
from fuzz import Judge, calldata, expected

from sequencer.proof.witness import Tracer, Witness
from sequencer.protocol import codec
from sequencer.protocol import constants as c
from sequencer.protocol.constants import Kind, Reason

GAS_MAX: Final = 2_000_000
CALLDATA_MAX: Final = 110_000


@pytest.fixture(scope="module")
def judge() -> Judge:
    return Judge(only=("VerifierAccount", "VerifierTrade"))


@pytest.fixture
def heavy() -> Tracer:
    """Two accounts of 64 positions in 12 pages each."""
    return worlds.heavy(Random(5), ("rich", "maker"), crowd=500)


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
