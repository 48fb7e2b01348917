"""The compiled contracts that ship with the package, and where an exchange made of them stands.

Who trades or operates needs no compiler: `scripts/compile_contracts.py` makes the artifacts from `contracts/`, and its
`--check` keeps the two equal. `scripts/deploy.py` writes a deployment, everybody else reads it.
"""

import os
from dataclasses import asdict, dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Final, Self

import msgspec

NAMES: Final = ("Inbox", "Rollup", "TestToken", "Vault")
DEPLOYMENT_VARIABLE: Final = "FAIRSTRIKE_DEPLOYMENT"
DEPLOYMENT_DEFAULT: Final = "var/deployment.json"


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


@dataclass(frozen=True, slots=True)
class Deployment:
    """Checksummed addresses of one exchange; `blocks` says in which block each of its contracts was created."""

    chain_id: int
    token: str
    vault: str
    inbox: str
    rollup: str
    sequencer: str
    blocks: dict[str, int]

    @classmethod
    def read(cls, path: Path | None = None) -> Self:
        """From `path`, by default `deployment_path()`. Raises OSError, or msgspec.DecodeError for other content."""
        return msgspec.json.decode((path or deployment_path()).read_bytes(), type=cls)

    def write(self, path: Path | None = None) -> Path:
        """To `path`, by default `deployment_path()`; a reader sees the old file or the new one, whole."""
        path = path or deployment_path()
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"{path.name}.{os.getpid()}.part")
        part.write_bytes(msgspec.json.format(msgspec.json.encode(asdict(self)), indent=2) + b"\n")
        part.replace(path)
        return path


def deployment_path() -> Path:
    """What FAIRSTRIKE_DEPLOYMENT names, else var/deployment.json below the working directory."""
    return Path(os.environ.get(DEPLOYMENT_VARIABLE) or DEPLOYMENT_DEFAULT)
