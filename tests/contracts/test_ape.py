"""`ape run` deploys, deposits, shows and claims, on ape's py-evm chain and on anvil, and compiles to the artifacts."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from contract_support import USD, Batch
from web3 import HTTPProvider, Web3

from sequencer.contracts import NAMES, load
from sequencer.genesis import genesis_root
from sequencer.l1 import chains, parameters
from sequencer.l1.deploy import Deployment
from sequencer.local.devnet import devnet_params
from sequencer.protocol import constants as c
from sequencer.protocol.cmap import Map

ROOT = Path(__file__).resolve().parents[2]
TEST_CHAIN = "ethereum:local:test"
GENESIS = "0x" + "11" * 32
WINDOW_S = 3_600  # longer than ape takes to start on a busy machine
TRADER = "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC"  # TEST::2

pytest.importorskip("ape", reason="ape is an optional extra: pip install fairstrike[ape]")
pytestmark = pytest.mark.timeout(600)  # ape starts slowly, and compiles every contract in one process

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def ape(tmp_path: Path) -> Run:
    """Runs ape in a home of its own, with the compiler of this environment and nothing else."""
    environment = {
        "HOME": str(tmp_path),
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "FAIRSTRIKE_DEPLOYMENT": str(tmp_path / "deployment.json"),
        "PYTHONWARNINGS": "ignore",
        "TERM": "dumb",
    }

    def run(
        *arguments: str, cwd: Path = ROOT, ok: bool = True, genesis: str | None = GENESIS
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [Path(sys.executable).parent / "ape", *arguments],
            env=environment | ({"GENESIS_ROOT": genesis} if genesis else {}),
            cwd=cwd,
            capture_output=True,
            text=True,
            check=False,
            timeout=500,
        )
        assert (done.returncode == 0) == ok, done.stdout + done.stderr
        return done

    return run


@pytest.fixture(scope="module")
def anvil(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of an anvil of our own."""
    with chains.start("anvil", log_dir=tmp_path_factory.mktemp("anvil")) as started:
        yield started.url


def test_compile__with_ape__gives_the_committed_artifacts(ape: Run, tmp_path: Path) -> None:
    project = tmp_path / "project"
    shutil.copytree(ROOT / "contracts", project / "contracts")
    shutil.copy(ROOT / "ape-config.yaml", project)
    ape("compile", cwd=project)
    manifest = json.loads((project / ".build" / "__local__.json").read_text())
    for name in NAMES:
        assert manifest["contractTypes"][name]["deploymentBytecode"]["bytecode"] == load(name).bytecode


def test_deploy__on_the_test_chain__writes_the_deployment(ape: Run, tmp_path: Path) -> None:
    done = ape("run", "deploy", "--network", TEST_CHAIN)
    deployment = Deployment.load(tmp_path / "deployment.json")
    assert deployment.chain_id == 1337
    assert (deployment.deploy_block, deployment.genesis_root) == (1, GENESIS)
    for address in (deployment.token, deployment.inbox, deployment.rollup, deployment.vault):
        assert address in done.stdout
    assert f"genesis    {GENESIS}" in done.stdout


def test_deploy__with_batches_in_blobs__has_the_data_source_of_blobs(ape: Run, tmp_path: Path) -> None:
    done = ape("run", "deploy", "--network", TEST_CHAIN, "--data", "blob")
    assert "data       blob" in done.stdout
    assert Deployment.load(tmp_path / "deployment.json").in_blobs


def test_deploy__without_a_root__starts_from_the_cores_genesis(ape: Run, tmp_path: Path) -> None:
    ape("run", "deploy", "--network", TEST_CHAIN, genesis=None)
    at = Deployment.load(tmp_path / "deployment.json")
    assert at.genesis_root == "0x" + genesis_root(devnet_params()).hex()
    assert parameters.of_deployment(at) == devnet_params()


def test_deploy__with_parameters__keeps_them_in_the_file(ape: Run, tmp_path: Path) -> None:
    path = tmp_path / "params.json"
    path.write_text('{"taker_fee_ppm": 77}')
    ape("run", "deploy", "--network", TEST_CHAIN, "--params", str(path), genesis=None)
    at = Deployment.load(tmp_path / "deployment.json")
    params = devnet_params(taker_fee_ppm=77)
    assert at.genesis_root == "0x" + genesis_root(params).hex()
    assert parameters.of_deployment(at) == params
    before = (tmp_path / "deployment.json").read_bytes()
    refused = ape("run", "deploy", "--network", TEST_CHAIN, "--params", str(path), genesis=None, ok=False)
    assert "holds a deployment: --force writes over it" in refused.stderr
    assert (tmp_path / "deployment.json").read_bytes() == before
    refused = ape("run", "deploy", "--network", TEST_CHAIN, "--params", str(path), "--force", ok=False)
    assert f"--genesis-root is {GENESIS}, that of --params {at.genesis_root}" in refused.stderr


def test_deposit__on_the_test_chain__says_account_and_message(ape: Run) -> None:
    done = ape("run", "deposit", "--network", TEST_CHAIN, "--mint", "--permit", "--amount", "12.5")
    assert f"deposited 12.500000 USD into account 1 of {TRADER}: inbox message 0" in done.stdout


def test_status__on_the_test_chain__shows_genesis(ape: Run) -> None:
    done = ape("run", "status", "--network", TEST_CHAIN)
    assert "batch 0, final 0; next seq 0" in done.stdout


def write_proof(path: Path, batch_id: int, state: Map) -> Path:
    siblings = state.path(c.KEY_WITHDRAWAL)
    path.write_text(
        json.dumps(
            {
                "batch_id": batch_id,
                "number": 0,
                "owner": TRADER,
                "amount": 3 * USD,
                "bitmap": hex(siblings.bitmap),
                "siblings": ["0x" + sibling.hex() for sibling in siblings.siblings],
            }
        )
    )
    return path


def state_with_a_withdrawal() -> Map:
    state = Map()
    for index in range(50):
        state.put(c.KEY_ACCOUNT | index, index)
    state.put(c.KEY_WITHDRAWAL, int(TRADER, 16) << 64 | 3 * USD)
    return state


def test_claim__of_an_unknown_batch_on_the_test_chain__says_why(ape: Run, tmp_path: Path) -> None:
    proof = write_proof(tmp_path / "proof.json", 1, state_with_a_withdrawal())
    done = ape("run", "claim", "--network", TEST_CHAIN, "--proof", str(proof), ok=False)
    assert "the vault refuses: rollup: unknown batch" in done.stdout + done.stderr


@pytest.mark.node
def test_deploy_to_claim__on_anvil__pays_the_withdrawal(ape: Run, anvil: str, tmp_path: Path) -> None:
    ape("run", "deploy", "--network", anvil, "--challenge-window-s", str(WINDOW_S))
    done = ape("run", "deposit", "--network", anvil, "--mint", "--amount", "5")
    assert f"deposited 5.000000 USD into account 1 of {TRADER}: inbox message 0" in done.stdout

    deployment = Deployment.load(tmp_path / "deployment.json")
    w3 = Web3(HTTPProvider(anvil))
    rollup = w3.eth.contract(address=w3.to_checksum_address(deployment.rollup), abi=load("Rollup").abi)
    state = state_with_a_withdrawal()
    inbox = w3.eth.contract(address=w3.to_checksum_address(deployment.inbox), abi=load("Inbox").abi)
    inbox_hash = inbox.functions.hash_at(1).call()
    batch = Batch(1, state.root(), segments=12, records=40, inbox_count=1, inbox_hash=inbox_hash)
    posted = rollup.functions.post(*batch.arguments()).transact({"from": deployment.sequencer})
    assert w3.eth.wait_for_transaction_receipt(posted)["status"] == 1

    proof = write_proof(tmp_path / "proof.json", 1, state)
    done = ape("run", "claim", "--network", anvil, "--proof", str(proof), ok=False)
    assert "rollup: not final" in done.stdout + done.stderr
    w3.provider.make_request("evm_increaseTime", [WINDOW_S])
    w3.provider.make_request("evm_mine", [])
    done = ape("run", "claim", "--network", anvil, "--proof", str(proof))
    assert f"paid withdrawal 0: 3.000000 USD to {TRADER}" in done.stdout
    done = ape("run", "status", "--network", anvil, "--owner", TRADER)
    assert "1 accounts, 2.000000 USD" in done.stdout
    assert "batch 1, final 1; next seq 40" in done.stdout
    assert f"owner      {TRADER}: account 1, 3.000000 USD" in done.stdout
