"""A hundred thousand records of every malice: none raises out of the transition."""

import os
import sys
from pathlib import Path
from random import Random

import pytest

from sequencer.protocol import constants as c
from sequencer.protocol.constants import Kind, Reason
from sequencer.protocol.transition import apply

sys.path.insert(0, str(Path(__file__).resolve().parent))
from hostile import ROLES, populated
from long_fuzz import fuzz

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "protocol"))
from exchange import IS_LONG, address

SEED = int(os.environ.get("FAIRSTRIKE_SEED", "1"))
OUT_OF_REACH = {  # of this fuzz; each has a test of its own
    Reason.SIGNERS_FULL,
    Reason.POSITION_LIMIT,
    Reason.EXPIRY_FULL,
    Reason.SELF_TRADE,  # of no rule at present
}


@pytest.mark.fuzz
def test_transition__of_100000_hostile_records__never_raises() -> None:
    tally = fuzz(2_000_000 if IS_LONG else 70_000, SEED)
    reached = {kind for (kind, reason), count in tally.items() if reason == Reason.OK and count}
    assert reached == set(c.LAYOUT)
    assert {Reason(reason) for _, reason in tally} | OUT_OF_REACH == set(Reason)


@pytest.mark.fuzz
def test_transition__of_random_bytes__never_raises() -> None:
    """Kind and length right or not, everything else random; half of the time with a forged signer."""
    random = Random(SEED)
    state = populated().state
    owners = [address(role) for role in ROLES]
    kinds = sorted(c.LAYOUT)
    for number in range(1_000_000 if IS_LONG else 30_000):
        way = number % 4
        kind = random.choice(kinds)
        size = c.LAYOUT[kind][0]
        if way == 0:
            raw = random.randbytes(random.randrange(200))
        elif way == 1:
            raw = bytes([kind]) + random.randbytes(size - 1)
        else:
            raw = bytes([kind]) + bytes(random.choice((0, 0, 1, 2, 255)) for _ in range(size - 1))
        seq = state.globals.seq
        apply(state, raw, random.choice(owners) if number % 2 else None)
        assert state.globals.seq == seq + 1
        if raw[:1] == bytes([Kind.TICK]) and state.globals.time == c.U32_MAX:
            state = populated().state
