"""Follows L1: the inbox's messages, each once and only when deep enough, and the posted batches for a replay.

The follower keeps nothing on disk. Its caller's own state says how many messages it has taken (`inbox_count` of
GLOBAL), and the chain has the rest; the running hash of PROTOCOL §6 ties the two together.
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

from sequencer.contracts import load
from sequencer.l1 import blobs
from sequencer.l1.abi import Contract
from sequencer.l1.beacon import BEACON_VARIABLE, Beacon
from sequencer.l1.errors import (
    BlobsUnavailable,
    InboxMismatch,
    NodeBehind,
    PayloadMismatch,
    ReorgTooDeep,
    RpcError,
    RpcRejected,
)
from sequencer.l1.limits import LOG_BLOCKS_MAX
from sequencer.l1.payload import payload_in
from sequencer.l1.rpc import Rpc, to_bytes, to_int
from sequencer.protocol.batch import data_root
from sequencer.protocol.codec import inbox_hash

BLOCKS_PER_QUERY: Final = LOG_BLOCKS_MAX
RECORD_BYTES: Final = 31
EMPTY_HASH: Final = bytes(32)
ASK_AGAIN_S: Final = (0.05, 0.2, 0.8)  # between answers of a node that is a moment behind

# Blobs of a batch by their versioned hashes, from where they were kept; None: not there. They are verified.
Kept = Callable[[int, tuple[bytes, ...]], tuple[bytes, ...] | None]


@dataclass(frozen=True, slots=True)
class InboxMessage:
    """Message `index`: its record, and the running hash after it."""

    index: int
    record: bytes
    hash: bytes
    block_number: int
    block_hash: str


@dataclass(frozen=True, slots=True)
class PostedBatch:
    """A batch as L1 has it: the event, and the payload from the transaction's calldata or blobs.

    `blob_hashes`: the blobs' versioned hashes, if it lies there. `odd_blobs`: the blobs themselves when they hold more
    than the payload, which no honest ones do; a challenge needs them as they are.
    """

    batch_id: int
    pre_root: bytes
    post_root: bytes
    data_root: bytes
    header_hash: bytes
    elements: int
    segments: int
    records: int
    first_seq: int
    time_s: int
    inbox_count: int
    inbox_hash: bytes
    work: int
    tick: int
    ticks: int
    payload: bytes
    block_number: int
    block_hash: str
    tx_hash: str
    blob_hashes: tuple[bytes, ...] = ()
    odd_blobs: tuple[bytes, ...] = ()

    def blobs(self) -> tuple[bytes, ...]:
        """The blobs that the payload lies in."""
        return self.odd_blobs or blobs.to_blobs(self.payload)

    def header(self) -> tuple[int | bytes, ...]:
        """As the contracts take it."""
        return (
            self.batch_id,
            self.pre_root,
            self.post_root,
            self.data_root,
            self.elements,
            self.segments,
            self.records,
            self.first_seq,
            self.time_s,
            self.inbox_count,
            self.inbox_hash,
            self.work,
            self.tick,
            self.ticks,
        )


@dataclass(frozen=True, slots=True)
class RolledBack:
    """A roll-back: `batch_id` and all after it are gone. `key` names it through reorganisations; `slashed` in wei."""

    key: str
    batch_id: int
    slashed: int
    block_number: int


@dataclass(frozen=True, slots=True)
class _Checkpoint:
    """A block up to which logs were read, and how many messages there were by then."""

    number: int
    hash: str
    messages: int


class Follower:
    """Reads one deployment. With `confirmations` n, a message counts when its block has n blocks upon it.

    `beacon_url`: who serves blobs; None: see `Beacon`. `kept`: asked before it.
    """

    def __init__(
        self,
        rpc: Rpc,
        inbox: str,
        rollup: str,
        deploy_block: int,
        confirmations: int,
        beacon_url: str | None = None,
        kept: Kept | None = None,
    ) -> None:
        self._rpc = rpc
        self._kept = kept
        asked = beacon_url or os.environ.get(BEACON_VARIABLE) or rpc.url
        self._beacon = Beacon(asked, may_be_anvil=asked == rpc.url)
        self._inbox = inbox
        self._rollup = rollup
        self._deploy_block = deploy_block
        self._confirmations = confirmations
        self._inbox_contract = Contract(load("Inbox").abi)
        self._rollup_contract = Contract(load("Rollup").abi)
        self._message = self._inbox_contract.event("Message")
        self._post = self._rollup_contract.function("post").selector
        self._post_blobs = self._rollup_contract.function("post_blobs").selector
        self._posted = self._rollup_contract.event("BatchPosted")
        self._rolled_back = self._rollup_contract.event("RolledBack")
        self._messages: list[InboxMessage] = []
        self._checkpoints: list[_Checkpoint] = []
        self._reported = 0
        self._events: list[RolledBack] = []
        self._looked_to: tuple[int, str] | None = None  # the last block searched for roll-backs, and its hash

    # --- inbox --------------------------------------------------------------------------------

    def messages_after(self, count: int, inbox_hash: bytes | None = None) -> list[InboxMessage]:
        """Confirmed messages from index `count` on.

        `inbox_hash`, the caller's running hash after its `count` messages, is compared with the chain's: a
        sequencer that restarts on a chain whose past has changed learns it here. Raises ReorgTooDeep when a
        message already reported, or taken by the caller, is gone; InboxMismatch when logs contradict the hash
        chain; RpcError when L1 does not answer, or answers from further back (nothing is lost: call again).
        """
        self._reported = max(self._reported, count)
        self._advance()
        if count > len(self._messages):
            # taken under fewer confirmations than are asked for now, or from a chain that is no more
            for wait_s in (*ASK_AGAIN_S, None):
                if count <= int(self._inbox_contract.read(self._rpc, self._inbox, "count")):
                    return []
                if wait_s is not None:
                    self._rpc.sleep(wait_s)
            raise ReorgTooDeep(count - 1, 0, self._confirmations)
        ours = self._messages[count - 1].hash if count else EMPTY_HASH
        if inbox_hash is not None and ours != inbox_hash:
            raise ReorgTooDeep(
                max(0, count - 1), self._messages[count - 1].block_number if count else 0, self._confirmations
            )
        self._reported = max(self._reported, len(self._messages))
        return self._messages[count:]

    def _advance(self) -> None:
        """Read logs up to the head minus confirmations."""
        self._walk_back()
        safe = self._rpc.block_number() - self._confirmations
        first = self._checkpoints[-1].number + 1 if self._checkpoints else self._deploy_block
        for part in self._rpc.log_ranges(first, safe):
            query = {"address": self._inbox, "topics": [self._message.topic]} | part.bounds
            end_tag = hex(part.last)
            try:
                end_first, logs, end, before = self._rpc.batch_strict(
                    [
                        ("eth_getBlockByNumber", (end_tag, False)),
                        ("eth_getLogs", (query,)),
                        ("eth_getBlockByNumber", (end_tag, False)),
                        ("eth_getBlockByNumber", (hex(max(part.first - 1, 0)), False)),
                    ]
                )
            except RpcError as error:
                part.refused(error)
                continue
            known = self._checkpoints[-1].hash if self._checkpoints else None
            if end is None or before is None or end_first is None or end_first["hash"] != end["hash"]:
                return  # the chain has changed under the query: the next call walks back
            if known is not None and before["hash"] != known:
                return
            fresh = self._decode(logs)
            self._messages += fresh
            self._checkpoints.append(_Checkpoint(part.last, end["hash"], len(self._messages)))
            part.took()

    def _decode(self, logs: list[dict[str, Any]]) -> list[InboxMessage]:
        """Messages of logs that follow those known; each must continue the index and the running hash."""
        fresh: list[InboxMessage] = []
        running = self._messages[-1].hash if self._messages else EMPTY_HASH
        for index, log in enumerate(logs, start=len(self._messages)):
            arguments = self._message.decode(log)
            record = bytes(arguments["record"])
            number = to_int(log["blockNumber"])
            if arguments["index"] != index:
                raise InboxMismatch(index, f"the log in block {number} has index {arguments['index']}")
            if len(record) != RECORD_BYTES:
                raise InboxMismatch(index, f"the record has {len(record)} bytes")
            running = inbox_hash(running, record)
            if running != arguments["hash"]:
                raise InboxMismatch(
                    index, f"its hash is not the running hash of the records up to it (block {number})"
                )
            fresh.append(InboxMessage(index, record, running, number, log["blockHash"]))
        return fresh

    def _walk_back(self) -> None:
        """Forget what is no longer in the chain; raises when something reported was among it."""
        while self._checkpoints:
            checkpoint = self._checkpoints[-1]
            block = self._rpc.block(checkpoint.number)
            if block is not None and block["hash"] == checkpoint.hash:
                return
            kept = self._checkpoints[-2].messages if len(self._checkpoints) > 1 else 0
            if self._reported > kept and len(self._messages) > kept:
                self._check_still_there(kept)
            self._checkpoints.pop()
            del self._messages[kept:]

    def _check_still_there(self, kept: int) -> None:
        """The block of a checkpoint is gone; the messages before it may stand in blocks that are not."""
        for message in self._messages[kept : self._reported]:
            block = self._rpc.block(message.block_number)
            if block is None:  # nothing stands in its place: only a block that does shows that it is gone
                raise NodeBehind(
                    self._rpc.url, f"no block {message.block_number}, which had message {message.index}"
                )
            if block["hash"] != message.block_hash:
                raise ReorgTooDeep(message.index, message.block_number, self._confirmations)

    # --- batches ------------------------------------------------------------------------------

    def batches(
        self, from_block: int, to_block: int | None = None, first_id: int = 0
    ) -> Iterator[PostedBatch]:
        """Posted batches in order, up to `to_block` or the head minus confirmations, checked against calldata or blobs.

        Those below `first_id` are left out unread.

        What was rolled back by `to_block` is left out, so that an id comes once.
        Raises PayloadMismatch when a batch was not posted by calling the Rollup directly, or its payload's data root
        is not the event's; ids must be consecutive.
        """
        last_block = self._rpc.block_number() - self._confirmations if to_block is None else to_block
        expected: int | None = None
        rolled_back, _ = self._rollbacks(from_block, last_block)
        for logs, _ in self._logs((self._posted.topic,), from_block, last_block):
            for log in logs:
                batch_id = int(self._posted.decode(log)["batch_id"])
                if batch_id < first_id or _is_void(log, batch_id, rolled_back):
                    continue
                batch = self._posted_batch(log)
                if expected is not None and batch.batch_id != expected:
                    raise PayloadMismatch(batch.batch_id, f"follows where {expected} was expected")
                expected = batch.batch_id + 1
                yield batch

    def roll_backs(self, last_block: int) -> list[RolledBack]:
        """Every roll-back up to `last_block`, oldest first. Blocks that were looked at are looked at again only when
        the chain has changed.
        """
        if self._looked_to is not None:
            number, seen = self._looked_to
            block = self._rpc.block(number)
            if block is None or block["hash"] != seen:
                self._events, self._looked_to = [], None
        first = self._deploy_block if self._looked_to is None else self._looked_to[0] + 1
        if first <= last_block:
            found, end = self._rollbacks(first, last_block)
            self._events += [one for _, _, one in found]
            self._looked_to = (last_block, end)
        return list(self._events)

    def _logs(
        self, topics: tuple[str, ...], from_block: int, last_block: int
    ) -> Iterator[tuple[list[dict[str, Any]], str]]:
        """The Rollup's logs of some blocks after the other, and the hash of the last of these: asked for together, so
        that neither is without the other.

        A node that is behind answers for the blocks that it has, as if there were no more. Raises NodeBehind when that
        does not pass.
        """
        for part in self._rpc.log_ranges(from_block, last_block):
            try:
                found = self._logs_of(
                    {"address": self._rollup, "topics": [list(topics)]} | part.bounds, part.last
                )
            except RpcError as error:
                part.refused(error)
                continue
            part.took()
            yield found

    def _logs_of(self, query: dict[str, Any], last: int) -> tuple[list[dict[str, Any]], str]:
        end = ("eth_getBlockByNumber", (query["toBlock"], False))
        for wait_s in (*ASK_AGAIN_S, None):
            before, logs, after = self._rpc.batch([end, ("eth_getLogs", (query,)), end])
            if isinstance(before, dict) and isinstance(after, dict) and before["hash"] == after["hash"]:
                if isinstance(logs, RpcRejected):
                    raise logs
                return list(logs), str(after["hash"])
            if wait_s is not None:
                self._rpc.sleep(wait_s)
        raise NodeBehind(self._rpc.url, f"no block {last}, or not the same one twice")

    def _rollbacks(self, from_block: int, last_block: int) -> tuple[list[tuple[int, int, RolledBack]], str]:
        """(block, log index, event) of every roll-back; the hash of `last_block`."""
        found, last = [], ""
        for logs, end in self._logs((self._rolled_back.topic,), from_block, last_block):
            last = end
            for log in logs:
                event = self._rolled_back.decode(log)
                batch_id, (block, index) = int(event["batch_id"]), _place(log)
                key = f"{log['transactionHash']}:{batch_id}"
                found.append((block, index, RolledBack(key, batch_id, int(event["slashed"]), block)))
        return found, last

    def _posted_batch(self, log: dict[str, Any]) -> PostedBatch:
        """Raises PayloadMismatch and BlobsUnavailable when the event can be read and the payload cannot."""
        batch = self._without_payload(log)
        transaction = self._transaction(log)
        try:
            data = to_bytes(transaction["input"])
            to = str(transaction.get("to") or "").lower()
            named = tuple(map(to_bytes, transaction.get("blobVersionedHashes") or ()))
        except (KeyError, TypeError, ValueError) as error:
            raise PayloadMismatch(batch.batch_id, f"its transaction cannot be decoded: {error!r}") from error
        in_blobs = data[:4] == self._post_blobs
        if to != self._rollup.lower() or (not in_blobs and data[:4] != self._post):
            raise PayloadMismatch(
                batch.batch_id, "was not posted by a direct call of Rollup.post or post_blobs"
            )
        if in_blobs:
            found = self._blobs(log, batch.batch_id, named)
            payload = blobs.from_blobs(found, batch.elements)
            odd = () if found == blobs.to_blobs(payload) else found
            batch = replace(batch, payload=payload, blob_hashes=named, odd_blobs=odd)
        else:
            batch = replace(batch, payload=payload_in(data))
        if (blobs.data_root(named) if in_blobs else data_root(batch.payload)) != batch.data_root:
            raise PayloadMismatch(batch.batch_id, "the payload's data root is not the event's")
        return batch

    def _without_payload(self, log: dict[str, Any]) -> PostedBatch:
        """What the event alone says."""
        event = self._posted.decode(log)
        return PostedBatch(
            batch_id=int(event["batch_id"]),
            pre_root=event["pre_root"],
            post_root=event["post_root"],
            data_root=event["data_root"],
            header_hash=event["header_hash"],
            elements=event["elements"],
            segments=event["segments"],
            records=event["records"],
            first_seq=event["first_seq"],
            time_s=event["time"],
            inbox_count=event["inbox_count"],
            inbox_hash=event["inbox_hash"],
            work=event["work"],
            tick=event["tick"],
            ticks=event["ticks"],
            payload=b"",
            block_number=to_int(log["blockNumber"]),
            block_hash=log["blockHash"],
            tx_hash=log["transactionHash"],
        )

    def _transaction(self, log: dict[str, Any]) -> dict[str, Any]:
        """A log's transaction. By place, not by hash: a pool may still answer, without a block, for one just mined."""
        place = log["blockHash"], log["transactionIndex"]
        for wait_s in (*ASK_AGAIN_S, None):
            found: dict[str, Any] | None = self._rpc.call("eth_getTransactionByBlockHashAndIndex", *place)
            if found is not None and found["hash"] == log["transactionHash"]:
                return found
            if wait_s is not None:
                self._rpc.sleep(wait_s)
        raise NodeBehind(self._rpc.url, f"transaction {log['transactionHash']} is not in its block")

    def _blobs(self, log: dict[str, Any], batch_id: int, hashes: tuple[bytes, ...]) -> tuple[bytes, ...]:
        kept = self._kept(batch_id, hashes) if self._kept else None
        if kept is not None and _are_named(kept, hashes):
            return kept
        number = to_int(log["blockNumber"])
        block = self._rpc.block(number)
        if block is None:
            raise NodeBehind(self._rpc.url, f"no block {number}, which had a batch")
        try:
            return self._beacon.blobs(number, to_int(block["timestamp"]), hashes)
        except BlobsUnavailable as error:
            error.batch_id = batch_id
            raise


def _are_named(found: tuple[bytes, ...], hashes: tuple[bytes, ...]) -> bool:
    """Whether these are the blobs of these versioned hashes."""
    try:
        return tuple(blobs.versioned_hash(blobs.commitment_of(one)) for one in found) == hashes
    except ValueError:
        return False


def _place(log: dict[str, Any]) -> tuple[int, int]:
    return to_int(log["blockNumber"]), to_int(log["logIndex"])


def _is_void(log: dict[str, Any], batch_id: int, rolled_back: list[tuple[int, int, RolledBack]]) -> bool:
    """Whether a batch was rolled back after it was posted."""
    return any(
        batch_id >= event.batch_id and _place(log) < (block, index) for block, index, event in rolled_back
    )
