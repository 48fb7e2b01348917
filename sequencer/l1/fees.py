"""What a transaction offers to pay: by the chain's own past, within caps, whatever a node suggests.

The base fee of a block is a rule of the chain. The tip is what a node suggests, and is paid: it is held against what
blocks of late have taken (`eth_feeHistory`), and against a cap.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from sequencer.l1 import blobs
from sequencer.l1.errors import RpcRejected, RpcUnavailable
from sequencer.l1.rpc import Rpc, to_int
from sequencer.l1.signing import Content, Fees

GWEI: Final = 10**9
ETHER: Final = 10**18
HISTORY_BLOCKS: Final = 20
ABOVE_HISTORY: Final = 2  # times what blocks of late have taken, at most
BUMP_NUMERATOR: Final = 9  # a replacement pays at least 12.5 % more, above the 10 % that nodes ask for
BUMP_DENOMINATOR: Final = 8
BLOB_BUMP: Final = 2  # of a transaction with blobs, nodes want every fee doubled


@dataclass(frozen=True, slots=True)
class FeeCaps:
    """Wei a unit of gas: none is ever signed above `max_fee` and `tip`; of blob gas, above `blob_fee`. `tip_min` is
    offered even where nobody gives any.
    """

    max_fee: int = 500 * GWEI
    tip: int = 20 * GWEI
    blob_fee: int = 500 * GWEI
    tip_min: int = GWEI

    def within(self, fees: Fees) -> Fees:
        """The same, cut at the caps."""
        max_fee = min(fees.max_fee, self.max_fee)
        return Fees(max_fee, min(fees.tip, self.tip, max_fee), min(fees.blob_fee, self.blob_fee))


DEFAULT_CAPS: Final = FeeCaps()


@dataclass(frozen=True, slots=True)
class Market:
    """What L1 asks now, wei a unit: `base_fee` and `blob_base_fee` (0: not asked); `fees` to offer, within the caps."""

    base_fee: int
    blob_base_fee: int
    fees: Fees


def market(rpc: Rpc, caps: FeeCaps, has_blobs: bool = False) -> Market:
    """Twice the base fee (six full blocks of growth) and the tip, and twice the blobs' base fee. Raises RpcError."""
    calls: list[tuple[str, Sequence[Any]]] = [
        ("eth_getBlockByNumber", ("latest", False)),
        ("eth_maxPriorityFeePerGas", ()),
        ("eth_feeHistory", (hex(HISTORY_BLOCKS), "latest", [50])),
    ]
    if has_blobs:
        calls.append(("eth_blobBaseFee", ()))
    block, suggested, history, *blob = rpc.batch(calls)
    if isinstance(block, RpcRejected):
        raise block
    past = history if isinstance(history, dict) else {}
    base = to_int(block.get("baseFeePerGas") or "0x0")
    taken = sorted(to_int(row[0]) for row in past.get("reward") or () if row)
    bound = caps.tip if not past else ABOVE_HISTORY * (taken[len(taken) // 2] if taken else 0)
    tip = to_int(suggested) if isinstance(suggested, str) else 0
    tip = min(max(caps.tip_min, min(tip, bound)), caps.tip)
    max_fee = min(2 * base + tip, caps.max_fee)
    blob_base = 0
    if has_blobs:
        blob_base = _blob_base(rpc, blob[0], past)
    return Market(base, blob_base, Fees(max_fee, min(tip, max_fee), min(2 * blob_base, caps.blob_fee)))


def _blob_base(rpc: Rpc, said: Any, past: dict[str, Any]) -> int:
    """The blobs' base fee: what the node says, but not above twice the highest of late."""
    seen = [to_int(one) for one in past.get("baseFeePerBlobGas") or ()]
    if not isinstance(said, str):
        if seen:
            return seen[-1]
        if isinstance(said, RpcRejected):
            raise said
        raise RpcUnavailable(rpc.url, "no base fee of blobs")
    return min(to_int(said), ABOVE_HISTORY * max(seen)) if any(seen) else to_int(said)


def cost(content: Content, fees: Fees) -> int:
    """Wei that a key must have for a node to take this: the most that it can cost."""
    count = blobs.count(len(content.payload)) if content.payload else 0
    return content.value + content.gas * fees.max_fee + count * blobs.GAS_PER_BLOB * fees.blob_fee


def gwei(wei: int) -> str:
    """Wei a unit of gas, as people read it."""
    return f"{wei / GWEI:.3f}".rstrip("0").rstrip(".") + " gwei"


def ether(wei: int) -> str:
    """Wei as people read it."""
    return f"{wei / ETHER:.6f}".rstrip("0").rstrip(".") + " ETH"


def bumped(fees: Fees, suggested: Fees) -> Fees:
    """Fees of a replacement: at least 12.5 % above the old ones, rounded up, with blobs twice the old ones; and what
    the market asks for.
    """

    def raised(old: int) -> int:
        return BLOB_BUMP * old if fees.blob_fee else -(-old * BUMP_NUMERATOR // BUMP_DENOMINATOR)

    return Fees(
        max(raised(fees.max_fee), suggested.max_fee),
        max(raised(fees.tip), suggested.tip),
        max(raised(fees.blob_fee), suggested.blob_fee),
    )
