"""An idle exchange posts what a rule asks for, and nothing else; what somebody waits for goes out as ever."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.simulation.kill import posts
from tests.simulation.test_outage import Orders, trading
from tests.simulation.world import World

TRADERS = 2
TAKEOVER_S = 24  # a quarter of it: the longest without a batch
IDLE_S = 9.0


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    built = World.build(tmp_path, TRADERS, takeover_s=TAKEOVER_S)
    yield built
    built.stop()


def test_idle_exchange__posts_for_the_heartbeat_alone__and_at_once_when_somebody_trades(world: World) -> None:
    async def play() -> None:
        node = world.start_node(batch_interval=0.5)
        client = await node.connect()
        assert client is not None, world.log_tail()
        orders: Orders = await trading(world, client)
        assert await orders.send(4) == [0] * 4
        await client.until(lambda one: one["batches_posted"] == one["batches_stored"] > 0, 60, "all on L1")
        before = await client.ask("status")
        await asyncio.sleep(IDLE_S)
        after = await client.ask("status")
        assert after["seq"] > before["seq"]  # feeds went on
        new = after["batches_stored"] - before["batches_stored"]
        assert 1 <= new <= 2, new  # one each quarter of takeover_s; 9 before
        assert after["accepts_orders"]

        asked = time.monotonic()
        stored = after["batches_stored"]
        assert await orders.send(1) == [0]
        await client.until(lambda one: one["batches_posted"] > stored, 10, "the order's batch")
        assert time.monotonic() - asked < 4.0
        client.close()
        assert await asyncio.to_thread(node.terminate) == 0
        assert set(posts(world).values()) == {1}

    asyncio.run(play())
