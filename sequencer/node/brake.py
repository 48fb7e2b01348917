"""Limits how many records the sequencer acknowledges ahead of L1, by what it has proved able to post.

A record that was acknowledged and never reaches L1 is a broken promise. So orders are refused

* until L1 has confirmed once that this sequencer leads, and when it has not confirmed it for half of `takeover_s`:
  another member may have joined and taken over meanwhile, whatever the set was before;
* when the key cannot pay for the waiting batches and one more;
* when a record has waited for half of `takeover_s` while L1 accepted no batch, for whatever reason.
"""

from dataclasses import dataclass
from typing import Final

from sequencer.l1.fees import ether

SHARE: Final = 0.5  # of takeover_s


@dataclass(frozen=True, slots=True)
class Proof:
    """What L1 has confirmed.

    `unseen_s`: seconds since it last confirmed that this sequencer leads, None: never. `unproved_s`: seconds that a
    record has waited while L1 accepted no batch. `balance_wei` of the key, None: not read; `needed_wei`: possible cost
    of the waiting batches and one more. `problem`: known obstacle to posting.
    """

    takeover_s: int
    unseen_s: float | None
    unproved_s: float
    balance_wei: int | None
    needed_wei: int
    problem: str = ""


def why_not(proof: Proof) -> str:
    """Why nothing may be acknowledged; empty when it may."""
    most_s = proof.takeover_s * SHARE
    if proof.unseen_s is None:
        return "L1 has not answered since the start: whether this sequencer leads is not known"
    if proof.unseen_s > most_s:
        return f"L1 has not said for {proof.unseen_s:.0f} s that this sequencer leads, and another may have taken over"
    if proof.balance_wei is not None and proof.balance_wei < proof.needed_wei:
        return (
            f"the sequencer's key has {ether(proof.balance_wei)}, and to post what waits may cost "
            f"{ether(proof.needed_wei)}"
        )
    if proof.unproved_s > most_s:
        told = f": {proof.problem}" if proof.problem else ""
        return f"for {proof.unproved_s:.0f} s nothing of what waits has come to L1{told}"
    return ""
