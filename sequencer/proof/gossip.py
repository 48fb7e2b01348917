"""Peers that tell each other the tick headers that they see, so that two of one tick meet whoever was shown them.

Without a server: each peer connects to those it is told of and to those that connect to it (eclipse-zenoh, neighbours
only), announces each header that is new to it, and asks each neighbour every few seconds for what it lacks. So nothing
that is lost on the way stays lost, and who comes late or was cut off catches up. Announcements are dropped rather than
waited for: a peer that does not read must not stop the others.

No transport is trusted. A message is signed headers and nothing else, of at most MESSAGE_BYTES_MAX; a header counts
when a member's receipt key has signed it and its time is near. Each neighbour has an allowance of signatures to check;
what it sends beyond, and what is wrong, is dropped and counted. A neighbour's name is its own word: one that lies can
use up another's allowance for announcements, and what was dropped is asked for again.
"""

import json
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from struct import Struct
from typing import Any, Final

import zenoh

from sequencer.proof.headers import MARK_BYTES, Bucket, HeaderStore, Pair
from sequencer.wire.headers import SIGNED_BYTES, STORED_BYTES, unpack

HEADERS_PER_MESSAGE: Final = 256
MESSAGE_BYTES_MAX: Final = HEADERS_PER_MESSAGE * SIGNED_BYTES
TRANSPORT_BYTES_MAX: Final = 1 << 20
PEERS_MAX: Final = 64
UNREAD_MAX: Final = 64  # messages of a neighbour that wait to be looked at
ANSWERED_AT_ONCE: Final = 4096  # headers in the answer to one question
BUCKETS_ASKED: Final = 1_024
BUCKETS_ANSWERED: Final = 512
QUESTIONS_UNREAD: Final = 64
ANSWERS_PER_ROUND: Final = 4
PAIRS_KEPT: Final = 256
OFFERED_MAX: Final = 65_536
OTHERS: Final = "others"  # the name of all that are no neighbours
WAIT_S: Final = 0.05
_MARK: Final = Struct(f">IH5s{MARK_BYTES}s")
_TIME: Final = slice(STORED_BYTES - 32, STORED_BYTES - 24)  # before the records' root

Times = Callable[[], tuple[float, float]]
Members = Callable[[bytes], str | None]

logger = logging.getLogger(__name__)


class GossipError(OSError):
    """The peer cannot start: an endpoint is in use, or none."""


@dataclass(frozen=True, slots=True)
class GossipConfig:
    """`peers`, `listen`: zenoh endpoints (`tcp/127.0.0.1:7447`). Headers older than `age_max_s` or more than
    `ahead_max_s` ahead are dropped. Of each neighbour `checks_per_s` new headers are checked, of all together
    `all_checks_per_s`, and of each at once `checks_burst`. `ask_s`: between two questions to a neighbour.
    """

    peers: tuple[str, ...] = ()
    listen: tuple[str, ...] = ()
    age_max_s: float = 86_400.0
    ahead_max_s: float = 3_600.0
    checks_per_s: float = 1_000.0
    checks_burst: float = 8_192.0
    all_checks_per_s: float = 4_000.0
    ask_s: float = 3.0

    def as_zenoh(self) -> zenoh.Config:
        """What zenoh is opened with: no scouting, no relaying by it, bounded messages and waits."""
        config = zenoh.Config()
        for key, value in {
            "mode": "peer",
            "scouting/multicast/enabled": False,
            "scouting/gossip/enabled": False,
            "listen/endpoints": list(self.listen),
            "connect/endpoints": list(self.peers),
            "connect/exit_on_failure": False,
            "connect/timeout_ms": 0,
            "open/return_conditions/connect_scouted": False,  # neighbours come when they come
            "connect/retry": {
                "period_init_ms": 500,
                "period_max_ms": 8_000,
                "period_increase_factor": 2,
            },
            "transport/shared_memory/enabled": False,
            "transport/unicast/max_sessions": PEERS_MAX,
            "transport/unicast/accept_pending": PEERS_MAX,
            "transport/link/rx/max_message_size": TRANSPORT_BYTES_MAX,
            "transport/link/tx/queue/congestion_control/drop/wait_before_drop": 20_000,
            "transport/link/tx/queue/congestion_control/block/wait_before_close": 200_000,
        }.items():
            config.insert_json5(key, json.dumps(value))
        return config


@dataclass(slots=True)
class Counts:
    """What came from a neighbour: messages; headers that were new, known, malformed, signed by no member, too old or
    of the future (`stale`), and dropped unread or unchecked because there were too many (`flooded`).
    """

    messages: int = 0
    new: int = 0
    known: int = 0
    malformed: int = 0
    unsigned: int = 0
    stale: int = 0
    flooded: int = 0


class _Allowance:
    """Tokens that come at `per_s`, `most` at most."""

    __slots__ = ("_at", "_left", "_most", "_per_s")

    def __init__(self, per_s: float, most: float) -> None:
        self._per_s, self._most, self._left, self._at = per_s, most, most, time.monotonic()

    def take(self) -> bool:
        now = time.monotonic()
        self._left = min(self._most, self._left + (now - self._at) * self._per_s)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


@dataclass(slots=True)
class _Neighbour:
    announced: _Allowance
    answered: _Allowance
    counts: Counts = field(default_factory=Counts)
    unread: deque[bytes] = field(default_factory=lambda: deque(maxlen=UNREAD_MAX + 1))
    answers: deque[bytes] = field(default_factory=deque)
    answers_left: int = 0  # messages that the question may still bring
    asked_at: float = float("-inf")
    is_behind: bool = False  # its last answer brought something


class Gossip:
    """One peer, with a thread of its own from `start` to `stop`.

    `member_of`: whose a signer's address is, None: nobody's; it must not block. `times`: the earliest and the latest
    time that it may be now, seconds. `sources` are asked in each round for signed headers of one's own (SIGNED_BYTES).
    """

    def __init__(
        self,
        domain: bytes,
        store: HeaderStore,
        config: GossipConfig,
        member_of: Members,
        times: Times = lambda: (time.time(), time.time()),
        sources: Sequence[Callable[[], Iterable[bytes]]] = (),
        on_pair: Callable[[Pair], None] = lambda _pair: None,
    ) -> None:
        self.store = store
        self.config = config
        self._domain = domain
        self._member_of = member_of
        self._times = times
        self._sources = list(sources)
        self._on_pair = on_pair
        self._own = Counts()
        self._offered: deque[bytes] = deque(maxlen=OFFERED_MAX)
        self._fresh: list[bytes] = []
        self._pairs: deque[Pair] = deque(maxlen=PAIRS_KEPT)
        self.pairs_found = 0
        self._all = _Allowance(config.all_checks_per_s, 2 * config.checks_burst)
        self._neighbours: dict[str, _Neighbour] = {OTHERS: self._neighbour()}
        self._questions: deque[zenoh.Query] = deque()
        self._questions_dropped = 0
        self._looked_at = float("-inf")
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="gossip", daemon=True)
        self._session: zenoh.Session | None = None
        self._prefix = f"fairstrike/1/{domain.hex()}"
        self._name = ""
        self.error = ""

    # --- for whoever holds it (any thread) ------------------------------------------------------------

    def start(self) -> None:
        """Opens the endpoints. Raises GossipError."""
        try:
            session = zenoh.open(self.config.as_zenoh())
        except zenoh.ZError as error:
            raise GossipError(
                f"gossip: cannot listen at {', '.join(self.config.listen) or 'nothing'}: {error}"
            ) from None
        self._session, self._name = session, str(session.zid())
        self._tell(self.store.found)
        heard = zenoh.handlers.Callback(self._heard, indirect=False)
        session.declare_subscriber(f"{self._prefix}/new/*", heard, allowed_origin=zenoh.Locality.REMOTE)
        asked = zenoh.handlers.Callback(self._asked, indirect=False)
        session.declare_queryable(f"{self._prefix}/lack/{self._name}", asked)
        self._thread.start()

    def stop(self) -> None:
        """Ends it; what was found can still be taken."""
        self._stop.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(10)
        if self._session is not None:
            session: Any = self._session  # zenoh's `close` has no types
            session.close()
            self._session = None
        self.store.close()

    def offer(self, signed: bytes) -> None:
        """A signed header (SIGNED_BYTES) that came another way: with a receipt, in an acknowledgement."""
        self._offered.append(signed)
        self._wake.set()

    def pairs(self) -> list[Pair]:
        """What has been found since it was last asked."""
        out = []
        while self._pairs:
            out.append(self._pairs.popleft())
        return out

    def status(self) -> dict[str, Any]:
        """Numbers of headers, pairs and neighbours, and what came from each neighbour."""
        neighbours = dict(self._neighbours)
        return {
            "name": self._name,
            "headers": len(self.store),
            "pairs": self.pairs_found,
            "own": asdict(self._own),
            "questions_dropped": self._questions_dropped,
            "neighbours": len(neighbours) - 1,
            "from": {name: asdict(one.counts) for name, one in neighbours.items()},
            "error": self.error,
        }

    # --- zenoh's threads: bounded, and no more than that ----------------------------------------------

    def _heard(self, sample: zenoh.Sample) -> None:
        name = str(sample.key_expr).rpartition("/")[2]
        of = self._neighbours.get(name) or self._neighbours[OTHERS]
        of.counts.messages += 1
        if len(of.unread) >= UNREAD_MAX:
            of.counts.flooded += 1
        elif not 0 < len(sample.payload) <= MESSAGE_BYTES_MAX:
            of.counts.malformed += 1
        else:
            of.unread.append(sample.payload.to_bytes())
            self._wake.set()

    def _asked(self, query: zenoh.Query) -> None:
        payload = query.payload
        is_good = payload is not None and len(payload) <= BUCKETS_ASKED * _MARK.size
        if is_good and len(self._questions) < QUESTIONS_UNREAD:
            self._questions.append(query)
            self._wake.set()
        else:
            self._questions_dropped += 1
            refused: Any = query  # zenoh's `drop` has no types
            refused.drop()

    # --- the peer's thread ----------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._stop.is_set():
            self._wake.wait(WAIT_S)
            self._wake.clear()
            try:
                self._round()
                self.error = ""
            except Exception as error:  # a neighbour's word, or a full disk: the rest goes on
                if str(error) != self.error:
                    logger.exception("gossip: a round has failed")
                self.error = str(error) or repr(error)
                self._stop.wait(WAIT_S)

    def _round(self) -> None:
        for source in self._sources:
            for raw in source():
                self._take(raw, self._own, None)
        while self._offered:
            self._take(self._offered.popleft(), self._own, None)
        for one in list(self._neighbours.values()):
            for queue, allowance in ((one.unread, one.announced), (one.answers, one.answered)):
                before = one.counts.new
                for _ in range(len(queue)):
                    self._read(queue.popleft(), one.counts, allowance)
                if queue is one.answers:
                    one.is_behind |= one.counts.new > before
        self._announce()
        for _ in range(ANSWERS_PER_ROUND):
            if self._questions:
                self._answer(self._questions.popleft())
        now = time.monotonic()
        if now >= self._looked_at + min(1.0, self.config.ask_s):
            self._looked_at = now
            self._meet()
            self.store.flush()
        for name, one in list(self._neighbours.items()):
            if name != OTHERS and now >= one.asked_at + (0.2 if one.is_behind else self.config.ask_s):
                self._ask(name, one, now)

    def _neighbour(self) -> _Neighbour:
        per_s, burst = self.config.checks_per_s, self.config.checks_burst
        return _Neighbour(_Allowance(per_s, burst), _Allowance(per_s, burst))

    def _meet(self) -> None:
        """Who is a neighbour now."""
        assert self._session is not None
        names = {str(one) for one in self._session.info.peers_zid()}
        for name in names - self._neighbours.keys():
            self._neighbours[name] = self._neighbour()
        for name in self._neighbours.keys() - names - {OTHERS}:
            del self._neighbours[name]

    def _read(self, message: bytes, counts: Counts, allowance: _Allowance) -> None:
        if len(message) % SIGNED_BYTES:
            counts.malformed += 1
            return
        for start in range(0, len(message), SIGNED_BYTES):
            self._take(message[start : start + SIGNED_BYTES], counts, allowance)

    def _take(self, raw: bytes, counts: Counts, allowance: _Allowance | None) -> None:
        """One signed header: cheap checks first, the signature last."""
        if len(raw) != SIGNED_BYTES:
            counts.malformed += 1
            return
        if raw[:STORED_BYTES] in self.store:
            counts.known += 1
            return
        earliest, latest = self._times()
        time_s = int.from_bytes(raw[_TIME], "big") * 1e-9
        if not earliest - self.config.age_max_s <= time_s <= latest + self.config.ahead_max_s:
            counts.stale += 1
            return
        if allowance is not None and not (allowance.take() and self._all.take()):
            counts.flooded += 1
            return
        try:
            signed = unpack(raw, self._domain)
        except ValueError:
            counts.unsigned += 1
            return
        member = self._member_of(signed.signer)
        if member is None:
            counts.unsigned += 1
            return
        pairs = self.store.add(member, signed)
        if pairs is None:
            counts.known += 1
            return
        counts.new += 1
        self._fresh.append(raw)
        self._tell(pairs)

    def _tell(self, pairs: Iterable[Pair]) -> None:
        for pair in pairs:
            self.pairs_found += 1
            self._pairs.append(pair)
            self._on_pair(pair)

    def _announce(self) -> None:
        fresh, self._fresh = self._fresh, []
        for message in _messages(fresh):
            assert self._session is not None
            self._session.put(
                f"{self._prefix}/new/{self._name}",
                message,
                congestion_control=zenoh.CongestionControl.DROP,
            )

    def _ask(self, name: str, one: _Neighbour, now: float) -> None:
        """Asks a neighbour for what it has and we lack."""
        assert self._session is not None
        one.asked_at, one.is_behind = now, False
        one.answers_left = ANSWERED_AT_ONCE // HEADERS_PER_MESSAGE
        marks = b"".join(
            _MARK.pack(epoch, roll_backs, bucket.to_bytes(5, "big"), mark)
            for (epoch, roll_backs, bucket), mark in self.store.marks(BUCKETS_ASKED)
        )

        def heard(reply: zenoh.Reply) -> None:
            sample = reply.ok
            if sample is None:
                return
            one.counts.messages += 1
            if one.answers_left <= 0:
                one.counts.flooded += 1
            elif not 0 < len(sample.payload) <= MESSAGE_BYTES_MAX:
                one.counts.malformed += 1
            else:
                one.answers_left -= 1
                one.answers.append(sample.payload.to_bytes())
                self._wake.set()

        self._session.get(
            f"{self._prefix}/lack/{name}",
            zenoh.handlers.Callback(heard, indirect=False),
            target=zenoh.QueryTarget.ALL,
            consolidation=zenoh.ConsolidationMode.NONE,
            congestion_control=zenoh.CongestionControl.DROP,
            timeout=max(5.0, self.config.ask_s),
            payload=marks,
        )

    def _answer(self, query: zenoh.Query) -> None:
        with query:
            payload = query.payload
            data = b"" if payload is None else payload.to_bytes()
            if len(data) % _MARK.size:
                self._questions_dropped += 1
                return
            theirs: Mapping[Bucket, bytes] = {
                (epoch, roll_backs, int.from_bytes(bucket, "big")): mark
                for epoch, roll_backs, bucket, mark in _MARK.iter_unpack(data)
            }
            found = self.store.differing(theirs, BUCKETS_ANSWERED, ANSWERED_AT_ONCE)
            for message in _messages(found):
                query.reply(query.key_expr, message)


def _messages(headers: Sequence[bytes]) -> Iterable[bytes]:
    for start in range(0, len(headers), HEADERS_PER_MESSAGE):
        yield b"".join(headers[start : start + HEADERS_PER_MESSAGE])
