"""Gateways that tell each other the headers of the receipts that they pass on; the sequencer signs two of one tick."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import aiohttp
import msgspec
import pytest
from exchange_fixture import (
    CHAIN_ID,
    CONTRACT,
    DOMAIN,
    KEYS,
    MAKER,
    NOW,
    PLACE,
    TAKER,
    Exchange,
    StandIn,
    free_port,
    signed,
)

from sequencer.api.gateway import Gateway, serve
from sequencer.api.peers import GatewayPeer
from sequencer.development import receipt_key
from sequencer.proof.gossip import Gossip, GossipConfig
from sequencer.proof.headers import HeaderStore
from sequencer.protocol import receipts
from sequencer.protocol.constants import Kind, Reason
from sequencer.protocol.hashing import address_of, public_key_of
from sequencer.queue.receipts import Issuer, Lead, TickReceipts
from sequencer.wire.headers import EQUIVOCATION
from sequencer.wire.receipts import with_receipt

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sequencer.api.ipc import Connection

SIGNER = address_of(public_key_of(receipt_key()))


class TwoFaced(StandIn):
    """A sequencer that signs each tick, and from `lies` on another header for every connection but the first."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.issuer = Issuer(DOMAIN, receipt_key(), lambda: Lead(epoch=1))
        self.lies = False
        self.connections: list[Connection] = []
        self.ticks = 0

    def _tick(self) -> None:
        self._due = False
        tick = self.engine.run(self.now, [], self.intake.take(512))
        self.events.observe(tick.system + tick.results)
        made = self.issuer.seal(tick)
        assert made is not None
        self.ticks += 1
        for result in tick.results:
            connection, rid = result.submission.reply  # type: ignore[misc]  # set by _on_submit
            if connection not in self.connections:
                self.connections.append(connection)
            if result.reason is not Reason.OK:
                connection.send_acks([(rid, False, result.why)])
                continue
            header = made.header
            if self.lies and connection is not self.connections[0]:
                header = replace(header, time_ns=header.time_ns + 1)
            told = TickReceipts(header, made.levels)
            told.head = receipts.pack(header, header.sign(DOMAIN, receipt_key()))
            body = with_receipt(self.events.ack(result, tick.number), told.of(result))
            connection.send_acks([(rid, True, body)])

    def _on_query(self, connection: Connection, rid: int, method: str, params: dict[str, Any]) -> None:
        if method != "system_info":
            super()._on_query(connection, rid, method, params)
            return
        key = "0x" + SIGNER.hex()
        answer = {"chain_id": CHAIN_ID, "verifying_contract": CONTRACT, "receipt_key": key}
        connection.send_answer(rid, True, msgspec.json.encode(answer))


class TwoGateways(Exchange):
    """One sequencer, two gateways of two groups of traders, each a peer."""

    def __init__(self) -> None:
        super().__init__(TwoFaced)
        self.endpoints = [f"tcp/127.0.0.1:{free_port()}" for _ in range(2)]

    async def _start(self) -> None:
        await self._start_sequencer()
        self.ports: list[int] = []
        self.gateways: list[Gateway] = []
        self.all_serving: list[asyncio.Task[None]] = []
        for endpoint in self.endpoints:
            headers = GatewayPeer(GossipConfig(listen=(endpoint,), ask_s=0.5), times=lambda: (NOW, NOW))
            gateway = Gateway(self.address, headers=headers)
            bound: asyncio.Future[int] = self._loop.create_future()
            self.all_serving.append(self._loop.create_task(serve(gateway, "127.0.0.1", 0, bound.set_result)))
            self.ports.append(await bound)
            self.gateways.append(gateway)
        self.gateway, self.port = self.gateways[0], self.ports[0]

    async def _stop(self) -> None:
        for serving in self.all_serving:
            serving.cancel()
        await asyncio.wait(self.all_serving)
        with contextlib.suppress(Exception):
            await self.sequencer.stop()
        await asyncio.sleep(0.05)

    def peers(self, which: int) -> dict[str, Any]:
        """On the gateways' loop."""
        found: dict[str, Any] = self.gateways[which].health()["peers"]  # type: ignore[assignment]
        return found


@pytest.fixture
def two() -> Iterator[TwoGateways]:
    with TwoGateways() as made:
        made.until(lambda: all(one.ready for one in made.gateways), "both gateways")
        yield made


def order(account: int, nonce: int) -> bytes:
    fields = {**PLACE, "account": account, "nonce": nonce, "price": 100_000 + nonce, "flags": 0}
    return signed(Kind.PLACE, KEYS[account], DOMAIN, **fields)


async def both(two: TwoGateways, nonce: int) -> None:
    """An order at each gateway, most likely in one tick."""

    async def post(session: aiohttp.ClientSession, port: int, record: bytes) -> None:
        params = {"record": "0x" + record.hex()}
        body = {"jsonrpc": "2.0", "id": 1, "method": "submit", "params": params}
        async with session.post(f"http://127.0.0.1:{port}/", json=body) as answer:
            assert "receipt" in (await answer.json())["result"]

    async with aiohttp.ClientSession() as session:
        await asyncio.gather(
            post(session, two.ports[0], order(MAKER, nonce)), post(session, two.ports[1], order(TAKER, nonce))
        )


def test_two_headers_of_one_tick__one_at_each_gateway__meet_at_a_third_peer_and_come_back(
    two: TwoGateways,
) -> None:
    third = Gossip(
        *(DOMAIN, HeaderStore(DOMAIN), GossipConfig(peers=tuple(two.endpoints), ask_s=0.5)),
        {SIGNER: "member"}.get,
        lambda: (NOW, NOW),
    )
    third.start()
    for nonce in range(5):
        two.run(both(two, nonce))
    ticks = two.do(lambda: two.sequencer.ticks)
    two.until(lambda: len(third.store) == ticks, "the headers of honest ticks")
    assert third.status()["pairs"] == 0
    two.do(lambda: setattr(two.sequencer, "lies", True))
    until = time.monotonic() + 30
    nonce, found = 5, set()
    while EQUIVOCATION not in found:  # until both orders have come into one tick
        assert time.monotonic() < until, third.status()
        two.run(both(two, nonce))
        nonce += 1
        found |= {pair.misdeed for pair in third.pairs()}
    two.until(lambda: all(two.peers(which)["pairs"] for which in (0, 1)), "both gateways have it")
    for which in (0, 1):
        told = two.do(lambda which=which: two.peers(which))
        assert (told["unreadable"], told["missed"], told["error"]) == (0, 0, "")
        assert told["own"]["unsigned"] == 0
        assert told["neighbours"] == 1  # the third alone joins them
    third.stop()


def test_gateway__looks_at_the_first_acknowledgement_of_a_tick_alone() -> None:
    peer = GatewayPeer(GossipConfig())
    head = bytes(receipts.HEAD_BYTES + receipts.SIGNATURE_BYTES)
    for n in range(100):
        peer.saw(b"record", b"{}\0" + head + bytes([n]))
    assert len(peer._waiting) == 1
    peer.saw(b"record", b"{}")
    peer.saw(b"record", b"{}\0" + head[:-1] + b"\1")
    peer.saw(b"record", b"{}\0" + head)
    assert len(peer._waiting) == 2
    for n in range(1, 10_001):
        peer.saw(b"record", b"{}\0" + n.to_bytes(8, "big") + head)
    status = peer.status()
    assert (len(peer._waiting), status["missed"]) == (4_096, 10_000 - 4_094)


def test_receipts_that_cannot_be_read__are_counted_and_stop_nothing(two: TwoGateways) -> None:
    peer = two.gateways[0].headers
    assert peer is not None
    for body in (
        b"{}\0short",
        b"not json\0" + b"\1" * 400,
        b"\0" + b"\2" * 400,
        b'{"fills":7}\0' + b"\3" * 400,
    ):
        two.do(lambda body=body: peer.saw(b"\x01", body))
    two.until(lambda: two.peers(0)["unreadable"] == 4, "they are counted")
    two.run(both(two, 0))
    two.until(lambda: two.peers(0)["headers"] >= 1, "the next is read")


def test_gateway_process__is_a_peer_with_the_keys_that_it_is_given(two: TwoGateways) -> None:
    endpoint = f"tcp/127.0.0.1:{free_port()}"
    command = [sys.executable, "-m", "sequencer.api.gateway", "--sequencer", two.address]
    command += ["--listen", "127.0.0.1:0", "--peers-listen", endpoint, "--peers", ",".join(two.endpoints)]
    command += ["--receipt-key", "0x" + SIGNER.hex()]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline().startswith("http://127.0.0.1:")
            two.until(lambda: two.peers(0)["neighbours"] == two.peers(1)["neighbours"] == 1, "the process")
        finally:
            process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0


@pytest.mark.parametrize(
    ("options", "what"),
    [
        (["--peers-listen", "tcp/0.0.0.0:7447"], "give --public"),
        (["--receipt-key", "0x" + "11" * 20], "goes with --peers"),
        (["--peers", "udp/127.0.0.1:1"], "must be tcp/HOST:PORT"),
    ],
)
def test_options_that_make_no_sense__are_refused(options: list[str], what: str) -> None:
    command = [sys.executable, "-m", "sequencer.api.gateway", "--sequencer", "/nowhere", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert what in done.stderr
