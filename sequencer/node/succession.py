"""A member of the set that follows the stream of the member that leads, and goes on from its last receipted tick.

Without the stream a standby (standby.py) knows what L1 has, and what the leader had acknowledged and not posted is lost
to the traders, who have its bond. With the stream the ticks are here: when L1 gives this member the lead, it posts them
under their own headers, so that every receipt is honoured, and goes on behind them. What the stream says counts only
as far as it agrees with L1, and nothing in it is believed: every record is executed, every signer recovered.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from typing import Final

from sequencer.l1.errors import L1Error
from sequencer.l1.rpc import Rpc
from sequencer.l1.sequencers import ROLLUP, standing
from sequencer.l1.signing import Signer
from sequencer.l1.txmgr import TxConfig, TxManager
from sequencer.log.interface import LogError
from sequencer.log.jetstream import Stream
from sequencer.log.jetstream_config import stream_name
from sequencer.log.replicated import catch_up, compare
from sequencer.log.sqlite import LOG_FILE, SqliteLog
from sequencer.node.claim import Claim
from sequencer.node.following import ClusterConfig, Following
from sequencer.node.service import Service
from sequencer.node.settings import ServiceConfig
from sequencer.protocol import codec

LOOK_S: Final = 1.0  # between looks at L1

logger = logging.getLogger(__name__)


class NotOfL1(Exception):
    """The stream that was followed is not what the leader has posted."""


class Succession(Following):
    """Follows until L1 gives this member the lead; claims it when the leader there has been silent for long enough."""

    has_leaders_key = False

    def __init__(self, service: Service, stream: Stream, config: ClusterConfig, signer: Signer) -> None:
        super().__init__(service, stream, config, lambda: None)
        self._signer = signer
        self._leads = False

    async def ask(self) -> None:
        """Looks at L1 from time to time."""
        of = self.service.config
        assert of.deployment is not None
        with contextlib.closing(Rpc(of.l1_url, timeout_s=of.l1.timeout_s)) as rpc:
            how = TxConfig.under(of.l1.caps, of.l1.confirmations)
            manager = await asyncio.to_thread(TxManager, rpc, self._signer, of.folder / "l1.sqlite", how)
            claim = Claim(manager, of.deployment)
            try:
                while self.standing is None:
                    try:
                        await asyncio.to_thread(self._look, rpc, manager, claim)
                    except L1Error as error:
                        logger.warning("L1: %s", error)
                    await asyncio.sleep(0 if self.standing is not None else LOOK_S)
            finally:
                await asyncio.to_thread(manager.close)
        self._leads = True  # and the transactions' store is free for the L1 process

    def _look(self, rpc: Rpc, manager: TxManager, claim: Claim) -> None:
        """Sees who leads; claims the lead when it is time. Raises L1Error."""
        of = self.service.config
        at = of.deployment
        assert at is not None
        asked_s = time.monotonic()
        now = standing(rpc, at, self._signer.address)
        drift_max_s = int(ROLLUP.read(rpc, at.rollup, "drift_max_s"))
        manager.poll()
        self.service.clock.see_l1(now.head_time_s, drift_max_s)
        if now.leads:
            safe = max(at.deploy_block, rpc.block_number() - max(of.l1.confirmations, 1) + 1)
            if standing(rpc, at, self._signer.address, safe).leads:
                self.standing, self.l1_heard_s = now, asked_s
        elif now.is_member and now.head_time_s >= now.takes_over_at:
            claim.send(now)

    def may_lead(self) -> bool:
        """Whether L1 says so, and all that has come from the stream is executed."""
        return self._leads and self.is_idle

    async def take_over(self) -> bool:
        """Checks the batches of the stream against L1's. Raises NotOfL1."""
        await asyncio.to_thread(self._compare)
        self.service.term = 0
        return True

    def _compare(self) -> None:
        of, batcher = self.service.config, self.service.batcher
        at = of.deployment
        assert at is not None
        with contextlib.closing(Rpc(of.l1_url, timeout_s=of.l1.timeout_s)) as rpc:
            last = int(ROLLUP.read(rpc, at.rollup, "next_batch")) - 1
            if not last:
                return
            header_hash, root, _ = ROLLUP.read(rpc, at.rollup, "batch", last)
        if last >= batcher.cursor.batch_id or not batcher.is_same(last, bytes(header_hash), bytes(root)):
            raise NotOfL1(
                f"batch {last} on L1 is not what the stream {self.stream.name} has led to: start it with --standby, "
                "which follows L1 alone"
            )


async def succeed(
    of: ServiceConfig,
    config: ClusterConfig,
    new_service: Callable[[SqliteLog], Service],
    sockets: tuple[str, ...],
    signer: Signer,
    stop: asyncio.Event,
) -> None:
    """Follows another member's stream until `stop`, or until this member leads; then leads until `stop`.

    Raises what ended the service, ReplayError when the stream's records do not give its roots, NotOfL1.
    """
    stream = Stream(config.servers, stream_name(codec.domain_separator(*of.signed_under)))
    try:
        log = await asyncio.to_thread(_opened, of, stream)
        service = await asyncio.to_thread(new_service, log)
        try:
            await service.start(*sockets)
            following = Succession(service, stream, config, signer)
            if not await following.run(stop):
                return
            following.lead()
            logger.warning(
                "this member leads in epoch %d, from record %d on", service.epoch, service.state.globals.seq
            )
            await service.serve(stop)
        finally:
            await service.stop()
        if service.failure is not None:
            raise service.failure
    finally:
        await asyncio.to_thread(stream.close)


def _opened(of: ServiceConfig, stream: Stream) -> SqliteLog:
    """The member's log, level with the stream if that answers. Raises LogError when it is another log."""
    log = SqliteLog(of.folder / LOG_FILE)
    try:
        try:
            stream.open(create=False)
        except LogError as error:
            logger.warning("the stream: %s: going on with what is here", error)
            return log
        compare(log, stream)
        catch_up(log, stream)
    except BaseException:
        log.close()
        raise
    return log
