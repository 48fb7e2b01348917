"""Small contracts of stubs/, compiled as the artifacts are: same compiler, pipeline, optimisation and EVM version."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import boa
from vyper.compiler import CompilerData
from vyper.compiler.input_bundle import FilesystemInputBundle
from vyper.compiler.output import build_abi_output
from vyper.compiler.settings import OptimizationLevel, Settings

STUBS = Path(__file__).parent / "stubs"
CONTRACTS = Path(__file__).resolve().parents[2] / "contracts"


@cache
def _compiled(name: str) -> tuple[str, bytes]:
    bundle = FilesystemInputBundle([CONTRACTS, STUBS])
    settings = Settings(evm_version="cancun", optimize=OptimizationLevel.GAS, experimental_codegen=False)
    compiled = CompilerData(bundle.load_file(f"{name}.vy"), input_bundle=bundle, settings=settings)
    return json.dumps(build_abi_output(compiled)), bytes(compiled.bytecode)


def deploy_stub(name: str) -> Any:
    """Deploys a contract of stubs/ that takes no arguments."""
    abi, creation = _compiled(name)
    address, _ = boa.env.deploy(bytecode=creation)
    return boa.loads_abi(abi, name=name).at(address)
