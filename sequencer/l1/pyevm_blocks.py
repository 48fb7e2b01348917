"""What the embedded chain consists of: blocks with their transactions and logs, the pool's entries, calls."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from eth.vm.forks.cancun.state import get_total_blob_gas
from eth_typing import Hash32


class ChainError(Exception):
    """A request that the chain refuses; `code` is JSON-RPC's."""

    def __init__(self, message: str, code: int = -32000, data: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.data = data


@dataclass(slots=True)
class Mined:
    """A transaction in its block."""

    transaction: Any
    sender: bytes
    hash: bytes
    index: int
    gas_used: int
    cumulative_gas: int
    status: int
    bloom: int
    contract: bytes | None
    logs: list[dict[str, Any]]
    gas_price: int


@dataclass(slots=True)
class Block:
    header: Any
    hash: Hash32
    mined: list[Mined]
    logs: list[dict[str, Any]]


@dataclass(slots=True)
class Pooled:
    transaction: Any
    sender: bytes
    nonce: int
    hash: bytes
    arrival: int


@dataclass(slots=True)
class Snapshot:
    head: int
    pool: dict[tuple[bytes, int], Pooled]
    offset_s: float


def hexint(value: int) -> str:
    return hex(value)


def hexbytes(value: bytes) -> str:
    return "0x" + value.hex()


@dataclass(frozen=True, slots=True)
class Call:
    sender: bytes
    to: bytes
    value: int
    data: bytes
    gas: int


def blob_gas(block: Block) -> int:
    return sum(get_total_blob_gas(item.transaction) for item in block.mined)


def matching_logs(
    blocks: list[Block],
    first: int,
    last: int,
    addresses: frozenset[str] | None,
    topics: list[frozenset[str] | None],
) -> Iterator[dict[str, Any]]:
    """Logs of blocks first..last that an eth_getLogs filter selects (lower-case hex)."""
    for number in range(first, last + 1):
        for entry in blocks[number].logs:
            if addresses is not None and entry["address"] not in addresses:
                continue
            have = entry["topics"]
            if len(have) >= len(topics) and all(
                want is None or have[i] in want for i, want in enumerate(topics)
            ):
                yield entry
