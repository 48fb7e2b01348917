"""Vouched signatures: every signature is checked once more before L1 sees its record.

A gateway recovers signers for the engine, so a faulty or compromised one could name any signer. Every watcher would
find a record that its signer has not signed wrong, and it would cost the bond. So each durable tick's records go, with
the named signers, to a separate process (signatures.py). Nothing is posted before that process has checked it; the
first forged record is reported to the sequencer, which re-executes everything from it on.
"""

import asyncio
import contextlib
import logging
import queue
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from sequencer.rollup import signatures

CHUNK_RECORDS: Final = 256  # a millisecond of a core, ten if no key is known; on idle cores it may take long
BACKLOG_MAX: Final = 50_000  # records: beyond it new risk is refused, at twice as much all but cancels
URGENT_RECORDS: Final = (
    10_000  # beyond it they are checked beside orders; before, when a core has nothing else to do
)
RESTART_S: Final = 1.0
STOP_S: Final = 5.0

logger = logging.getLogger(__name__)


@dataclass(slots=True)  # not frozen: one is made for every order, and that costs twice as much
class Claim:
    """Record `seq`, the signer that was named for it, and who named it."""

    seq: int
    raw: bytes
    signer: bytes
    source: object = None


@dataclass(slots=True)
class _Tick:
    """One that is durable: where log and numbers go on after it, and how many of its claims are still to come back."""

    offset: int
    seq: int
    left: int


@dataclass(frozen=True, slots=True)
class _Question:
    generation: int
    claims: list[Claim]


class Vouched:
    """Has claims checked in their order, on a thread that talks to the process; all else is the loop's.

    `offset` and `seq`: the log and the numbers before which every signature is known to be good. `error`: why nothing
    can be checked now. `on_forged` gets the first claim that is not true; what comes after it is not looked at before
    `begin` has been told where to go on.
    """

    def __init__(
        self,
        domain: bytes,
        on_forged: Callable[[Claim], None],
        on_checked: Callable[[], None] = lambda: None,
    ) -> None:
        self.offset = 0
        self.seq = 0
        self.error = ""
        self.checked = 0  # claims, since the start
        self.backlog = 0  # claims not answered yet
        self._domain = domain
        self._on_forged = on_forged
        self._on_checked = on_checked
        self._ticks: deque[_Tick] = deque()
        self._is_stopped = False
        self._is_forged = False
        self._generation = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._questions: queue.SimpleQueue[_Question | None] = queue.SimpleQueue()
        self._held: _Question | None = None  # taken from there, and too large to go with the one before
        self._thread = threading.Thread(target=self._run, name="signatures", daemon=True)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """Pid of the checking process, if there is one."""
        process = self._process
        return None if process is None else process.pid

    def begin(self, offset: int, seq: int) -> None:
        """Everything before counts as verified; requests in progress no longer count."""
        self.offset, self.seq = offset, seq
        self._generation += 1
        self._is_forged = False
        self._ticks.clear()
        self.backlog = 0

    def add(self, claims: list[Claim], offset: int, seq: int) -> None:
        """Adds a durable tick: its claims, and the log's and records' positions after it."""
        if self._is_forged:
            return
        if not claims and not self._ticks:
            self.offset, self.seq = offset, seq
            return
        self._ticks.append(_Tick(offset, seq, len(claims)))
        self.backlog += len(claims)
        for start in range(0, len(claims), CHUNK_RECORDS):
            self._ask(_Question(self._generation, claims[start : start + CHUNK_RECORDS]))

    def _ask(self, question: _Question) -> None:
        if not self._thread.is_alive() and not self._is_stopped:
            self._loop = asyncio.get_running_loop()
            self._thread.start()
        self._questions.put(question)

    def _answered(self, question: _Question, forged: int | None) -> None:
        """On the loop: an answer has arrived."""
        if question.generation != self._generation or self._is_forged:
            return
        good = len(question.claims) if forged is None else forged
        self.checked += good
        self.backlog -= good
        while self._ticks and (good or not self._ticks[0].left):
            tick = self._ticks[0]
            taken = min(good, tick.left)
            tick.left -= taken
            good -= taken
            if tick.left:
                break
            self.offset, self.seq = tick.offset, tick.seq
            self._ticks.popleft()
        if forged is None:
            self._on_checked()
            return
        self._is_forged = True
        self._on_forged(question.claims[forged])

    # --- the thread -------------------------------------------------------------------------------

    def _run(self) -> None:
        while (question := self._next()) is not None:
            while not self._is_stopped:
                try:
                    forged = self._check(question)
                except (OSError, EOFError) as error:
                    self._failed(error)
                    continue
                self.error = ""
                assert self._loop is not None
                with contextlib.suppress(RuntimeError):  # the loop has ended
                    self._loop.call_soon_threadsafe(self._answered, question, forged)
                break
        self._end()

    def _next(self) -> _Question | None:
        """The next question, with those behind it that fit: what has waited is checked together."""
        question = self._held or self._questions.get()
        self._held = None
        while question is not None and not self._questions.empty():
            following = self._questions.get()
            if following is None:
                self._questions.put(None)  # the end comes behind this question
                break
            claims = question.claims + following.claims
            if following.generation != question.generation or len(claims) > CHUNK_RECORDS:
                self._held = following
                break
            question = _Question(question.generation, claims)
        return question

    def _check(self, question: _Question) -> int | None:
        """Sends a request to the process, which is started if necessary. Raises OSError, EOFError."""
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "sequencer.rollup.signatures", self._domain.hex()],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        claims = [(one.raw, one.signer) for one in question.claims]
        process.stdin.write(signatures.encoded(claims, self.backlog > URGENT_RECORDS))
        process.stdin.flush()
        answer = process.stdout.read(signatures.PREFIX_BYTES)
        if len(answer) < signatures.PREFIX_BYTES:
            raise EOFError("it has ended")
        place = int.from_bytes(answer, "big")
        return None if place == signatures.NONE else place

    def _failed(self, error: Exception) -> None:
        self.error = f"the process that checks signatures: {error}: nothing is posted before it is back"
        logger.critical("%s", self.error)
        self._end()
        threading.Event().wait(RESTART_S)

    def _end(self) -> None:
        """Ends the process."""
        process, self._process = self._process, None
        if process is None:
            return
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def stop(self) -> None:
        """Ends thread and process; the next start verifies the rest by executing it."""
        self._is_stopped = True
        self._questions.put(None)
        if self._thread.is_alive():
            self._thread.join(STOP_S)
            if (process := self._process) is not None and self._thread.is_alive():  # it does not respond
                process.kill()
                self._thread.join()
