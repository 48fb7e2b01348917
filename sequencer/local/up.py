"""`fairstrike up`: a devnet that stays until it is told to stop.

One at a time in a folder. A chain that `up` starts itself forgets everything when it ends, and what the folder holds of
its exchange is worth nothing afterwards: it is moved aside. On a chain that goes on (a URL) the exchange goes on, too.
"""

import asyncio
import contextlib
import shutil
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from sequencer.clock import SystemClock
from sequencer.development import FEEDS, devnet_params
from sequencer.keeper.keeper import Terms
from sequencer.l1 import parameters
from sequencer.l1.deploy import Deployment
from sequencer.local.devnet import Devnet, DevnetConfig, devnet_key, devnet_signer
from sequencer.market.background import BackgroundSource
from sequencer.market.feeds import FeedError, FeedSource, IndexReport, News
from sequencer.market.flat import flat_indices
from sequencer.market.sources import feed_source
from sequencer.node.folder import FolderHeld, only_process
from sequencer.protocol.constants import DAY_S
from sequencer.protocol.market import strike_step
from sequencer.protocol.params import Params
from sequencer.rollup.l1_link import Children

FEEDS_OF_UP: Final = ("flat", "file", "http", "https")
OWN_CHAINS: Final = ("pyevm", "anvil", "hardhat")
LISTED_DAYS: Final = (1, 2, 3, 7, 14, 28)
STRIKES_EACH_SIDE: Final = 6
TICKS_PER_USD: Final = 100
TRADER_CASH: Final = 1_000_000_000_000
TRADERS: Final = (1, 2, 3)
LIQUIDATORS: Final = (8, 9)  # one that is full can take nothing more
LIQUIDATOR_CASH: Final = 100_000_000_000_000
INDEX_WAIT_S: Final = 10
MARKS_WAIT_S: Final = 10


class UpError(Exception):
    """Why it cannot run, in a sentence."""


class _Primed:
    """A source whose first reports have been taken already, to learn the index: they come with the next poll."""

    def __init__(self, source: FeedSource, reports: Sequence[News]) -> None:
        self._source = source
        self._reports = reports

    def poll(self, now_s: int) -> Sequence[News]:
        """See FeedSource."""
        reports, self._reports = self._reports, ()
        return reports or self._source.poll(now_s)


def grid(now_s: int, index_ticks: int, underlying: int = 0) -> list[Terms]:
    """A first listing: six expiries, round strikes around the index that the exchange lists, calls and puts."""
    step = _step(index_ticks)
    middle = index_ticks // step * step
    rules = devnet_params().of(underlying)
    strikes = [middle + i * step for i in range(-STRIKES_EACH_SIDE, STRIKES_EACH_SIDE + 1)]
    return [
        (underlying, now_s // DAY_S + days, strike, is_put)
        for days in LISTED_DAYS
        for strike in strikes
        if strike > 0 and strike % strike_step(strike, rules) == 0
        for is_put in (False, True)
    ]


def _step(index_ticks: int) -> int:
    """Between strikes: the greatest of 1, 2, 5 times a power of ten that is at most 2.5 % of the index; 1 USD."""
    bound = index_ticks // 40
    power = 1
    while power * 10 <= bound:
        power *= 10
    return max(next(one for one in (5 * power, 2 * power, power) if one <= max(bound, 1)), TICKS_PER_USD)


async def _first_indices(source: FeedSource, clock: SystemClock) -> tuple[dict[int, int], list[News]]:
    """The first index of each underlying that a source brings with BTC's, and all that came until then.

    Raises UpError when BTC's does not come.
    """
    reports: list[News] = []
    indices: dict[int, int] = {}
    why = "it brings none"
    for _ in range(INDEX_WAIT_S * 5):
        try:
            reports += source.poll(clock.now_s())
        except FeedError as error:
            why = str(error)
        for report in reports:
            if isinstance(report, IndexReport):
                indices[report.underlying] = report.price_ticks
        if 0 in indices:
            return indices, reports
        await asyncio.sleep(0.2)
    raise UpError(f"--feed: no index of BTC in {INDEX_WAIT_S} s: {why}")


async def _feed(
    feed: str, clock: SystemClock, ending: contextlib.ExitStack
) -> tuple[FeedSource, list[Terms]]:
    """The source that `feed` names, and what to list around its indices. Raises UpError."""
    kind, _, rest = feed.partition(":")
    if kind not in FEEDS_OF_UP:
        raise UpError(f"--feed must be flat:USD, file:PATH or a URL, got {feed!r}")
    if kind == "file" and not Path(rest).is_file():
        raise UpError(f"--feed {feed}: no such file")
    try:
        wanted = _grids(clock, flat_indices(rest)) if kind == "flat" else []
        source = feed_source(feed, wanted)
    except ValueError as error:
        raise UpError(f"--feed {feed}: {error}") from None
    if not isinstance(source, BackgroundSource):
        return source, wanted
    ending.callback(source.close)
    indices, reports = await _first_indices(source, clock)
    return _Primed(source, reports), _grids(clock, indices)


def _grids(clock: SystemClock, indices: dict[int, int]) -> list[Terms]:
    return [
        terms for number, ticks in sorted(indices.items()) for terms in grid(clock.now_s(), ticks, number)
    ]


def set_aside(folder: Path) -> None:
    """Moves what is left of an exchange whose chain has ended out of the way; the one before it goes."""
    if folder.exists():
        before = folder.with_name(folder.name + ".before")
        shutil.rmtree(before, ignore_errors=True)
        folder.rename(before)


def _check_port(port: int, option: str, what: str) -> None:
    """Raises UpError when somebody listens there: an answer could then be another one's."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise UpError(f"port {port}, of {what}: {error.strerror}; give another {option}") from None


async def run_up(
    chain: str,
    folder: Path,
    port: int,
    feed: str,
    ready: Callable[[dict[str, Any]], None],
    stop: asyncio.Event,
    params_path: Path | None = None,
    data: str = "calldata",
    l1_port: int = 0,
) -> None:
    """Runs until `stop` is set, with batches in `data` where it deploys; a chain of its own listens on `l1_port`.

    Raises UpError, ValueError for bad parameters, and what Devnet raises.
    """
    clock = SystemClock()
    with contextlib.ExitStack() as ending:
        try:
            lock = ending.enter_context(only_process(folder, "up.lock"))
        except FolderHeld:
            raise UpError(f"another `fairstrike up` runs in {folder}: give another --folder") from None
        _check_port(port, "--port", "the API")
        if chain in OWN_CHAINS:
            _check_port(l1_port, "--l1-port", "L1")
        source, wanted = await _feed(feed, clock, ending)
        if chain in OWN_CHAINS:
            set_aside(folder / "devnet")
        config = DevnetConfig(
            chain=chain,
            data=data,
            folder=folder / "devnet",
            params=_params(folder / "devnet" / "deployment.json", params_path),
            port=port,
            l1_port=l1_port or None,
            service={"batch_interval_s": 5.0, "children": Children(held=(lock,))},
        )
        devnet = Devnet(config, clock, [source], wanted)
        try:
            async with devnet:
                await _until_the_end(devnet, ready, stop)
        finally:
            if hasattr(devnet, "chain"):  # whatever went wrong: no process is left behind
                await asyncio.to_thread(devnet.chain.stop)


def _params(deployment: Path, params_path: Path | None) -> Params:
    """The parameters that are given, else those of the exchange that goes on here, else a devnet's."""
    if params_path is not None:
        return parameters.read(params_path, devnet_params())
    if deployment.exists():
        return parameters.of_deployment(Deployment.load(deployment))
    return devnet_params()


async def _until_the_end(
    devnet: Devnet, ready: Callable[[dict[str, Any]], None], stop: asyncio.Event
) -> None:
    """Serves until `stop`, or until something ends by itself, and then raises what."""
    work = asyncio.create_task(_serve(devnet, ready))
    stopping = asyncio.create_task(stop.wait())
    ended = asyncio.create_task(devnet.service.ended.wait())
    tasks = (work, stopping, ended)
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    if devnet.service.failure is not None:
        raise UpError(f"the sequencer has stopped: {devnet.service.failure}")


async def _serve(devnet: Devnet, ready: Callable[[dict[str, Any]], None]) -> None:
    """Funds the development accounts, says that all is up, and keeps an automining chain's blocks coming."""
    accounts = {}
    for index in TRADERS:
        accounts[devnet_signer(index).address] = await _funded(devnet, index, TRADER_CASH)
    devnet.liquidator(
        *[(await _funded(devnet, one, LIQUIDATOR_CASH), devnet_key(one)) for one in LIQUIDATORS]
    )
    await _marked(devnet)
    info = {
        "api": devnet.url,
        "websocket": devnet.ws_url,
        "l1": devnet.chain.url,
        "chain_id": devnet.deployment.chain_id,
        "data": devnet.deployment.data,
        "rollup": devnet.deployment.rollup,
        "vault": devnet.deployment.vault,
        "token": devnet.deployment.token,
        "deployment": str(devnet.folder / "deployment.json"),
        "feeds": FEEDS,
        "accounts": accounts,
        "wallet": wallet_settings(devnet.chain.url, devnet.deployment.chain_id),
    }
    (devnet.folder / "up.json").write_bytes(msgspec.json.format(msgspec.json.encode(info), indent=2) + b"\n")
    ready(info)
    while True:  # deposits wait for confirmations, batches for finality
        await asyncio.sleep(2.0)
        if devnet.config.chain in OWN_CHAINS:
            await asyncio.to_thread(devnet.chain.mine, 1)


def wallet_settings(l1_url: str, chain_id: int) -> dict[str, Any]:
    """What to type into a wallet to see L1: a network, and a key that everybody knows."""
    return {
        "network_name": "Fairstrike devnet",
        "rpc_url": l1_url,
        "chain_id": chain_id,
        "currency": "ETH",
        "test_address": devnet_signer(TRADERS[0]).address,
        "test_key": "0x" + devnet_key(TRADERS[0]).hex(),
    }


async def _marked(devnet: Devnet) -> None:
    """Waits for the first marks, without which nothing trades; not for ever: a feed may bring its surfaces later."""
    for _ in range(MARKS_WAIT_S * 10):
        if any(page.time for page in devnet.service.state.pages.values()):
            return
        await asyncio.sleep(0.1)


async def _funded(devnet: Devnet, index: int, amount: int) -> int:
    """Account of a development key, with money the first time."""
    number = await asyncio.to_thread(lambda: devnet.wallet(devnet_signer(index)).account())
    return number or await devnet.fund(devnet_signer(index), amount)
