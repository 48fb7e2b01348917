"""Whose receipt keys are whose, followed on L1 by the events of Sequencers: no look-up for each signature."""

from threading import Lock
from typing import Final

from sequencer.l1.deploy import Deployment
from sequencer.l1.rpc import Rpc, to_bytes
from sequencer.l1.sequencers import SEQUENCERS

REREAD_BLOCKS: Final = 64  # as deep as a reorganisation may be
KEYS_MAX: Final = 1_024  # of a member, the newest


class MemberKeys:
    """Receipt keys of every member that ever was. `refresh` reads L1; `member_of` may be asked from any thread."""

    def __init__(self, rpc: Rpc, at: Deployment) -> None:
        self._rpc = rpc
        self._at = at
        self._keys: dict[bytes, str] = {}
        self._of: dict[str, dict[bytes, None]] = {}
        self._read_to = at.deploy_block - 1
        self._lock = Lock()

    def refresh(self, head: int) -> None:
        """Reads the events up to block `head` that have come since. Raises RpcError."""
        with self._lock:
            if head <= self._read_to:
                return
            event = SEQUENCERS.event("ReceiptKeySet")
            first = max(self._at.deploy_block, self._read_to - REREAD_BLOCKS)
            query = {"address": self._at.sequencers, "topics": [event.topic]}
            for log in self._rpc.logs(query, first, head):
                told = event.decode(log)
                self._add(to_bytes(str(told["key"])), str(told["member"]).lower())
            self._read_to = head

    def _add(self, key: bytes, member: str) -> None:
        of = self._of.setdefault(member, {})
        of[key] = None
        self._keys[key] = member
        if len(of) > KEYS_MAX:
            oldest = next(iter(of))
            del of[oldest], self._keys[oldest]

    def member_of(self, key: bytes) -> str | None:
        """The member, in lower case, whose receipts an address signs; None: nobody's."""
        return self._keys.get(key)
