"""Traders behind the gateways of a cluster: its leader is stopped under load, and costs them time alone."""

import asyncio
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from sequencer.local.bench import key_of
from sequencer.local.cluster import LocalCluster
from sequencer.sdk.client import Client, Trader
from tests.e2e_cluster import READY_S, TRADERS, eventually, funded, listed, settings


@pytest.mark.timeout(300)
def test_leader_stopped_under_load__every_order_is_acked_once_and_readers_show_it(tmp_path: Path) -> None:
    asyncio.run(run(tmp_path))


async def run(folder: Path) -> None:
    async with LocalCluster(settings(folder, gateways=2)) as cluster:
        world = await funded(cluster)
        urls = [url.replace("http", "ws") + "/ws" for url in cluster.urls]
        clients = [await Client.connect(url, ping_s=60) for url in urls]

        options = await listed(clients[0].call)
        name = options[0]["instrument"]
        traders = [
            await Trader.open(client, key_of(number), account=world.accounts[number])
            for number, client in enumerate(clients)
        ]
        is_over = asyncio.Event()
        acked: list[list[int]] = [[], []]

        async def trade(number: int) -> None:
            """Sells that rest, some at a time; what it reads right after an ack holds the order."""
            acked[number].append(
                (await traders[number].place(name, "sell", "9000", "0.001")).seq
            )  # knows `name` now
            while not is_over.is_set():
                placed = await asyncio.gather(
                    *(traders[number].place(name, "sell", f"{9_000 + number}", "0.001") for _ in range(3))
                )
                acked[number] += [one.seq for one in placed]
                found = await clients[number].call(
                    "orders", account=world.accounts[number], after=placed[-1].seq - 1
                )
                assert placed[-1].seq in [one["seq"] for one in found]
                await asyncio.sleep(0.02)

        trading = [asyncio.create_task(trade(number)) for number in range(TRADERS)]

        async def some() -> bool:
            return all(len(one) >= 12 for one in acked) or any(one.done() for one in trading)

        await eventually(some, "orders")
        first = cluster.leader
        assert first is not None
        first.send(signal.SIGSTOP)
        before = [len(one) for one in acked]
        stopped = time.monotonic()

        async def more() -> bool:
            is_on = all(len(one) >= many + 12 for one, many in zip(acked, before, strict=True))
            return is_on or any(one.done() for one in trading)

        await eventually(more, "orders of the next leader")
        assert cluster.leader is not first
        print(f"orders go on {time.monotonic() - stopped:.1f} s after the leader was stopped")
        first.send(signal.SIGCONT)  # it comes back, finds that it has lost the log, and follows
        await asyncio.sleep(2.0)
        assert not any(one.done() for one in trading)
        is_over.set()
        await asyncio.gather(*trading)
        for number, seqs in enumerate(acked):
            assert seqs == sorted(set(seqs))
            found: list[dict[str, Any]] = []
            until = time.monotonic() + READY_S
            while len(found) < len(seqs) and time.monotonic() < until:
                after = found[-1]["seq"] if found else 0
                page = await clients[1 - number].call("orders", account=world.accounts[number], after=after)
                found += page
                if not page:
                    await asyncio.sleep(0.05)
            assert [one["seq"] for one in found] == seqs
        for client in clients:
            await client.close()
