"""A gateway's side that faces the sequencers: requests on their way, their answers, and what becomes of them when a
node is lost.

Which node gets what: links.py; what is sent again: flights.py, questions.py.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable, Sequence
from typing import Any, Final

from sequencer.api import ipc
from sequencer.api.exchange import Exchange, Listed, decode_instruments, decode_system_info
from sequencer.api.failures import not_ready as _not_ready
from sequencer.api.failures import unknown as _unknown
from sequencer.api.flights import Flights
from sequencer.api.limits import Addresses, Limits
from sequencer.api.link import Link, LinkSettings
from sequencer.api.links import Links
from sequencer.api.outcome import find_outcome
from sequencer.api.peer import Peer
from sequencer.api.peers import GatewayPeer
from sequencer.api.pending import Pending as _Pending
from sequencer.api.questions import Questions
from sequencer.api.recovery import Recovery
from sequencer.api.subscribers import Subscribers
from sequencer.api.turns import Turns
from sequencer.errors import Code
from sequencer.wire import jsonrpc
from sequencer.wire.jsonrpc import Instruments, RequestError
from sequencer.wire.pages import PAGE

HEAR_NAMES: Final = 10_000  # channels of one frame
SWEEP_S: Final = 0.25

logger = logging.getLogger(__name__)


class Upstream:
    """Requests that have no answer yet, and the nodes that answer them."""

    def __init__(
        self,
        sequencers: str | Sequence[str],
        followers: Sequence[str],
        expected: Exchange | None,
        limits: Limits | None,
        settings: LinkSettings | None,
        recovery_threads: int,
        headers: GatewayPeer | None,
    ) -> None:
        self.headers = headers  # told to other peers, if there are any
        self.limits = limits or Limits()
        self.exchange: Exchange | None = None
        self.ready = False
        self.listed = Instruments()
        self._loop = asyncio.get_running_loop()
        self.addresses = Addresses(self.limits, self._loop.time)
        self.events = Subscribers()
        self._heard: dict[str, None] = {}  # channels whose events the sequencer makes for this gateway
        self.connections = 0
        self._rids = itertools.count(1)
        at = (sequencers,) if isinstance(sequencers, str) else sequencers
        self.links = Links(self, at, followers, settings or LinkSettings(), self._rids)
        self._flights = Flights(self.limits, self._look_up)
        self._questions = Questions(self.links)
        self._hearing: dict[int, None] = {}  # request ids of channels that a node is asked to tell
        self._stalled_at = float("-inf")  # when the last leader, or the last node, was lost
        self._recovery = Recovery(self._forward, self._refuse_signature, self._lose, recovery_threads)
        self._turns = Turns(self.limits, self._send_query)
        self._expected = expected
        self._pending: dict[int, _Pending] = {}
        self._dirty: list[Peer] = []
        self._had_source = False

    def _send_query(self, rid: int, method: str, params: dict[str, Any]) -> bool:
        if rid not in self._pending:  # its time is up
            return False
        return self._recovery.query(ipc.Query(rid, method, params))

    def _forward(self, message: ipc.Message) -> bool:
        """Takes what the recovery of signers lets go; what has been given up meanwhile goes nowhere."""
        pending = self._pending
        if isinstance(message, ipc.Submit):
            self._flights.submit([item for item in message.items if item[0] in pending])
        elif isinstance(message, ipc.Query):
            one = pending.get(message.rid)
            if one is None:
                self._turns.answered(message.rid, 0)
            else:
                self._questions.ask(message, 0 if one.peer is None else one.peer.memory.seen)
        return True

    def _refuse_signature(self, rid: int, raw: bytes) -> None:
        self._finish(rid, False, jsonrpc.bad_signature(raw).body())

    def _lose(self, rid: int) -> None:
        self._finish(rid, False, _not_ready().body())

    def _hear_no_more(self, names: list[str]) -> None:
        for name in names:
            self._heard.pop(name, None)
        if names and self.links.source is not None:
            self.links.source.send(ipc.Hear(0, False, names))

    # --- answers --------------------------------------------------------------------------------

    def _finish(self, rid: int, ok: bool, body: bytes, seq: int = 0) -> None:
        """Answers a request. `seq`: its client has seen what is below that record."""
        pending = self._pending.pop(rid, None)
        if pending is None:
            return
        if pending.is_submit:
            self._flights.done(rid)
        peer = pending.peer
        if peer is not None:
            peer.outstanding -= 1
            if seq > peer.memory.seen:
                peer.memory.saw(seq)
        if ok and pending.record and self.headers is not None:
            self.headers.saw(pending.record, body)
        pending.sink(pending.token, ok, body)

    def received(self, link: Link, message: ipc.Message) -> None:
        """A node's message."""
        if isinstance(message, ipc.Acks):
            self._take_acks(link, message)
        elif isinstance(message, ipc.Events):
            if link is self.links.source:
                for channel, _, body in message.items:
                    self.events.publish(channel, body)
        elif isinstance(message, ipc.Answer):
            self._hearing.pop(message.rid, None)
            self._questions.answered(message.rid)
            self._turns.answered(message.rid, len(message.body))
            self._finish(message.rid, message.ok, message.body, message.seq)
        elif isinstance(message, ipc.Gap):
            if link is self.links.source:
                what = f"{message.dropped} events were dropped: the gateway read too slowly"
                self.events.publish_gap(what)
        elif link.connection is not None:
            link.connection.abort(f"the sequencer sent {type(message).__name__}")
        self.flush()

    def _take_acks(self, link: Link, message: ipc.Acks) -> None:
        flights, finish, seq = self._flights, self._finish, message.seq
        if link.connection is not flights.connection:
            return  # they have been sent elsewhere since, and what counts is said there
        is_refused = False
        for rid, ok, body in message.items:
            if ok:
                finish(rid, True, body, seq)
            elif flights.keeps(rid, body):
                is_refused = is_refused or (rid in self._pending and flights.is_refused(rid))
            else:
                finish(rid, False, body)
        if is_refused:
            self.links.deny(link)

    def _look_up(self, rid: int, raw: bytes, refusal: bytes) -> None:
        """A record that may have been applied is refused for its nonce: asks what became of it, and answers that."""

        def answer(ok: bool, body: bytes) -> None:
            self._finish(rid, ok, body)

        find_outcome(raw, refusal, self._ask_leader, answer)

    def _ask_leader(self, method: str, params: dict[str, Any], answer: Callable[[bool, bytes], None]) -> None:
        rid = next(self._rids)
        deadline = self._loop.time() + self.limits.answer_timeout_s
        self._pending[rid] = _Pending(None, lambda _, ok, body: answer(ok, body), b"", False, deadline)
        self._questions.ask(ipc.Query(rid, method, params), 0)

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

    # --- the sequencers -------------------------------------------------------------------------

    async def run(self) -> None:
        """Keeps the connections to the sequencers, for ever."""
        sweeper = asyncio.create_task(self._sweep())
        try:
            await self.links.run()
        finally:
            sweeper.cancel()
            self._recovery.close()
            if self.headers is not None:
                self.headers.stop()

    async def introduce(self, link: Link) -> None:
        """Learns whose node it is; the gateway takes nothing before."""
        info = decode_system_info(await link.ask("system_info"))
        exchange = Exchange(info.chain_id, info.verifying_contract.lower())
        expected = self.exchange if self.ready and self._expected is None else self._expected
        if expected is not None and exchange != expected:
            serves = f"this gateway {'serves' if self.ready else 'was started for'} {expected}"
            raise RequestError(Code.INTERNAL, f"the sequencer serves {exchange}, {serves}")
        if not self.ready or link.leads:
            self.listed = await self._instruments(link)
        self.exchange = exchange
        self._recovery.domain = exchange.domain()
        if self.headers is not None:
            self.headers.introduced(exchange, info.receipt_key)
        logger.info("%s: chain %d, contract %s", link.address, exchange.chain_id, exchange.verifying_contract)

    def on_change(self) -> None:
        """What a node can be asked may have changed."""
        self.ready = self.links.is_ready
        self._questions.again()

    def on_leader(self, leader: Link | None) -> None:
        """Orders go to `leader` from now on."""
        if leader is None or leader.connection is None:
            self._stalled_at = self._loop.time()
            self._flights.halt()
        else:
            self._flights.lead(leader.connection)

    def on_source(self, before: Link | None, source: Link | None) -> None:
        """Events come from `source` from now on; between two of them some may be missing."""
        if before is not None and self._heard:
            before.send(ipc.Hear(0, False, list(self._heard)))
        for rid in list(self._hearing):  # the new one is told of these channels, too
            self._finish(rid, False, b"null")
        self._hearing.clear()
        self._heard = {}
        if source is None:
            return
        names = list(self.events.by_channel)
        self._heard = dict.fromkeys(names)
        for start in range(0, len(names), HEAR_NAMES):
            source.send(ipc.Hear(0, True, names[start : start + HEAR_NAMES]))
        if self._had_source:
            self.events.publish_gap("the connection to the sequencer was lost and made again")
        self._had_source = True
        self.flush()

    def lost(self, link: Link, connection: ipc.Connection) -> None:
        """A node has gone: what it had goes to others, or waits for them as long as it may."""
        if not self.links.is_ready:
            self._stalled_at = self._loop.time()
        for rid in self._flights.lost(connection):
            self._finish(rid, False, self._flights.error_of(rid, self.links.why_no_leader()))
        self._questions.lost(link)
        self._give_up_stalled()
        self.flush()

    async def _instruments(self, link: Link) -> Instruments:
        """The listed instruments, page by page."""
        found: list[Listed] = []
        while True:
            after = found[-1].number if found else 0
            page = decode_instruments(await link.ask("instruments", after=after, limit=PAGE))
            found += page
            if len(page) < PAGE:
                return Instruments((one.instrument, one.number) for one in found)

    async def _sweep(self) -> None:
        """Gives up on answers that do not come. Requests are in the order of their deadlines."""
        limits = self.limits
        while True:
            await asyncio.sleep(min(SWEEP_S, limits.answer_timeout_s / 4))
            now = self._loop.time()
            late = []
            for rid, pending in self._pending.items():
                if pending.deadline > now:
                    break
                late.append((rid, pending))
            for rid, pending in late:
                error = _unknown("no answer in time") if pending.is_submit else _not_ready()
                self._finish(rid, False, error.body())
            self._give_up_stalled()
            self.flush()

    def _give_up_stalled(self) -> None:
        """Gives up what has waited for a leader, or for a node to ask, as long as it may."""
        flights, links, limits = self._flights, self.links, self.limits
        due = self._loop.time() - limits.retry_s
        if (flights.is_open and not len(self._questions)) or self._stalled_at > due:
            return
        stalled = []
        for rid, pending in self._pending.items():
            if pending.deadline - limits.answer_timeout_s > due:
                break
            if pending.is_submit:
                if not flights.is_open:
                    stalled.append((rid, flights.error_of(rid, links.why_no_leader())))
            elif self._questions.waits(rid) or not (links.is_ready or rid in self._hearing):
                stalled.append((rid, _not_ready().body()))
        for rid, error in stalled:
            self._questions.answered(rid)
            self._turns.answered(rid, 0)
            self._finish(rid, False, error)
