"""The L1 side of the sequencer: posts stored batches, follows the inbox. Runs in a process of its own (l1_process.py).

L1 may be slow or away; the engine never waits for it. All that the worker knows it has from L1, from the folder, and
from the sequencer's last `Now`: so it may end at any moment, and another goes on.
"""

import contextlib
import logging
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from sequencer.l1.deploy import Deployment
from sequencer.l1.errors import FollowerError, L1Error, RpcRejected
from sequencer.l1.follower import Follower, RolledBack
from sequencer.l1.heads import Heads
from sequencer.l1.inbox import Deadlines
from sequencer.l1.poster import Posted, Poster, PosterConfig
from sequencer.l1.rpc import Rpc, to_int
from sequencer.l1.sequencers import CALL_GAS, NOBODY, ROLLUP, SEQUENCERS, Standing, leader, standing
from sequencer.l1.signing import Signer
from sequencer.l1.txmgr import Funds, TxConfig, TxManager
from sequencer.l1.txstore import State as TxState
from sequencer.log.index import answered
from sequencer.log.interface import LogError
from sequencer.rollup.l1_messages import (
    MESSAGES_MAX,
    BatchesPosted,
    Begin,
    InboxPart,
    IsDeposed,
    L1Time,
    Look,
    Messages,
    Notice,
    Now,
    Report,
    SetSeen,
    Undone,
)
from sequencer.rollup.outbox import Outbox

DEVNET_CHAIN_ID: Final = 31_337
MEMBERS_S: Final = 10.0  # between readings of the whole set
BUSY_S: Final = 0.02  # between looks while something is on its way
BUSY_HEARING_S: Final = 0.25  # ... and new heads are told of

logger = logging.getLogger(__name__)


def look(
    follower: Follower, rpc: Rpc, confirmations: int, fresh: Callable[[list[RolledBack]], list[RolledBack]]
) -> Notice | None:
    """What the chain says of roll-backs that `fresh` does not know. Raises L1Error."""
    head = rpc.block_number()
    events = fresh(follower.roll_backs(min(head, max(0, head - confirmations + 1))))
    return Notice(events, [one.record for one in follower.messages_after(0)]) if events else None


def deposed(rpc: Rpc, at: Deployment, now: Standing, confirmations: int) -> tuple[str, bool]:
    """Why somebody who led does not any more, empty if there is no reason; whether that is deep enough to last.

    A set that is empty waits for whoever joins: that may be the same again.
    """
    if now.leads or (now.leader == NOBODY and not now.members):
        return "", False
    if now.leader == NOBODY:
        return "the bond was slashed, and the next of the set may lead", False
    safe = max(at.deploy_block, rpc.block_number() - max(confirmations, 1) + 1)
    lasts = leader(rpc, at, safe) not in (now.address, NOBODY)
    return f"{now.leader} leads in epoch {now.epoch}", lasts


class Deposed(Exception):
    """Another sequencer leads: what this one has not posted is of no effect any more."""


class L1Worker:
    """`run` follows L1 until `end`; `tell` and `end` are called from another thread. `report` gets what there is to
    say, on the thread of `run`.
    """

    def __init__(self, begin: Begin, report: Callable[[Report], None]) -> None:
        self._url = begin.url
        self._deployment = begin.deployment
        self._signer = Signer(begin.secret)
        self._folder = Path(begin.folder)
        self._config = begin.config
        self._report = report
        self._now = begin.now
        self._outbox = Outbox(self._folder)
        self._refused = begin.now.refused  # why the roll-backs reported have no answer
        self._again, self._next_message = begin.now.again, begin.now.inbox_count
        self._head_time_s: int | None = None  # of L1's newest block
        self._drift_max_s: int | None = None
        self._funds: Funds | None = None
        self._queued = (0, 0)  # batches that are offered and not confirmed, and their bytes
        self._heard_s: float | None = None  # when L1 last said who leads, monotonic
        self._members_s = 0.0  # when the whole set was last read, monotonic
        self._standing: Standing | None = None  # as last read
        self._stood_s = 0.0  # when that was, monotonic
        self._deposed: tuple[str, bool] | None = None  # as last reported
        self._told: list[RolledBack] = []  # roll-backs that wait for an answer
        self._unverified = 0  # the batch that waits for its signatures' check; 0: none
        self._deadlines: Deadlines | None = None
        self._seen_next = 0  # the highest batch id that L1 has asked for since the last answer
        self._gas_before = self._blob_gas_before = self._bytes_before = 0  # of posters of earlier epochs
        self._gas_used = self._blob_gas_used = self._bytes_posted = self._posted = 0
        self._wake = threading.Event()
        self._ended = threading.Event()
        self._heads = Heads(self._url, self._wake.set, self._config.events)
        self._last_error = ""
        self._looks = 0  # at L1, that came to their end
        self._began_at = self._heard = 0  # the last `Now` when this look began, and when the last one did
        self._shown = Look()

    def tell(self, now: Now) -> None:
        """The sequencer is there now."""
        self._now, self._refused = now, now.refused
        if now.wake:
            self._wake.set()

    def end(self) -> None:
        """Ends `run` after its present step."""
        self._ended.set()
        self._wake.set()

    def run(self) -> None:
        """Follows L1 until the end. Raises what nobody has foreseen: then another process is to begin."""
        self._heads.start()
        rpc = Rpc(self._url, timeout_s=self._config.timeout_s)
        try:
            manager = self._open(rpc)
            if manager is not None:
                try:
                    self._follow(rpc, manager)
                finally:
                    manager.close()
        finally:
            rpc.close()
            self._heads.stop()

    def _open(self, rpc: Rpc) -> TxManager | None:
        """The transaction manager, once its store can be had; None when the end comes first."""
        config = TxConfig.under(self._config.caps, self._config.confirmations)
        while not self._ended.is_set():
            try:
                return TxManager(rpc, self._signer, self._folder / "l1.sqlite", config)
            except (sqlite3.Error, OSError) as error:
                self._failed(error)
                self._show()
                self._ended.wait(min(max(self._config.poll_s, 0.05), 1.0))
        return None

    def _follow(self, rpc: Rpc, manager: TxManager) -> None:
        follower = Follower(
            rpc,
            self._deployment.inbox,
            self._deployment.rollup,
            self._deployment.deploy_block,
            self._config.confirmations,
        )
        while not self._ended.is_set():
            self._post(rpc, manager, follower, self._now.epoch)

    def _post(self, rpc: Rpc, manager: TxManager, follower: Follower, epoch: int) -> None:
        """Follows and posts until the next roll-back has been answered."""
        config = PosterConfig(confirmations=self._config.confirmations, in_blobs=self._deployment.in_blobs)
        poster = Poster(rpc, manager, self._deployment.rollup, config, epoch=epoch)
        offered: int | None = None
        self._told, self._seen_next, self._stood_s = [], 0, 0.0
        self._gas_before, self._bytes_before = self._gas_used, self._bytes_posted
        self._blob_gas_before = self._blob_gas_used
        while not self._ended.is_set() and self._now.epoch == epoch:
            self._began_at = self._now.number
            try:
                self._tell_time(rpc)
                why_not = self._why_not(rpc, manager, epoch)
                if offered is None or (poster.status().next_batch or 0) < self._seen_next or self._told:
                    self._look(follower, rpc)
                if self._told and not self._refused:
                    self._last_error = (
                        f"batch {self._told[0].batch_id} was rolled back: records are executed again"
                    )
                    manager.poll()
                    self._looked()
                    self._pause(busy=True)
                    continue
                self._take_messages(follower)
                if self._refused:
                    self._last_error = self._refused
                    manager.poll()
                    self._looked()
                    self._pause(busy=False)
                    continue
                if offered is None:
                    offered = self._seen_next = poster.next_needed()
                    if offered > 1:  # what an earlier run has posted
                        self._report(BatchesPosted([Posted(offered - 1, None, None, None)]))
                if not self._now.paused and not why_not:
                    offered = self._offer(poster, offered)
                if poster.status().queued:
                    poster.hold = why_not or self._too_late(follower, rpc)
                posted = poster.step()
                status = poster.status()
                self._funds, self._queued = manager.funds(), (status.queued, status.queued_bytes)
                self._seen_next = max(self._seen_next, status.next_batch or 0)
                if posted:
                    self._count(posted, poster)
                busy = bool(posted) or status.queued > 0
                self._last_error = why_not or status.reason
            except (
                L1Error,
                LogError,
                sqlite3.Error,
                OSError,
            ) as error:  # a full disk passes, as an outage of L1 does
                self._failed(error)
                self._looked()
                self._ended.wait(min(max(self._config.poll_s, 0.05), 1.0))
                continue
            self._looked()
            self._pause(busy)

    def _looked(self) -> None:
        """A look at L1 has come to its end."""
        self._looks += 1
        self._heard = self._began_at
        self._show()

    def _show(self) -> None:
        """Reports where the worker stands, when that is new."""
        funds, standing_ = self._funds, self._standing
        shown = Look(
            heard=self._heard,
            looks=self._looks,
            last_error=self._last_error,
            standing=None if standing_ is None else SetSeen.of(standing_),
            heard_s=self._heard_s,
            head_time_s=self._head_time_s,
            next_on_l1=self._seen_next,
            hears=self._heads.is_live,
            unverified=self._unverified,
            queued=self._queued[0],
            queued_bytes=self._queued[1],
            balance=None if funds is None else str(funds.balance),
            gas_price="0" if funds is None else str(funds.gas_price),
            posted=self._posted,
            gas_used=self._gas_used,
            blob_gas_used=self._blob_gas_used,
            bytes_posted=self._bytes_posted,
        )
        if shown != self._shown:
            self._shown = shown
            self._report(shown)

    def _take_messages(self, follower: Follower) -> None:
        """Reports the inbox's messages from where the log, or the last report, ends."""
        now = self._now
        messages = follower.messages_after(now.inbox_count, now.inbox_hash)
        if now.again != self._again:
            self._again, self._next_message = now.again, now.inbox_count
        fresh = [one for one in messages if one.index >= self._next_message]
        for start in range(0, len(fresh), MESSAGES_MAX):
            self._report(Messages(fresh[start : start + MESSAGES_MAX]))
        if fresh:
            self._next_message = fresh[-1].index + 1

    def _too_late(self, follower: Follower, rpc: Rpc) -> str:
        """Why a batch sent now could be slashed for an inbox message that waits; empty when it cannot.

        A batch has half the time between deadline and fraud to be mined: the rest of it is the sequencer's own delay.
        """
        waiting = follower.messages_after(int(ROLLUP.read(rpc, self._deployment.rollup, "tip")[2]))
        if not waiting:
            return ""
        if self._deadlines is None:
            self._deadlines = Deadlines(rpc, self._deployment)
        block = rpc.block("latest")
        at_s = (to_int(block["timestamp"]) if block else 0) + self._deadlines.delay_min_s // 2
        rolled_back_at_s = int(ROLLUP.read(rpc, self._deployment.rollup, "rolled_back_at"))
        late = self._deadlines.first_late(waiting, at_s, rolled_back_at_s)
        if late is None:
            return ""
        why = (
            f"inbox message {late.index} was to be taken by {late.deadline_s}: a batch posted now could be slashed, "
            "and anybody may freeze the rollup; nothing is posted any more"
        )
        if why != self._last_error:
            logger.critical("L1: %s", why)
        return why

    def _pause(self, busy: bool) -> None:
        """Until a new head, or until it is time to look all the same; heads that rush in are seen together."""
        began_s, poll_s = time.monotonic(), self._config.poll_s
        if busy:
            poll_s = min(BUSY_HEARING_S, poll_s) if self._heads.is_live else BUSY_S
        self._wake.wait(poll_s if busy else self._heads.look_s(poll_s))
        self._ended.wait(max(0.0, began_s + BUSY_S - time.monotonic()))
        self._wake.clear()

    def _look(self, follower: Follower, rpc: Rpc) -> None:
        """Tells of roll-backs once, and again when there are more of them."""
        notice = look(follower, rpc, self._config.confirmations, self._fresh)
        if notice is not None and notice.events != self._told:
            self._told, self._refused = notice.events, ""
            self._stand(rpc)
            for start in range(0, len(notice.inbox), MESSAGES_MAX):
                self._report(InboxPart(notice.inbox[start : start + MESSAGES_MAX], []))
            self._report(InboxPart([], [Undone.of(one) for one in notice.events]))

    def _fresh(self, events: list[RolledBack]) -> list[RolledBack]:
        """Those that the log has not been rewritten for."""
        if not events:
            return events
        with contextlib.closing(sqlite3.connect(self._folder / "log.sqlite")) as db:
            known = answered(db)
        return [one for one in events if one.key not in known]

    def _why_not(self, rpc: Rpc, manager: TxManager, epoch: int) -> str:
        """Why L1 takes no batch of ours; empty when it does. If that is wanted, bonds again after a roll-back."""
        now = self._as_leader(rpc)
        if now.leads:
            return ""
        missing = now.bond_min_wei - now.bond_wei
        if now.leader == NOBODY and missing > 0:
            if self._config.rebond and epoch and manager.get(f"rebond-{epoch}") is None:
                data = SEQUENCERS.encode("join")
                sent = manager.send(f"rebond-{epoch}", self._deployment.sequencers, data, missing, CALL_GAS)
                logger.warning("the bond is made up with %d wei: %s", missing, TxState(sent.state).value)
            return f"the bond is {now.bond_wei} of {now.bond_min_wei} wei: nothing is posted"
        return f"{now.leader} leads in epoch {now.epoch}: nothing is posted"

    def _tell_time(self, rpc: Rpc) -> None:
        """Hands over L1's time. A development chain may make no block for long: the time of its next one counts."""
        if self._drift_max_s is None:
            self._drift_max_s = int(ROLLUP.read(rpc, self._deployment.rollup, "drift_max_s"))
        tags = ("latest", "pending") if self._deployment.chain_id == DEVNET_CHAIN_ID else ("latest",)
        newest, *pending = rpc.batch([("eth_getBlockByNumber", (tag, False)) for tag in tags])
        if isinstance(newest, RpcRejected):
            raise newest
        time_s = to_int(newest["timestamp"])
        self._heads.saw(newest["hash"])
        self._head_time_s = time_s
        said = [to_int(one["timestamp"]) for one in pending if isinstance(one, dict)]
        self._report(L1Time(max(time_s, *said) if said else time_s, self._drift_max_s))

    def _as_leader(self, rpc: Rpc) -> Standing:
        """As last read, or read again when that is a poll ago or was not to our liking; the whole set now and then."""
        now = self._standing
        if now is not None and now.leads and time.monotonic() - self._members_s < MEMBERS_S:
            if time.monotonic() - self._stood_s < self._config.poll_s:
                return now
            if leader(rpc, self._deployment) == now.address:
                self._stood_s = self._heard_s = time.monotonic()
                self._show()
                return now
        return self._stand(rpc)

    def _stand(self, rpc: Rpc) -> Standing:
        now = self._standing = standing(rpc, self._deployment, self._signer.address)
        self._stood_s = self._members_s = time.monotonic()
        why, is_final = deposed(rpc, self._deployment, now, self._config.confirmations)
        if not why:  # it leads, or nobody does and it may again
            self._heard_s = self._stood_s
        if (why, is_final) != self._deposed:
            if why or self._deposed is not None:
                logger.warning("L1: %s", why or "this sequencer leads again")
            self._deposed = why, is_final
            self._report(IsDeposed(why, is_final))
        self._show()
        return now

    def _failed(self, error: Exception) -> None:
        """Notes what may pass."""
        if str(error) != self._last_error:
            logger.log(
                logging.ERROR if isinstance(error, FollowerError) else logging.WARNING, "L1: %s", error
            )
        self._last_error = str(error)

    def _offer(self, poster: Poster, first_id: int) -> int:
        """Offers stored batches from `first_id` on; the id to go on with."""
        self._unverified = 0
        for stored in self._outbox.batches(first_id):
            if stored.first_seq + stored.records > self._now.verified:
                self._unverified = stored.batch_id
                break
            if not poster.offer(stored, self._outbox.epoch_of(stored.batch_id)):
                break
            first_id = stored.batch_id + 1
        return first_id

    def _count(self, posted: list[Posted], poster: Poster) -> None:
        status = poster.status()
        self._posted = status.last_confirmed
        self._gas_used = self._gas_before + status.gas_used
        self._bytes_posted = self._bytes_before + status.bytes_posted
        self._blob_gas_used = self._blob_gas_before + status.blob_gas_used
        self._report(BatchesPosted(posted))
