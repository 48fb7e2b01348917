"""What the ape scripts share: accounts, our contracts from their committed artifacts, the exchange they work with."""

import os
from pathlib import Path
from typing import Any

import click
from ape import accounts, chain, networks
from ape.contracts import ContractContainer, ContractInstance
from ethpm_types import ContractType
from web3 import Web3
from web3.exceptions import Web3Exception

from sequencer.contracts import load
from sequencer.l1 import parameters
from sequencer.l1.deploy import DATA_SOURCES, VERIFIERS, WITH_TEXT, Deployment, check_token
from sequencer.l1.errors import DeploymentError
from sequencer.protocol.params import Params

DEVNET_CHAIN_IDS = (1337, 31337)  # py-evm in ape; anvil and hardhat
DEFAULTS: dict[str, Any] = {
    "data": "calldata",  # where batches lie; "blob": in blobs
    "challenge_window_s": 60,
    "bond_min": 10**18,
    "drift_max_s": 15,
    "deposit_min": 10**6,
    "deposits_total_max": 10**15,
    "reveal_blocks": 50,
    "exit": (86_400, 30 * 86_400, 800_000),  # as DeployConfig.exit_*
    "delay_min_s": 14_400,  # these, as in DeployConfig
    "delay_max_s": 86_400,
    "message_fee_wei": 10**15,
    "silence_max_s": 3 * 86_400,
    "receipt_due_s": 600,
    "receipt_notice_s": 120,
    "receipt_base_fee_max_wei": 300 * 10**9,
    "receipt_blob_base_fee_max_wei": 300 * 10**9,
    "receipt_compensation_wei": 10**16,
    "takeover_s": 225,
    "work_per_s": 33_000,
    "work_max": 400_000,
}


def account_of(alias: str) -> Any:
    """A devnet account, TEST::0 to TEST::9, or one that `ape accounts` keeps."""
    if alias.startswith("TEST::"):
        return accounts.test_accounts[int(alias.removeprefix("TEST::"))]
    return accounts.load(alias)


def container(name: str) -> ContractContainer:
    """A contract of ours, ready to deploy, from its committed artifact."""
    artifact = load(name)
    return ContractContainer(
        ContractType.model_validate(
            {"contractName": name, "abi": artifact.abi, "deploymentBytecode": {"bytecode": artifact.bytecode}}
        )
    )


def deployment_path() -> Path:
    """What FAIRSTRIKE_DEPLOYMENT names, else var/deployment.json below the working directory."""
    return Path(os.environ.get("FAIRSTRIKE_DEPLOYMENT") or "var/deployment.json")


def is_devnet() -> bool:
    """Whether money on the connected chain is worth nothing."""
    return networks.provider.chain_id in DEVNET_CHAIN_IDS


def deploy_exchange(
    deployer: Any,
    sequencer: str,
    genesis_root: bytes,
    token: str | None = None,
    bond: int | None = None,
    params: Params | None = None,
    **settings: Any,
) -> Deployment:
    """Deploys the contracts (and a test token when none is given), and wires them; `bond` None: the least."""
    settings = DEFAULTS | settings
    if token is None and not is_devnet():
        raise click.UsageError("a test token is for development networks: give --token")

    def create(name: str, *arguments: Any, value: int = 0) -> ContractInstance:
        return deployer.deploy(container(name), *arguments, value=value, required_confirmations=0)

    if token is not None:
        w3 = networks.provider.web3

        def call(data: bytes) -> bytes:
            try:
                return bytes(w3.eth.call({"to": Web3.to_checksum_address(token), "data": data}))
            except (ValueError, Web3Exception):
                return b""

        try:
            check_token(token, bool(w3.eth.get_code(Web3.to_checksum_address(token))), call)
        except DeploymentError as error:
            raise click.UsageError(str(error)) from None
    deploy_block = chain.blocks.height + 1
    if token is None:
        token = create("TestToken").address
    inbox = create("Inbox", settings["delay_min_s"], settings["delay_max_s"], settings["message_fee_wei"])
    sequencers = create(
        "Sequencers",
        sequencer,
        settings["bond_min"],
        settings["takeover_s"],
        value=settings["bond_min"] if bond is None else bond,
    )
    rollup = create(
        "Rollup",
        genesis_root,
        sequencers.address,
        inbox.address,
        settings["challenge_window_s"],
        settings["drift_max_s"],
        settings["silence_max_s"],
        settings["work_per_s"],
        settings["work_max"],
    )
    vault = create("Vault", token, rollup.address, settings["deposit_min"], settings["deposits_total_max"])
    data_source = create(DATA_SOURCES[settings["data"]])
    domain = rollup.domain_separator()
    text = create("OrderText").address
    verifiers = [create(name, domain, *([text] if name == WITH_TEXT else [])) for name in VERIFIERS]
    arbiter = create(
        "Arbiter",
        rollup.address,
        data_source.address,
        *(one.address for one in verifiers),
        settings["reveal_blocks"],
    )
    rollup.set_arbiter(arbiter.address, sender=deployer, required_confirmations=0)
    leave = create("Exit", vault.address, *settings["exit"])
    vault.set_exit(leave.address, sender=deployer, required_confirmations=0)
    inbox.set_vault(vault.address, sender=deployer, required_confirmations=0)
    due_s = min(settings["receipt_due_s"], settings["challenge_window_s"])
    receipts = create(
        "Receipts",
        rollup.address,
        arbiter.address,
        vault.address,
        due_s,
        min(settings["receipt_notice_s"], due_s),
        settings["receipt_base_fee_max_wei"],
        settings["receipt_blob_base_fee_max_wei"],
        settings["receipt_compensation_wei"],
        settings["reveal_blocks"],
    )
    sequencers.set_judge(receipts.address, sender=deployer, required_confirmations=0)
    sequencers.set_rollup(rollup.address, sender=deployer, required_confirmations=0)
    return Deployment(
        chain_id=networks.provider.chain_id,
        token=Web3.to_checksum_address(token),
        vault=vault.address,
        inbox=inbox.address,
        sequencers=sequencers.address,
        rollup=rollup.address,
        data_source=data_source.address,
        verifier_trade=verifiers[0].address,
        verifier_amend=verifiers[1].address,
        verifier_words=verifiers[2].address,
        verifier_forced=verifiers[3].address,
        verifier_account=verifiers[4].address,
        verifier_auction=verifiers[5].address,
        verifier_ledger=verifiers[6].address,
        verifier_risk=verifiers[7].address,
        arbiter=arbiter.address,
        exit=leave.address,
        receipts=receipts.address,
        sequencer=Web3.to_checksum_address(sequencer),
        deploy_block=deploy_block,
        challenge_window_s=settings["challenge_window_s"],
        genesis_root="0x" + genesis_root.hex(),
        work_per_s=settings["work_per_s"],
        work_max=settings["work_max"],
        params=None if params is None else parameters.to_object(params),
        data=settings["data"],
    )


def exchange() -> Deployment:
    """The exchange to work with: what the deployment file says.

    Chains that ape starts itself (py-evm, and anvil where none runs) die with the process: on such a one, new by its
    height, an exchange is deployed each time and no file is read.
    """
    if networks.provider.name in ("test", "foundry") and chain.blocks.height == 0:
        deployer = account_of("TEST::0")
        return deploy_exchange(deployer, deployer.address, b"\1" * 32)
    path = deployment_path()
    try:
        deployment = Deployment.load(path)
    except DeploymentError as error:
        raise click.ClickException(str(error)) from error
    connected = networks.provider.chain_id
    if deployment.chain_id != connected:
        raise click.ClickException(f"{path} is about chain {deployment.chain_id}, this is chain {connected}")
    return deployment


def at(name: str, address: str) -> ContractInstance:
    """A deployed contract of ours."""
    return container(name).at(address, fetch_from_explorer=False, detect_proxy=False)


def usd(amount: int) -> str:
    """1e-6 USD as dollars."""
    return f"{amount // 10**6:,}.{amount % 10**6:06} USD"
