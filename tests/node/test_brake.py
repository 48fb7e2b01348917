"""What is acknowledged is bounded by what has come to L1: when the brake holds, and what it says."""

from dataclasses import replace

import pytest

from sequencer.node.brake import Proof, why_not

GOOD = Proof(takeover_s=200, unseen_s=0.1, unproved_s=3.0, balance_wei=10**18, needed_wei=10**16)


def test_proof__that_is_fresh__lets_orders_through() -> None:
    assert why_not(GOOD) == ""
    assert why_not(replace(GOOD, unseen_s=99.0, unproved_s=99.0, needed_wei=10**18)) == ""
    assert why_not(replace(GOOD, balance_wei=None)) == ""


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"unseen_s": None}, "L1 has not answered since the start"),
        ({"unseen_s": 101.0}, "L1 has not said for 101 s that this sequencer leads"),
        (
            {"balance_wei": 10**15},
            "the sequencer's key has 0.001 ETH, and to post what waits may cost 0.01 ETH",
        ),
        (
            {"unproved_s": 130.0, "problem": "L1's base fee is too high"},
            "for 130 s nothing of what waits has come to L1: L1's base fee is too high",
        ),
    ],
)
def test_proof__that_is_missing_or_old__holds_them(changed: dict[str, float], says: str) -> None:
    assert why_not(replace(GOOD, **changed)).startswith(says)  # type: ignore[arg-type]
