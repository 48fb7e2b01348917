"""The sequencer process, wired: state, log, engine, driver, keeper, batcher, L1, and the socket that gateways talk to.

Start and crash recovery are one path: genesis or the newest snapshot, then the log. The batch store and L1 then say
which batches still have to go out.
"""

import asyncio
import contextlib
import gc
import logging
import sqlite3
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec

from sequencer import errors, refusals
from sequencer.api.ipc import Connection, Query
from sequencer.api.ipc_server import IpcServer
from sequencer.clock import Clock, ClockStopped, SystemClock
from sequencer.engine.engine import Engine, ReplayError, Submission, Tick
from sequencer.engine.snapshots import Aside, recover
from sequencer.engine.views import QueryError, Views
from sequencer.genesis import genesis_root, genesis_state
from sequencer.history import history as histories
from sequencer.history.history import History
from sequencer.history.queries import HistoryQueries
from sequencer.history.store import FILE as HISTORY_FILE
from sequencer.history.store import HistoryDamaged
from sequencer.keeper.keeper import Keeper, KeeperConfig, Terms
from sequencer.keeper.liquidator import Liquidator
from sequencer.l1.deploy import Deployment
from sequencer.l1.errors import L1Error
from sequencer.l1.follower import Follower, InboxMessage
from sequencer.l1.poster import Posted
from sequencer.l1.rpc import Rpc
from sequencer.l1.signing import Signer
from sequencer.log.interface import LogError, LogLost
from sequencer.log.sqlite import SqliteLog
from sequencer.market.feeds import FeedSource
from sequencer.node import brake
from sequencer.node.check import Scrub
from sequencer.protocol import codec
from sequencer.protocol.constants import INBOX_KINDS, U32_MAX, Kind, Reason
from sequencer.protocol.params import Params
from sequencer.protocol.state import State
from sequencer.queue.driver import Driver, DriverConfig
from sequencer.queue.intake import Intake, IntakeLimits
from sequencer.queue.outcomes import TICKS_READ, Outcomes
from sequencer.rollup.batcher import Batcher
from sequencer.rollup.l1_worker import Deposed, L1Config, L1Worker, Notice, look
from sequencer.rollup.rollback import Recovery, Report
from sequencer.rollup.vouched import BACKLOG_MAX, Claim, Vouched
from sequencer.rollup.withdrawals import Withdrawals
from sequencer.wire.labels import LABEL_LIMIT, checked_label
from sequencer.wire.rows import Batch as HistoryBatch

HELD_BYTES_MAX = 64 * 1024 * 1024  # of answers that wait for the log
HELD_BYTES_EACH = 1_024  # and for what goes with one
TABLE_BYTES = 35  # of a segment, a little more than its root and its offset
BATCHES_AHEAD_MAX = 4  # as many as a poster has in flight
SNAPSHOT_PATIENCE_S = 5.0  # at the end, for one that is being written
FORGED_SHOWN = 16  # in the status, the last ones
IDLE_KINDS = frozenset({Kind.FEED, Kind.SURFACE, Kind.RISK, Kind.LIST})  # nobody waits for them
BEATS = 4  # batches in takeover_s, at least

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ServiceConfig:
    """What a sequencer is started with. `folder` holds all that it must not lose.

    `batch_payload_bytes`: where a batch is full; None: as `Batcher` finds right for the deployment.
    `idle_interval_s`: between batches while the log holds nothing but prices and marks; `takeover_s` may ask for more.
    `gateway_users`: whose processes are gateways (api/admission.py); None: this user's and root's.
    `history_days`: how long ended orders, trades and cash are kept in the history; 0: for ever.
    `work_lag_s`: when more work waits for L1 than it takes in that time, new risk is refused (docs/OPERATIONS.md).
    """

    folder: Path
    params: Params
    deployment: Deployment | None = None
    l1_url: str = ""
    l1: L1Config = field(default_factory=L1Config)
    driver: DriverConfig = field(default_factory=DriverConfig)
    intake: IntakeLimits = field(default_factory=IntakeLimits)
    keeper: KeeperConfig = field(default_factory=KeeperConfig)
    batch_interval_s: float = 2.0
    idle_interval_s: float = 60.0
    batch_payload_bytes: int | None = None
    snapshot_ticks: int = 5_000
    work_lag_s: int = 600
    history_days: int = histories.DAYS
    verifying_contract: bytes = bytes(20)
    chain_id: int = 0
    gateway_users: frozenset[int] | None = None


def system_info(
    at: Deployment | None, domain: bytes, chain_id: int = 0, contract: bytes = b""
) -> dict[str, Any]:
    """What records are signed under, and where the money is; `chain_id` and `contract` count without a deployment."""
    return {
        "chain_id": at.chain_id if at else chain_id,
        "verifying_contract": at.rollup.lower() if at else "0x" + contract.hex(),
        "domain": "0x" + domain.hex(),
        "vault": at.vault if at else None,
        "token": at.token if at else None,
        "inbox": at.inbox if at else None,
    }


@dataclass(frozen=True, slots=True)
class _Reply:
    connection: Connection
    rid: int


@dataclass(slots=True)
class _Told:
    """What is to be said of a tick."""

    replies: dict[Connection, list[tuple[int, bool, bytes]]]
    events: list[tuple[str, int, bytes]]
    refused: int


@dataclass(frozen=True, slots=True)
class _Held:
    """A query, and its answer, which rests on `applied` ticks."""

    applied: int
    connection: Connection
    query: Query
    ok: bool
    body: bytes


class Service:
    """One sequencer. `start`, `stop`; between them `driver` ticks, by itself (`run`) or by whoever steps it.

    `engine` is for tests of what is done about a dishonest one: a roll-back puts an honest one in its place.
    """

    def __init__(
        self,
        config: ServiceConfig,
        clock: Clock | None = None,
        signer: Signer | None = None,
        sources: list[FeedSource] | None = None,
        feed_keys: list[bytes] | None = None,
        wanted: list[Terms] | None = None,
        liquidator: Liquidator | None = None,
        engine: Callable[[State], Engine] = Engine,
    ) -> None:
        self.config = config
        self.clock = clock or SystemClock()
        chain_id, contract = config.chain_id, config.verifying_contract
        if config.deployment is not None:
            chain_id = config.deployment.chain_id
            contract = bytes.fromhex(config.deployment.rollup.removeprefix("0x"))
        self.chain_id, self.verifying_contract = chain_id, contract
        self.domain = codec.domain_separator(chain_id, contract)
        config.folder.mkdir(parents=True, exist_ok=True)
        self.log = SqliteLog(config.folder / "log.sqlite")
        self._in_blobs = config.deployment is not None and config.deployment.in_blobs
        self.batcher = Batcher(
            *(config.folder / "batches.sqlite", self.log, genesis_root(config.params)),
            *(config.batch_payload_bytes, self._in_blobs),
            *((config.deployment.work_max,) if config.deployment is not None else ()),
        )
        self.withdrawals = Withdrawals(config.folder / "withdrawals.sqlite")
        self.history = History(
            config.folder / HISTORY_FILE, config.params.treasury_account, config.history_days
        )
        self._history_queries = HistoryQueries(self.history, self.domain)
        self._unsettled: deque[HistoryBatch] = deque()  # rows of ticks that the log does not have yet
        self.recovery = Recovery(config.folder / "snapshots", self.log, self.batcher, self.withdrawals)
        self.rolled_back: Report | None = None  # the last time, since the start
        self._notice: Notice | None = None
        self._is_rolling_back = False
        try:
            state, self.replayed = self._recover()
        except ReplayError:
            if not self._undo_at_start() and (signer is None or not self._answer_at_start()):
                raise
            state, self.replayed = self._recover()
        self.recovery.follow()
        self.engine = engine(state)
        if (last := self.batcher.last()) is not None:  # a crash may have come between a batch and its proofs
            self.withdrawals.prove(state, *last)
        keeps = config.keeper
        if (at := config.deployment) is not None:
            keeps = replace(keeps, risk_work_per_s=at.work_per_s // 2, risk_work_max=at.work_max // 2)
        self.keeper = Keeper(state, sources or [], feed_keys or [], keeps, wanted or [], liquidator)
        self._prepare_engine()
        self.views = Views(state, self._status, self.history.ledger)
        self.views.redone, self.views.acknowledged_as = self.log.redone, self.log.acknowledged_as
        self.outcomes = Outcomes()
        self._load_outcomes()
        self.intake = Intake(config.intake)
        self.driver = Driver(
            self.engine, self.log, self.intake, self.clock, config.driver, self._on_tick, self._on_lost
        )
        self.driver.on_applied = self._on_applied
        self.driver.on_stopped = self._on_stopped
        self.driver.on_refused = self._on_refused
        self.driver.on_overdrawn = self._on_overdrawn
        self.driver.pressure = self._pressure
        self.driver.verified = lambda: self.vouched.offset
        self._work_posted = (
            0,
            self.batcher.cursor.work,
        )  # the last batch that L1 is known to have, GLOBAL's after it
        self._held: deque[_Held] = deque()
        self._held_bytes = 0
        self.driver.collect_from(self._keeper_records)
        self.driver.beat_when(self._heartbeat_due)
        self.driver.when_quiet(self._roll_back_due, self._roll_back)
        self.driver.when_quiet(self._batch_full, self._make_full_batches)
        self.driver.when_quiet(self._batch_due, self.make_batches)
        self.driver.when_quiet(self._snapshot_due, self.snapshot)
        self.ipc = IpcServer(self._on_submit, self._on_query, health=self._health, users=config.gateway_users)
        self.vouched = Vouched(self.domain, self._on_forged, self._on_verified)
        self.vouched.begin(self.log.end, state.globals.seq)  # the replay has recovered every signer
        self.forged: list[dict[str, Any]] = []  # records that gateways have vouched for and nobody has signed
        self._forged_seq: int | None = None  # of the first that is still in the log
        self.worker: L1Worker | None = None
        if config.deployment is not None and signer is not None:
            self.worker = L1Worker(
                config.l1_url,
                config.deployment,
                signer,
                config.folder,
                config.l1,
                self._inbox_position,
                self._on_messages,
                self._on_posted,
                self.recovery.fresh,
                self._on_rolled_back,
                self._on_deposed,
                self.recovery.epoch,
                self.clock.see_l1,
                lambda: self.vouched.seq,
            )
        self._scrub = Scrub(config.folder)
        self.last_posted = 0
        self.ended = asyncio.Event()  # the ticking has: by `stop`, or by an error that only a new start heals
        self.failure: BaseException | None = None
        self._wanted = list(wanted or [])
        self._stopping = False
        self._loop: asyncio.AbstractEventLoop | None = None
        g = state.globals
        self._inbox_durable = (g.inbox_count, g.inbox_hash)  # as of the log, read by the L1 thread
        self._inbox_next = g.inbox_count  # index of the next message to queue
        self._keeper_looked_s = -1
        self._batched_ns = self._built_ns = self.clock.monotonic_ns()
        self._is_beating = False
        self._proved = (
            0,
            self.clock.monotonic_ns(),
        )  # the batch that L1 asks for, and when that was last new
        self._deposed = ""  # why another sequencer's word counts now
        self._snapshot_at = self.log.end - self.replayed
        self._snapshots = Aside(config.folder / "snapshots")
        self._flush_batches = False
        self._is_waited_for = True  # by people: something of theirs is in the log and in no batch
        self._unbatched_bytes = 0
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def state(self) -> State:
        """The state as the engine has it now."""
        return self.engine.state

    # --- life -------------------------------------------------------------------------------------

    async def start(self, socket_path: str, run: bool = True) -> None:
        """Listens for gateways at `socket_path`; ticks by itself if `run`."""
        self._loop = asyncio.get_running_loop()
        # What was recovered stays; the collector need not look at it again, nor after every few hundred records.
        gc.collect()
        gc.freeze()
        gc.set_threshold(20_000, 20, 100)
        await self.ipc.start(socket_path)
        if self.worker is not None:
            self.worker.start()
        self._scrub.start()
        if run:
            task = asyncio.create_task(self.driver.run())
            task.add_done_callback(self._on_driver_end)
            self._tasks.append(task)

    def take_no_more(self) -> None:
        """Refuses every order from now on; what is stored still goes to L1."""
        self._stopping = True

    async def stop(self) -> None:
        """Takes no more; gives what waits its tick, durable and acknowledged; leaves batches to the next start."""
        self._stopping = True
        self.driver.end()
        for task in self._tasks:
            with contextlib.suppress(asyncio.CancelledError, Exception):  # told in `failure` already
                await task
        try:
            await self.driver.flush()
        except Exception:
            if self.failure is None:
                raise
            logger.info("what was being made durable when the sequencer failed was not", exc_info=True)
        await self.ipc.close()
        await self._snapshots.end(SNAPSHOT_PATIENCE_S)
        if self.worker is not None:
            await asyncio.to_thread(self.worker.stop)
        await asyncio.to_thread(self._scrub.stop)
        await asyncio.to_thread(self.vouched.stop)
        self.driver.close()
        self.batcher.close()
        self.withdrawals.close()
        await asyncio.to_thread(self.history.close)
        self.log.close()

    def _on_driver_end(self, task: asyncio.Task[None]) -> None:
        """Nobody ticks any more. After an error gateways are let go, so that they say so instead of waiting."""
        if not task.cancelled() and (error := task.exception()) is not None:
            self.failure = error
            self._stopping = True
            logger.critical("the sequencer has stopped: %s", error, exc_info=error)
            self._tasks.append(asyncio.create_task(self.ipc.close()))
        self.ended.set()

    def _prepare_engine(self) -> None:
        self.engine.sweeps = self.keeper.sweeps
        self.engine.explain = refusals.explain

    def _recover(self) -> tuple[State, int]:
        self.history.align(self.log)
        return self._recover_with(self.history)

    def _recover_with(self, history: History | None) -> tuple[State, int]:
        genesis = genesis_state(self.domain, self.config.params)
        return recover(self.config.folder / "snapshots", self.log, genesis, history, self.log.verified())

    def _load_outcomes(self) -> None:
        self.outcomes.load(self.log.read(max(0, self.log.end - TICKS_READ)))

    # --- submissions ------------------------------------------------------------------------------

    def _on_submit(self, connection: Connection, items: list[tuple[int, bytes, bytes, str]]) -> None:
        closed = self._closed()
        if closed is not None:
            kind, why = closed
            again = "" if kind == errors.Code.NOT_LEADER or self._stopping else "; send again later"
            body = errors.error_body(kind, f"Not accepted: {why}{again}.", reason=why)
            connection.send_acks([(rid, False, body) for rid, *_ in items])
            return
        now_ns = self.clock.monotonic_ns()
        refused: list[tuple[int, bool, bytes]] = []
        for rid, raw, signer, label in items:
            if label and not self._may_have_label(raw, label):
                body = QueryError("label", f"absent but for an order, and of {LABEL_LIMIT}", label).body()
                refused.append((rid, False, body))
                continue
            reason = self._stranger(raw, signer)
            if reason:
                refused.append((rid, False, refusals.explain(self.state, raw, signer, reason)))
                continue
            # After a forgery the engine recovers signers by itself, at the orders' cost.
            named = None if self.forged else signer
            code = self.driver.offer(Submission(raw, named, _Reply(connection, rid), now_ns, label=label))
            if code:
                refused.append((rid, False, self.intake.why(code, raw, now_ns)))
        if refused:
            connection.send_acks(refused)

    @staticmethod
    def _may_have_label(raw: bytes, label: str) -> bool:
        """Whether a gateway may send this label with this record."""
        try:
            return bool(checked_label(label)) and raw[0] in (Kind.PLACE, Kind.PLACE_IN_WORDS)
        except ValueError:
            return False

    def _closed(self) -> tuple[errors.Code, str] | None:
        """Why no order is taken now, for clients and for /health; None: orders are taken."""
        if self._deposed:
            return errors.Code.NOT_LEADER, self._deposed
        if self._stopping:
            return errors.Code.NOT_READY, "the sequencer is stopping"
        if why := self._unproved() or self.driver.metrics.clock_error:
            return errors.Code.NOT_READY, why
        if self._is_rolling_back or self._forged_seq is not None:
            what = "a batch was rolled back" if self._forged_seq is None else "a signature was forged"
            return errors.Code.NOT_READY, f"{what}, and what came after it is executed again"
        return None

    def _health(self) -> tuple[bool, str]:
        """Whether orders are taken, and why not."""
        closed = self._closed()
        if closed is None and self.driver.metrics.last_error:
            return False, f"the log is unavailable: {self.driver.metrics.last_error}"
        return closed is None, closed[1] if closed else ""

    def _stranger(self, raw: bytes, signer: bytes) -> Reason:
        """Why a signer may not speak for the account or feed that the record names, before it takes anybody's room."""
        if raw[0] in (Kind.FEED, Kind.SURFACE):
            return Reason.OK if signer in self.config.params.feed_keys else Reason.UNKNOWN_FEED
        account = self.state.accounts.get(int.from_bytes(raw[1:5], "big"))
        if account is None:
            return Reason.UNKNOWN_ACCOUNT
        if signer == account.owner or any(signer == key for key, _, _ in account.signers):
            return Reason.OK
        return Reason.BAD_SIGNATURE

    def _on_applied(self, tick: Tick) -> None:
        """Makes acknowledgements, refusals and events while the state is as the tick left it: by the time that it is
        durable the next may be applied already.
        """
        self.views.observe(tick.system + tick.results)
        replies: dict[Connection, list[tuple[int, bool, bytes]]] = {}
        accepted = []
        for result in tick.results:
            ok = result.reason is Reason.OK
            reply = result.submission.reply
            if ok:
                accepted.append(result)
                body = self.views.ack(result, tick.number)
                self.outcomes.note(result.submission.raw, result.outcomes[0].seq, body)
            else:
                body = result.why if isinstance(result.why, bytes) else errors.refusal(result.reason)
            if isinstance(reply, _Reply):
                replies.setdefault(reply.connection, []).append((reply.rid, ok, body))
        events = self.views.events(accepted + tick.system, self.ipc.is_heard)
        tick.told = _Told(replies, events, len(tick.results) - len(accepted))
        self._unsettled.append(self.history.ledger.take())

    def _on_tick(self, tick: Tick) -> None:
        """A tick is durable: acknowledges what it holds, refuses the rest, tells everybody."""
        if tick.entry is not None:
            self._unbatched_bytes += sum(map(len, tick.entry.raws())) + TABLE_BYTES * len(tick.entry.segments)
        for result in tick.system:
            raw = result.submission.raw
            if raw[0] in INBOX_KINDS:
                count, running = self._inbox_durable
                self._inbox_durable = (count + 1, codec.inbox_hash(running, raw))
        self.history.offer(self._unsettled.popleft(), self.log.head_hash if tick.entry is not None else None)
        if tick.entry is not None:
            end = tick.entry.first_seq + tick.entry.records
            self.vouched.add(_claims(tick), self.log.end, end)
            self._is_waited_for = self._is_waited_for or _is_waited_for(tick)
        told = tick.told
        assert isinstance(told, _Told)
        for connection, items in told.replies.items():
            connection.send_acks(items)
        for result in tick.results:
            reply = result.submission.reply
            if isinstance(reply, asyncio.Future) and not reply.done():
                reply.set_result(result)
        self.driver.metrics.refused += told.refused
        if told.events:
            self.ipc.broadcast(told.events)
        self._release()

    def _on_stopped(self, submissions: list[Submission], why: str) -> None:
        """There is no time to execute them at."""
        body = errors.error_body(errors.Code.NOT_READY, f"Not accepted: {why}; send again later.")
        _refuse(submissions, body, RuntimeError(why))

    def _on_overdrawn(self, submissions: list[Submission]) -> None:
        """FOK and post-only orders of accounts that have had too many executed for nothing."""
        what = "too many of the account's FOK and post-only orders over several records have failed"
        body = errors.error_body(errors.Code.RATE_LIMITED, f"Not accepted: {what}; send again later.")
        _refuse(submissions, body, RuntimeError(what))

    async def _on_lost(self, submissions: list[Submission], reason: str) -> None:
        """The log did not take a tick: takes the state back to the log, and refuses what waited.

        Queries are still taken, and answered when the state is back.
        """
        self._on_refused(submissions, reason)
        while self._unsettled:
            self.history.ledger.undo(self._unsettled.pop())
        state, _ = await asyncio.to_thread(self._recover_with, None)
        self._adopt(state)
        self.driver.settled = self.driver.applied
        self._answer_again()

    def _on_refused(self, submissions: list[Submission], reason: str) -> None:
        """The log takes nothing: so nothing is executed."""
        why = f"Not accepted: the log is unavailable ({reason}); send again later."
        _refuse(
            submissions, errors.error_body(errors.Code.NOT_READY, why, reason=reason), RuntimeError(reason)
        )

    def _adopt(self, state: State) -> None:
        self.driver.drop_system()
        self._inbox_durable = (state.globals.inbox_count, state.globals.inbox_hash)
        self._inbox_next = state.globals.inbox_count
        self.engine.state = state
        self.vouched.begin(self.log.end, state.globals.seq)  # it was executed with every signer recovered
        self.keeper.adopt(state)
        self.keeper.wanted = list(self._wanted)  # what it took for listed may not be any more
        self.views.adopt(state, self.history.ledger)
        self.views.is_whole = self.history.is_whole
        self.outcomes.drop_from(state.globals.seq)

    async def submit(self, raw: bytes, signer: bytes | None) -> Any:
        """A record from inside the process (keeper, demo): its Result, when durable."""
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        code = self.driver.offer(Submission(raw, signer, future, self.clock.monotonic_ns()))
        if code:
            raise RuntimeError(f"not accepted: code {code}")
        return await future

    # --- queries ----------------------------------------------------------------------------------

    def _on_query(self, connection: Connection, rid: int, method: str, params: dict[str, Any]) -> None:
        """Answers, once all that the answer rests on is durable: a crash must not make it untrue."""
        if self._history_queries.has(method):
            self._ask_history(connection, rid, method, params)
            return
        ok, body = self._answered(method, params)
        if self.driver.applied == self.driver.settled:
            connection.send_answer(rid, ok, body)
            return
        size = len(body) + HELD_BYTES_EACH
        if self._held_bytes + size > HELD_BYTES_MAX:
            busy = errors.error_body(
                errors.Code.QUEUE_FULL, "too many queries wait for the log; ask again later"
            )
            connection.send_answer(rid, False, busy)
            return
        self._held_bytes += size
        self._held.append(_Held(self.driver.applied, connection, Query(rid, method, params), ok, body))

    def _ask_history(self, connection: Connection, rid: int, method: str, params: dict[str, Any]) -> None:
        """What it answers is durable: only what is in the log is in the history."""
        try:
            self._history_queries.ask(
                method, params, self.views, lambda ok, body: connection.send_answer(rid, ok, body)
            )
        except QueryError as error:
            connection.send_answer(rid, False, error.body())

    def _answered(self, method: str, params: dict[str, Any]) -> tuple[bool, bytes]:
        try:
            return True, msgspec.json.encode(self.answer(method, params))
        except QueryError as error:
            return False, error.body()

    def _release(self) -> None:
        """Sends the answers that rest on nothing but what is durable."""
        held = self._held
        while held and held[0].applied <= self.driver.settled:
            one = held.popleft()
            self._held_bytes -= len(one.body) + HELD_BYTES_EACH
            one.connection.send_answer(one.query.rid, one.ok, one.body)

    def _answer_again(self) -> None:
        """What was asked of a state that is lost is answered by the one that came back."""
        held, self._held, self._held_bytes = self._held, deque(), 0
        for one in held:
            self.ipc.ask(one.connection, one.query)

    def answer(self, method: str, params: dict[str, Any]) -> Any:
        """Answer to a query. Raises QueryError."""
        if method == "system_info":
            return system_info(self.config.deployment, self.domain, self.chain_id, self.verifying_contract)
        if method == "withdrawal":
            return self._withdrawal(params)
        if method == "outcome":
            return self._outcome(params)
        handler = self.views.methods.get(method)
        if handler is None:
            raise QueryError("method", "must be one of " + ", ".join(sorted(self.views.methods)), method)
        return handler(params)

    def _withdrawal(self, params: dict[str, Any]) -> dict[str, Any]:
        number = params.get("number")
        proof = self.withdrawals.proof(number) if isinstance(number, int) else None
        if proof is None:
            raise self._no_proof(number)
        return {**proof, "posted": proof["batch_id"] <= self.last_posted}

    def _no_proof(self, number: object) -> QueryError:
        """Why a withdrawal has no proof, and when it will have one."""
        made = self.state.globals.withdrawals
        limit = f"that of a withdrawal in a stored batch: there are {made}"
        if not isinstance(number, int) or not 0 <= number < made:
            return QueryError("number", limit, number, "`fairstrike withdraw` prints it")
        wait_s = max(1.0, self.config.batch_interval_s)
        hint = f"it is in no batch yet: ask again in {wait_s:g} s"
        return QueryError("number", limit, number, hint, retry_after_s=wait_s)

    def _outcome(self, params: dict[str, Any]) -> dict[str, Any]:
        number, nonce = params.get("account"), params.get("nonce")
        account = self.state.accounts.get(number) if isinstance(number, int) else None
        if account is None or not isinstance(number, int):
            highest = max(self.state.accounts, default=0)
            raise QueryError("account", f"must be an account's number; the highest is {highest}", number)
        if not isinstance(nonce, int) or not 0 <= nonce < U32_MAX:
            raise QueryError("nonce", f"must be an integer from 0 to {U32_MAX - 1}", nonce)
        return self.outcomes.find(account, number, nonce, self.intake.holds)

    def _shown_now_s(self) -> int:
        """The time that ages are told against: the exchange's last where there is none that can be trusted."""
        try:
            return self.clock.now_s()
        except ClockStopped:
            return self.state.globals.time

    def _status(self) -> dict[str, Any]:
        worker = self.worker
        standing = worker.standing if worker else None
        metrics = self.driver.metrics
        proof = self._proof(worker) if worker else None
        refuses = self._deposed or self._unproved() or metrics.clock_error
        return {
            "log_end": self.log.end,
            "waiting": len(self.intake),
            "refused": self.intake.refused + metrics.refused,
            "tick_apply_ms": round(metrics.apply_ms, 3),
            "log_append_ms": round(metrics.append_ms, 3),
            "log_error": metrics.last_error,
            "store_error": self._scrub.error,
            "history_error": self.history.error,
            "history_behind": self.history.behind,
            "signature_error": self.vouched.error,
            "signatures_waiting": self.vouched.backlog,
            "forged": self.forged,
            "ticks_unbatched": self.batcher.waiting(),
            "batches_stored": self.batcher.cursor.batch_id - 1,
            "batches_posted": self.last_posted,
            "work_waiting": self._work_waiting(),
            "feed_error": self.keeper.feed_error,
            **self.views.feed_ages(self._shown_now_s()),
            "accounts_short": len(self.keeper.index.looks.short),
            "auctions": len(self.keeper.index.looks.auctions),
            "looks_are_behind": self.keeper.index.looks.is_behind,
            "messages_waiting_for_marks": self.driver.waiting_messages,
            "accepts_orders": not refuses and not self._stopping,
            "refuses_because": refuses or ("the sequencer is stopping" if self._stopping else ""),
            "clock_error": metrics.clock_error,
            "l1_error": (worker.last_error or refuses) if worker else "",
            "l1_seen_s": None if proof is None or proof.unseen_s is None else round(proof.unseen_s, 1),
            "l1_head_age_s": worker.head_age_s() if worker else None,
            "l1_unproved_s": round(proof.unproved_s, 1) if proof else 0.0,
            "l1_balance_wei": str(proof.balance_wei) if proof and proof.balance_wei is not None else None,
            "l1_needed_wei": str(proof.needed_wei) if proof else "0",
            "l1_restarts": worker.restarts if worker else 0,
            "l1_looks": worker.looks if worker else 0,
            "l1_gas": worker.gas_used if worker else 0,
            "bond_wei": str(standing.bond_wei if standing else 0),
            "bond_min_wei": str(standing.bond_min_wei if standing else 0),
            "roll_backs": self.recovery.epoch,
            "leads": bool(standing and standing.leads),
            "leader": standing.leader if standing else "",
            "epoch": standing.epoch if standing else 0,
            "members": len(standing.members) if standing else 0,
        }

    # --- keeper -----------------------------------------------------------------------------------

    def _keeper_records(self, now_s: int) -> list[bytes]:
        """The keeper looks once a second of the exchange's time, at what orders have died in every tick."""
        if now_s == self._keeper_looked_s:
            return self.keeper.sweeps(now_s)
        self._keeper_looked_s = now_s
        out = self.keeper.pass_one(now_s) + self.keeper.pass_two(now_s)
        for bid in self.keeper.bids(now_s):
            bid.arrived_ns = self.clock.monotonic_ns()
            self.driver.offer(bid)
        return out

    async def advance(self, now_s: int) -> None:
        """Steps a manual clock's exchange to `now_s`: reports and marks, then what follows, until nothing does."""
        self.clock.set(now_s)  # type: ignore[attr-defined]  # a ManualClock by contract
        self._keeper_looked_s = now_s
        self.driver.offer_system(self.keeper.pass_one(now_s))
        await self.driver.tick()
        for _ in range(64):
            again = self.keeper.pass_two(now_s)
            bids = self.keeper.bids(now_s)
            for bid in bids:
                bid.arrived_ns = self.clock.monotonic_ns()
                self.driver.offer(bid)
            if not again and not bids:
                break
            self.driver.offer_system(again)
            await self.driver.tick()
        await self.driver.flush()

    # --- batches and L1 ---------------------------------------------------------------------------

    def _batch_due(self) -> bool:
        if self.recovery.is_half:
            return False
        if self._flush_batches:
            return True
        if self._is_behind() or not self.batcher.waiting():
            return False
        age_s = (self.clock.monotonic_ns() - self._batched_ns) * 1e-9
        interval_s = self.config.batch_interval_s if self._is_waited_for else self._idle_interval_s()
        return age_s >= interval_s or self._is_silent()

    def _idle_interval_s(self) -> float:
        """Between batches in which nobody has anything to wait for: prices and marks alone."""
        return max(self.config.batch_interval_s, self.config.idle_interval_s)

    def _proof(self, worker: L1Worker) -> brake.Proof:
        """What L1 has shown of what is acknowledged (see brake.py)."""
        now_ns, there = self.clock.monotonic_ns(), worker.next_on_l1
        waits = self.batcher.waiting() > 0 or self.batcher.cursor.batch_id > max(there, self.last_posted + 1)
        if there != self._proved[0] or not waits:
            self._proved = there, now_ns
        standing = worker.standing
        balance, needed = worker.can_pay(self._unbatched_bytes)
        return brake.Proof(
            standing.takeover_s if standing else 0,
            worker.unseen_s(),
            (now_ns - self._proved[1]) * 1e-9,
            balance,
            needed,
            worker.last_error,
        )

    def _unproved(self) -> str:
        """Why nothing may be acknowledged before L1 has shown more; empty when it may."""
        return brake.why_not(self._proof(self.worker)) if self.worker is not None else ""

    def _work_waiting(self) -> int:
        """Units of work that are acknowledged, or about to be, and not on L1."""
        if self.last_posted != self._work_posted[0]:
            self._work_posted = self.last_posted, self.batcher.work_after(self.last_posted)
        return self.state.globals.work - self._work_posted[1]

    def _pressure(self) -> int:
        """How many times more work waits for L1 than it takes in `work_lag_s`, or more signatures for their check."""
        at = self.config.deployment
        unchecked = self.vouched.backlog // BACKLOG_MAX
        self.intake.signatures = self.vouched.backlog if unchecked else 0
        if at is None or self.worker is None:
            return unchecked
        return max(unchecked, self._work_waiting() // (at.work_max + at.work_per_s * self.config.work_lag_s))

    def _is_silent(self) -> bool:
        """No batch for so long that others might come to think that there is no leader."""
        standing = self.worker.standing if self.worker is not None else None
        if standing is None or not standing.leads:
            return False
        if not self._is_beating:  # what the chain has waited before this start
            self._is_beating = True
            self._built_ns -= max(0, standing.head_time_s - standing.silent_since) * 10**9
        return self.clock.monotonic_ns() - self._built_ns >= standing.takeover_s * 10**9 // BEATS

    def _heartbeat_due(self) -> bool:
        return not self.recovery.is_half and self._is_silent() and self.batcher.waiting() == 0

    def _batch_full(self) -> bool:
        is_full = self._unbatched_bytes >= self.batcher.payload_bytes or self.batcher.is_work_full(
            self.state.globals.work
        )
        return is_full and not self.recovery.is_half and not self._is_behind()

    def _is_behind(self) -> bool:
        """Whether batches wait for L1: in blobs what comes then stays in the log, and fills more of one batch later."""
        if not self._in_blobs or self.worker is None:
            return False
        stored, there = self.batcher.cursor.batch_id - 1, max(self.last_posted, self.worker.next_on_l1 - 1)
        return stored - there >= BATCHES_AHEAD_MAX

    def _make_full_batches(self) -> None:
        """Stores what is full as it becomes full, so that no tick waits for many batches at once."""
        while self.batcher.build(False) is not None:
            self._built_ns = self.clock.monotonic_ns()
        self._unbatched_bytes = self.batcher.left_bytes
        if self.worker is not None:
            self.worker.wake()

    def request_batches(self) -> None:
        """Asks for batches of all there is, at the next tick."""
        self._flush_batches = True

    def make_batches(self, whatever_there_is: bool = True) -> None:
        """Stores batches up to the log's end, and proofs of the withdrawals in the last, whose root is the state's."""
        last = None
        while (built := self.batcher.build(whatever_there_is)) is not None:
            last = built
            self._built_ns = self.clock.monotonic_ns()
        if last is not None:
            self.withdrawals.prove(self.state, last.batch_id, last.post_root)
        self._batched_ns = self.clock.monotonic_ns()
        self._flush_batches = self._is_waited_for = False
        self._unbatched_bytes = 0
        if self.worker is not None:
            self.worker.wake()

    def _snapshot_due(self) -> bool:
        is_due = self.log.end - self._snapshot_at >= self.config.snapshot_ticks
        return is_due and not self._snapshots.is_busy

    def snapshot(self) -> None:
        """Has a snapshot written of the state, which stands at the log's end. After one that fails comes the next."""
        self._snapshots.begin(self.state, self.log.end)
        self._snapshot_at = self.log.end

    def _inbox_position(self) -> tuple[int, bytes]:
        return self._inbox_durable

    def _on_messages(self, messages: list[InboxMessage]) -> None:
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._queue_messages, messages)

    def _queue_messages(self, messages: list[InboxMessage]) -> None:
        """Each message once and in order, however often the L1 thread brings it."""
        fresh = []
        for message in messages:
            if message.index == self._inbox_next:
                fresh.append(message.record)
                self._inbox_next += 1
        self.driver.offer_system(fresh)

    def _on_posted(self, posted: list[Posted]) -> None:
        self.last_posted = max(self.last_posted, *(one.batch_id for one in posted))

    # --- another leads ----------------------------------------------------------------------------

    def _on_deposed(self, why: str, is_final: bool) -> None:
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._step_down, why, is_final)

    def _step_down(self, why: str, is_final: bool) -> None:
        """Refuses what comes and what waits, as long as another leads; ends when that will last."""
        self._deposed = why
        if not why:
            return
        body = errors.error_body(errors.Code.NOT_LEADER, f"Not accepted: {why}.")
        _refuse(self.intake.take(len(self.intake)), body, Deposed(why))
        if is_final and self.failure is None:
            self.failure = Deposed(why)
            self._stopping = True
            self.driver.end()
            if not self._tasks:  # nobody ticks by itself
                self.ended.set()

    # --- roll-backs -------------------------------------------------------------------------------

    def _on_rolled_back(self, notice: Notice) -> None:
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._note, notice)

    def _note(self, notice: Notice) -> None:
        self._notice = notice

    def _follow_with_history(self) -> None:
        """The log was rewritten: the history is cut at the same record, and takes in what stands there now."""
        try:
            self._recover()
        except (sqlite3.Error, HistoryDamaged, ReplayError) as error:
            logger.critical("the history does not follow the roll-back until the next start: %s", error)

    def _roll_back_due(self) -> bool:
        return self._notice is not None or self._is_rolling_back or self._forged_seq is not None

    async def _roll_back(self) -> None:
        """Executes what came after the last batch that stands once more, or after a forgery, and goes on from there."""
        self._is_rolling_back = True
        notice, self._notice = self._notice, None
        events = self.recovery.fresh(notice.events) if notice else []
        forged = self._forged_seq
        if (notice and events) or forged is not None:
            await self._snapshots.end()  # of what is taken back
            genesis = genesis_state(self.domain, self.config.params)
            try:
                if notice and events:
                    again = asyncio.to_thread(self.recovery.rewrite, genesis, events, notice.inbox)
                else:
                    assert forged is not None
                    again = asyncio.to_thread(self.recovery.undo_forged, genesis, forged)
                state, report = await again
            except ReplayError as error:
                if not events or self.worker is None:
                    raise
                logger.critical("L1: %s", error)
                self.worker.refuse(str(error))
                self._is_rolling_back = False
                return
            except LogLost:
                raise
            except LogError as error:
                self._notice = notice
                raise OSError(error.reason) from error
            self._forged_seq = None
            changed = await asyncio.to_thread(_changed_accounts, self.state, state)
            await asyncio.to_thread(self._follow_with_history)
            self._adopt(state)
            self.engine = self.driver.engine = Engine(state)
            self._prepare_engine()
            self.rolled_back = report
            self._load_outcomes()
            self.views.roll_back(report.first_seq, report.fills)
            self.ipc.broadcast(
                self.views.roll_back_events(report.batch_id, report.first_seq, changed, report.redone)
            )
        last = self.log.rolled_back()
        if (events or forged is not None or self.recovery.is_half) and last is not None:
            self.recovery.follow()
            there = last.batch_id - 1
            self.last_posted = there if events else min(self.last_posted, there)
            self._unbatched_bytes = 0
            self._snapshot_at = self.log.end - self.config.snapshot_ticks  # those behind the batch are gone
            self._flush_batches = True
            if self.worker is not None:
                self.worker.resume(last.epoch)
        self._is_rolling_back = False

    # --- forged signatures ------------------------------------------------------------------------

    def _on_verified(self) -> None:
        """More signatures are good: a batch may have waited for them."""
        worker = self.worker
        if worker is None or not worker.unverified:
            return
        if self.batcher.start_of(worker.unverified + 1).seq <= self.vouched.seq:
            worker.wake()

    def _on_forged(self, claim: Claim) -> None:
        """A gateway has vouched for what nobody has signed. It is let go, and none is believed any more."""
        reply = claim.source
        connection = reply.connection if isinstance(reply, _Reply) else None
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

    def _undo_at_start(self) -> bool:
        """The log is not what this code gives. When a forged signature is why, it is put right; else False."""
        seq = self.recovery.forged(genesis_state(self.domain, self.config.params))
        if seq is None:
            return False
        genesis = genesis_state(self.domain, self.config.params)
        _, self.rolled_back = self.recovery.undo_forged(genesis, seq)
        return True

    def _answer_at_start(self) -> bool:
        """The log is not what this code gives. When L1 has rolled that back, it is put right; else False."""
        deployment, l1 = self.config.deployment, self.config.l1
        if deployment is None:
            return False
        rpc = Rpc(self.config.l1_url, timeout_s=l1.timeout_s)
        try:
            follower = Follower(
                rpc, deployment.inbox, deployment.rollup, deployment.deploy_block, l1.confirmations
            )
            notice = look(follower, rpc, l1.confirmations, self.recovery.fresh)
        except L1Error as error:
            logger.error("L1: %s", error)
            return False
        finally:
            rpc.close()
        if notice is None:
            return False
        genesis = genesis_state(self.domain, self.config.params)
        _, self.rolled_back = self.recovery.rewrite(genesis, notice.events, notice.inbox)
        return True


def _refuse(submissions: list[Submission], body: bytes, error: Exception) -> None:
    """Answers what found no tick."""
    for submission in submissions:
        reply = submission.reply
        if isinstance(reply, _Reply):
            reply.connection.send_acks([(reply.rid, False, body)])
        elif isinstance(reply, asyncio.Future) and not reply.done():
            reply.set_exception(error)


def _is_waited_for(tick: Tick) -> bool:
    """Whether a durable tick holds more than prices: what somebody has sent, or what closes positions."""
    for result in tick.results + tick.system:
        kind = result.submission.raw[0]
        if kind not in IDLE_KINDS and (result.reason is Reason.OK or kind in INBOX_KINDS):
            return True
    return False


def _claims(tick: Tick) -> list[Claim]:
    """The records of a durable tick whose signers somebody has named."""
    return [
        Claim(result.outcomes[0].seq, one.raw, one.signer, one.reply)
        for result in tick.results
        if (one := result.submission).signer is not None and result.reason is Reason.OK
    ]


def _changed_accounts(before: State, after: State) -> list[int]:
    """The accounts that are not the same in both."""
    numbers = before.accounts.keys() | after.accounts.keys()
    return sorted(number for number in numbers if _words(before, number) != _words(after, number))


def _words(state: State, number: int) -> object:
    account = state.accounts.get(number)
    return account and account.words()
