"""The gateway: clients' JSON-RPC on one side, the sequencers' sockets on the other.

It decodes records and recovers their signers, so that neither is the engine's work. It holds no state of the
exchange but the names of the instruments; any number of gateways may run beside each other. What it accepts, in which
frames, and how it fails: docs/API.md. The protocols of the port are in frontdoor.py; which node gets what, in links.py;
what is sent again, in flights.py and questions.py.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from sequencer.api import ipc
from sequencer.api.exchange import Exchange
from sequencer.api.failures import not_ready as _not_ready
from sequencer.api.failures import too_many as _too_many
from sequencer.api.limits import Limits
from sequencer.api.link import LinkSettings
from sequencer.api.peer import Peer
from sequencer.api.peers import GatewayPeer
from sequencer.api.pending import BatchAnswers as _Batch
from sequencer.api.pending import Pending as _Pending
from sequencer.api.pending import Sink
from sequencer.api.turns import Asked
from sequencer.api.upstream import Upstream
from sequencer.errors import Code
from sequencer.wire import jsonrpc
from sequencer.wire.fields import request_error
from sequencer.wire.jsonrpc import RequestError, UnknownInstrument

logger = logging.getLogger(__name__)

_OPEN_BRACKET: Final = ord("[")
_BLANK: Final = b" \t\r\n"
_json: Final = msgspec.json.Encoder()


class Gateway(Upstream):
    """Requests of all peers, and the connections to the sequencers. No listening socket of its own.

    `sequencers`: addresses of nodes of which one leads; `followers`: of nodes that never lead.
    """

    def __init__(
        self,
        sequencers: str | Sequence[str],
        expected: Exchange | None = None,
        limits: Limits | None = None,
        settings: LinkSettings | None = None,
        recovery_threads: int = 0,
        headers: GatewayPeer | None = None,
        followers: Sequence[str] = (),
    ) -> None:
        super().__init__(sequencers, followers, expected, limits, settings, recovery_threads, headers)
        self._parked: list[Callable[[], None]] = []
        self._refreshed_at = float("-inf")
        self._refreshing: asyncio.Task[None] | None = None  # held, so that it lives

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
            self._refreshing = self._loop.create_task(self._refresh_instruments())

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
            self._take_query(peer)
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
            asked = self._subscribe(peer, names, on=method == "subscribe")
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
            self._answer_heard(peer, sink, token, asked, _json.encode(answer))
        else:
            message = f"unknown method {jsonrpc.shown(method)!r}; there are {', '.join(jsonrpc.METHODS)}"
            raise RequestError(
                *(Code.UNKNOWN_METHOD, message),
                field="method",
                limit="one of `methods`",
                got=jsonrpc.shown(method),
                methods=list(jsonrpc.METHODS),
            )

    def _submit(self, peer: Peer, sink: Sink, token: bytes, raw: bytes, label: str = "") -> None:
        if self.exchange is None or not self._flights.has_room:
            raise _not_ready(self.links.why_no_leader())
        self._check_load(peer)
        if not peer.submits.take():
            raise _too_many("submits_per_s", "submissions of a connection", peer.submits)
        if not peer.address.submits.take():
            what = f"submissions of {peer.address.name}"
            raise _too_many("address_submits_per_s", what, peer.address.submits)
        jsonrpc.check_record(raw)
        rid = next(self._rids)
        deadline = self._loop.time() + self.limits.answer_timeout_s
        record = b"" if self.headers is None else raw
        self._pending[rid] = _Pending(peer, sink, token, True, deadline, record)
        peer.outstanding += 1
        self._recovery.submit(rid, raw, label)

    def _take_query(self, peer: Peer) -> None:
        self._check_load(peer)
        if not peer.queries.take():
            raise _too_many("queries_per_s", "queries of a connection", peer.queries)
        if not peer.address.queries.take():
            what = f"queries of {peer.address.name}"
            raise _too_many("address_queries_per_s", what, peer.address.queries)

    def _query(self, peer: Peer, sink: Sink, token: bytes, method: str, params: dict[str, Any]) -> None:
        """Has a node asked, in the client's turn."""
        if self.exchange is None or not (self.ready or self.limits.retry_s):
            raise _not_ready()
        rid = next(self._rids)
        deadline = self._loop.time() + self.limits.answer_timeout_s
        self._pending[rid] = _Pending(peer, sink, token, False, deadline)
        peer.outstanding += 1
        self._turns.ask(Asked(peer, rid, method, params))

    def _check_load(self, peer: Peer) -> None:
        limits = self.limits
        if peer.outstanding >= limits.outstanding:
            limit = f"at most {limits.outstanding} requests of a connection that await their answer"
            hint = "nothing was accepted; read the answers first"
            raise request_error(Code.RATE_LIMITED, "outstanding", limit, peer.outstanding + 1, hint)
        if len(self._pending) >= limits.pending or self.links.is_paused:
            limit = f"at most {limits.pending} requests of all clients that await their answer"
            if self.links.is_paused:
                limit = "a sequencer that reads what it is sent"
            hint = "the exchange is busy; nothing was accepted, try again in a second"
            got = len(self._pending) + 1
            raise request_error(Code.QUEUE_FULL, "pending", limit, got, hint, retry_after_s=1)

    def _subscribe(self, peer: Peer, names: list[str], on: bool) -> list[str]:
        """The channels that the sequencer has to be asked for."""
        if not peer.can_subscribe:
            limit = "a WebSocket (/ws)"
            hint = "subscriptions need a WebSocket connection"
            raise request_error(Code.INVALID_REQUEST, "connection", limit, "HTTP", hint)
        if on:
            count = len(peer.channels | set(names))
            if count > jsonrpc.CHANNELS_MAX:
                raise jsonrpc.invalid("channels", f"at most {jsonrpc.CHANNELS_MAX} on a connection", count)
            asked = [name for name in names if name not in self._heard]
            if asked and self.links.source is not None:  # as a query: it costs the sequencer a look
                self._take_query(peer)
            self.events.add(peer, names)
            return asked
        self._hear_no_more(self.events.remove(peer, names))
        return []

    def _answer_heard(self, peer: Peer, sink: Sink, token: bytes, names: list[str], answer: bytes) -> None:
        """Answers a subscription once the sequencer makes events of `names`: none after the answer is missed.

        When it has gone meanwhile it is told of all channels as it comes back, and all subscribers of a gap.
        """
        source = self.links.source
        if not names or source is None:
            sink(token, True, answer)
            return

        def heard(_: bytes, ok: bool, __: bytes) -> None:
            if ok:
                self._heard.update(dict.fromkeys(name for name in names if name in self.events.by_channel))
            sink(token, True, answer)

        rid = next(self._rids)
        deadline = self._loop.time() + self.limits.answer_timeout_s
        self._pending[rid] = _Pending(peer, heard, token, False, deadline)
        self._hearing[rid] = None
        peer.outstanding += 1
        source.send(ipc.Hear(rid, True, names))

    def forget(self, peer: Peer) -> None:
        """`peer` has gone: its subscriptions end; what it has submitted goes on."""
        self._hear_no_more(self.events.remove(peer, list(peer.channels)))

    def caught_up(self, peer: Peer) -> None:
        """`peer` has read what it had left unread: its queries may go on."""
        self._turns.wake(peer.address)

    def health(self) -> dict[str, object]:
        """What GET /health shows. `reason`: why no orders are taken."""
        accepts, reason = self.links.health()
        return {
            "ready": self.ready,
            "accepts_orders": self.ready and accepts,
            "reason": reason if self.ready or reason else "the sequencer is away",
            "connections": self.connections,
            "addresses": len(self.addresses),
            "pending": len(self._pending),
            "queries_on_their_way": len(self._turns),
            "unread_bytes": self.addresses.unread,
            "records_unanswered": len(self._flights),
            "sequencer_slow": self.links.is_paused,
            **self.links.status(),
            **({} if self.headers is None else {"peers": self.headers.status()}),
        }

    async def _refresh_instruments(self) -> None:
        """Looks the instruments up again, for requests that name one that is not known."""
        link = self.links.any_ready()
        try:
            if link is not None:
                self.listed = await self._instruments(link)
        except (RequestError, msgspec.DecodeError) as error:
            logger.error("instruments: %s", error)
        parked, self._parked = self._parked, []
        for again in parked:
            again()
        self.flush()
