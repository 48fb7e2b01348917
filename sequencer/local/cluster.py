"""`fairstrike cluster up`: a member's cluster on one machine, of the processes that several machines would run.

A chain, the servers of the replicated log, nodes of which one leads, gateways, and nodes that only read. Everything
listens on the loopback, and ends with the command.
"""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from sequencer.development import devnet_params, receipt_key
from sequencer.genesis import genesis_root
from sequencer.l1.chains import Chain, start
from sequencer.l1.deploy import DeployConfig, Deployment, deploy
from sequencer.l1.wallet import Wallet
from sequencer.local.devnet import devnet_signer, register_receipt_key
from sequencer.local.up import TRADER_CASH, TRADERS, grid, set_aside
from sequencer.log.jetstream_config import stream_name
from sequencer.log.nats_server import NatsServer, cluster_configs, start_all
from sequencer.market.flat import flat_indices
from sequencer.node.folder import FolderHeld, only_process
from sequencer.protocol.codec import domain_separator
from sequencer.protocol.params import Params
from sequencer.wire.names import terms_name

DATA: Final = "cluster"  # in the folder that is given
READY_S: Final = 60.0
WATCH_S: Final = 1.0
STOP_S: Final = 20.0
RECEIPT_KEY_VARIABLE: Final = "FAIRSTRIKE_RECEIPT_KEY"
NODE_NAMES: Final = "abcdefgh"


class ClusterError(Exception):
    """Why the cluster cannot run, in a sentence."""


@dataclass(slots=True)
class ClusterSettings:
    """`servers` of the log, an odd number; `nodes` that may lead; `readers` that may not; `gateways`.

    `feed` as of `fairstrike node --feed`; `listed`: names of options. `node_options` go to every node.

    For tests of faults: `node_module`, what runs a node, with the arguments before the node's own; `log_urls`, the
    addresses by which a node reaches the servers of the log.
    """

    folder: Path
    chain: str = "pyevm"
    servers: int = 3
    nodes: int = 2
    readers: int = 1
    gateways: int = 2
    feed: str = "flat:47000"
    listed: Sequence[str] = ()
    params: Params = field(default_factory=devnet_params)
    challenge_window_s: int = 60
    node_options: Sequence[str] = ()
    node_module: Sequence[str] = ("sequencer.node.process",)
    log_urls: Callable[[str, list[str]], list[str]] = lambda _node, urls: urls


class Process:
    """A process of this machine that can be ended, paused, and started again."""

    def __init__(self, name: str, command: Sequence[str], log_path: Path, env: dict[str, str]) -> None:
        self.name = name
        self.log_path = log_path
        self._command = list(command)
        self._env = env
        self._process: subprocess.Popen[bytes] | None = None
        self._read_to = 0  # of what it has printed, bytes
        self._said: list[dict[str, Any]] = []

    @property
    def pid(self) -> int:
        """Of the process; 0: none runs."""
        return self._process.pid if self.is_running and self._process is not None else 0

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Starts it; what it prints is added to `log_path`."""
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env=self._env,
                start_new_session=True,  # Ctrl-C in a terminal is for the command, which ends all in order
            )

    def send(self, what: signal.Signals) -> None:
        """Sends a signal, if it runs."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(what)

    def stop(self) -> None:
        """Ends it in order; by force when that takes too long."""
        process = self._process
        if process is None:
            return
        self.send(signal.SIGCONT)
        self.send(signal.SIGTERM)
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """Ends it at once."""
        self.send(signal.SIGKILL)
        if self._process is not None:
            self._process.wait()

    def said(self) -> list[dict[str, Any]]:
        """The JSON lines that it has printed, of all its starts."""
        if not self.log_path.exists():
            return []
        with self.log_path.open("rb") as log:
            log.seek(self._read_to)
            for line in log:
                if not line.endswith(b"\n"):
                    break  # the rest of it comes
                self._read_to += len(line)
                if line.startswith(b"{"):
                    with contextlib.suppress(ValueError):
                        self._said.append(json.loads(line))
        return self._said


class LocalCluster:
    """`async with LocalCluster(settings) as cluster`: everything runs inside, everything ends at the end."""

    def __init__(self, settings: ClusterSettings) -> None:
        self.settings = settings
        self.folder = settings.folder
        self.chain: Chain
        self.deployment: Deployment
        self.servers: list[NatsServer] = []
        self.nodes: list[Process] = []
        self.readers: list[Process] = []
        self.gateways: list[Process] = []
        self._is_given_up = threading.Event()

    def give_up(self) -> None:
        """Ends a start that is under way, which raises ClusterError."""
        self._is_given_up.set()

    async def __aenter__(self) -> "LocalCluster":
        try:
            await asyncio.to_thread(self._start)
        except BaseException:
            await asyncio.to_thread(self.stop)
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self.stop)

    def describe(self) -> dict[str, Any]:
        """URLs, addresses and process ids, as one object."""
        at = self.deployment
        pids = {one.name: one.pid for one in self.processes}
        pids |= {f"log-{server.config.name}": server.pid for server in self.servers}
        if self.chain.process is not None:
            pids["chain"] = self.chain.process.pid
        leader = self.leader
        return {
            "api": self.urls,
            "l1": self.chain.url,
            "chain_id": at.chain_id,
            "rollup": at.rollup,
            "vault": at.vault,
            "deployment": str(self.folder / "deployment.json"),
            "leader": leader.name if leader is not None else None,
            "log": [server.config.url for server in self.servers],
            "sockets": {one.name: self.socket(one.name) for one in [*self.nodes, *self.readers]},
            "pids": pids,
        }

    def ended(self) -> str:
        """The first process that has ended by itself, and the end of what it said; empty: none has."""
        for one in self.processes:
            if not one.is_running:
                return f"{one.name} has ended: {one.log_path.read_text(errors='replace')[-2000:]}"
        for server in self.servers:
            if not server.pid:
                return f"log server {server.config.name} has ended: {server.log_tail()}"
        return ""

    @property
    def processes(self) -> list[Process]:
        """All but the chain and the servers of the log."""
        return [*self.nodes, *self.readers, *self.gateways]

    def _start(self) -> None:
        of = self.settings
        self.folder.mkdir(parents=True, exist_ok=True)
        self.chain = start(of.chain, log_dir=self.folder)
        path = self.folder / "deployment.json"
        self.deployment = self._deployed()
        self.deployment.save(path)
        at = self.deployment
        stream = stream_name(domain_separator(at.chain_id, bytes.fromhex(at.rollup[2:])))
        self.servers = [NatsServer(one) for one in cluster_configs(self.folder / "log", stream, of.servers)]
        start_all(self.servers)
        listing = self.folder / "list.json"
        listing.write_text(json.dumps(list(of.listed)))
        names = NODE_NAMES[: of.nodes]
        self.nodes = [self._node(name, ()) for name in names]
        self.readers = [self._node(f"reader-{number + 1}", ("--reader",)) for number in range(of.readers)]
        self.gateways = [self._gateway(number) for number in range(of.gateways)]
        for one in self.processes:
            one.start()
        self._wait_ready()

    def _deployed(self) -> Deployment:
        of, signer = self.settings, devnet_signer(0)
        at = deploy(
            self.chain.rpc,
            signer,
            DeployConfig(
                genesis_root=genesis_root(of.params),
                params=of.params,
                sequencer=signer.address,
                challenge_window_s=of.challenge_window_s,
                drift_max_s=60,
            ),
        )
        register_receipt_key(self.chain, at)
        return at

    def socket(self, name: str) -> str:
        """Where a node listens for gateways."""
        return str(self.folder / f"{name}.sock")

    def _node(self, name: str, more: Sequence[str]) -> Process:
        of = self.settings
        command = [sys.executable, "-m", *of.node_module]
        command += ["--folder", str(self.folder / f"node-{name}"), "--socket", self.socket(name)]
        command += ["--deployment", str(self.folder / "deployment.json"), "--l1", self.chain.url, "--devnet"]
        command += ["--feed", of.feed, "--list", str(self.folder / "list.json")]
        command += ["--receipt-key", f"env:{RECEIPT_KEY_VARIABLE}", "--node", name, *more, *of.node_options]
        for url in of.log_urls(name, [server.config.url for server in self.servers]):
            command += ["--log", url]
        env = {**os.environ, RECEIPT_KEY_VARIABLE: "0x" + receipt_key().hex()}
        return Process(name, command, self.folder / f"node-{name}.log", env)

    def _gateway(self, number: int) -> Process:
        command = [sys.executable, "-m", "sequencer.api.gateway", "--listen", "127.0.0.1:0"]
        for node in self.nodes:
            command += ["--sequencer", self.socket(node.name)]
        for reader in self.readers:
            command += ["--follower", self.socket(reader.name)]
        command += ["--address-submits-per-s", "0"]  # all that trade here are of one address
        name = f"gateway-{number + 1}"
        return Process(name, command, self.folder / f"{name}.log", dict(os.environ))

    def _wait_ready(self) -> None:
        until = time.monotonic() + READY_S
        while self.leader is None or not all(self.urls):
            if why := "given up" if self._is_given_up.is_set() else self.ended():
                raise ClusterError(why)
            if time.monotonic() > until:
                raise ClusterError(f"not ready after {READY_S:.0f} s: see the logs in {self.folder}")
            time.sleep(0.05)

    @property
    def urls(self) -> list[str]:
        """Of the gateways, empty while one does not listen."""
        return [_listens_at(one.log_path) for one in self.gateways]

    @property
    def leader(self) -> Process | None:
        """The node whose term is the last, by what the nodes have printed; None: none has led yet."""
        terms = [(line["leads"], node) for node in self.nodes for line in node.said() if "leads" in line]
        return max(terms, key=lambda one: one[0])[1] if terms else None

    def stop(self) -> None:
        """Ends all: gateways, nodes, servers of the log, the chain."""
        for one in [*self.gateways, *self.readers, *self.nodes]:
            one.send(signal.SIGCONT)
            one.send(signal.SIGTERM)
        for one in [*self.gateways, *self.readers, *self.nodes]:
            one.stop()
        for server in self.servers:
            server.stop()
        if hasattr(self, "chain"):
            self.chain.stop()


async def run_cluster(
    settings: ClusterSettings,
    ready: Callable[[dict[str, Any]], None],
    told: Callable[[str], None],
    stop: asyncio.Event,
) -> None:
    """Runs a cluster with funded development accounts until `stop`. `told` hears of each new leader and each end.

    What has ended stays ended: that is what the cluster is there for. Raises ClusterError, LogError, L1Error.
    """
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(only_process(settings.folder, "cluster.lock"))
        except FolderHeld:
            raise ClusterError(
                f"another `fairstrike cluster up` runs in {settings.folder}: give another --folder"
            ) from None
        set_aside(settings.folder / DATA)  # of a chain that has ended
        cluster = LocalCluster(replace(settings, folder=settings.folder / DATA))
        ending = asyncio.create_task(_give_up(cluster, stop))
        try:
            await _run(cluster, ready, told, stop)
        except ClusterError:
            if not stop.is_set():
                raise
        finally:
            ending.cancel()
            told("ended")


async def _give_up(cluster: LocalCluster, stop: asyncio.Event) -> None:
    await stop.wait()
    cluster.give_up()


async def _run(
    cluster: LocalCluster,
    ready: Callable[[dict[str, Any]], None],
    told: Callable[[str], None],
    stop: asyncio.Event,
) -> None:
    told("starting the chain, the servers of the log, the nodes and the gateways")
    async with cluster:
        told("funding the development accounts")
        accounts = await asyncio.to_thread(_fund, cluster)
        ready(cluster.describe() | {"accounts": accounts})
        leader, gone = cluster.leader, ""
        while not stop.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), WATCH_S)
            await asyncio.to_thread(cluster.chain.mine, 1)
            if cluster.leader is not leader:
                leader = cluster.leader
                told(f"node {leader.name if leader else ''} leads")
            if (now := cluster.ended()) != gone:
                gone = now
                told(gone or "all run again")
        told("ending")


def _fund(cluster: LocalCluster) -> dict[str, int]:
    """Deposits for the traders' development keys; their account numbers."""
    found = {}
    for index in TRADERS:
        signer = devnet_signer(index)
        wallet = Wallet(cluster.chain.rpc, signer, cluster.deployment)
        wallet.mint(TRADER_CASH)
        wallet.deposit_with_permit(TRADER_CASH)
        found[signer.address] = wallet.account()
    cluster.chain.mine(2)
    return found


def listing(feed: str, now_s: int) -> list[str]:
    """Names of options around the prices of a flat feed. Raises ValueError."""
    kind, _, rest = feed.partition(":")
    if kind != "flat":
        raise ValueError(f"--feed must be flat:USD or flat:BTC=USD,ETH=USD, got {feed!r}")
    indices = flat_indices(rest)
    return [
        terms_name(*terms)
        for number, ticks in sorted(indices.items())
        for terms in grid(now_s, ticks, number)
    ]


def _listens_at(log_path: Path) -> str:
    """The last URL that a gateway says it listens at; empty before it does."""
    text = log_path.read_text(errors="replace") if log_path.exists() else ""
    lines = [line.strip() for line in text.splitlines(keepends=True) if line[-1] == "\n"]
    return next((line for line in reversed(lines) if line.startswith("http://127.0.0.1:")), "")
