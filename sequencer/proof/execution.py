"""Executes batches from L1, with every check: the one place for everything that follows L1 or rebuilds the state.

The watcher challenges a fault found here, a standby does not build on it, `replay` and `exit` report it. `Facts`
supplies what L1 states of the inbox and of the time at which a batch was posted.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

from sequencer.l1.deploy import Deployment
from sequencer.l1.errors import NodeBehind, RpcReverted
from sequencer.l1.follower import InboxMessage, PostedBatch
from sequencer.l1.inbox import INBOX, Deadlines, end_of
from sequencer.l1.rpc import Rpc
from sequencer.log.interface import LoggedSegment
from sequencer.proof.audit import FORM_KINDS, Audit, Fault, FaultKind
from sequencer.protocol import batch as batches
from sequencer.protocol.outcome import Outcome
from sequencer.protocol.state import State


class Facts(Protocol):
    """Facts about a batch that are not in the batch itself."""

    def message(self, index: int) -> bytes | None:
        """Record of inbox message `index`, None beyond the end."""
        ...

    def inbox_hash(self, batch: PostedBatch) -> bytes:
        """The Inbox's running hash after the messages that the batch's header counts."""
        ...

    def late(self, batch: PostedBatch, taken: int, root: bytes) -> Fault | None:
        """Of a batch that came too late for a message, whatever is in it. `taken` messages and `root`: before it."""
        ...


class HeaderFacts:
    """Without L1: the header's inbox hash, which Rollup has compared when the batch was posted."""

    def message(self, index: int) -> bytes | None:
        """See Facts."""
        del index
        return None

    def inbox_hash(self, batch: PostedBatch) -> bytes:
        """See Facts."""
        return batch.inbox_hash

    def late(self, batch: PostedBatch, taken: int, root: bytes) -> Fault | None:
        """See Facts."""
        del batch, taken, root
        return None


class L1Facts:
    """From L1. `messages()`: all inbox messages that the caller has read, from the first on. Raises L1Error."""

    def __init__(self, rpc: Rpc, at: Deployment, messages: Callable[[], Sequence[InboxMessage]]) -> None:
        self._rpc = rpc
        self._at = at
        self._messages = messages
        self._hash_at: tuple[int, bytes] | None = None
        self._deadlines: Deadlines | None = None

    def message(self, index: int) -> bytes | None:
        """See Facts."""
        known = self._messages()
        return known[index].record if index < len(known) else None

    def inbox_hash(self, batch: PostedBatch) -> bytes:
        """See Facts."""
        count = batch.inbox_count
        if self._hash_at is None or self._hash_at[0] != count:
            self._hash_at = (count, bytes(INBOX.read(self._rpc, self._at.inbox, "hash_at", count)))
        return self._hash_at[1]

    def late(self, batch: PostedBatch, taken: int, root: bytes) -> Fault | None:
        """See Facts. Raises NodeBehind when L1's newest block does not have the batch: a later look shows why."""
        waiting = self._messages()[taken:]
        if not waiting:
            return None
        if self._deadlines is None:
            self._deadlines = Deadlines(self._rpc, self._at)
        try:
            *_, posted_at_s, rolled_back_at_s = end_of(self._rpc, self._at, batch.batch_id)
        except RpcReverted as error:
            raise NodeBehind(self._rpc.url, f"batch {batch.batch_id} does not stand") from error
        late = self._deadlines.first_late(waiting, posted_at_s, rolled_back_at_s)
        if late is None:
            return None
        why = f"posted {posted_at_s - late.deadline_s} s past the deadline of inbox message {late.index}"
        return Fault(batch.batch_id, 0, FaultKind.LATE, 0, root, batch.post_root, why, late.index)

    def forget(self) -> None:
        """L1 has reorganised: facts about the inbox are requested again."""
        self._hash_at = self._deadlines = None


class Execution:
    """Owns the state after the correct batches so far."""

    def __init__(
        self,
        state: State,
        facts: Facts,
        observe: Callable[[bytes, Outcome], None] = lambda _raw, _out: None,
    ) -> None:
        self.facts = facts
        self._audit = Audit(state, facts.message, observe)

    @property
    def state(self) -> State:
        """After the batches so far; inside a batch, and of no more use, when one was found wrong."""
        return self._audit.state

    @property
    def segments(self) -> list[LoggedSegment]:
        """Segments of the last correct batch, with whole roots."""
        return self._audit.segments

    @property
    def begun(self) -> list[bool]:
        """For each TICK of that batch, whether a tick began."""
        return self._audit.begun

    def late(self, batch: PostedBatch) -> Fault | None:
        """Of the next batch, when it was posted too late to stand; its payload does not matter."""
        return self.facts.late(batch, self.state.globals.inbox_count, self.state.root())

    def execute(self, batch: PostedBatch, batch_id: int) -> Fault | None:
        """Applies the batch with the next id, `batch_id`; returns its fault. Raises L1Error before that."""
        late, inbox_hash = self.late(batch), self.facts.inbox_hash(batch)
        return self._audit.check(batch, batch_id, inbox_hash) or late

    def is_led_to(self, batch: PostedBatch, fault: Fault) -> bool:
        """Whether the records give the batch's post-root despite a fault; applies them if so.

        For a final batch: everybody is paid by what L1 accepts.
        """
        if fault.kind is FaultKind.ORDER:
            return False
        if fault.kind in FORM_KINDS:
            try:
                self._audit.advance(batch)
            except batches.BatchError:
                return False
        return self.state.root() == batch.post_root

    def advance(self, batch: PostedBatch, segments: int | None = None) -> None:
        """Applies the records of a batch found correct, or of its first `segments`, without checks."""
        self._audit.advance(batch, segments)
