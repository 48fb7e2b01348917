"""The sequencer's side of the link to its gateways: who may speak (admission.py), submissions, queries, events."""

import asyncio
import contextlib
import logging
import os
import socket
import stat
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from sequencer.api import admission, ipc, tls
from sequencer.api.ipc import (
    Challenge,
    Connection,
    Events,
    Gap,
    Health,
    Hear,
    Message,
    Ping,
    Pong,
    Proof,
    Query,
    Submit,
    TlsAddress,
    encode_frame,
    parse_address,
    split_items,
)
from sequencer.api.tls import Tls
from sequencer.errors import Code, error_body

logger = logging.getLogger(__name__)


class IpcServer:
    """The sequencer's side. The callbacks must not block, and may answer at once or later, in any order.

    `health` is what the node says of itself; `position`: records below it are durable, and its answers show them.
    `users`: whose processes are gateways on a Unix socket; `files`: for TLS.
    An ack for a connection that has gone is dropped: what it acknowledges is durable already, and a gateway sends the
    record again, which is answered as the first time.
    """

    def __init__(
        self,
        on_submit: Callable[[Connection, list[tuple[int, bytes, bytes, str]]], None],
        on_query: Callable[[Connection, int, str, dict[str, Any]], None],
        on_lost: Callable[[Connection], None] | None = None,
        health: Callable[[], Health] = lambda: Health(True),
        users: frozenset[int] | None = None,
        files: Tls | None = None,
        position: Callable[[], int] = lambda: 0,
    ) -> None:
        self._on_submit = on_submit
        self._users = users or admission.trusted_users()
        self._secret = b""
        self._health = health
        self._watching: asyncio.TimerHandle | None = None
        self._on_query = on_query
        self._on_lost = on_lost
        self._files = files
        self._position = position
        self._servers: list[asyncio.AbstractServer | tls.Listener] = []
        self._paths: list[str] = []
        self.connections: dict[Connection, None] = {}
        self._hearers: dict[str, int] = {}  # channel -> gateways

    async def start(self, *addresses: str) -> None:
        """Listens at each of `addresses` (see `parse_address`). OSError if another process does, or could come in
        between; ValueError without a secret for 127.0.0.1, or without files for TLS.
        """
        for address in addresses:
            self._servers.append(await self._listen(address))
        self._watch()

    async def _listen(self, address: str) -> asyncio.AbstractServer | tls.Listener:
        loop = asyncio.get_running_loop()
        where = parse_address(address)
        if isinstance(where, TlsAddress):
            if self._files is None:
                raise ValueError(f"{address} needs --tls-ca, --tls-cert and --tls-key")
            listener = tls.Listener(self._files, self._make_over_tls)
            await listener.start(where.host, where.port)
            return listener
        if not isinstance(where, str):
            self._secret = admission.link_secret()
            return await loop.create_server(self._make, *where)
        admission.check_folder(where)
        _remove_stale(where)
        unix = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        # Whoever may write to this socket vouches for signers. With users of their own for gateways, the kernel's
        # word for each connection decides alone.
        has_others = bool(self._users - admission.trusted_users())
        old_mask = os.umask(0o111 if has_others else 0o177)
        try:
            unix.bind(where)
        finally:
            os.umask(old_mask)
        self._paths.append(where)
        return await loop.create_unix_server(self._make, sock=unix, backlog=64)

    def _watch(self) -> None:
        """Gives up gateways that have begun to ping and fallen silent; tells of gaps."""
        self._watching = asyncio.get_running_loop().call_later(ipc.PING_S, self._watch)
        for connection in list(self.connections):
            if connection.has_pinged and connection.silent_s > ipc.SILENT_S:
                connection.abort(f"the gateway has been silent for {connection.silent_s:.0f} s")
            else:
                self._tell_gap(connection)

    def is_heard(self, channel: str) -> bool:
        """Whether a gateway hears the channel: events of others need not be made."""
        return channel in self._hearers

    def _hear(self, connection: Connection, message: Hear) -> None:
        for channel in message.channels:
            if message.is_on and channel not in connection.hears:
                connection.hears[channel] = None
                self._hearers[channel] = self._hearers.get(channel, 0) + 1
            elif not message.is_on and channel in connection.hears:
                self._forget(connection, channel)
        if message.rid:
            connection.send_answer(message.rid, True, b"null")

    def _forget(self, connection: Connection, channel: str) -> None:
        del connection.hears[channel]
        self._hearers[channel] -= 1
        if not self._hearers[channel]:
            del self._hearers[channel]

    def broadcast(self, events: Sequence[tuple[str, int, bytes]]) -> None:
        """Sends events to every gateway; encoded once. One with too much unread misses them, and is told so later."""
        if not self.connections:
            return
        for part in split_items(list(events), 2):
            frame = encode_frame(Events(part))
            for connection in list(self.connections):
                self._tell_gap(connection)
                if connection.dropped or connection.unsent_bytes + len(frame) > ipc.EVENT_BYTES_MAX:
                    connection.dropped += len(part)
                else:
                    connection.send_frame(frame)

    def _tell_gap(self, connection: Connection) -> None:
        """Says what was dropped once half of the room is free again."""
        if connection.dropped and connection.unsent_bytes <= ipc.EVENT_BYTES_MAX // 2:
            logger.warning("a gateway reads too slowly: it has missed %d events", connection.dropped)
            connection.send(Gap(connection.dropped))
            connection.dropped = 0

    async def close(self) -> None:
        """Stops listening and closes every connection, after what is queued on it."""
        if self._watching is not None:
            self._watching.cancel()
            self._watching = None
        for server in self._servers:
            server.close()
        self._servers = []
        for connection in list(self.connections):
            connection.close()
        for path in self._paths:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
        self._paths = []

    def _make(self) -> Connection:
        connection = Connection(self._unknown, self._lost, self._made)
        connection.position = self._position
        return connection

    def _make_over_tls(self) -> Connection:
        connection = Connection(self._unknown, self._lost, self._made_over_tls)
        connection.position = self._position
        return connection

    def _made_over_tls(self, connection: Connection) -> None:
        """The handshake has verified the certificate; its role decides."""
        connection.is_admitted = False
        try:
            who = connection.shown(tls.GATEWAY)
        except tls.TlsError as error:
            connection.abort(f"no gateway of this sequencer: {error}")
        else:
            self._admit(connection, who)

    def _made(self, connection: Connection) -> None:
        process = connection.process
        connection.is_admitted = False
        if process is None:
            connection.nonce = admission.fresh_nonce()
            connection.send(Challenge(connection.nonce))
            asyncio.get_running_loop().call_later(ipc.ADMISSION_S, self._give_up, connection)
        elif process.uid in self._users:
            self._admit(connection, str(process))
        else:
            connection.abort(f"{process} is no gateway of this sequencer (node --gateway-user)")

    def _admit(self, connection: Connection, who: str) -> None:
        connection.peer = who
        connection.hand_to(self._received)
        self.connections[connection] = None

    def _give_up(self, connection: Connection) -> None:
        if connection.is_open and not connection.is_admitted:
            connection.abort("who connected did not show that it has the link's secret")

    def _unknown(self, connection: Connection, message: Message) -> None:
        """A message of who has not shown yet who it is."""
        nonce, secret = connection.nonce, self._secret
        if isinstance(message, Proof) and admission.is_proof(
            message.mac, secret, admission.FROM_GATEWAY, message.nonce, nonce
        ):
            self._admit(connection, "a process of this machine that has the link's secret")
            mac = admission.proof(secret, admission.FROM_SEQUENCER, nonce, message.nonce)
            connection.send(Proof(nonce, mac))
        else:
            connection.abort("who connected does not have the link's secret")

    def _lost(self, connection: Connection, reason: str) -> None:
        self.connections.pop(connection, None)
        for channel in list(connection.hears):
            self._forget(connection, channel)
        logger.info("gateway gone: %s", reason)
        if self._on_lost is not None:
            self._on_lost(connection)

    def _received(self, connection: Connection, message: Message) -> None:
        if isinstance(message, Submit):
            self._on_submit(connection, message.items)
        elif isinstance(message, Query):
            if connection.unsent_bytes > ipc.QUERY_BYTES_MAX:
                body = error_body(
                    Code.QUEUE_FULL,
                    f"the gateway has more than {ipc.QUERY_BYTES_MAX} bytes of the sequencer's unread; ask again later",
                    field="unread_bytes",
                    limit=f"at most {ipc.QUERY_BYTES_MAX}",
                    got=connection.unsent_bytes,
                )
                connection.send_answer(message.rid, False, body)
            else:
                self.ask(connection, message)
        elif isinstance(message, Hear):
            self._hear(connection, message)
        elif isinstance(message, Ping):
            connection.has_pinged = True
            connection.send(Pong(msgspec.json.encode(self._health())))
        else:
            connection.abort(f"a gateway sent {type(message).__name__}")

    def ask(self, connection: Connection, query: Query) -> None:
        """Has a query answered, or says that it could not be."""
        try:
            self._on_query(connection, query.rid, query.method, query.params)
        except Exception:  # one query's bug must not cut off all clients of a gateway
            logger.exception("query %s failed", query.method)
            body = error_body(Code.INTERNAL, f"{query.method}: the sequencer failed to answer this query")
            connection.send_answer(query.rid, False, body)


def _remove_stale(path: str) -> None:
    """Removes a socket that nobody listens on; OSError if somebody does, or if it is no socket."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise OSError(f"{path} exists and is no socket")
    probe = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        probe.connect(path)
    except (ConnectionRefusedError, FileNotFoundError):
        os.unlink(path)
    else:
        raise OSError(f"{path}: another sequencer listens there")
    finally:
        probe.close()
