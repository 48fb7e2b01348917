"""Chains to test on: pyevm always; anvil and hardhat where Node is and npm has, or can fetch, the packages."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from sequencer.l1 import chains
from sequencer.l1.batch import Batch
from sequencer.l1.chains import Chain
from sequencer.l1.deploy import DeployConfig, Deployment, deploy
from sequencer.l1.errors import ChainStartError
from sequencer.l1.follower import Follower
from sequencer.l1.rpc import Rpc
from sequencer.l1.signing import Signer
from sequencer.l1.txmgr import TxConfig, TxManager
from sequencer.l1.wallet import Wallet

GENESIS_TIME_S = 1_641_000_000  # January 2022: Prague has to be forced at such a date
GENESIS_ROOT = b"\x01" * 32
ELEMENT = 31
DEPLOYER, SEQUENCER, TRADER, OTHER_TRADER = range(4)


def install_or_skip() -> None:
    if shutil.which("node") is None:
        pytest.skip("anvil and hardhat need Node.js")
    try:
        chains.install()
    except ChainStartError as error:
        pytest.skip(f"anvil and hardhat cannot be installed: {error}")


@pytest.fixture(scope="session")
def installed_devnets() -> None:
    install_or_skip()


NODE_CHAINS = [pytest.param(name, marks=pytest.mark.node) for name in ("anvil", "hardhat")]


@pytest.fixture(scope="session", params=["pyevm", *NODE_CHAINS])
def chain(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    name = request.param
    if name != "pyevm":
        install_or_skip()
    with chains.start(
        name, genesis_time_s=GENESIS_TIME_S, log_dir=tmp_path_factory.mktemp("chains")
    ) as started:
        yield started


@dataclass
class Exchange:
    """A fresh deployment, with the roles that act on it."""

    chain: Chain
    deployment: Deployment
    sequencer: Signer
    trader: Wallet
    other_trader: Wallet
    directory: Path

    @property
    def rpc(self) -> Rpc:
        return self.chain.rpc

    def follower(self, confirmations: int) -> Follower:
        at = self.deployment
        return Follower(self.rpc, at.inbox, at.rollup, at.deploy_block, confirmations)

    def manager(self, config: TxConfig | None = None, **options: object) -> TxManager:
        return TxManager(self.rpc, self.sequencer, self.directory / "tx.sqlite", config, **options)  # type: ignore[arg-type]


@pytest.fixture
def exchange(chain: Chain, tmp_path: Path) -> Exchange:
    sequencer = chain.signer(SEQUENCER)
    at = deploy(chain.rpc, chain.signer(DEPLOYER), DeployConfig(GENESIS_ROOT, sequencer.address, 3600, 3600))
    traders = [Wallet(chain.rpc, chain.signer(index), at) for index in (TRADER, OTHER_TRADER)]
    for trader in traders:
        trader.mint(10**12)
        trader.approve(10**12)
    return Exchange(chain, at, sequencer, traders[0], traders[1], tmp_path)


BatchMaker = Callable[..., Batch]


@pytest.fixture
def make_batch() -> BatchMaker:
    """Batches of one segment whose form Rollup accepts; what the records say is none of its business."""

    def make(
        batch_id: int, size_bytes: int = 10 * ELEMENT, time_s: int = GENESIS_TIME_S, work: int = 0
    ) -> Batch:
        root = bytes([batch_id % 256]) * 32
        records = size_bytes // ELEMENT - 2
        payload = (
            root[:31] + records.to_bytes(3, "big").ljust(ELEMENT, b"\0") + bytes([7]) * (records * ELEMENT)
        )
        pre_root = bytes([(batch_id - 1) % 256]) * 32 if batch_id > 1 else GENESIS_ROOT
        return Batch(batch_id, pre_root, root, 1, 1, batch_id - 1, time_s, 0, bytes(32), work, 0, 0, payload)

    return make
