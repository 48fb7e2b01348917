"""When the sequencer acknowledges nothing: what it acknowledges is bounded by what it has proved able to post.

An acknowledgement that does not come to L1 is a lie. So orders are refused

* until L1 has said once that this sequencer leads, and when it has not said so for half of `takeover_s`: another may
  have joined and taken over meanwhile, whoever was in the set before;
* when the key cannot pay for what waits and a batch more;
* when something has waited for half of `takeover_s` and L1 has taken no batch in that time, for whatever reason.
"""

from dataclasses import dataclass
from typing import Final

from sequencer.l1.fees import ether

SHARE: Final = 0.5  # of takeover_s


@dataclass(frozen=True, slots=True)
class Proof:
    """What L1 has shown. `unseen_s`: since it last said that this sequencer leads, None: never. `unproved_s`: for how
    long something waits while L1 has taken no batch. `balance_wei` of the key, None: not read; `needed_wei`: what
    waits, and a batch more, may cost. `problem`: what is known to keep it from L1.
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
