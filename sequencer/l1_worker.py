"""The L1 side of the sequencer, on a thread of its own: posts stored batches, follows the inbox.

L1 may be slow or away; the engine never waits for it. What it brings (deposits, confirmed batches) is handed over as
plain data.
"""

import logging
import sqlite3
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sequencer.batcher import read_stored
from sequencer.l1.deploy import Deployment
from sequencer.l1.errors import L1Error
from sequencer.l1.follower import Follower, InboxMessage
from sequencer.l1.poster import Batch, Posted, Poster, PosterConfig
from sequencer.l1.rpc import Rpc
from sequencer.l1.signing import Signer
from sequencer.l1.txmgr import TxConfig, TxManager

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class L1Config:
    """`confirmations` before a deposit counts or a batch is settled; `poll_s` between looks."""

    confirmations: int = 1
    poll_s: float = 0.5


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
    ) -> None:
        self._url = url
        self._deployment = deployment
        self._signer = signer
        self._folder = folder
        self._config = config
        self._inbox_position = inbox_position
        self._on_messages = on_messages
        self._on_posted = on_posted
        self._wake = threading.Event()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="l1", daemon=True)
        self.paused = False  # no batch is offered; deposits are still followed
        self.last_error = ""
        self.posted = 0
        self.gas_used = 0
        self.bytes_posted = 0

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread after its present step."""
        self._ended.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(timeout=30)

    def wake(self) -> None:
        """Looks now instead of at the next poll."""
        self._wake.set()

    def _run(self) -> None:
        rpc = Rpc(self._url)
        try:
            manager = self._open(rpc)
            if manager is not None:
                try:
                    self._follow(rpc, manager)
                finally:
                    manager.close()
        except Exception as error:
            self.last_error = f"the L1 thread has ended: {error!r}"
            logger.critical(self.last_error, exc_info=error)
            raise
        finally:
            rpc.close()

    def _open(self, rpc: Rpc) -> TxManager | None:
        """The transaction manager, once its store can be had; None when the end comes first."""
        config = TxConfig(confirmations=self._config.confirmations)
        while not self._ended.is_set():
            try:
                return TxManager(rpc, self._signer, self._folder / "l1.sqlite", config)
            except (sqlite3.Error, OSError) as error:
                self._failed(error)
        return None

    def _follow(self, rpc: Rpc, manager: TxManager) -> None:
        confirmations = self._config.confirmations
        poster = Poster(rpc, manager, self._deployment.rollup, PosterConfig(confirmations=confirmations))
        follower = Follower(
            rpc,
            self._deployment.inbox,
            self._deployment.rollup,
            self._deployment.deploy_block,
            confirmations,
        )
        offered: int | None = None
        while not self._ended.is_set():
            try:
                count, running = self._inbox_position()
                messages = follower.messages_after(count, running)
                if messages:
                    self._on_messages(messages)
                if offered is None:
                    offered = poster.next_needed()
                    if offered > 1:  # what an earlier run has posted
                        self._on_posted([Posted(offered - 1, None, None, None)])
                if not self.paused:
                    offered = self._offer(poster, offered)
                posted = poster.step()
                if posted:
                    self._count(posted, poster)
                busy = bool(posted) or poster.status().queued > 0
                self.last_error = poster.status().reason
            except (L1Error, sqlite3.Error, OSError) as error:  # a full disk passes, as an outage of L1 does
                self._failed(error)
                continue
            self._wake.wait(0.02 if busy else self._config.poll_s)
            self._wake.clear()

    def _failed(self, error: Exception) -> None:
        """Shows the error and waits for what may pass."""
        if str(error) != self.last_error:
            logger.warning("L1: %s", error)
        self.last_error = str(error)
        self._ended.wait(min(max(self._config.poll_s, 0.05), 1.0))

    def _offer(self, poster: Poster, first_id: int) -> int:
        """Offers stored batches from `first_id` on; the id to go on with."""
        for stored in read_stored(self._folder / "batches.sqlite", first_id):
            if not poster.offer(
                Batch(
                    batch_id=stored.batch_id,
                    post_root=stored.post_root,
                    segments=stored.segments,
                    records=stored.records,
                    first_seq=stored.first_seq,
                    time_s=stored.time_s,
                    inbox_count=stored.inbox_count,
                    payload=stored.payload,
                )
            ):
                break
            first_id = stored.batch_id + 1
        return first_id

    def _count(self, posted: list[Posted], poster: Poster) -> None:
        status = poster.status()
        self.posted = status.last_confirmed
        self.gas_used = status.gas_used
        self.bytes_posted = status.bytes_posted
        self._on_posted(posted)
