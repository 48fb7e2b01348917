"""A node of a cluster that does not lead: executes what the leader logs, answers queries, and takes over from it.

All nodes of one member read one stream of log entries (log/jetstream.py), and each has a copy of it in its folder.
Whoever appends to the stream names the place that it expects, so that of two that would lead one succeeds. A node that
follows has the leader's state at every tick, compared by root; its acknowledgements and receipts, which come from the
same code; and its batches, since their ends stand in the log. To lead it appends its term, and goes on from there.

The leader's beats say that it is alive. They decide only when another tries; what the log takes decides who leads.
"""

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from sequencer.l1.sequencers import Standing
from sequencer.log.follower import Follower
from sequencer.log.interface import Entry, LogError, LogLost, Staged, Term, TurnBack
from sequencer.log.jetstream import Stream
from sequencer.node.service import Service
from sequencer.node.shared import SharedLog
from sequencer.node.silence import Silence
from sequencer.rollup.l1_worker import Deposed

BEAT_S: Final = 0.25
LOOK_S: Final = 0.05  # between looks at the leader's silence
INDEX_S: Final = 1.0  # between updates of the keeper's indexes, so that what has changed does not pile up
BEHIND_S_MAX: Final = 1e6  # as it is shown
BEHIND_MAX: Final = 8  # deliveries that wait to be executed; the stream waits then
ASK_S: Final = 2.0  # between questions to L1
AGAIN_S: Final = 1.0  # after a failed attempt to lead
TOLD_S: Final = 3 * BEAT_S  # a leader that lives is heard in this time by who is connected

logger = logging.getLogger(__name__)
_decode: Final = msgspec.msgpack.Decoder(Entry).decode


class Beat(msgspec.Struct, frozen=True, array_like=True):
    """What a leader says of itself, some times a second: its term, its name, and where its log ends."""

    term: int
    node: str
    places: int


@dataclass(frozen=True, slots=True)
class ClusterConfig:
    """`servers`: of the log. `name`: of this node. `lease_s`: silence of a leader after which another takes over.

    `is_reader`: never leads.
    """

    servers: tuple[str, ...]
    name: str
    lease_s: float = 2.0
    is_reader: bool = False


class Following:
    """Keeps a service that does not tick level with the stream, until this node leads.

    Another member's follower (succession.py) leads when L1 lets it.

    `ask_l1`: the set while this member leads on L1, None when L1 does not say; raises Deposed while another leads.
    """

    has_leaders_key = True

    def __init__(
        self, service: Service, stream: Stream, config: ClusterConfig, ask_l1: Callable[[], Standing | None]
    ) -> None:
        self.standing: Standing | None = None  # as L1 said last while this member led there
        self.l1_heard_s = 0.0  # when that was, monotonic
        self.ask_l1 = ask_l1
        self.deposed = ""
        self.service = service
        self.shared = SharedLog(service, self.has_leaders_key)
        self.stream = stream
        self.config = config
        self._loop = asyncio.get_running_loop()
        self._inbox: asyncio.Queue[tuple[int, Sequence[bytes]]] = asyncio.Queue(BEHIND_MAX)
        self._silence = Silence()
        self._beat = (0, 0.0)  # where its log ended by its last beat that is waited for, and when that came
        self._level_s = float("-inf")  # when this node last had all that the leader had then
        service.behind_s = self.behind_s
        self._not_before_s = 0.0
        self._indexed_s = 0.0
        self._patience_s = config.lease_s * (1 + 0.25 * random.random())  # noqa: S311  # two nodes not at once
        self._failure: Exception | None = None

    @property
    def silent_s(self) -> float:
        """For how long no leader was heard."""
        return self._silence.silent_s

    @property
    def is_idle(self) -> bool:
        """Whether all that has come is executed."""
        return self._inbox.empty()

    def behind_s(self) -> float:
        """Seconds since this node had every entry of the leader's; large before it has heard of one."""
        return min(time.monotonic() - self._level_s, BEHIND_S_MAX)

    async def run(self, stop: asyncio.Event) -> bool:
        """Follows until this node leads (True), or `stop` (False).

        Raises ReplayError when this node executes what the leader has logged to another root; LogError.
        """
        service = self.service
        follower = await asyncio.to_thread(
            self.stream.follow, service.log.places, self._on_bodies, self._on_failure
        )
        asking = asyncio.create_task(self.ask())
        try:
            while not stop.is_set():
                if self._failure is not None:
                    raise self._failure
                if asking.done():
                    asking.result()
                await self._step()
                self._silence.look()  # before the question whether to lead: this node may have just woken
                if self.may_lead() and await self.take_over():
                    return True
            return False
        finally:
            asking.cancel()
            await asyncio.to_thread(self._end_following, follower)

    async def ask(self) -> None:
        """Keeps what L1 says of this member at hand, so that nobody waits for L1 when the leader is gone."""
        while not self.config.is_reader:
            try:
                asked_s = time.monotonic()
                standing = await asyncio.to_thread(self.ask_l1)
                if standing is not None:
                    self.standing, self.l1_heard_s = standing, asked_s
                self.deposed = ""
            except Deposed as error:
                self.deposed = str(error)
            await asyncio.sleep(ASK_S)

    async def _step(self) -> None:
        """Executes what has come, or waits a little."""
        try:
            async with asyncio.timeout(LOOK_S):
                place, bodies = await self._inbox.get()
        except TimeoutError:
            self._index()
            return
        self._silence.heard()
        for body in bodies:
            if place >= self.service.log.places:  # else this node has it: it appended it itself
                await self._take(place, body)
            place += 1
        self._see_level()
        self._index()

    def _index(self) -> None:
        now_s = time.monotonic()
        if now_s - self._indexed_s >= INDEX_S:
            self._indexed_s = now_s
            self.service.keeper.index.update()
            self.service.keeper.index.orders.update()

    async def _take(self, place: int, body: bytes) -> None:
        """Puts an entry into this node's copy of the log, and executes it."""
        service = self.service
        try:
            entry = _decode(body)
        except msgspec.MsgspecError as error:
            raise LogError(f"place {place} of the stream is no entry: {error}") from error
        await service.driver.on_log_thread(service.log.take, [body], place)
        if isinstance(entry.control, Staged):
            return
        if isinstance(entry.control, TurnBack):
            logger.warning("batch %d was rolled back", entry.control.batch_id)
            await self.shared.turn_back(entry.control)
            return
        self.shared.execute(entry)
        if isinstance(entry.control, Term):
            logger.info("node %s leads, term %d", entry.control.node, entry.control.number)

    # --- on the stream's threads --------------------------------------------------------------------

    def _on_bodies(self, place: int, bodies: Sequence[bytes]) -> None:
        asyncio.run_coroutine_threadsafe(self._inbox.put((place, bodies)), self._loop).result()

    def _on_failure(self, error: Exception) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is gone
            self._loop.call_soon_threadsafe(self._failed, error)

    def _failed(self, error: Exception) -> None:
        self._failure = error

    def on_beat(self, payload: bytes) -> None:
        """A beat has come, on another thread."""
        with contextlib.suppress(RuntimeError):  # the loop is gone
            self._loop.call_soon_threadsafe(self._hear, payload)

    def _hear(self, payload: bytes) -> None:
        with contextlib.suppress(msgspec.MsgspecError):  # another version's
            beat = msgspec.msgpack.decode(payload, type=Beat)
            if beat.node != self.config.name and beat.term >= self.service.term:
                self._silence.heard()
                if self._beat[0] <= self.service.log.places:  # else that one is waited for first
                    self._beat = beat.places, time.monotonic()
                self._see_level()

    def _see_level(self) -> None:
        places, heard_s = self._beat
        if heard_s and places <= self.service.log.places:
            self._level_s = max(self._level_s, heard_s)

    def _end_following(self, follower: Follower) -> None:
        drained = asyncio.run_coroutine_threadsafe(self._drain(), self._loop)
        try:
            follower.stop()
        finally:
            self._loop.call_soon_threadsafe(drained.cancel)

    async def _drain(self) -> None:
        """Makes room, so that whoever delivers comes to an end."""
        while True:
            await self._inbox.get()

    # --- leading ------------------------------------------------------------------------------------

    def may_lead(self) -> bool:
        """Whether to try."""
        if self.config.is_reader or self.deposed or not self.is_idle:
            return False
        now_s = time.monotonic()
        return self.silent_s >= self._patience_s and now_s >= self._not_before_s

    async def take_over(self) -> bool:
        """Appends this node's term behind the last entry; False when the log has more, or another was first.

        A node that waited for the log's answer was cut off from it, and from the leader's beats: it listens first.
        """
        service, name = self.service, self.config.name
        asked_s = time.monotonic()
        self._not_before_s = asked_s + AGAIN_S
        number = service.term + 1
        try:
            if await asyncio.to_thread(self._asked_places) != service.log.places:
                return False  # what is missing is on its way
            answered_s = time.monotonic()
            if answered_s - asked_s > TOLD_S:
                self._not_before_s = answered_s + TOLD_S
                return False
            await self.shared.append(Term(number, name))
        except LogLost as error:
            logger.info("term %d: another node was first: %s", number, error)
            return False
        except LogError as error:
            logger.warning("term %d: %s", number, error)
            return False
        logger.warning("node %s leads, term %d: nobody was heard for %.1f s", name, number, self.silent_s)
        self.shared.show_leader(number, name)
        return True

    def _asked_places(self) -> int:
        """How many places the stream has. Opened anew, it takes appends again after one that was lost to another."""
        self.stream.open(create=False)
        return self.stream.last()

    def lead(self) -> None:
        """The service leads from now on, with what L1 has said meanwhile."""
        service, known = self.service, self.standing
        service.epoch = known.epoch if known is not None else self.shared.epoch()
        if service.worker is not None and known is not None:
            service.worker.knows(known, self.l1_heard_s)
        service.lead(self.shared.announce)

    async def beat(self) -> None:
        """Says some times a second that this node leads, until cancelled."""
        service = self.service
        while True:
            payload = Beat(service.term, self.config.name, service.log.places)
            self.stream.beat(msgspec.msgpack.encode(payload))
            await asyncio.sleep(BEAT_S)
