"""The compiled contracts that ship with the package: who trades or operates needs no compiler.

`scripts/compile_contracts.py` makes them from `contracts/`, and its `--check` keeps the two equal.
"""

from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Final

import msgspec

NAMES: Final = (
    "Arbiter",
    "DataSourceBlob",
    "DataSourceCalldata",
    "Exit",
    "Inbox",
    "OrderText",
    "Receipts",
    "Rollup",
    "Sequencers",
    "TestToken",
    "Vault",
    "VerifierAccount",
    "VerifierAmend",
    "VerifierAuction",
    "VerifierForced",
    "VerifierLedger",
    "VerifierRisk",
    "VerifierTrade",
    "VerifierWords",
)


@dataclass(frozen=True, slots=True)
class Artifact:
    """A compiled contract. `bytecode` is the 0x-prefixed creation code; `deployed_bytes` what EIP-170 limits."""

    name: str
    abi: list[dict[str, Any]]
    bytecode: str
    deployed_bytes: int
    source_sha256: str
    vyper_version: str
    evm_version: str


@cache
def load(name: str) -> Artifact:
    """The artifact of one of NAMES. Raises KeyError for any other name."""
    if name not in NAMES:
        raise KeyError(name)
    raw = msgspec.json.decode(files("sequencer").joinpath("artifacts", f"{name}.json").read_bytes())
    return Artifact(**{field: raw[field] for field in Artifact.__dataclass_fields__})
