"""Standby sequencer: follows L1, re-executes every batch, takes over when the leader stops posting.

Its folder always equals that of a sequencer at L1's state: it writes log, batches, proofs and snapshots as a leader
does, one log entry per batch. To lead, it starts the service on that folder. Records of a former leader's folder that
are not on L1 are removed (the log keeps them in their places as evidence).
"""

import contextlib
import logging
import sqlite3
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sequencer.engine.engine import ReplayError
from sequencer.engine.signed import is_signed
from sequencer.engine.snapshots import recover, save
from sequencer.engine.views import QueryError
from sequencer.genesis import genesis_root, genesis_state
from sequencer.history import history as histories
from sequencer.history.history import History
from sequencer.history.store import FILE as HISTORY_FILE
from sequencer.l1.batch import Batch
from sequencer.l1.deploy import Deployment
from sequencer.l1.errors import FollowerError, L1Error, ReorgTooDeep
from sequencer.l1.fees import DEFAULT_CAPS, FeeCaps
from sequencer.l1.follower import Follower, InboxMessage, PostedBatch, RolledBack
from sequencer.l1.rpc import Rpc
from sequencer.l1.sequencers import NOBODY, ROLLUP, Standing, standing
from sequencer.l1.signing import Signer
from sequencer.l1.txmgr import TxConfig, TxManager
from sequencer.log.interface import Entry, LogError, LogLost
from sequencer.log.sqlite import SqliteLog
from sequencer.node.claim import Claim
from sequencer.proof.audit import Fault
from sequencer.proof.execution import Execution, L1Facts
from sequencer.protocol import codec
from sequencer.protocol.batch import ids_in
from sequencer.protocol.constants import Reason
from sequencer.protocol.outcome import Outcome
from sequencer.protocol.params import Params
from sequencer.protocol.state import State
from sequencer.rollup.batcher import Batcher
from sequencer.rollup.rollback import Recovery
from sequencer.rollup.withdrawals import Withdrawals

PLACES_KEPT: Final = (
    64  # of the blocks that were read to: how far back a reorganisation is followed step by step
)
READ_AGAIN_S: Final = 30.0  # between readings of the whole chain for a batch of which there is no event

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Wrong:
    """A wrong batch, as L1 had it."""

    header_hash: bytes
    fault: Fault


@dataclass(frozen=True, slots=True)
class StandbyConfig:
    """`folder`: of this sequencer alone. `confirmations`: from when a batch counts, its own block included. A
    snapshot after each `snapshot_batches`, or `snapshot_work` units of work (30 s by default).
    """

    folder: Path
    params: Params
    deployment: Deployment
    confirmations: int = 1
    caps: FeeCaps = DEFAULT_CAPS
    snapshot_batches: int = 64
    history_days: int = histories.DAYS
    snapshot_work: int = 3_000_000


class Standby:
    """One member of the set while others lead.

    `step` follows L1 once; its caller has the loop and the waiting. `message` says what the standby does, or what keeps
    it from taking over. Raises ReplayError or LogError at the start when this code does not reproduce the folder.
    """

    def __init__(self, config: StandbyConfig, rpc: Rpc, signer: Signer) -> None:
        at = config.deployment
        self.config = config
        self.address = signer.address
        self._rpc = rpc
        self._at = at
        config.folder.mkdir(parents=True, exist_ok=True)
        self._snapshots = config.folder / "snapshots"
        self.log = SqliteLog(config.folder / "log.sqlite")
        self.batcher = Batcher(config.folder / "batches.sqlite", self.log, genesis_root(config.params))
        self._withdrawals = Withdrawals(config.folder / "withdrawals.sqlite")
        self.history = History(
            config.folder / HISTORY_FILE, config.params.treasury_account, config.history_days
        )
        self._recovery = Recovery(self._snapshots, self.log, self.batcher, self._withdrawals)
        self._recovery.follow()
        self._messages: list[InboxMessage] = []
        self._facts = L1Facts(rpc, at, lambda: self._messages)
        self._run = self._recovered()
        self._follower = self._new_follower()
        of = TxConfig.under(config.caps, config.confirmations)
        self._manager = TxManager(rpc, signer, config.folder / "l1.sqlite", of)
        self._read_to: deque[tuple[int, str]] = deque(maxlen=PLACES_KEPT)  # blocks read to, and their hashes
        self._read_again_s = 0.0  # monotonic: before that the whole chain is not read once more
        self._wrong: _Wrong | None = None
        self._unsaved = 0
        self._work_saved = self.state.globals.work
        self._claim = Claim(self._manager, at)
        self.standing: Standing | None = None
        self.message = "starting"

    @property
    def state(self) -> State:
        """The state after the last batch found correct."""
        return self._run.state

    def step(self) -> bool:
        """Follows L1 up to the confirmed depth; True once this sequencer leads and has executed every posted batch.

        Raises LogLost; any other error is shown in `message`, and the step is tried again.
        """
        try:
            safe = self._rpc.block_number() - max(self.config.confirmations, 1) + 1
            if safe < self._at.deploy_block:
                self.message = "waiting for the deployment to be deep enough"
                return False
            on_l1 = int(ROLLUP.read(self._rpc, self._at.rollup, "next_batch", tag=safe))
            self._walk_back()
            self._take_back(on_l1, safe)
            self._follow(on_l1, safe)
            is_level = self.batcher.cursor.batch_id == on_l1
            now = self.standing = standing(self._rpc, self._at, self.address)
            self._manager.poll()
            if now.leads and is_level:
                return standing(self._rpc, self._at, self.address, safe).leads
            self.message = self._wait(now, is_level)
        except LogLost:
            raise
        except (L1Error, LogError, sqlite3.Error, OSError) as error:
            if isinstance(error, LogError):  # the state is ahead of it
                self._run = self._recovered()
            if isinstance(error, ReorgTooDeep):  # its inbox messages are of another chain
                self._follower = self._new_follower()
                self._facts.forget()
            if str(error) != self.message:
                # An unreadable batch does not pass by itself: the operator has to know.
                level = logging.ERROR if isinstance(error, FollowerError) else logging.WARNING
                logger.log(level, "standby: %s", error)
            self.message = str(error)
        return False

    def close(self) -> None:
        """Closes the folder's files; a snapshot saves the next start the replay."""
        if self._unsaved:
            with contextlib.suppress(OSError):
                save(self._snapshots, self.state, self.log.end)
        self._manager.close()
        self.batcher.close()
        self._withdrawals.close()
        self.history.close()
        self.log.close()

    def _recovered(self) -> Execution:
        """Starts from the state in the folder."""
        history = self.history
        self._holds = True  # every signed record of the batch that is executed

        def genesis() -> State:
            return genesis_state(_domain(self._at), self.config.params)

        def recovered() -> State:
            history.align(self.log)
            return recover(self._snapshots, self.log, genesis(), history, self.log.verified())[0]

        try:
            state = recovered()
        except ReplayError:  # it has led, and a gateway sent it a forgery
            seq = self._recovery.forged(genesis())
            if seq is None:
                raise
            self._recovery.undo_forged(genesis(), seq)
            self._recovery.follow()
            state = recovered()

        def observe(raw: bytes, out: Outcome) -> None:
            history.ledger.apply(raw, out, state.globals.time)
            self._holds = self._holds and (out.reason is Reason.OK or not is_signed(raw))

        return Execution(state, self._facts, observe)

    def _new_follower(self) -> Follower:
        at = self._at
        return Follower(self._rpc, at.inbox, at.rollup, at.deploy_block, self.config.confirmations)

    def withdrawal(self, number: object) -> dict[str, Any]:
        """Proof of a withdrawal in a batch. Raises QueryError."""
        proof = self._withdrawals.proof(number) if isinstance(number, int) else None
        if proof is None:
            raise QueryError("number", "must be that of a withdrawal in a stored batch", number)
        return {**proof, "posted": True}

    # --- following --------------------------------------------------------------------------------

    def _walk_back(self) -> None:
        """Forgets read blocks that are no longer in the chain: others may be there now."""
        while self._read_to:
            number, block_hash = self._read_to[-1]
            block = self._rpc.block(number)
            if block is not None and block["hash"] == block_hash:
                return
            self._read_to.pop()

    def _take_back(self, on_l1: int, safe: int) -> None:
        """Removes batches that L1 does not have, or has rolled back; a replaced wrong batch is checked again."""
        wrong = self._wrong
        if wrong is not None:
            batch_id = wrong.fault.batch_id
            if batch_id >= on_l1 or self._on_l1(batch_id, safe)[0] != wrong.header_hash:
                logger.warning("standby: the wrong batch %d stands no more", batch_id)
                self._wrong = None
                self._read_to.clear()
        cursor = self.batcher.cursor
        level = min(cursor.batch_id, on_l1)
        while level > 1 and not self.batcher.is_same(level - 1, *self._on_l1(level - 1, safe)):
            level -= 1
        events = self._recovery.fresh(self._follower.roll_backs(safe))
        has_more = self.batcher.waiting() > 0
        if level == cursor.batch_id and not has_more and not events:
            return
        self._cut(level, events)

    def _cut(self, batch_id: int, events: Sequence[RolledBack]) -> None:
        lost = self._recovery.cut(batch_id, events)
        self._run = self._recovered()
        self._wrong = None
        self._read_to.clear()
        if lost:
            logger.warning("%d records from batch %d on are not on L1: they are cut off", lost, batch_id)

    def _follow(self, on_l1: int, safe: int) -> None:
        """Executes the batches up to block `safe`, up to the first wrong one; `on_l1`: the next id on L1."""
        if self._wrong is not None:
            return
        self._messages = self._follower.messages_after(0)
        end = self._rpc.block(safe)
        first = self._read_to[-1][0] + 1 if self._read_to else self._at.deploy_block
        for one in self._follower.batches(first, safe, self.batcher.cursor.batch_id):
            batch_id = self.batcher.cursor.batch_id
            if one.batch_id != batch_id or len(self._messages) < one.inbox_count:
                return  # the chain has changed during the query, or logs are still missing: the next step retries
            fault = self._run.execute(one, batch_id)
            if fault is not None:
                logger.critical("standby: %s: nothing is built on it", fault)
                self._wrong = _Wrong(one.header_hash, fault)
                self._run = self._recovered()
                return
            self._keep(one, self._run)
        if end is not None and (not self._read_to or self._read_to[-1][0] < safe):
            self._read_to.append((safe, str(end["hash"])))
        if self.batcher.cursor.batch_id < on_l1 and time.monotonic() >= self._read_again_s:
            self._read_again_s = time.monotonic() + READ_AGAIN_S
            self._read_to.clear()

    def _keep(self, one: PostedBatch, run: Execution) -> None:
        """Writes the log first: entries beyond the stored batches are removed at the next start, and followed again."""
        end = self.log.end
        ids = iter(ids_in(one.payload, one.segments, one.ticks))
        heads = [next(ids) if is_begun else b"" for is_begun in run.begun]
        entry = Entry(one.first_seq, one.time_s, one.post_root, run.segments, [], end + 1, self._holds, heads)
        self._holds = True
        self.history.write(self.history.ledger.take(), self.log.append(entry, end))
        self.log.tidy()
        self.batcher.adopt(
            Batch(
                batch_id=one.batch_id,
                pre_root=one.pre_root,
                post_root=one.post_root,
                segments=one.segments,
                records=one.records,
                first_seq=one.first_seq,
                time_s=one.time_s,
                inbox_count=one.inbox_count,
                inbox_hash=one.inbox_hash,
                work=one.work,
                tick=one.tick,
                ticks=one.ticks,
                payload=one.payload,
            ),
            one.header_hash,
        )
        self._withdrawals.prove(self.state, one.batch_id, one.post_root)
        self._unsaved += 1
        behind = self.state.globals.work - self._work_saved
        if self._unsaved >= self.config.snapshot_batches or behind >= self.config.snapshot_work:
            save(self._snapshots, self.state, self.log.end)
            self._unsaved, self._work_saved = 0, self.state.globals.work

    def _on_l1(self, batch_id: int, tag: int) -> tuple[bytes, bytes]:
        """Header hash and post-root of a batch on L1."""
        header_hash, post_root, _ = ROLLUP.read(self._rpc, self._at.rollup, "batch", batch_id, tag=tag)
        return bytes(header_hash), bytes(post_root)

    # --- taking over ------------------------------------------------------------------------------

    def _wait(self, now: Standing, is_level: bool) -> str:
        """Takes over when it is time; returns the message."""
        where = f"batch {self.batcher.cursor.batch_id - 1}"
        if self._wrong is not None:
            fault = self._wrong.fault
            return f"batch {fault.batch_id} is wrong ({fault.kind}): waiting for its roll-back"
        if not is_level:
            return f"following, at {where}"
        if now.leads:
            return f"leading from epoch {now.epoch} on, once that is deep enough"
        if not now.is_member:
            return f"following, at {where}; {self.address} is no member of the set: fairstrike sequencer join"
        left_s = now.takes_over_at - now.head_time_s
        if left_s > 0:
            who = "nobody leads" if now.leader == NOBODY else f"{now.leader} leads"
            return f"following, at {where}; {who}, {left_s} s of silence are left"
        self._claim.send(now)
        return f"taking over from {now.leader}"


def _domain(at: Deployment) -> bytes:
    return codec.domain_separator(at.chain_id, bytes.fromhex(at.rollup.removeprefix("0x")))
