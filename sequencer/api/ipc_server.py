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

from sequencer.api import admission, ipc
from sequencer.api.ipc import (
    Challenge,
    Connection,
    Events,
    Gap,
    Hear,
    Message,
    Ping,
    Pong,
    Proof,
    Query,
    Submit,
    encode_frame,
    parse_address,
    split_items,
)
from sequencer.errors import Code, error_body

logger = logging.getLogger(__name__)


class IpcServer:
    """The sequencer's side. The callbacks must not block, and may answer at once or later, in any order.

    `health` says whether orders are accepted now, and why not. `users`: whose processes are gateways.
    An ack for a connection that has gone is dropped: what it acknowledges is durable already, and the client is
    told by its gateway that the outcome is unknown.
    """

    def __init__(
        self,
        on_submit: Callable[[Connection, list[tuple[int, bytes, bytes, str]]], None],
        on_query: Callable[[Connection, int, str, dict[str, Any]], None],
        on_lost: Callable[[Connection], None] | None = None,
        health: Callable[[], tuple[bool, str]] = lambda: (True, ""),
        users: frozenset[int] | None = None,
    ) -> None:
        self._on_submit = on_submit
        self._users = users or admission.trusted_users()
        self._secret = b""
        self._health = health
        self._watching: asyncio.TimerHandle | None = None
        self._on_query = on_query
        self._on_lost = on_lost
        self._server: asyncio.AbstractServer | None = None
        self._path: str | None = None
        self.connections: dict[Connection, None] = {}
        self._hearers: dict[str, int] = {}  # channel -> gateways

    async def start(self, address: str) -> None:
        """Listens at `address` (see `parse_address`). OSError if another process does, or could come in between;
        ValueError without a secret for 127.0.0.1.
        """
        loop = asyncio.get_running_loop()
        where = parse_address(address)
        if isinstance(where, str):
            admission.check_folder(where)
            _remove_stale(where)
            listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            # Whoever may write to this socket vouches for signers. With users of their own for gateways, the kernel's
            # word for each connection decides alone.
            has_others = bool(self._users - admission.trusted_users())
            old_mask = os.umask(0o111 if has_others else 0o177)
            try:
                listener.bind(where)
            finally:
                os.umask(old_mask)
            self._server = await loop.create_unix_server(self._make, sock=listener, backlog=64)
            self._path = where
        else:
            self._secret = admission.link_secret()
            self._server = await loop.create_server(self._make, *where)
        self._watch()

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
        if self._server is not None:
            self._server.close()
        for connection in list(self.connections):
            connection.close()
        if self._path is not None:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._path)
            self._path = None

    def _make(self) -> Connection:
        return Connection(self._unknown, self._lost, self._made)

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
            accepts, reason = self._health()
            connection.send(Pong(msgspec.json.encode({"accepts_orders": accepts, "reason": reason})))
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
