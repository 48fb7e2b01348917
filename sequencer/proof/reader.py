"""Reads the Rollup for a watcher: its events in the chain's order, batches with their payloads.

A batch whose payload cannot be read, for whatever reason, does not stop the reader: it is returned as `Unread`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sequencer.l1.deploy import Deployment
from sequencer.l1.errors import BlobsUnavailable, PayloadMismatch
from sequencer.l1.follower import Follower, Kept, PostedBatch
from sequencer.l1.rpc import Rpc, to_int
from sequencer.proof.archive import RolledBack


@dataclass(frozen=True, slots=True)
class Unread:
    """A batch without its payload: its event, and why it cannot be read."""

    batch: PostedBatch
    why: str


class Reader(Follower):
    """The follower, plus all events of the Rollup, roll-backs included."""

    def __init__(self, rpc: Rpc, at: Deployment, confirmations: int, kept: Kept | None) -> None:
        super().__init__(rpc, at.inbox, at.rollup, at.deploy_block, confirmations, kept=kept)

    def events(self, first: int, last: int) -> Iterator[tuple[PostedBatch | RolledBack | Unread, int]]:
        """(event, log index) of the blocks `first` to `last`."""
        topics = (self._posted.topic, self._rolled_back.topic)
        for logs, _ in self._logs(topics, first, last):
            for log in logs:
                yield self._event(log), to_int(log["logIndex"])

    def _event(self, log: dict[str, Any]) -> PostedBatch | RolledBack | Unread:
        if log["topics"][0] != self._posted.topic:
            batch_id = int(self._rolled_back.decode(log)["batch_id"])
            return RolledBack(batch_id, to_int(log["blockNumber"]), log["blockHash"])
        try:
            return self._posted_batch(log)
        except (PayloadMismatch, BlobsUnavailable) as error:
            return Unread(self._without_payload(log), str(error))

    def is_gone(self, unread: Unread, last_block: int) -> bool:
        """Whether a batch has been rolled back since, by `last_block`."""
        batch = unread.batch
        return any(
            one.batch_id <= batch.batch_id and one.block_number > batch.block_number
            for one in self.roll_backs(last_block)
        )
