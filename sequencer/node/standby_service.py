"""Standby process: follows L1 at each new head, serves queries, accepts no orders."""

import asyncio
import logging
import threading
from collections.abc import Sequence
from functools import partial
from typing import Any

import msgspec

from sequencer import errors
from sequencer.api.ipc import Connection, Health
from sequencer.api.ipc_server import IpcServer
from sequencer.api.tls import Tls
from sequencer.engine.views import QueryError, Views
from sequencer.history.queries import HistoryQueries
from sequencer.l1.heads import Heads
from sequencer.l1.rpc import Rpc
from sequencer.l1.signing import Signer
from sequencer.node.answers import system_info
from sequencer.node.standby import Standby, StandbyConfig

L1_TIMEOUT_S = 6.0  # of a whole answer: a line that swallows bytes is noticed after it

logger = logging.getLogger(__name__)


class StandbyService:
    """A standby behind a socket. Queries wait for the end of a step, since the state is consistent only then."""

    def __init__(
        self,
        config: StandbyConfig,
        l1_url: str,
        signer: Signer,
        poll_s: float,
        gateway_users: frozenset[int] | None = None,
        tls: Tls | None = None,
    ) -> None:
        self._rpc = Rpc(l1_url, timeout_s=L1_TIMEOUT_S)
        self._heads = Heads(l1_url)
        self._over = threading.Event()  # nobody waits for heads any more
        self._poll_s = poll_s
        self.standby = Standby(config, self._rpc, signer)
        self.views = Views(self.standby.state, self._status, self.standby.history.ledger)
        self._history_queries = HistoryQueries(self.standby.history, self.standby.state.domain)
        self._deployment = config.deployment
        self._ipc = IpcServer(
            self._on_submit,
            self._on_query,
            health=self._health,
            users=gateway_users,
            files=tls,
            position=lambda: self._seq,
        )
        self._seq = self.standby.state.globals.seq  # at the end of the last step
        self._asked: list[tuple[Connection, int, str, dict[str, Any]]] = []
        self._is_busy = False

    async def run(self, sockets: Sequence[str], stop: asyncio.Event) -> bool:
        """Runs until this sequencer leads (True), or `stop` is set.

        Raises LogLost, ReplayError, OSError of the socket.
        """
        await self._ipc.start(*sockets)
        self._heads.start()
        ended = asyncio.create_task(self._end_with(stop))
        try:
            said = ""
            while not stop.is_set():
                self._is_busy = True
                leads = await asyncio.to_thread(self.standby.step)
                self._is_busy = False
                self.views.adopt(self.standby.state, self.standby.history.ledger)
                self.views.is_whole = self.standby.history.is_whole
                self._seq = self.standby.state.globals.seq
                self._answer_all()
                if leads:
                    return True
                if self.standby.message != said and not self.standby.message.startswith("following"):
                    said = self.standby.message
                    logger.info("standby: %s", said)
                await asyncio.to_thread(self._heads.pause, self._over, self._poll_s)
            return False
        finally:
            ended.cancel()
            self._over.set()
            await asyncio.to_thread(self._heads.stop)
            await self._ipc.close()
            await asyncio.to_thread(self.standby.close)
            self._rpc.close()

    async def _end_with(self, stop: asyncio.Event) -> None:
        await stop.wait()
        self._over.set()

    def _health(self) -> Health:
        """It has what is on L1, and does not know how far the leader is beyond that."""
        now = self.standby.standing
        reason = f"this is a standby; {now.leader if now else 'another sequencer'} leads"
        return Health(False, reason, leads=False, role="standby", seq=self._seq, behind_s=None)

    def _on_submit(self, connection: Connection, items: list[tuple[int, bytes, bytes, str]]) -> None:
        now = self.standby.standing
        leader = now.leader if now is not None else "another sequencer"
        body = errors.error_body(errors.Code.NOT_LEADER, f"Not accepted: this is a standby; {leader} leads.")
        connection.send_acks([(rid, False, body) for rid, *_ in items])

    def _on_query(self, connection: Connection, rid: int, method: str, params: dict[str, Any]) -> None:
        self._asked.append((connection, rid, method, params))
        if not self._is_busy:
            self._answer_all()

    def _answer_all(self) -> None:
        asked, self._asked = self._asked, []
        for connection, rid, method, params in asked:
            try:
                if self._history_queries.has(method):
                    self._history_queries.ask(
                        method, params, self.views, partial(connection.send_answer, rid)
                    )
                    continue
                connection.send_answer(rid, True, msgspec.json.encode(self._answer(method, params)))
            except QueryError as error:
                connection.send_answer(rid, False, error.body())

    def _answer(self, method: str, params: dict[str, Any]) -> Any:
        if method == "system_info":
            return system_info(self._deployment, self.standby.state.domain)
        if method == "withdrawal":
            return self.standby.withdrawal(params.get("number"))
        handler = self.views.methods.get(method)
        if handler is None:
            raise QueryError("method", "must be one of " + ", ".join(sorted(self.views.methods)), method)
        return handler(params)

    def _status(self) -> dict[str, Any]:
        now = self.standby.standing
        return {
            "log_end": self.standby.log.end,
            "batches_posted": self.standby.batcher.cursor.batch_id - 1,
            "l1_error": self.standby.message,
            "history_error": self.standby.history.error,
            "history_behind": self.standby.history.behind,
            "bond_wei": str(now.bond_wei if now else 0),
            "bond_min_wei": str(now.bond_min_wei if now else 0),
            "leads": False,
            "leader": now.leader if now else "",
            "epoch": now.epoch if now else 0,
            "members": len(now.members) if now else 0,
        }
