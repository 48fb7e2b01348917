"""A disk that is full, really, and a folder that goes: nothing is acknowledged that is not durable, and it says why."""

import asyncio
import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sequencer.engine.snapshots import recover
from sequencer.errors import Code
from sequencer.genesis import genesis_state
from sequencer.log.sqlite import SqliteLog
from tests.simulation.test_outage import Orders, trading
from tests.simulation.world import World

TRADERS = 2
DISK_BYTES = 12 * 1024 * 1024


class SmallDisk(World):
    """A world whose sequencer's folder is a file system of its own."""

    @property
    def data(self) -> Path:
        return self.folder / "disk" / "sequencer"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[SmallDisk]:
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.geteuid() != 0:
        pytest.skip("a file system of one's own needs root")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES},mode=755", "tmpfs", str(disk)],
        check=False,
        capture_output=True,
        text=True,
    )
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    try:
        built = SmallDisk.build(tmp_path, TRADERS)
        yield built
        built.stop()
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def fill(disk: Path) -> None:
    """Until not a byte more goes."""
    with (disk / "filler").open("ab", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4_096))
    with (disk / "filler").open("ab", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"x")


def test_disk_is_full__what_is_refused_is_not_there__reads_go_on__and_it_recovers_by_itself(
    world: SmallDisk,
) -> None:
    disk = world.folder / "disk"

    async def play() -> None:
        node = world.start_node(snapshot_ticks=20)
        client = await node.connect()
        assert client is not None, world.log_tail()
        orders: Orders = await trading(world, client)
        acked: list[bytes] = []
        one = orders.make()
        for _ in range(2):
            for _ in range(40):
                client.submit([one])
                raw, ok, body = await client.answer()
                assert ok, body
                acked.append(raw)
                one = orders.make()
            before = await client.ask("status")
            fill(disk)
            refused, slowest_s = 0, 0.0
            until = time.monotonic() + 4
            while time.monotonic() < until:
                client.submit([one])
                raw, ok, body = await client.answer()
                if ok:  # it has fitted into pages of the log that are there already
                    acked.append(raw)
                    one = orders.make()
                    continue
                refused += 1
                assert body["code"] == Code.NOT_READY
                assert "the log is unavailable (" in body["message"], body
                assert "send again later" in body["message"]
                if refused > 5:  # it has gone back to what is durable, once
                    asked = time.monotonic()
                    await client.ask("book", instrument=orders.instrument)
                    slowest_s = max(slowest_s, time.monotonic() - asked)
                await asyncio.sleep(0.01)
            assert refused > 20
            assert slowest_s < 0.3, slowest_s
            status = await client.ask("status")
            assert status["log_error"]
            assert status["seq"] >= before["seq"]

            (disk / "filler").unlink()
            await client.until(lambda one: not one["log_error"], 10, "the room to be noticed")  # nobody sends
            client.submit([one])
            raw, ok, body = await client.answer()
            assert ok, body  # its nonce is good: nothing of it was executed
            acked.append(raw)
            one = orders.make()
        status = await client.until(
            lambda one: one["batches_posted"] == one["batches_stored"] > 0, 60, "all to go on"
        )
        node.kill()
        client.close()
        log = SqliteLog(world.data / "log.sqlite")
        state, _ = recover(world.folder / "none", log, genesis_state(world.domain, world.params))
        kept = [raw for entry in log.read(0) for raw in entry.raws()]
        log.close()
        places = [kept.index(raw) for raw in acked]
        assert places == sorted(places)
        assert all(kept.count(raw) == 1 for raw in acked)
        assert state.globals.seq >= status["seq"]

    asyncio.run(play())


@pytest.mark.parametrize("is_replaced", [False, True], ids=["removed", "replaced"])
def test_folder__that_is_taken_away__is_noticed_at_once__by_one_that_is_idle_too(
    world: SmallDisk, is_replaced: bool
) -> None:
    async def play() -> None:
        node = world.start_node()
        client = await node.connect()
        assert client is not None, world.log_tail()
        orders: Orders = await trading(world, client)
        assert await orders.send(8) == [0] * 8
        beside = world.data.with_name("moved")
        world.data.rename(beside)
        if is_replaced:  # a backup that was put back under a running node
            shutil.copytree(beside, world.data)
        else:
            shutil.rmtree(beside)
        await asyncio.wait_for(client.lost.wait(), 20)
        assert await asyncio.to_thread(node.process.wait, 20) == 1
        client.close()
        told = "is another file than was opened" if is_replaced else "is gone"
        assert told in world.log_tail()
        assert "restore the folder, then start again" in world.log_tail()

    asyncio.run(play())
