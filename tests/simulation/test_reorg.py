"""A deposit, and a chain that changes its mind: credited once, from the block that stays, or not at all."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sequencer.l1 import chains
from sequencer.l1.errors import ChainStartError
from tests.simulation.world import CASH, Client, Node, World

NODE_CHAINS = [pytest.param(name, marks=pytest.mark.node) for name in ("anvil", "hardhat")]
MORE = 5_000_000


@pytest.fixture(params=["pyevm", *NODE_CHAINS])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    if request.param != "pyevm":
        try:
            chains.install()
        except ChainStartError as error:
            pytest.skip(str(error))
    built = World.build(tmp_path, 1, request.param)
    yield built
    built.stop()


class Sequencer:
    """The process and a client of it; `restart` is SIGKILL and a start."""

    def __init__(self, world: World, confirmations: int) -> None:
        self.world = world
        self.confirmations = confirmations
        self.node: Node
        self.client: Client

    async def start(self) -> None:
        self.node = self.world.start_node(feed="none", confirmations=self.confirmations)
        client = await self.node.connect()
        assert client is not None, self.world.log_tail()
        self.client = client

    async def restart(self) -> None:
        self.client.close()
        self.node.kill()
        await self.start()

    async def status(self) -> dict[str, Any]:
        return await self.client.ask("status")  # type: ignore[no-any-return]

    async def cash(self) -> str:
        return str((await self.client.ask("account", account=1))["cash"])

    async def settled(self) -> None:
        """All batches are on L1, deep enough."""
        until = time.monotonic() + 60
        while time.monotonic() < until:
            self.world.chain.mine()
            status = await self.status()
            if status["batches_stored"] == status["batches_posted"] > 0:
                return
            await asyncio.sleep(0.05)
        raise AssertionError(f"batches are not posted: {status}")


async def ready(world: World, confirmations: int) -> Sequencer:
    """A sequencer that has credited the first deposit and posted that."""
    sequencer = Sequencer(world, confirmations)
    await sequencer.start()
    world.chain.mine(confirmations)
    await sequencer.client.until(lambda one: one["inbox_count"] == 1, 60, "the first deposit")
    await sequencer.settled()
    return sequencer


@pytest.mark.parametrize("confirmations", [1, 2, 3])
@pytest.mark.parametrize("is_restarted", [False, True], ids=["", "restarted"])
def test_deposit__reorganised_away_before_its_confirmations__is_credited_once_when_it_comes_back(
    world: World, confirmations: int, is_restarted: bool
) -> None:
    async def play() -> None:
        sequencer = await ready(world, confirmations)
        chain = world.chain
        before = chain.snapshot()
        world.fund(0, MORE)
        chain.mine(confirmations - 1) if confirmations > 1 else None
        assert (await sequencer.client.l1_seen())["inbox_count"] == 1
        chain.revert(before)
        if is_restarted:
            await sequencer.restart()
        chain.mine(confirmations + 2)  # another branch, longer than the one that is gone
        status = await sequencer.client.l1_seen()
        assert status["inbox_count"] == 1
        status = await sequencer.client.until(lambda one: not one["l1_error"], 60, "no error")
        assert status["inbox_count"] == 1
        assert await sequencer.cash() == f"{CASH // 10**6}.000000"

        world.fund(0, MORE)
        if is_restarted:
            await sequencer.restart()
        chain.mine(confirmations)
        await sequencer.client.until(lambda one: one["inbox_count"] == 2, 60, "the deposit that came back")
        if is_restarted:
            await sequencer.restart()
        chain.mine(confirmations)
        await sequencer.settled()
        status = await sequencer.client.until(lambda one: not one["l1_error"], 60, "no error")
        assert status["inbox_count"] == 2
        assert await sequencer.cash() == f"{(CASH + MORE) // 10**6}.000000"
        sequencer.client.close()
        assert await asyncio.to_thread(sequencer.node.terminate) == 0

    asyncio.run(play())


@pytest.mark.parametrize("is_restarted", [False, True], ids=["", "restarted"])
def test_reorg__deeper_than_the_confirmations__stops_l1_with_its_reason_and_credits_nothing(
    world: World, is_restarted: bool
) -> None:
    async def play() -> None:
        sequencer = await ready(world, 1)
        before = world.chain.snapshot()
        world.fund(0, MORE)
        world.chain.mine()
        await sequencer.client.until(lambda one: one["inbox_count"] == 2, 60, "the deposit")
        world.chain.revert(before)
        world.fund(0, 3 * MORE)  # another message in its place
        world.chain.mine(3)
        if is_restarted:
            await sequencer.restart()
        status = await sequencer.client.until(
            lambda one: "is gone" in one["l1_error"], 60, "the error to show"
        )
        assert "inbox message 1, reported" in status["l1_error"]
        assert "is gone: the chain was reorganised deeper than that" in status["l1_error"]
        status = await sequencer.client.l1_seen()
        assert status["inbox_count"] == 2
        assert "is gone" in status["l1_error"]
        assert await sequencer.cash() == f"{(CASH + MORE) // 10**6}.000000"
        sequencer.client.close()
        assert await asyncio.to_thread(sequencer.node.terminate) == 0

    asyncio.run(play())
