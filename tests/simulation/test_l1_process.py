"""The L1 process of a running sequencer: whom it outlives, what it does not hear, and that no two ever post."""

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sequencer.local.devnet import devnet_key
from tests.simulation.faulty_node import ALONE
from tests.simulation.kill import posts
from tests.simulation.test_node import refused
from tests.simulation.test_outage import TRADERS, Orders, trading
from tests.simulation.world import Client, Node, World

PATIENCE_S = 60.0


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    built = World.build(tmp_path_factory.mktemp("l1-process"), TRADERS)
    yield built
    built.stop()


def is_alive(pid: int) -> bool:
    """Not even waiting to be reaped by whoever takes in orphans."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


async def gone(pid: int, within_s: float) -> None:
    until = time.monotonic() + within_s
    while is_alive(pid):
        assert time.monotonic() < until, f"process {pid} lives on"
        await asyncio.sleep(0.01)


async def started(world: World) -> tuple[Node, Client, Orders, int]:
    """A node that trades and has posted, and its L1 process."""
    node = world.start_node()
    client = await node.connect()
    assert client is not None, world.log_tail()
    orders = await trading(world, client)
    assert await orders.send(4) == [0] * 4
    await all_posted(client)
    pid = node.l1_process()
    assert pid is not None
    return node, client, orders, pid


async def all_posted(client: Client) -> None:
    """Orders that have just been acknowledged are in the next batch."""
    wanted = (await client.ask("status"))["batches_stored"] + 1
    await client.until(lambda one: one["batches_posted"] >= wanted, PATIENCE_S, "all to be posted")


def test_l1_process__through_signals_and_death__posts_each_batch_once(world: World) -> None:
    async def play() -> None:
        node, client, orders, pid = await started(world)
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
        assert devnet_key(0).hex().encode() not in command
        assert devnet_key(0).hex() not in world.log_tail(10**9)

        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(pid, number)
        assert await orders.send(4) == [0] * 4
        await all_posted(client)
        assert (await client.ask("status"))["l1_restarts"] == 0
        assert node.l1_process() == pid

        os.kill(pid, signal.SIGKILL)
        told = await client.until(lambda one: one["l1_restarts"], PATIENCE_S, "its end to show")
        assert "the L1 process has ended (SIGKILL)" in told["l1_error"]
        assert await orders.send(4) == [0] * 4
        await all_posted(client)
        await client.until(lambda one: not one["l1_error"], PATIENCE_S, "another")
        assert node.l1_process() not in (None, pid)
        assert (await client.ask("status"))["l1_restarts"] == 1

        # One that stands still holds nobody up at the end.
        second = node.l1_process()
        assert second is not None
        os.kill(second, signal.SIGSTOP)
        client.close()
        assert await asyncio.to_thread(node.terminate) == 0
        assert not is_alive(second)

        # Of a sequencer that is killed it ends by itself; one that cannot keeps the folder.
        node = world.start_node()
        again = await node.connect()
        assert again is not None, world.log_tail()
        await again.l1_seen()
        third = node.l1_process()
        assert third is not None
        os.kill(third, signal.SIGSTOP)
        node.kill()
        again.close()
        said = await asyncio.to_thread(refused, world, folder=world.data)
        assert "another sequencer holds it, or the L1 process of one that was killed" in said
        os.kill(third, signal.SIGCONT)
        await gone(third, 5)

        node = world.start_node()
        again = await node.connect()
        assert again is not None, world.log_tail()
        orders.client = again
        await again.l1_seen()
        assert await orders.send(4) == [0] * 4
        await all_posted(again)
        fourth = node.l1_process()
        node.kill()
        again.close()
        assert fourth is not None
        await gone(fourth, 5)
        assert set(posts(world).values()) == {1}

    asyncio.run(play())


@pytest.mark.parametrize("step", ["nonce stored", "after sending"])
def test_l1_process__that_dies_between_two_writes__is_followed_by_one_that_sends_the_same(
    tmp_path: Path, step: str
) -> None:
    world = World.build(tmp_path, TRADERS)

    async def play() -> None:
        node = world.start_node(fault=(f"transaction manager: {step}{ALONE}", 2))
        client = await node.connect()
        assert client is not None, world.log_tail()
        orders = await trading(world, client)
        while (await client.ask("status"))["l1_restarts"] < 2:  # each one dies at its second transaction
            assert await orders.send(2) == [0] * 2
            await asyncio.sleep(0.05)
        at = (await client.ask("status"))["batches_stored"]
        client.close()
        assert await asyncio.to_thread(node.terminate) == 0

        node = world.start_node()
        client = await node.connect()
        assert client is not None, world.log_tail()
        await client.until(lambda one: one["batches_posted"] >= at > 2, PATIENCE_S, "all to be posted")
        client.close()
        assert await asyncio.to_thread(node.terminate) == 0
        assert set(posts(world).values()) == {1}

    try:
        asyncio.run(play())
    finally:
        world.stop()
