"""The bonded set as L1 has it: who leads, who waits, from when somebody may take over."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from sequencer.contracts import load
from sequencer.l1.abi import Contract
from sequencer.l1.deploy import Deployment
from sequencer.l1.rpc import Rpc, to_bytes, to_hex, to_int
from sequencer.protocol.hashing import address_of, keccak, public_key_of, sign

SEQUENCERS: Final = Contract(load("Sequencers").abi)
ROLLUP: Final = Contract(load("Rollup").abi)
NOBODY: Final = "0x" + "00" * 20
KEY_TYPE: Final = keccak(b"fairstrike receipt key")
NEVER: Final = 2**256 - 1
_OF_THE_SET: Final = ("leader", "epoch", "members", "bond_min", "takeover_s", "silent_since")
CALL_GAS: Final = 500_000  # a take-over writes a queue of 16 anew


@dataclass(frozen=True, slots=True)
class Standing:
    """The set, seen by one address. Addresses in lower case; times in seconds of L1.

    `leader`: NOBODY while nobody leads. `members`: the queue, the leader first. `silent_since`: since when the leader
    has posted nothing, or left the inbox waiting too long. `takes_over_at`: from when `address` may, NEVER when it
    leads or is no member.
    """

    address: str
    leader: str
    epoch: int
    members: tuple[str, ...]
    bond_wei: int
    bond_min_wei: int
    takeover_s: int
    silent_since: int
    takes_over_at: int
    head_time_s: int

    @property
    def leads(self) -> bool:
        """Whether `address` may post."""
        return self.address == self.leader

    @property
    def is_member(self) -> bool:
        """Whether `address` is in the set."""
        return self.address in self.members


def standing(rpc: Rpc, at: Deployment, address: str, tag: int | str = "latest") -> Standing:
    """What L1 says at a block. Raises RpcError."""
    reads = [
        *((SEQUENCERS, at.sequencers, name, ()) for name in _OF_THE_SET),
        *((SEQUENCERS, at.sequencers, name, (address,)) for name in ("bond_of", "takes_over_at")),
    ]
    where = hex(tag) if isinstance(tag, int) else tag
    calls: list[tuple[str, Sequence[Any]]] = [
        ("eth_call", ({"to": to, "data": to_hex(contract.encode(name, *arguments))}, where))
        for contract, to, name, arguments in reads
    ]
    block, *answers = rpc.batch_strict([("eth_getBlockByNumber", (where, False)), *calls])
    first, epoch, members, bond_min, takeover_s, silent_since, bond, takes_over_at = (
        contract.function(name).decode_output(to_bytes(answer))
        for (contract, _, name, _), answer in zip(reads, answers, strict=True)
    )
    return Standing(
        address.lower(),
        str(first).lower(),
        int(epoch),
        tuple(str(one).lower() for one in members),
        int(bond),
        int(bond_min),
        int(takeover_s),
        int(silent_since),
        int(takes_over_at),
        to_int(block["timestamp"]) if block else 0,
    )


def set_receipt_key(at: Deployment, member: str, key: bytes) -> bytes:
    """Calldata by which `member` has its receipts signed by the private key `key` from now on."""
    words = (
        at.chain_id.to_bytes(32, "big"),
        *(to_bytes(one).rjust(32, b"\0") for one in (at.sequencers, member)),
    )
    signature = sign(keccak(KEY_TYPE + b"".join(words)), key)
    address = to_hex(address_of(public_key_of(key)))
    return SEQUENCERS.encode("set_receipt_key", address, signature[:32], signature[32:])


def receipt_keys(rpc: Rpc, at: Deployment, members: Sequence[str]) -> frozenset[bytes]:
    """Addresses that sign the receipts of these members now. Raises RpcError."""
    found = (SEQUENCERS.read(rpc, at.sequencers, "receipt_key_of", member) for member in members)
    return frozenset(to_bytes(str(one)) for one in found) - {bytes(20)}


def leader(rpc: Rpc, at: Deployment, tag: int | str = "latest") -> str:
    """Who may post, in lower case; NOBODY while nobody does."""
    return str(SEQUENCERS.read(rpc, at.sequencers, "leader", tag=tag)).lower()
