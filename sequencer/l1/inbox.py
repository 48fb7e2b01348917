"""What waits in the inbox, until when, and the freeze when nothing takes it. Reads L1 alone."""

from dataclasses import dataclass
from typing import Final

from sequencer.contracts import load
from sequencer.l1.abi import Contract
from sequencer.l1.deploy import Deployment
from sequencer.l1.rpc import Rpc, to_int

INBOX: Final = Contract(load("Inbox").abi)
ROLLUP: Final = Contract(load("Rollup").abi)


@dataclass(frozen=True, slots=True)
class Waiting:
    """Message `index` that no batch has taken, and until when one must."""

    index: int
    deadline_s: int


def waiting(rpc: Rpc, at: Deployment) -> list[Waiting]:
    """All messages beyond the last batch's inbox count, in order."""
    first = int(ROLLUP.read(rpc, at.rollup, "tip")[2])
    end = int(INBOX.read(rpc, at.inbox, "count"))
    return [
        Waiting(index, int(INBOX.read(rpc, at.inbox, "deadline_at", index))) for index in range(first, end)
    ]


def frozen_at(rpc: Rpc, at: Deployment) -> int:
    """When the rollup was frozen, seconds; 0: it is not."""
    return int(ROLLUP.read(rpc, at.rollup, "frozen_at"))


def overdue(rpc: Rpc, at: Deployment) -> int | None:
    """The first message that waits past its deadline, None when none does."""
    block = rpc.block("latest")
    now_s = to_int(block["timestamp"]) if block else 0
    return next((one.index for one in waiting(rpc, at) if one.deadline_s < now_s), None)


def freezable_at(rpc: Rpc, at: Deployment) -> int:
    """From which second on anybody may freeze, if no batch comes: a deadline passes, or the silence is too long."""
    last = int(ROLLUP.read(rpc, at.rollup, "next_batch")) - 1
    rolled_back_at = int(ROLLUP.read(rpc, at.rollup, "rolled_back_at"))
    posted_at = int(ROLLUP.read(rpc, at.rollup, "batch", last)[2])
    silent = max(posted_at, rolled_back_at) + int(ROLLUP.read(rpc, at.rollup, "silence_max_s"))
    deadlines = [one.deadline_s for one in waiting(rpc, at)]
    if not deadlines:
        return silent + 1
    post_again = rolled_back_at + int(INBOX.read(rpc, at.inbox, "delay_max_s"))
    return min(silent, max(min(deadlines), post_again)) + 1
