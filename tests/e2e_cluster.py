"""What the tests of clusters share: raw answers of a node, and orders whose answers are told apart."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from sequencer.api import ipc
from sequencer.development import devnet_params
from sequencer.errors import Busy
from sequencer.local.bench import key_of, options
from sequencer.local.cluster import ClusterSettings, LocalCluster, Process
from sequencer.protocol import codec
from sequencer.protocol import constants as c
from sequencer.protocol.constants import Kind
from tests.simulation.world import MID, Client, World, option_name

TRADERS = 2
READY_S = 60.0


class RawClient(Client):
    """Keeps what was answered to each record, byte for byte."""

    def __init__(self) -> None:
        super().__init__()
        self.got: dict[bytes, tuple[bool, bytes]] = {}

    def on_message(self, connection: ipc.Connection, message: ipc.Message) -> None:
        if not isinstance(message, ipc.Acks):
            super().on_message(connection, message)
            return
        for rid, ok, body in message.items:
            self.got[self.waiting.pop(rid)] = ok, body
        self.answered.set()

    async def all_of(self, raws: list[bytes]) -> list[bytes]:
        """The answers to these records, which must all have held."""
        until = time.monotonic() + READY_S
        while not all(raw in self.got for raw in raws):
            assert time.monotonic() < until
            assert not self.lost.is_set()
            await asyncio.sleep(0.01)
        assert all(self.got[raw][0] for raw in raws), [self.got[raw] for raw in raws if not self.got[raw][0]]
        return [self.got[raw][1] for raw in raws]


def settings(folder: Path, **changed: Any) -> ClusterSettings:
    """Of a cluster with options around a price that stands still, whose leaders are given up after a second."""
    names = [option_name(day, strike, is_put) for _, day, strike, is_put in options(int(time.time()))]
    interval_s = changed.pop("batch_interval_s", 0.5)
    return ClusterSettings(
        folder,
        feed="flat:46000",
        listed=names,
        params=devnet_params(target_per_s=1_000_000, risk_age_max_s=86_400),
        node_options=("--lease", "1", "--batch-interval", str(interval_s), "--poll", "0.1"),
        **changed,
    )


async def funded(cluster: LocalCluster) -> World:
    """The cluster's chain, on which each trader has deposited."""
    at = cluster.deployment
    domain = codec.domain_separator(at.chain_id, bytes.fromhex(at.rollup[2:]))
    world = World(cluster.folder, cluster.chain, at, cluster.settings.params, domain)
    for number in range(TRADERS):
        await asyncio.to_thread(world.fund, number)
    await asyncio.to_thread(cluster.chain.mine, 2)
    return world


async def listed(ask: Callable[[str], Awaitable[Any]]) -> list[dict[str, Any]]:
    """The options, once they are marked, the deposits credited, and orders taken. `ask`: a query's answer."""

    async def ready() -> Any:
        try:
            found = await ask("instruments")
            status = await ask("status")
        except Busy:  # a gateway has found no node yet
            return None
        return found if status["accounts"] >= TRADERS and found and status["accepts_orders"] else None

    found: list[dict[str, Any]] = await eventually(ready, "the deposits and the listings")
    await asyncio.sleep(1.5)  # marks
    return found


async def connected(cluster: LocalCluster, node: Process) -> RawClient:
    until = time.monotonic() + READY_S
    while True:
        client = RawClient()
        try:
            client.connection = await ipc.connect(
                cluster.socket(node.name), client.on_message, client.on_lost
            )
        except OSError:
            assert time.monotonic() < until
            await asyncio.sleep(0.05)
        else:
            return client


async def eventually(found: Any, what: str) -> Any:
    """What `found()` gives once it is true."""
    until = time.monotonic() + READY_S
    while True:
        one = await found()
        if one:
            return one
        assert time.monotonic() < until, what
        await asyncio.sleep(0.05)


def orders(domain: bytes, accounts: list[int], instrument: int, first: int, count: int) -> list[bytes]:
    """Sells that rest, and buys that each take a part of them."""
    out = []
    for number in range(first, first + count):
        place = number % 2
        raw = codec.encode(
            Kind.PLACE, account=accounts[place], instrument=instrument, flags=c.BUY if place else c.SELL,
            price=MID, quantity=3 if place else 10, nonce=number, expires=0, fee_max=65_535,
        )  # fmt: skip
        out.append(codec.sign(raw, domain, key_of(place)))
    return out
