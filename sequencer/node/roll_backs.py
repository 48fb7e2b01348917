"""Recovery from a batch that L1 has rolled back, and from a forged record.

Both re-execute the log. `Recovery` (rollup/rollback.py) rewrites the stores; this module decides when, and updates the
rest of the process.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from sequencer.api.ipc import Connection
from sequencer.engine.engine import ReplayError
from sequencer.genesis import genesis_state
from sequencer.l1.errors import L1Error
from sequencer.l1.follower import Follower, RolledBack
from sequencer.l1.rpc import Rpc
from sequencer.log.interface import LogError, LogLost
from sequencer.log.sqlite import SqliteLog
from sequencer.node.pace import Pace
from sequencer.node.settings import ServiceConfig
from sequencer.protocol.constants import Kind
from sequencer.protocol.state import State
from sequencer.rollup.l1_messages import Notice
from sequencer.rollup.l1_worker import look
from sequencer.rollup.rollback import Recovery, Report
from sequencer.rollup.vouched import Claim

FORGED_SHOWN = 16  # the last ones, in the status

logger = logging.getLogger(__name__)


class RollBacks:
    """Recovers from L1's roll-backs and from forged signatures, between two ticks.

    `take_up(state, report)` replaces the process's state by that of the rewritten log. `report`: of the last recovery
    since the start. `forged`: the last records that a gateway vouched for and nobody had signed.
    """

    def __init__(
        self,
        config: ServiceConfig,
        domain: bytes,
        log: SqliteLog,
        recovery: Recovery,
        pace: Pace,
        report: Report | None,
        take_up: Callable[[State, Report], Awaitable[None]],
    ) -> None:
        self.report = report
        self.forged: list[dict[str, Any]] = []
        self.notice: Notice | None = None  # of L1, not answered yet
        self.is_running = False
        self._config = config
        self._domain = domain
        self._log = log
        self._recovery = recovery
        self._pace = pace
        self._take_up = take_up
        self._forged_seq: int | None = None  # of the first that is still in the log

    @property
    def why(self) -> str:
        """Why no order is accepted meanwhile; empty when orders are."""
        if not self.is_running and self._forged_seq is None:
            return ""
        what = "a batch was rolled back" if self._forged_seq is None else "a signature was forged"
        return f"{what}, and what came after it is executed again"

    def note(self, notice: Notice) -> None:
        """Notes a roll-back on L1."""
        self.notice = notice

    def is_due(self) -> bool:
        """Whether a re-execution is to be run or completed."""
        return self.notice is not None or self.is_running or self._forged_seq is not None

    async def run(self) -> None:
        """Re-executes everything after the last remaining batch, or after a forgery, and continues from there."""
        self.is_running = True
        notice, self.notice = self.notice, None
        events = self._recovery.fresh(notice.events) if notice else []
        forged = self._forged_seq
        if (notice and events) or forged is not None:
            await self._pace.snapshots.end()  # of what is removed
            try:
                state, report = await asyncio.to_thread(self._execute, notice, events, forged)
            except ReplayError as error:
                if not events or self._pace.worker is None:
                    raise
                logger.critical("L1: %s", error)
                self._pace.worker.refuse(str(error))
                self.is_running = False
                return
            except LogLost:
                raise
            except LogError as error:
                self.notice = notice
                raise OSError(error.reason) from error
            self._forged_seq = None
            await self._take_up(state, report)
            self.report = report
        last = self._log.rolled_back()
        if (events or forged is not None or self._recovery.is_half) and last is not None:
            self._recovery.follow()
            self._pace.rolled_back(last.batch_id - 1, bool(events))
            if self._pace.worker is not None:
                self._pace.worker.resume(last.epoch)
        self.is_running = False

    def _execute(
        self, notice: Notice | None, events: list[RolledBack], forged: int | None
    ) -> tuple[State, Report]:
        genesis = genesis_state(self._domain, self._config.params)
        if notice and events:
            return self._recovery.rewrite(genesis, events, notice.inbox)
        assert forged is not None
        return self._recovery.undo_forged(genesis, forged)

    def on_forged(self, claim: Claim) -> None:
        """A gateway vouched for a signature that nobody made: its connection is cut, and no gateway is believed any
        more.
        """
        connection = claim.source if isinstance(claim.source, Connection) else None
        who = connection.peer if connection is not None else "this process"
        kind = Kind(claim.raw[0]).name
        account = int.from_bytes(claim.raw[1:5], "big")
        logger.critical(
            "FORGED SIGNATURE: record %d, a %s of account %d, was not signed by 0x%s, for whom the gateway (%s) had "
            "vouched. Nothing from it on has been posted: it is executed again without it. From now on every signer is "
            "recovered here. Find out who could write to the socket",
            *(claim.seq, kind, account, claim.signer.hex(), who),
        )
        self.forged = [
            *self.forged[-FORGED_SHOWN + 1 :],
            {"seq": claim.seq, "kind": kind, "account": account, "vouched_by": who},
        ]
        self._forged_seq = claim.seq
        if connection is not None:
            connection.abort(f"it vouched for record {claim.seq}, which nobody has signed")


def changed_accounts(before: State, after: State) -> list[int]:
    """The accounts that differ between the two states."""
    numbers = before.accounts.keys() | after.accounts.keys()
    return sorted(number for number in numbers if _words(before, number) != _words(after, number))


def _words(state: State, number: int) -> object:
    account = state.accounts.get(number)
    return account and account.words()


# --- at the start -----------------------------------------------------------------------------------


def mend(config: ServiceConfig, domain: bytes, recovery: Recovery, asks_l1: bool) -> Report | None:
    """Repairs a log that this code does not reproduce, if the reason is a forged signature, or a roll-back on L1
    (looked up if `asks_l1`); else None.
    """
    seq = recovery.forged(genesis_state(domain, config.params))
    if seq is not None:
        return recovery.undo_forged(genesis_state(domain, config.params), seq)[1]
    notice = _notice(config, recovery) if asks_l1 else None
    if notice is None:
        return None
    return recovery.rewrite(genesis_state(domain, config.params), notice.events, notice.inbox)[1]


def _notice(config: ServiceConfig, recovery: Recovery) -> Notice | None:
    """The roll-back that L1 has and the log does not; None also when L1 does not answer."""
    deployment, l1 = config.deployment, config.l1
    if deployment is None:
        return None
    rpc = Rpc(config.l1_url, timeout_s=l1.timeout_s)
    try:
        follower = Follower(
            rpc, deployment.inbox, deployment.rollup, deployment.deploy_block, l1.confirmations
        )
        return look(follower, rpc, l1.confirmations, recovery.fresh)
    except L1Error as error:
        logger.error("L1: %s", error)
        return None
    finally:
        rpc.close()
