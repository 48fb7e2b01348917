"""The sequencer process, wired: state, log, engine, driver, keeper, batcher, L1, and the socket that gateways talk to.

Start and crash recovery are one path: genesis or the newest snapshot, then the log. The batch store and L1 then say
which batches still have to go out.

Long because every part of a sequencer is made and joined to the others here; what each does lies with it.
"""

import asyncio
import contextlib
import gc
import logging
import sqlite3
import sys
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from sequencer import refusals
from sequencer.api.ipc import Health
from sequencer.api.ipc_server import IpcServer
from sequencer.clock import Clock, SystemClock
from sequencer.engine.engine import Engine, ReplayError, Submission, Tick
from sequencer.engine.events import Events
from sequencer.engine.snapshots import Told, recover
from sequencer.engine.views import Views
from sequencer.genesis import genesis_root, genesis_state
from sequencer.history.history import History
from sequencer.history.queries import HistoryQueries
from sequencer.history.store import FILE as HISTORY_FILE
from sequencer.history.store import HistoryDamaged
from sequencer.keeper.keeper import Keeper, Terms
from sequencer.keeper.liquidator import Liquidator
from sequencer.l1.signing import Signer
from sequencer.log.interface import Cut
from sequencer.log.sqlite import SqliteLog
from sequencer.market.feeds import FeedSource
from sequencer.node.acks import Acks, TickOutput, claims
from sequencer.node.answers import Answers
from sequencer.node.archiver import Archiver
from sequencer.node.check import Scrub
from sequencer.node.gate import Gate
from sequencer.node.inbox import Inbox
from sequencer.node.pace import Pace
from sequencer.node.roll_backs import RollBacks, changed_accounts, mend
from sequencer.node.settings import ServiceConfig
from sequencer.node.status import Status
from sequencer.protocol import codec
from sequencer.protocol.state import State
from sequencer.queue.driver import Driver
from sequencer.queue.intake import Intake
from sequencer.queue.outcomes import TICKS_READ, Outcomes
from sequencer.queue.receipts import Issuer, Lead
from sequencer.queue.repeats import TOLD, Repeats
from sequencer.rollup.batcher import Batcher
from sequencer.rollup.l1_link import L1Handlers, L1Link
from sequencer.rollup.l1_worker import Deposed
from sequencer.rollup.rollback import Recovery, Report
from sequencer.rollup.vouched import Vouched
from sequencer.rollup.withdrawals import Withdrawals
from sequencer.wire.rows import Batch as HistoryBatch

SNAPSHOT_PATIENCE_S = 5.0  # at the end, for one that is being written
YOUNG_MAX = 2_000  # objects that the collector has not looked at, at the end of a tick
SWITCH_S = 0.0005  # Python gives the lock to another thread after so long, at the latest

logger = logging.getLogger(__name__)


class Service:
    """One sequencer. `start`, `stop`; between them `driver` ticks, by itself (`run`) or by whoever steps it.

    Its parts: `acks` (submissions), `answers` (queries), `gate` (whether orders are taken), `pace` (batches and
    snapshots), `roll_backs`, `inbox`, `status`. `wanted`: what the keeper is to list.

    `engine` is for tests of what is done about a dishonest one: a roll-back puts an honest one in its place.

    `log`: the folder's, where it is a copy of a stream that other nodes read, too. Such a service does not tick before
    `lead`: what it executes comes from node/following.py.
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
        log: SqliteLog | None = None,
    ) -> None:
        self.config = config
        self.clock = clock or SystemClock()
        self.wanted = list(wanted or [])
        self.domain = codec.domain_separator(*config.signed_under)
        self.ended = asyncio.Event()  # the ticking has: by `stop`, or by an error that only a new start heals
        self.failure: BaseException | None = None
        self.tasks: list[asyncio.Task[None]] = []  # of a service that ticks by itself
        self._unsettled: deque[HistoryBatch] = deque()  # rows of ticks that the log does not have yet
        self._keeper_looked_s = -1

        # The stores, and the state that they give.
        config.folder.mkdir(parents=True, exist_ok=True)
        at = config.deployment
        self.log = log or SqliteLog(config.folder / "log.sqlite")
        self.is_shared = log is not None
        self.term = 0  # inside the member's cluster
        self.behind_s: Callable[[], float] | None = None  # of a node that follows, since it was level
        self.batcher = Batcher(
            *(config.folder / "batches.sqlite", self.log, genesis_root(config.params)),
            *(config.batch_payload_bytes, config.in_blobs),
            *((at.work_max,) if at is not None else ()),
        )
        self.withdrawals = Withdrawals(config.folder / "withdrawals.sqlite")
        self.history = History(
            config.folder / HISTORY_FILE, config.params.treasury_account, config.history_days
        )
        self.epoch = 1 if at is not None else 0  # of the set, in which this process leads
        self._roll_backs_seen = len(self.log.answered())
        self.recovery = Recovery(
            *(config.folder / "snapshots", self.log, self.batcher, self.withdrawals),
            lambda more: Issuer(self.domain, None, lambda: self._lead(more)),
        )
        self.issuer = Issuer(self.domain, config.receipt_key, self._lead)
        mended: Report | None = None
        try:
            state, self.replayed = self.recover()
        except ReplayError:
            if self.is_shared:
                raise  # what the others read is not for this node to change
            mended = mend(config, self.domain, self.recovery, asks_l1=signer is not None)
            if mended is None:
                raise
            state, self.replayed = self.recover()
        self.recovery.follow()
        executes = engine(state)
        if (last := self.batcher.last()) is not None:  # a crash may have come between a batch and its proofs
            self.withdrawals.prove(state, *last)

        self.issuer.resume(self.log)

        # What works on the state.
        keeps = config.keeper
        if at is not None:
            keeps = replace(keeps, risk_work_per_s=at.work_per_s // 2, risk_work_max=at.work_max // 2)
        self.keeper = Keeper(state, sources or [], feed_keys or [], keeps, wanted or [], liquidator)
        self.views = Views(state, lambda: self.status.read(), self.history.ledger)
        self.views.redone, self.views.acknowledged_as = self.log.redone, self.log.acknowledged_as
        self.events = Events(self.views)
        self.outcomes = Outcomes()
        self.load_outcomes()
        self.intake = Intake(config.intake)
        self.driver = Driver(
            *(executes, self.log, self.intake, self.clock, config.driver, self._on_tick, self._on_lost),
            self.issuer,
        )
        self._prepare_engine()

        # What comes in and goes out.
        self.vouched = Vouched(
            self.domain, lambda claim: self.roll_backs.on_forged(claim), lambda: self.pace.verified()
        )
        self.vouched.begin(self.log.end, state.globals.seq)  # the replay has recovered every signer
        self.inbox = Inbox(self.driver, state)
        self.pace = Pace(
            *(config, self.clock, self.driver, self.batcher, self.withdrawals),
            *(self.recovery, self.vouched, self.replayed),
        )
        self.pace.told = self._told
        self.roll_backs = RollBacks(
            config, self.domain, self.log, self.recovery, self.pace, mended, self._take_up
        )
        self.gate = Gate(self.driver, self.pace, self.roll_backs)
        self.acks = Acks(self.clock, self.driver, self.events, self.outcomes, self.gate, self.roll_backs)
        self.answers = Answers(
            *(config, self.domain, self.driver, self.views, HistoryQueries(self.history, self.domain)),
            *(self.withdrawals, self.outcomes, self.pace),
        )
        self.ipc = IpcServer(
            self.acks.take,
            self.answers.ask,
            health=self._health,
            users=config.gateway_users,
            files=config.tls,
            position=lambda: self.acks.durable_seq,
        )
        self._scrub = Scrub(config.folder)
        self._archiver: Archiver | None = None
        if config.deployment is not None and config.archive_after_s:
            self._archiver = Archiver(
                config.folder,
                config.deployment.challenge_window_s + config.archive_after_s,
                lambda: self.pace.last_posted,
                lambda: self.state.globals.time,
            )
        self.status = Status(
            *(self.clock, self.driver, self.views, self.keeper, self.history, self.batcher, self.recovery),
            *(self.vouched, self._scrub, self.pace, self.roll_backs, self.gate),
        )
        self.worker = self._l1_link(signer) if signer is not None else None
        self.pace.worker = self.worker
        self._wire_driver()

    def _l1_link(self, signer: Signer) -> L1Link | None:
        config = self.config
        if config.deployment is None:
            return None
        handlers = L1Handlers(
            inbox_position=self.inbox.position,
            verified=lambda: self.vouched.seq,
            on_messages=self.inbox.queue,
            on_posted=self.pace.posted,
            on_rolled_back=self.roll_backs.note,
            on_deposed=self._step_down,
            on_l1_time=self._see_l1,
            on_unverified=self.pace.verified,
        )
        how = (config.l1_url, config.deployment, signer, config.folder, config.l1)
        return L1Link(*how, handlers, self.recovery.epoch, config.children)

    def _see_l1(self, time_s: int, ahead_max_s: int) -> None:
        """L1 has said its time: a clock that has stopped for want of it goes at once."""
        self.clock.see_l1(time_s, ahead_max_s)
        if self.driver.metrics.clock_error:
            self.driver.wake()

    def _wire_driver(self) -> None:
        driver = self.driver
        driver.on_applied = self._on_applied
        driver.on_stopped = self.acks.on_stopped
        driver.on_refused = self.acks.on_refused
        driver.on_overdrawn = self.acks.on_overdrawn
        driver.pressure = self.pace.pressure
        driver.verified = lambda: self.vouched.offset
        driver.collect_from(self._keeper_records)
        driver.beat_when(self.pace.heartbeat_due)
        driver.when_quiet(self.roll_backs.is_due, self.roll_backs.run)
        driver.when_quiet(self.pace.batch_full, self.pace.make_full_batches)
        driver.when_quiet(self.pace.batch_due, self.pace.make_batches)
        driver.when_quiet(self.pace.snapshot_due, self.pace.snapshot)

    @property
    def engine(self) -> Engine:
        """What executes now."""
        return self.driver.engine

    @property
    def state(self) -> State:
        """The state as the engine has it now."""
        return self.driver.engine.state

    # --- life -------------------------------------------------------------------------------------

    async def start(self, *sockets: str, run: bool = True) -> None:
        """Listens for gateways at each of `sockets` (ipc.parse_address); ticks by itself if `run`."""
        # What was recovered stays; the collector need not look at it again, nor after every few hundred records.
        gc.collect()
        gc.freeze()
        gc.set_threshold(50_000, 10, 100)  # where no ticks are; see `_on_tick`
        # The log's thread comes back from the disk while a tick is applied; acknowledgements wait for it.
        sys.setswitchinterval(SWITCH_S)
        await self.ipc.start(*sockets)
        self._scrub.start()
        if not self.is_shared:
            self._begin(run)

    def _begin(self, run: bool) -> None:
        if self.worker is not None:
            self.worker.start()
        if self._archiver is not None:
            self._archiver.start()
        if run:
            task = asyncio.create_task(self.driver.run())
            task.add_done_callback(self._on_driver_end)
            self.tasks.append(task)

    def _health(self) -> Health:
        """What gateways hear of it."""
        accepts, reason = self.gate.health()
        leads = not self.gate.deposed and not self.gate.is_stopping
        behind_s = 0.0 if leads else None if self.behind_s is None else self.behind_s()
        follows = "deposed" if self.behind_s is None else "follower"
        role = "leader" if leads else "stopping" if self.gate.is_stopping else follows
        return Health(accepts, reason, leads, role, self.term, self.acks.durable_seq, behind_s)

    async def serve(self, stop: asyncio.Event) -> None:
        """Returns when `stop` is set, or the ticking has ended by itself."""
        waits = [asyncio.create_task(one.wait()) for one in (stop, self.ended)]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in waits:
                one.cancel()

    def take_no_more(self) -> None:
        """Refuses every order from now on; what is stored still goes to L1."""
        self.gate.is_stopping = True

    async def stop(self) -> None:
        """Takes no more; gives what waits its tick, durable and acknowledged; leaves batches to the next start."""
        self.take_no_more()
        self.driver.end()
        for task in self.tasks:
            with contextlib.suppress(asyncio.CancelledError, Exception):  # told in `failure` already
                await task
        try:
            await self.driver.flush()
        except Exception:
            if self.failure is None:
                raise
            logger.info("what was being made durable when the sequencer failed was not", exc_info=True)
        await self.ipc.close()
        await self.pace.snapshots.end(SNAPSHOT_PATIENCE_S)
        if self.worker is not None:
            await self.worker.stop()
        await asyncio.to_thread(self._scrub.stop)
        if self._archiver is not None:
            await asyncio.to_thread(self._archiver.stop)
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
            self.take_no_more()
            logger.critical("the sequencer has stopped: %s", error, exc_info=error)
            self.tasks.append(asyncio.create_task(self.ipc.close()))
        self.ended.set()

    def _step_down(self, why: str, is_final: bool) -> None:
        """Refuses what comes and what waits, as long as another leads; ends when that will last."""
        self.gate.deposed = why
        if not why:
            return
        self.acks.depose(why, Deposed(why))
        if is_final and self.failure is None:
            self.failure = Deposed(why)
            self.take_no_more()
            self.driver.end()
            if not self.tasks:  # nobody ticks by itself
                self.ended.set()

    # --- ticks ------------------------------------------------------------------------------------

    async def submit(self, raw: bytes, signer: bytes | None) -> Any:
        """A record from inside the process (keeper, demo): its Result, when durable."""
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        code = self.driver.offer(Submission(raw, signer, future, self.clock.monotonic_ns()))
        if code:
            raise RuntimeError(f"not accepted: code {code}")
        return await future

    def _on_applied(self, tick: Tick) -> None:
        """Makes what is to be said of a tick while the state is as the tick left it."""
        tick.told = self.acks.made(tick, self.ipc.is_heard)
        self._unsettled.append(self.history.ledger.take())

    def _on_tick(self, tick: Tick) -> None:
        """A tick is durable: acknowledges what it holds, refuses the rest, tells everybody."""
        self.pace.settle(tick)
        if self.inbox.settle(tick) and self.worker is not None:
            self.worker.tell()
        self.history.offer(self._unsettled.popleft(), self.log.head_hash if tick.entry is not None else None)
        if tick.entry is not None:
            self.vouched.add(claims(tick), self.log.end, tick.entry.first_seq + tick.entry.records)
        told = tick.told
        assert isinstance(told, TickOutput)
        self.acks.send(tick, told)
        if told.events:
            self.ipc.broadcast(told.events)
        self.answers.release()
        if (
            gc.get_count()[0] > YOUNG_MAX
        ):  # behind the acknowledgements, and while few of a tick's objects are alive
            asyncio.get_running_loop().call_soon(gc.collect, 0)

    async def _on_lost(self, submissions: list[Submission], reason: str) -> None:
        """The log did not take a tick: takes the state back to the log, and refuses what waited.

        Queries are still taken, and answered when the state is back.
        """
        self.acks.on_refused(submissions, reason)
        while self._unsettled:
            self.history.ledger.undo(self._unsettled.pop())
        state, _ = await asyncio.to_thread(self._recover_with, None)
        self.adopt(state)
        self.driver.settled = self.driver.applied
        for connection, query in self.answers.give_up():  # the state that came back answers them
            self.ipc.ask(connection, query)

    def lead(self, announce: Callable[[Cut], Awaitable[None]]) -> None:
        """The log's last entry says that this node leads: takes orders, ticks, and posts from now on.

        `announce`: see Pace.
        """
        self.issuer.resume(self.log)
        self.pace.announce = announce
        self.gate.deposed = ""
        self._begin(run=True)

    # --- another state ----------------------------------------------------------------------------

    def recover(self) -> tuple[State, int]:
        """The state that the folder gives, its history with it, and how many entries were executed for it."""
        self.history.align(self.log)
        self._repeats = Repeats(self.log, self.history, self.issuer)
        return self._recover_with(self.history, self._repeats)

    def _recover_with(self, history: History | None, repeats: Repeats | None = None) -> tuple[State, int]:
        genesis, at = genesis_state(self.domain, self.config.params), self.config.folder / "snapshots"
        return recover(at, self.log, genesis, history, self.log.verified(), repeats)

    def _prepare_engine(self) -> None:
        self.engine.sweeps = self.keeper.sweeps
        self.engine.explain = refusals.explain

    def load_outcomes(self, stands: int = 0) -> None:
        """Reads the latest records from the log, and takes over their acknowledgements from `recover`; what is known
        of those before `stands` is kept.
        """
        made, self._repeats.made = self._repeats.made, {}
        entries = self.log.read(max(0, self.log.end - TICKS_READ))
        self.outcomes.load(entries, made, stands, self._is_void)

    def _is_void(self, place: int) -> bool:
        """Whether a roll-back has left nothing of the record at this place in the log."""
        one = self.log.redone(self.log.acknowledged_as(place))
        return one is not None and one.place == place and bool(one.reason)

    def _told(self) -> Callable[[], Told]:
        """What a snapshot of the state, which is at the log's end, keeps of the acknowledgements; its copy calls it,
        which may not read the log.
        """
        log_hash = self.log.hash_before(self.log.end) if self.log.end else b""
        return lambda: Told(log_hash, self.issuer.address, self.outcomes.newest(TOLD))

    def adopt(self, state: State) -> None:
        """Goes on with the state that the log gives now."""
        self.driver.drop_system()
        self.inbox.adopt(state)
        self.engine.state = state
        self.vouched.begin(self.log.end, state.globals.seq)  # it was executed with every signer recovered
        if self.worker is not None:
            self.worker.tell_again()
        self.keeper.adopt(state)
        self.keeper.wanted = list(self.wanted)  # what it took for listed may not be any more
        self.views.adopt(state, self.history.ledger)
        self.views.is_whole = self.history.is_whole
        self.outcomes.drop_from(state.globals.seq)
        self._roll_backs_seen = len(self.log.answered())
        self.issuer.resume(self.log)
        self.acks.resume(state.globals.seq)

    def _lead(self, more: int = 0) -> Lead:
        """Whose ticks are made now, or after so many more roll-backs of L1."""
        return Lead(self.epoch, self.term, self._roll_backs_seen + more)

    async def _take_up(self, state: State, report: Report) -> None:
        """The log was rewritten, and gives `state`: goes on with it, in an honest engine, and tells everybody."""
        changed = await asyncio.to_thread(changed_accounts, self.state, state)
        await asyncio.to_thread(self._follow_with_history)
        self.adopt(state)
        self.driver.engine = Engine(state)
        self._prepare_engine()
        self.load_outcomes(report.first_seq)
        self.events.roll_back(report.first_seq, report.fills)
        self.ipc.broadcast(
            self.events.roll_back_events(report.batch_id, report.first_seq, changed, report.redone)
        )

    def _follow_with_history(self) -> None:
        """The log was rewritten: the history is cut at the same record, and takes in what stands there now."""
        try:
            self.recover()
        except (sqlite3.Error, HistoryDamaged, ReplayError) as error:
            logger.critical("the history does not follow the roll-back until the next start: %s", error)

    # --- keeper -----------------------------------------------------------------------------------

    def _keeper_records(self, now_s: int) -> list[bytes]:
        """The keeper looks once a second of the exchange's time, at what orders have died in every tick."""
        if now_s == self._keeper_looked_s:
            return self.keeper.sweeps(now_s)
        self._keeper_looked_s = now_s
        out = self.keeper.pass_one(now_s) + self.keeper.pass_two(now_s)
        self._offer_bids(now_s)
        return out

    def _offer_bids(self, now_s: int) -> int:
        bids = self.keeper.bids(now_s)
        for bid in bids:
            bid.arrived_ns = self.clock.monotonic_ns()
            self.driver.offer(bid)
        return len(bids)

    async def advance(self, now_s: int) -> None:
        """Steps a manual clock's exchange to `now_s`: reports and marks, then what follows, until nothing does."""
        self.clock.set(now_s)  # type: ignore[attr-defined]  # a ManualClock by contract
        self._keeper_looked_s = now_s
        self.driver.offer_system(self.keeper.pass_one(now_s))
        await self.driver.tick()
        for _ in range(64):
            again = self.keeper.pass_two(now_s)
            if not self._offer_bids(now_s) and not again:
                break
            self.driver.offer_system(again)
            await self.driver.tick()
        await self.driver.flush()
