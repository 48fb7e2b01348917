"""Reads L1 into the watcher's archive: the events of confirmed blocks, kept equal to the chain."""

import logging
from collections.abc import Callable

from sequencer.checksums import StoreDamaged
from sequencer.l1.deploy import Deployment
from sequencer.l1.errors import DeploymentError, NodeBehind, ReorgTooDeep
from sequencer.l1.follower import BLOCKS_PER_QUERY, InboxMessage, Kept, PostedBatch
from sequencer.l1.heads import Heads
from sequencer.l1.rpc import Rpc, to_int
from sequencer.proof.alarms import Alarms
from sequencer.proof.archive import ARCHIVE_FILE, Archive, RolledBack
from sequencer.proof.execution import L1Facts
from sequencer.proof.reader import Reader, Unread


class L1Reading:
    """Reads new events. `head`: number and time of L1's newest block; `unread`: the first current batch that cannot be
    read; `messages`: the inbox's; `facts`: L1's facts for an execution.
    """

    def __init__(
        self,
        rpc: Rpc,
        deployment: Deployment,
        confirmations: int,
        kept: Kept | None,
        archive: Archive,
        alarms: Alarms,
        progress: Callable[[str, int, int], None],
    ) -> None:
        self.rpc = rpc
        self.heads = Heads(rpc.url)
        self.head = (0, 0)
        self.unread: Unread | None = None
        self.messages: list[InboxMessage] = []
        self.facts = L1Facts(rpc, deployment, lambda: self.messages)
        self._deployment = deployment
        self._confirmations = confirmations
        self._kept = kept
        self._archive = archive
        self._alarms = alarms
        self._progress = progress
        self._reader = Reader(rpc, deployment, confirmations, kept)

    def mend(self) -> None:
        """Reads damaged rows of the archive from L1 again, before they are used."""
        while (gap := self._archive.gap()) is not None:
            first, last, numbers = gap
            events: list[tuple[PostedBatch | RolledBack, int]] = []
            for begin in range(max(first, self._deployment.deploy_block), last + 1, BLOCKS_PER_QUERY):
                for event, index in self._reader.events(begin, min(begin + BLOCKS_PER_QUERY - 1, last)):
                    if isinstance(event, Unread):  # it would delete sound rows after it, too
                        what = f"rows {numbers[0]} to {numbers[-1]} are damaged, and batch {event.batch.batch_id}"
                        raise StoreDamaged(ARCHIVE_FILE, f"{what} cannot be read again", event.why)
                    events.append((event, index))
            is_whole = self._archive.mend(numbers, events)
            what = (
                "read from L1 again"
                if is_whole
                else "not to be had from L1 as they were: all is read on from there"
            )
            self._alarms.add(
                f"the archive's rows {numbers[0]} to {numbers[-1]} were damaged: {what}", logging.ERROR
            )

    def walk_back(self) -> None:
        """Cuts the journal back to the blocks that are still in the chain."""
        number = self._archive.get("cursor_number")
        if number is None or self._is_canonical(number, self._archive.get("cursor_hash")):
            return
        if self._is_behind(number):
            raise NodeBehind(self.rpc.url, f"no block {number}, which was read")
        rows = self._archive.rows
        count = len(rows)
        while count and not self._is_canonical(rows[count - 1].block_number, rows[count - 1].block_hash):
            count -= 1
        lost = len(rows) - count
        self._archive.cut(count)
        back = rows[-1].block_number if rows else self._deployment.deploy_block - 1
        self._alarms.once(
            f"reorg {number}",
            f"L1 was reorganised below block {number}: {lost} events are gone, read again from {back + 1}",
        )
        block = self.rpc.block(back)
        self._archive.put(cursor_number=back, cursor_hash=block["hash"] if block else "")

    def _is_behind(self, number: int) -> bool:
        """Whether L1 only lacks blocks up to `number`, and contradicts nothing that was read."""
        head = self.rpc.block("latest")
        if head is None or to_int(head["number"]) >= number:
            return False
        last = next(
            (row for row in reversed(self._archive.rows) if row.block_number <= to_int(head["number"])), None
        )
        return last is None or self._is_canonical(last.block_number, last.block_hash)

    def _is_canonical(self, number: int, block_hash: str) -> bool:
        block = self.rpc.block(number)
        return block is not None and block["hash"] == block_hash

    def read(self) -> None:
        """Reads events and messages of confirmed blocks."""
        head = self.rpc.block("latest")
        if head is None:
            raise DeploymentError("the node has no block")
        self.heads.saw(head["hash"])
        self.head = (to_int(head["number"]), to_int(head["timestamp"]))
        safe = self.head[0] - self._confirmations
        number = self._archive.get("cursor_number")
        first = self._deployment.deploy_block if number is None else number + 1
        begun, unread = first, None
        while first <= safe and unread is None:
            last = min(first + BLOCKS_PER_QUERY - 1, safe)
            end = self.rpc.block(last)
            events = list(self._reader.events(first, last))
            known = self._archive.get("cursor_hash")
            if (
                end is None
                or not self._is_canonical(last, end["hash"])
                or (known is not None and not self._is_canonical(first - 1, known))
            ):
                return  # the chain has changed during the query: the next pass walks back
            for event, index in events:
                if not isinstance(event, Unread):
                    self._archive.add(event, index)
                elif not self._reader.is_gone(event, safe):
                    unread = event
                    break
            if unread is not None:  # the next pass reads everything from its block on again
                last = unread.batch.block_number - 1
                end = self.rpc.block(last)
                if end is None:
                    raise NodeBehind(self.rpc.url, f"no block {last}")
            self._archive.put(cursor_number=last, cursor_hash=end["hash"])
            first = last + 1
            self._progress("blocks", last - begun + 1, safe - begun + 1)
        self.unread = unread
        try:
            self.messages = self._reader.messages_after(0)
        except ReorgTooDeep as error:
            self._alarms.add(str(error))
            self.facts.forget()
            self._reader = Reader(self.rpc, self._deployment, self._confirmations, self._kept)
            self.messages = self._reader.messages_after(0)
