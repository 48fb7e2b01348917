"""Posts batches to `Rollup`, in order, each once.

`offer` queues a batch, `step` does what can be done now: it is called in a loop, never blocks longer than L1's
answers, and `status` says where it stands. A batch goes through the transaction manager under the intent
"batch-{id}", so that offering it again after a crash finds the transaction that is already on its way. After a
roll-back ids come again with other content: the intent then carries the epoch, which counts them. A batch names the
root and the inbox hash that it was made upon: on another branch of L1 it reverts, and waits.
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from sequencer.contracts import load
from sequencer.l1 import blobs
from sequencer.l1.abi import Contract
from sequencer.l1.batch import Batch
from sequencer.l1.errors import (
    BatchMismatch,
    BatchOutOfOrder,
    PayloadTooLarge,
    RpcError,
    RpcReverted,
    RpcUnavailable,
)
from sequencer.l1.payload import PAYLOAD_BYTES_MAX
from sequencer.l1.rpc import Rpc, to_int
from sequencer.l1.txmgr import TxManager
from sequencer.l1.txstore import Intent, State
from sequencer.protocol import work
from sequencer.protocol.constants import ELEMENT_BYTES

BACKOFF_FIRST_S: Final = 0.25
BACKOFF_MAX_S: Final = 4.0
# measured over payloads from 93 bytes to the largest, with room for a cold first write and the inbox's hash
EXECUTION_GAS_FIXED: Final = 150_000
EXECUTION_GAS_PER_BYTE: Final = 7
EXECUTION_GAS_PER_BLOB: Final = 2_000
GAS_MARGIN: Final = 20_000
CALLDATA_FIXED_BYTES: Final = 4 + 13 * 32
BUDGET_LOOK_S: Final = 0.25  # between looks at a budget that is still to grow
# reverts of a batch whose past is not L1's: a reorganisation has taken it away, and may bring it back
OTHER_PAST: Final = ("rollup: pre-root is not the last root", "rollup: inbox hash is not the inbox's")


class PosterState(StrEnum):
    IDLE = "idle"  # nothing to post
    POSTING = "posting"
    L1_DOWN = "l1 down"  # waiting with backoff
    WAITING = "waiting"  # until the Rollup's budget of work has grown to what the next batch costs
    STUCK = "stuck"  # the next batch is refused by L1; see reason; tried again with backoff


@dataclass(frozen=True, slots=True)
class PosterStatus:
    """`next_batch` is L1's; `queued` counts batches not confirmed, `in_flight` those sent and not mined."""

    state: PosterState
    reason: str
    next_batch: int | None
    queued: int
    in_flight: int
    last_confirmed: int
    gas_used: int
    bytes_posted: int
    blob_gas_used: int = 0
    queued_bytes: int = 0  # of payload


@dataclass(frozen=True, slots=True)
class Posted:
    """A confirmed batch. `tx_hash` and `gas_used` are None when another run of this sequencer has posted it."""

    batch_id: int
    tx_hash: str | None
    block_number: int | None
    gas_used: int | None


@dataclass(frozen=True, slots=True)
class PosterConfig:
    """`in_blobs`: where the Rollup's arbiter looks for payloads."""

    in_blobs: bool = False
    in_flight_max: int = 4
    queue_max: int = 64
    confirmations: int = 1


@dataclass(slots=True)
class _Budget:
    """The Rollup's budget as the next batch would find it: units there are, GLOBAL's work before that batch."""

    per_s: int
    most: int
    units: int
    work: int

    def _cost(self, batch: Batch, in_blobs: bool) -> int:
        count = blobs.count(len(batch.payload)) if in_blobs else 0
        return work.of_batch(batch.work - self.work, count)

    def wait_s(self, batch: Batch, in_blobs: bool) -> float:
        """For how long the budget has to grow before this batch, the next one, can go; 0: it can."""
        return max(0, self._cost(batch, in_blobs) - self.units) / self.per_s

    def spend(self, batch: Batch, in_blobs: bool) -> None:
        """The batch is on its way."""
        self.units -= self._cost(batch, in_blobs)
        self.work = batch.work


@dataclass(slots=True)
class _Queued:
    batch: Batch
    epoch: int
    retries: int = 0

    @property
    def intent_id(self) -> str:
        name = f"batch-{self.batch.batch_id}" + (f"-epoch-{self.epoch}" if self.epoch else "")
        return name + (f"-retry-{self.retries}" if self.retries else "")


def post_gas(data: bytes, payload_bytes: int) -> int:
    """Gas to send with `Rollup.post` calldata: the greater of calldata plus execution and EIP-7623's floor."""
    zeros = data.count(0)
    others = len(data) - zeros
    executed = 21_000 + 4 * zeros + 16 * others + EXECUTION_GAS_FIXED + EXECUTION_GAS_PER_BYTE * payload_bytes
    floor = 21_000 + 10 * zeros + 40 * others
    return max(executed, floor) + GAS_MARGIN


def post_blobs_gas(data: bytes, blob_count: int) -> int:
    """Gas to send with `Rollup.post_blobs`, without the blobs'."""
    return 21_000 + 16 * len(data) + EXECUTION_GAS_FIXED + EXECUTION_GAS_PER_BLOB * blob_count + GAS_MARGIN


def gas_of(batches: int, payload_bytes: int, in_blobs: bool) -> int:
    """Gas to have for so many batches with so much payload, none of it zero; without the blobs' own."""
    fixed = 21_000 + EXECUTION_GAS_FIXED + GAS_MARGIN
    if in_blobs:
        count = batches + payload_bytes // blobs.BLOB_PAYLOAD_BYTES
        return batches * (fixed + 16 * CALLDATA_FIXED_BYTES) + count * EXECUTION_GAS_PER_BLOB
    per_byte = 40 + EXECUTION_GAS_PER_BYTE
    return batches * (fixed + 40 * CALLDATA_FIXED_BYTES) + per_byte * payload_bytes


class Poster:
    """The poster of one rollup, between two roll-backs: `epoch` counts those before. `clock` gives seconds."""

    def __init__(
        self,
        rpc: Rpc,
        txmgr: TxManager,
        rollup: str,
        config: PosterConfig | None = None,
        clock: Callable[[], float] = time.time,
        epoch: int = 0,
    ) -> None:
        self._rpc = rpc
        self._txmgr = txmgr
        self._rollup = rollup
        self._epoch = epoch
        self._config = config or PosterConfig()
        self._clock = clock
        self._contract = Contract(load("Rollup").abi)
        self._queue: deque[_Queued] = deque()
        self._round_lock = threading.Lock()
        self._queue_lock = threading.Lock()  # held for moments only, so that nobody who offers waits for L1
        self._in_flight = 0
        self.hold = ""  # why nothing is to be sent; what is on its way is still followed
        self._state, self._reason = PosterState.IDLE, ""
        self._l1_next: int | None = None
        self._last_confirmed = 0
        self._gas_used = self._bytes_posted = self._blob_gas_used = 0
        self._payload_bytes_max = (
            blobs.BLOBS_MAX * blobs.BLOB_PAYLOAD_BYTES if self._config.in_blobs else PAYLOAD_BYTES_MAX
        )
        self._backoff_s = 0.0
        self._not_before_s = 0.0
        self._limits: tuple[int, int] | None = None  # the Rollup's work_per_s and work_max
        self._seen: tuple[str, float] = ("", 0.0)  # hash of L1's newest block, and when it was first seen

    def next_needed(self) -> int:
        """Id of the first batch to offer after a start: the lowest that L1 does not hold deep enough."""
        head = self._rpc.block_number()
        return self._next_on_l1(max(0, head - self._config.confirmations + 1))

    def offer(self, batch: Batch, epoch: int | None = None) -> bool:
        """Queue the next batch; False when the queue is full. Raises BatchOutOfOrder, PayloadTooLarge.

        `epoch`: the last roll-back that it can owe its content to, when that is an earlier one: under that name it may
        be on its way.
        """
        if len(batch.payload) > self._payload_bytes_max:
            raise PayloadTooLarge(batch.batch_id, len(batch.payload), self._payload_bytes_max)
        with self._queue_lock:
            expected = self._queue[-1].batch.batch_id + 1 if self._queue else self._last_confirmed + 1
            first = not self._queue and not self._last_confirmed
            if batch.batch_id != expected and not first:
                raise BatchOutOfOrder(expected, batch.batch_id)
            if len(self._queue) >= self._config.queue_max:
                return False
            self._queue.append(_Queued(batch, self._epoch if epoch is None else epoch))
            return True

    def status(self) -> PosterStatus:
        """As of the last round; never waits for L1."""
        with self._queue_lock:
            queued_bytes = sum(len(one.batch.payload) for one in self._queue)
        return PosterStatus(
            state=self._state,
            reason=self._reason,
            next_batch=self._l1_next,
            queued=len(self._queue),
            in_flight=self._in_flight,
            last_confirmed=self._last_confirmed,
            gas_used=self._gas_used,
            bytes_posted=self._bytes_posted,
            blob_gas_used=self._blob_gas_used,
            queued_bytes=queued_bytes,
        )

    def step(self) -> list[Posted]:
        """One round; returns the batches that are confirmed since the last.

        Raises what nobody but an operator can resolve: BatchMismatch when L1 holds something else under an id
        that this sequencer has filled, IntentConflict when it has itself sent something else under that id.
        """
        with self._round_lock:
            if self._clock() < self._not_before_s:
                return []
            if not self._txmgr.poll() and self._txmgr.metrics().l1_down:
                self._wait(PosterState.L1_DOWN, self._txmgr.metrics().last_error)
                return []
            try:
                return self._round()
            except RpcUnavailable as error:
                self._wait(PosterState.L1_DOWN, str(error))
            except RpcError as error:
                self._wait(PosterState.STUCK, str(error))
            return []

    def drain(self, timeout_s: float, interval_s: float = 0.02) -> list[Posted]:
        """Step until everything offered is confirmed or the time is over; returns what was."""
        deadline = time.monotonic() + timeout_s
        posted = self.step()
        while self._queue and time.monotonic() < deadline:
            time.sleep(interval_s)
            posted += self.step()
        return posted

    # --- one round ----------------------------------------------------------------------------

    def _round(self) -> list[Posted]:
        self._l1_next = self._next_on_l1("latest")
        posted = self._collect()
        in_flight = self._in_flight = 0
        reachable = self._l1_next  # the id that L1 will want once what is in flight is mined
        with self._queue_lock:
            queue = list(self._queue)
        budget: _Budget | None = None
        for item in queue:
            batch_id = item.batch.batch_id
            intent = self._txmgr.get(item.intent_id)
            if _is_in_flight(intent):
                in_flight += 1
                self._in_flight = in_flight
                reachable = max(reachable, batch_id + 1)
                continue
            if batch_id < self._l1_next:
                continue  # mined, by us or by an earlier run; waiting for confirmations
            if batch_id > reachable:
                if not in_flight:
                    self._wait(PosterState.STUCK, f"L1 wants batch {reachable}, offered is {batch_id}")
                    return posted
                break
            if in_flight >= self._config.in_flight_max:
                break
            if intent is not None and (in_flight or intent.state is not State.FAILED):
                break  # failed behind a predecessor on its way, or not deep enough to be called failed
            if self.hold:
                self._wait(PosterState.STUCK, self.hold)
                return posted
            budget = budget or self._budget(queue)
            wait_s = budget.wait_s(item.batch, self._config.in_blobs)
            if wait_s:
                self._not_before_s = self._clock() + min(wait_s, BUDGET_LOOK_S)
                self._state = PosterState.WAITING
                self._reason = f"batch {batch_id} goes when L1 has the work for it, in {wait_s:.0f} s"
                return posted
            if intent is not None and not self._may_retry(item, intent):
                return posted
            self._send(item)
            budget.spend(item.batch, self._config.in_blobs)
            in_flight += 1
            self._in_flight = in_flight
            reachable = batch_id + 1
        self._backoff_s = 0.0
        self._state = PosterState.POSTING if self._queue else PosterState.IDLE
        self._reason = self._txmgr.metrics().problem
        return posted

    def _collect(self) -> list[Posted]:
        """Take confirmed batches from the head of the queue."""
        posted: list[Posted] = []
        deep: int | None = None
        while self._queue:
            item = self._queue[0]
            batch_id = item.batch.batch_id
            assert self._l1_next is not None
            if batch_id >= self._l1_next:
                break
            intent = self._txmgr.get(item.intent_id)
            is_ours = intent is not None and intent.state is State.CONFIRMED
            if not is_ours:
                if _is_in_flight(intent) or (intent is not None and intent.state is State.MINED):
                    break
                self._check_same(item.batch)
                deep = self.next_needed() if deep is None else deep
                if batch_id >= deep:
                    break
            with self._queue_lock:
                self._queue.popleft()
                self._last_confirmed = batch_id
            self._bytes_posted += len(item.batch.payload)
            if is_ours and intent is not None:
                self._gas_used += intent.gas_used or 0
                if self._config.in_blobs:
                    self._blob_gas_used += blobs.GAS_PER_BLOB * blobs.count(len(item.batch.payload))
                posted.append(Posted(batch_id, intent.tx_hash, intent.block_number, intent.gas_used))
            else:
                posted.append(Posted(batch_id, None, None, None))
        return posted

    def _check_same(self, batch: Batch) -> None:
        stored = self._contract.read(self._rpc, self._rollup, "batch", batch.batch_id)
        root = bytes(stored[1])
        if root != batch.post_root:
            raise BatchMismatch(batch.batch_id, "0x" + batch.post_root.hex(), "0x" + root.hex())

    def _may_retry(self, item: _Queued, failed: Intent) -> bool:
        """After a revert: only when a call shows that L1 would take the batch now; otherwise say why not and wait."""
        try:
            hashes = self._txmgr.sidecar(item.batch.payload).hashes if self._config.in_blobs else ()
            self._rpc.eth_call(
                self._rollup, self._calldata(item.batch), "latest", self._txmgr.address, hashes
            )
        except RpcReverted as error:
            reason = error.reason or failed.error or error.message
            if reason in OTHER_PAST:
                reason += ": it was made upon another branch of L1, and goes when that is the chain again"
            self._wait(PosterState.STUCK, f"batch {item.batch.batch_id}: {reason}")
            return False
        item.retries += 1
        if self._txmgr.get(item.intent_id) is not None:  # tried by an earlier run
            return self._may_retry_again(item)
        return True

    def _may_retry_again(self, item: _Queued) -> bool:
        while (known := self._txmgr.get(item.intent_id)) is not None:
            if known.state is not State.FAILED:
                return False  # that retry is on its way: the next round sees it
            item.retries += 1
        return True

    def _send(self, item: _Queued) -> None:
        data, payload = self._calldata(item.batch), item.batch.payload
        if self._config.in_blobs:
            gas = post_blobs_gas(data, blobs.count(len(payload)))
            self._txmgr.send(item.intent_id, self._rollup, data, 0, gas, payload)
        else:
            self._txmgr.send(item.intent_id, self._rollup, data, 0, post_gas(data, len(payload)))

    def _calldata(self, batch: Batch) -> bytes:
        return self._contract.encode(
            "post_blobs" if self._config.in_blobs else "post",
            batch.batch_id,
            batch.pre_root,
            batch.post_root,
            batch.segments,
            batch.records,
            batch.first_seq,
            batch.time_s,
            batch.inbox_count,
            batch.inbox_hash,
            batch.work,
            batch.tick,
            len(batch.payload) // ELEMENT_BYTES if self._config.in_blobs else batch.payload,
        )

    def _budget(self, queue: list[_Queued]) -> "_Budget":
        """What is left of the Rollup's budget in the next block, behind what is on its way.

        The next block is no earlier than the newest one and what has passed since it was first seen: so a chain is
        judged right that makes blocks only when there is something in them.
        """
        if self._limits is None:
            per_s = int(self._contract.read(self._rpc, self._rollup, "work_per_s"))
            self._limits = per_s, int(self._contract.read(self._rpc, self._rollup, "work_max"))
        block = self._rpc.block("latest")
        if block is None:
            raise RpcUnavailable(self._rpc.url, "no newest block")
        if self._seen[0] != block["hash"]:
            self._seen = block["hash"], time.monotonic()
        now_s = to_int(block["timestamp"]) + int(time.monotonic() - self._seen[1])
        left, since_s, units = map(int, self._contract.read(self._rpc, self._rollup, "budget"))
        per_s, most = self._limits
        budget = _Budget(per_s, most, min(most, left + per_s * max(0, now_s - since_s)), units)
        for item in queue:
            if item.batch.batch_id >= (self._l1_next or 0) and _is_in_flight(self._txmgr.get(item.intent_id)):
                budget.spend(item.batch, self._config.in_blobs)
        return budget

    def _next_on_l1(self, tag: int | str) -> int:
        return int(self._contract.read(self._rpc, self._rollup, "next_batch", tag=tag))

    def _wait(self, state: PosterState, reason: str) -> None:
        self._state, self._reason = state, reason
        self._backoff_s = min(max(2 * self._backoff_s, BACKOFF_FIRST_S), BACKOFF_MAX_S)
        self._not_before_s = self._clock() + self._backoff_s


def _is_in_flight(intent: Intent | None) -> bool:
    return intent is not None and intent.state in (State.QUEUED, State.SENT)
