"""One machine's exchange: a chain, the contracts on it, a sequencer, a gateway, and accounts with money to try it.

Everything here is for development: the chain's keys are the well-known ones of the test mnemonic, the feeds sign
with keys derived from a constant, and the test token can be minted by anybody.
"""

import asyncio
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from eth_account import Account

from sequencer.clock import Clock
from sequencer.contracts import load
from sequencer.development import FEEDS, devnet_params, feed_key, receipt_key
from sequencer.engine.engine import Engine
from sequencer.genesis import genesis_root
from sequencer.keeper.keeper import Terms
from sequencer.keeper.liquidator import Bidder, Liquidator
from sequencer.l1.abi import Contract
from sequencer.l1.chains import DEVNET_MNEMONIC, Chain, start
from sequencer.l1.deploy import DeployConfig, Deployment, deploy
from sequencer.l1.errors import DeploymentError
from sequencer.l1.sequencers import CALL_GAS, set_receipt_key
from sequencer.l1.signing import Signer
from sequencer.l1.wallet import Wallet
from sequencer.log.interface import Term
from sequencer.log.jetstream import Stream
from sequencer.log.jetstream_config import stream_name
from sequencer.log.nats_server import NatsServer, cluster_configs, start_all
from sequencer.log.replicated import open_journal
from sequencer.log.sqlite import LOG_FILE, SqliteLog
from sequencer.market.feeds import FeedSource
from sequencer.node.service import Service
from sequencer.node.settings import ServiceConfig
from sequencer.node.shared import SharedLog
from sequencer.protocol.codec import domain_separator
from sequencer.protocol.params import Params
from sequencer.protocol.state import State
from sequencer.rollup.l1_messages import L1Config

SEQUENCER_INDEX = 0
GATEWAY_READY_S = 60.0
GATEWAY_STOP_S = 10.0
DEPOSIT_S = 120.0


def devnet_key(index: int) -> bytes:
    """Private key of one of the ten funded accounts of the development chains."""
    Account.enable_unaudited_hdwallet_features()
    return bytes(Account.from_mnemonic(DEVNET_MNEMONIC, account_path=f"m/44'/60'/0'/0/{index}").key)


def devnet_signer(index: int) -> Signer:
    """The same account, for L1 transactions."""
    return Signer(devnet_key(index))


@dataclass(slots=True)
class DevnetConfig:
    """How to build one. `folder` None: a temporary one, gone at the end. `genesis_time_s` of the chain, None = now.

    `data`: where batches lie, "calldata" or, on anvil, "blob". `port` of the API, 0 = a free one; `l1_port` of a chain
    that is started, None = a free one. `log_servers`: of a replicated log, 0: the folder's is the only one.
    """

    chain: str = "pyevm"
    data: str = "calldata"
    folder: Path | None = None
    params: Params = field(default_factory=devnet_params)
    genesis_time_s: int | None = None
    challenge_window_s: int = 60
    drift_max_s: int = 60
    delay_min_s: int = 14_400
    delay_max_s: int = 86_400
    silence_max_s: int = 3 * 86_400
    takeover_s: int = 225
    confirmations: int = 1
    port: int = 0
    l1_port: int | None = None
    log_servers: int = 0
    service: dict[str, object] = field(default_factory=dict)


class Devnet:
    """`async with Devnet(config, ...) as devnet`: everything runs inside, everything ends at the end."""

    def __init__(
        self,
        config: DevnetConfig,
        clock: Clock | None = None,
        sources: Sequence[FeedSource] = (),
        wanted: Sequence[Terms] = (),
        engine: Callable[[State], Engine] = Engine,
    ) -> None:
        self.config = config
        self.clock = clock
        self.sources = list(sources)
        self.wanted = list(wanted)
        self.engine = engine
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self.folder = config.folder or Path()
        self.chain: Chain
        self.deployment: Deployment
        self.service: Service
        self._is_stopped = False
        self.gateway: subprocess.Popen[bytes] | None = None
        self.url = ""
        self.servers: list[NatsServer] = []
        self._stream: Stream | None = None

    async def __aenter__(self) -> Self:
        if self.config.folder is None:
            self._temporary = tempfile.TemporaryDirectory(prefix="fairstrike-")
            self.folder = Path(self._temporary.name)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.chain = await asyncio.to_thread(
            lambda: start(
                self.config.chain,
                genesis_time_s=self.config.genesis_time_s,
                port=self.config.l1_port,
                log_dir=self.folder,
            )
        )
        try:
            await self._build()
        except BaseException:
            await self._end()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._end()

    async def _build(self) -> None:
        config = self.config
        path = self.folder / "deployment.json"
        signer = devnet_signer(SEQUENCER_INDEX)
        if path.exists():
            self.deployment = Deployment.load(path)
            self._check_deployment(path)
        else:
            self.deployment = await asyncio.to_thread(
                deploy,
                self.chain.rpc,
                signer,
                DeployConfig(
                    genesis_root=genesis_root(config.params),
                    params=config.params,
                    sequencer=signer.address,
                    challenge_window_s=config.challenge_window_s,
                    drift_max_s=config.drift_max_s,
                    data=config.data,
                    delay_min_s=config.delay_min_s,
                    delay_max_s=config.delay_max_s,
                    silence_max_s=config.silence_max_s,
                    takeover_s=config.takeover_s,
                ),
            )
            self.deployment.save(path)
            await asyncio.to_thread(register_receipt_key, self.chain, self.deployment)
        self.service = Service(
            ServiceConfig(
                folder=self.folder / "sequencer",
                params=config.params,
                deployment=self.deployment,
                l1_url=self.chain.url,
                l1=L1Config(confirmations=config.confirmations, poll_s=0.2, rebond=True),
                **({"receipt_key": receipt_key()} | config.service),  # type: ignore[arg-type]  # checked by the dataclass
            ),
            self.clock,
            signer,
            self.sources,
            [feed_key(number) for number in range(FEEDS)] if self.sources else [],
            self.wanted,
            engine=self.engine,
            log=await asyncio.to_thread(self._replicated_log) if config.log_servers else None,
        )
        socket_path = str(self.folder / "sequencer.sock")
        await self.service.start(socket_path)
        if config.log_servers:
            shared = SharedLog(self.service)
            await shared.append(Term(self.service.term + 1, "a"))
            self.service.term += 1
            self.service.lead(shared.announce)
        await self._start_gateway(socket_path)

    def _replicated_log(self) -> SqliteLog:
        """The sequencer's copy of a log on servers of this machine, which are started."""
        at = self.deployment
        name = stream_name(domain_separator(at.chain_id, bytes.fromhex(at.rollup[2:])))
        self.servers = [
            NatsServer(one) for one in cluster_configs(self.folder / "log", name, self.config.log_servers)
        ]
        start_all(self.servers)
        self._stream = Stream(
            [one.config.url for one in self.servers], name, replicas=self.config.log_servers
        )
        self._stream.open()
        return open_journal(self.folder / "sequencer" / LOG_FILE, self._stream)

    def _check_deployment(self, path: Path) -> None:
        """Raises DeploymentError unless the folder's exchange is on this chain and has these parameters."""
        try:
            self.deployment.check(self.chain.rpc)
        except DeploymentError as error:
            raise DeploymentError(f"{path} is of another chain, move it away: {error}") from None
        root = "0x" + genesis_root(self.config.params).hex()
        if root != self.deployment.genesis_root:
            raise DeploymentError(
                f"{path} is of other parameters: its genesis root is {self.deployment.genesis_root}, theirs {root}"
            )

    async def _start_gateway(self, socket_path: str) -> None:
        log_path = self.folder / "gateway.log"
        self.gateway = await asyncio.to_thread(_spawn_gateway, self.config.port, socket_path, log_path)
        until = time.monotonic() + GATEWAY_READY_S
        while self.gateway.poll() is None and time.monotonic() < until:
            self.url = _listens_at(log_path)
            if bool(self.url) and await asyncio.to_thread(_answers, self.url + "/health"):
                return
            if self.service.failure is not None:
                raise RuntimeError("the sequencer did not start") from self.service.failure
            await asyncio.sleep(0.05)
        raise RuntimeError(f"the gateway did not start: {log_path.read_text()[-2000:]}")

    async def stop_exchange(self) -> None:
        """Ends sequencer and gateway for good; only the chain goes on."""
        if self.gateway is not None:
            self.gateway.terminate()
            try:
                await asyncio.to_thread(self.gateway.wait, GATEWAY_STOP_S)
            except subprocess.TimeoutExpired:
                self.gateway.kill()
                self.gateway.wait()
            self.gateway = None
        if hasattr(self, "service") and not self._is_stopped:  # it stays, to be asked what became of it
            self._is_stopped = True
            await self.service.stop()

    async def _end(self) -> None:
        await self.stop_exchange()
        if self._stream is not None:
            await asyncio.to_thread(self._stream.close)
        for server in self.servers:
            await asyncio.to_thread(server.stop)
        await asyncio.to_thread(self.chain.stop)
        if self._temporary is not None:
            self._temporary.cleanup()

    # --- accounts ---------------------------------------------------------------------------------

    @property
    def ws_url(self) -> str:
        """Where WebSocket clients connect."""
        return self.url.replace("http://", "ws://") + "/ws"

    def wallet(self, signer: Signer) -> Wallet:
        """A wallet on the devnet's chain."""
        return Wallet(self.chain.rpc, signer, self.deployment)

    def vault_balance(self) -> int:
        """Tokens that the vault holds, 1e-6 USD."""
        token = Contract(load("TestToken").abi)
        return int(token.read(self.chain.rpc, self.deployment.token, "balanceOf", self.deployment.vault))

    async def fund(self, signer: Signer, amount: int) -> int:
        """Mints and deposits `amount` (1e-6 USD) for `signer`; its account number, once it is credited."""

        def on_l1() -> int:
            wallet = self.wallet(signer)
            wallet.mint(amount)
            index = wallet.deposit_with_permit(amount)
            if self.config.confirmations:  # an automining chain makes no blocks by itself
                self.chain.mine(self.config.confirmations)
            return index

        index = await asyncio.to_thread(on_l1)
        if self.service.worker is not None:
            self.service.worker.wake()
        await wait_for(
            lambda: self.service.state.globals.inbox_count > index, DEPOSIT_S, "a deposit to be credited"
        )
        return await asyncio.to_thread(lambda: self.wallet(signer).account())

    async def fund_key(self, private_key: bytes, amount: int) -> int:
        """Funds an account of any key: it is given ETH for its transactions first."""
        signer = Signer(private_key)

        def ether() -> None:
            Wallet(self.chain.rpc, devnet_signer(SEQUENCER_INDEX + 9), self.deployment).transact(
                "ether", signer.address, b"", 10**17, 21_000
            )

        await asyncio.to_thread(ether)
        return await self.fund(signer, amount)

    async def set_chain_time(self, now_s: int) -> None:
        """Moves the chain's clock on to the exchange's."""
        await asyncio.to_thread(self.chain.set_time, now_s)

    async def post_all(self, timeout_s: float = 120.0) -> int:
        """Puts all that is durable into batches and waits until L1 has them; the last batch's id."""
        service = self.service
        service.pace.request_batches()
        await service.driver.flush()
        await service.driver.tick()
        last = service.batcher.cursor.batch_id - 1
        await wait_for(lambda: service.pace.last_posted >= last, timeout_s, f"batch {last} to be posted")
        return last

    def liquidator(self, *bidders: tuple[int, bytes]) -> None:
        """Lets the keeper bid in auctions as these accounts, by their private keys."""
        self.service.keeper.liquidator = Liquidator([Bidder(*one) for one in bidders])


def register_receipt_key(chain: Chain, at: Deployment) -> None:
    """Has L1 take the development key for one that signs the sequencer's receipts."""
    signer = devnet_signer(SEQUENCER_INDEX)
    data = set_receipt_key(at, signer.address, receipt_key())
    Wallet(chain.rpc, signer, at).transact("receipt key", at.sequencers, data, gas=CALL_GAS)


async def wait_for(condition: object, timeout_s: float, what: str) -> None:
    """Returns once `condition()` holds. Raises TimeoutError naming `what`."""
    assert callable(condition)
    loop = asyncio.get_running_loop()
    until = loop.time() + timeout_s
    while not condition():
        if loop.time() > until:
            raise TimeoutError(f"waited {timeout_s:.0f} s for {what}")
        await asyncio.sleep(0.005)


def _spawn_gateway(port: int, socket_path: str, log_path: Path) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "sequencer.api.gateway"]
    command += ["--listen", f"127.0.0.1:{port}", "--sequencer", socket_path]
    command += ["--address-submits-per-s", "0"]  # all that trade here are of one address
    with log_path.open("wb") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)


def _listens_at(log_path: Path) -> str:
    """What the gateway says that it listens at; empty before it does. It takes a free port by itself: one that is
    looked for here could be another's by then.
    """
    told = (
        line.strip()
        for line in log_path.read_text(errors="replace").splitlines(keepends=True)
        if line[-1] == "\n"
    )
    return next((line for line in told if line.startswith("http://127.0.0.1:")), "")


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=1.0) as response:  # noqa: S310  # loopback http only
            return bool(response.status == 200)
    except (OSError, urllib.error.URLError):
        return False
