"""The replicated log: one stream of JetStream, on three servers, that acknowledges what a majority has on its disks.

A place of the log is a message: place p is the stream's sequence p + 1. A writer appends with the sequence that it
expects the stream to end at, so that of two writers one gets each place. A retry of the same body at the same place
is harmless, and what stands at a place tells whose it was.
"""

import asyncio
import logging
import time
import uuid
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final, TypeVar

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import (
    ConnectionClosedError,
    ConnectionDrainingError,
    MaxPayloadError,
    NoRespondersError,
    OutboundBufferLimitError,
)
from nats.errors import Error as NatsError
from nats.errors import TimeoutError as NatsTimeout
from nats.js import JetStreamContext, api
from nats.js.errors import APIError, NoStreamResponseError, NotFoundError, ServiceUnavailableError

from sequencer.log.follower import Follower, OnBodies, OnFailure
from sequencer.log.interface import LogError, LogLost
from sequencer.log.jetstream_config import (
    BODY_BYTES,
    NAME,
    Replica,
    StreamDamaged,
    StreamStatus,
    body_id,
    check_body,
    check_config,
    subjects,
    wanted_config,
)
from sequencer.log.jetstream_errors import NAME_TAKEN, NO_PEERS, Outcome, batches_of, meaning, words_of
from sequencer.log.nats_link import Access, Link

logger = logging.getLogger(__name__)

Result = TypeVar("Result")
OnBeat = Callable[[bytes], None]

READ_AHEAD: Final = 16  # requests on their way to the servers
BEAT_BYTES: Final = 1024
BEATS_WAITING: Final = 64
PATIENCE_S: Final = 20.0  # servers that lose their leader elect another within 9 s
ATTEMPT_S: Final = 2.0  # for one acknowledgement, before the same is sent again
PAUSE_S: Final = 0.05  # between attempts that nobody took
REPLICAS: Final = 3
NO_LEADER: Final = "the stream has no leader: a majority of its servers is needed"


class Stream:
    """The stream as one node uses it: appends if it leads, reads and follows otherwise. Methods may block.

    `servers`: URLs of all of them; the client is connected to one that answers. `patience_s`: for how long an append,
    a read or an opening is tried. All methods raise LogError when the servers cannot be reached in that time.
    """

    def __init__(
        self,
        servers: Sequence[str],
        name: str,
        *,
        access: Access | None = None,
        replicas: int = REPLICAS,
        patience_s: float = PATIENCE_S,
        attempt_s: float = ATTEMPT_S,
        max_bytes: int = -1,
    ) -> None:
        if not servers:
            raise ValueError("servers: give at least one URL")
        if NAME.fullmatch(name) is None:
            raise ValueError(f"name of the stream: 1 to 64 of A-Z a-z 0-9 _ -, not {name!r}")
        self.name = name
        self._subject, self._copy, self._lead = subjects(name)
        self._wanted = wanted_config(name, replicas, max_bytes)
        self._patience_s = patience_s
        self._attempt_s = attempt_s
        self._link = Link(list(servers), access or Access(), f"fairstrike {name}")
        self._lost = ""
        self._followers: list[Follower] = []

    # --- opening ----------------------------------------------------------------------------------

    def open(self, *, create: bool = True) -> None:
        """Connects, and checks the stream; makes it when there is none and `create`. Also after LogLost.

        Raises LogError: nobody answers, or the stream is not what it must be.
        """
        self._run(self._open(create))
        self._lost = ""

    async def _open(self, create: bool) -> None:
        end = time.monotonic() + self._patience_s
        try:
            info = await self._info(end)
        except NotFoundError:
            if not create:
                raise LogError(f"the servers have no stream {self.name}") from None
            info = await self._created(end)
        check_config(self._wanted, info.config)
        while not (info.cluster and info.cluster.leader):
            if time.monotonic() > end:
                raise LogError(NO_LEADER)
            await asyncio.sleep(PAUSE_S)
            info = await self._info(end)

    async def _created(self, end: float) -> api.StreamInfo:
        """The stream, made unless another node has made it meanwhile."""
        while True:
            try:
                return await (await self._js(end)).add_stream(self._wanted)
            except (APIError, NatsError) as error:
                # Servers that have just started do not know each other yet.
                is_early = not isinstance(error, APIError) or error.err_code == NO_PEERS or error.code == 503
                if isinstance(error, APIError) and error.err_code == NAME_TAKEN:
                    return await self._info(end)  # with another configuration: the check says which
                if not is_early or time.monotonic() > end:
                    raise LogError(f"stream {self.name} cannot be made: {words_of(error)}") from error
                await asyncio.sleep(PAUSE_S)

    def check(self) -> None:
        """Raises LogError while the stream has no leader that would take an append."""
        self._run(self._open(create=False))

    # --- appending --------------------------------------------------------------------------------

    def append(self, place: int, bodies: Sequence[bytes]) -> None:
        """Puts `bodies` at `place` and the places behind it: all of them, or none. Returns when a majority has them.

        Raises LogError, and then none of them is in the stream nor will be; LogLost when another node has appended
        there, or when nobody can say: then only `open` allows another append.
        """
        if self._lost:
            raise LogLost(self._lost)
        for at, body in enumerate(bodies, start=place):
            if len(body) > BODY_BYTES:
                raise LogError(f"body at place {at} has {len(body)} bytes, of at most {BODY_BYTES}")
        try:
            for first, batch in batches_of(place, bodies):
                try:
                    self._run(self._append(first, batch))
                except LogLost:
                    raise
                except LogError as error:
                    if first == place:
                        raise
                    raise LogLost(
                        f"{error.reason}; {first - place} of {len(bodies)} bodies are durable"
                    ) from error
        except LogLost as error:
            self._lost = error.reason
            raise

    async def _append(self, place: int, bodies: list[bytes]) -> None:
        end = time.monotonic() + self._patience_s
        may_stand, reason = False, "no server has answered"
        while True:
            outcome, reason = await self._attempt(place, bodies, end, reason)
            if outcome is Outcome.APPENDED:
                return
            if outcome is Outcome.REFUSED and not may_stand:
                raise LogError(reason)
            may_stand |= outcome is Outcome.UNKNOWN
            is_late = time.monotonic() >= end
            if outcome is Outcome.LOOK or is_late:
                look_end = max(end, time.monotonic() + self._attempt_s)
                if await self._stands(place, bodies, look_end):
                    return
                if is_late:
                    await self._give_up(place, outcome, look_end)
            if is_late and not may_stand and outcome is not Outcome.LOOK:
                raise LogError(reason)
            if is_late:
                raise LogLost(f"{reason}; whether what was appended at place {place} is durable is unknown")
            await asyncio.sleep(PAUSE_S)

    async def _attempt(self, place: int, bodies: list[bytes], end: float, reason: str) -> tuple[Outcome, str]:
        """One attempt, and why it failed. `reason`: of the one before."""
        try:
            client = await self._link.client(max(0.01, end - time.monotonic()))
        except TimeoutError:
            return (
                Outcome.UNSENT,
                f"no server of the stream can be reached: {self._link.last_error or reason}",
            )
        timeout_s = max(0.1, min(self._attempt_s, end - time.monotonic()))
        try:
            if len(bodies) == 1:
                publishing = self._publish(client, place, bodies[0], timeout_s)
            else:
                publishing = self._publish_all(client, place, bodies, timeout_s)
            ack = await self._link.while_connected(publishing)
        except (NoStreamResponseError, NoRespondersError):
            return Outcome.UNSENT, NO_LEADER
        except (ConnectionClosedError, ConnectionDrainingError, OutboundBufferLimitError) as error:
            return (
                Outcome.UNSENT,
                f"the connection to {self._link.server or 'the server'} ended: {words_of(error)}",
            )
        except MaxPayloadError:
            return (
                Outcome.REFUSED,
                f"the servers take no message of {max(map(len, bodies))} bytes: max_payload",
            )
        except APIError as error:
            return meaning(error)
        except (NatsError, TimeoutError) as error:
            # What was sent through a server that hangs may come late: the next attempt goes through another.
            is_silent = isinstance(error, NatsTimeout | TimeoutError)
            what = f"did not answer{self._refused()}" if is_silent else words_of(error)
            return Outcome.UNKNOWN, f"the stream's servers: {what}"
        last = place + len(bodies)
        if ack.duplicate or ack.seq != last:
            return Outcome.LOOK, f"the stream acknowledged sequence {ack.seq}, {last} was expected"
        return Outcome.APPENDED, ""

    async def _publish(self, client: Client, place: int, body: bytes, timeout_s: float) -> api.PubAck:
        headers: dict[str, str] = {
            api.Header.EXPECTED_STREAM.value: self.name,
            api.Header.EXPECTED_LAST_SEQUENCE.value: str(place),
            api.Header.MSG_ID.value: body_id(place, body),
        }
        return await client.jetstream().publish(self._subject, body, timeout=timeout_s, headers=headers)

    async def _publish_all(
        self, client: Client, place: int, bodies: list[bytes], timeout_s: float
    ) -> api.PubAck:
        """As one atomic batch. (Messages sent one by one without waiting could end up around another's body.)"""
        batch = uuid.uuid4().hex
        for index, body in enumerate(bodies):
            headers: dict[str, str] = {
                api.Header.EXPECTED_STREAM.value: self.name,
                api.Header.MSG_ID.value: body_id(place + index, body),
                "Nats-Batch-Id": batch,
                "Nats-Batch-Sequence": str(index + 1),
            }
            if index == 0:
                headers[api.Header.EXPECTED_LAST_SEQUENCE] = str(place)
            if index == len(bodies) - 1:
                headers["Nats-Batch-Commit"] = "1"
                return await client.jetstream().publish(
                    self._subject, body, timeout=timeout_s, headers=headers
                )
            await client.publish(self._subject, body, headers=headers)
        raise AssertionError("no bodies")

    async def _stands(self, place: int, bodies: list[bytes], end: float) -> bool:
        """Whether `bodies` stand in the stream. Raises LogLost when others stand there, or the stream is shorter."""
        try:
            found = await self._read(place, len(bodies), end)
        except StreamDamaged as error:
            raise LogLost(error.reason) from error
        except LogError:
            return False  # nobody can be asked
        if not found:
            return False  # not yet: what the servers have still to commit is not shown
        if found == bodies:
            return True
        at = next((i for i, (a, b) in enumerate(zip(found, bodies, strict=False)) if a != b), len(found))
        raise LogLost(f"another node leads: place {place + at} of the stream is not this node's")

    async def _give_up(self, place: int, outcome: Outcome, end: float) -> None:
        """Raises LogLost when the stream ends before `place`, up to which this node knows it."""
        if outcome is not Outcome.LOOK:
            return
        last = (await self._info(end)).state.last_seq
        if last < place:
            raise LogLost(
                f"the stream ends at place {last}, before place {place}: what was acknowledged is missing from it"
            )

    # --- reading ----------------------------------------------------------------------------------

    def last(self) -> int:
        """How many places the stream has, by its leader's word."""
        return self._run(self._last(time.monotonic() + self._patience_s))

    async def _last(self, end: float) -> int:
        state = (await self._info(end)).state
        if state.first_seq > 1 or state.messages != state.last_seq:
            place = state.first_seq - 1 if state.first_seq <= 1 else 0
            raise StreamDamaged(
                place,
                f"stream {self.name} lacks {state.last_seq - state.messages} of its {state.last_seq} bodies; "
                f"the first that it has is at place {state.first_seq - 1}",
            )
        return state.last_seq

    def read(self, place: int, count: int) -> list[bytes]:
        """The bodies at up to `count` places from `place` on, in order; fewer where the stream ends.

        Raises StreamDamaged when a body is missing or is not what was appended there.
        """
        return self._run(self._read(place, count, time.monotonic() + self._patience_s))

    async def _read(self, place: int, count: int, end: float) -> list[bytes]:
        bodies: list[bytes] = []
        at, stop = place, place + count
        while at < stop:
            wanted = range(at, min(stop, at + READ_AHEAD))
            found = await asyncio.gather(*(self._get(one, end) for one in wanted))
            for one, body in zip(wanted, found, strict=True):
                if body is None:
                    await self._check_end(one, end)
                    return bodies
                bodies.append(body)
            at = wanted.stop
        return bodies

    async def _check_end(self, place: int, end: float) -> None:
        """Raises StreamDamaged when the stream has no body at `place` and yet goes on behind it."""
        state = (await self._info(end)).state
        if state.last_seq > place and await self._get(place, end) is None:
            raise StreamDamaged(
                place, f"stream {self.name} has no body at place {place}, and yet {state.last_seq} places"
            )

    async def _get(self, place: int, end: float) -> bytes | None:
        """The body at a place, from the stream's leader; None when there is none."""
        try:
            found = await self._asked(lambda js: js.get_msg(self.name, seq=place + 1), end)
        except NotFoundError:
            return None
        body = found.data or b""
        check_body(self.name, place, body, (found.headers or {}).get(api.Header.MSG_ID, ""))
        return body

    async def _info(self, end: float) -> api.StreamInfo:
        return await self._asked(lambda js: js.stream_info(self.name), end)

    async def _asked(
        self, ask: Callable[[JetStreamContext], Coroutine[Any, Any, Result]], end: float
    ) -> Result:
        """An answer of the servers, asked until one comes. NotFoundError passes; LogError: none in time."""
        while True:
            try:
                return await self._link.while_connected(ask(await self._js(end)))
            except NotFoundError:
                raise
            except (ServiceUnavailableError, NoRespondersError):
                reason = NO_LEADER
            except NatsTimeout:
                reason = f"the stream's servers did not answer{self._refused()}"
            except (APIError, NatsError) as error:
                reason = f"the stream's servers: {words_of(error)}"
            if time.monotonic() >= end:
                raise LogError(reason)
            await asyncio.sleep(PAUSE_S)

    def _refused(self) -> str:
        """A refusal of permissions comes beside the answer, not as one."""
        error = self._link.last_error
        return f": {error}" if "ermissions" in error else ""

    async def _js(self, end: float) -> JetStreamContext:
        left_s = max(0.01, end - time.monotonic())
        client = await self._client(left_s)
        return client.jetstream(timeout=max(0.1, min(self._attempt_s, left_s)))

    async def _client(self, patience_s: float) -> Client:
        try:
            return await self._link.client(patience_s)
        except TimeoutError:
            why = self._link.last_error or "no answer"
            raise LogError(f"no server of the stream can be reached: {why}") from None

    # --- following --------------------------------------------------------------------------------

    def follow(self, place: int, on_bodies: OnBodies, on_failure: OnFailure | None = None) -> Follower:
        """Hands on the bodies from `place` on, in order, each once, as they are committed, until `Follower.stop`.

        `on_bodies(place, bodies)` is called on a thread of the follower's own, one call at a time. What it raises,
        and StreamDamaged, end the follower: `on_failure` gets it.
        """
        follower = Follower(self._link, self._copy, place, on_bodies, on_failure)
        follower.start(self._follow_read, self._follow_check)
        self._followers.append(follower)
        return follower

    async def _follow_read(self, place: int, count: int) -> list[bytes]:
        return await self._read(place, count, time.monotonic() + self._patience_s)

    def _follow_check(self, place: int, body: bytes, message_id: str) -> None:
        check_body(self.name, place, body, message_id)

    # --- signs of life ----------------------------------------------------------------------------

    def beat(self, payload: bytes) -> None:
        """Tells the followers that this node leads. Not stored; lost while no server is connected. Does not block."""
        if len(payload) > BEAT_BYTES:
            raise ValueError(f"beat: {len(payload)} bytes, of at most {BEAT_BYTES}")
        self._link.soon(self._beat(payload))

    async def _beat(self, payload: bytes) -> None:
        try:
            client = await self._link.client(0.01)
            await client.publish(self._lead, payload)
        except (NatsError, TimeoutError) as error:
            logger.debug("beat not sent: %s", words_of(error))

    def on_beat(self, callback: OnBeat) -> None:
        """Calls back for each beat, on the stream's thread: it has to be short. Anyone who may publish can send one."""

        async def heard(message: Msg) -> None:
            if len(message.data) <= BEAT_BYTES:
                callback(message.data)

        async def subscribe() -> None:
            client = await self._client(self._patience_s)
            await client.subscribe(self._lead, cb=heard, pending_msgs_limit=BEATS_WAITING)

        self._run(subscribe())

    # --- state ------------------------------------------------------------------------------------

    def status(self) -> StreamStatus:
        """What is known at the moment; waits for the servers for ATTEMPT_S. Never raises LogError."""
        try:
            info = self._run(self._info(time.monotonic() + self._attempt_s))
        except (LogError, NotFoundError) as error:
            return self._status("", [], -1, 0, str(error))
        cluster = info.cluster or api.ClusterInfo()
        replicas = [
            Replica(
                peer.name or "",
                False,
                bool(peer.current),
                bool(peer.offline),
                peer.lag or 0,
                (peer.active or 0) / 1e9,
            )
            for peer in cluster.replicas or []
        ]
        if cluster.leader:
            replicas.append(Replica(cluster.leader, True, True, False, 0, 0.0))
        replicas.sort(key=lambda replica: replica.name)
        return self._status(cluster.leader or "", replicas, info.state.last_seq, info.state.bytes, "")

    def _status(
        self, leader: str, replicas: list[Replica], places: int, size: int, error: str
    ) -> StreamStatus:
        link = self._link
        return StreamStatus(
            link.server, link.is_connected, link.reconnects, leader, replicas, places, size, error
        )

    def close(self) -> None:
        """Stops the followers and ends the connection."""
        for follower in self._followers:
            follower.stop()
        self._link.close()

    def _run(self, work: Coroutine[Any, Any, Result]) -> Result:
        return self._link.run(work)
