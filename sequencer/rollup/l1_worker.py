"""The L1 side of the sequencer, on a thread of its own: posts stored batches, follows the inbox.

L1 may be slow or away; the engine never waits for it. What it brings (deposits, confirmed batches) is handed over as
plain data.
"""

import logging
import sqlite3
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sequencer.l1.deploy import Deployment
from sequencer.l1.errors import FollowerError, L1Error, RpcRejected
from sequencer.l1.fees import DEFAULT_CAPS, FeeCaps
from sequencer.l1.follower import Follower, InboxMessage, RolledBack
from sequencer.l1.heads import Heads
from sequencer.l1.inbox import Deadlines
from sequencer.l1.poster import Posted, Poster, PosterConfig, gas_of
from sequencer.l1.rpc import Rpc, to_int
from sequencer.l1.sequencers import CALL_GAS, NOBODY, ROLLUP, SEQUENCERS, Standing, leader, standing
from sequencer.l1.signing import Signer
from sequencer.l1.transport import without_secrets
from sequencer.l1.txmgr import Funds, TxConfig, TxManager
from sequencer.l1.txstore import State as TxState
from sequencer.log.interface import LogError
from sequencer.rollup.outbox import Outbox

DEVNET_CHAIN_ID: Final = 31_337
MEMBERS_S: Final = 10.0  # between readings of the whole set
BUSY_S: Final = 0.02  # between looks while something is on its way
BUSY_HEARING_S: Final = 0.25  # ... and new heads are told of
RESTART_FIRST_S: Final = 1.0
RESTART_MAX_S: Final = 5.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class L1Config:
    """`confirmations` before a deposit or a roll-back counts or a batch is settled.

    It is looked at L1 at each new head that the node tells of by `events` (`heads.events_url`), and every `poll_s`
    where it tells of none; where it does, four times as rarely, but every 2 s.

    `rebond`: when the bond was slashed and nobody leads, the sequencer's key bonds again by itself. `timeout_s`: for a
    whole answer of the node; a line that swallows bytes is noticed after it.
    """

    confirmations: int = 1
    poll_s: float = 0.5
    rebond: bool = False
    timeout_s: float = 6.0
    caps: FeeCaps = DEFAULT_CAPS
    events: str | None = None


@dataclass(frozen=True, slots=True)
class Notice:
    """Roll-backs that are deep enough, and all messages of the inbox that are."""

    events: list[RolledBack]
    inbox: list[bytes]


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
    """Runs on its own thread between `start` and `stop`. Handlers are called on that thread."""

    def __init__(
        self,
        url: str,
        deployment: Deployment,
        signer: Signer,
        folder: Path,
        config: L1Config,
        inbox_position: Callable[[], tuple[int, bytes]],
        on_messages: Callable[[list[InboxMessage]], None],
        on_posted: Callable[[list[Posted]], None],
        fresh: Callable[[list[RolledBack]], list[RolledBack]] = lambda events: events,
        on_rolled_back: Callable[[Notice], None] = lambda _notice: None,
        on_deposed: Callable[[str, bool], None] = lambda _why, _is_final: None,
        epoch: int = 0,
        on_l1_time: Callable[[int, int], None] = lambda _time_s, _ahead_max_s: None,
        verified: Callable[[], int] = lambda: 2**62,
    ) -> None:
        self._url = url
        self._on_l1_time = on_l1_time
        self._verified = verified  # the record before which every signature has been checked
        self.unverified = 0  # the batch that waits for that; 0: none
        self._head: tuple[int, float] | None = None  # time of L1's newest block, and when it was seen, wall
        self._drift_max_s: int | None = None
        self._funds: Funds | None = None
        self._queued = (0, 0)  # batches that are offered and not confirmed, and their bytes
        self._heard_s: float | None = None  # when L1 last said who leads, monotonic
        self._members_s = 0.0  # when the whole set was last read, monotonic
        self._deployment = deployment
        self._signer = signer
        self._folder = folder
        self._config = config
        self._outbox = Outbox(folder)
        self._inbox_position = inbox_position
        self._on_messages = on_messages
        self._on_posted = on_posted
        self._fresh = fresh
        self._on_rolled_back = on_rolled_back
        self._on_deposed = on_deposed
        self._deposed = ("", False)
        self._epoch = epoch
        self._told: list[RolledBack] = []  # roll-backs that wait for an answer
        self._refused = ""  # why there will be none
        self._deadlines: Deadlines | None = None
        self._seen_next = 0  # the highest batch id that L1 has asked for since the last answer
        self._gas_before = self._blob_gas_before = self._bytes_before = 0  # of posters of earlier epochs
        self._wake = threading.Event()
        self._heads = Heads(url, self._wake.set, config.events)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="l1", daemon=True)
        self.paused = False  # no batch is offered; deposits are still followed
        self.last_error = ""
        self.looks = 0  # at L1, that came to their end
        self.restarts = 0  # of the thread, after what nobody has foreseen
        self.posted = 0
        self.gas_used = 0
        self.blob_gas_used = 0
        self.bytes_posted = 0
        self.standing: Standing | None = None  # as last read
        self._stood_s = 0.0  # when that was, monotonic

    @property
    def next_on_l1(self) -> int:
        """The batch id that L1 asks for, as last seen; 0 before it was."""
        return self._seen_next

    @property
    def hears(self) -> bool:
        """Whether the node tells of new heads."""
        return self._heads.is_live

    def start(self) -> None:
        """Starts the thread, and the one that hears of new heads."""
        self._thread.start()
        self._heads.start()

    def stop(self) -> None:
        """Ends the thread after its present step."""
        self._ended.set()
        self._wake.set()
        self._heads.stop()
        if self._thread.is_alive():
            self._thread.join(timeout=30)

    def wake(self) -> None:
        """Looks now instead of at the next poll."""
        self._wake.set()

    def resume(self, epoch: int) -> None:
        """The roll-backs told of are answered: the batches that are stored now go out, as those of `epoch`."""
        self._gas_before, self._bytes_before = self.gas_used, self.bytes_posted
        self._blob_gas_before = self.blob_gas_used
        self._refused = ""
        self._epoch = epoch
        self.wake()

    def refuse(self, reason: str) -> None:
        """The roll-backs told of have no answer: nothing is posted any more, and `last_error` says why."""
        self._refused = reason
        self.wake()

    def _run(self) -> None:
        """Follows L1 until the end. What nobody has foreseen ends one life of this thread, loudly, and begins the next:
        all that it knows is on L1 and on the disk.
        """
        wait_s = RESTART_FIRST_S
        while not self._ended.is_set():
            began_s = time.monotonic()
            try:
                self._live()
            except Exception as error:  # noqa: BLE001  # whatever it is: nothing may be posted for want of a thread
                self.restarts += 1
                if time.monotonic() - began_s > RESTART_MAX_S:
                    wait_s = RESTART_FIRST_S
                text = without_secrets(repr(error), self._url)
                self.last_error = f"the L1 thread has failed ({text}) and starts again in {wait_s:.0f} s"
                where = without_secrets(traceback.format_exc(), self._url)
                logger.critical("%s\n%s", self.last_error, where)
                self._ended.wait(wait_s)
                wait_s = min(2 * wait_s, RESTART_MAX_S)

    def _live(self) -> None:
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

    def _open(self, rpc: Rpc) -> TxManager | None:
        """The transaction manager, once its store can be had; None when the end comes first."""
        config = TxConfig.under(self._config.caps, self._config.confirmations)
        while not self._ended.is_set():
            try:
                return TxManager(rpc, self._signer, self._folder / "l1.sqlite", config)
            except (sqlite3.Error, OSError) as error:
                self._failed(error)
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
            self._post(rpc, manager, follower, self._epoch)

    def _post(self, rpc: Rpc, manager: TxManager, follower: Follower, epoch: int) -> None:
        """Follows and posts until the next roll-back has been answered."""
        config = PosterConfig(confirmations=self._config.confirmations, in_blobs=self._deployment.in_blobs)
        poster = Poster(rpc, manager, self._deployment.rollup, config, epoch=epoch)
        offered: int | None = None
        self._told, self._seen_next, self._stood_s = [], 0, 0.0
        while not self._ended.is_set() and self._epoch == epoch:
            try:
                self._tell_time(rpc)
                why_not = self._why_not(rpc, manager, epoch)
                if offered is None or (poster.status().next_batch or 0) < self._seen_next or self._told:
                    self._look(follower, rpc)
                if self._told and not self._refused:
                    self.last_error = (
                        f"batch {self._told[0].batch_id} was rolled back: records are executed again"
                    )
                    manager.poll()
                    self.looks += 1
                    self._pause(busy=True)
                    continue
                messages = follower.messages_after(*self._inbox_position())
                if messages:
                    self._on_messages(messages)
                if self._refused:
                    self.last_error = self._refused
                    manager.poll()
                    self.looks += 1
                    self._pause(busy=False)
                    continue
                if offered is None:
                    offered = self._seen_next = poster.next_needed()
                    if offered > 1:  # what an earlier run has posted
                        self._on_posted([Posted(offered - 1, None, None, None)])
                if not self.paused and not why_not:
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
                self.last_error = why_not or status.reason
            except (
                L1Error,
                LogError,
                sqlite3.Error,
                OSError,
            ) as error:  # a full disk passes, as an outage of L1 does
                self._failed(error)
                self.looks += 1
                continue
            self.looks += 1
            self._pause(busy)

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
        if why != self.last_error:
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
            self._on_rolled_back(notice)

    def _why_not(self, rpc: Rpc, manager: TxManager, epoch: int) -> str:
        """Why L1 takes no batch of ours; empty when it does. If that is wanted, bonds again after a roll-back."""
        now = self._standing(rpc)
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
        if self._head is None or self._head[0] != time_s:
            self._head = time_s, time.time()
        said = [to_int(one["timestamp"]) for one in pending if isinstance(one, dict)]
        self._on_l1_time(max(time_s, *said) if said else time_s, self._drift_max_s)

    def head_age_s(self) -> int | None:
        """How old L1's newest block is by the machine's clock, seconds; None before one was seen."""
        return None if self._head is None else int(time.time()) - self._head[0]

    def can_pay(self, unbatched_bytes: int) -> tuple[int | None, int]:
        """What the key has, None before that is known, and what posting all that waits and a batch more may cost, wei;
        of blobs, without their own gas.
        """
        funds, (queued, queued_bytes) = self._funds, self._queued
        if funds is None:
            return None, 0
        return funds.balance, funds.gas_price * gas_of(
            queued + 1, queued_bytes + unbatched_bytes, self._deployment.in_blobs
        )

    def _standing(self, rpc: Rpc) -> Standing:
        """As last read, or read again when that is a poll ago or was not to our liking; the whole set now and then."""
        now = self.standing
        if now is not None and now.leads and time.monotonic() - self._members_s < MEMBERS_S:
            if time.monotonic() - self._stood_s < self._config.poll_s:
                return now
            if leader(rpc, self._deployment) == now.address:
                self._stood_s = self._heard_s = time.monotonic()
                return now
        return self._stand(rpc)

    def _stand(self, rpc: Rpc) -> Standing:
        now = self.standing = standing(rpc, self._deployment, self._signer.address)
        self._stood_s = self._members_s = time.monotonic()
        why, is_final = deposed(rpc, self._deployment, now, self._config.confirmations)
        if not why:  # it leads, or nobody does and it may again
            self._heard_s = self._stood_s
        if (why, is_final) != self._deposed:
            self._deposed = why, is_final
            logger.warning("L1: %s", why or "this sequencer leads again")
            self._on_deposed(why, is_final)
        return now

    def unseen_s(self) -> float | None:
        """For how long L1 has not said that this sequencer leads, or may again; None: not since the start."""
        return None if self._heard_s is None else time.monotonic() - self._heard_s

    def _failed(self, error: Exception) -> None:
        """Shows the error and waits for what may pass."""
        if str(error) != self.last_error:
            logger.log(
                logging.ERROR if isinstance(error, FollowerError) else logging.WARNING, "L1: %s", error
            )
        self.last_error = str(error)
        self._ended.wait(min(max(self._config.poll_s, 0.05), 1.0))

    def _offer(self, poster: Poster, first_id: int) -> int:
        """Offers stored batches from `first_id` on; the id to go on with."""
        self.unverified = 0
        for stored in self._outbox.batches(first_id):
            if stored.first_seq + stored.records > self._verified():
                self.unverified = stored.batch_id
                break
            if not poster.offer(stored, self._outbox.epoch_of(stored.batch_id)):
                break
            first_id = stored.batch_id + 1
        return first_id

    def _count(self, posted: list[Posted], poster: Poster) -> None:
        status = poster.status()
        self.posted = status.last_confirmed
        self.gas_used = self._gas_before + status.gas_used
        self.bytes_posted = self._bytes_before + status.bytes_posted
        self.blob_gas_used = self._blob_gas_before + status.blob_gas_used
        self._on_posted(posted)
