"""`fairstrike up`: a devnet that stays until it is told to stop."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sequencer.bench import FlatSource
from sequencer.clock import SystemClock
from sequencer.devnet import FEEDS, Devnet, DevnetConfig, devnet_key, devnet_params, devnet_signer
from sequencer.feeds import FeedSource, FileSource, HttpSource
from sequencer.keeper import Terms
from sequencer.protocol.constants import DAY_S

LISTED_DAYS = (1, 2, 3, 7, 14, 28)
STRIKES_EACH_SIDE = 6
TRADER_CASH = 1_000_000_000_000
TRADERS = (1, 2, 3)
FUND_CASH = 100_000_000_000_000


def grid(now_s: int, index_ticks: int, step_ticks: int = 100_000) -> list[Terms]:
    """A first listing: six expiries, strikes of 1,000 USD around the index, calls and puts."""
    middle = index_ticks // step_ticks * step_ticks
    strikes = [middle + i * step_ticks for i in range(-STRIKES_EACH_SIDE, STRIKES_EACH_SIDE + 1)]
    return [
        (0, now_s // DAY_S + days, strike, is_put)
        for days in LISTED_DAYS
        for strike in strikes
        if strike > 0
        for is_put in (False, True)
    ]


async def run_up(
    chain: str,
    folder: Path,
    port: int,
    feed: str,
    ready: Callable[[dict[str, Any]], None],
    stop: asyncio.Event,
) -> None:
    """Runs until `stop` is set. Raises ValueError for a feed that is none of flat:, file:, http(s)://."""
    clock = SystemClock()
    index_ticks = 4_600_000
    if feed.startswith("flat:"):
        index_ticks = round(float(feed[5:]) * 100)
    wanted = grid(clock.now_s(), index_ticks)
    source: FeedSource
    if feed.startswith("flat:"):
        source = FlatSource(wanted, index_ticks)
    elif feed.startswith("file:"):
        source = FileSource(feed[5:])
    elif feed.startswith(("http://", "https://")):
        source = HttpSource(feed)
    else:
        raise ValueError(f"--feed must be flat:USD, file:PATH or a URL, got {feed!r}")
    config = DevnetConfig(
        chain=chain, folder=folder / "devnet", params=devnet_params(), port=port, service={"batch_interval_s": 5.0}
    )
    async with Devnet(config, clock, [source], wanted) as devnet:
        accounts = {}
        for index in TRADERS:
            accounts[devnet_signer(index).address] = await devnet.fund(devnet_signer(index), TRADER_CASH)
        last = await devnet.fund(devnet_signer(9), FUND_CASH)
        devnet.liquidator(last, devnet_key(9))
        ready(
            {
                "api": devnet.url,
                "websocket": devnet.ws_url,
                "l1": devnet.chain.url,
                "chain_id": devnet.deployment.chain_id,
                "rollup": devnet.deployment.rollup,
                "vault": devnet.deployment.vault,
                "token": devnet.deployment.token,
                "deployment": str(devnet.folder / "deployment.json"),
                "feeds": FEEDS,
                "accounts": accounts,
            }
        )
        mining = asyncio.create_task(_mine(devnet))
        await stop.wait()
        mining.cancel()


async def _mine(devnet: Devnet) -> None:
    """An automining chain makes no blocks of its own; deposits wait for confirmations, batches for finality."""
    while True:
        await asyncio.sleep(2.0)
        if devnet.config.chain in ("pyevm", "anvil", "hardhat"):
            await asyncio.to_thread(devnet.chain.mine, 1)
