"""L1 away, the disk full: what goes on, what waits, what is refused, and that all of it ends well."""

import asyncio
import contextlib
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from sequencer.engine.snapshots import recover
from sequencer.errors import Code
from sequencer.genesis import genesis_state
from sequencer.l1.follower import Follower
from sequencer.log.sqlite import SqliteLog
from sequencer.proof.replay import replay as replay_posted
from tests.simulation.kill import posts
from tests.simulation.world import Client, World, order

TRADERS = 2


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    built = World.build(tmp_path, TRADERS)
    yield built
    built.stop()


class Proxy:
    """TCP between the sequencer and its chain, to be cut and mended."""

    def __init__(self, target: str) -> None:
        self._host, _, port = target.removeprefix("http://").partition(":")
        self._port = int(port)
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._is_open = False
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._carry, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        self._is_open = True

    async def cut(self) -> None:
        """Nobody listens, and what was connected is not any more."""
        assert self._server is not None
        self._server.close()
        self._is_open = False
        for writer in list(self._writers):
            writer.transport.abort()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        other_reader, other_writer = await asyncio.open_connection(self._host, self._port)
        if not self._is_open:  # cut while this one was on its way
            writer.transport.abort()
            other_writer.transport.abort()
            return
        self._writers |= {writer, other_writer}
        with contextlib.suppress(ConnectionError):
            await asyncio.gather(_pump(reader, other_writer), _pump(other_reader, writer))
        self._writers -= {writer, other_writer}


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    writer.close()


class Orders:
    """Signed orders one by one, and their answers."""

    def __init__(self, world: World, client: Client, instrument: int) -> None:
        self.world = world
        self.client = client
        self.instrument = instrument
        self.count = 0

    def make(self) -> tuple[bytes, bytes]:
        number = self.count
        self.count += 1
        place = number // 4 % TRADERS
        nonce = number // (4 * TRADERS) * 4 + number % 4
        world = self.world
        return order(world.domain, place, world.accounts[place], nonce, self.instrument, number)

    async def send(self, count: int) -> list[int]:
        """0 for each that was acknowledged, else the code of its refusal."""
        codes = []
        for _ in range(count):
            self.client.submit([self.make()])
            codes.append(await self.answered())
        return codes

    async def answered(self) -> int:
        _, ok, body = await self.client.answer()
        return 0 if ok else int(body["code"])


async def trading(world: World, client: Client) -> Orders:
    await client.until(lambda one: one["accounts"] == TRADERS and one["instruments"] == 8, 60, "accounts")
    numbers = [one["number"] for one in await client.ask("instruments")]
    while (await client.ask("ticker", instrument=numbers[-1]))["marked_at"] == 0:  # noqa: ASYNC110
        await asyncio.sleep(0.02)
    return Orders(world, client, numbers[0])


def test_l1_is_away__orders_go_on_and_batches_go_out_once_when_it_is_back(world: World) -> None:
    async def play() -> None:
        proxy = Proxy(world.chain.url)
        await proxy.open()
        node = world.start_node(l1=proxy.url)
        client = await node.connect()
        assert client is not None, world.log_tail()
        orders = await trading(world, client)
        assert await orders.send(8) == [0] * 8
        await client.until(lambda one: one["batches_posted"] > 0, 60, "a batch on L1")

        await proxy.cut()
        down = await client.until(lambda one: "no answer from" in one["l1_error"], 60, "the outage to show")
        stored = down["batches_stored"]
        assert await orders.send(24) == [0] * 24
        waiting = await client.until(
            lambda one: one["batches_stored"] >= stored + 2, 60, "batches to be stored all the same"
        )
        assert waiting["batches_posted"] == down["batches_posted"]
        if waiting["waiting"]:
            raise AssertionError("orders wait for L1")

        await proxy.open()
        at = (await client.ask("status"))["batches_stored"]
        await client.until(
            lambda one: one["batches_posted"] >= at and not one["l1_error"], 100, "the batches to go out"
        )
        client.close()
        assert await asyncio.to_thread(node.terminate) == 0
        await proxy.cut()
        assert set(posts(world).values()) == {1}
        at_l1 = Follower(
            world.chain.rpc, world.deployment.inbox, world.deployment.rollup, world.deployment.deploy_block, 0
        )
        replay_posted(at_l1.batches(world.deployment.deploy_block), world.domain, world.params)

    asyncio.run(play())


def test_l1_is_away_at_the_start__the_sequencer_serves_and_catches_up(world: World) -> None:
    async def play() -> None:
        proxy = Proxy(world.chain.url)
        await proxy.open()
        await proxy.cut()
        node = world.start_node(l1=proxy.url)
        client = await node.connect()
        assert client is not None, world.log_tail()
        await client.until(lambda one: "no answer from" in one["l1_error"], 60, "the outage to show")
        await proxy.open()
        orders = await trading(world, client)
        assert await orders.send(4) == [0] * 4
        await client.until(lambda one: one["batches_posted"] > 0, 60, "a batch on L1")
        client.close()
        assert await asyncio.to_thread(node.terminate) == 0
        await proxy.cut()

    asyncio.run(play())


def test_no_file_may_grow__orders_are_refused_and_go_on_when_there_is_room_again(world: World) -> None:
    """RLIMIT_FSIZE stands in for a full disk: every write of the process fails, those of L1 and batches too."""

    async def play() -> None:
        node = world.start_node()
        client = await node.connect()
        assert client is not None, world.log_tail()
        orders = await trading(world, client)
        assert await orders.send(8) == [0] * 8
        unlimited = resource.prlimit(node.process.pid, resource.RLIMIT_FSIZE)
        largest = max(path.stat().st_size for path in world.data.glob("*.sqlite*"))
        seq = (await client.ask("status"))["seq"]

        resource.prlimit(node.process.pid, resource.RLIMIT_FSIZE, (4_096, unlimited[1]))
        assert largest > 4_096
        refused = orders.make()
        client.submit([refused])
        assert await orders.answered() == Code.NOT_READY
        assert await orders.send(3) == [Code.NOT_READY] * 3
        status = await client.ask("status")
        assert status["log_error"]
        assert node.is_alive

        resource.prlimit(node.process.pid, resource.RLIMIT_FSIZE, unlimited)
        orders.client.submit([refused])  # nothing of it was executed: its nonce is good
        assert await orders.answered() == 0
        assert await orders.send(4) == [0] * 4
        status = await client.until(
            lambda one: one["batches_posted"] == one["batches_stored"] > 0 and not one["log_error"],
            60,
            "all to go on",
        )
        assert status["seq"] > seq
        status = await client.ask("status")
        node.kill()
        client.close()
        log = SqliteLog(world.data / "log.sqlite")
        state, _ = recover(world.folder / "none", log, genesis_state(world.domain, world.params))
        raws = [raw for entry in log.read(0) for raw in entry.raws()]
        log.close()
        assert raws.count(refused[0]) == 1
        assert state.globals.seq >= status["seq"]

    asyncio.run(play())
