"""The sequencer's end of its L1 process: starts it, tells it what is new, hears its reports, starts it again.

All of it is the loop's. What the process has said last can be read at any time; after its death it stays what it was,
and `unseen_s` grows, so that the brake (node/brake.py) holds for a process that is away as for an L1 that is.
"""

import asyncio
import contextlib
import logging
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast

from sequencer.l1.deploy import Deployment
from sequencer.l1.follower import InboxMessage
from sequencer.l1.poster import Posted, gas_of
from sequencer.l1.sequencers import Standing
from sequencer.l1.signing import Signer
from sequencer.rollup.l1_messages import (
    PREFIX_BYTES,
    BatchesPosted,
    Begin,
    Failed,
    InboxPart,
    IsDeposed,
    L1Config,
    L1Time,
    Logged,
    Look,
    Messages,
    Notice,
    Now,
    Report,
    Stop,
    frame,
    size_of,
    to_report,
)

COMMAND: Final = (sys.executable, "-m", "sequencer.rollup.l1_process")
RESTART_FIRST_S: Final = 1.0
RESTART_MAX_S: Final = 5.0
STOP_S: Final = 5.0  # for its present step
UNREAD_BYTES_MAX: Final = 64 * 1024  # of commands; beyond it only the newest `Now` waits

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class L1Handlers:
    """What the sequencer does with reports, and what of it the process has to know. All are called on the loop.

    `inbox_position`: how many of the inbox's messages the log holds, and their running hash. `verified`: the record
    before which every signature has been checked; `on_unverified`: a batch waits for more of that.
    """

    inbox_position: Callable[[], tuple[int, bytes]]
    verified: Callable[[], int]
    on_messages: Callable[[list[InboxMessage]], None]
    on_posted: Callable[[list[Posted]], None]
    on_rolled_back: Callable[[Notice], None]
    on_deposed: Callable[[str, bool], None]
    on_l1_time: Callable[[int, int], None]
    on_unverified: Callable[[], None]


class Child:
    """The process, as started: it gets ready, and waits for `Begin`. `held`: files that stay open in it."""

    def __init__(self, held: tuple[int, ...] = ()) -> None:
        self.process = subprocess.Popen(COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=held)

    def end(self) -> int:
        """Lets it go, by force if it does not; its status."""
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        try:
            return self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()


class Children:
    """Starts the processes of one folder. `held`: files that each holds as long as it lives, the lock of the folder:
    so nobody else begins there while one may still send something.
    """

    def __init__(self, held: tuple[int, ...] = ()) -> None:
        self._held = held
        self._ready: Child | None = None

    def prepare(self) -> None:
        """Starts one ahead: it has what it needs in memory by the time that it is taken."""
        if self._ready is None:
            self._ready = Child(self._held)

    def take(self) -> Child:
        """The one that is ready, or a new one."""
        child, self._ready = self._ready, None
        return child or Child(self._held)

    def close(self) -> None:
        """Ends the one that nobody has taken."""
        child, self._ready = self._ready, None
        if child is not None:
            child.end()


class _Line(asyncio.BaseProtocol):
    """The way to the process: `Now`s wait while it does not read, and only the last of them."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self.transport: asyncio.WriteTransport | None = None
        self.is_full = False
        self.is_late = False  # a `Now` was left out

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        line = cast(asyncio.WriteTransport, transport)  # uvloop's are none by their class
        line.set_write_buffer_limits(high=UNREAD_BYTES_MAX)
        self.transport = line

    def connection_lost(self, _error: Exception | None) -> None:
        self.transport = None

    def pause_writing(self) -> None:
        self.is_full = True

    def resume_writing(self) -> None:
        self.is_full = False
        if self.is_late:
            self.is_late = False
            self._wake()


class L1Link:
    """Between `start` and `stop` there is a process, of `children`."""

    def __init__(
        self,
        url: str,
        deployment: Deployment,
        signer: Signer,
        folder: Path,
        config: L1Config,
        handlers: L1Handlers,
        epoch: int = 0,
        children: Children | None = None,
    ) -> None:
        self._url = url
        self._deployment = deployment
        self._signer = signer
        self._folder = folder
        self._config = config
        self._on = handlers
        self._epoch = epoch
        self._children = children or Children()
        self._child: Child | None = None
        self._line: _Line | None = None
        self._task: asyncio.Task[None] | None = None
        self._is_ending = False
        self._ending = asyncio.Event()
        self._number = self._again = 0
        self._refused = ""
        self._paused = False
        self._look = Look()
        self._before = Look()  # sums of the processes before this one
        self._inbox: list[bytes] = []  # of a Notice that is coming
        self._standing: Standing | None = None
        self._problem = ""  # why there is no process now
        self._looks_awaited: list[tuple[int, asyncio.Future[None]]] = []
        self._heard_before_s: float | None = None  # before the start
        self.restarts = 0  # of the process, after an end that nobody wanted

    # --- what it has said ---------------------------------------------------------------------------

    @property
    def pid(self) -> int | None:
        """Of the process, while there is one."""
        return self._child.process.pid if self._child is not None else None

    @property
    def last_error(self) -> str:
        """What is wrong between the sequencer and L1; empty: nothing."""
        return self._problem or self._look.last_error

    @property
    def standing(self) -> Standing | None:
        """The set as last read."""
        return self._standing

    @property
    def next_on_l1(self) -> int:
        """The batch id that L1 asks for, as last seen; 0 before it was."""
        return self._look.next_on_l1

    @property
    def unverified(self) -> int:
        """The batch that waits for its signatures' check; 0: none."""
        return self._look.unverified

    @property
    def hears(self) -> bool:
        """Whether the node tells of new heads."""
        return self._look.hears

    @property
    def looks(self) -> int:
        """Looks at L1 that came to their end."""
        return self._before.looks + self._look.looks

    @property
    def posted(self) -> int:
        """The last batch that is confirmed."""
        return self._look.posted

    @property
    def gas_used(self) -> int:
        """By batches since the start."""
        return self._before.gas_used + self._look.gas_used

    @property
    def blob_gas_used(self) -> int:
        """By batches since the start."""
        return self._before.blob_gas_used + self._look.blob_gas_used

    @property
    def bytes_posted(self) -> int:
        """Of payload, since the start."""
        return self._before.bytes_posted + self._look.bytes_posted

    def unseen_s(self) -> float | None:
        """For how long L1 has not said that this sequencer leads, or may again; None: not since the start."""
        heard_s = self._look.heard_s if self._look.heard_s is not None else self._heard_before_s
        return None if heard_s is None else time.monotonic() - heard_s

    def head_age_s(self) -> int | None:
        """How old L1's newest block is by the machine's clock, seconds; None before one was seen."""
        head_s = self._look.head_time_s
        return None if head_s is None else int(time.time()) - head_s

    def can_pay(self, unbatched_bytes: int) -> tuple[int | None, int]:
        """What the key has, None before that is known, and what posting all that waits and a batch more may cost, wei;
        of blobs, without their own gas.
        """
        look = self._look
        if look.balance is None:
            return None, 0
        gas = gas_of(look.queued + 1, look.queued_bytes + unbatched_bytes, self._deployment.in_blobs)
        return int(look.balance), int(look.gas_price) * gas

    # --- what it is told ----------------------------------------------------------------------------

    @property
    def paused(self) -> bool:
        """No batch is offered; what is on its way is followed, deposits too."""
        return self._paused

    @paused.setter
    def paused(self, is_paused: bool) -> None:
        self._paused = is_paused
        self._send_now(wake=True)

    def knows(self, standing: Standing, heard_s: float) -> None:
        """What L1 has said before the start: the set in which this sequencer leads, and when (monotonic, s)."""
        self._standing, self._heard_before_s = standing, heard_s

    def wake(self) -> None:
        """Has it look now instead of at the next poll."""
        self._send_now(wake=True)

    def tell(self) -> None:
        """Where the inbox stands in the log has changed."""
        self._send_now()

    def tell_again(self) -> None:
        """The log has gone back: messages from where it ends are to come once more."""
        self._again += 1
        self._send_now()

    def resume(self, epoch: int) -> None:
        """The roll-backs reported are answered: the batches that are stored now go out, as those of `epoch`."""
        self._epoch, self._refused = epoch, ""
        self._send_now(wake=True)

    def refuse(self, reason: str) -> None:
        """The roll-backs reported have no answer: nothing is posted any more, and `last_error` says why."""
        self._refused = reason
        self._send_now(wake=True)

    async def looked(self) -> None:
        """Returns once a look has ended that began after all that the process was told before."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._looks_awaited.append((self._number + 1, future))
        self._send_now(wake=True)
        await future

    def _send_now(self, wake: bool = False) -> None:
        self._number += 1
        line = self._line
        if line is None or line.transport is None:
            return  # the next process begins with it
        if line.is_full:
            line.is_late = True
            return
        line.transport.write(frame(self._now(wake)))

    def _now(self, wake: bool = False) -> Now:
        count, running = self._on.inbox_position()
        return Now(
            *(self._number, count, running, self._again, self._on.verified(), self._epoch, self._refused),
            *(self._paused, wake),
        )

    # --- life ---------------------------------------------------------------------------------------

    def start(self) -> None:
        """Starts the process, and keeps one."""
        self._task = asyncio.create_task(self._keep())

    async def stop(self) -> None:
        """Ends the process after its present step, or when that takes too long."""
        self._is_ending = True
        self._ending.set()
        line = self._line
        if line is not None and line.transport is not None:
            line.transport.write(frame(Stop()))
        if self._task is not None:
            try:
                await asyncio.wait_for(asyncio.shield(self._task), STOP_S)
            except TimeoutError:
                if self._child is not None:
                    self._child.process.kill()
                await self._task
        for _, future in self._looks_awaited:
            future.cancel()

    async def _keep(self) -> None:
        """Has a process at work until the end; after one that ends by itself comes the next."""
        wait_s = RESTART_FIRST_S
        while not self._is_ending:
            began_s = time.monotonic()
            try:
                ended, where = await self._live()
            except Exception as error:  # of this end: nothing may be posted for want of a task
                ended, where = f"its report: {error!r}", ""
                logger.critical("L1: a report was not taken", exc_info=True)
            if self._is_ending:
                return
            self.restarts += 1
            if time.monotonic() - began_s > RESTART_MAX_S:
                wait_s = RESTART_FIRST_S
            self._problem = f"the L1 process has ended ({ended}) and starts again in {wait_s:.0f} s"
            logger.critical("%s%s", self._problem, f"\n{where}" if where else "")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ending.wait(), wait_s)
            wait_s = min(2 * wait_s, RESTART_MAX_S)

    async def _live(self) -> tuple[str, str]:
        """One process, from `Begin` to its end: what it died of, and where. Raises what a handler raises."""
        loop = asyncio.get_running_loop()
        child = self._child = await asyncio.to_thread(self._children.take)
        process = child.process
        assert process.stdin is not None
        assert process.stdout is not None
        failed: Failed | None = None
        try:
            reader = asyncio.StreamReader()
            source, _ = await loop.connect_read_pipe(
                lambda: asyncio.StreamReaderProtocol(reader), process.stdout
            )
            sink, line = await loop.connect_write_pipe(lambda: _Line(self.wake), process.stdin)
            try:
                self._inbox = []
                sink.write(frame(self._begin()))
                self._line = line
                if self._is_ending:
                    sink.write(frame(Stop()))
                while (report := await _read(reader)) is not None:
                    if isinstance(report, Failed):
                        failed = report
                    else:
                        self._take(report)
            finally:
                self._line = None
                if not sink.is_closing():
                    sink.abort()  # what nobody has read is of no use
                source.close()
        finally:
            self._child = None
            status = await asyncio.to_thread(child.end)
            look, before = self._look, self._before
            self._before = Look(
                looks=before.looks + look.looks,
                gas_used=before.gas_used + look.gas_used,
                blob_gas_used=before.blob_gas_used + look.blob_gas_used,
                bytes_posted=before.bytes_posted + look.bytes_posted,
            )
            self._look = Look(
                **{
                    name: getattr(look, name)
                    for name in ("standing", "heard_s", "head_time_s", "next_on_l1", "balance", "gas_price")
                },
                queued=look.queued,
                queued_bytes=look.queued_bytes,
                posted=look.posted,
            )
        if failed is not None:
            return failed.text, failed.where
        return signal.Signals(-status).name if status < 0 else f"status {status}", ""

    def _begin(self) -> Begin:
        return Begin(
            *(self._url, self._deployment, self._signer.secret(), str(self._folder), self._config),
            *(self._now(), logging.getLogger().getEffectiveLevel()),
        )

    def _take(self, report: Report) -> None:
        """One report."""
        on = self._on
        match report:
            case Look():
                self._see(report)
            case L1Time():
                on.on_l1_time(report.time_s, report.ahead_max_s)
            case Messages():
                on.on_messages(report.messages)
            case BatchesPosted():
                on.on_posted(report.posted)
            case InboxPart():
                self._inbox += report.records
                if report.events:
                    inbox, self._inbox, self._refused = self._inbox, [], ""
                    on.on_rolled_back(Notice([one.event() for one in report.events], inbox))
            case IsDeposed():
                on.on_deposed(report.why, report.is_final)
            case Logged():
                logging.getLogger(report.name).log(report.level, "%s", report.text)

    def _see(self, look: Look) -> None:
        self._problem = ""
        if look.standing is not None and look.standing != self._look.standing:
            self._standing = look.standing.standing()
        self._look = look
        if look.unverified:
            self._on.on_unverified()
        while self._looks_awaited and self._looks_awaited[0][0] <= look.heard:
            _, future = self._looks_awaited.pop(0)
            if not future.done():
                future.set_result(None)


async def _read(reader: asyncio.StreamReader) -> Report | None:
    """The next report; None when the process has ended. Raises LineBroken."""
    try:
        size = size_of(await reader.readexactly(PREFIX_BYTES))
        return to_report(await reader.readexactly(size))
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
