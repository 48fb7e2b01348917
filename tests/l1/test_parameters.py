"""Parameters travel with the deployment, and the genesis root on L1 says whether they are right."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from sequencer.cli import main
from sequencer.genesis import genesis_root
from sequencer.l1 import chains, parameters
from sequencer.l1.deploy import DeployConfig, Deployment, deploy
from sequencer.l1.errors import DeploymentError
from sequencer.local.devnet import devnet_params, devnet_signer
from sequencer.protocol.params import Params

PARAMS = devnet_params(taker_fee_ppm=77, listing_days_max=30)
ROOT = "0x" + genesis_root(PARAMS).hex()
ROOT_OF_A_DEVNET = "0x" + genesis_root(devnet_params()).hex()


@pytest.fixture(scope="module")
def chain() -> Iterator[chains.Chain]:
    with chains.start("pyevm") as started:
        yield started


@pytest.fixture(scope="module")
def deployment(chain: chains.Chain) -> Deployment:
    signer = devnet_signer(0)
    config = DeployConfig(genesis_root(PARAMS), signer.address, 60, 60, params=PARAMS)
    return deploy(chain.rpc, signer, config)


def test_object__there_and_back__is_the_same_to_the_field() -> None:
    given = parameters.to_object(PARAMS)
    assert set(given) == {field.name for field in dataclasses.fields(Params)}
    assert parameters.from_object(json.loads(json.dumps(given))) == PARAMS
    assert parameters.from_object({"taker_fee_ppm": 77, "listing_days_max": 30}, devnet_params()) == PARAMS
    assert parameters.from_object({}) == Params()
    wider = parameters.from_object({"underlyings": {"ETH": {"price_range_ppm": 240_000}}})
    assert [one.price_range_ppm for one in wider.underlyings] == [Params().of(0).price_range_ppm, 240_000]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"taker_fee": 1}, "no parameter is called taker_fee"),
        ({"taker_fee_ppm": "300"}, "taker_fee_ppm must be an integer"),
        ({"taker_fee_ppm": True}, "taker_fee_ppm must be an integer"),
        ({"taker_fee_ppm": -1}, "taker_fee_ppm must be an integer from 0 to 4294967295"),
        ({"fund_share_ppm": 1_000_001}, "fund_share_ppm must be <= 1000000"),
        ({"feed_keys": ["0x00"]}, "feed_keys: at most 5 addresses of 20 bytes"),
        ({"feed_keys": "0x00"}, "feed_keys must be a list of addresses"),
        ({"underlyings": {"DOGE": {}}}, "underlyings must be an object with no names but BTC, ETH"),
        (
            {"underlyings": {"BTC": {"range": 1}}},
            "underlyings.BTC must be an object with no fields but price_range_ppm",
        ),
        ({"underlyings": {"ETH": {"vol_up_ppm": "1"}}}, "underlyings.ETH.vol_up_ppm must be an integer"),
        ({"underlyings": {"ETH": {"price_range_ppm": 900_001}}}, r"underlyings\[1\]: price_range_ppm"),
    ],
)
def test_file__that_gives_no_parameters__names_file_and_field(
    given: dict[str, object], says: str, tmp_path: Path
) -> None:
    path = tmp_path / "params.json"
    path.write_text(json.dumps(given))
    with pytest.raises(ValueError, match=says) as caught:
        parameters.read(path)
    assert str(caught.value).startswith(f"--params {path}: ")


@pytest.mark.parametrize("text", [None, "{", "[]"])
def test_file__missing_or_no_object__is_named(text: str | None, tmp_path: Path) -> None:
    path = tmp_path / "params.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ValueError, match=f"--params {path}: "):
        parameters.read(path)


def test_deployment__carries_its_parameters__in_its_file(
    chain: chains.Chain, deployment: Deployment, tmp_path: Path
) -> None:
    deployment.save(tmp_path / "deployment.json")
    loaded = Deployment.load(tmp_path / "deployment.json")
    assert loaded == deployment
    loaded.check(chain.rpc)
    assert parameters.of_deployment(loaded) == PARAMS
    assert loaded.genesis_root == ROOT


def test_deploy__with_another_root_than_the_parameters__is_refused(chain: chains.Chain) -> None:
    config = DeployConfig(b"\1" * 32, devnet_signer(0).address, 60, 60, params=PARAMS)
    with pytest.raises(DeploymentError, match="genesis root is not that of the parameters"):
        deploy(chain.rpc, devnet_signer(0), config)


def test_deployment__without_parameters__takes_a_file_or_those_of_a_devnet(
    deployment: Deployment, tmp_path: Path
) -> None:
    bare = dataclasses.replace(deployment, params=None)
    with pytest.raises(DeploymentError, match="has no parameters and --params is not given") as caught:
        parameters.of_deployment(bare)
    assert f"genesis root is {ROOT_OF_A_DEVNET}, the deployment's {ROOT}" in str(caught.value)
    path = tmp_path / "params.json"
    path.write_text(json.dumps(parameters.to_object(PARAMS)))
    assert parameters.of_deployment(bare, path) == PARAMS
    of_a_devnet = dataclasses.replace(bare, genesis_root=ROOT_OF_A_DEVNET)
    assert parameters.of_deployment(of_a_devnet) == devnet_params()


@pytest.mark.parametrize("command", ["replay", "watch", "exit"])
def test_command__on_a_file_with_altered_parameters__names_both_roots(
    chain: chains.Chain, deployment: Deployment, tmp_path: Path, command: str
) -> None:
    """The file says more than L1 does: neither parameters nor root of it are believed."""
    options = {"replay": [], "watch": ["--once", "--folder", str(tmp_path)], "exit": ["--all", "--dry-run"]}[
        command
    ]
    path = tmp_path / "deployment.json"

    def run(at: Deployment, *more: str) -> tuple[int, str]:
        at.save(path)
        arguments = [command, "--l1", chain.url, "--deployment", str(path), *options, *more]
        result = CliRunner().invoke(main, arguments)
        return result.exit_code, result.output

    altered = dataclasses.replace(deployment, params=parameters.to_object(devnet_params()))
    says = f"parameters: their genesis root is {ROOT_OF_A_DEVNET}, the deployment's {ROOT}"
    code, output = run(altered)
    assert (code, says in output) == (1, True), output
    code, output = run(dataclasses.replace(altered, genesis_root=ROOT_OF_A_DEVNET))
    assert f"the genesis root in the file is {ROOT_OF_A_DEVNET}, the Rollup's {ROOT}" in output
    assert code == 1
    given = tmp_path / "params.json"
    given.write_text("{}")
    code, output = run(deployment, "--params", str(given))
    assert f"--params {given}: their genesis root is 0x" in output
    assert f", the deployment's {ROOT}" in output
    assert code == 1
    if command == "replay":
        assert run(deployment)[0] == 0
