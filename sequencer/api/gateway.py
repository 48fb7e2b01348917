"""Gateway: clients' JSON-RPC over HTTP and WebSocket on one side, the sequencer's socket on the other.

It decodes records and recovers their signers, so that neither is the engine's work. It holds no state of the
exchange but the names of the instruments; any number of gateways may run beside each other. What it accepts, in which
frames, and how it fails: docs/API.md. The protocols of the port are in frontdoor.py.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import signal
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import click
import msgspec
import uvloop

from sequencer.api import ipc, jsonrpc
from sequencer.api.frontdoor import FrontDoor, Limits, Peer, response, text_frame
from sequencer.api.jsonrpc import Instruments, RequestError, UnknownInstrument
from sequencer.cli.config import with_config
from sequencer.errors import Code
from sequencer.protocol.codec import domain_separator

logger = logging.getLogger(__name__)

Sink: TypeAlias = Callable[[bytes, bool, bytes], None]
"""Where an answer goes: (token of the request, ok, JSON of the result or of the error object)."""

_OPEN_BRACKET: Final = ord("[")
_BLANK: Final = b" \t\r\n"
_json: Final = msgspec.json.Encoder()


@dataclass(frozen=True, slots=True)
class Exchange:
    """What a gateway must know of the exchange to read its records."""

    chain_id: int
    verifying_contract: str

    def domain(self) -> bytes:
        """EIP-712 domain separator."""
        return domain_separator(self.chain_id, bytes.fromhex(self.verifying_contract[2:]))


class _SystemInfo(msgspec.Struct):
    chain_id: int
    verifying_contract: str


class _Listed(msgspec.Struct):
    instrument: str
    number: int


_LIMITS: Final = Limits()
_system_info_decoder: Final = msgspec.json.Decoder(_SystemInfo)
_instruments_decoder: Final = msgspec.json.Decoder(list[_Listed])


class _Pending:
    """A request on its way: where its answer goes, and until when it is waited for."""

    __slots__ = ("deadline", "is_submit", "peer", "sink", "token")

    def __init__(self, peer: Peer | None, sink: Sink, token: bytes, is_submit: bool, deadline: float) -> None:
        self.peer = peer
        self.sink = sink
        self.token = token
        self.is_submit = is_submit
        self.deadline = deadline


class Gateway:
    """Requests of all peers, and the one connection to the sequencer. No listening socket of its own."""

    def __init__(self, address: str, expected: Exchange | None = None, limits: Limits | None = None) -> None:
        self.address = address
        self.limits = limits or Limits()
        self.exchange: Exchange | None = None
        self.ready = False
        self.listed = Instruments()
        self.subscribers: dict[str, dict[Peer, None]] = {}
        self.connections = 0
        self._expected = expected
        self._domain = b""
        self._loop = asyncio.get_running_loop()
        self._link: ipc.Connection | None = None
        self._pending: dict[int, _Pending] = {}
        self._next_rid = 1
        self._submits: list[tuple[int, bytes, bytes, str]] = []
        self._dirty: list[Peer] = []
        self._parked: list[Callable[[], None]] = []
        self._refreshed_at = float("-inf")
        self._was_lost = False

    # --- requests -------------------------------------------------------------------------------

    def receive(self, peer: Peer, data: bytes) -> None:
        """Handles one JSON document of `peer`: a request or a batch of them."""
        if data and data[0] in _BLANK:
            data = data.lstrip(_BLANK)
        if data and data[0] == _OPEN_BRACKET:
            self._receive_batch(peer, data)
        else:
            self._receive_one(peer, peer.reply, data)

    def receive_record(self, peer: Peer, client_id: bytes, raw: bytes) -> None:
        """Handles a record of a binary frame."""
        try:
            self._submit(peer, peer.reply_binary, client_id, *jsonrpc.split_frame(raw))
        except RequestError as error:
            peer.reply_binary(client_id, False, error.body())

    def _receive_batch(self, peer: Peer, data: bytes) -> None:
        try:
            items = jsonrpc.parse_batch(data)
        except RequestError as error:
            peer.reply(b"null", False, error.body())
            return
        batch = _Batch(peer, len(items))
        for item in items:
            self._receive_one(peer, batch.reply, item)

    def _receive_one(self, peer: Peer, sink: Sink, data: bytes) -> None:
        token = b"null"
        try:
            token, method, params = jsonrpc.parse_request(data)
            if method == "submit":
                self._submit(peer, sink, token, *jsonrpc.submit_params(params))
            else:
                self._call(peer, sink, token, method, params)
        except UnknownInstrument as error:
            if self.ready:
                self._retry_when_listed(peer, sink, token, data, error)
            else:  # it may well be one that is listed
                sink(token, False, _not_ready().body())
        except RequestError as error:
            sink(token if token != b"null" else error.id_json, False, error.body())

    def _retry_when_listed(
        self, peer: Peer, sink: Sink, token: bytes, data: bytes, error: RequestError
    ) -> None:
        """The instrument may be newly listed: asks the sequencer, once a second at most, and tries again."""
        now = self._loop.time()

        def once_more() -> None:
            try:
                _, method, params = jsonrpc.parse_request(data)
                self._call(peer, sink, token, method, params, is_last=True)
            except RequestError as still:
                sink(token, False, still.body())

        def again() -> None:
            peer.outstanding -= 1
            once_more()

        if now < self._refreshed_at + 1.0 and not self._parked:
            once_more()
            return
        try:
            self._check_load(peer)
        except RequestError as busy:
            sink(token, False, busy.body())
            return
        peer.outstanding += 1
        self._parked.append(again)
        if len(self._parked) == 1:
            self._refreshed_at = now
            self._query(None, self._instruments_arrived, b"", "instruments", {})

    def _call(
        self,
        peer: Peer,
        sink: Sink,
        token: bytes,
        method: str,
        raw_params: msgspec.Raw,
        is_last: bool = False,
    ) -> None:
        """Has a request answered. `is_last`: the list of instruments will not be looked up for it again."""
        signed = jsonrpc.SIGNED.get(method)
        if signed is not None:
            fields = jsonrpc.parse_params(raw_params)
            record = signed.record(fields, self.listed)
            self._submit(peer, sink, token, record, fields.get("label", ""))
        elif method in jsonrpc.QUERIES:
            params = jsonrpc.query_params(method, jsonrpc.parse_params(raw_params), self.listed)
            self._check_load(peer)
            if not peer.queries.take():
                raise _too_many(
                    f"queries of a connection are limited to {self.limits.queries_per_s:g} a second"
                )
            self._query(peer, sink, token, method, params)
        elif method == "typed_data":
            exchange = self.exchange
            if exchange is None:
                raise _not_ready()
            params = jsonrpc.parse_params(raw_params)
            found = jsonrpc.typed_data(params, self.listed, exchange.chain_id, exchange.verifying_contract)
            sink(token, True, _json.encode(found))
        elif method in ("subscribe", "unsubscribe"):
            names, refused = jsonrpc.channels(jsonrpc.parse_params(raw_params), self.listed)
            for _, error in refused:
                if isinstance(error, UnknownInstrument) and not is_last:
                    raise error
            self._subscribe(peer, names, on=method == "subscribe")
            answer: dict[str, object] = {"channels": names}
            if refused:
                answer["refused"] = [
                    {
                        "channel": channel,
                        "code": int(error.code),
                        "message": error.message,
                        "data": error.data,
                    }
                    for channel, error in refused
                ]
            sink(token, True, _json.encode(answer))
        else:
            shown = jsonrpc.shown(method)
            raise RequestError(
                Code.UNKNOWN_METHOD, f"unknown method {shown!r}", methods=list(jsonrpc.METHODS)
            )

    def _submit(self, peer: Peer, sink: Sink, token: bytes, raw: bytes, label: str = "") -> None:
        if not self.ready:
            raise _not_ready()
        self._check_load(peer)
        if not peer.submits.take():
            raise _too_many(
                f"submissions of a connection are limited to {self.limits.submits_per_s:g} a second"
            )
        signer = jsonrpc.admit(raw, self._domain)
        rid = self._next_rid
        self._next_rid = rid + 1
        deadline = self._loop.time() + self.limits.answer_timeout_s
        self._pending[rid] = _Pending(peer, sink, token, True, deadline)
        peer.outstanding += 1
        if not self._submits:
            self._loop.call_soon(self._forward)
        self._submits.append((rid, raw, signer, label))

    def _query(
        self, peer: Peer | None, sink: Sink, token: bytes, method: str, params: dict[str, Any]
    ) -> None:
        link = self._link
        if link is None or not (self.ready or peer is None):
            raise _not_ready()
        rid = self._next_rid
        self._next_rid = rid + 1
        deadline = self._loop.time() + self.limits.answer_timeout_s
        self._pending[rid] = _Pending(peer, sink, token, False, deadline)
        if peer is not None:
            peer.outstanding += 1
        link.send(ipc.Query(rid, method, params))

    def _check_load(self, peer: Peer) -> None:
        limits = self.limits
        if peer.outstanding >= limits.outstanding:
            raise _too_many(f"at most {limits.outstanding} requests of a connection may await their answer")
        if len(self._pending) >= limits.pending or (self._link is not None and self._link.paused):
            raise RequestError(
                Code.QUEUE_FULL,
                f"the exchange is busy: at most {limits.pending} requests may wait; nothing was accepted",
            )

    def _forward(self) -> None:
        """Sends what one turn of the loop has gathered, as one frame."""
        items, self._submits = self._submits, []
        if not items:
            return
        link = self._link
        for part in ipc.split_items(items, 1):
            if link is None or not link.send(ipc.Submit(part)):
                for rid, *_ in part:  # never written: nothing was accepted
                    self._finish(rid, False, _not_ready().body())

    def _subscribe(self, peer: Peer, names: list[str], on: bool) -> None:
        if not peer.can_subscribe:
            raise RequestError(Code.INVALID_REQUEST, "subscriptions need a WebSocket connection (/ws)")
        wanted = set(names)
        if on:
            if len(peer.channels | wanted) > jsonrpc.CHANNELS_MAX:
                raise jsonrpc.invalid(
                    "channels", f"at most {jsonrpc.CHANNELS_MAX} on a connection", len(peer.channels | wanted)
                )
            for name in names:
                self.subscribers.setdefault(name, {})[peer] = None
            peer.channels |= wanted
        else:
            self._unsubscribe(peer, wanted & peer.channels)

    def _unsubscribe(self, peer: Peer, names: set[str]) -> None:
        for name in sorted(names):
            peers = self.subscribers[name]
            del peers[peer]
            if not peers:
                del self.subscribers[name]
        peer.channels -= names

    def forget(self, peer: Peer) -> None:
        """`peer` has gone: its subscriptions end; what it has submitted goes on."""
        self._unsubscribe(peer, set(peer.channels))

    def health(self) -> dict[str, object]:
        """What GET /health shows."""
        return {
            "ready": self.ready,
            "connections": self.connections,
            "pending": len(self._pending),
            "sequencer_slow": self._link is not None and self._link.paused,
        }

    # --- answers --------------------------------------------------------------------------------

    def _finish(self, rid: int, ok: bool, body: bytes) -> None:
        pending = self._pending.pop(rid, None)
        if pending is None:
            return
        if pending.peer is not None:
            pending.peer.outstanding -= 1
        pending.sink(pending.token, ok, body)

    def _received(self, link: ipc.Connection, message: ipc.Message) -> None:
        finish = self._finish
        if isinstance(message, ipc.Acks):
            for rid, ok, body in message.items:
                finish(rid, ok, body)
        elif isinstance(message, ipc.Events):
            for channel, _, body in message.items:
                self._publish(channel, body)
        elif isinstance(message, ipc.Answer):
            finish(message.rid, message.ok, message.body)
        else:
            link.abort(f"the sequencer sent {type(message).__name__}")
        self.flush()

    def _publish(self, channel: str, body: bytes) -> None:
        names = (channel, "trades") if channel.startswith("trades.") else (channel,)
        for name in names:
            peers = self.subscribers.get(name)
            if peers:
                document = (
                    b'{"jsonrpc":"2.0","method":"event","params":{"channel":'
                    + _json.encode(channel)
                    + b',"data":'
                    + body
                    + b"}}"
                )
                frame = text_frame(document)
                for peer in peers:
                    if name is channel or channel not in peer.channels:  # once, to who asked twice
                        peer.queue(frame)

    def publish_gap(self, why: str) -> None:
        """Tells every subscriber that events before this one may be missing."""
        frame = text_frame(
            b'{"jsonrpc":"2.0","method":"event","params":{"channel":"gap","data":{"reason":%b}}}'
            % _json.encode(why)
        )
        for peer in dict.fromkeys(peer for peers in self.subscribers.values() for peer in peers):
            peer.queue(frame)

    def wrote_to(self, peer: Peer) -> None:
        """`peer` has frames to flush at the end of this turn of the loop."""
        if not self._dirty:
            self._loop.call_soon(self.flush)
        self._dirty.append(peer)

    def flush(self) -> None:
        """Writes what peers have queued, one write each."""
        dirty, self._dirty = self._dirty, []
        for peer in dirty:
            peer.flush()

    # --- the sequencer --------------------------------------------------------------------------

    async def run(self) -> None:
        """Keeps the connection to the sequencer, for ever."""
        sweeper = asyncio.create_task(self._sweep())
        wait_s = 0.05
        try:
            while True:
                try:
                    link = await ipc.connect(self.address, self._received, self._lost)
                except OSError as error:
                    logger.info("sequencer at %s: %s", self.address, error)
                else:
                    self._link = link
                    try:
                        await self._introduce()
                        wait_s = 0.05
                    except (RequestError, msgspec.DecodeError) as error:
                        logger.error("sequencer at %s: %s", self.address, error)
                        link.close()
                    await link.closed.wait()
                await asyncio.sleep(wait_s)
                wait_s = min(2 * wait_s, 2.0)
        finally:
            sweeper.cancel()
            if self._link is not None:
                self._link.close()

    async def _introduce(self) -> None:
        """Learns whose gateway this is; it takes nothing before."""
        info = _system_info_decoder.decode(await self._ask("system_info"))
        exchange = Exchange(info.chain_id, info.verifying_contract.lower())
        if self._expected is not None and exchange != self._expected:
            raise RequestError(
                Code.INTERNAL,
                f"the sequencer serves {exchange}, this gateway was started for {self._expected}",
            )
        self._read_instruments(await self._ask("instruments"))
        self.exchange = exchange
        self._domain = exchange.domain()
        self.ready = True
        if self._was_lost:
            self.publish_gap("the connection to the sequencer was lost and made again")
        logger.info("ready: chain %d, contract %s", exchange.chain_id, exchange.verifying_contract)

    async def _ask(self, method: str) -> bytes:
        answer: asyncio.Future[bytes] = self._loop.create_future()

        def sink(_: bytes, ok: bool, body: bytes) -> None:
            if answer.done():
                return
            if ok:
                answer.set_result(body)
            else:
                answer.set_exception(
                    RequestError(Code.INTERNAL, f"{method}: {body.decode(errors='replace')}")
                )

        self._query(None, sink, b"", method, {})
        return await answer

    def _read_instruments(self, body: bytes) -> None:
        found = _instruments_decoder.decode(body)
        self.listed = Instruments((one.instrument, one.number) for one in found)

    def _instruments_arrived(self, _: bytes, ok: bool, body: bytes) -> None:
        if ok:
            try:
                self._read_instruments(body)
            except msgspec.DecodeError as error:
                logger.error("instruments: %s", error)
        parked, self._parked = self._parked, []
        for again in parked:
            again()

    def _lost(self, _: ipc.Connection, reason: str) -> None:
        """The sequencer has gone: what was forwarded has an unknown outcome, the rest was not accepted."""
        logger.warning("the connection to the sequencer was lost: %s", reason)
        self.ready = False
        self._was_lost = True
        self._link = None
        self._forward()
        for rid, pending in list(self._pending.items()):
            error = (
                _unknown("the connection to the sequencer was lost") if pending.is_submit else _not_ready()
            )
            self._finish(rid, False, error.body())
        self.flush()

    async def _sweep(self) -> None:
        """Gives up on answers that do not come. Requests are in the order of their deadlines."""
        while True:
            await asyncio.sleep(min(1.0, self.limits.answer_timeout_s / 4))
            now = self._loop.time()
            late = []
            for rid, pending in self._pending.items():
                if pending.deadline > now:
                    break
                late.append((rid, pending))
            for rid, pending in late:
                error = _unknown("no answer in time") if pending.is_submit else _not_ready()
                self._finish(rid, False, error.body())


class _Batch:
    """Answers of a batch, gathered until the last is there; in the order of their arrival."""

    __slots__ = ("_documents", "_missing", "_peer")

    def __init__(self, peer: Peer, count: int) -> None:
        self._peer = peer
        self._missing = count
        self._documents: list[bytes] = []

    def reply(self, token: bytes, ok: bool, body: bytes) -> None:
        self._documents.append(response(token, ok, body))
        self._missing -= 1
        if not self._missing:
            self._peer.send_document(b"[" + b",".join(self._documents) + b"]")


def _not_ready() -> RequestError:
    return RequestError(Code.NOT_READY, "the sequencer is away; nothing was accepted, try again later")


def _unknown(why: str) -> RequestError:
    return RequestError(
        Code.OUTCOME_UNKNOWN,
        f"{why} after the record was forwarded: look at the account's nonces or orders before sending it again",
    )


def _too_many(what: str) -> RequestError:
    return RequestError(Code.RATE_LIMITED, f"{what}; nothing was accepted")


# --- command line -------------------------------------------------------------------------------


async def serve(gateway: Gateway, host: str, port: int, started: Callable[[int], None] | None = None) -> None:
    """Serves until cancelled; `started` gets the port."""
    door = FrontDoor(gateway)
    link = asyncio.create_task(gateway.run())
    try:
        bound = await door.start(host, port)
        if started is not None:
            started(bound)
        await link
    finally:
        await door.close()
        link.cancel()
        await asyncio.wait([link])


def parse_listen(listen: str, public: bool) -> tuple[str, int]:
    """(host, port) of `127.0.0.1:8545`. ValueError for another machine's reach without `public`."""
    host, _, port = listen.rpartition(":")
    host = host.strip("[]") or "127.0.0.1"
    if not port.isascii() or not port.isdigit() or int(port) > 65_535:
        raise ValueError(f"{listen}: must be HOST:PORT with a port from 0 to 65535")
    if not public and host != "localhost":
        try:
            loopback = ipaddress.ip_address(host).is_loopback
        except ValueError:
            loopback = False
        if not loopback:
            raise ValueError(f"{listen}: reachable from other machines; give --public if that is meant")
    return host, int(port)


@click.command()
@with_config("gateway")
@click.option("--listen", default="127.0.0.1:9545", show_default=True, help="HOST:PORT for clients.")
@click.option(
    "--sequencer", "address", required=True, help="Unix socket of the sequencer, or 127.0.0.1:PORT."
)
@click.option("--public", is_flag=True, help="Allow --listen beyond this machine.")
@click.option("--chain-id", type=int, help="Serve this chain only (default: ask the sequencer).")
@click.option("--verifying-contract", help="Serve this Rollup only (default: ask the sequencer).")
@click.option("--connections", default=_LIMITS.connections, show_default=True, help="Clients at once.")
@click.option(
    "--submits-per-s", default=_LIMITS.submits_per_s, show_default=True, help="Per connection; 0: any."
)
@click.option(
    "--queries-per-s", default=_LIMITS.queries_per_s, show_default=True, help="Per connection; 0: any."
)
def main(
    listen: str,
    address: str,
    public: bool,
    chain_id: int | None,
    verifying_contract: str | None,
    connections: int,
    submits_per_s: float,
    queries_per_s: float,
) -> None:
    """Run a gateway between clients and the sequencer."""
    try:
        host, port = parse_listen(listen, public)
        ipc.parse_address(address)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    if (chain_id is None) != (verifying_contract is None):
        raise click.UsageError("--chain-id and --verifying-contract go together")
    expected = None
    if chain_id is not None and verifying_contract is not None:
        try:
            expected = Exchange(chain_id, "0x" + jsonrpc.from_hex(verifying_contract, (20,)).hex())
        except ValueError:
            raise click.UsageError("--verifying-contract: must be 0x and 40 hex digits") from None
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    limits = Limits(connections=connections, submits_per_s=submits_per_s, queries_per_s=queries_per_s)

    async def run() -> None:
        gateway = Gateway(address, expected, limits)
        task = asyncio.create_task(
            serve(gateway, host, port, lambda bound: click.echo(f"http://{host}:{bound}"))
        )
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
        try:
            await task
        except asyncio.CancelledError:
            logger.info("stopped")

    uvloop.run(run())


if __name__ == "__main__":
    main()
