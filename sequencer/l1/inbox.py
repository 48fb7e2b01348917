"""What waits in the inbox, until when, and the freeze when nothing takes it. Reads L1 alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sequencer.contracts import load
from sequencer.l1.abi import Contract
from sequencer.l1.deploy import Deployment
from sequencer.l1.follower import InboxMessage
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


class Deadlines:
    """Which messages make a batch late (`Arbiter.check_late`). What L1 has said of a deadline is asked once."""

    def __init__(self, rpc: Rpc, at: Deployment) -> None:
        self._rpc = rpc
        self._at = at
        self._known: dict[tuple[int, str], int] = {}
        self._sent_at: tuple[str, int] = ("", 0)  # block hash, its time, of the message asked for last
        self.delay_min_s = int(INBOX.read(rpc, at.inbox, "delay_min_s"))
        self.delay_max_s = int(INBOX.read(rpc, at.inbox, "delay_max_s"))

    def first_late(self, waiting: Sequence[InboxMessage], at_s: int, rolled_back_at_s: int) -> Waiting | None:
        """The first of the messages that wait, in order, for which a batch posted at `at_s` is too late to stand.

        `rolled_back_at_s`: when a batch had last been rolled back by then. The deadline given is the one that counts:
        not before the Inbox's longest delay after that. Between it and the fraud is the Inbox's shortest delay.
        """
        if not waiting or at_s <= self._pushed_at(waiting[0]) + 2 * self.delay_min_s:
            return None  # messages ascend in time, and each has the shortest delay at least
        for message in waiting:
            deadline_s = max(self._deadline(message), rolled_back_at_s + self.delay_max_s)
            if at_s > deadline_s + self.delay_min_s:
                return Waiting(message.index, deadline_s)
        return None

    def _pushed_at(self, message: InboxMessage) -> int:
        if self._sent_at[0] != message.block_hash:
            block = self._rpc.block(message.block_number)
            self._sent_at = (message.block_hash, to_int(block["timestamp"]) if block else 0)
        return self._sent_at[1]

    def _deadline(self, message: InboxMessage) -> int:
        key = (message.index, message.block_hash)
        if key not in self._known:
            self._known[key] = int(INBOX.read(self._rpc, self._at.inbox, "deadline_at", message.index))
        return self._known[key]


def end_of(rpc: Rpc, at: Deployment, batch_id: int) -> tuple[int, int, int, int, int]:
    """Of a batch that stands: next seq, time, inbox count, when it was posted, when one had last gone by then."""
    end = ROLLUP.read(rpc, at.rollup, "end", batch_id)
    next_seq, time_s, inbox_count, posted_at_s, rolled_back_at_s = map(int, end[:5])
    return next_seq, time_s, inbox_count, posted_at_s, rolled_back_at_s
