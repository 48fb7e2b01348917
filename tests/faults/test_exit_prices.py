"""Settlement prices of an exit that few feeds, or one who chooses among reports, could set.

Profit when feeds were asked after the freeze: with two of three reporting, the mean of the two counted, and one feed
moved it 467-fold (381,973 USD for who was worth 46,681); who began the exit chose within a minute which reports there
were (2 % of the index). With prices of the exit state alone: nothing is reported, and every proof at any time gives one
price.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import boa
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "contracts"))

from exit_support import INDEX, ROLES, World, build

from sequencer.contracts import load
from sequencer.protocol import codec
from sequencer.protocol.constants import Kind
from sequencer.protocol.state import expiry_time


@pytest.fixture
def world() -> Iterator[World]:
    with boa.env.anchor():
        yield build()


def test_exit__asks_nobody_for_a_price() -> None:
    """What can be called takes numbers and proofs under the pinned root, and, to refund, a message of the inbox."""
    calls = {
        entry["name"]: [part["name"] for part in entry["inputs"]]
        for entry in load("Exit").abi
        if entry["type"] == "function" and entry["stateMutability"] not in ("view", "pure")
    }
    assert calls == {
        "begin": ["accounts", "witness"],
        "fix": ["underlying", "day", "witness"],
        "declare": ["account", "witness"],
        "claim": ["account"],
        "claim_house": [],
        "refund": ["index", "record"],
    }


def test_exit__whoever_begins_and_whenever__everybody_gets_the_last_proven_value(world: World) -> None:
    values = world.values()
    world.freeze()
    g = world.state.globals
    values["house"] += g.treasury + g.fund
    for later in (0, 86_400, expiry_time(world.days[1]) + 86_400 - boa.env.timestamp):
        with boa.env.anchor():
            boa.env.timestamp += later
            beginner = boa.env.generate_address("beginner")
            world.exit.begin(*world.proofs.begin(), sender=beginner)
            world.declare()
            world.claim()
            world.exit.claim_house()
            assert {role: world.balance(role) for role in ROLES} == values


def test_expiry__past_in_the_exit_state_without_snapshots__has_its_index_and_no_choice(world: World) -> None:
    day = world.days[0]
    world.do(codec.encode(Kind.TICK, time=expiry_time(day) + 86_400))
    world.begin()
    for later in (0, 60, 300, 86_400):
        with boa.env.anchor():
            boa.env.timestamp += later
            assert world.exit.fix(0, day, world.proofs.fix(day)) == INDEX
            world.declare()
            assert world.exit.claims() == world.state.globals.pool
