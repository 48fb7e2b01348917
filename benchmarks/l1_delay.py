"""From L1's block to the credit: how long a deposit takes, told by the node's events and by the clock alone.

    python benchmarks/l1_delay.py [--chain pyevm --chain anvil --chain hardhat] [--deposits N] [--poll SECONDS]

A sequencer on a development chain, with one confirmation. Each deposit is sent, a block is mined at a moment that is
random to the sequencer, and the time runs from the answer to that until the state has the credit. Beside it: looks a
second while nothing happens.
"""

import argparse
import asyncio
import random
import statistics
import tempfile
import time
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

from sequencer.genesis import genesis_root
from sequencer.l1 import chains
from sequencer.l1.chains import Chain
from sequencer.l1.deploy import DeployConfig, deploy
from sequencer.l1.heads import NO_EVENTS
from sequencer.l1.wallet import Wallet
from sequencer.local.devnet import devnet_params, wait_for
from sequencer.node.service import Service
from sequencer.node.settings import ServiceConfig
from sequencer.rollup.l1_messages import L1Config

CREDIT_TIMEOUT_S: Final = 60.0
QUIET_S: Final = 4.0
USD: Final = 10**6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--chain", action="append", choices=("pyevm", "anvil", "hardhat"))
    parser.add_argument("--deposits", type=int, default=15)
    parser.add_argument("--poll", type=float, default=L1Config().poll_s)
    options = parser.parse_args()
    table = Table("chain", "heads by", "median ms", "p90 ms", "most ms", "looks/s, quiet")
    for name in options.chain or ("pyevm", "anvil", "hardhat"):
        with chains.start(name) as chain:
            for events in (NO_EVENTS, None):
                with tempfile.TemporaryDirectory() as folder:
                    l1 = L1Config(confirmations=1, poll_s=options.poll, events=events)
                    delays, looks = asyncio.run(measure(chain, l1, Path(folder), options.deposits))
                most = sorted(delays)
                table.add_row(
                    name,
                    "the clock" if events else "events",
                    f"{statistics.median(most) * 1e3:.0f}",
                    f"{most[int(len(most) * 0.9)] * 1e3:.0f}",
                    f"{most[-1] * 1e3:.0f}",
                    f"{looks:.1f}",
                )
    Console().print(table)


async def measure(chain: Chain, l1: L1Config, folder: Path, deposits: int) -> tuple[list[float], float]:
    """Delays in seconds; looks a second while nothing happens."""
    params = devnet_params()
    config = DeployConfig(genesis_root(params), chain.signer(1).address, 60, 60, params=params)
    at = await asyncio.to_thread(deploy, chain.rpc, chain.signer(0), config)
    trader = Wallet(chain.rpc, chain.signer(2), at)
    await asyncio.to_thread(trader.mint, deposits * 10 * USD)
    await asyncio.to_thread(trader.approve, deposits * 10 * USD)
    service = Service(
        ServiceConfig(folder / "sequencer", params, deployment=at, l1_url=chain.url, l1=l1),
        None,
        chain.signer(1),
    )
    await service.start(str(folder / "socket"))
    worker = service.worker
    assert worker is not None
    delays = []
    try:
        await wait_for(lambda: worker.looks > 2, CREDIT_TIMEOUT_S, "the first looks at L1")
        await asyncio.sleep(1.5)  # the subscription stands
        for number in range(deposits):
            await asyncio.sleep(random.uniform(0.3, 1.0))
            index = int(service.state.globals.inbox_count)
            await asyncio.to_thread(chain.set_automine, False)
            sending = asyncio.create_task(asyncio.to_thread(trader.deposit, 5 * USD + number))
            await asyncio.sleep(random.uniform(0.1, 0.4))
            mined = asyncio.create_task(asyncio.to_thread(chain.mine, 2))  # and the confirmation
            mined_s = 0.0
            while service.state.globals.inbox_count <= index:
                if mined.done() and not mined_s:
                    mined_s = time.monotonic()
                await asyncio.sleep(0.0005)
            delays.append(max(0.0, time.monotonic() - mined_s) if mined_s else 0.0)
            await mined
            await sending
            await asyncio.to_thread(chain.set_automine, True)
        looks = worker.looks
        await asyncio.sleep(QUIET_S)
        return delays, (worker.looks - looks) / QUIET_S
    finally:
        await service.stop()


if __name__ == "__main__":
    main()
