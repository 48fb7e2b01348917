"""Frames between gateways and the sequencer, and the connection that carries them.

A frame is a 4-byte big-endian length and that many bytes of msgpack. Gateway to sequencer: `Submit`, `Query`, `Hear`,
`Ping`; sequencer to gateway: `Acks`, `Answer`, `Events`, `Gap`, `Pong`. Bodies are JSON already, so that a gateway
splices them into its responses as they are. Writes of one turn of the loop leave as one. A gateway that does not read
fast enough has its queries refused, then misses events and is told so (`Gap`); one that reads nothing is cut off. Each
side gives up a connection on which it hears nothing. Who may speak at all: admission.py; over 127.0.0.1 a `Challenge`
and two `Proof`s come before everything else. Over TLS (tls.py) each side has shown a certificate of its role.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, cast

import msgspec

from sequencer.api import admission, tls
from sequencer.api.tls import Tls

FRAME_BYTES_MAX: Final = 16 * 1024 * 1024
ITEMS_BYTES_MAX: Final = 4 * 1024 * 1024  # a list of items longer than this is sent as several frames
HIGH_WATER_BYTES: Final = 1024 * 1024  # unread by the peer, from where on it counts as slow: 8,000 records
BUFFER_BYTES_MAX: Final = 64 * 1024 * 1024  # unread by the peer
QUERY_BYTES_MAX: Final = 16 * 1024 * 1024  # unread by a gateway, beyond which its queries are refused
EVENT_BYTES_MAX: Final = 32 * 1024 * 1024  # unread by a gateway, beyond which it hears of no event
PING_S: Final = 1.0
SILENT_S: Final = 10.0  # after which a connection counts as dead
ADMISSION_S: Final = 5.0
ADMISSION_BYTES_MAX: Final = 256  # a frame, before the peer has shown who it is
_PREFIX_BYTES: Final = 4
_ITEM_OVERHEAD_BYTES: Final = 64

logger = logging.getLogger(__name__)


class IpcError(Exception):
    """A frame that cannot be: the peer speaks something else, or too much at once."""


class Submit(msgspec.Struct, array_like=True, tag=1, gc=False):
    """Records with their recovered signers: (request id, record, signer's address, the order's label or nothing)."""

    items: list[tuple[int, bytes, bytes, str]]


class Query(msgspec.Struct, array_like=True, tag=2, gc=False):
    """One question about the state."""

    rid: int
    method: str
    params: dict[str, Any]


class Acks(msgspec.Struct, array_like=True, tag=3, gc=False):
    """What became of submitted records: (request id, applied, JSON of the result or of the error object).

    `seq`: records below it are durable, these among them.
    """

    items: list[tuple[int, bool, bytes]]
    seq: int = 0


class Answer(msgspec.Struct, array_like=True, tag=4, gc=False):
    """Answer to a `Query`; `body` is the JSON of the result or of the error object. Shows every record below `seq`."""

    rid: int
    ok: bool
    body: bytes
    seq: int = 0


class Events(msgspec.Struct, array_like=True, tag=5, gc=False):
    """What happened: (channel as clients name it, the account it concerns or 0, JSON). Goes to every gateway, when one
    has said that it hears the channel.
    """

    items: list[tuple[str, int, bytes]]


class Ping(msgspec.Struct, array_like=True, tag=6, gc=False):
    """A gateway asks whether the sequencer is there."""


class Pong(msgspec.Struct, array_like=True, tag=7, gc=False):
    """It is; `health` is the JSON of `Health`."""

    health: bytes


class Health(msgspec.Struct, frozen=True, gc=False):
    """What a node says of itself.

    `accepts_orders`, and `reason` if it does not. `leads`: whether orders belong here, accepted or not; of two that say
    so the one with the higher `term` does. `role`: leader, standby, follower; for people. Its answers show every record
    below `seq`. `behind_s`: seconds since it was level with the leader, 0 for the leader, None: not known.
    """

    accepts_orders: bool
    reason: str = ""
    leads: bool = True
    role: str = "leader"
    term: int = 0
    seq: int = 0
    behind_s: float | None = None


class Gap(msgspec.Struct, array_like=True, tag=8, gc=False):
    """So many events before this were not sent to the gateway, because it had too much unread."""

    dropped: int


class Hear(msgspec.Struct, array_like=True, tag=9, gc=False):
    """A gateway hears `channels` from now on, or no more (`is_on`). `rid` is answered once it does; 0: is not."""

    rid: int
    is_on: bool
    channels: list[str]


class Challenge(msgspec.Struct, array_like=True, tag=10, gc=False):
    """The sequencer asks who is there."""

    nonce: bytes


class Proof(msgspec.Struct, array_like=True, tag=11, gc=False):
    """Who sends this has the link's secret (admission.proof). `nonce`: its own."""

    nonce: bytes
    mac: bytes


Message: TypeAlias = Submit | Query | Acks | Answer | Events | Ping | Pong | Gap | Hear | Challenge | Proof

_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final[msgspec.msgpack.Decoder[Message]] = msgspec.msgpack.Decoder(
    Submit | Query | Acks | Answer | Events | Ping | Pong | Gap | Hear | Challenge | Proof
)


def encode_frame(message: Message) -> bytes:
    """The frame of `message`; IpcError if it is longer than FRAME_BYTES_MAX."""
    body = _encoder.encode(message)
    if len(body) > FRAME_BYTES_MAX:
        raise IpcError(f"a frame of {len(body)} bytes; at most {FRAME_BYTES_MAX} are allowed")
    return len(body).to_bytes(_PREFIX_BYTES, "big") + body


def _nowhere() -> int:
    return 0


class Connection(asyncio.Protocol):
    """One end of a connection. `on_message` gets whole messages, in order; `on_lost` the reason, once.

    Sending never blocks. `paused` says that the peer is slow: hold back what can wait; `drained` waits for it to
    catch up. A peer that leaves BUFFER_BYTES_MAX unread is cut off, and so is one that sends what is no frame.
    """

    def __init__(
        self,
        on_message: Callable[["Connection", Message], None],
        on_lost: Callable[["Connection", str], None] | None = None,
        on_made: Callable[["Connection"], None] | None = None,
    ) -> None:
        self._on_message = on_message
        self._on_lost = on_lost
        self._on_made = on_made
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._rest = bytearray()
        self._out: list[bytes] = []
        self._out_bytes = 0
        self._writable = asyncio.Event()
        self._writable.set()
        self._reason = "closed by the peer"
        self.closed = asyncio.Event()
        self.heard_at = self._loop.time()
        self.has_pinged = False
        self.dropped = 0  # events, since the last that was sent
        self.hears: dict[str, None] = {}  # channels
        self.peer = "somebody"  # for people, once it is known
        self.is_admitted = True  # until somebody asks for more
        self.nonce = b""  # of a challenge
        self.position: Callable[[], int] = _nowhere  # of a sequencer: records below it are durable

    # --- what callers use -----------------------------------------------------------------------

    @property
    def is_open(self) -> bool:
        """Whether what is sent now has a chance to arrive."""
        return self._transport is not None and not self._transport.is_closing()

    @property
    def process(self) -> admission.PeerProcess | None:
        """Whose process the peer is; None when that is not known."""
        return None if self._transport is None else admission.peer_process(self._transport)

    def shown(self, role: str) -> str:
        """Who the peer is by its certificate; tls.TlsError when that is not for `role`."""
        if self._transport is None:
            raise tls.TlsError("the peer has gone")
        tls.check_role(self._transport, role)
        return f"{tls.subject(self._transport)} at {self._transport.get_extra_info('peername')[0]}"

    @property
    def paused(self) -> bool:
        """Whether the peer reads more slowly than we write."""
        return not self._writable.is_set()

    @property
    def silent_s(self) -> float:
        """Seconds since the peer was last heard."""
        return self._loop.time() - self.heard_at

    @property
    def unsent_bytes(self) -> int:
        """Bytes that wait for the peer."""
        return self._out_bytes + (self._transport.get_write_buffer_size() if self._transport else 0)

    async def drained(self) -> None:
        """Waits until the peer has caught up; ConnectionError if it has gone."""
        await self._writable.wait()
        if not self.is_open:
            raise ConnectionError(self._reason)

    def send(self, message: Message) -> bool:
        """Queues `message` for the end of this turn of the loop; False when the peer has gone."""
        return self.send_frame(encode_frame(message))

    def send_frame(self, frame: bytes) -> bool:
        """Like `send`, for what `encode_frame` has made (once, for many connections)."""
        if not self.is_open:
            return False
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(frame)
        self._out_bytes += len(frame)
        if self.unsent_bytes > BUFFER_BYTES_MAX:
            self.abort(f"the peer left more than {BUFFER_BYTES_MAX} bytes unread")
            return False
        return True

    def send_acks(self, items: Sequence[tuple[int, bool, bytes]]) -> bool:
        """Sends acks in as many frames as their size needs."""
        seq = self.position()
        return all(self.send(Acks(part, seq)) for part in split_items(list(items), 2))

    def send_answer(self, rid: int, ok: bool, body: bytes) -> bool:
        """Sends the answer to query `rid`."""
        return self.send(Answer(rid, ok, body, self.position()))

    def close(self) -> None:
        """Sends what is queued, then closes."""
        self._flush()
        if self._transport is not None:
            self._reason = "closed by us"
            self._transport.close()

    def abort(self, reason: str) -> None:
        """Cuts the peer off; what is queued is dropped."""
        logger.warning("connection cut off: %s", reason)
        self._reason = reason
        self._out.clear()
        if self._transport is not None:
            self._transport.abort()

    # --- asyncio.Protocol -----------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=HIGH_WATER_BYTES)
        if self._on_made is not None:
            self._on_made(self)

    def hand_to(self, on_message: Callable[["Connection", Message], None]) -> None:
        """The peer is who it must be: what it sends from now on goes to `on_message`."""
        self.is_admitted = True
        self._on_message = on_message

    def data_received(self, data: bytes) -> None:
        if not self.is_open:
            return
        self.heard_at = self._loop.time()
        if self._rest:
            self._rest += data
            used = self._take(self._rest)
            del self._rest[:used]
        else:
            used = self._take(data)
            if used < len(data):
                self._rest += data[used:]

    def _take(self, data: bytes | bytearray) -> int:
        """Handles the whole frames at the start of `data`; bytes used."""
        position, size = 0, len(data)
        with memoryview(data) as view:
            while size - position >= _PREFIX_BYTES:
                length = int.from_bytes(view[position : position + _PREFIX_BYTES], "big")
                most = FRAME_BYTES_MAX if self.is_admitted else ADMISSION_BYTES_MAX
                if length > most:
                    self.abort(f"the peer sent a frame of {length} bytes; at most {most} are allowed")
                    return size
                end = position + _PREFIX_BYTES + length
                if end > size:
                    break
                try:
                    message = _decoder.decode(view[position + _PREFIX_BYTES : end])
                except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                    self.abort(f"the peer sent what is no message: {error}")
                    return size
                position = end
                self._on_message(self, message)
                if not self.is_open:
                    return size
        return position

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is not None:
            self._reason = tls.why(exc)
        self._out.clear()
        self._writable.set()
        self.closed.set()
        if self._on_lost is not None:
            self._on_lost(self, self._reason)

    def _flush(self) -> None:
        if self._out and self._transport is not None and not self._transport.is_closing():
            self._transport.writelines(self._out)
        self._out = []
        self._out_bytes = 0


def split_items(items: list[Any], body_index: int) -> list[list[Any]]:
    """`items` in runs whose bodies (`item[body_index]`) stay below ITEMS_BYTES_MAX together."""
    total = sum(len(item[body_index]) for item in items) + _ITEM_OVERHEAD_BYTES * len(items)
    if total <= ITEMS_BYTES_MAX:
        return [items] if items else []
    runs: list[list[Any]] = [[]]
    size = 0
    for item in items:
        item_bytes = len(item[body_index]) + _ITEM_OVERHEAD_BYTES
        if runs[-1] and size + item_bytes > ITEMS_BYTES_MAX:
            runs.append([])
            size = 0
        runs[-1].append(item)
        size += item_bytes
    return runs


TLS_SCHEME: Final = "tls://"


@dataclass(frozen=True, slots=True)
class TlsAddress:
    """Where TLS is spoken."""

    host: str
    port: int


def parse_address(address: str) -> str | tuple[str, int] | TlsAddress:
    """A path of a Unix socket, (host, port) of `127.0.0.1:7000`, or the place of `tls://HOST:PORT`.

    Raises ValueError for a host beyond this machine without TLS.
    """
    if address.startswith(TLS_SCHEME):
        host, _, port = address.removeprefix(TLS_SCHEME).rpartition(":")
        if not host or not port.isascii() or not port.isdigit() or int(port) > 65_535:
            raise ValueError(f"{address}: must be tls://HOST:PORT with a port from 0 to 65535")
        return TlsAddress(host.strip("[]"), int(port))
    if "/" in address or ":" not in address:
        return address
    host, _, port = address.rpartition(":")
    if host not in ("127.0.0.1", "localhost", "[::1]"):
        raise ValueError(
            f"{address}: beyond this machine sequencer and gateways speak TLS only (tls://HOST:PORT)"
        )
    return host.strip("[]"), int(port)


async def connect(
    address: str,
    on_message: Callable[[Connection, Message], None],
    on_lost: Callable[[Connection, str], None] | None = None,
    users: frozenset[int] | None = None,
    files: Tls | None = None,
) -> Connection:
    """Connects to the sequencer at `address` (see `parse_address`); OSError when nobody listens, or not the sequencer.

    `users`: whose process it may be (admission.trusted_users); `files`: for TLS. Raises ValueError without a secret for
    127.0.0.1, or without files for TLS.
    """
    loop = asyncio.get_running_loop()
    where = parse_address(address)
    if isinstance(where, TlsAddress):
        return await _connect_tls(where, on_message, on_lost, files)
    if isinstance(where, str):
        _, connection = await loop.create_unix_connection(lambda: Connection(on_message, on_lost), where)
        process = connection.process
        if process is not None and process.uid not in (users or admission.trusted_users()):
            connection.abort(f"{process} listens at {address}, which is not the sequencer's user")
            raise PermissionError(f"{process} listens there, which is not the sequencer's user")
        connection.hand_to(on_message)
        return connection
    secret = admission.link_secret()
    shaking = _Handshake(secret, on_message)
    lost = on_lost or (lambda _connection, _reason: None)

    def on_end(connection: Connection, reason: str) -> None:
        if not shaking.done.done():
            shaking.done.set_exception(ConnectionError(f"the sequencer did not show who it is: {reason}"))
        else:
            lost(connection, reason)

    _, connection = await loop.create_connection(lambda: Connection(shaking.received, on_end), *where)
    connection.is_admitted = shaking.done.done()
    try:
        async with asyncio.timeout(ADMISSION_S):
            await shaking.done
    except BaseException:
        connection.abort("the sequencer did not show who it is")
        raise
    return connection


async def _connect_tls(
    where: TlsAddress,
    on_message: Callable[[Connection, Message], None],
    on_lost: Callable[[Connection, str], None] | None,
    files: Tls | None,
) -> Connection:
    if files is None:
        raise ValueError(f"tls://{where.host}:{where.port} needs --tls-ca, --tls-cert and --tls-key")
    try:
        _, connection = await asyncio.get_running_loop().create_connection(
            *(lambda: Connection(on_message, on_lost), where.host, where.port),
            ssl=files.client(),
            ssl_handshake_timeout=tls.HANDSHAKE_S,
        )
    except (OSError, TimeoutError) as error:
        raise ConnectionError(tls.why(error)) from error
    try:
        connection.shown(tls.SEQUENCER)
    except tls.TlsError as error:
        connection.abort(str(error))
        raise
    return connection


class _Handshake:
    """The gateway's side of it over 127.0.0.1."""

    def __init__(self, secret: bytes, on_message: Callable[[Connection, Message], None]) -> None:
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._secret = secret
        self._on_message = on_message
        self._nonce = admission.fresh_nonce()
        self._others = b""

    def received(self, connection: Connection, message: Message) -> None:
        """A message of a sequencer that has not shown who it is."""
        secret, own, others = self._secret, self._nonce, self._others
        if isinstance(message, Challenge) and not others:
            self._others = others = message.nonce
            connection.send(Proof(own, admission.proof(secret, admission.FROM_GATEWAY, own, others)))
        elif isinstance(message, Proof) and admission.is_proof(
            message.mac, secret, admission.FROM_SEQUENCER, others, own
        ):
            connection.hand_to(self._on_message)
            self.done.set_result(None)
        else:
            connection.abort("the sequencer does not have the link's secret")
