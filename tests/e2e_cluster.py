"""What the tests of clusters share: raw answers of a node, and orders whose answers are told apart."""

import asyncio
import time
from typing import Any

from sequencer.api import ipc
from sequencer.local.bench import key_of
from sequencer.local.cluster import LocalCluster, Process
from sequencer.protocol import codec
from sequencer.protocol import constants as c
from sequencer.protocol.constants import Kind
from tests.simulation.world import MID, Client

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
